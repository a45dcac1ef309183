//! Linear layers under autodiff.

use burn::backend::autodiff::{Autodiff, checkpoint::strategy::CheckpointStrategy};
use burn::backend::{Backend, tensor::FloatTensor};

use super::LinearOps;
use crate::autodiff::{first_order, record};

/// Input and weight, each kept only where the other's gradient is wanted.
type Saved<B> = (Option<FloatTensor<B>>, Option<FloatTensor<B>>);

/// Gradients of input and weight.
fn of_product<B: Backend + LinearOps>(
    (x, w): Saved<B>,
    grad: FloatTensor<B>,
    [to_x, to_w]: [bool; 2],
) -> [Option<FloatTensor<B>>; 2] {
    let x = x.filter(|_| to_w);
    let dw = x.map(|x| B::calm_linear_grad_w(x, grad.clone()));
    let w = w.filter(|_| to_x);
    [w.map(|w| B::calm_linear_grad_x(grad, w)), dw]
}

impl<B: Backend + LinearOps, C: CheckpointStrategy> LinearOps for Autodiff<B, C> {
    fn calm_linear(x: FloatTensor<Self>, w: FloatTensor<Self>) -> FloatTensor<Self> {
        let inputs = [x.node(), w.node()];
        let [of_x, of_w] = [&x, &w].map(|input| input.is_tracked());
        let [x, w] = [x, w].map(|x| x.into_primitive());
        record::<B, C, Saved<B>, 2>(
            inputs,
            |_| {
                let saved = (of_w.then(|| x.clone()), of_x.then(|| w.clone()));
                (B::calm_linear(x, w), Some(saved))
            },
            of_product::<B>,
        )
    }

    fn calm_linear_bias(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        b: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let inputs = [x.node(), w.node(), b.node()];
        let [of_x, of_w] = [&x, &w].map(|input| input.is_tracked());
        let [x, w, b] = [x, w, b].map(|x| x.into_primitive());
        record::<B, C, Saved<B>, 3>(
            inputs,
            |_| {
                let saved = (of_w.then(|| x.clone()), of_x.then(|| w.clone()));
                (B::calm_linear_bias(x, w, b), Some(saved))
            },
            |saved, grad, [to_x, to_w, to_b]| {
                let db = to_b.then(|| B::calm_linear_grad_b(grad.clone()));
                let [dx, dw] = of_product::<B>(saved, grad, [to_x, to_w]);
                [dx, dw, db]
            },
        )
    }

    first_order! {
        calm_linear_grad_x(FloatTensor<Self>, FloatTensor<Self>) -> FloatTensor<Self>;
        calm_linear_grad_w(FloatTensor<Self>, FloatTensor<Self>) -> FloatTensor<Self>;
        calm_linear_grad_b(FloatTensor<Self>) -> FloatTensor<Self>;
    }
}
