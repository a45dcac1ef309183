//! The flow-matching head: a velocity field that carries Gaussian noise to latent vectors.

use burn::module::Module;
use burn::tensor::Tensor;
use calm_nn::{ConfigError, Draws, Init, Posterior};
use serde::{Deserialize, Serialize};

use crate::denoiser::{Denoiser, DenoiserConfig};
use crate::{GenerativeHead, HeadLoss};

/// How a [`FlowHead`] follows its velocity field from t = 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Solver {
    /// One velocity a step, at its beginning.
    Euler,
    /// Two velocities a step: at its beginning, and in the middle of the step that this one takes.
    #[default]
    Midpoint,
}

impl Solver {
    /// Velocities a step.
    pub fn evaluations(self) -> usize {
        match self {
            Self::Euler => 1,
            Self::Midpoint => 2,
        }
    }
}

/// Sizes of a [`FlowHead`], its loss and its solver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowHeadConfig {
    /// Width d, the backbone's.
    pub hidden_size: usize,
    /// Latent width l, the autoencoder's.
    pub latent_size: usize,
    /// Residual blocks.
    pub blocks: usize,
    /// Copies of every position in the loss, each with a draw of the posterior, a time and noise of
    /// its own.
    pub copies: usize,
    /// The solver.
    pub solver: Solver,
    /// Its steps.
    pub steps: usize,
}

impl FlowHeadConfig {
    /// The network that names velocities.
    pub fn denoiser(&self) -> DenoiserConfig {
        DenoiserConfig {
            hidden_size: self.hidden_size,
            latent_size: self.latent_size,
            blocks: self.blocks,
            outputs: 1,
        }
    }

    /// Checks the sizes.
    ///
    /// # Errors
    /// Names the field and what it must be.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.denoiser().validate()?;
        ConfigError::positive("samples", self.copies)?;
        ConfigError::positive("flow_steps", self.steps)
    }

    /// The head with fresh weights.
    pub fn init(&self, init: &mut Init<'_>) -> FlowHead {
        FlowHead {
            net: self.denoiser().init(init),
            copies: self.copies,
            solver: self.solver,
            steps: self.steps,
        }
    }
}

/// Flow matching (arXiv 2210.02747; one of CALM's alternatives to the energy head): the straight
/// path `x_t = (1 - t) x_0 + t x_1` from noise x_0 to a latent x_1 has the velocity `x_1 - x_0`,
/// whose mean at x_t the network learns.
#[derive(Module, Debug)]
pub struct FlowHead {
    /// The velocity field.
    pub net: Denoiser,
    copies: usize,
    #[module(skip)]
    solver: Solver,
    steps: usize,
}

/// What a flow-matching loss is made of.
#[derive(Clone, Debug)]
pub struct FlowDraws {
    /// Latents x_1, `[copies, positions, l]`.
    pub targets: Tensor<3>,
    /// t in [0, 1), `[copies, positions]`.
    pub times: Tensor<2>,
    /// x_0, `[copies, positions, l]`.
    pub noise: Tensor<3>,
}

impl FlowHead {
    /// Mean squared errors of velocities, over l, `[copies, positions]`.
    pub fn errors(&self, hidden: Tensor<2>, draws: FlowDraws) -> Tensor<2> {
        let FlowDraws {
            targets,
            times,
            noise,
        } = draws;
        let t = times.clone().unsqueeze_dim::<3>(2);
        let on_the_way = noise.clone() * (t.clone() * -1.0 + 1.0) + targets.clone() * t;
        let condition = self.net.condition(hidden);
        let velocity = self.net.forward(condition, on_the_way, embedded(times));
        let error = velocity - (targets - noise);
        error.square().mean_dim(2).squeeze_dim(2)
    }

    /// Latents from given noise, by `steps` steps of `solver`.
    ///
    /// # Shapes
    /// - hidden: `[positions, d]`
    /// - noise, output: `[n, positions, l]`
    pub fn transport(
        &self,
        hidden: Tensor<2>,
        noise: Tensor<3>,
        solver: Solver,
        steps: usize,
    ) -> Tensor<3> {
        let device = noise.device();
        let condition = self.net.condition(hidden);
        let velocity = |x: Tensor<3>, t: f64| {
            let time = Tensor::from_floats([[t as f32]], &device);
            self.net.forward(condition.clone(), x, embedded(time))
        };
        let step = 1.0 / steps as f64;
        (0..steps).fold(noise, |x, i| {
            let t = i as f64 * step;
            let first = velocity(x.clone(), t);
            let mean = match solver {
                Solver::Euler => first,
                Solver::Midpoint => velocity(x.clone() + first * (step / 2.0), t + step / 2.0),
            };
            x + mean * step
        })
    }
}

/// The network is told `floor(1000 t)`, as in the released code.
fn embedded(times: Tensor<2>) -> Tensor<2> {
    (times * 1000.0).floor()
}

impl GenerativeHead for FlowHead {
    /// Asks for the draws of the posterior (`copies * positions * l` normal values), the times
    /// (`copies * positions` uniform ones), and as many normal values as the first for the noise.
    fn loss(&self, hidden: Tensor<2>, target: &Posterior, draws: &mut dyn Draws) -> HeadLoss {
        let device = hidden.device();
        let targets = target.samples(self.copies, draws);
        let [copies, positions, l] = targets.dims();
        let times = draws.uniform(copies * positions, &device);
        let noise = draws.normal(copies * positions * l, &device);
        let draws = FlowDraws {
            targets,
            times: times.reshape([copies, positions]),
            noise: noise.reshape([copies, positions, l]),
        };
        HeadLoss {
            total: self.errors(hidden, draws).mean(),
            parts: Vec::new(),
        }
    }

    /// Asks for `n * positions * l` normal values.
    fn sample(&self, hidden: Tensor<2>, n: usize, draws: &mut dyn Draws) -> Tensor<3> {
        let [positions, l] = [hidden.dims()[0], self.net.latent_size()];
        let noise = draws.normal(n * positions * l, &hidden.device());
        self.transport(
            hidden,
            noise.reshape([n, positions, l]),
            self.solver,
            self.steps,
        )
    }
}
