//! Products with a handful of rows on the left, as decoding has them: nothing is packed, because
//! every number of the right factor is used a few times only. The time is that of reading it.

use super::{Into, Mat, MatMut};
use crate::cpu::shared::Shared;
use crate::cpu::simd::{simd, sum};

/// Left factors of up to this many rows come here.
pub(super) const MOST_ROWS: usize = 5;

/// Whether the right factor lies so that it can be read as it is.
pub(super) fn fits(a: &Mat<'_>, b: &Mat<'_>) -> bool {
    a.rows <= MOST_ROWS && a.col_stride == 1 && (b.col_stride == 1 || b.row_stride == 1)
}

/// Parts of a product that is shared out: a fixed number, so that the order of its sums does not
/// depend on the machine.
const PARTS: usize = 4;

/// The product; see [`super::gemm`].
pub(super) fn gemm(threads: usize, a: Mat<'_>, b: Mat<'_>, c: MatMut<'_>, into: Into) {
    if b.col_stride == 1 {
        row_major(threads, a, b, c, into);
    } else {
        column_major(threads, a, b, c, into);
    }
}

/// Numbers of the right factor that all rows are multiplied with before the next ones are read: a
/// quarter of a small second-level cache.
const BLOCK: usize = 1 << 14;

/// The parts of `0..n`.
fn parts(n: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let share = n.div_ceil(PARTS).next_multiple_of(4);
    (0..n)
        .step_by(share.max(1))
        .map(move |first| first..n.min(first + share))
}

/// Shared out by depth, so that every thread reads memory from one end to the other.
fn row_major(threads: usize, a: Mat<'_>, b: Mat<'_>, c: MatMut<'_>, into: Into) {
    let (rows, cols) = (c.rows, c.cols);
    let part = |depth: std::ops::Range<usize>, sums: &mut [f32]| {
        let block = (BLOCK / cols).next_multiple_of(4).max(4);
        for first in depth.clone().step_by(block) {
            let depth = first..depth.end.min(first + block);
            for (i, sums) in sums.chunks_exact_mut(cols).enumerate() {
                let x = &a.data[i * a.row_stride..][depth.clone()];
                add_rows(x, &b.data[first * b.row_stride..], b.row_stride, sums);
            }
        }
    };
    let mut space = vec![0.0; PARTS * rows * cols];
    let work = space.chunks_exact_mut(rows * cols).zip(parts(a.cols));
    if threads <= 1 {
        work.for_each(|(sums, depth)| part(depth, sums));
    } else {
        rayon::scope(|scope| {
            for (sums, depth) in work {
                let part = &part;
                scope.spawn(move |_| part(depth, sums));
            }
        });
    }
    for (i, target) in c.data.chunks_mut(c.stride).enumerate().take(rows) {
        for (j, target) in target.iter_mut().enumerate().take(cols) {
            let total: f32 = space.iter().skip(i * cols + j).step_by(rows * cols).sum();
            *target = if into == Into::Add {
                *target + total
            } else {
                total
            };
        }
    }
}

/// Shared out by columns, which are rows of memory here.
fn column_major(threads: usize, a: Mat<'_>, b: Mat<'_>, c: MatMut<'_>, into: Into) {
    let (rows, cols, stride) = (c.rows, c.cols, c.stride);
    let target = Shared::new(c.data);
    let part = |cols: std::ops::Range<usize>| {
        let block = (BLOCK / a.cols).max(1);
        let mut sums = vec![0.0; block.min(cols.len())];
        for first in cols.clone().step_by(block) {
            let cols = first..cols.end.min(first + block);
            let sums = &mut sums[..cols.len()];
            for i in 0..rows {
                let at = i * stride + first;
                if into == Into::Add {
                    // SAFETY: no other thread writes these columns.
                    sums.copy_from_slice(unsafe { target.read(at, sums.len()) });
                } else {
                    sums.fill(0.0);
                }
                let x = &a.data[i * a.row_stride..][..a.cols];
                add_dots(x, &b.data[first * b.col_stride..], b.col_stride, sums);
                // SAFETY: as above.
                unsafe { target.write(at, sums) };
            }
        }
    };
    if threads <= 1 {
        return part(0..cols);
    }
    rayon::scope(|scope| {
        for cols in parts(cols) {
            let part = &part;
            scope.spawn(move |_| part(cols));
        }
    });
}

/// Asks for memory that will be read soon.
#[inline(always)]
fn prefetch(data: &[f32], at: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint; it reads nothing, wherever it points.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(data.as_ptr().wrapping_add(at).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (data, at);
}

/// Numbers that are asked for ahead of their use.
const AHEAD: usize = 512;

simd! {
    // `sums += x b`, b row-major: four rows of b at a time.
    fn add_rows(x: &[f32], b: &[f32], stride: usize, sums: &mut [f32]) {
        let n = sums.len();
        let mut k = 0;
        while k + 4 <= x.len() {
            let (x0, x1, x2, x3) = (x[k], x[k + 1], x[k + 2], x[k + 3]);
            for (block, sums) in sums.chunks_mut(64).enumerate() {
                let at = k * stride + 64 * block;
                let row = |i: usize| &b[at + i * stride..][..sums.len()];
                let (b0, b1, b2, b3) = (row(0), row(1), row(2), row(3));
                for i in 0..4 {
                    for line in 0..4 {
                        prefetch(b, at + i * stride + 16 * line + AHEAD);
                    }
                }
                for j in 0..sums.len() {
                    sums[j] += (x0 * b0[j] + x1 * b1[j]) + (x2 * b2[j] + x3 * b3[j]);
                }
            }
            k += 4;
        }
        for k in k..x.len() {
            for (sum, b) in sums.iter_mut().zip(&b[k * stride..][..n]) {
                *sum += x[k] * b;
            }
        }
    }
}

simd! {
    // `sums += x b`, b column-major: one dot product per column.
    fn add_dots(x: &[f32], b: &[f32], stride: usize, sums: &mut [f32]) {
        for (j, total) in sums.iter_mut().enumerate() {
            let column = &b[j * stride..][..x.len()];
            for line in 0..x.len().div_ceil(16) {
                prefetch(b, j * stride + 16 * line + AHEAD);
            }
            *total += sum(x.len(), |k| x[k] * column[k]);
        }
    }
}
