//! The blocked product and its kernels for AVX-512.

use std::arch::x86_64::*;
use std::cell::RefCell;
use std::sync::OnceLock;

use super::pack::{Bf16, F32, MR, NR, Packed, lanes, pack};
use super::{Into, Mat, MatMut, MatmulPrecision};
use crate::cpu::shared::Shared;

/// Rows of a block.
const MC: usize = 64 * MR;
/// Depth of a block: a panel of the right factor fills an eighth of a 1 MiB second-level cache.
const KC: usize = 512;
/// Columns of a block.
const NC: usize = 32 * NR;

/// Whether this machine has the instructions.
pub(super) fn available() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| is_x86_feature_detected!("avx512f"))
}

/// Whether it has the dot product of bf16 pairs.
fn has_bf16() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| is_x86_feature_detected!("avx512bf16"))
}

/// A factor's packed form and the kernel that multiplies two of them.
trait Kernel: Packed {
    /// The left factor where it can be read as it lies, row-major.
    fn direct(a: &Mat<'_>) -> Option<Left<Self::Word>>;

    /// Adds `words` outer products to a tile of `R` rows and 16 `C` columns, which is written
    /// (`add` false) or added to. `mask` holds the columns of the last 16 that exist.
    ///
    /// # Safety
    /// The machine has the instructions; `a` holds `words` steps of `R` rows, `b` those of a panel
    /// of [`NR`] columns; the tile lies inside the target.
    unsafe fn tile<const R: usize, const C: usize>(
        words: usize,
        a: Left<Self::Word>,
        b: *const Self::Word,
        c: *mut f32,
        stride: usize,
        mask: u16,
        add: bool,
    );
}

/// Rows of the left factor: word w of row i lies at `i * row + w * step`.
#[derive(Clone, Copy)]
struct Left<W> {
    start: *const W,
    row: usize,
    step: usize,
}

impl<W> Left<W> {
    /// # Safety
    /// The offset lies inside the factor.
    unsafe fn skip(self, words: usize) -> Self {
        // SAFETY: the caller's promise.
        let start = unsafe { self.start.add(words) };
        Self { start, ..self }
    }
}

macro_rules! kernel {
    ($packed:ty, $features:literal, |$acc:ident, $left:ident, $right:ident| $step:expr, $load:expr, $broadcast:expr, $direct:expr) => {
        impl Kernel for $packed {
            fn direct(a: &Mat<'_>) -> Option<Left<Self::Word>> {
                $direct(a)
            }

            #[target_feature(enable = $features)]
            unsafe fn tile<const R: usize, const C: usize>(
                words: usize,
                a: Left<Self::Word>,
                mut b: *const Self::Word,
                c: *mut f32,
                stride: usize,
                mask: u16,
                add: bool,
            ) {
                let mut sums = [[_mm512_setzero_ps(); C]; R];
                let mut at = a.start;
                // SAFETY: the caller's promises.
                unsafe {
                    for _ in 0..words {
                        let mut right = [_mm512_setzero_si512(); C];
                        for (j, right) in right.iter_mut().enumerate() {
                            *right = $load(b.add(16 * j));
                        }
                        for (i, sums) in sums.iter_mut().enumerate() {
                            let $left = $broadcast(at.add(i * a.row));
                            for ($acc, &$right) in sums.iter_mut().zip(&right) {
                                *$acc = $step;
                            }
                        }
                        at = at.add(a.step);
                        b = b.add(NR);
                    }
                    for (i, sums) in sums.iter().enumerate() {
                        for (j, &sum) in sums.iter().enumerate() {
                            let at = c.add(i * stride + 16 * j);
                            let mask = if j + 1 == C { mask } else { u16::MAX };
                            let sum = if add {
                                _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, at))
                            } else {
                                sum
                            };
                            _mm512_mask_storeu_ps(at, mask, sum);
                        }
                    }
                }
            }
        }
    };
}

kernel!(
    F32,
    "avx512f",
    |acc, left, right| _mm512_fmadd_ps(left, _mm512_castsi512_ps(right), *acc),
    |at: *const f32| _mm512_loadu_si512(at.cast()),
    |at: *const f32| _mm512_set1_ps(*at),
    |a: &Mat<'_>| (a.col_stride == 1).then_some(Left {
        start: a.data.as_ptr(),
        row: a.row_stride,
        step: 1,
    })
);

kernel!(
    Bf16,
    "avx512f,avx512bf16",
    |acc, left, right| {
        // SAFETY: 512 bits of plain data either way.
        let pairs = |x: __m512i| -> __m512bh { std::mem::transmute(x) };
        _mm512_dpbf16_ps(*acc, pairs(right), pairs(left))
    },
    |at: *const u32| _mm512_loadu_si512(at.cast()),
    |at: *const u32| _mm512_set1_epi32(*at as i32),
    |_: &Mat<'_>| None
);

/// The product, its rows or columns dealt to `threads` threads.
pub(super) fn gemm(
    threads: usize,
    a: Mat<'_>,
    b: Mat<'_>,
    c: MatMut<'_>,
    into: Into,
    precision: MatmulPrecision,
) {
    if precision == MatmulPrecision::Bf16 && has_bf16() {
        split::<Bf16>(threads, a, b, c, into);
    } else {
        split::<F32>(threads, a, b, c, into);
    }
}

fn split<K: Kernel + Space>(threads: usize, a: Mat<'_>, b: Mat<'_>, c: MatMut<'_>, into: Into) {
    let (rows, cols, stride) = (c.rows, c.cols, c.stride);
    let target = Shared::new(c.data);
    let part = |rows: std::ops::Range<usize>, cols: std::ops::Range<usize>| {
        // SAFETY: the instructions were found; the parts are disjoint and inside the target.
        unsafe { block::<K>(a, b, target, stride, rows, cols, into) };
    };
    if threads <= 1 {
        return part(0..rows, 0..cols);
    }
    // Along the longer side, in whole tiles.
    let (by_rows, length, unit) = if rows / MR >= cols / NR {
        (true, rows, MR)
    } else {
        (false, cols, NR)
    };
    let share = length.div_ceil(threads).next_multiple_of(unit);
    rayon::scope(|scope| {
        for start in (0..length).step_by(share) {
            let range = start..length.min(start + share);
            let part = &part;
            scope.spawn(move |_| {
                if by_rows {
                    part(range, 0..cols);
                } else {
                    part(0..rows, range);
                }
            });
        }
    });
}

thread_local! {
    static F32_SPACE: RefCell<(Vec<f32>, Vec<f32>)> = const { RefCell::new((Vec::new(), Vec::new())) };
    static BF16_SPACE: RefCell<(Vec<u32>, Vec<u32>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

/// Runs `work` with the thread's packing buffers, which keep their memory.
trait Space: Packed {
    fn with<R>(work: impl FnOnce(&mut Vec<Self::Word>, &mut Vec<Self::Word>) -> R) -> R;
}

impl Space for F32 {
    fn with<R>(work: impl FnOnce(&mut Vec<f32>, &mut Vec<f32>) -> R) -> R {
        F32_SPACE.with_borrow_mut(|(a, b)| work(a, b))
    }
}

impl Space for Bf16 {
    fn with<R>(work: impl FnOnce(&mut Vec<u32>, &mut Vec<u32>) -> R) -> R {
        BF16_SPACE.with_borrow_mut(|(a, b)| work(a, b))
    }
}

/// Rows and columns of the product, on this thread.
///
/// # Safety
/// The machine has the instructions of `K`; the ranges lie inside the target and no other thread
/// writes there.
unsafe fn block<K: Kernel + Space>(
    a: Mat<'_>,
    b: Mat<'_>,
    target: Shared,
    stride: usize,
    rows: std::ops::Range<usize>,
    cols: std::ops::Range<usize>,
    into: Into,
) {
    let depth = a.cols;
    let direct = K::direct(&a);
    K::with(|left, right| {
        for first_col in cols.clone().step_by(NC) {
            let some_cols = first_col..cols.end.min(first_col + NC);
            for first_depth in (0..depth).step_by(KC) {
                let some_depth = first_depth..depth.min(first_depth + KC);
                let words = some_depth.len().div_ceil(K::DEPTH);
                let add = into == Into::Add || first_depth > 0;
                // SAFETY: the ranges lie inside the factors.
                unsafe { pack::<K, NR>(b.t(), some_cols.clone(), some_depth.clone(), right) };
                for first_row in rows.clone().step_by(MC) {
                    let some_rows = first_row..rows.end.min(first_row + MC);
                    // SAFETY: as above; the tiles lie inside the target.
                    unsafe {
                        let corner = target.at(first_row * stride + first_col);
                        let [height, width] = [some_rows.len(), some_cols.len()];
                        let (start, panel) = match &direct {
                            // Words of a direct factor are single numbers.
                            Some(left) => {
                                let skipped = first_row * left.row + first_depth;
                                (left.skip(skipped), MR * left.row)
                            }
                            None if K::DEPTH == 2 && a.col_stride == 1 => {
                                K::rows(a, some_rows, some_depth.clone(), left);
                                let (start, row) = (left.as_ptr(), words);
                                (
                                    Left {
                                        start,
                                        row,
                                        step: 1,
                                    },
                                    MR * row,
                                )
                            }
                            None => {
                                pack::<K, MR>(a, some_rows, some_depth.clone(), left);
                                let (start, step) = (left.as_ptr(), MR);
                                (
                                    Left {
                                        start,
                                        row: 1,
                                        step,
                                    },
                                    words * MR,
                                )
                            }
                        };
                        tiles::<K>(
                            words,
                            (start, panel),
                            right,
                            corner,
                            stride,
                            [height, width],
                            add,
                        );
                    }
                }
            }
        }
    });
}

/// All tiles of a packed block.
///
/// # Safety
/// The factors hold `height` rows and `width` columns of `words` steps, rows in panels of [`MR`]
/// that are `left.1` words apart; the target holds the tiles.
unsafe fn tiles<K: Kernel>(
    words: usize,
    left: (Left<K::Word>, usize),
    right: &[K::Word],
    corner: *mut f32,
    stride: usize,
    [height, width]: [usize; 2],
    add: bool,
) {
    for (j, b) in right.chunks_exact(words * NR).enumerate() {
        let columns = (width - j * NR).min(NR);
        for i in 0..height.div_ceil(MR) {
            let count = (height - i * MR).min(MR);
            let mask = lanes(columns - (columns - 1) / 16 * 16);
            // SAFETY: the tile's corner lies inside the target.
            unsafe {
                let c = corner.add(i * MR * stride + j * NR);
                let (a, b) = (left.0.skip(i * left.1), b.as_ptr());
                macro_rules! tile {
                    ($($rows:literal)*) => {
                        match (count, columns.div_ceil(16)) {
                            $(
                                ($rows, 4) => K::tile::<$rows, 4>(words, a, b, c, stride, mask, add),
                                ($rows, 3) => K::tile::<$rows, 3>(words, a, b, c, stride, mask, add),
                                ($rows, 2) => K::tile::<$rows, 2>(words, a, b, c, stride, mask, add),
                                ($rows, 1) => K::tile::<$rows, 1>(words, a, b, c, stride, mask, add),
                            )*
                            _ => unreachable!("a tile has 1 to {MR} rows and 1 to {NR} columns"),
                        }
                    };
                }
                tile!(1 2 3 4 5 6);
            }
        }
    }
}
