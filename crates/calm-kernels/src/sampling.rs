//! Drawing from scores on the host: one vectorised pass of exponentials, then a search inside one
//! block.

use rayon::prelude::*;

use calm_gemm::by_level;
use calm_gemm::lanes::{Lanes, exp, largest, replace_all};

/// Scores whose weights are summed together.
const BLOCK: usize = 256;

/// Turns the scores of a row into weights `exp((score - largest) / T)`, in place; within 2 units in
/// the last place of f32, and 1e-38 where they are smaller than that. `inverse_temperature` is 1/T.
/// Returns the sums of blocks of neighbouring weights, which a draw looks through first.
pub fn boltzmann_weights(scores: &mut [f32], inverse_temperature: f32) -> Vec<f32> {
    let mut sums = vec![0.0; scores.len().div_ceil(BLOCK)];
    // Infinity would make no number of the largest.
    weights(scores, inverse_temperature.min(1e30), &mut sums);
    sums
}

by_level! {
    fn weights(row: &mut [f32], scale: f32, sums: &mut [f32]) = weights_of_row[]
}

#[inline(always)]
fn weights_of_row<V: Lanes>(row: &mut [f32], scale: f32, sums: &mut [f32]) {
    let top = largest::<V>(row);
    let (many, one) = (V::splat(top), V::splat(scale));
    for (block, sum) in row.chunks_mut(BLOCK).zip(sums) {
        *sum = replace_all::<V>(
            block,
            |x| exp(x.sub(many).mul(one)),
            |x| exp((x - top) * scale),
        );
    }
}

/// The index at which the running sum of `weights` passes `uniform` (in [0, 1)) of their total;
/// `sums` are those of [`boltzmann_weights`]. An index of weight 0 is never drawn.
pub fn draw(weights: &[f32], sums: &[f32], uniform: f64) -> u32 {
    let total: f64 = sums.iter().map(|&sum| f64::from(sum)).sum();
    let mut left = uniform * total;
    let mut block = 0;
    for (i, &sum) in sums.iter().enumerate().filter(|(_, sum)| **sum > 0.0) {
        block = i;
        if left < f64::from(sum) {
            break;
        }
        left -= f64::from(sum);
    }
    // A block's sum and its running sum round differently: its last weight takes what is left.
    let from = block * BLOCK;
    let mut last = from;
    for (i, &weight) in weights[from..].iter().take(BLOCK).enumerate() {
        if weight > 0.0 {
            last = from + i;
            if left < f64::from(weight) {
                break;
            }
            left -= f64::from(weight);
        }
    }
    last as u32
}

/// One index for every row of `scores` (`uniforms.len()` rows), from softmax(score / T), on all
/// threads; the scores become weights.
pub fn draw_softmax(scores: &mut [f32], inverse_temperature: f32, uniforms: &[f64]) -> Vec<u32> {
    let width = scores.len() / uniforms.len().max(1);
    let one = |(row, &uniform): (&mut [f32], &f64)| {
        let sums = boltzmann_weights(row, inverse_temperature);
        draw(row, &sums, uniform)
    };
    if uniforms.len() < 2 {
        return scores
            .chunks_mut(width.max(1))
            .zip(uniforms)
            .map(one)
            .collect();
    }
    scores
        .par_chunks_mut(width)
        .zip(uniforms)
        .map(one)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The index found is that of the cumulative distribution in f64, but for uniforms within 1e-5
    /// of a border; widths around the block's.
    #[test]
    fn draws_invert_the_cumulative_distribution() {
        for width in [1, 2, 255, 256, 257, 1000] {
            let scores: Vec<f32> = (0..width)
                .map(|i| ((i * 37 % 101) as f32 * 0.07).sin() * 4.0)
                .collect();
            for temperature in [0.25, 1.0, 3.0] {
                let exact: Vec<f64> = scores
                    .iter()
                    .map(|&x| (f64::from(x) / temperature).exp())
                    .collect();
                let total: f64 = exact.iter().sum();
                let uniforms: Vec<f64> = (0..64).map(|i| (f64::from(i) + 0.37) / 64.0).collect();
                let mut rows = scores.repeat(uniforms.len());
                let drawn = draw_softmax(&mut rows, 1.0 / temperature as f32, &uniforms);
                for (&found, uniform) in drawn.iter().zip(uniforms) {
                    let below: f64 = exact[..found as usize].iter().sum::<f64>() / total;
                    let above = below + exact[found as usize] / total;
                    assert!(
                        below - 1e-5 <= uniform && uniform <= above + 1e-5,
                        "{width} {found}"
                    );
                }
            }
        }
    }

    #[test]
    fn ends_and_zeros() {
        let sums = [0.0, 3.0];
        let mut weights = vec![0.0; BLOCK + 3];
        (weights[BLOCK], weights[BLOCK + 2]) = (1.0, 2.0);
        assert_eq!(draw(&weights, &sums, 0.0), BLOCK as u32);
        assert_eq!(draw(&weights, &sums, 0.34), BLOCK as u32 + 2);
        assert_eq!(draw(&weights, &sums, 1.0 - 1e-16), BLOCK as u32 + 2);
        let mut scores = [0.0, 5.0, 5.0 - 1e-3];
        assert_eq!(
            draw_softmax(&mut scores, f32::INFINITY, &[0.9]),
            [1],
            "T = 0 but for ties"
        );
    }
}
