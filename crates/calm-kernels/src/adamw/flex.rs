//! AdamW on the CPU executor.

use burn::backend::{Flex, tensor::FloatTensor};
use rayon::prelude::*;

use super::{AdamW, AdamWOps};
use crate::cpu::tensor::{Floats, filled, tensor};
use calm_gemm::simd;
use calm_gemm::simd::sum;

/// Numbers of a part.
const PART: usize = 1 << 14;

impl AdamWOps for Flex {
    fn calm_adamw(
        parameter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        step: AdamW,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let [p, g, m, v] = [parameter, gradient, first, second].map(Floats::new);
        let n = p.len();
        let (mut new_m, mut new_v) = (Vec::new(), Vec::new());
        let new_p = filled(n, |out_p| {
            new_m = filled(n, |out_m| {
                new_v = filled(n, |out_v| {
                    out_p
                        .par_chunks_mut(PART)
                        .zip(out_m.par_chunks_mut(PART))
                        .zip(out_v.par_chunks_mut(PART))
                        .enumerate()
                        .for_each(|(i, ((out_p, out_m), out_v))| {
                            let part = i * PART..i * PART + out_p.len();
                            let (p, g) = (&p[part.clone()], &g[part.clone()]);
                            let (m, v) = (&m[part.clone()], &v[part]);
                            advance(step, p, g, m, v, out_p, out_m, out_v);
                        });
                });
            });
        });
        let shape = p.shape();
        (
            tensor(new_p, shape.clone()),
            tensor(new_m, shape.clone()),
            tensor(new_v, shape.clone()),
        )
    }

    fn calm_sum_of_squares(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let x = Floats::new(x);
        let parts: Vec<f32> = x.par_chunks(PART).map(squares).collect();
        let total: f64 = parts.iter().map(|&part| f64::from(part)).sum();
        tensor(vec![total as f32], [1])
    }
}

simd! {
    fn squares(x: &[f32]) -> f32 {
        sum(x.len(), |j| x[j] * x[j])
    }
}

simd! {
    fn advance(
        step: AdamW, p: &[f32], g: &[f32], m: &[f32], v: &[f32],
        out_p: &mut [f32], out_m: &mut [f32], out_v: &mut [f32],
    ) {
        let n = p.len();
        let (g, m, v) = (&g[..n], &m[..n], &v[..n]);
        let (out_p, out_m, out_v) = (&mut out_p[..n], &mut out_m[..n], &mut out_v[..n]);
        let (grown1, grown2) = step.corrections();
        let (lr, keep) = (step.lr / grown1, 1.0 - step.lr * step.weight_decay);
        let grown2 = 1.0 / grown2;
        for j in 0..n {
            let first = m[j] * step.beta1 + g[j] * (1.0 - step.beta1);
            let second = v[j] * step.beta2 + g[j] * g[j] * (1.0 - step.beta2);
            out_m[j] = first;
            out_v[j] = second;
            out_p[j] = p[j] * keep - lr * first / ((second * grown2).sqrt() + step.epsilon);
        }
    }
}
