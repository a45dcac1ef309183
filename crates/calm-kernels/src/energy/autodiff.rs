//! The energy score under autodiff.

use burn::backend::autodiff::{Autodiff, checkpoint::strategy::CheckpointStrategy};
use burn::backend::{Backend, tensor::FloatTensor};

use super::{EnergyOps, KeyedDraws};
use crate::autodiff::{first_order, record};

impl<B: Backend + EnergyOps, C: CheckpointStrategy> EnergyOps for Autodiff<B, C> {
    fn calm_energy(
        samples: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        log_std: FloatTensor<Self>,
        draws: KeyedDraws,
        alpha: f32,
    ) -> FloatTensor<Self> {
        let inputs = [samples.node()];
        let [samples, mean, log_std] = [samples, mean, log_std].map(|x| x.into_primitive());
        record::<B, C, _, 1>(
            inputs,
            |keep| {
                let tensors = || [samples.clone(), mean.clone(), log_std.clone()];
                let saved = keep.then(|| (tensors(), (draws, alpha)));
                (B::calm_energy(samples, mean, log_std, draws, alpha), saved)
            },
            |([samples, mean, log_std], (draws, alpha)), grad, _| {
                let grad = B::calm_energy_backward(samples, mean, log_std, grad, draws, alpha);
                [Some(grad)]
            },
        )
    }

    first_order! {
        calm_energy_backward(
            FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>,
            KeyedDraws, f32,
        ) -> FloatTensor<Self>;
    }
}
