//! The kernel for AVX2: f32 alone, because no machine without AVX-512 has the dot product of bf16.

use std::arch::x86_64::*;
use std::ops::Range;

use super::blocks::{self, AHEAD, Kernel, Left, Tile, panels};
use super::{Mat, MatMut, Update};
use crate::simd::{Level, level};

/// Rows of a tile of the result.
const MR: usize = 6;
/// Columns of a tile: two registers of 8. With 6 rows, 12 of the 16 registers hold sums.
const NR: usize = 16;

/// Whether this machine has the instructions.
pub(super) fn available() -> bool {
    level() != Level::Base
}

/// The product, on `threads` threads.
///
/// # Panics
/// Where the machine lacks the instructions or the dimensions disagree.
pub(super) fn gemm(threads: usize, a: Mat<'_>, b: Mat<'_>, c: MatMut<'_>, into: Update) {
    assert!(available());
    // SAFETY: the instructions were found.
    unsafe { blocks::gemm::<F32>(threads, a, b, c, into) };
}

struct F32;

// SAFETY: the copies' sizes and strides are those of the constants.
unsafe impl Kernel for F32 {
    type Word = f32;
    const DEPTH: usize = 1;
    const MR: usize = MR;
    const NR: usize = NR;
    /// With [`Self::KC`], three eighths of a 512 KiB second-level cache.
    const MC: usize = 16 * MR;
    /// A panel of the right factor fills a first-level cache of 32 KiB; half of that was slower, as
    /// the target is then read and written twice as often.
    const KC: usize = 512;
    const NC: usize = 128 * NR;

    unsafe fn left(
        a: Mat<'_>,
        rows: Range<usize>,
        depth: Range<usize>,
        cols: usize,
        to: &mut Vec<f32>,
    ) -> (Left<f32>, usize) {
        // A copy of columns pays where it is read often.
        if a.col_stride == 1 || cols <= 4 * NR {
            let left = Left::lying(&a, rows.start, depth.start);
            return (left, MR * left.row);
        }
        let words = depth.len();
        // SAFETY: the caller's promises.
        unsafe { pack::<MR>(a, rows, depth, to) };
        let (start, row, step) = (to.as_ptr(), 1, MR);
        (Left { start, row, step }, words * MR)
    }

    unsafe fn right(b: Mat<'_>, cols: Range<usize>, depth: Range<usize>, to: &mut Vec<f32>) {
        // SAFETY: the caller's promises.
        unsafe { pack::<NR>(b.t(), cols, depth, to) };
    }

    unsafe fn tile<const R: usize>(tile: Tile<f32>) {
        // SAFETY: the caller's promises.
        unsafe {
            if tile.cols <= 8 {
                multiply::<R, 1>(tile);
            } else {
                multiply::<R, 2>(tile);
            }
        }
    }
}

/// A tile of `R` rows and up to 8 `C` columns.
///
/// # Safety
/// As for [`Kernel::tile`].
#[target_feature(enable = "avx2,fma")]
unsafe fn multiply<const R: usize, const C: usize>(tile: Tile<f32>) {
    let mut sums = [[_mm256_setzero_ps(); C]; R];
    let (mut at, mut b) = (tile.a.start, tile.b);
    // SAFETY: the caller's promises.
    unsafe {
        for i in 0..R {
            // The target's rows lie on pages of their own; they will be there when they are needed.
            _mm_prefetch::<_MM_HINT_T0>(tile.c.add(i * tile.stride).cast());
        }
        for _ in 0..tile.words {
            let mut right = [_mm256_setzero_ps(); C];
            for (j, right) in right.iter_mut().enumerate() {
                *right = _mm256_loadu_ps(b.add(8 * j));
            }
            for (i, sums) in sums.iter_mut().enumerate() {
                let left = _mm256_broadcast_ss(&*at.add(i * tile.a.row));
                for (sum, &right) in sums.iter_mut().zip(&right) {
                    *sum = _mm256_fmadd_ps(left, right, *sum);
                }
            }
            // Past the last step of columns that lie apart there is no memory.
            at = at.wrapping_add(tile.a.step);
            b = b.add(NR);
        }
        let last = tile.cols - 8 * (C - 1);
        for (i, sums) in sums.iter().enumerate() {
            for (j, &sum) in sums.iter().enumerate() {
                let at = tile.c.add(i * tile.stride + 8 * j);
                let count = if j + 1 == C { last } else { 8 };
                let sum = if tile.add {
                    _mm256_add_ps(sum, load(at, count))
                } else {
                    sum
                };
                store(at, count, sum);
            }
        }
    }
}

/// The first `count` of 8 numbers, 1 to 8; the others are zero.
///
/// # Safety
/// They can be read.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn load(from: *const f32, count: usize) -> __m256 {
    // SAFETY: the caller's promise; masked numbers are not touched.
    unsafe {
        if count == 8 {
            _mm256_loadu_ps(from)
        } else {
            _mm256_maskload_ps(from, mask(count))
        }
    }
}

/// Writes the first `count` of 8 numbers, 1 to 8.
///
/// # Safety
/// They can be written.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn store(to: *mut f32, count: usize, x: __m256) {
    // SAFETY: as above.
    unsafe {
        if count == 8 {
            _mm256_storeu_ps(to, x);
        } else {
            _mm256_maskstore_ps(to, mask(count), x);
        }
    }
}

/// The lowest `count` of 8.
#[inline]
#[target_feature(enable = "avx2")]
fn mask(count: usize) -> __m256i {
    _mm256_cmpgt_epi32(
        _mm256_set1_epi32(count as i32),
        _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7),
    )
}

/// Copies rows `rows` and depth `depth` of `a` to panels of `WIDTH` rows. (Columns of a right
/// factor are rows of its transpose.)
///
/// # Safety
/// The machine has the instructions; the ranges lie inside the matrix.
unsafe fn pack<const WIDTH: usize>(
    a: Mat<'_>,
    rows: Range<usize>,
    depth: Range<usize>,
    to: &mut Vec<f32>,
) {
    panels(rows, depth.len(), WIDTH, to, |first, count, out| {
        if a.row_stride == 1 {
            along_rows::<WIDTH>(a, first, count, depth.start, out);
        } else {
            // SAFETY: the caller's promises.
            unsafe { along_depth::<WIDTH>(a, first, count, depth.clone(), out) };
        }
    });
}

/// Neighbouring rows are neighbours in memory.
fn along_rows<const WIDTH: usize>(
    a: Mat<'_>,
    first: usize,
    count: usize,
    depth: usize,
    out: &mut [f32],
) {
    for (d, out) in out.chunks_exact_mut(WIDTH).enumerate() {
        let at = first + (depth + d) * a.col_stride;
        // Rows far apart are not foreseen by the machine.
        // SAFETY: a hint; it reads nothing, wherever it points.
        unsafe {
            let ahead = a.data.as_ptr().wrapping_add(at + AHEAD * a.col_stride);
            _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
        }
        if count == WIDTH {
            out.copy_from_slice(&a.data[at..at + WIDTH]);
        } else {
            out[..count].copy_from_slice(&a.data[at..at + count]);
        }
    }
}

/// Rows are read along the depth, 8 steps at a time, and transposed.
///
/// # Safety
/// As for [`pack`].
#[target_feature(enable = "avx2")]
unsafe fn along_depth<const WIDTH: usize>(
    a: Mat<'_>,
    first: usize,
    count: usize,
    depth: Range<usize>,
    out: &mut [f32],
) {
    let whole = if a.col_stride == 1 {
        depth.len() / 8 * 8
    } else {
        0
    };
    for start in (0..count).step_by(8) {
        let some = (count - start).min(8);
        for d in (0..whole).step_by(8) {
            let mut rows = [_mm256_setzero_ps(); 8];
            for (i, row) in rows.iter_mut().enumerate().take(some) {
                let at = (first + start + i) * a.row_stride + depth.start + d;
                // SAFETY: eight steps of depth lie inside the matrix.
                *row = unsafe { _mm256_loadu_ps(a.data.as_ptr().add(at)) };
            }
            for (i, column) in transpose(rows).into_iter().enumerate() {
                let at = (d + i) * WIDTH + start;
                assert!(at + some <= out.len());
                // SAFETY: inside the panel, as was just checked.
                unsafe { store(out.as_mut_ptr().add(at), some, column) };
            }
        }
    }
    for d in whole..depth.len() {
        for i in 0..count {
            out[d * WIDTH + i] =
                a.data[(first + i) * a.row_stride + (depth.start + d) * a.col_stride];
        }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn transpose(x: [__m256; 8]) -> [__m256; 8] {
    // Pairs, then fours within each half, then the halves.
    let mut z = [_mm256_setzero_ps(); 8];
    for i in [0, 4] {
        let low = [
            _mm256_unpacklo_ps(x[i], x[i + 1]),
            _mm256_unpacklo_ps(x[i + 2], x[i + 3]),
        ];
        let high = [
            _mm256_unpackhi_ps(x[i], x[i + 1]),
            _mm256_unpackhi_ps(x[i + 2], x[i + 3]),
        ];
        z[i] = _mm256_shuffle_ps::<0x44>(low[0], low[1]);
        z[i + 1] = _mm256_shuffle_ps::<0xEE>(low[0], low[1]);
        z[i + 2] = _mm256_shuffle_ps::<0x44>(high[0], high[1]);
        z[i + 3] = _mm256_shuffle_ps::<0xEE>(high[0], high[1]);
    }
    // z[i] holds column i and, in the upper half, 4 + i, of rows 0 to 3; z[4 + i] of rows 4 to 7.
    let mut out = [_mm256_setzero_ps(); 8];
    for i in 0..4 {
        out[i] = _mm256_permute2f128_ps::<0x20>(z[i], z[4 + i]);
        out[4 + i] = _mm256_permute2f128_ps::<0x31>(z[i], z[4 + i]);
    }
    out
}
