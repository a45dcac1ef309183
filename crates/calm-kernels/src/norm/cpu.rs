//! The norms row by row.

use crate::cpu::rows::{for_rows, for_rows_summing};
use calm_gemm::simd;
use calm_gemm::simd::sum;

pub(super) fn rms_norm(x: &[f32], w: &[f32], eps: f32, out: &mut [f32]) {
    let d = w.len();
    for_rows(out, d, |first, out| {
        rms_rows(&x[first * d..][..out.len()], w, eps, out);
    });
}

/// Writes the gradient of x and returns that of w.
pub(super) fn rms_norm_backward(
    x: &[f32],
    w: &[f32],
    grad: &[f32],
    eps: f32,
    dx: &mut [f32],
) -> Vec<f32> {
    let d = w.len();
    for_rows_summing(dx, d, d, |first, dx, dw| {
        let part = first * d..first * d + dx.len();
        rms_rows_backward(&x[part.clone()], w, &grad[part], eps, dx, dw);
    })
}

pub(super) fn layer_norm(x: &[f32], w: &[f32], b: &[f32], eps: f32, out: &mut [f32]) {
    let d = w.len();
    for_rows(out, d, |first, out| {
        layer_rows(&x[first * d..][..out.len()], w, b, eps, out);
    });
}

/// Writes the gradient of x and returns that of w, then of b.
pub(super) fn layer_norm_backward(
    x: &[f32],
    w: &[f32],
    grad: &[f32],
    eps: f32,
    dx: &mut [f32],
) -> Vec<f32> {
    let d = w.len();
    for_rows_summing(dx, d, 2 * d, |first, dx, sums| {
        let part = first * d..first * d + dx.len();
        let (dw, db) = sums.split_at_mut(d);
        layer_rows_backward(&x[part.clone()], w, &grad[part], eps, dx, dw, db);
    })
}

simd! {
    fn rms_rows(x: &[f32], w: &[f32], eps: f32, out: &mut [f32]) {
        let d = w.len();
        for (x, out) in x.chunks_exact(d).zip(out.chunks_exact_mut(d)) {
            let inverse = 1.0 / (sum(d, |j| x[j] * x[j]) / d as f32 + eps).sqrt();
            for ((out, x), w) in out.iter_mut().zip(x).zip(w) {
                *out = x * inverse * w;
            }
        }
    }
}

simd! {
    // With r = 1 / root: dx = r (g w - x r^2 mean(g w x)), dw = sum over rows of g x r.
    fn rms_rows_backward(x: &[f32], w: &[f32], grad: &[f32], eps: f32, dx: &mut [f32], dw: &mut [f32]) {
        let d = w.len();
        let dw = &mut dw[..d];
        for ((x, grad), dx) in x.chunks_exact(d).zip(grad.chunks_exact(d)).zip(dx.chunks_exact_mut(d)) {
            let inverse = 1.0 / (sum(d, |j| x[j] * x[j]) / d as f32 + eps).sqrt();
            let along = sum(d, |j| grad[j] * w[j] * x[j]) / d as f32 * inverse * inverse;
            for j in 0..d {
                dx[j] = (grad[j] * w[j] - x[j] * along) * inverse;
                dw[j] += grad[j] * x[j] * inverse;
            }
        }
    }
}

simd! {
    fn layer_rows(x: &[f32], w: &[f32], b: &[f32], eps: f32, out: &mut [f32]) {
        let d = w.len();
        for (x, out) in x.chunks_exact(d).zip(out.chunks_exact_mut(d)) {
            let mean = sum(d, |j| x[j]) / d as f32;
            let inverse = 1.0 / (sum(d, |j| (x[j] - mean) * (x[j] - mean)) / d as f32 + eps).sqrt();
            for (((out, x), w), b) in out.iter_mut().zip(x).zip(w).zip(b) {
                *out = (x - mean) * inverse * w + b;
            }
        }
    }
}

simd! {
    // With n = (x - mean) r: dx = r (g w - mean(g w) - n mean(g w n)).
    fn layer_rows_backward(x: &[f32], w: &[f32], grad: &[f32], eps: f32, dx: &mut [f32], dw: &mut [f32], db: &mut [f32]) {
        let d = w.len();
        let (dw, db) = (&mut dw[..d], &mut db[..d]);
        for ((x, grad), dx) in x.chunks_exact(d).zip(grad.chunks_exact(d)).zip(dx.chunks_exact_mut(d)) {
            let mean = sum(d, |j| x[j]) / d as f32;
            let inverse = 1.0 / (sum(d, |j| (x[j] - mean) * (x[j] - mean)) / d as f32 + eps).sqrt();
            let level = sum(d, |j| grad[j] * w[j]) / d as f32;
            let along = sum(d, |j| grad[j] * w[j] * (x[j] - mean)) / d as f32 * inverse;
            for j in 0..d {
                let normed = (x[j] - mean) * inverse;
                dx[j] = (grad[j] * w[j] - level - normed * along) * inverse;
                dw[j] += grad[j] * normed;
                db[j] += grad[j];
            }
        }
    }
}
