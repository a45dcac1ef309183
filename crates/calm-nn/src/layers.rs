//! Burn's layers as holders of parameters, run by the fused kernels, and LLaMA's gated feed-forward
//! layer made of them.

use burn::module::Module;
use burn::nn::{Embedding, LayerNorm, Linear, RmsNorm};
use burn::tensor::{Int, Tensor};
use calm_kernels::silu_gate;

use crate::{Init, LAYER_NORM_EPS};

/// Embeddings of tokens; `scaled`, times `sqrt(d)`.
///
/// Tables begin at a standard deviation of about `1 / sqrt(d)`, and what is added to an embedding (a
/// layer's output, a condition) is of size 1 soon: scaled, both are of one size from the start, and
/// the optimizer's steps change both alike. LLaMA and CALM's released code don't scale; the first
/// transformer (arXiv 1706.03762, section 3.4) does.
///
/// # Shapes
/// - tokens: `[batch, positions]`
/// - output: `[batch, positions, d]`
pub fn embed(table: &Embedding, tokens: Tensor<2, Int>, scaled: bool) -> Tensor<3> {
    let embedded = look_up(table, tokens);
    let d = embedded.dims()[2];
    match scaled {
        true => embedded * (d as f64).sqrt(),
        false => embedded,
    }
}

/// The entries of a table, which may be kept in bf16 or 8 bits, as f32.
///
/// # Shapes
/// - tokens: `[batch, positions]`
/// - output: `[batch, positions, d]`
pub fn look_up(table: &Embedding, tokens: Tensor<2, Int>) -> Tensor<3> {
    calm_kernels::look_up(table.weight.val(), tokens)
}

/// `x w + b`
///
/// # Shapes
/// - x: `[.., in]`
/// - output: `[.., out]`
pub fn linear<const D: usize>(layer: &Linear, x: Tensor<D>) -> Tensor<D> {
    let bias = layer.bias.as_ref().map(|bias| bias.val());
    calm_kernels::linear(x, layer.weight.val(), bias)
}

/// RMSNorm over the last dimension.
pub fn rms_norm<const D: usize>(norm: &RmsNorm, x: Tensor<D>) -> Tensor<D> {
    calm_kernels::rms_norm(x, norm.gamma.val(), norm.epsilon)
}

/// LayerNorm over the last dimension, with [`LAYER_NORM_EPS`].
///
/// # Panics
/// Where the norm has no bias.
pub fn layer_norm<const D: usize>(norm: &LayerNorm, x: Tensor<D>) -> Tensor<D> {
    let bias = norm.beta.as_ref().expect("a LayerNorm with bias").val();
    calm_kernels::layer_norm(x, norm.gamma.val(), bias, LAYER_NORM_EPS)
}

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
            down: init.branch_end(ff, d),
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
