//! Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy
//! as 1, 2, 3"), and normal numbers from them.
//!
//! Number i of a key is a function of key and i alone, so that a kernel can make the numbers it
//! needs where it needs them and make them again in the backward pass, and nothing is stored.

use rayon::prelude::*;

use calm_gemm::simd;

/// Blocks of four words made together.
const BLOCKS: usize = 64;

/// Numbers made together.
pub(crate) const BATCH: usize = 4 * BLOCKS;

/// `n` numbers of the standard normal distribution: number 0 and on of `key`.
pub fn normals(key: u64, n: usize) -> Vec<f32> {
    let mut out = vec![0.0; n];
    const PART: usize = 64 * BATCH;
    out.par_chunks_mut(PART)
        .enumerate()
        .for_each(|(part, out)| fill_normals(key, (part * PART) as u64, out));
    out
}

/// Fills `out` with the normal numbers `first ..` of `key`.
///
/// # Panics
/// Where `first` is no multiple of 4.
pub(crate) fn fill_normals(key: u64, first: u64, out: &mut [f32]) {
    assert!(first.is_multiple_of(4), "number {first} is inside a block");
    let mut batch = [0.0; BATCH];
    for (i, out) in out.chunks_mut(BATCH).enumerate() {
        normal_batch(key, first / 4 + (i * BLOCKS) as u64, &mut batch);
        out.copy_from_slice(&batch[..out.len()]);
    }
}

/// One block: ten rounds over a counter of 128 bits, of which 64 are used.
#[inline(always)]
fn philox(key: u64, counter: u64) -> [u32; 4] {
    let mut x = [counter as u32, (counter >> 32) as u32, 0, 0];
    let mut k = [key as u32, (key >> 32) as u32];
    for _ in 0..10 {
        let a = u64::from(x[0]) * 0xD251_1F53;
        let b = u64::from(x[2]) * 0xCD9E_8D57;
        x = [
            (b >> 32) as u32 ^ x[1] ^ k[0],
            b as u32,
            (a >> 32) as u32 ^ x[3] ^ k[1],
            a as u32,
        ];
        k = [
            k[0].wrapping_add(0x9E37_79B9),
            k[1].wrapping_add(0xBB67_AE85),
        ];
    }
    x
}

simd! {
    // Box and Muller: two words give a radius and an angle, and so two normal numbers.
    fn normal_batch(key: u64, first: u64, out: &mut [f32; BATCH]) {
        let mut words = [[0u32; BLOCKS]; 4];
        for i in 0..BLOCKS {
            let block = philox(key, first.wrapping_add(i as u64));
            for (word, value) in words.iter_mut().zip(block) {
                word[i] = value;
            }
        }
        let mut values = [[0.0f32; BLOCKS]; 4];
        for pair in 0..2 {
            for i in 0..BLOCKS {
                let (c, s) = box_muller(words[2 * pair][i], words[2 * pair + 1][i]);
                values[2 * pair][i] = c;
                values[2 * pair + 1][i] = s;
            }
        }
        for i in 0..BLOCKS {
            for (j, values) in values.iter().enumerate() {
                out[4 * i + j] = values[i];
            }
        }
    }
}

#[inline(always)]
fn box_muller(radius: u32, angle: u32) -> (f32, f32) {
    // In (0, 1]; the smallest is 2^-33, so that no number exceeds 6.8.
    let u = (radius as f32 + 0.5) * (1.0 / 4_294_967_296.0);
    let r = (-2.0 * ln(u)).sqrt();
    // A quadrant, and an eighth of a turn to either side of its middle.
    let quadrant = angle >> 30;
    let part = ((angle << 2) >> 8) as f32 * (1.0 / 16_777_216.0) - 0.5;
    let x = part * std::f32::consts::FRAC_PI_2;
    let square = x * x;
    let sin =
        x * (1.0 + square * (-1.666_666_5e-1 + square * (8.333_216e-3 - square * 1.951_529_6e-4)));
    let cos = 1.0
        + square
            * (-0.5
                + square * (4.166_664_6e-2 + square * (-1.388_731_6e-3 + square * 2.443_315_7e-5)));
    let swap = quadrant & 1 == 1;
    let (a, b) = if swap { (-sin, cos) } else { (cos, sin) };
    let sign = if quadrant & 2 == 2 { -1.0 } else { 1.0 };
    (r * sign * a, r * sign * b)
}

/// The natural logarithm of a normal positive number, within 1e-7 relative.
#[inline(always)]
pub(crate) fn ln(x: f32) -> f32 {
    let bits = x.to_bits();
    // Mantissa in [sqrt(1/2), sqrt(2)).
    let shifted = bits.wrapping_sub(0x3F35_04F3);
    let exponent = (shifted as i32) >> 23;
    let m = f32::from_bits(bits.wrapping_sub((exponent as u32) << 23)) - 1.0;
    let e = exponent as f32;
    let square = m * m;
    let p = 7.037_683_6e-2;
    let p = p * m - 1.151_461e-1;
    let p = p * m + 1.167_699_9e-1;
    let p = p * m - 1.242_014_1e-1;
    let p = p * m + 1.424_932_3e-1;
    let p = p * m - 1.666_805_7e-1;
    let p = p * m + 2.000_071_5e-1;
    let p = p * m - 2.499_999_4e-1;
    let p = p * m + 3.333_333e-1;
    let y = p * m * square + e * -2.121_944_4e-4 - 0.5 * square;
    m + y + e * 0.693_359_4
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers published with the generator (Random123, kat_vectors).
    #[test]
    fn blocks_are_those_of_philox() {
        assert_eq!(
            philox(0, 0),
            [0x6627_E8D5, 0xE169_C58D, 0xBC57_AC4C, 0x9B00_DBD8]
        );
    }

    #[test]
    fn logarithms_are_close() {
        let mut x = 1e-10f32;
        while x < 1e3 {
            let expected = f64::from(x).ln();
            let error = (f64::from(ln(x)) - expected).abs();
            assert!(
                error <= 2e-7 * expected.abs().max(1e-1),
                "ln {x}: {error:e}"
            );
            x *= 1.000_37;
        }
    }

    #[test]
    fn numbers_depend_on_their_place_alone() {
        let all = normals(7, 5000);
        let mut some = vec![0.0; 777];
        fill_normals(7, 1000, &mut some);
        assert_eq!(some, all[1000..1777]);
        assert_ne!(normals(8, 100), all[..100]);
    }

    /// Moments 1 to 4 of 2^20 numbers within five standard errors, and neighbours uncorrelated:
    /// error rate below 3e-6.
    #[test]
    fn numbers_are_normal() {
        let n = 1 << 20;
        let x: Vec<f64> = normals(3, n).into_iter().map(f64::from).collect();
        let mean = |f: &dyn Fn(usize) -> f64, n: usize| (0..n).map(f).sum::<f64>() / n as f64;
        let bound = |variance: f64| 5.0 * (variance / n as f64).sqrt();
        assert!(mean(&|i| x[i], n).abs() < bound(1.0));
        assert!((mean(&|i| x[i].powi(2), n) - 1.0).abs() < bound(2.0));
        assert!(mean(&|i| x[i].powi(3), n).abs() < bound(15.0));
        assert!((mean(&|i| x[i].powi(4), n) - 3.0).abs() < bound(96.0));
        for lag in [1, 2, 3, 4, 64] {
            assert!(mean(&|i| x[i] * x[i + lag], n - lag).abs() < bound(1.0));
        }
        // Tails: P(|x| > 3) = 0.0026998.
        let tail = mean(&|i| f64::from(u8::from(x[i].abs() > 3.0)), n);
        assert!((tail - 0.002_699_8).abs() < bound(0.0027), "{tail}");
    }
}
