//! Cross-entropy on the CPU executor.

use burn::backend::{
    Flex,
    tensor::{FloatTensor, IntTensor},
};
use rayon::prelude::*;

use super::CrossEntropyOps;
use crate::cpu::tensor::{Floats, ids, tensor};
use crate::linear::matmul_precision;
use calm_gemm::by_level;
use calm_gemm::lanes::{Lanes, exp, largest, replace_all};
use calm_gemm::{Mat, MatMut, Update, gemm};

/// Scores that are made at once: 16 MiB.
const SCORES: usize = 1 << 22;

impl CrossEntropyOps for Flex {
    fn calm_cross_entropy(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        targets: IntTensor<Self>,
        transposed: bool,
    ) -> FloatTensor<Self> {
        let problem = Problem::new(x, w, targets, transposed);
        tensor(vec![problem.run(None)], [1])
    }

    fn calm_cross_entropy_with_grads(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        targets: IntTensor<Self>,
        transposed: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let problem = Problem::new(x, w, targets, transposed);
        let (mut dx, mut dw) = (vec![0.0; problem.x.len()], vec![0.0; problem.w.len()]);
        let loss = problem.run(Some((&mut dx, &mut dw)));
        (
            tensor(vec![loss], [1]),
            tensor(dx, problem.x.shape().clone()),
            tensor(dw, problem.w.shape().clone()),
        )
    }
}

struct Problem {
    x: Floats,
    w: Floats,
    targets: Vec<usize>,
    transposed: bool,
    vocab: usize,
}

impl Problem {
    fn new(
        x: FloatTensor<Flex>,
        w: FloatTensor<Flex>,
        targets: IntTensor<Flex>,
        transposed: bool,
    ) -> Self {
        let (x, w) = (Floats::new(x), Floats::new(w));
        let vocab = w.shape()[usize::from(!transposed)];
        let targets = ids(targets, vocab);
        Self {
            x,
            w,
            targets,
            transposed,
            vocab,
        }
    }

    /// The mean loss; fills the gradients of x and w (zero before) where they are wanted.
    fn run(&self, mut grads: Option<(&mut [f32], &mut [f32])>) -> f32 {
        let (d, vocab, rows) = (self.x.width(), self.vocab, self.targets.len());
        let precision = matmul_precision();
        let w = if self.transposed {
            Mat::new(&self.w, vocab, d).t()
        } else {
            Mat::new(&self.w, d, vocab)
        };
        let block = (SCORES / vocab).clamp(1, rows.max(1));
        let mut scores = vec![0.0; block * vocab];
        let mut total = 0.0f64;
        for first in (0..rows).step_by(block) {
            let some = first..rows.min(first + block);
            let n = some.len();
            let scores = &mut scores[..n * vocab];
            let x = Mat::new(&self.x[some.start * d..some.end * d], n, d);
            let target = MatMut::new(scores, n, vocab);
            gemm(x, w, target, Update::Overwrite, precision);
            let losses: Vec<f32> = scores
                .par_chunks_mut(vocab)
                .zip(&self.targets[some.clone()])
                .map(|(row, &target)| {
                    if grads.is_some() {
                        let loss = slope(row, row[target], 1.0 / rows as f32);
                        row[target] -= 1.0 / rows as f32;
                        loss
                    } else {
                        value(row, row[target])
                    }
                })
                .collect();
            total += losses.iter().map(|&loss| f64::from(loss)).sum::<f64>();
            if let Some((dx, dw)) = &mut grads {
                let dx = MatMut::new(&mut dx[some.start * d..some.end * d], n, d);
                let scores = Mat::new(scores, n, vocab);
                gemm(scores, w.t(), dx, Update::Overwrite, precision);
                if self.transposed {
                    let dw = MatMut::new(dw, vocab, d);
                    gemm(scores.t(), x, dw, Update::Add, precision);
                } else {
                    gemm(
                        x.t(),
                        scores,
                        MatMut::new(dw, d, vocab),
                        Update::Add,
                        precision,
                    );
                }
            }
        }
        (total / rows as f64) as f32
    }
}

by_level! {
    /// The loss of one row of scores; what becomes of them is of no use.
    fn value(row: &mut [f32], target: f32) -> f32 = value_of_row[]
}

by_level! {
    /// The loss of one row of scores, which become `weight * softmax`.
    fn slope(row: &mut [f32], target: f32, weight: f32) -> f32 = slope_of_row[]
}

#[inline(always)]
fn value_of_row<V: Lanes>(row: &mut [f32], target: f32) -> f32 {
    let top = largest::<V>(row);
    let total = replace_all::<V>(row, |x| exp(x.sub(V::splat(top))), |x| exp(x - top));
    total.ln() + top - target
}

#[inline(always)]
fn slope_of_row<V: Lanes>(row: &mut [f32], target: f32, weight: f32) -> f32 {
    let top = largest::<V>(row);
    let total = replace_all::<V>(row, |x| exp(x.sub(V::splat(top))), |x| exp(x - top));
    let scale = weight / total;
    replace_all::<V>(row, |x| x.mul(V::splat(scale)), |x| x * scale);
    total.ln() + top - target
}
