//! Linear layers under autodiff.

use burn::backend::autodiff::{
    Autodiff,
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn::backend::{Backend, tensor::FloatTensor};

use super::LinearOps;

#[derive(Debug)]
struct Linear;

/// Input and weight, each kept only where the other's gradient is wanted.
type State<B> = (Option<FloatTensor<B>>, Option<FloatTensor<B>>);

impl<B: Backend + LinearOps> Backward<B, 3> for Linear {
    type State = State<B>;

    fn backward(
        self,
        ops: Ops<Self::State, 3>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let [node_x, node_w, node_b] = ops.parents;
        let (x, w) = ops.state;
        let grad = grads.consume::<B>(&ops.node);
        if let Some(node) = node_b {
            grads.register::<B>(node.id, B::calm_linear_grad_b(grad.clone()));
        }
        if let (Some(node), Some(x)) = (node_w, x) {
            grads.register::<B>(node.id, B::calm_linear_grad_w(x, grad.clone()));
        }
        if let (Some(node), Some(w)) = (node_x, w) {
            grads.register::<B>(node.id, B::calm_linear_grad_x(grad, w));
        }
    }
}

#[derive(Debug)]
struct LinearNoBias;

impl<B: Backend + LinearOps> Backward<B, 2> for LinearNoBias {
    type State = State<B>;

    fn backward(
        self,
        ops: Ops<Self::State, 2>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let [node_x, node_w] = ops.parents;
        let (x, w) = ops.state;
        let grad = grads.consume::<B>(&ops.node);
        if let (Some(node), Some(x)) = (node_w, x) {
            grads.register::<B>(node.id, B::calm_linear_grad_w(x, grad.clone()));
        }
        if let (Some(node), Some(w)) = (node_x, w) {
            grads.register::<B>(node.id, B::calm_linear_grad_x(grad, w));
        }
    }
}

impl<B: Backend + LinearOps, C: CheckpointStrategy> LinearOps for Autodiff<B, C> {
    fn calm_linear(x: FloatTensor<Self>, w: FloatTensor<Self>) -> FloatTensor<Self> {
        let state = (
            w.is_tracked().then(|| x.primitive().clone()),
            x.is_tracked().then(|| w.primitive().clone()),
        );
        let parents = [x.node(), w.node()];
        let y = B::calm_linear(x.into_primitive(), w.into_primitive());
        match LinearNoBias
            .prepare::<C>(parents)
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => prep.finish(state, y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }

    fn calm_linear_bias(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        b: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let state = (
            w.is_tracked().then(|| x.primitive().clone()),
            x.is_tracked().then(|| w.primitive().clone()),
        );
        let parents = [x.node(), w.node(), b.node()];
        let y = B::calm_linear_bias(x.into_primitive(), w.into_primitive(), b.into_primitive());
        match Linear.prepare::<C>(parents).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(state, y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }

    fn calm_linear_grad_x(_: FloatTensor<Self>, _: FloatTensor<Self>) -> FloatTensor<Self> {
        crate::first_order()
    }

    fn calm_linear_grad_w(_: FloatTensor<Self>, _: FloatTensor<Self>) -> FloatTensor<Self> {
        crate::first_order()
    }

    fn calm_linear_grad_b(_: FloatTensor<Self>) -> FloatTensor<Self> {
        crate::first_order()
    }
}
