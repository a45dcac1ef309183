//! Cross-entropy in CubeCL: the scores of some rows at a time; the products are the executor's
//! own, softmax, loss and slope one kernel.

use burn::backend::{
    ops::{FloatTensorOps, IntTensorOps},
    tensor::{FloatTensor, IntTensor},
};
use burn::tensor::{IntDType, Slice};
use burn_cubecl::{CubeBackend, kernel::into_contiguous, tensor::CubeTensor};
use cubecl::prelude::*;

use super::CrossEntropyOps;
use crate::cube::{empty, floats, largest, len, per_row, scratch, sum, width, zeros};

/// Scores that are made at once: 256 MiB.
const SCORES: usize = 1 << 26;

/// The losses of some rows of scores, which become `weight * (softmax - onehot)` where slopes are
/// wanted; a cube for each row. A target outside the vocabulary has the loss `no_number`.
#[cube(launch)]
fn losses(
    scores: &mut [f32],
    targets: &[i32],
    losses: &mut [f32],
    vocab: u32,
    weight: f32,
    no_number: f32,
    #[comptime] slopes: bool,
) {
    let mut scratch = scratch();
    let vocab = vocab as usize;
    if CUBE_POS < losses.len() {
        let start = CUBE_POS * vocab;
        let target = targets[CUBE_POS] as u32 as usize;
        let mut top = f32::min_value();
        let mut j = UNIT_POS as usize;
        while j < vocab {
            top = max(top, scores[start + j]);
            j += CUBE_DIM as usize;
        }
        let top = largest(top, &mut scratch);
        let mut part = 0.0f32.runtime();
        let mut j = UNIT_POS as usize;
        while j < vocab {
            part += (scores[start + j] - top).exp();
            j += CUBE_DIM as usize;
        }
        let total = sum(part, &mut scratch);
        if UNIT_POS == 0 {
            if target < vocab {
                losses[CUBE_POS] = total.ln() + top - scores[start + target];
            } else {
                losses[CUBE_POS] = no_number;
            }
        }
        if comptime!(slopes) {
            // The score of the target is read by now.
            sync_cube();
            let mut j = UNIT_POS as usize;
            while j < vocab {
                let p = (scores[start + j] - top).exp() / total;
                scores[start + j] = weight * (p - select(j == target, 1.0f32, 0.0f32));
                j += CUBE_DIM as usize;
            }
        }
    }
}

/// The losses' mean, and where they are wanted the gradients of x and w.
fn run(
    x: CubeTensor,
    w: CubeTensor,
    targets: CubeTensor,
    transposed: bool,
    slopes: bool,
) -> (CubeTensor, Option<[CubeTensor; 2]>) {
    type B = CubeBackend;
    let (x, w) = (floats(x), floats(w));
    let targets = into_contiguous(B::int_cast(targets, IntDType::I32));
    let (rows, d) = (x.meta.shape()[0], width(&x));
    let vocab = w.meta.shape()[usize::from(!transposed)];
    let client = x.client.clone();
    let turned = B::float_transpose(w.clone());
    let (onto, back) = if transposed { (turned, w) } else { (w, turned) };
    let block = (SCORES / vocab.max(1)).clamp(1, rows.max(1));
    let (mut all, mut dx, mut dw) = (Vec::new(), Vec::new(), None);
    for from in (0..rows).step_by(block) {
        let to = rows.min(from + block);
        let some = |range: std::ops::Range<usize>| Slice::from(range);
        let part = B::float_slice(x.clone(), &[some(from..to), some(0..d)]);
        let ids = into_contiguous(B::int_slice(targets.clone(), &[some(from..to)]));
        let scores = floats(B::float_matmul(part.clone(), onto.clone()));
        let some_losses = empty(&x, [to - from]);
        let (count, dim) = per_row(&client, to - from);
        losses::launch(
            &client,
            count,
            dim,
            scores.clone().into_buffer_arg(),
            ids.into_buffer_arg(),
            some_losses.clone().into_buffer_arg(),
            vocab as u32,
            1.0 / rows as f32,
            // Not a literal of the kernel: WGSL has none.
            f32::NAN,
            slopes,
        );
        all.push(some_losses);
        if slopes {
            dx.push(B::float_matmul(scores.clone(), back.clone()));
            let one = if transposed {
                B::float_matmul(B::float_transpose(scores), part)
            } else {
                B::float_matmul(B::float_transpose(part), scores)
            };
            dw = Some(match dw {
                Some(sum) => B::float_add(sum, one),
                None => one,
            });
        }
    }
    if rows == 0 {
        // The mean of nothing.
        let nothing = B::float_mul_scalar(zeros(&x, [1]), f32::NAN.into());
        let shape = if transposed { [vocab, d] } else { [d, vocab] };
        let gradients = slopes.then(|| [zeros(&x, [0, d]), zeros(&x, shape)]);
        return (nothing, gradients);
    }
    let loss = B::float_mean(B::float_cat(all, 0));
    debug_assert_eq!(len(&loss), 1);
    let gradients = dw.map(|dw| [B::float_cat(dx, 0), dw]);
    (loss, gradients)
}

impl CrossEntropyOps for CubeBackend {
    fn calm_cross_entropy(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        targets: IntTensor<Self>,
        transposed: bool,
    ) -> FloatTensor<Self> {
        run(x, w, targets, transposed, false).0
    }

    fn calm_cross_entropy_with_grads(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        targets: IntTensor<Self>,
        transposed: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let (loss, gradients) = run(x, w, targets, transposed, true);
        let [dx, dw] = gradients.expect("gradients were asked for");
        (loss, dx, dw)
    }
}
