//! Counter-based random numbers on the host: the same values on every device and every resume.

use rand::{Rng, SeedableRng};
use rand_distr::{Distribution, StandardNormal, StandardUniform};
use rand_xoshiro::Xoshiro256PlusPlus;
use rayon::prelude::*;

/// Values that one generator of a stream produces before the next one is seeded.
const BLOCK: usize = 8192;

/// Combines two 64-bit words into one well-mixed word (the finaliser of SplitMix64, twice).
///
/// Used to derive independent seeds: `mix(run_seed, step)`, `mix(seed, name)`.
pub fn mix(a: u64, b: u64) -> u64 {
    let finish = |mut z: u64| {
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    };
    let a = finish(a.wrapping_add(0x9E37_79B9_7F4A_7C15));
    finish(a ^ b.wrapping_add(0xD1B5_4A32_D192_ED03))
}

/// A reproducible stream of random numbers.
///
/// A stream is a key and a position. Every request takes the next blocks of the stream, each
/// block seeded from `(key, block)`, so that large requests are filled by several threads and
/// still give the same values on any number of them.
#[derive(Clone, Debug)]
pub struct RandomStream {
    key: u64,
    block: u64,
}

impl RandomStream {
    /// The stream of `seed`, at its start.
    pub fn new(seed: u64) -> Self {
        Self {
            key: mix(seed, 0x0043_414C_4D00),
            block: 0,
        }
    }

    /// `n` values from the standard normal distribution.
    pub fn normal(&mut self, n: usize) -> Vec<f32> {
        self.fill(n, |rng, out| {
            for value in out {
                *value = StandardNormal.sample(rng);
            }
        })
    }

    /// `n` values uniform in `[0, 1)`.
    pub fn uniform(&mut self, n: usize) -> Vec<f32> {
        self.fill(n, |rng, out| {
            for value in out {
                *value = StandardUniform.sample(rng);
            }
        })
    }

    /// A key for numbers that are made elsewhere (see `calm_kernels::normals`).
    pub fn key(&mut self) -> u64 {
        self.block += 1;
        mix(!self.key, self.block - 1)
    }

    /// One value uniform in `[0, 1)` with 53 random bits.
    pub fn unit(&mut self) -> f64 {
        let mut rng = self.generator(self.block);
        self.block += 1;
        StandardUniform.sample(&mut rng)
    }

    /// One integer uniform in `0..bound`.
    ///
    /// # Panics
    /// Where `bound` is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        assert!(bound > 0, "an integer below 0 was asked for");
        let mut rng = self.generator(self.block);
        self.block += 1;
        // Lemire's multiply-shift; its bias is below bound / 2^64.
        ((u128::from(rng.next_u64()) * bound as u128) >> 64) as usize
    }

    fn generator(&self, block: u64) -> Xoshiro256PlusPlus {
        Xoshiro256PlusPlus::seed_from_u64(mix(self.key, block))
    }

    fn fill(
        &mut self,
        n: usize,
        fill: impl Fn(&mut Xoshiro256PlusPlus, &mut [f32]) + Sync,
    ) -> Vec<f32> {
        let first = self.block;
        self.block += n.div_ceil(BLOCK) as u64;
        let mut out = vec![0.0; n];
        out.par_chunks_mut(BLOCK)
            .enumerate()
            .for_each(|(i, chunk)| fill(&mut self.generator(first + i as u64), chunk));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_values_and_another_seed_others() {
        let (mut a, mut b) = (RandomStream::new(3), RandomStream::new(3));
        assert_eq!(a.normal(20_000), b.normal(20_000));
        assert_ne!(a.normal(4), RandomStream::new(4).normal(4));
    }

    #[test]
    fn requests_do_not_repeat_values() {
        let mut stream = RandomStream::new(1);
        assert_ne!(stream.uniform(8), stream.uniform(8));
    }

    /// Mean and variance of 200,000 draws within 5 standard errors: error rate below 2e-6.
    #[test]
    fn normal_moments() {
        let x = RandomStream::new(11).normal(200_000);
        let n = x.len() as f64;
        let mean = x.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
        let var = x
            .iter()
            .map(|&v| (f64::from(v) - mean).powi(2))
            .sum::<f64>()
            / n;
        assert!(mean.abs() < 5.0 / n.sqrt(), "mean {mean}");
        assert!((var - 1.0).abs() < 5.0 * (2.0 / n).sqrt(), "variance {var}");
    }

    /// Chi-square with 9 degrees of freedom below 40: error rate below 1e-5.
    #[test]
    fn integers_are_uniform() {
        let mut stream = RandomStream::new(5);
        let mut counts = [0f64; 10];
        for _ in 0..20_000 {
            counts[stream.below(10)] += 1.0;
        }
        let chi: f64 = counts.iter().map(|c| (c - 2000.0).powi(2) / 2000.0).sum();
        assert!(chi < 40.0, "chi-square {chi}");
    }
}
