//! The activations over slices.

use crate::cpu::rows::for_rows;
use calm_gemm::lanes::sigmoid;
use calm_gemm::simd;

pub(super) fn silu(x: &[f32], out: &mut [f32]) {
    for_rows(out, 1, |first, out| {
        silu_part(&x[first..][..out.len()], out)
    });
}

pub(super) fn silu_backward(x: &[f32], grad: &[f32], dx: &mut [f32]) {
    for_rows(dx, 1, |first, dx| {
        let part = first..first + dx.len();
        silu_backward_part(&x[part.clone()], &grad[part], dx);
    });
}

pub(super) fn silu_add(x: &[f32], shared: &[f32], width: usize, out: &mut [f32]) {
    for_rows(out, width, |first, out| {
        let begin = first * width;
        for (i, out) in out.chunks_exact_mut(width).enumerate() {
            let at = begin + i * width;
            silu_add_part(
                &x[at..at + width],
                &shared[at % shared.len()..][..width],
                out,
            );
        }
    });
}

/// Writes the gradient of `x + shared`; its sum over the first dimension is that of `shared`.
pub(super) fn silu_add_backward(
    x: &[f32],
    shared: &[f32],
    grad: &[f32],
    width: usize,
    dx: &mut [f32],
) {
    for_rows(dx, width, |first, dx| {
        for (i, dx) in dx.chunks_exact_mut(width).enumerate() {
            let at = (first + i) * width;
            let shared = &shared[at % shared.len()..][..width];
            silu_add_backward_part(&x[at..at + width], shared, &grad[at..at + width], dx);
        }
    });
}

/// The sum over the first dimension.
pub(super) fn sum_first(x: &[f32], out: &mut [f32]) {
    let length = out.len();
    for_rows(out, 1, |first, out| {
        out.fill(0.0);
        for part in x.chunks_exact(length.max(1)) {
            for (out, x) in out.iter_mut().zip(&part[first..]) {
                *out += x;
            }
        }
    });
}

pub(super) fn gate(gate: &[f32], up: &[f32], out: &mut [f32]) {
    for_rows(out, 1, |first, out| {
        let part = first..first + out.len();
        gate_part(&gate[part.clone()], &up[part], out);
    });
}

/// Writes the gradient of gate and returns that of up in `dup`.
pub(super) fn gate_backward(
    gate: &[f32],
    up: &[f32],
    grad: &[f32],
    dgate: &mut [f32],
    dup: &mut [f32],
) {
    use rayon::prelude::*;
    const PART: usize = 1 << 14;
    dgate
        .par_chunks_mut(PART)
        .zip(dup.par_chunks_mut(PART))
        .enumerate()
        .for_each(|(i, (dgate, dup))| {
            let part = i * PART..i * PART + dgate.len();
            let (gate, up) = (&gate[part.clone()], &up[part.clone()]);
            gate_backward_part(gate, up, &grad[part], dgate, dup);
        });
}

pub(super) fn gate_packed(both: &[f32], width: usize, out: &mut [f32]) {
    for_rows(out, width, |first, out| {
        for (i, out) in out.chunks_exact_mut(width).enumerate() {
            let (gate, up) = both[(first + i) * 2 * width..][..2 * width].split_at(width);
            gate_part(gate, up, out);
        }
    });
}

pub(super) fn gate_packed_backward(both: &[f32], grad: &[f32], width: usize, dboth: &mut [f32]) {
    for_rows(dboth, 2 * width, |first, dboth| {
        for (i, dboth) in dboth.chunks_exact_mut(2 * width).enumerate() {
            let row = first + i;
            let (gate, up) = both[row * 2 * width..][..2 * width].split_at(width);
            let (dgate, dup) = dboth.split_at_mut(width);
            gate_backward_part(gate, up, &grad[row * width..][..width], dgate, dup);
        }
    });
}

simd! {
    fn silu_part(x: &[f32], out: &mut [f32]) {
        for (out, &x) in out.iter_mut().zip(x) {
            *out = x * sigmoid(x);
        }
    }
}

/// The derivative of `x s`, with `s = sigmoid(x)`: `s (1 + x (1 - s))`.
#[inline(always)]
fn slope(x: f32, s: f32) -> f32 {
    s * (1.0 + x * (1.0 - s))
}

simd! {
    fn silu_backward_part(x: &[f32], grad: &[f32], dx: &mut [f32]) {
        for ((dx, &x), grad) in dx.iter_mut().zip(x).zip(grad) {
            *dx = grad * slope(x, sigmoid(x));
        }
    }
}

simd! {
    fn silu_add_part(x: &[f32], shared: &[f32], out: &mut [f32]) {
        for ((out, x), shared) in out.iter_mut().zip(x).zip(shared) {
            let x = x + shared;
            *out = x * sigmoid(x);
        }
    }
}

simd! {
    fn silu_add_backward_part(x: &[f32], shared: &[f32], grad: &[f32], dx: &mut [f32]) {
        for (((dx, x), shared), grad) in dx.iter_mut().zip(x).zip(shared).zip(grad) {
            let x = x + shared;
            *dx = grad * slope(x, sigmoid(x));
        }
    }
}

simd! {
    fn gate_part(gate: &[f32], up: &[f32], out: &mut [f32]) {
        for ((out, &gate), up) in out.iter_mut().zip(gate).zip(up) {
            *out = gate * sigmoid(gate) * up;
        }
    }
}

simd! {
    fn gate_backward_part(gate: &[f32], up: &[f32], grad: &[f32], dgate: &mut [f32], dup: &mut [f32]) {
        let n = gate.len();
        let (up, grad, dgate, dup) = (&up[..n], &grad[..n], &mut dgate[..n], &mut dup[..n]);
        for j in 0..n {
            let s = sigmoid(gate[j]);
            dgate[j] = grad[j] * up[j] * slope(gate[j], s);
            dup[j] = grad[j] * gate[j] * s;
        }
    }
}
