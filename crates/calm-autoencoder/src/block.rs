//! The pre-norm residual feed-forward block of encoder and decoder.

use burn::module::Module;
use burn::nn::RmsNorm;
use burn::tensor::Tensor;
use calm_nn::{Init, SwiGlu, rms_norm};

use crate::AutoencoderConfig;

/// `x + SwiGLU(RMSNorm(x))`. There is no attention: with it the reconstruction improves a little
/// and the language model on top gets worse (the authors' finding).
#[derive(Module, Debug)]
pub struct FeedForwardBlock {
    /// The norm.
    pub norm: RmsNorm,
    /// The feed-forward layer.
    pub mlp: SwiGlu,
}

impl FeedForwardBlock {
    pub(crate) fn stage(layers: usize, c: &AutoencoderConfig, init: &mut Init<'_>) -> Vec<Self> {
        (0..layers / 2)
            .map(|_| Self {
                norm: init.rms_norm(c.hidden_size, c.norm_eps),
                mlp: SwiGlu::new(c.hidden_size, c.intermediate_size, init),
            })
            .collect()
    }

    /// # Shapes
    /// - x: `[rows, d]`
    /// - output: `[rows, d]`
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        x.clone() + self.mlp.forward(rms_norm(&self.norm, x))
    }
}

pub(crate) fn run(stage: &[FeedForwardBlock], x: Tensor<2>) -> Tensor<2> {
    stage.iter().fold(x, |x, block| block.forward(x))
}
