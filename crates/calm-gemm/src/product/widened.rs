//! Products with a right factor of short numbers and many rows on the left: it is widened block by
//! block, and the kernels for f32 do the rest.

use super::{Mat, MatMut, MatmulPrecision, Right, Update, gemm_on};

/// Depth and columns of a right factor that are widened at once: 2 MiB of f32.
const WIDENED: [usize; 2] = [512, 1024];

/// A right factor of short numbers, widened block by block.
pub(super) fn gemm<T: Right>(
    threads: usize,
    a: Mat<'_>,
    b: Mat<'_, T>,
    c: MatMut<'_>,
    into: Update,
    precision: MatmulPrecision,
) {
    let by_rows = b.col_stride == 1;
    let mut space = Vec::new();
    for first_depth in (0..b.rows).step_by(WIDENED[0]) {
        let depth = first_depth..b.rows.min(first_depth + WIDENED[0]);
        let into = if first_depth > 0 { Update::Add } else { into };
        let a = Mat {
            data: &a.data[depth.start * a.col_stride..],
            cols: depth.len(),
            ..a
        };
        for first_col in (0..b.cols).step_by(WIDENED[1]) {
            let cols = first_col..b.cols.min(first_col + WIDENED[1]);
            let dims = [depth.len(), cols.len()];
            // In the order in which they lie.
            let (outer, inner, outer_stride, inner_stride) = match by_rows {
                true => (depth.clone(), cols.clone(), b.row_stride, b.col_stride),
                false => (cols.clone(), depth.clone(), b.col_stride, b.row_stride),
            };
            let width = inner.len();
            space.resize(outer.len() * width, 0.0);
            for (i, to) in outer.zip(space.chunks_exact_mut(width)) {
                let from = &b.data[i * outer_stride + inner.start * inner_stride..];
                match inner_stride {
                    1 => T::widen(&from[..width], to),
                    _ => {
                        for (to, from) in to.iter_mut().zip(from.iter().step_by(inner_stride)) {
                            *to = from.float();
                        }
                    }
                }
            }
            let strides = if by_rows { [width, 1] } else { [1, width] };
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
