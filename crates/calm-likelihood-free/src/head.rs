//! What every generative head can do, and the choice among them.

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::Tensor;
use calm_nn::{ConfigError, Cost, Draws, Init, PartMemory, Posterior, TrainingMemory};
use serde::{Deserialize, Serialize};

use crate::{
    DiffusionHead, DiffusionHeadConfig, DiffusionLoss, EnergyHead, EnergyHeadConfig, FlowHead,
    FlowHeadConfig, Solver,
};

/// A loss and the parts that are worth logging.
#[derive(Clone, Debug)]
pub struct HeadLoss {
    /// What is minimised, mean over positions, `[1]`.
    pub total: Tensor<1>,
    /// Named parts, each `[1]`.
    pub parts: Vec<(&'static str, Tensor<1>)>,
}

/// A generative head: from a hidden state to a random latent vector, in two verbs.
pub trait GenerativeHead {
    /// Loss of predicting `target` from `hidden`.
    ///
    /// # Shapes
    /// - hidden: `[positions, d]`
    fn loss(&self, hidden: Tensor<2>, target: &Posterior, draws: &mut dyn Draws) -> HeadLoss;

    /// `n` independent latent vectors for each position.
    ///
    /// # Shapes
    /// - hidden: `[positions, d]`
    /// - output: `[n, positions, l]`
    fn sample(&self, hidden: Tensor<2>, n: usize, draws: &mut dyn Draws) -> Tensor<3>;
}

/// Which head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HeadKind {
    /// [`EnergyHead`], CALM's.
    #[default]
    Energy,
    /// [`FlowHead`].
    Flow,
    /// [`DiffusionHead`].
    Diffusion,
}

/// Settings of a head that it shares with no other part of a model: those of every kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadSettings {
    /// Which head.
    #[serde(default)]
    pub kind: HeadKind,
    /// Residual blocks (published: a quarter of the backbone's layers).
    pub blocks: usize,
    /// Energy: width of the noise (published: 64).
    pub noise_size: usize,
    /// Energy: model samples per position in the loss, N (published: 8). Flow, diffusion: copies of
    /// every position in the loss.
    pub samples: usize,
    /// Energy: posterior draws per position in the loss, M (published: 100).
    pub posterior_samples: usize,
    /// Energy: whether they come in pairs that mirror each other (published: no).
    #[serde(default)]
    pub antithetic: bool,
    /// Energy: exponent of the score (published: 1); 0 < alpha <= 2, strictly proper below 2.
    pub alpha: f64,
    /// Flow: solver.
    #[serde(default)]
    pub flow_solver: Solver,
    /// Flow: its steps (released: 10 of the midpoint rule).
    #[serde(default = "flow_steps")]
    pub flow_steps: usize,
    /// Diffusion: form of the loss.
    #[serde(default)]
    pub diffusion_loss: DiffusionLoss,
    /// Diffusion: steps of the sampler (released: 100).
    #[serde(default = "diffusion_steps")]
    pub diffusion_steps: usize,
    /// Diffusion: bound on the entries of the latents that the sampler predicts on its way; 0 for
    /// none, as released.
    #[serde(default)]
    pub diffusion_clip: f64,
}

fn flow_steps() -> usize {
    10
}

fn diffusion_steps() -> usize {
    100
}

impl Default for HeadSettings {
    /// The published energy head of a backbone of 4 layers.
    fn default() -> Self {
        Self {
            kind: HeadKind::Energy,
            blocks: 1,
            noise_size: 64,
            samples: 8,
            posterior_samples: 100,
            antithetic: false,
            alpha: 1.0,
            flow_solver: Solver::Midpoint,
            flow_steps: flow_steps(),
            diffusion_loss: DiffusionLoss::Clean,
            diffusion_steps: diffusion_steps(),
            diffusion_clip: 0.0,
        }
    }
}

/// Configuration of a [`Head`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadConfig {
    /// Width d, the backbone's.
    pub hidden_size: usize,
    /// Latent width l, the autoencoder's.
    pub latent_size: usize,
    /// What it shares with no other part.
    pub settings: HeadSettings,
}

impl HeadConfig {
    fn energy(&self) -> EnergyHeadConfig {
        let s = &self.settings;
        EnergyHeadConfig {
            hidden_size: self.hidden_size,
            latent_size: self.latent_size,
            blocks: s.blocks,
            noise_size: s.noise_size,
            samples: s.samples,
            posterior_samples: s.posterior_samples,
            antithetic: s.antithetic,
            alpha: s.alpha,
        }
    }

    fn flow(&self) -> FlowHeadConfig {
        FlowHeadConfig {
            hidden_size: self.hidden_size,
            latent_size: self.latent_size,
            blocks: self.settings.blocks,
            copies: self.settings.samples,
            solver: self.settings.flow_solver,
            steps: self.settings.flow_steps,
        }
    }

    fn diffusion(&self) -> DiffusionHeadConfig {
        DiffusionHeadConfig {
            hidden_size: self.hidden_size,
            latent_size: self.latent_size,
            blocks: self.settings.blocks,
            copies: self.settings.samples,
            loss: self.settings.diffusion_loss,
            steps: self.settings.diffusion_steps,
            clip: self.settings.diffusion_clip,
        }
    }

    /// Checks the sizes of the head that is chosen.
    ///
    /// # Errors
    /// Names the field and what it must be.
    pub fn validate(&self) -> Result<(), ConfigError> {
        match self.settings.kind {
            HeadKind::Energy => self.energy().validate(),
            HeadKind::Flow => self.flow().validate(),
            HeadKind::Diffusion => self.diffusion().validate(),
        }
    }

    /// The head with fresh weights.
    pub fn init(&self, init: &mut Init<'_>) -> Head {
        match self.settings.kind {
            HeadKind::Energy => Head::Energy(self.energy().init(init)),
            HeadKind::Flow => Head::Flow(self.flow().init(init)),
            HeadKind::Diffusion => Head::Diffusion(self.diffusion().init(init)),
        }
    }

    /// Multiply-accumulates of `n` samples at a position. What all of them share is counted once: the
    /// condition, and of flow and diffusion the modulations of every step.
    pub fn sample_macs(&self, n: u64) -> u64 {
        let s = &self.settings;
        let steps = |evaluations: usize, net: crate::DenoiserConfig| {
            net.condition_macs() + evaluations as u64 * (net.time_macs() + n * net.latent_macs())
        };
        match s.kind {
            HeadKind::Energy => {
                let energy = self.energy();
                let shared = energy.shared_macs();
                n * (energy.forward_macs(0) - shared) + shared
            }
            HeadKind::Flow => {
                let evaluations = s.flow_steps * s.flow_solver.evaluations();
                steps(evaluations, self.flow().denoiser())
            }
            HeadKind::Diffusion => steps(s.diffusion_steps, self.diffusion().denoiser()),
        }
    }

    /// Multiply-accumulates of the loss at a position, forward.
    pub fn loss_macs(&self) -> u64 {
        let copies = self.settings.samples as u64;
        let once = |net: crate::DenoiserConfig| {
            net.condition_macs() + copies * (net.time_macs() + net.latent_macs())
        };
        match self.settings.kind {
            HeadKind::Energy => self.sample_macs(copies),
            HeadKind::Flow => once(self.flow().denoiser()),
            HeadKind::Diffusion => once(self.diffusion().denoiser()),
        }
    }
}

impl TrainingMemory for HeadConfig {
    fn training_memory(&self, positions: usize, checkpointing: bool) -> Vec<PartMemory> {
        let (copies, l) = (self.settings.samples, self.latent_size);
        let denoiser = |net: crate::DenoiserConfig, loss: usize| {
            net.training_memory(copies * positions, positions, loss, checkpointing)
        };
        match self.settings.kind {
            HeadKind::Energy => self.energy().training_memory(positions, checkpointing),
            HeadKind::Flow => denoiser(self.flow().denoiser(), 0),
            HeadKind::Diffusion => denoiser(self.diffusion().denoiser(), 3 * l),
        }
    }
}

impl Cost for HeadConfig {
    fn parameters(&self) -> u64 {
        match self.settings.kind {
            HeadKind::Energy => self.energy().parameters(),
            HeadKind::Flow => self.flow().denoiser().parameters(),
            HeadKind::Diffusion => self.diffusion().denoiser().parameters(),
        }
    }

    /// One sample.
    fn forward_macs(&self, _context: usize) -> u64 {
        self.sample_macs(1)
    }
}

/// The head of a model, one of the three.
#[derive(Module, Debug)]
pub enum Head {
    /// CALM's.
    Energy(EnergyHead),
    /// Flow matching.
    Flow(FlowHead),
    /// Diffusion.
    Diffusion(DiffusionHead),
}

impl Head {
    /// Where it is the energy head.
    pub fn energy_mut(&mut self) -> Option<&mut EnergyHead> {
        match self {
            Self::Energy(head) => Some(head),
            Self::Flow(_) | Self::Diffusion(_) => None,
        }
    }

    /// The last layer, which is zero at the start.
    pub fn output_mut(&mut self) -> &mut Linear {
        match self {
            Self::Energy(head) => &mut head.final_out,
            Self::Flow(head) => &mut head.net.output,
            Self::Diffusion(head) => &mut head.net.output,
        }
    }

    fn head(&self) -> &dyn GenerativeHead {
        match self {
            Self::Energy(head) => head,
            Self::Flow(head) => head,
            Self::Diffusion(head) => head,
        }
    }
}

impl GenerativeHead for Head {
    fn loss(&self, hidden: Tensor<2>, target: &Posterior, draws: &mut dyn Draws) -> HeadLoss {
        self.head().loss(hidden, target, draws)
    }

    fn sample(&self, hidden: Tensor<2>, n: usize, draws: &mut dyn Draws) -> Tensor<3> {
        self.head().sample(hidden, n, draws)
    }
}
