//! The gated feed-forward layer of LLaMA.

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::Tensor;
use calm_kernels::silu_gate;

use crate::{Init, linear};

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
        let gated = silu_gate(linear(&self.gate, x.clone()), linear(&self.up, x));
        linear(&self.down, gated)
    }

    /// Parameters of a layer of this size, and its multiply-accumulates per position.
    pub fn weights(d: usize, ff: usize) -> u64 {
        3 * (d * ff) as u64
    }
}
