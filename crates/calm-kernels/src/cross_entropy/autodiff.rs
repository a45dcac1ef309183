//! Cross-entropy under autodiff.

use burn::backend::autodiff::{Autodiff, checkpoint::strategy::CheckpointStrategy};
use burn::backend::{
    Backend,
    tensor::{FloatTensor, IntTensor},
};

use super::CrossEntropyOps;
use crate::autodiff::{first_order, record};

impl<B: Backend + CrossEntropyOps, C: CheckpointStrategy> CrossEntropyOps for Autodiff<B, C> {
    fn calm_cross_entropy(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        targets: IntTensor<Self>,
        transposed: bool,
    ) -> FloatTensor<Self> {
        let inputs = [x.node(), w.node()];
        let [x, w] = [x, w].map(|x| x.into_primitive());
        record::<B, C, _, 2>(
            inputs,
            |keep| {
                if !keep {
                    return (B::calm_cross_entropy(x, w, targets, transposed), None);
                }
                // Saved are the gradients of x and w for an upstream gradient of 1.
                let (loss, dx, dw) = B::calm_cross_entropy_with_grads(x, w, targets, transposed);
                (loss, Some([dx, dw]))
            },
            |saved, grad, wanted| {
                let scale = B::float_reshape(grad, [1, 1].into());
                let [to_x, to_w] = wanted;
                let [dx, dw] = saved;
                let scaled = |grad| B::float_mul(grad, scale.clone());
                [to_x.then(|| scaled(dx)), to_w.then(|| scaled(dw))]
            },
        )
    }

    first_order! {
        calm_cross_entropy_with_grads(
            FloatTensor<Self>, FloatTensor<Self>, IntTensor<Self>, bool,
        ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
    }
}
