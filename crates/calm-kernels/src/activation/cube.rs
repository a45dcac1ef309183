//! Activations in CubeCL: a unit for each entry.

use burn::backend::tensor::FloatTensor;
use burn_cubecl::{CubeBackend, tensor::CubeTensor};
use cubecl::prelude::*;

use super::ActivationOps;
use crate::cube::{empty, floats, len, per_entry, width, zeros};

#[cube]
fn sigmoid(x: f32) -> f32 {
    1.0f32 / (1.0f32 + (-x).exp())
}

/// The derivative of `x sigmoid(x)`.
#[cube]
fn slope(x: f32) -> f32 {
    let s = sigmoid(x);
    s * (1.0f32 + x * (1.0f32 - s))
}

#[cube(launch)]
fn silu(x: &[f32], y: &mut [f32]) {
    if ABSOLUTE_POS < y.len() {
        let x = x[ABSOLUTE_POS];
        y[ABSOLUTE_POS] = x * sigmoid(x);
    }
}

#[cube(launch)]
fn silu_backward(x: &[f32], grad: &[f32], dx: &mut [f32]) {
    if ABSOLUTE_POS < dx.len() {
        dx[ABSOLUTE_POS] = grad[ABSOLUTE_POS] * slope(x[ABSOLUTE_POS]);
    }
}

#[cube(launch)]
fn silu_add(x: &[f32], shared: &[f32], y: &mut [f32]) {
    if ABSOLUTE_POS < y.len() {
        let x = x[ABSOLUTE_POS] + shared[ABSOLUTE_POS % shared.len()];
        y[ABSOLUTE_POS] = x * sigmoid(x);
    }
}

/// A unit for each entry of `shared`.
#[cube(launch)]
fn silu_add_backward(
    x: &[f32],
    shared: &[f32],
    grad: &[f32],
    dx: &mut [f32],
    dshared: &mut [f32],
    samples: u32,
) {
    if ABSOLUTE_POS < shared.len() {
        let mut total = 0.0f32.runtime();
        let summand = shared[ABSOLUTE_POS];
        for i in 0..samples {
            let at = i as usize * shared.len() + ABSOLUTE_POS;
            let one = grad[at] * slope(x[at] + summand);
            dx[at] = one;
            total += one;
        }
        dshared[ABSOLUTE_POS] = total;
    }
}

/// Where the gate of this unit's entry lies in rows of twice the width.
#[cube]
fn gate_at(width: u32) -> usize {
    ABSOLUTE_POS / width as usize * (2 * width as usize) + ABSOLUTE_POS % width as usize
}

#[cube(launch)]
fn gate(gate: &[f32], up: &[f32], y: &mut [f32]) {
    if ABSOLUTE_POS < y.len() {
        let x = gate[ABSOLUTE_POS];
        y[ABSOLUTE_POS] = x * sigmoid(x) * up[ABSOLUTE_POS];
    }
}

#[cube(launch)]
fn gate_backward(gate: &[f32], up: &[f32], grad: &[f32], dgate: &mut [f32], dup: &mut [f32]) {
    if ABSOLUTE_POS < grad.len() {
        let x = gate[ABSOLUTE_POS];
        let g = grad[ABSOLUTE_POS];
        dgate[ABSOLUTE_POS] = g * up[ABSOLUTE_POS] * slope(x);
        dup[ABSOLUTE_POS] = g * x * sigmoid(x);
    }
}

#[cube(launch)]
fn gate_packed(both: &[f32], y: &mut [f32], width: u32) {
    if ABSOLUTE_POS < y.len() {
        let at = gate_at(width);
        let x = both[at];
        y[ABSOLUTE_POS] = x * sigmoid(x) * both[at + width as usize];
    }
}

#[cube(launch)]
fn gate_packed_backward(both: &[f32], grad: &[f32], dboth: &mut [f32], width: u32) {
    if ABSOLUTE_POS < grad.len() {
        let at = gate_at(width);
        let x = both[at];
        let g = grad[ABSOLUTE_POS];
        dboth[at] = g * both[at + width as usize] * slope(x);
        dboth[at + width as usize] = g * x * sigmoid(x);
    }
}

/// `launch` for each of `n` entries, where there are any.
fn each(like: &CubeTensor, n: usize, launch: impl FnOnce(&Client, CubeCount, CubeDim)) {
    if n > 0 {
        let (count, dim) = per_entry(&like.client, n);
        launch(&like.client, count, dim);
    }
}

fn same(x: &CubeTensor) -> CubeTensor {
    empty(x, x.meta.shape().clone())
}

impl ActivationOps for CubeBackend {
    fn calm_silu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let x = floats(x);
        let y = same(&x);
        each(&y, len(&x), |client, count, dim| {
            let (x, y) = (x.into_buffer_arg(), y.clone().into_buffer_arg());
            silu::launch(client, count, dim, x, y);
        });
        y
    }

    fn calm_silu_backward(x: FloatTensor<Self>, grad: FloatTensor<Self>) -> FloatTensor<Self> {
        let [x, grad] = [x, grad].map(floats);
        let dx = same(&x);
        each(&dx, len(&x), |client, count, dim| {
            let [x, grad, dx] = [x, grad, dx.clone()].map(CubeTensor::into_buffer_arg);
            silu_backward::launch(client, count, dim, x, grad, dx);
        });
        dx
    }

    fn calm_silu_add(x: FloatTensor<Self>, shared: FloatTensor<Self>) -> FloatTensor<Self> {
        let [x, shared] = [x, shared].map(floats);
        let y = same(&x);
        each(&y, len(&x), |client, count, dim| {
            let [x, shared, y] = [x, shared, y.clone()].map(CubeTensor::into_buffer_arg);
            silu_add::launch(client, count, dim, x, shared, y);
        });
        y
    }

    fn calm_silu_add_backward(
        x: FloatTensor<Self>,
        shared: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let [x, shared, grad] = [x, shared, grad].map(floats);
        let samples = x.meta.shape()[0];
        let (dx, dshared) = (same(&x), zeros(&x, shared.meta.shape().clone()));
        if samples > 0 {
            each(&dx, len(&shared), |client, count, dim| {
                let [x, shared, grad] = [x, shared, grad].map(CubeTensor::into_buffer_arg);
                let [dx, dshared] = [&dx, &dshared].map(|x| x.clone().into_buffer_arg());
                silu_add_backward::launch(
                    client,
                    count,
                    dim,
                    x,
                    shared,
                    grad,
                    dx,
                    dshared,
                    samples as u32,
                );
            });
        }
        (dx, dshared)
    }

    fn calm_silu_gate(gate_input: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        let [x, up] = [gate_input, up].map(floats);
        let y = same(&x);
        each(&y, len(&x), |client, count, dim| {
            let [x, up, y] = [x, up, y.clone()].map(CubeTensor::into_buffer_arg);
            gate::launch(client, count, dim, x, up, y);
        });
        y
    }

    fn calm_silu_gate_backward(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let [gate, up, grad] = [gate, up, grad].map(floats);
        let (dgate, dup) = (same(&gate), same(&up));
        each(&dgate, len(&grad), |client, count, dim| {
            let [gate, up, grad] = [gate, up, grad].map(CubeTensor::into_buffer_arg);
            let [dgate, dup] = [&dgate, &dup].map(|x| x.clone().into_buffer_arg());
            gate_backward::launch(client, count, dim, gate, up, grad, dgate, dup);
        });
        (dgate, dup)
    }

    fn calm_silu_gate_packed(both: FloatTensor<Self>) -> FloatTensor<Self> {
        let both = floats(both);
        let mut shape = both.meta.shape().clone();
        let (last, d) = (shape.num_dims() - 1, width(&both) / 2);
        shape[last] = d;
        let y = empty(&both, shape);
        each(&y, len(&both) / 2, |client, count, dim| {
            let [both, y] = [both, y.clone()].map(CubeTensor::into_buffer_arg);
            gate_packed::launch(client, count, dim, both, y, d as u32);
        });
        y
    }

    fn calm_silu_gate_packed_backward(
        both: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let [both, grad] = [both, grad].map(floats);
        let d = width(&both) / 2;
        let dboth = same(&both);
        each(&dboth, len(&grad), |client, count, dim| {
            let [both, grad, dboth] = [both, grad, dboth.clone()].map(CubeTensor::into_buffer_arg);
            gate_packed_backward::launch(client, count, dim, both, grad, dboth, d as u32);
        });
        dboth
    }
}
