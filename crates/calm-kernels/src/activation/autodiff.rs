//! Activations under autodiff.

use burn::backend::autodiff::{
    Autodiff,
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn::backend::{Backend, tensor::FloatTensor};

use super::ActivationOps;

#[derive(Debug)]
struct Silu;

impl<B: Backend + ActivationOps> Backward<B, 1> for Silu {
    type State = FloatTensor<B>;

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let [node] = ops.parents;
        let grad = grads.consume::<B>(&ops.node);
        if let Some(node) = node {
            grads.register::<B>(node.id, B::calm_silu_backward(ops.state, grad));
        }
    }
}

#[derive(Debug)]
struct SiluGatePacked;

impl<B: Backend + ActivationOps> Backward<B, 1> for SiluGatePacked {
    type State = FloatTensor<B>;

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let [node] = ops.parents;
        let grad = grads.consume::<B>(&ops.node);
        if let Some(node) = node {
            let grad = B::calm_silu_gate_packed_backward(ops.state, grad);
            grads.register::<B>(node.id, grad);
        }
    }
}

#[derive(Debug)]
struct SiluAdd;

impl<B: Backend + ActivationOps> Backward<B, 2> for SiluAdd {
    type State = (FloatTensor<B>, FloatTensor<B>);

    fn backward(
        self,
        ops: Ops<Self::State, 2>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let (x, shared) = ops.state;
        let grad = grads.consume::<B>(&ops.node);
        let (dx, dshared) = B::calm_silu_add_backward(x, shared, grad);
        for (node, grad) in ops.parents.into_iter().zip([dx, dshared]) {
            if let Some(node) = node {
                grads.register::<B>(node.id, grad);
            }
        }
    }
}

#[derive(Debug)]
struct SiluGate;

impl<B: Backend + ActivationOps> Backward<B, 2> for SiluGate {
    type State = (FloatTensor<B>, FloatTensor<B>);

    fn backward(
        self,
        ops: Ops<Self::State, 2>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let (gate, up) = ops.state;
        let grad = grads.consume::<B>(&ops.node);
        let (dgate, dup) = B::calm_silu_gate_backward(gate, up, grad);
        for (node, grad) in ops.parents.into_iter().zip([dgate, dup]) {
            if let Some(node) = node {
                grads.register::<B>(node.id, grad);
            }
        }
    }
}

impl<B: Backend + ActivationOps, C: CheckpointStrategy> ActivationOps for Autodiff<B, C> {
    fn calm_silu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let parents = [x.node()];
        let x = x.into_primitive();
        match Silu.prepare::<C>(parents).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(x.clone(), B::calm_silu(x)),
            OpsKind::UnTracked(prep) => prep.finish(B::calm_silu(x)),
        }
    }

    fn calm_silu_add(x: FloatTensor<Self>, shared: FloatTensor<Self>) -> FloatTensor<Self> {
        let parents = [x.node(), shared.node()];
        let (x, shared) = (x.into_primitive(), shared.into_primitive());
        match SiluAdd.prepare::<C>(parents).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let y = B::calm_silu_add(x.clone(), shared.clone());
                prep.finish((x, shared), y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::calm_silu_add(x, shared)),
        }
    }

    fn calm_silu_gate(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        let parents = [gate.node(), up.node()];
        let (gate, up) = (gate.into_primitive(), up.into_primitive());
        match SiluGate.prepare::<C>(parents).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let y = B::calm_silu_gate(gate.clone(), up.clone());
                prep.finish((gate, up), y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::calm_silu_gate(gate, up)),
        }
    }

    fn calm_silu_gate_packed(both: FloatTensor<Self>) -> FloatTensor<Self> {
        let parents = [both.node()];
        let both = both.into_primitive();
        match SiluGatePacked
            .prepare::<C>(parents)
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => {
                let y = B::calm_silu_gate_packed(both.clone());
                prep.finish(both, y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::calm_silu_gate_packed(both)),
        }
    }

    fn calm_silu_backward(_: FloatTensor<Self>, _: FloatTensor<Self>) -> FloatTensor<Self> {
        crate::first_order()
    }

    fn calm_silu_add_backward(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        crate::first_order()
    }

    fn calm_silu_gate_backward(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        crate::first_order()
    }

    fn calm_silu_gate_packed_backward(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        crate::first_order()
    }
}
