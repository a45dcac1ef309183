//! Weights of 8 bits: whole numbers, and a scale for each block of neighbours in depth.

use std::ops::Range;

use rayon::prelude::*;

use super::few::{Kernels, MOST_ROWS};
use super::{Mat, Order, Right};
use crate::simd;

/// A matrix of whole numbers from -127 to 127, a scale for every block of neighbours in a column or, in
/// a transposed view, in a row. A product adds up a block's numbers before it scales them once.
#[derive(Clone, Copy, Debug)]
pub struct Int8<'a> {
    numbers: Mat<'a, i8>,
    /// One for each block.
    scales: Mat<'a, f32>,
    /// Numbers of a block, down and across; one of both is 1.
    block: [usize; 2],
}

impl<'a> Int8<'a> {
    /// A row-major matrix of `dims` with a row-major matrix of scales, one for each block of so many
    /// numbers down and across.
    ///
    /// # Panics
    /// Where blocks are wider than 1 both ways or don't fill the matrix, or the slices are not of its
    /// sizes.
    pub fn new(numbers: &'a [i8], scales: &'a [f32], dims: [usize; 2], block: [usize; 2]) -> Self {
        let [down, across] = blocks(dims, block);
        assert!(
            numbers.len() == dims[0] * dims[1] && scales.len() == down * across,
            "{} numbers and {} scales for {dims:?} in blocks of {block:?}",
            numbers.len(),
            scales.len()
        );
        Self {
            numbers: Mat::new(numbers, dims[0], dims[1]),
            scales: Mat::new(scales, down, across),
            block,
        }
    }

    fn scale(&self, row: usize, column: usize) -> f32 {
        let Mat {
            row_stride,
            col_stride,
            ..
        } = self.scales;
        self.scales.data[row * row_stride + column * col_stride]
    }

    /// The blocks of a product's depth.
    fn in_depth(&self) -> usize {
        assert_eq!(self.block[1], 1, "blocks of a right factor go down");
        self.block[0]
    }
}

/// Blocks of a matrix, down and across.
fn blocks(dims: [usize; 2], block: [usize; 2]) -> [usize; 2] {
    let fit = |i: usize| block[i] > 0 && dims[i].is_multiple_of(block[i]);
    assert!(
        block.contains(&1) && fit(0) && fit(1),
        "blocks of {block:?} in a matrix of {dims:?}"
    );
    [dims[0] / block[0], dims[1] / block[1]]
}

/// Rounds a row-major matrix of `dims` to what [`Int8::new`] takes: a block's largest number becomes
/// 127. Where a block holds what is not finite, its scale is not finite either.
///
/// # Panics
/// As [`Int8::new`].
pub fn round_to_int8(data: &[f32], dims: [usize; 2], block: [usize; 2]) -> (Vec<i8>, Vec<f32>) {
    let [down, across] = blocks(dims, block);
    assert_eq!(data.len(), dims[0] * dims[1], "numbers of {dims:?}");
    let (mut numbers, mut scales) = (vec![0; data.len()], vec![0.0; down * across]);
    if data.is_empty() {
        return (numbers, scales);
    }
    let strip = block[0] * dims[1];
    let strips = data
        .par_chunks_exact(strip)
        .zip(numbers.par_chunks_exact_mut(strip));
    strips
        .zip(scales.par_chunks_exact_mut(across))
        .for_each(|((from, to), scales)| {
            for row in from.chunks_exact(dims[1]) {
                raise_all(row, block[1], scales);
            }
            for (row, to) in from.chunks_exact(dims[1]).zip(to.chunks_exact_mut(dims[1])) {
                round_all(row, block[1], scales, to);
            }
            scales.iter_mut().for_each(|scale| *scale /= 127.0);
        });
    (numbers, scales)
}

simd! {
    // Raises peaks to the sizes of a row's numbers, `width` of them each.
    fn raise_all(row: &[f32], width: usize, peaks: &mut [f32]) {
        // By their bits, in which what is no number is above all numbers.
        let higher = |peak: f32, x: f32| f32::from_bits(peak.to_bits().max(x.abs().to_bits()));
        if width == 1 {
            for (peak, &x) in peaks.iter_mut().zip(row) {
                *peak = higher(*peak, x);
            }
        } else {
            for (peak, row) in peaks.iter_mut().zip(row.chunks_exact(width)) {
                *peak = row.iter().fold(*peak, |peak, &x| higher(peak, x));
            }
        }
    }
}

simd! {
    // A row's numbers as parts of 127 of their peaks.
    fn round_all(row: &[f32], width: usize, peaks: &[f32], to: &mut [i8]) {
        // The reciprocals of the smallest peaks are infinite.
        const UP: f32 = (1u64 << 60) as f32;
        let steps = |peak: f32| match peak {
            0.0 => 0.0,
            small if small < 1e-30 => 127.0 / (small * UP) * UP,
            peak => 127.0 / peak,
        };
        // Of the smallest peaks the reciprocal is infinite, and `as` saturates.
        let round = |x: f32, steps: f32| (x * steps).round_ties_even().clamp(-127.0, 127.0) as i8;
        if width == 1 {
            for ((to, &x), &peak) in to.iter_mut().zip(row).zip(peaks) {
                *to = round(x, steps(peak));
            }
        } else {
            let blocks = to.chunks_exact_mut(width).zip(row.chunks_exact(width));
            for ((to, row), &peak) in blocks.zip(peaks) {
                let steps = steps(peak);
                for (to, &x) in to.iter_mut().zip(row) {
                    *to = round(x, steps);
                }
            }
        }
    }
}

simd! {
    // `sums += scales * parts`
    fn add_scaled(parts: &[f32], scales: &[f32], sums: &mut [f32]) {
        for ((sum, &part), &scale) in sums.iter_mut().zip(parts).zip(scales) {
            *sum += scale * part;
        }
    }
}

simd! {
    fn scale_all(to: &mut [f32], scales: &[f32]) {
        for (to, &scale) in to.iter_mut().zip(scales) {
            *to *= scale;
        }
    }
}

/// Columns whose sums are scaled at once: what they read stays in the first cache.
const COLUMNS: usize = 16;

impl Right for Int8<'_> {
    fn dims(&self) -> [usize; 2] {
        self.numbers.dims()
    }

    fn t(self) -> Self {
        Self {
            numbers: self.numbers.t(),
            scales: self.scales.t(),
            block: [self.block[1], self.block[0]],
        }
    }

    fn order(&self) -> Option<Order> {
        self.numbers.order()
    }

    fn plain(&self) -> Option<Mat<'_>> {
        None
    }

    fn unit(&self) -> usize {
        self.in_depth()
    }

    fn add_rows(&self, x: Mat<'_>, depth: Range<usize>, sums: &mut [f32]) {
        let (block, cols) = (self.in_depth(), self.numbers.cols);
        let mut parts = vec![0.0; x.rows * cols];
        for first in depth.step_by(block) {
            parts.fill(0.0);
            let left = (&x.data[first..], x.row_stride, block);
            let stride = self.numbers.row_stride;
            let right = (&self.numbers.data[first * stride..], stride);
            i8::add_rows(x.rows, left, right, (&mut parts, cols));
            let scales = &self.scales.data[first / block * self.scales.row_stride..][..cols];
            let rows = sums.chunks_exact_mut(cols).zip(parts.chunks_exact(cols));
            rows.for_each(|(sums, parts)| add_scaled(parts, scales, sums));
        }
    }

    fn add_columns(&self, x: Mat<'_>, columns: Range<usize>, sums: &mut [f32]) {
        let (block, width) = (self.in_depth(), columns.len());
        let mut parts = [0.0; MOST_ROWS * COLUMNS];
        for first in columns.clone().step_by(COLUMNS) {
            let some = first..columns.end.min(first + COLUMNS);
            let parts = &mut parts[..x.rows * some.len()];
            for depth in (0..x.cols).step_by(block) {
                parts.fill(0.0);
                let left = (&x.data[depth..], x.row_stride, block);
                let stride = self.numbers.col_stride;
                let right = (&self.numbers.data[first * stride + depth..], stride);
                i8::add_dots(x.rows, left, right, (&mut *parts, some.len()));
                for (i, parts) in parts.chunks_exact(some.len()).enumerate() {
                    let sums = &mut sums[i * width + first - columns.start..];
                    for ((sum, part), column) in sums.iter_mut().zip(parts).zip(some.clone()) {
                        *sum += self.scale(depth / block, column) * part;
                    }
                }
            }
        }
    }

    fn widen(&self, row: usize, columns: Range<usize>, to: &mut [f32]) {
        self.numbers.widen(row, columns.clone(), to);
        let [down, across] = self.block;
        if across == 1 && self.scales.col_stride == 1 {
            let scales = &self.scales.data[row / down * self.scales.row_stride..];
            return scale_all(to, &scales[columns]);
        }
        let mut to = to;
        let mut from = columns.start;
        while from < columns.end {
            let end = (from / across + 1) * across;
            let (block, rest) = to.split_at_mut(end.min(columns.end) - from);
            let scale = self.scale(row / down, from / across);
            block.iter_mut().for_each(|x| *x *= scale);
            (to, from) = (rest, end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::product::gemm_on;
    use crate::product::tests::{SHAPES, numbers, plain};
    use crate::{MatMut, MatmulPrecision, Update};

    /// The largest block of a depth, up to 64.
    fn block_of(depth: usize) -> usize {
        let fits = |n: &usize| depth.is_multiple_of(*n);
        (1..=64).rev().find(fits).expect("1 does")
    }

    #[test]
    fn products_are_those_of_what_the_numbers_stand_for() {
        for [m, n, k] in SHAPES {
            let (x, y) = (numbers(m * k, 1), numbers(k * n, 2));
            let a = Mat::new(&x, m, k);
            for by_rows in [true, false] {
                let depth = block_of(k);
                let (dims, block) = match by_rows {
                    true => ([k, n], [depth, 1]),
                    false => ([n, k], [1, depth]),
                };
                let (whole, scales) = round_to_int8(&y, dims, block);
                let stored = Int8::new(&whole, &scales, dims, block);
                let wide: Vec<f32> = (0..dims[0])
                    .flat_map(|row| stored.row(row).into_owned())
                    .collect();
                let wide = Mat::new(&wide, dims[0], dims[1]);
                let (b, wide) = match by_rows {
                    true => (stored, wide),
                    false => (stored.t(), wide.t()),
                };
                let expected = plain(a, wide);
                for (threads, into) in [(1, Update::Overwrite), (2, Update::Add), (3, Update::Add)]
                {
                    let mut c = vec![2.0f32; m * n];
                    let target = MatMut::new(&mut c, m, n);
                    gemm_on(threads, a, b, target, into, MatmulPrecision::F32);
                    let start = if into == Update::Add { 2.0 } else { 0.0 };
                    for (e, (&found, &(sum, size))) in c.iter().zip(&expected).enumerate() {
                        let off = (f64::from(found) - start - sum).abs();
                        assert!(
                            off <= 1e-6 * (size + 1.0),
                            "{m} x {n} x {k} by rows {by_rows}, {threads} threads: entry {e} is \
                             {found}, expected {sum}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn rounding_is_to_the_nearest_step_of_a_block() {
        for (dims, block) in [([12, 10], [4, 1]), ([12, 10], [1, 5]), ([3, 4], [1, 1])] {
            let mut data = numbers(dims[0] * dims[1], 7);
            // A block of zeros alone, and sizes far apart.
            for row in data.chunks_mut(dims[1]).take(block[0]) {
                row[..block[1]].fill(0.0);
            }
            for row in data.chunks_mut(dims[1]).rev().take(block[0]) {
                row.iter_mut().for_each(|x| *x *= 1e-30);
            }
            let (whole, scales) = round_to_int8(&data, dims, block);
            let rounded = Int8::new(&whole, &scales, dims, block);
            let mut peaks = vec![0; scales.len()];
            for (i, &x) in data.iter().enumerate() {
                let (row, column) = (i / dims[1], i % dims[1]);
                let at = row / block[0] * (dims[1] / block[1]) + column / block[1];
                let (scale, q) = (scales[at], whole[i]);
                peaks[at] = peaks[at].max(q.unsigned_abs());
                let back = rounded.row(row)[column];
                assert_eq!(back, scale * f32::from(q), "{dims:?} {block:?} at {i}");
                assert!((back - x).abs() <= 0.501 * scale, "{x} became {back}");
            }
            assert!(
                peaks.iter().all(|&peak| peak == 127 || peak == 0),
                "{peaks:?}"
            );
            assert_eq!(peaks.iter().filter(|&&peak| peak == 0).count(), 1);
        }
    }

    #[test]
    fn what_is_not_finite_stays_visible() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut data = numbers(16, 3);
            data[5] = bad;
            let (whole, scales) = round_to_int8(&data, [4, 4], [4, 1]);
            assert!(!scales[1].is_finite() && scales[0].is_finite());
            let b = Int8::new(&whole, &scales, [4, 4], [4, 1]);
            for rows in [1, 9] {
                let (x, mut c) = (vec![1.0; rows * 4], vec![0.0; rows * 4]);
                let target = MatMut::new(&mut c, rows, 4);
                let a = Mat::new(&x, rows, 4);
                gemm_on(1, a, b, target, Update::Overwrite, MatmulPrecision::F32);
                assert!(!c[1].is_finite() && c[0].is_finite(), "{rows} rows: {c:?}");
            }
        }
    }

    #[test]
    fn blocks_that_do_not_fit_are_refused() {
        let refused = |dims: [usize; 2], block: [usize; 2]| {
            std::panic::catch_unwind(|| round_to_int8(&[1.0; 12], dims, block)).is_err()
        };
        assert!(!refused([4, 3], [2, 1]) && !refused([4, 3], [1, 3]));
        assert!(refused([4, 3], [3, 1]) && refused([4, 3], [2, 3]));
        assert!(refused([4, 3], [0, 1]) && refused([4, 4], [1, 2]));
        assert_eq!(round_to_int8(&[], [0, 5], [8, 1]), (vec![], vec![]));
    }
}
