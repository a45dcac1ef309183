//! Matrix products on the CPU, in f32 or through bf16 with f32 sums.
//!
//! Factors are copied, block by block, into the order in which a small kernel reads them, so that
//! the kernel's loop is nothing but loads and fused multiply-adds over as many accumulators as the
//! machine has registers for. The copy is also where a factor is transposed or rounded to bf16,
//! which makes both free. Without AVX-512 or AVX2 the `gemm` crate does the work.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod blocks;
mod few;
mod int8;
mod right;
mod view;
mod widened;

pub use int8::{Int8, round_to_int8};
use right::Order;
pub use right::Right;
pub use view::{Mat, MatMut};

/// How a product is rounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MatmulPrecision {
    /// f32 throughout.
    #[default]
    F32,
    /// Factors rounded to bf16, sums in f32. Where the machine has no bf16 dot product this is
    /// the same as [`MatmulPrecision::F32`]; so are products with at most five rows, as decoding
    /// has them, where both factors can be read as they lie.
    Bf16,
}

impl MatmulPrecision {
    /// How products are rounded by the processor that this runs on, the exception for few rows
    /// aside.
    pub fn on_this_machine(self) -> Self {
        #[cfg(target_arch = "x86_64")]
        if avx512::has_bf16() {
            return self;
        }
        Self::F32
    }
}

/// Whether a product overwrites or adds to its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// `c = a b`
    Overwrite,
    /// `c += a b`
    Add,
}

/// Products below this many multiply-adds stay on the calling thread.
const PARALLEL_FROM: usize = 1 << 20;

/// The same for each of a few rows: numbers of the right factor, 128 KiB.
const FEW_PARALLEL_FROM: usize = 1 << 15;

/// `c = a b` or `c += a b`, on all threads of the rayon pool where it pays.
///
/// # Panics
/// Where the dimensions disagree.
pub fn gemm<B: Right>(a: Mat<'_>, b: B, c: MatMut<'_>, into: Update, precision: MatmulPrecision) {
    let [_, cols] = b.dims();
    let work = a.rows * a.cols * cols;
    // A few rows wait for memory, not for arithmetic.
    let from = if few::fits(&a, &b) {
        FEW_PARALLEL_FROM * a.rows
    } else {
        PARALLEL_FROM
    };
    let threads = if work < from {
        1
    } else {
        rayon::current_num_threads()
    };
    gemm_on(threads, a, b, c, into, precision);
}

/// [`gemm()`] on the calling thread alone, for callers that are parallel themselves.
pub fn gemm_serial<B: Right>(
    a: Mat<'_>,
    b: B,
    c: MatMut<'_>,
    into: Update,
    precision: MatmulPrecision,
) {
    gemm_on(1, a, b, c, into, precision);
}

fn gemm_on<B: Right>(
    threads: usize,
    a: Mat<'_>,
    b: B,
    c: MatMut<'_>,
    into: Update,
    precision: MatmulPrecision,
) {
    assert_eq!(
        (a.rows, [a.cols, c.cols]),
        (c.rows, b.dims()),
        "a product of [{}, {}] and {:?} into [{}, {}]",
        a.rows,
        a.cols,
        b.dims(),
        c.rows,
        c.cols
    );
    if c.rows == 0 || c.cols == 0 {
        return;
    }
    if a.cols == 0 {
        if into == Update::Overwrite {
            for row in c.data.chunks_mut(c.stride.max(1)).take(c.rows) {
                row[..c.cols].fill(0.0);
            }
        }
        return;
    }
    if few::fits(&a, &b) {
        return few::gemm(threads, a, b, c, into);
    }
    let Some(b) = b.plain() else {
        return widened::gemm(threads, a, b, c, into, precision);
    };
    #[cfg(target_arch = "x86_64")]
    if avx512::available() {
        return avx512::gemm(threads, a, b, c, into, precision);
    }
    #[cfg(target_arch = "x86_64")]
    if avx2::available() {
        return avx2::gemm(threads, a, b, c, into);
    }
    fallback(threads, a, b, c, into);
}

/// The `gemm` crate, which has kernels for NEON and for plain Rust.
fn fallback(threads: usize, a: Mat<'_>, b: Mat<'_>, c: MatMut<'_>, into: Update) {
    let parallelism = if threads > 1 {
        gemm::Parallelism::Rayon(threads)
    } else {
        gemm::Parallelism::None
    };
    // SAFETY: the views were checked against their slices when they were made, and the target is
    // borrowed for writing.
    unsafe {
        gemm::gemm(
            c.rows,
            c.cols,
            a.cols,
            c.data.as_mut_ptr(),
            1,
            c.stride as isize,
            into == Update::Add,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn numbers(n: usize, seed: u64) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        (0..n)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
            })
            .collect()
    }

    /// Entry by entry in f64, and the sum of the magnitudes that rounding scales with.
    pub(crate) fn plain(a: Mat<'_>, b: Mat<'_>) -> Vec<(f64, f64)> {
        let mut out = Vec::new();
        for i in 0..a.rows {
            for j in 0..b.cols {
                let (mut sum, mut size) = (0.0, 0.0);
                for k in 0..a.cols {
                    let x = f64::from(a.data[i * a.row_stride + k * a.col_stride]);
                    let y = f64::from(b.data[k * b.row_stride + j * b.col_stride]);
                    sum += x * y;
                    size += (x * y).abs();
                }
                out.push((sum, size));
            }
        }
        out
    }

    pub(crate) const SHAPES: [[usize; 3]; 15] = [
        [1, 1, 1],
        [1, 300, 5],
        [14, 32, 256],
        [15, 33, 257],
        [13, 31, 17],
        [28, 16, 3],
        [100, 48, 1],
        [3, 1000, 64],
        [257, 65, 300],
        [500, 70, 513],
        [64, 1030, 40],
        [2, 2, 1000],
        [5, 2100, 31],
        [6, 40, 512],
        [20, 70, 1100],
    ];

    fn check(product: impl Fn(usize, Mat<'_>, Mat<'_>, MatMut<'_>, Update), tolerance: f64) {
        for [m, n, k] in SHAPES {
            let (x, y) = (numbers(m * k, 1), numbers(k * n, 2));
            for transposed in 0..4 {
                let a = if transposed & 1 == 0 {
                    Mat::new(&x, m, k)
                } else {
                    Mat::new(&x, k, m).t()
                };
                let b = if transposed & 2 == 0 {
                    Mat::new(&y, k, n)
                } else {
                    Mat::new(&y, n, k).t()
                };
                let expected = plain(a, b);
                for threads in [1, 2, 3] {
                    for into in [Update::Overwrite, Update::Add] {
                        let stride = n + 3;
                        let mut c = vec![2.0f32; m * stride];
                        let target = MatMut::strided(&mut c, m, n, stride);
                        product(threads, a, b, target, into);
                        let start = if into == Update::Add { 2.0 } else { 0.0 };
                        for (e, &(sum, size)) in expected.iter().enumerate() {
                            let got = f64::from(c[e / n * stride + e % n]) - start;
                            assert!(
                                (got - sum).abs() <= tolerance * (size + 1.0),
                                "{m} x {n} x {k}, transposed {transposed}, {threads} threads, \
                                 {into:?}: entry {e} is {got}, expected {sum}"
                            );
                        }
                        for (i, row) in c.chunks(stride).enumerate() {
                            assert_eq!(row[n..], [2.0; 3], "row {i} was written past its end");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn products_agree_with_sums_in_f64() {
        check(
            |threads, a, b, c, into| gemm_on(threads, a, b, c, into, MatmulPrecision::F32),
            1e-6,
        );
    }

    /// Two roundings to 8 bits of mantissa: at most 2 * 2^-9 relative of every term.
    #[test]
    fn bf16_products_are_within_their_rounding() {
        check(
            |threads, a, b, c, into| gemm_on(threads, a, b, c, into, MatmulPrecision::Bf16),
            1.0 / 256.0 + 1e-5,
        );
    }

    /// One rounding, of the right factor.
    #[test]
    fn right_factors_may_be_bf16() {
        let product = |threads, a: Mat<'_>, b: Mat<'_>, c: MatMut<'_>, into| {
            let data: Vec<_> = b.data.iter().map(|&x| half::bf16::from_f32(x)).collect();
            let short = Mat::strided(&data, [b.rows, b.cols], [b.row_stride, b.col_stride]);
            gemm_on(threads, a, short, c, into, MatmulPrecision::F32);
        };
        check(product, 1.0 / 512.0 + 1e-6);
        // Of strides that no row or column lies side by side with.
        let (x, wide) = (numbers(8 * 30, 1), numbers(30 * 20 * 6, 2));
        let short: Vec<_> = wide.iter().map(|&x| half::bf16::from_f32(x)).collect();
        let rounded: Vec<_> = short.iter().map(|x| x.to_f32()).collect();
        let [mut found, mut expected] = [[0.0; 8 * 20]; 2];
        let (dims, strides, f32) = ([30, 20], [120, 3], MatmulPrecision::F32);
        let a = Mat::new(&x, 8, 30);
        let c = MatMut::new(&mut found, 8, 20);
        gemm(
            a,
            Mat::strided(&short, dims, strides),
            c,
            Update::Overwrite,
            f32,
        );
        let c = MatMut::new(&mut expected, 8, 20);
        gemm(
            a,
            Mat::strided(&rounded, dims, strides),
            c,
            Update::Overwrite,
            f32,
        );
        for (found, expected) in found.iter().zip(expected) {
            assert!(
                (found - expected).abs() <= 1e-5,
                "{found}, expected {expected}"
            );
        }
    }

    #[test]
    fn views_that_do_not_fit_are_refused() {
        let data = [0.0; 8];
        let refused = |dims: [usize; 2], strides: [usize; 2]| {
            std::panic::catch_unwind(|| Mat::strided(&data, dims, strides)).is_err()
        };
        assert!(!refused([2, 4], [4, 1]) && refused([2, 4], [5, 1]));
        // Twice 2^63 is 0 again.
        assert!(refused([3, 1], [1 << 63, 1]) && refused([2, 2], [usize::MAX, 1]));
        assert!(Mat::strided(&data, [2, 3], [5, 1]).some_rows(2..2).rows() == 0);
        let mut row = [0.0; 4];
        let (a, b) = (
            Mat::new(&[2.0], 1, 1),
            Mat::new(&[1.0, 2.0, 3.0, 4.0], 1, 4),
        );
        for stride in [0, 2, 4, 9] {
            let c = MatMut::strided(&mut row, 1, 4, stride);
            gemm(a, b, c, Update::Overwrite, MatmulPrecision::F32);
            assert_eq!(row, [2.0, 4.0, 6.0, 8.0], "stride {stride}");
        }
    }

    /// What machines without AVX-512 run; the test above sees the best kernel alone.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn avx2_agrees() {
        if avx2::available() {
            check(avx2::gemm, 1e-6);
        }
    }

    #[test]
    fn the_fallback_agrees() {
        check(fallback, 1e-6);
    }

    #[test]
    fn an_empty_depth_gives_zero() {
        let mut c = vec![1.0; 6];
        let (a, b) = (Mat::new(&[], 2, 0), Mat::<f32>::new(&[], 0, 3));
        gemm(
            a,
            b,
            MatMut::new(&mut c, 2, 3),
            Update::Add,
            MatmulPrecision::F32,
        );
        assert_eq!(c, [1.0; 6]);
        gemm(
            a,
            b,
            MatMut::new(&mut c, 2, 3),
            Update::Overwrite,
            MatmulPrecision::F32,
        );
        assert_eq!(c, [0.0; 6]);
        // What lies behind the last row stays.
        let mut c = [1.0; 6];
        let target = MatMut::strided(&mut c, 1, 2, 3);
        let (a, b) = (Mat::new(&[], 1, 0), Mat::<f32>::new(&[], 0, 2));
        gemm(a, b, target, Update::Overwrite, MatmulPrecision::F32);
        assert_eq!(c, [0.0, 0.0, 1.0, 1.0, 1.0, 1.0]);
    }
}
