//! The gated feed-forward layer of LLaMA.

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::{Tensor, activation::silu};

use crate::Init;

/// `down(SiLU(gate(x)) * up(x))`, three matrices without bias.
#[derive(Module, Debug)]
pub struct SwiGlu {
    /// `[d, ff]`.
    pub gate: Linear,
    /// `[d, ff]`.
    pub up: Linear,
    /// `[ff, d]`.
    pub down: Linear,
}

impl SwiGlu {
    /// A layer of width `d` with inner width `ff`.
    pub fn new(d: usize, ff: usize, init: &mut Init<'_>) -> Self {
        Self {
            gate: init.linear_no_bias(d, ff),
            up: init.linear_no_bias(d, ff),
            down: init.linear_no_bias(ff, d),
        }
    }

    /// # Shapes
    /// - x: `[.., d]`
    /// - output: `[.., d]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let gated = silu(self.gate.forward(x.clone())) * self.up.forward(x);
        self.down.forward(gated)
    }

    /// Parameters of a layer of this size, and its multiply-accumulates per position.
    pub fn weights(d: usize, ff: usize) -> u64 {
        3 * (d * ff) as u64
    }
}
