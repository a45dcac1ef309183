//! Products with a right factor of short numbers and many rows on the left: it is widened block by
//! block, and the kernels for f32 do the rest.

use rayon::prelude::*;

use super::{Mat, MatMut, MatmulPrecision, Order, Right, Update, gemm_on};

/// Depth and columns of a right factor that are widened at once: 2 MiB of f32.
const WIDENED: [usize; 2] = [512, 1024];

/// A right factor of short numbers, widened block by block.
pub(super) fn gemm<B: Right>(
    threads: usize,
    a: Mat<'_>,
    b: B,
    c: MatMut<'_>,
    into: Update,
    precision: MatmulPrecision,
) {
    let by_columns = b.order() == Some(Order::Columns);
    let [all_depth, all_cols] = b.dims();
    // Read in the order in which it lies.
    let source = if by_columns { b.t() } else { b };
    let mut space = Vec::new();
    for first_depth in (0..all_depth).step_by(WIDENED[0]) {
        let depth = first_depth..all_depth.min(first_depth + WIDENED[0]);
        let into = if first_depth > 0 { Update::Add } else { into };
        let a = Mat {
            data: &a.data[depth.start * a.col_stride..],
            cols: depth.len(),
            ..a
        };
        for first_col in (0..all_cols).step_by(WIDENED[1]) {
            let cols = first_col..all_cols.min(first_col + WIDENED[1]);
            let dims = [depth.len(), cols.len()];
            let (rows, across) = match by_columns {
                true => (cols.clone(), depth.clone()),
                false => (depth.clone(), cols.clone()),
            };
            let width = across.len();
            space.resize(dims[0] * dims[1], 0.0);
            let widen = |(i, to): (usize, &mut [f32])| {
                source.widen(rows.start + i, across.clone(), to);
            };
            match threads {
                0 | 1 => space.chunks_exact_mut(width).enumerate().for_each(widen),
                _ => {
                    let rows = space.par_chunks_exact_mut(width).with_min_len(16);
                    rows.enumerate().for_each(widen);
                }
            }
            let strides = if by_columns { [1, width] } else { [width, 1] };
            let target = MatMut {
                data: &mut c.data[cols.start..],
                rows: c.rows,
                cols: cols.len(),
                stride: c.stride,
            };
            let b = Mat::strided(&space, dims, strides);
            gemm_on(threads, a, b, target, into, precision);
        }
    }
}
