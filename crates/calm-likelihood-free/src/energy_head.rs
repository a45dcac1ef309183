//! The energy head: one forward pass from noise and hidden state to a latent vector.

use burn::module::Module;
use burn::nn::{LayerNorm, Linear};
use burn::tensor::Tensor;
use calm_kernels::{KeyedDraws, checkpoint, gaussian_energy, silu, silu_add, silu_gate_packed};
use calm_nn::{
    ConfigError, Cost, Draws, Init, PartMemory, Posterior, TrainingMemory, f32_bytes, layer_norm,
    linear,
};

use crate::{EnergyScore, GenerativeHead, HeadLoss, energy_score};

/// Sizes of an [`EnergyHead`] and its loss (CALM, sections 3.3.2 and 3.3.3).
#[derive(Clone, Debug, PartialEq)]
pub struct EnergyHeadConfig {
    /// Width d, the backbone's.
    pub hidden_size: usize,
    /// Latent width l, the autoencoder's.
    pub latent_size: usize,
    /// Residual blocks (published: a quarter of the backbone's layers).
    pub blocks: usize,
    /// Width of the noise (published: 64).
    pub noise_size: usize,
    /// Model samples per position in the loss, N (published: 8).
    pub samples: usize,
    /// Posterior draws per position in the loss, M (published: 100).
    pub posterior_samples: usize,
    /// Whether they come in pairs that mirror each other (published: no): of a
    /// narrow posterior two such draws leave as little variance in the gradient as many independent ones
    /// (in a trained `nano` as 100 do; docs/log.md).
    pub antithetic: bool,
    /// Exponent of the energy score (published: 1); 0 < alpha <= 2. At 2 the score is no longer strictly
    /// proper: any distribution of the right mean has the least, and the paper's model learns nothing.
    pub alpha: f64,
}

impl EnergyHeadConfig {
    /// Checks the sizes.
    ///
    /// # Errors
    /// Names the field and what it must be.
    pub fn validate(&self) -> Result<(), ConfigError> {
        ConfigError::positive("hidden_size", self.hidden_size)?;
        ConfigError::positive("latent_size", self.latent_size)?;
        ConfigError::positive("blocks", self.blocks)?;
        ConfigError::positive("noise_size", self.noise_size)?;
        ConfigError::positive("posterior_samples", self.posterior_samples)?;
        let n = self.samples as f64;
        ConfigError::range("samples", n, n >= 2.0, "N >= 2: samples repel each other")?;
        let inside = self.alpha > 0.0 && self.alpha <= 2.0;
        ConfigError::range("alpha", self.alpha, inside, "0 < alpha <= 2")
    }

    /// The head with fresh weights; its last layer is zero.
    pub fn init(&self, init: &mut Init<'_>) -> EnergyHead {
        let (d, l) = (self.hidden_size, self.latent_size);
        EnergyHead {
            noise_in: init.linear(self.noise_size, d),
            noise_norm: init.layer_norm(d),
            hidden_in: init.linear(d, d),
            hidden_norm: init.layer_norm(d),
            blocks: (0..self.blocks)
                .map(|_| EnergyBlock::new(d, init))
                .collect(),
            final_norm: init.layer_norm(d),
            final_hidden: init.linear(d, d),
            final_out: init.linear_zero(d, l),
            noise_size: self.noise_size,
            samples: self.samples,
            posterior_samples: self.posterior_samples,
            antithetic: self.antithetic,
            alpha: self.alpha,
        }
    }

    /// Multiply-accumulates that all samples of a position share: `Linear(h)` and the condition
    /// half of `W_1` in every block.
    pub fn shared_macs(&self) -> u64 {
        ((self.blocks + 1) * self.hidden_size * self.hidden_size) as u64
    }
}

impl TrainingMemory for EnergyHeadConfig {
    /// The condition and the noise, the blocks, the output with the score; positions are hidden states,
    /// each with all samples of the loss.
    fn training_memory(&self, positions: usize, checkpointing: bool) -> Vec<PartMemory> {
        let (d, l, noise) = (self.hidden_size, self.latent_size, self.noise_size);
        let rows = positions * self.samples;
        let of = |width: usize| f32_bytes(rows * width);
        let shared = |width: usize| f32_bytes(positions * width);
        let inputs = PartMemory {
            parameters: f32_bytes(noise * d + 3 * d + d * d + 3 * d),
            largest: f32_bytes(d * d.max(noise)),
            // Inputs of two linear layers and two norms, and the condition, which all blocks read.
            kept: shared(3 * d) + of(noise + d),
            forward: of(noise + d),
            backward: of(2 * d),
        };
        // x and its norm, the condition's share, four inputs of matrices and of SiLUs, the two factors of
        // the gate and their product.
        let block = PartMemory {
            parameters: f32_bytes(6 * d * d + 5 * d + 2 * d),
            largest: f32_bytes(2 * d * d),
            kept: of(9 * d) + shared(d),
            forward: of(d),
            backward: of(3 * d) + f32_bytes(d * d),
        };
        let block = match checkpointing {
            true => block.checkpointed(of(d), of(d)),
            false => block,
        };
        let output = PartMemory {
            parameters: f32_bytes(2 * d + d * d + d + d * l + l),
            largest: f32_bytes(d * d.max(l)),
            kept: of(4 * d + l) + shared(2 * l),
            forward: of(l),
            backward: of(2 * d.max(l)) + f32_bytes(d * l),
        };
        let mut parts = vec![inputs];
        parts.extend(vec![block; self.blocks]);
        parts.push(output);
        parts
    }
}

impl Cost for EnergyHeadConfig {
    fn parameters(&self) -> u64 {
        let [d, l, noise] = [self.hidden_size, self.latent_size, self.noise_size].map(|x| x as u64);
        let inputs = noise * d + d + 2 * d + d * d + d + 2 * d;
        let block = 6 * d * d + 5 * d + 2 * d;
        let last = 2 * d + d * d + d + d * l + l;
        inputs + block * self.blocks as u64 + last
    }

    /// One sample, the shared part included.
    fn forward_macs(&self, _context: usize) -> u64 {
        let [d, l, noise] = [self.hidden_size, self.latent_size, self.noise_size].map(|x| x as u64);
        noise * d + d * d + 6 * d * d * self.blocks as u64 + d * d + d * l
    }
}

/// `x + W_d(SiLU(g) * u)` with `(g, u) = W_3 SiLU(W_2 SiLU(W_1 [LN(x); c]))`.
///
/// `W_1` is kept as two matrices: the half that meets the condition c gives the same for every
/// sample and is applied once per position.
#[derive(Module, Debug)]
pub struct EnergyBlock {
    /// Norm of x.
    pub norm: LayerNorm,
    /// Half of `W_1` that meets `LN(x)`, `[d, d]`, no bias.
    pub from_x: Linear,
    /// Half of `W_1` that meets c, `[d, d]`, with the bias of `W_1`.
    pub from_condition: Linear,
    /// `W_2`, `[d, d]`.
    pub inner: Linear,
    /// `W_3`, `[d, 2 d]`: g, then u.
    pub gate_up: Linear,
    /// `W_d`, `[d, d]`.
    pub down: Linear,
}

impl EnergyBlock {
    fn new(d: usize, init: &mut Init<'_>) -> Self {
        Self {
            norm: init.layer_norm(d),
            from_x: init.linear_no_bias(d, d),
            from_condition: init.linear(d, d),
            inner: init.linear(d, d),
            gate_up: init.linear(d, 2 * d),
            down: init.linear(d, d),
        }
    }

    fn forward(&self, x: Tensor<3>, condition: Tensor<2>) -> Tensor<3> {
        let shared = linear(&self.from_condition, condition);
        let own = linear(&self.from_x, layer_norm(&self.norm, x.clone()));
        let inner = silu(linear(&self.inner, silu_add(own, shared)));
        let gated = silu_gate_packed(linear(&self.gate_up, inner));
        x + linear(&self.down, gated)
    }
}

/// Noise and hidden state to a latent vector, in one pass.
#[derive(Module, Debug)]
pub struct EnergyHead {
    /// Noise to width d.
    pub noise_in: Linear,
    /// Norm of the noise branch.
    pub noise_norm: LayerNorm,
    /// Hidden state to the condition.
    pub hidden_in: Linear,
    /// Norm of the condition.
    pub hidden_norm: LayerNorm,
    /// Residual blocks.
    pub blocks: Vec<EnergyBlock>,
    /// Norm before the output.
    pub final_norm: LayerNorm,
    /// `[d, d]`.
    pub final_hidden: Linear,
    /// `[d, l]`, zero at the start: the backbone gets no gradient in the first step, by design.
    pub final_out: Linear,
    noise_size: usize,
    samples: usize,
    posterior_samples: usize,
    antithetic: bool,
    alpha: f64,
}

impl EnergyHead {
    /// Width of the noise.
    pub fn noise_size(&self) -> usize {
        self.noise_size
    }

    /// The head's function of given noise.
    ///
    /// # Shapes
    /// - hidden: `[positions, d]`
    /// - noise: `[n, positions, noise_size]`, entries in [-0.5, 0.5]
    /// - output: `[n, positions, l]`
    pub fn forward(&self, hidden: Tensor<2>, noise: Tensor<3>) -> Tensor<3> {
        let condition = layer_norm(&self.hidden_norm, linear(&self.hidden_in, hidden));
        let start = layer_norm(&self.noise_norm, linear(&self.noise_in, noise));
        let condition = condition.unsqueeze::<3>();
        let x = self.blocks.iter().fold(start, |x, block| {
            let inputs = [x, condition.clone()];
            checkpoint(block, inputs, |block: &EnergyBlock, [x, condition]| {
                block.forward(x, condition.squeeze_dim(0))
            })
        });
        let last = linear(&self.final_hidden, layer_norm(&self.final_norm, x));
        linear(&self.final_out, silu(last))
    }

    /// Model samples per position in the loss, N.
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// Energy score of samples already drawn, against the posterior's own draws.
    ///
    /// Asks for a key of the posterior draws, or where there is none for `M * positions * l` normal
    /// values (of antithetic draws half as many).
    ///
    /// # Shapes
    /// - samples: `[N, positions, l]`
    pub fn score(&self, samples: Tensor<3>, target: &Posterior, draws: &mut dyn Draws) -> HeadLoss {
        let m = self.posterior_samples;
        let score = match draws.key() {
            Some(key) => {
                let (mean, log_std) = (target.mean.clone(), target.log_std.clone());
                let draws = KeyedDraws {
                    count: m,
                    key,
                    antithetic: self.antithetic,
                };
                let (attraction, repulsion) =
                    gaussian_energy(samples, mean, log_std, draws, self.alpha);
                EnergyScore {
                    attraction,
                    repulsion,
                }
            }
            None => {
                let targets = match self.antithetic {
                    true => target.antithetic_samples(m, draws),
                    false => target.samples(m, draws),
                };
                energy_score(samples, targets, self.alpha)
            }
        };
        HeadLoss {
            total: score.loss().mean(),
            parts: vec![
                ("attraction", score.attraction.mean()),
                ("repulsion", score.repulsion.mean()),
            ],
        }
    }
}

impl GenerativeHead for EnergyHead {
    /// Asks for the head's noise (`N * positions * noise_size` uniform values), then for what
    /// [`EnergyHead::score`] asks for.
    fn loss(&self, hidden: Tensor<2>, target: &Posterior, draws: &mut dyn Draws) -> HeadLoss {
        let samples = self.sample(hidden, self.samples, draws);
        self.score(samples, target, draws)
    }

    fn sample(&self, hidden: Tensor<2>, n: usize, draws: &mut dyn Draws) -> Tensor<3> {
        let [positions, _] = hidden.dims();
        let shape = [n, positions, self.noise_size];
        let noise = draws.uniform(shape.iter().product(), &hidden.device()) - 0.5;
        self.forward(hidden, noise.reshape(shape))
    }
}
