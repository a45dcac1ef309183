//! The network that diffusion and flow matching share: an MLP over noisy latents, modulated by time
//! and hidden state (adaptive LayerNorm, as in DiT, arXiv 2212.09748, and MAR, arXiv 2406.11838).

use burn::module::Module;
use burn::nn::{LayerNorm, Linear};
use burn::tensor::Tensor;
use calm_kernels::{checkpoint, silu};
use calm_nn::{ConfigError, Init, LAYER_NORM_EPS, PartMemory, f32_bytes, layer_norm, linear};

/// Sizes of a [`Denoiser`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DenoiserConfig {
    /// Width d, the backbone's.
    pub hidden_size: usize,
    /// Latent width l.
    pub latent_size: usize,
    /// Residual blocks.
    pub blocks: usize,
    /// Numbers that come out for each of the l that go in.
    pub outputs: usize,
}

/// Width of the embedding of a time: a cosine and a sine of each of 128 frequencies.
const TIME: usize = 256;

/// Longest period of the embedding, over `2 pi`.
const PERIOD: f64 = 10_000.0;

/// Standard deviation of the time's two layers at the start.
const TIME_STD: f64 = 0.02;

impl DenoiserConfig {
    /// The network with fresh weights: matrices uniform after Glorot, and modulations and output zero,
    /// so that every block passes its input on and the network says 0.
    pub fn init(&self, init: &mut Init<'_>) -> Denoiser {
        let (d, l) = (self.hidden_size, self.latent_size);
        Denoiser {
            time_in: init.linear_std(TIME, d, TIME_STD),
            time_out: init.linear_std(d, d, TIME_STD),
            condition: init.linear_glorot(d, d),
            input: init.linear_glorot(l, d),
            blocks: (0..self.blocks)
                .map(|_| DenoiserBlock {
                    norm: init.layer_norm(d),
                    up: init.linear_glorot(d, d),
                    down: init.linear_glorot(d, d),
                    modulation: init.linear_zero(d, 3 * d),
                })
                .collect(),
            modulation: init.linear_zero(d, 2 * d),
            output: init.linear_zero(d, self.outputs * l),
        }
    }

    /// Checks the sizes.
    ///
    /// # Errors
    /// Names the field that is 0.
    pub fn validate(&self) -> Result<(), ConfigError> {
        ConfigError::positive("hidden_size", self.hidden_size)?;
        ConfigError::positive("latent_size", self.latent_size)?;
        ConfigError::positive("blocks", self.blocks)
    }

    /// Parameters.
    pub fn parameters(&self) -> u64 {
        let [d, l, out] = [self.hidden_size, self.latent_size, self.outputs].map(|x| x as u64);
        let time = TIME as u64 * d + d + d * d + d;
        let ends = (d * d + d) + (l * d + d) + 2 * (d * d + d) + d * out * l + out * l;
        // LayerNorm; up, down; modulation.
        let block = 2 * d + 2 * (d * d + d) + 3 * (d * d + d);
        time + ends + block * self.blocks as u64
    }

    /// Multiply-accumulates of a position's condition, made once.
    pub fn condition_macs(&self) -> u64 {
        (self.hidden_size * self.hidden_size) as u64
    }

    /// Multiply-accumulates of a time at a position: its embedding and the modulations.
    pub fn time_macs(&self) -> u64 {
        let (d, blocks) = (self.hidden_size as u64, self.blocks as u64);
        TIME as u64 * d + d * d + (3 * blocks + 2) * d * d
    }

    /// Multiply-accumulates of one noisy latent.
    pub fn latent_macs(&self) -> u64 {
        let [d, l, out] = [self.hidden_size, self.latent_size, self.outputs].map(|x| x as u64);
        l * d + 2 * d * d * self.blocks as u64 + d * out * l
    }
}

impl DenoiserConfig {
    /// What training holds of the network and of a loss of its outputs, which keeps `loss` numbers beside
    /// them, for `rows` noisy latents of some positions: time and condition, the blocks, the output.
    pub fn training_memory(
        &self,
        rows: usize,
        positions: usize,
        loss: usize,
        checkpointing: bool,
    ) -> Vec<PartMemory> {
        let (d, l) = (self.hidden_size, self.latent_size);
        let of = |width: usize| f32_bytes(rows * width);
        let inputs = PartMemory {
            parameters: f32_bytes(TIME * d + d + 2 * (d * d + d) + l * d + d),
            largest: f32_bytes(d * d.max(TIME)),
            // The embedded time, SiLU's inputs, those of the next layers, and the latents.
            kept: of(TIME + 4 * d + l) + f32_bytes(positions * d),
            forward: of(2 * TIME),
            backward: of(3 * d),
        };
        // x, its norm and 1 + scale, inputs of both matrices and of SiLU, both factors of the gate, which
        // is a view of the modulations.
        let block = PartMemory {
            parameters: f32_bytes(2 * d + 2 * (d * d + d) + 3 * (d * d + d)),
            largest: f32_bytes(3 * d * d),
            kept: of(10 * d),
            forward: of(d),
            backward: of(5 * d),
        };
        let block = match checkpointing {
            true => block.checkpointed(of(d), of(d)),
            false => block,
        };
        let output = PartMemory {
            parameters: f32_bytes(2 * d * d + 2 * d + (d + 1) * self.outputs * l),
            largest: f32_bytes(d * (2 * d).max(self.outputs * l)),
            kept: of(4 * d + self.outputs * l + loss),
            forward: of(2 * d),
            backward: of(3 * d + loss),
        };
        let mut parts = vec![inputs];
        parts.extend(vec![block; self.blocks]);
        parts.push(output);
        parts
    }
}

/// `x + gate * down(SiLU(up(LN(x) * (1 + scale) + shift)))`, with
/// `(shift, scale, gate) = modulation(SiLU(y))`.
#[derive(Module, Debug)]
pub struct DenoiserBlock {
    /// Norm of x.
    pub norm: LayerNorm,
    /// `[d, d]`.
    pub up: Linear,
    /// `[d, d]`.
    pub down: Linear,
    /// `[d, 3 d]`: shift, scale, gate; zero at the start.
    pub modulation: Linear,
}

impl DenoiserBlock {
    fn forward(&self, x: Tensor<3>, y: Tensor<3>) -> Tensor<3> {
        let [shift, scale, gate] = parts(linear(&self.modulation, y));
        let inner = layer_norm(&self.norm, x.clone()) * (scale + 1.0) + shift;
        x + linear(&self.down, silu(linear(&self.up, inner))) * gate
    }
}

/// Noisy latents, their times and a position's condition to what training asks of them.
#[derive(Module, Debug)]
pub struct Denoiser {
    /// `[256, d]`.
    pub time_in: Linear,
    /// `[d, d]`.
    pub time_out: Linear,
    /// Hidden state to condition, `[d, d]`.
    pub condition: Linear,
    /// `[l, d]`.
    pub input: Linear,
    /// Residual blocks.
    pub blocks: Vec<DenoiserBlock>,
    /// Shift and scale before the output, `[d, 2 d]`; zero at the start.
    pub modulation: Linear,
    /// `[d, outputs * l]`; zero at the start.
    pub output: Linear,
}

impl Denoiser {
    /// The part of a hidden state, the same for all latents and times of a position.
    ///
    /// # Shapes
    /// - hidden, output: `[positions, d]`
    pub fn condition(&self, hidden: Tensor<2>) -> Tensor<2> {
        linear(&self.condition, hidden)
    }

    /// Latent width l.
    pub fn latent_size(&self) -> usize {
        self.input.weight.dims()[0]
    }

    /// The network.
    ///
    /// # Shapes
    /// - condition: `[positions, d]`, of [`Denoiser::condition`]
    /// - latents: `[n, positions, l]`
    /// - times: `[n, positions]`, or `[1, 1]` where all latents stand at one time, whose modulations
    ///   are then made once a position
    /// - output: `[n, positions, outputs * l]`
    pub fn forward(&self, condition: Tensor<2>, latents: Tensor<3>, times: Tensor<2>) -> Tensor<3> {
        let time = linear(&self.time_out, silu(linear(&self.time_in, embed(times))));
        // [n or 1, positions, d]
        let y = silu(time + condition.unsqueeze::<3>());
        let mut x = linear(&self.input, latents);
        for block in &self.blocks {
            let inputs = [x, y.clone()];
            x = checkpoint(block, inputs, |block: &DenoiserBlock, [x, y]| {
                block.forward(x, y)
            });
        }
        let [shift, scale] = parts(linear(&self.modulation, y));
        linear(&self.output, standardise(x) * (scale + 1.0) + shift)
    }
}

/// `x` in N parts of equal width.
pub(crate) fn parts<const N: usize>(x: Tensor<3>) -> [Tensor<3>; N] {
    let width = x.dims()[2] / N;
    std::array::from_fn(|i| x.clone().narrow(2, i * width, width))
}

/// LayerNorm without weights.
fn standardise(x: Tensor<3>) -> Tensor<3> {
    let (d, device) = (x.dims()[2], x.device());
    let (ones, zeros) = (Tensor::ones([d], &device), Tensor::zeros([d], &device));
    calm_kernels::layer_norm(x, ones, zeros, LAYER_NORM_EPS)
}

/// Cosines, then sines, `[a, b]` to `[a, b, 256]`.
fn embed(times: Tensor<2>) -> Tensor<3> {
    let half = TIME / 2;
    let frequencies: Vec<f32> = (0..half)
        .map(|i| PERIOD.powf(-(i as f64) / half as f64) as f32)
        .collect();
    let frequencies = Tensor::<1>::from_floats(frequencies.as_slice(), &times.device());
    let angles = times.unsqueeze_dim::<3>(2) * frequencies.unsqueeze();
    Tensor::cat(vec![angles.clone().cos(), angles.sin()], 2)
}
