//! Rotary positions in CubeCL: a unit for each pair.

use burn::backend::tensor::FloatTensor;
use burn_cubecl::{CubeBackend, tensor::CubeTensor};
use cubecl::prelude::*;

use super::RopeOps;
use crate::cube::{empty, floats, len, per_entry, width};

#[cube(launch)]
fn rotate(
    x: &[f32],
    cos: &[f32],
    sin: &[f32],
    y: &mut [f32],
    width: u32,
    half: u32,
    direction: f32,
) {
    if 2 * ABSOLUTE_POS < x.len() {
        let half = half as usize;
        let pairs_of_row = width as usize / 2;
        let row = ABSOLUTE_POS / pairs_of_row;
        let pair = ABSOLUTE_POS % pairs_of_row;
        let j = pair % half;
        let at = row * width as usize + pair / half * (2 * half) + j;
        let angle = row % (cos.len() / half) * half + j;
        let a = x[at];
        let b = x[at + half];
        let sin = sin[angle] * direction;
        y[at] = a * cos[angle] - b * sin;
        y[at + half] = b * cos[angle] + a * sin;
    }
}

impl RopeOps for CubeBackend {
    fn calm_rope(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        direction: f32,
    ) -> FloatTensor<Self> {
        let [x, cos, sin] = [x, cos, sin].map(floats);
        let y = empty(&x, x.meta.shape().clone());
        let (n, d, half) = (len(&x), width(&x), width(&cos));
        if n > 0 {
            let client = y.client.clone();
            let (count, dim) = per_entry(&client, n / 2);
            let [x, cos, sin, out] = [x, cos, sin, y.clone()].map(CubeTensor::into_buffer_arg);
            let (d, half) = (d as u32, half as u32);
            rotate::launch(&client, count, dim, x, cos, sin, out, d, half, direction);
        }
        y
    }
}
