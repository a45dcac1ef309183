//! A second loss for a CALM's backbone: the next chunk's tokens, named from the hidden state.
//!
//! Ours, not the paper's: at small sizes the energy score alone hardly teaches the hidden state to
//! tell one context from another. The heads help in training and are left behind by whoever only
//! draws; what the model draws, and from what, is unchanged.

use burn::module::Module;
use burn::nn::{LayerNorm, Linear};
use burn::tensor::{Int, Tensor};
use calm_kernels::silu;
use calm_nn::{
    Cost, Init, OutputLayer, PartMemory, TrainingMemory, cross_entropy_memory, f32_bytes,
    layer_norm, linear,
};

/// Sizes of an [`AuxiliaryHead`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuxiliaryConfig {
    /// Tokens in the vocabulary, V.
    pub vocab_size: usize,
    /// Tokens per chunk, K.
    pub chunk_size: usize,
    /// Width d, the backbone's.
    pub hidden_size: usize,
}

impl AuxiliaryConfig {
    /// The heads with fresh weights.
    pub fn init(&self, init: &mut Init<'_>) -> AuxiliaryHead {
        let (d, k) = (self.hidden_size, self.chunk_size);
        AuxiliaryHead {
            norm: init.layer_norm(d),
            up: init.linear(d, d),
            down: init.linear(d, d),
            expand: init.linear(d, k * d),
            output: init.linear_no_bias(d, self.vocab_size),
        }
    }
}

impl Cost for AuxiliaryConfig {
    fn parameters(&self) -> u64 {
        let [v, k, d] = [self.vocab_size, self.chunk_size, self.hidden_size].map(|x| x as u64);
        // Biases d + d + K d, LayerNorm 2d.
        2 * d * d + k * d * d + v * d + 4 * d + k * d
    }

    /// Of a chunk.
    fn forward_macs(&self, _context: usize) -> u64 {
        let [v, k, d] = [self.vocab_size, self.chunk_size, self.hidden_size].map(|x| x as u64);
        2 * d * d + k * d * d + k * v * d
    }
}

impl TrainingMemory for AuxiliaryConfig {
    /// The block with the vectors of a chunk's positions, then the cross-entropy; positions are hidden
    /// states, which the generative head keeps too.
    fn training_memory(&self, positions: usize, _checkpointing: bool) -> Vec<PartMemory> {
        let (d, k, v) = (self.hidden_size, self.chunk_size, self.vocab_size);
        let of = |width: usize| f32_bytes(positions * width);
        let block = PartMemory {
            parameters: f32_bytes(2 * d * d + k * d * d + 4 * d + k * d),
            largest: f32_bytes(k * d * d),
            kept: of(4 * d),
            forward: of(k * d),
            backward: of(2 * d + k * d) + f32_bytes(k * d * d),
        };
        vec![block, cross_entropy_memory(positions * k, d, v)]
    }
}

/// K heads over one hidden state: `h + W_2 SiLU(W_1 LN(h))`, a linear layer to one vector for each of
/// the next chunk's positions, and a vocabulary layer.
#[derive(Module, Debug)]
pub struct AuxiliaryHead {
    /// Norm of the residual block.
    pub norm: LayerNorm,
    /// `W_1`, `[d, d]`.
    pub up: Linear,
    /// `W_2`, `[d, d]`.
    pub down: Linear,
    /// `[d, K d]`.
    pub expand: Linear,
    /// `[d, V]`.
    pub output: Linear,
}

impl AuxiliaryHead {
    /// Mean cross-entropy, in nats a token, of naming the next chunk's tokens, each from the state
    /// alone.
    ///
    /// # Shapes
    /// - hidden: `[positions, d]`
    /// - next: `[positions, K]`
    /// - output: `[1]`
    pub fn loss(&self, hidden: Tensor<2>, next: Tensor<2, Int>) -> Tensor<1> {
        let ([positions, d], [_, k]) = (hidden.dims(), next.dims());
        let inner = silu(linear(&self.up, layer_norm(&self.norm, hidden.clone())));
        let hidden = hidden + linear(&self.down, inner);
        let each = linear(&self.expand, hidden).reshape([positions * k, d]);
        OutputLayer::Own(&self.output).loss(each, next.reshape([positions * k]))
    }
}
