//! Cross-entropy under autodiff.

use burn::backend::autodiff::{
    Autodiff,
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn::backend::{
    Backend,
    tensor::{FloatTensor, IntTensor},
};

use super::CrossEntropyOps;

#[derive(Debug)]
struct CrossEntropy;

impl<B: Backend + CrossEntropyOps> Backward<B, 2> for CrossEntropy {
    /// Gradients of x and w for an upstream gradient of 1.
    type State = (FloatTensor<B>, FloatTensor<B>);

    fn backward(
        self,
        ops: Ops<Self::State, 2>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let (dx, dw) = ops.state;
        let grad = grads.consume::<B>(&ops.node);
        let scale = B::float_reshape(grad, [1, 1].into());
        for (node, grad) in ops.parents.into_iter().zip([dx, dw]) {
            if let Some(node) = node {
                grads.register::<B>(node.id, B::float_mul(grad, scale.clone()));
            }
        }
    }
}

impl<B: Backend + CrossEntropyOps, C: CheckpointStrategy> CrossEntropyOps for Autodiff<B, C> {
    fn calm_cross_entropy(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        targets: IntTensor<Self>,
        transposed: bool,
    ) -> FloatTensor<Self> {
        let parents = [x.node(), w.node()];
        let (x, w) = (x.into_primitive(), w.into_primitive());
        match CrossEntropy
            .prepare::<C>(parents)
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => {
                let (loss, dx, dw) = B::calm_cross_entropy_with_grads(x, w, targets, transposed);
                prep.finish((dx, dw), loss)
            }
            OpsKind::UnTracked(prep) => {
                prep.finish(B::calm_cross_entropy(x, w, targets, transposed))
            }
        }
    }

    fn calm_cross_entropy_with_grads(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: IntTensor<Self>,
        _: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        crate::first_order()
    }
}
