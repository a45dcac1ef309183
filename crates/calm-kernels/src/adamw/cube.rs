//! AdamW in CubeCL: a unit for each entry.

use burn::backend::tensor::FloatTensor;
use burn_cubecl::{CubeBackend, tensor::CubeTensor};
use cubecl::prelude::*;

use super::{AdamW, AdamWOps};
use crate::cube::{empty, floats, len, per_entry};

/// `rate` and `grown` are corrected for the moments' start at zero.
#[cube(launch)]
fn advance(
    p: &[f32],
    g: &[f32],
    m: &[f32],
    v: &[f32],
    new_p: &mut [f32],
    new_m: &mut [f32],
    new_v: &mut [f32],
    beta1: f32,
    beta2: f32,
    rate: f32,
    keep: f32,
    grown: f32,
    epsilon: f32,
) {
    if ABSOLUTE_POS < p.len() {
        let g = g[ABSOLUTE_POS];
        let first = m[ABSOLUTE_POS] * beta1 + g * (1.0f32 - beta1);
        let second = v[ABSOLUTE_POS] * beta2 + g * g * (1.0f32 - beta2);
        new_m[ABSOLUTE_POS] = first;
        new_v[ABSOLUTE_POS] = second;
        let root = (second * grown).sqrt() + epsilon;
        new_p[ABSOLUTE_POS] = p[ABSOLUTE_POS] * keep - rate * first / root;
    }
}

impl AdamWOps for CubeBackend {
    fn calm_adamw(
        parameter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        step: AdamW,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let [p, g, m, v] = [parameter, gradient, first, second].map(floats);
        let new = || empty(&p, p.meta.shape().clone());
        let (new_p, new_m, new_v) = (new(), new(), new());
        let n = len(&p);
        if n > 0 {
            let client = p.client.clone();
            let (count, dim) = per_entry(&client, n);
            let (grown1, grown2) = step.corrections();
            let [p, g, m, v] = [p, g, m, v].map(CubeTensor::into_buffer_arg);
            let [out_p, out_m, out_v] =
                [&new_p, &new_m, &new_v].map(|x| x.clone().into_buffer_arg());
            advance::launch(
                &client,
                count,
                dim,
                p,
                g,
                m,
                v,
                out_p,
                out_m,
                out_v,
                step.beta1,
                step.beta2,
                step.lr / grown1,
                1.0 - step.lr * step.weight_decay,
                1.0 / grown2,
                step.epsilon,
            );
        }
        (new_p, new_m, new_v)
    }
}
