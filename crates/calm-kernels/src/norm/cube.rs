//! The norms in CubeCL: a cube for each row, and for the weights' gradients partial sums.

use burn::backend::{ops::FloatTensorOps, tensor::FloatTensor};
use burn_cubecl::{CubeBackend, tensor::CubeTensor};
use cubecl::prelude::*;

use super::NormOps;
use crate::cube::{empty, floats, len, per_entry, per_row, scratch, sum, width, zeros};

/// `centred` is a LayerNorm; an RMSNorm reads no `b`.
#[cube(launch)]
fn forward(
    x: &[f32],
    w: &[f32],
    b: &[f32],
    y: &mut [f32],
    width: u32,
    eps: f32,
    #[comptime] centred: bool,
) {
    let mut scratch = scratch();
    let d = width as usize;
    let start = CUBE_POS * d;
    if start < x.len() {
        let mean = mean_of(x, start, width, &mut scratch, centred);
        let scale = scale_of(x, start, width, mean, eps, &mut scratch);
        let mut j = UNIT_POS as usize;
        while j < d {
            let normal = (x[start + j] - mean) * scale * w[j];
            if comptime!(centred) {
                y[start + j] = normal + b[j];
            } else {
                y[start + j] = normal;
            }
            j += CUBE_DIM as usize;
        }
    }
}

/// The mean of a row, or 0 where it is not to be centred.
#[cube]
fn mean_of(
    x: &[f32],
    start: usize,
    width: u32,
    scratch: &mut Shared<[f32]>,
    #[comptime] centred: bool,
) -> f32 {
    let mut mean = 0.0f32.runtime();
    if comptime!(centred) {
        let mut part = 0.0f32.runtime();
        let mut j = UNIT_POS as usize;
        while j < width as usize {
            part += x[start + j];
            j += CUBE_DIM as usize;
        }
        mean = sum(part, scratch) / f32::cast_from(width);
    }
    mean
}

/// `1 / sqrt(mean((x - mean)^2) + eps)` of a row.
#[cube]
fn scale_of(
    x: &[f32],
    start: usize,
    width: u32,
    mean: f32,
    eps: f32,
    scratch: &mut Shared<[f32]>,
) -> f32 {
    let mut part = 0.0f32.runtime();
    let mut j = UNIT_POS as usize;
    while j < width as usize {
        let off = x[start + j] - mean;
        part += off * off;
        j += CUBE_DIM as usize;
    }
    1.0f32 / (sum(part, scratch) / f32::cast_from(width) + eps).sqrt()
}

/// The gradient of x; mean and scale of every row go to `stats`, `[rows, 2]`.
#[cube(launch)]
fn backward(
    x: &[f32],
    w: &[f32],
    grad: &[f32],
    dx: &mut [f32],
    stats: &mut [f32],
    width: u32,
    eps: f32,
    #[comptime] centred: bool,
) {
    let mut scratch = scratch();
    let d = width as usize;
    let start = CUBE_POS * d;
    if start < x.len() {
        let mean = mean_of(x, start, width, &mut scratch, centred);
        let scale = scale_of(x, start, width, mean, eps, &mut scratch);
        if UNIT_POS == 0 {
            stats[2 * CUBE_POS] = mean;
            stats[2 * CUBE_POS + 1] = scale;
        }
        let mut along = 0.0f32.runtime();
        let mut all = 0.0f32.runtime();
        let mut j = UNIT_POS as usize;
        while j < d {
            let g = grad[start + j] * w[j];
            along += g * (x[start + j] - mean) * scale;
            all += g;
            j += CUBE_DIM as usize;
        }
        let along = sum(along, &mut scratch) / f32::cast_from(width);
        let mut offset = 0.0f32.runtime();
        if comptime!(centred) {
            offset = sum(all, &mut scratch) / f32::cast_from(width);
        }
        let mut j = UNIT_POS as usize;
        while j < d {
            let normal = (x[start + j] - mean) * scale;
            dx[start + j] = scale * (grad[start + j] * w[j] - offset - normal * along);
            j += CUBE_DIM as usize;
        }
    }
}

/// Sums over some rows of `grad * normal`, and of `grad` where centred: a unit for each part and
/// column.
#[cube(launch)]
fn weight_parts(
    x: &[f32],
    grad: &[f32],
    stats: &[f32],
    dw: &mut [f32],
    db: &mut [f32],
    width: u32,
    rows_of_part: u32,
    #[comptime] centred: bool,
) {
    if ABSOLUTE_POS < dw.len() {
        let d = width as usize;
        let column = ABSOLUTE_POS % d;
        let rows = x.len() / d;
        let first = ABSOLUTE_POS / d * rows_of_part as usize;
        let end = min(first + rows_of_part as usize, rows);
        let mut along = 0.0f32.runtime();
        let mut all = 0.0f32.runtime();
        for row in first..end {
            let g = grad[row * d + column];
            along += g * (x[row * d + column] - stats[2 * row]) * stats[2 * row + 1];
            all += g;
        }
        dw[ABSOLUTE_POS] = along;
        if comptime!(centred) {
            db[ABSOLUTE_POS] = all;
        }
    }
}

fn run(x: CubeTensor, w: CubeTensor, b: CubeTensor, eps: f32, centred: bool) -> CubeTensor {
    let [x, w, b] = [x, w, b].map(floats);
    let y = empty(&x, x.meta.shape().clone());
    let (n, d) = (len(&x), width(&x));
    if n > 0 {
        let client = y.client.clone();
        let (count, dim) = per_row(&client, n / d);
        forward::launch(
            &client,
            count,
            dim,
            x.into_buffer_arg(),
            w.into_buffer_arg(),
            b.into_buffer_arg(),
            y.clone().into_buffer_arg(),
            d as u32,
            eps,
            centred,
        );
    }
    y
}

/// The gradients of x, w and b; that of b means nothing where the norm is not centred.
fn run_backward(
    x: CubeTensor,
    w: CubeTensor,
    grad: CubeTensor,
    eps: f32,
    centred: bool,
) -> [CubeTensor; 3] {
    let [x, w, grad] = [x, w, grad].map(floats);
    let (n, d) = (len(&x), width(&x));
    let dx = empty(&x, x.meta.shape().clone());
    if n == 0 {
        return [dx, zeros(&x, [d]), zeros(&x, [d])];
    }
    let rows = n / d;
    let client = x.client.clone();
    let stats = empty(&x, [rows, 2]);
    let (count, dim) = per_row(&client, rows);
    backward::launch(
        &client,
        count,
        dim,
        x.clone().into_buffer_arg(),
        w.into_buffer_arg(),
        grad.clone().into_buffer_arg(),
        dx.clone().into_buffer_arg(),
        stats.clone().into_buffer_arg(),
        d as u32,
        eps,
        centred,
    );
    // As many parts as there are rows in each.
    let rows_of_part = rows.isqrt().max(1);
    let parts = rows.div_ceil(rows_of_part);
    let (dw, db) = (empty(&x, [parts, d]), empty(&x, [parts, d]));
    let (count, dim) = per_entry(&client, parts * d);
    weight_parts::launch(
        &client,
        count,
        dim,
        x.into_buffer_arg(),
        grad.into_buffer_arg(),
        stats.into_buffer_arg(),
        dw.clone().into_buffer_arg(),
        db.clone().into_buffer_arg(),
        d as u32,
        rows_of_part as u32,
        centred,
    );
    let total =
        |parts| CubeBackend::float_reshape(CubeBackend::float_sum_dim(parts, 0), [d].into());
    let db = if centred { total(db) } else { db };
    [dx, total(dw), db]
}

impl NormOps for CubeBackend {
    fn calm_rms_norm(x: FloatTensor<Self>, w: FloatTensor<Self>, eps: f32) -> FloatTensor<Self> {
        run(x, w.clone(), w, eps, false)
    }

    fn calm_rms_norm_backward(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        eps: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let [dx, dw, _] = run_backward(x, w, grad, eps, false);
        (dx, dw)
    }

    fn calm_layer_norm(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        b: FloatTensor<Self>,
        eps: f32,
    ) -> FloatTensor<Self> {
        run(x, w, b, eps, true)
    }

    fn calm_layer_norm_backward(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        eps: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        run_backward(x, w, grad, eps, true).into()
    }
}
