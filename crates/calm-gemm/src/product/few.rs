//! Products with a handful of rows on the left, as decoding has them: nothing is packed, because
//! every number of the right factor is used a few times only. The time is that of reading it.

use std::ops::Range;

use half::bf16;

use super::{Mat, MatMut, Order, Right, Update};
use crate::Shared;
use crate::by_level;
use crate::lanes::Lanes;
use crate::number::Number;

/// Left factors of up to this many rows come here.
pub(super) const MOST_ROWS: usize = 5;

/// Whether the right factor lies so that it can be read as it is.
pub(super) fn fits<B: Right>(a: &Mat<'_>, b: &B) -> bool {
    a.rows <= MOST_ROWS && a.col_stride == 1 && b.order().is_some()
}

/// Parts of a product that is shared out: a fixed number, so that the order of its sums does not
/// depend on the machine.
const PARTS: usize = 4;

/// The product; see [`super::gemm`].
pub(super) fn gemm<B: Right>(threads: usize, a: Mat<'_>, b: B, c: MatMut<'_>, into: Update) {
    match b.order() {
        Some(Order::Rows) => row_major(threads, a, b, c, into),
        _ => column_major(threads, a, b, c, into),
    }
}

/// The parts of `0..n`, which begin at multiples of `unit`.
fn parts(n: usize, unit: usize) -> impl Iterator<Item = Range<usize>> {
    let share = n.div_ceil(PARTS).next_multiple_of(unit);
    (0..n)
        .step_by(share.max(1))
        .map(move |first| first..n.min(first + share))
}

/// Shared out by depth, so that every thread reads memory from one end to the other.
fn row_major<B: Right>(threads: usize, a: Mat<'_>, b: B, c: MatMut<'_>, into: Update) {
    let (rows, cols) = (c.rows, c.cols);
    let mut space = vec![0.0; PARTS * rows * cols];
    let parts = parts(a.cols, b.unit());
    let work = space.chunks_exact_mut(rows * cols).zip(parts);
    if threads <= 1 {
        work.for_each(|(sums, depth)| b.add_rows(a, depth, sums));
    } else {
        rayon::scope(|scope| {
            for (sums, depth) in work {
                scope.spawn(move |_| b.add_rows(a, depth, sums));
            }
        });
    }
    for (i, target) in c.data.chunks_mut(c.stride).enumerate().take(rows) {
        for (j, target) in target.iter_mut().enumerate().take(cols) {
            let total: f32 = space.iter().skip(i * cols + j).step_by(rows * cols).sum();
            *target = if into == Update::Add {
                *target + total
            } else {
                total
            };
        }
    }
}

/// Shared out by columns, which are rows of memory here.
fn column_major<B: Right>(threads: usize, a: Mat<'_>, b: B, c: MatMut<'_>, into: Update) {
    let (rows, cols, stride) = (c.rows, c.cols, c.stride);
    let target = Shared::new(c.data);
    let part = |cols: Range<usize>| {
        let width = cols.len();
        let mut sums = vec![0.0; rows * width];
        b.add_columns(a, cols.clone(), &mut sums);
        for (i, sums) in sums.chunks_exact_mut(width).enumerate() {
            let at = i * stride + cols.start;
            if into == Update::Add {
                // SAFETY: no other thread writes these columns.
                let before = unsafe { target.read(at, width) };
                for (sum, before) in sums.iter_mut().zip(before) {
                    *sum += before;
                }
            }
            // SAFETY: as above.
            unsafe { target.write(at, sums) };
        }
    };
    if threads <= 1 {
        return part(0..cols);
    }
    rayon::scope(|scope| {
        for cols in parts(cols, 4) {
            let part = &part;
            scope.spawn(move |_| part(cols));
        }
    });
}

/// Asks for memory that will be read soon.
#[inline(always)]
fn prefetch<T>(data: &[T], at: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint; it reads nothing, wherever it points.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(data.as_ptr().wrapping_add(at).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (data, at);
}

/// Left rows, their distance, and how many columns of them count.
type Left<'a> = (&'a [f32], usize, usize);
/// Numbers of the right factor, and the distance of its rows (columns).
type Rows<'a, T> = (&'a [T], usize);
/// Sums, row by row, and their columns.
type Sums<'a> = (&'a mut [f32], usize);

/// `sums += x b` for `R` rows of x and a row-major b: `D` rows of b at a time, so that a sum is
/// loaded and stored once for `D` products.
#[inline(always)]
fn add_rows<V: Lanes, T: Number, const R: usize, const D: usize>(
    x: Left<'_>,
    b: Rows<'_, T>,
    sums: Sums<'_>,
) {
    let (sums, cols) = sums;
    let whole = x.2 / D * D;
    for k in (0..whole).step_by(D) {
        add_some_rows::<V, T, R, D>(x, k, b, (sums, cols));
    }
    for k in whole..x.2 {
        add_some_rows::<V, T, R, 1>(x, k, b, (sums, cols));
    }
}

/// The part of [`add_rows`] from the rows `k..k + D` of b.
#[inline(always)]
fn add_some_rows<V: Lanes, T: Number, const R: usize, const D: usize>(
    (x, x_stride, _): Left<'_>,
    k: usize,
    (b, b_stride): Rows<'_, T>,
    (sums, cols): Sums<'_>,
) {
    let mut factors = [[V::zero(); D]; R];
    for (r, factors) in factors.iter_mut().enumerate() {
        for (d, factor) in factors.iter_mut().enumerate() {
            *factor = V::splat(x[r * x_stride + k + d]);
        }
    }
    let whole = cols / V::N * V::N;
    // Long rows the machine foresees by itself.
    let ahead = if b_stride < 2048 { 2 * D * b_stride } else { 0 };
    for j in (0..whole).step_by(V::N) {
        let mut right = [V::zero(); D];
        for (d, right) in right.iter_mut().enumerate() {
            *right = T::load(b, (k + d) * b_stride + j);
            if ahead > 0 {
                prefetch(b, ahead + (k + d) * b_stride + j);
            }
        }
        for (r, factors) in factors.iter().enumerate() {
            let mut sum = V::load(sums, r * cols + j);
            for (&factor, &right) in factors.iter().zip(&right) {
                sum = sum.add_product(factor, right);
            }
            sum.store(sums, r * cols + j);
        }
    }
    for j in whole..cols {
        for r in 0..R {
            for d in 0..D {
                sums[r * cols + j] += x[r * x_stride + k + d] * b[(k + d) * b_stride + j].float();
            }
        }
    }
}

/// `sums += x b` for `R` rows of x and a column-major b: dot products with `C` columns at a time.
#[inline(always)]
fn add_dots<V: Lanes, T: Number, const R: usize, const C: usize>(
    x: Left<'_>,
    b: Rows<'_, T>,
    sums: Sums<'_>,
) {
    let (sums, cols) = sums;
    let whole = cols / C * C;
    for j in (0..whole).step_by(C) {
        add_some_dots::<V, T, R, C>(x, j, b, (sums, cols));
    }
    for j in whole..cols {
        add_some_dots::<V, T, R, 1>(x, j, b, (sums, cols));
    }
}

/// The part of [`add_dots`] for the columns `j..j + C`.
#[inline(always)]
fn add_some_dots<V: Lanes, T: Number, const R: usize, const C: usize>(
    (x, x_stride, depth): Left<'_>,
    j: usize,
    (b, b_stride): Rows<'_, T>,
    (sums, cols): Sums<'_>,
) {
    let mut totals = [[V::zero(); C]; R];
    let whole = depth / V::N * V::N;
    for k in (0..whole).step_by(V::N) {
        let mut right = [V::zero(); C];
        for (c, right) in right.iter_mut().enumerate() {
            *right = T::load(b, (j + c) * b_stride + k);
            prefetch(b, (j + C + c) * b_stride + k);
        }
        for (r, totals) in totals.iter_mut().enumerate() {
            let x = V::load(x, r * x_stride + k);
            for (total, &right) in totals.iter_mut().zip(&right) {
                *total = total.add_product(x, right);
            }
        }
    }
    for (r, totals) in totals.iter().enumerate() {
        for (c, total) in totals.iter().enumerate() {
            let mut total = total.total();
            for k in whole..depth {
                total += x[r * x_stride + k] * b[(j + c) * b_stride + k].float();
            }
            sums[r * cols + j + c] += total;
        }
    }
}

/// Numbers of a right factor that there are kernels for.
pub trait Kernels: Number {
    /// `sums += x b` of a row-major b.
    fn add_rows(rows: usize, x: Left<'_>, b: Rows<'_, Self>, sums: Sums<'_>);

    /// The same of a column-major b.
    fn add_dots(rows: usize, x: Left<'_>, b: Rows<'_, Self>, sums: Sums<'_>);
}

/// One function for each number of rows: their sums stay in registers.
macro_rules! by_rows {
    ($kernel:ident of $number:ty, ($n:expr, $x:expr, $b:expr, $sums:expr): $($rows:literal x $others:literal),*) => {
        match $n {
            $($rows => {
                by_level! {
                    fn kernel(x: Left<'_>, b: Rows<'_, $number>, sums: Sums<'_>) = $kernel[$number, $rows, $others]
                }
                kernel($x, $b, $sums)
            })*
            n => unreachable!("{n} rows are not few"),
        }
    };
}

macro_rules! kernels {
    ($number:ty) => {
        impl Kernels for $number {
            fn add_rows(rows: usize, x: Left<'_>, b: Rows<'_, Self>, sums: Sums<'_>) {
                by_rows!(add_rows of $number, (rows, x, b, sums): 1 x 8, 2 x 8, 3 x 4, 4 x 4, 5 x 4)
            }

            fn add_dots(rows: usize, x: Left<'_>, b: Rows<'_, Self>, sums: Sums<'_>) {
                by_rows!(add_dots of $number, (rows, x, b, sums): 1 x 4, 2 x 4, 3 x 4, 4 x 4, 5 x 4)
            }
        }
    };
}

kernels!(f32);
kernels!(bf16);
kernels!(i8);

#[cfg(test)]
mod tests {
    use super::*;

    fn check<V: Lanes>() {
        const R: usize = 3;
        for [depth, cols] in [[1, 1], [7, 5], [8, 16], [21, 37], [33, 64]] {
            let number = |i: usize| ((i * 37 + 11) % 64) as f32 - 32.0;
            let x: Vec<f32> = (0..R * depth).map(number).collect();
            let b: Vec<f32> = (0..depth * cols).map(|i| number(i + 5)).collect();
            let (mut by_rows, mut by_dots) = (vec![1.0; R * cols], vec![1.0; R * cols]);
            // The same numbers as rows and as columns.
            let across: Vec<f32> = (0..depth * cols)
                .map(|i| b[i % depth * cols + i / depth])
                .collect();
            let left = (&x[..], depth, depth);
            add_rows::<V, f32, R, 4>(left, (&b, cols), (&mut by_rows, cols));
            add_dots::<V, f32, R, 2>(left, (&across, depth), (&mut by_dots, cols));
            // Small integers are bf16 too.
            let short = |b: &[f32]| b.iter().map(|&x| bf16::from_f32(x)).collect::<Vec<_>>();
            let (short_b, short_across) = (short(&b), short(&across));
            let (mut short_rows, mut short_dots) = (vec![1.0; R * cols], vec![1.0; R * cols]);
            add_rows::<V, bf16, R, 4>(left, (&short_b, cols), (&mut short_rows, cols));
            add_dots::<V, bf16, R, 2>(left, (&short_across, depth), (&mut short_dots, cols));
            assert_eq!((short_rows, short_dots), (by_rows.clone(), by_dots.clone()));
            let short = |b: &[f32]| b.iter().map(|&x| x as i8).collect::<Vec<_>>();
            let (short_b, short_across) = (short(&b), short(&across));
            let (mut short_rows, mut short_dots) = (vec![1.0; R * cols], vec![1.0; R * cols]);
            add_rows::<V, i8, R, 4>(left, (&short_b, cols), (&mut short_rows, cols));
            add_dots::<V, i8, R, 2>(left, (&short_across, depth), (&mut short_dots, cols));
            assert_eq!((short_rows, short_dots), (by_rows.clone(), by_dots.clone()));
            for r in 0..R {
                for j in 0..cols {
                    let products = (0..depth).map(|k| x[r * depth + k] * b[k * cols + j]);
                    // Small integers: every order of summing gives the same.
                    let expected = 1.0 + products.sum::<f32>();
                    assert_eq!(by_rows[r * cols + j], expected, "row {r}, column {j}");
                    assert_eq!(by_dots[r * cols + j], expected, "row {r}, column {j}");
                }
            }
        }
    }

    /// The suite only sees the widest vectors of the machine that it runs on.
    #[test]
    fn all_vectors_agree() {
        check::<[f32; 8]>();
        #[cfg(target_arch = "x86_64")]
        {
            use crate::simd::{Level, level};
            if level() >= Level::Middle {
                check::<std::arch::x86_64::__m256>();
            }
            if level() == Level::Wide {
                check::<std::arch::x86_64::__m512>();
            }
        }
    }
}
