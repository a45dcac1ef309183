//! Rotary positions under autodiff.

use burn::backend::autodiff::{Autodiff, checkpoint::strategy::CheckpointStrategy};
use burn::backend::{Backend, tensor::FloatTensor};

use super::RopeOps;
use crate::autodiff::record;

impl<B: Backend + RopeOps, C: CheckpointStrategy> RopeOps for Autodiff<B, C> {
    fn calm_rope(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        direction: f32,
    ) -> FloatTensor<Self> {
        let inputs = [x.node()];
        let [x, cos, sin] = [x, cos, sin].map(|x| x.into_primitive());
        record::<B, C, _, 1>(
            inputs,
            |keep| {
                let saved = keep.then(|| (cos.clone(), sin.clone(), direction));
                (B::calm_rope(x, cos, sin, direction), saved)
            },
            // A rotation's transpose is the rotation back.
            |(cos, sin, direction), grad, _| [Some(B::calm_rope(grad, cos, sin, -direction))],
        )
    }
}
