//! Vectors rounded to small integers, with what the bounds of their products need.

use super::products::{SHIFT, WORD};
use crate::simd;

/// Relative slack for the f32 arithmetic of bounds and scores.
const SLACK: f32 = 1e-5;

/// Rows rounded each by its own step.
pub(super) struct Rows {
    /// `[rows, words, WORD]`
    pub(super) numbers: Vec<i8>,
    /// Per row, what the table's [`SHIFT`] adds to all products.
    pub(super) offset: Vec<i32>,
    /// Per row, `|x|` and `|x - x'|` in steps: what the bound takes of an entry's rest and size.
    pub(super) of_rest: Vec<f32>,
    pub(super) of_size: Vec<f32>,
}

impl Rows {
    /// Rounds rows `[n, d]` to numbers of `most` at most.
    pub(super) fn new(x: &[f32], d: usize, most: i8) -> Self {
        let words = d.div_ceil(WORD);
        let count = x.len() / d;
        let mut rows = Self {
            numbers: vec![0; count * words * WORD],
            offset: Vec::with_capacity(count),
            of_rest: Vec::with_capacity(count),
            of_size: Vec::with_capacity(count),
        };
        for (x, numbers) in x
            .chunks_exact(d)
            .zip(rows.numbers.chunks_exact_mut(words * WORD))
        {
            let Rounded { size, rest, .. } = round(x, most, &mut numbers[..d]);
            let total: i32 = numbers.iter().map(|&q| i32::from(q)).sum();
            rows.offset.push(SHIFT * total);
            // |x| <= |x'| + |x - x'|
            let whole = size + rest;
            rows.of_rest.push(whole * (1.0 + SLACK));
            rows.of_size.push(rest * (1.0 + SLACK) + whole * SLACK);
        }
        rows
    }
}

/// A vector rounded to multiples of `scale`, with norms in multiples of `scale` too.
pub(super) struct Rounded {
    pub(super) scale: f32,
    /// Of the rounded vector.
    pub(super) size: f32,
    /// Of the difference.
    pub(super) rest: f32,
}

/// Rounds a vector so that its largest number becomes `most`.
pub(super) fn round(x: &[f32], most: i8, to: &mut [i8]) -> Rounded {
    // The smallest normal number, so that its reciprocal is finite.
    let scale = (largest(x) / f32::from(most)).max(f32::MIN_POSITIVE);
    let [size, rest] = quantize(x, 1.0 / scale, to);
    Rounded {
        scale,
        size: size.sqrt(),
        rest: rest.sqrt(),
    }
}

simd! {
    fn largest(x: &[f32]) -> f32 {
        let mut lanes = [0.0f32; 32];
        for part in x.chunks(32) {
            for (lane, &x) in lanes.iter_mut().zip(part) {
                let size = x.abs();
                *lane = if size > *lane { size } else { *lane };
            }
        }
        lanes.into_iter().fold(0.0, f32::max)
    }
}

simd! {
    // `steps * x` rounded, and the squared norms of that and of what it lacks.
    fn quantize(x: &[f32], steps: f32, to: &mut [i8]) -> [f32; 2] {
        const MAGIC: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer.
        let (mut sizes, mut rests) = ([0.0f32; 32], [0.0f32; 32]);
        for (x, to) in x.chunks(32).zip(to.chunks_mut(32)) {
            let lanes = sizes.iter_mut().zip(&mut rests);
            for ((&x, to), (size, rest)) in x.iter().zip(to).zip(lanes) {
                let scaled = x * steps;
                let shifted = scaled + MAGIC;
                let rounded = shifted - MAGIC;
                *to = shifted.to_bits() as i8;
                *size += rounded * rounded;
                *rest += (scaled - rounded) * (scaled - rounded);
            }
        }
        [sizes.iter().sum(), rests.iter().sum()]
    }
}
