//! The kernels for AVX-512: f32, and pairs of bf16 where the machine has their dot product.

mod pack;

use std::arch::x86_64::*;
use std::ops::Range;
use std::sync::OnceLock;

use self::pack::{lanes, pack};
use super::blocks::{self, Kernel, Left, Tile};
use super::{Mat, MatMut, MatmulPrecision, Update};
use crate::simd::{Level, level};

/// Rows of a tile of the result.
const MR: usize = 6;
/// Columns of a tile of the result: four registers of 16. Wide and low, because the rows of a
/// large result lie on pages of their own.
const NR: usize = 64;

/// Whether this machine has the instructions.
pub(super) fn available() -> bool {
    level() == Level::Wide
}

/// Whether it has the dot product of bf16 pairs.
pub(super) fn has_bf16() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| available() && is_x86_feature_detected!("avx512bf16"))
}

/// The product, on `threads` threads.
///
/// # Panics
/// Where the machine lacks the instructions or the dimensions disagree.
pub(super) fn gemm(
    threads: usize,
    a: Mat<'_>,
    b: Mat<'_>,
    c: MatMut<'_>,
    into: Update,
    precision: MatmulPrecision,
) {
    assert!(available());
    // SAFETY: the instructions were found.
    unsafe {
        if precision.on_this_machine() == MatmulPrecision::Bf16 {
            blocks::gemm::<Bf16>(threads, a, b, c, into);
        } else {
            blocks::gemm::<F32>(threads, a, b, c, into);
        }
    }
}

struct F32;
struct Bf16;

macro_rules! kernel {
    (
        $kernel:ident of $word:ty, $depth:literal, $features:literal,
        left: |$a:ident, $rows:ident, $range:ident, $to:ident| $lying:expr,
        step: |$acc:ident, $left:ident, $right:ident| $step:expr,
        $load:expr, $broadcast:expr
    ) => {
        // SAFETY: the copies' sizes and strides are those of the constants.
        unsafe impl Kernel for $kernel {
            type Word = $word;
            const DEPTH: usize = $depth;
            const MR: usize = MR;
            const NR: usize = NR;
            const MC: usize = 64 * MR;
            /// A panel of the right factor fills an eighth of a 1 MiB second-level cache.
            const KC: usize = 512;
            const NC: usize = 32 * NR;

            unsafe fn left(
                $a: Mat<'_>,
                $rows: Range<usize>,
                $range: Range<usize>,
                _cols: usize,
                $to: &mut Vec<$word>,
            ) -> (Left<$word>, usize) {
                if $a.col_stride == 1 {
                    let left = $lying;
                    return (left, MR * left.row);
                }
                let words = $range.len().div_ceil($depth);
                // SAFETY: the caller's promises.
                unsafe { pack::<$kernel, MR>($a, $rows, $range, $to) };
                let (start, row, step) = ($to.as_ptr(), 1, MR);
                (Left { start, row, step }, words * MR)
            }

            unsafe fn right(
                b: Mat<'_>,
                cols: Range<usize>,
                depth: Range<usize>,
                to: &mut Vec<$word>,
            ) {
                // SAFETY: the caller's promises.
                unsafe { pack::<$kernel, NR>(b.t(), cols, depth, to) };
            }

            unsafe fn tile<const R: usize>(tile: Tile<$word>) {
                #[target_feature(enable = $features)]
                unsafe fn run<const R: usize, const C: usize>(tile: Tile<$word>) {
                    let mut sums = [[_mm512_setzero_ps(); C]; R];
                    let (mut at, mut b) = (tile.a.start, tile.b);
                    // SAFETY: the caller's promises.
                    unsafe {
                        for _ in 0..tile.words {
                            let mut right = [_mm512_setzero_si512(); C];
                            for (j, right) in right.iter_mut().enumerate() {
                                *right = $load(b.add(16 * j));
                            }
                            for (i, sums) in sums.iter_mut().enumerate() {
                                let $left = $broadcast(at.add(i * tile.a.row));
                                for ($acc, &$right) in sums.iter_mut().zip(&right) {
                                    *$acc = $step;
                                }
                            }
                            at = at.add(tile.a.step);
                            b = b.add(NR);
                        }
                        let last = lanes(tile.cols - 16 * (C - 1));
                        for (i, sums) in sums.iter().enumerate() {
                            for (j, &sum) in sums.iter().enumerate() {
                                let at = tile.c.add(i * tile.stride + 16 * j);
                                let mask = if j + 1 == C { last } else { u16::MAX };
                                let sum = if tile.add {
                                    _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, at))
                                } else {
                                    sum
                                };
                                _mm512_mask_storeu_ps(at, mask, sum);
                            }
                        }
                    }
                }
                // SAFETY: the caller's promises.
                unsafe {
                    match tile.cols.div_ceil(16) {
                        1 => run::<R, 1>(tile),
                        2 => run::<R, 2>(tile),
                        3 => run::<R, 3>(tile),
                        _ => run::<R, 4>(tile),
                    }
                }
            }
        }
    };
}

kernel!(
    F32 of f32, 1, "avx512f",
    left: |a, rows, depth, _to| Left::lying(&a, rows.start, depth.start),
    step: |acc, left, right| _mm512_fmadd_ps(left, _mm512_castsi512_ps(right), *acc),
    |at: *const f32| _mm512_loadu_si512(at.cast()),
    |at: *const f32| _mm512_set1_ps(*at)
);

kernel!(
    Bf16 of u32, 2, "avx512f,avx512bf16",
    left: |a, rows, depth, to| {
        // SAFETY: the caller's promises.
        unsafe { pack::rounded_rows(a, rows, depth, to) }
    },
    step: |acc, left, right| {
        // SAFETY: 512 bits of plain data either way.
        let pairs = |x: __m512i| -> __m512bh { std::mem::transmute(x) };
        _mm512_dpbf16_ps(*acc, pairs(right), pairs(left))
    },
    |at: *const u32| _mm512_loadu_si512(at.cast()),
    |at: *const u32| _mm512_set1_epi32(*at as i32)
);
