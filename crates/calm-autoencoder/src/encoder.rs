//! Chunks of tokens to posteriors.

use burn::module::Module;
use burn::nn::{Embedding, Linear, RmsNorm};
use burn::tensor::{Int, Tensor};
use calm_nn::{Init, linear, rms_norm};

use crate::block::{FeedForwardBlock, run};
use crate::{AutoencoderConfig, Posterior};

/// Embed K tokens, a block per token, flatten, squeeze to d, a block per chunk, norm, posterior.
#[derive(Module, Debug)]
pub struct Encoder {
    /// Token table `[V, d]`, tied to the decoder's output.
    pub embedding: Embedding,
    /// Blocks that see one token.
    pub token_blocks: Vec<FeedForwardBlock>,
    /// `[K * d, d]`.
    pub squeeze: Linear,
    /// Blocks that see the chunk.
    pub chunk_blocks: Vec<FeedForwardBlock>,
    /// Final norm.
    pub norm: RmsNorm,
    /// `[d, 2 l]`: means, then log standard deviations.
    pub to_posterior: Linear,
}

impl Encoder {
    pub(crate) fn new(c: &AutoencoderConfig, init: &mut Init<'_>) -> Self {
        Self {
            embedding: init.embedding(c.vocab_size, c.hidden_size),
            token_blocks: FeedForwardBlock::stage(c.encoder_layers, c, init),
            squeeze: init.linear(c.chunk_size * c.hidden_size, c.hidden_size),
            chunk_blocks: FeedForwardBlock::stage(c.encoder_layers, c, init),
            norm: init.rms_norm(c.hidden_size, c.norm_eps),
            to_posterior: init.linear(c.hidden_size, 2 * c.latent_size),
        }
    }

    /// # Shapes
    /// - tokens: `[chunks, K]`
    /// - output: mean and log_std `[chunks, l]`
    pub fn forward(&self, tokens: Tensor<2, Int>) -> Posterior {
        let [chunks, k] = tokens.dims();
        let embedded = self.embedding.forward(tokens);
        let d = embedded.dims()[2];
        let per_token = run(&self.token_blocks, embedded.reshape([chunks * k, d]));
        let squeezed = linear(&self.squeeze, per_token.reshape([chunks, k * d]));
        let per_chunk = run(&self.chunk_blocks, squeezed);
        let both = linear(&self.to_posterior, rms_norm(&self.norm, per_chunk));
        let l = both.dims()[1] / 2;
        Posterior {
            mean: both.clone().narrow(1, 0, l),
            log_std: both.narrow(1, l, l),
        }
    }
}
