//! Latent vectors back to chunks of tokens.

use burn::module::Module;
use burn::nn::{Linear, RmsNorm};
use burn::tensor::Tensor;
use calm_nn::Init;

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

    /// Scores of the tokens at every position.
    ///
    /// # Shapes
    /// - latent: `[chunks, l]`
    /// - embedding: `[V, d]`, the encoder's table
    /// - output: `[chunks * K, V]`
    pub fn forward(&self, latent: Tensor<2>, embedding: Tensor<2>) -> Tensor<2> {
        let per_chunk = run(&self.chunk_blocks, self.from_latent.forward(latent));
        let expanded = self.expand.forward(per_chunk);
        let [chunks, wide] = expanded.dims();
        let d = embedding.dims()[1];
        let per_token = run(&self.token_blocks, expanded.reshape([chunks * wide / d, d]));
        self.norm.forward(per_token).matmul(embedding.transpose())
    }
}
