//! Rotary positions on the CPU executor.

use burn::backend::{Flex, tensor::FloatTensor};

use super::RopeOps;
use crate::cpu::rows::for_rows;
use crate::cpu::tensor::{Floats, filled, tensor};
use calm_gemm::simd;

impl RopeOps for Flex {
    fn calm_rope(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        direction: f32,
    ) -> FloatTensor<Self> {
        let (x, cos, sin) = (Floats::new(x), Floats::new(cos), Floats::new(sin));
        let (width, half, positions) = (x.width(), cos.width(), cos.shape()[0]);
        let out = filled(x.len(), |out| {
            for_rows(out, width, |first, out| {
                for (i, out) in out.chunks_exact_mut(width).enumerate() {
                    let row = first + i;
                    let at = row % positions * half;
                    let (cos, sin) = (&cos[at..at + half], &sin[at..at + half]);
                    rotate(&x[row * width..][..width], cos, sin, direction, out);
                }
            });
        });
        tensor(out, x.shape().clone())
    }
}

simd! {
    fn rotate(x: &[f32], cos: &[f32], sin: &[f32], direction: f32, out: &mut [f32]) {
        let half = cos.len();
        let sin = &sin[..half];
        for (x, out) in x.chunks_exact(2 * half).zip(out.chunks_exact_mut(2 * half)) {
            let (a, b) = x.split_at(half);
            let (first, second) = out.split_at_mut(half);
            for j in 0..half {
                let sin = sin[j] * direction;
                first[j] = a[j] * cos[j] - b[j] * sin;
                second[j] = b[j] * cos[j] + a[j] * sin;
            }
        }
    }
}
