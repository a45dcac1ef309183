//! Latent vectors back to chunks of tokens.

use burn::module::Module;
use burn::nn::{Linear, RmsNorm};
use burn::tensor::Tensor;
use calm_nn::{Init, linear, rms_norm};

use crate::AutoencoderConfig;
use crate::block::{FeedForwardBlock, run};

/// Widen to d, a block per chunk, expand to K positions, a block per token, norm, scores through
/// the tied embedding.
#[derive(Module, Debug)]
pub struct Decoder {
    /// `[l, d]`.
    pub from_latent: Linear,
    /// Blocks that see the chunk.
    pub chunk_blocks: Vec<FeedForwardBlock>,
    /// `[d, K * d]`.
    pub expand: Linear,
    /// Blocks that see one token.
    pub token_blocks: Vec<FeedForwardBlock>,
    /// Final norm.
    pub norm: RmsNorm,
}

impl Decoder {
    pub(crate) fn new(c: &AutoencoderConfig, init: &mut Init<'_>) -> Self {
        Self {
            from_latent: init.linear(c.latent_size, c.hidden_size),
            chunk_blocks: FeedForwardBlock::stage(c.decoder_layers, c, init),
            expand: init.linear(c.hidden_size, c.chunk_size * c.hidden_size),
            token_blocks: FeedForwardBlock::stage(c.decoder_layers, c, init),
            norm: init.rms_norm(c.hidden_size, c.norm_eps),
        }
    }

    /// What the scores of the tokens at every position are made from.
    ///
    /// # Shapes
    /// - latent: `[chunks, l]`
    /// - output: `[chunks * K, d]`
    pub fn hidden(&self, latent: Tensor<2>) -> Tensor<2> {
        let expanded = self.expanded(latent);
        let [chunks, k, d] = expanded.dims();
        self.per_token(expanded.reshape([chunks * k, d]))
    }

    /// The part of [`Decoder::hidden`] that sees a chunk as a whole.
    ///
    /// # Shapes
    /// - latent: `[chunks, l]`
    /// - output: `[chunks, K, d]`
    pub(crate) fn expanded(&self, latent: Tensor<2>) -> Tensor<3> {
        let per_chunk = run(&self.chunk_blocks, linear(&self.from_latent, latent));
        let expanded = linear(&self.expand, per_chunk);
        let [chunks, wide] = expanded.dims();
        let d = self.norm.gamma.dims()[0];
        expanded.reshape([chunks, wide / d, d])
    }

    /// The part of [`Decoder::hidden`] that sees one position, `[positions, d]`.
    pub(crate) fn per_token(&self, x: Tensor<2>) -> Tensor<2> {
        rms_norm(&self.norm, run(&self.token_blocks, x))
    }

    /// Scores of the tokens at every position.
    ///
    /// # Shapes
    /// - latent: `[chunks, l]`
    /// - embedding: `[V, d]`, the encoder's table
    /// - output: `[chunks * K, V]`
    pub fn forward(&self, latent: Tensor<2>, embedding: Tensor<2>) -> Tensor<2> {
        calm_kernels::linear(self.hidden(latent), embedding.transpose(), None)
    }
}
