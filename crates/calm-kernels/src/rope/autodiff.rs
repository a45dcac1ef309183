//! Rotary positions under autodiff.

use burn::backend::autodiff::{
    Autodiff,
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn::backend::{Backend, tensor::FloatTensor};

use super::RopeOps;

#[derive(Debug)]
struct Rope;

impl<B: Backend + RopeOps> Backward<B, 1> for Rope {
    type State = (FloatTensor<B>, FloatTensor<B>, f32);

    /// A rotation's transpose is the rotation back.
    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let [node] = ops.parents;
        let (cos, sin, direction) = ops.state;
        let grad = grads.consume::<B>(&ops.node);
        if let Some(node) = node {
            grads.register::<B>(node.id, B::calm_rope(grad, cos, sin, -direction));
        }
    }
}

impl<B: Backend + RopeOps, C: CheckpointStrategy> RopeOps for Autodiff<B, C> {
    fn calm_rope(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        direction: f32,
    ) -> FloatTensor<Self> {
        let parents = [x.node()];
        let (x, cos, sin) = (
            x.into_primitive(),
            cos.into_primitive(),
            sin.into_primitive(),
        );
        let y = B::calm_rope(x, cos.clone(), sin.clone(), direction);
        match Rope.prepare::<C>(parents).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((cos, sin, direction), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }
}
