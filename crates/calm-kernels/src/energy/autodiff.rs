//! The energy score under autodiff.

use burn::backend::autodiff::{
    Autodiff,
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn::backend::{Backend, tensor::FloatTensor};

use super::EnergyOps;

#[derive(Debug)]
struct Energy;

impl<B: Backend + EnergyOps> Backward<B, 1> for Energy {
    /// Samples, mean, log_std; draws, key, alpha.
    type State = ([FloatTensor<B>; 3], (usize, u64, f32));

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let [node] = ops.parents;
        let ([samples, mean, log_std], (draws, key, alpha)) = ops.state;
        let grad = grads.consume::<B>(&ops.node);
        if let Some(node) = node {
            let grad = B::calm_energy_backward(samples, mean, log_std, grad, draws, key, alpha);
            grads.register::<B>(node.id, grad);
        }
    }
}

impl<B: Backend + EnergyOps, C: CheckpointStrategy> EnergyOps for Autodiff<B, C> {
    fn calm_energy(
        samples: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        log_std: FloatTensor<Self>,
        draws: usize,
        key: u64,
        alpha: f32,
    ) -> FloatTensor<Self> {
        let parents = [samples.node()];
        let [samples, mean, log_std] = [samples, mean, log_std].map(|x| x.into_primitive());
        match Energy.prepare::<C>(parents).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let state = [samples.clone(), mean.clone(), log_std.clone()];
                let y = B::calm_energy(samples, mean, log_std, draws, key, alpha);
                prep.finish((state, (draws, key, alpha)), y)
            }
            OpsKind::UnTracked(prep) => {
                prep.finish(B::calm_energy(samples, mean, log_std, draws, key, alpha))
            }
        }
    }

    fn calm_energy_backward(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: usize,
        _: u64,
        _: f32,
    ) -> FloatTensor<Self> {
        crate::first_order()
    }
}
