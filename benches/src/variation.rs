//! How far a sampler is from the distribution that it stands for, where outcomes can be enumerated.

use calm_likelihood_free::PoolSampler;
use calm_nn::RandomStream;

/// A distribution over numbered outcomes, the most probable first.
#[derive(Clone, Debug)]
pub struct Enumerable {
    probabilities: Vec<f64>,
    /// Running sums.
    up_to: Vec<f64>,
}

/// Total variation, estimated.
#[derive(Clone, Copy, Debug)]
pub struct Variation {
    /// To `P^n / Z`. Which side a group of outcomes is off to is told by one half of the pools and by
    /// how much by the other, so that scatter does not count as distance; near 0 it may come out below.
    pub total: f64,
    /// Its standard error.
    pub error: f64,
    /// Draws a sample, on average.
    pub draws: f64,
    /// Seconds a sample, draws included.
    pub seconds: f64,
}

/// Outcomes that are told apart one by one; behind them a group reaches 15 % farther than the one before.
const ALONE: usize = 60;
/// Parts of the pools, from whose scatter the error is made; even.
const PARTS: usize = 20;

impl Enumerable {
    /// With weights in any order, which are made to sum to 1.
    ///
    /// # Panics
    /// Without a weight above 0.
    pub fn new(mut weights: Vec<f64>) -> Self {
        weights.sort_by(|a, b| b.total_cmp(a));
        let sum: f64 = weights.iter().sum();
        assert!(sum > 0.0, "a distribution without weight");
        let probabilities: Vec<f64> = weights.iter().map(|w| w / sum).collect();
        let mut so_far = 0.0;
        let up_to = probabilities.iter().map(|p| {
            so_far += p;
            so_far
        });
        Self {
            up_to: up_to.collect(),
            probabilities,
        }
    }

    /// `P(i) ~ i^-exponent` over `outcomes`.
    pub fn zipf(outcomes: usize, exponent: f64) -> Self {
        Self::new((1..=outcomes).map(|i| (i as f64).powf(-exponent)).collect())
    }

    /// In nats.
    pub fn entropy(&self) -> f64 {
        let terms = self.probabilities.iter().filter(|&&p| p > 0.0);
        -terms.map(|p| p * p.ln()).sum::<f64>()
    }

    /// Probability that two draws are equal.
    pub fn collision(&self) -> f64 {
        self.probabilities.iter().map(|p| p * p).sum()
    }

    /// One outcome.
    fn draw(&self, random: &mut RandomStream) -> u32 {
        let at = random.unit();
        let index = self.up_to.partition_point(|&sum| sum <= at);
        index.min(self.up_to.len() - 1) as u32
    }

    /// Total variation between what `sampler` chooses and `P^power / Z`, from so many pools.
    ///
    /// Of every pool the sampler's probabilities are taken, not a choice. Rare outcomes are summed in
    /// groups of neighbours: what a rule does to an outcome depends on its probability alone, so all
    /// of a group are off to the same side, but for a group in which that side changes.
    pub fn variation<S: PoolSampler>(
        &self,
        sampler: &S,
        power: i32,
        pools: usize,
        seed: u64,
    ) -> Variation {
        let mut edges: Vec<usize> = (0..self.probabilities.len().min(ALONE)).collect();
        let mut edge = ALONE as f64;
        while (edge as usize) < self.probabilities.len() {
            edges.push(edge as usize);
            edge *= 1.15;
        }
        let group = |outcome: u32| edges.partition_point(|&edge| edge <= outcome as usize) - 1;
        let sharpened: Vec<f64> = self.probabilities.iter().map(|p| p.powi(power)).collect();
        let z: f64 = sharpened.iter().sum();
        let mut exact = vec![0.0; edges.len()];
        for (outcome, p) in sharpened.iter().enumerate() {
            exact[group(outcome as u32)] += p / z;
        }
        let mut random = RandomStream::new(seed);
        let per_part = pools.div_ceil(PARTS);
        let mut draws = 0;
        let begun = std::time::Instant::now();
        let parts: Vec<Vec<f64>> = (0..PARTS)
            .map(|_| {
                let mut chosen = vec![0.0; edges.len()];
                for _ in 0..per_part {
                    let mut pool = Vec::new();
                    while let more @ 1.. = sampler.lacking(&pool) {
                        pool.extend((0..more).map(|_| self.draw(&mut random)));
                    }
                    draws += pool.len();
                    for (index, p) in sampler.probabilities(&pool) {
                        chosen[group(pool[index])] += p / per_part as f64;
                    }
                }
                chosen
            })
            .collect();
        let seconds = begun.elapsed().as_secs_f64();
        let off = |at: usize, half: usize, without: Option<usize>| {
            let kept = (half..PARTS)
                .step_by(2)
                .filter(|&part| Some(part) != without);
            let (sum, count) = kept.fold((0.0, 0.0), |(sum, count), part| {
                (sum + parts[part][at], count + 1.0)
            });
            sum / count - exact[at]
        };
        // Without one part each: the jackknife's error.
        let total = |without: Option<usize>| {
            let each = (0..edges.len()).map(|at| {
                let [a, b] = [0, 1].map(|half| off(at, half, without));
                (a.signum() * b + b.signum() * a) / 2.0
            });
            each.sum::<f64>() / 2.0
        };
        let left_out: Vec<f64> = (0..PARTS).map(|part| total(Some(part))).collect();
        let mean = left_out.iter().sum::<f64>() / PARTS as f64;
        let scatter: f64 = left_out.iter().map(|x| (x - mean).powi(2)).sum();
        let samples = (per_part * PARTS) as f64;
        Variation {
            total: total(None),
            error: (scatter * (PARTS - 1) as f64 / PARTS as f64).sqrt(),
            draws: draws as f64 / samples,
            seconds: seconds / samples,
        }
    }
}
