//! The energy score on the CPU executor.

use burn::backend::{Flex, tensor::FloatTensor};

use super::{EnergyOps, KeyedDraws, cpu::Problem};
use crate::cpu::tensor::{Floats, filled, tensor};

impl EnergyOps for Flex {
    fn calm_energy(
        samples: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        log_std: FloatTensor<Self>,
        draws: KeyedDraws,
        alpha: f32,
    ) -> FloatTensor<Self> {
        let [samples, mean, log_std] = [samples, mean, log_std].map(Floats::new);
        let problem = problem(&samples, &mean, &log_std, draws, alpha);
        tensor(problem.values(), [2, problem.positions])
    }

    fn calm_energy_backward(
        samples: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        log_std: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        draws: KeyedDraws,
        alpha: f32,
    ) -> FloatTensor<Self> {
        let [samples, mean, log_std, grad] = [samples, mean, log_std, grad].map(Floats::new);
        let problem = problem(&samples, &mean, &log_std, draws, alpha);
        let out = filled(samples.len(), |out| problem.gradient(&grad, out));
        tensor(out, samples.shape().clone())
    }
}

fn problem<'a>(
    samples: &'a Floats,
    mean: &'a Floats,
    log_std: &'a Floats,
    draws: KeyedDraws,
    alpha: f32,
) -> Problem<'a> {
    Problem {
        samples,
        mean,
        log_std,
        positions: mean.shape()[0],
        l: mean.width(),
        draws,
        alpha,
    }
}
