//! The chunk autoencoder and its loss.

use burn::module::Module;
use burn::tensor::{Int, Tensor};
use calm_kernels::{Projection, cross_entropy};
use calm_nn::{ChunkDecoder, Draws};

use crate::{AutoencoderConfig, Decoder, Encoder, GreedyDecoder, Posterior};

/// K tokens to one latent vector and back; every chunk alone, no context (CALM, section 2).
#[derive(Module, Debug)]
pub struct ChunkAutoencoder {
    /// Tokens to posterior.
    pub encoder: Encoder,
    /// Latent to scores.
    pub decoder: Decoder,
    chunk_size: usize,
    token_dropout: f64,
    latent_dropout: f64,
    kl_weight: f64,
    kl_floor: f64,
}

/// The training loss and its parts.
#[derive(Clone, Debug)]
pub struct AutoencoderLoss {
    /// `K * cross_entropy + beta * kl`, `[1]`.
    pub total: Tensor<1>,
    /// Mean cross-entropy per token in nats, `[1]`.
    pub cross_entropy: Tensor<1>,
    /// KL with the floor, summed over l, mean over chunks, in nats, `[1]`.
    pub kl: Tensor<1>,
}

impl ChunkAutoencoder {
    pub(crate) fn new(encoder: Encoder, decoder: Decoder, c: &AutoencoderConfig) -> Self {
        Self {
            encoder,
            decoder,
            chunk_size: c.chunk_size,
            token_dropout: c.token_dropout,
            latent_dropout: c.latent_dropout,
            kl_weight: c.kl_weight,
            kl_floor: c.kl_floor,
        }
    }

    /// The posterior of each chunk.
    ///
    /// # Shapes
    /// - tokens: `[chunks, K]`
    /// - output: mean and log_std `[chunks, l]`
    pub fn encode(&self, tokens: Tensor<2, Int>) -> Posterior {
        self.encoder.forward(tokens)
    }

    /// The decoder to the most likely tokens, prepared for many calls.
    pub fn greedy(&self) -> GreedyDecoder<'_> {
        GreedyDecoder::new(self)
    }

    /// Training loss with both dropouts: `K * CE + beta * KL`, the KL floored per dimension.
    ///
    /// The draws asked for, in order: uniform `[chunks * K]` (token mask), normal `[chunks * l]`
    /// (posterior), uniform `[chunks * l]` (latent mask); a mask whose rate is 0 draws nothing.
    ///
    /// # Shapes
    /// - tokens: `[chunks, K]`
    pub fn loss(&self, tokens: Tensor<2, Int>, draws: &mut dyn Draws) -> AutoencoderLoss {
        let seen = self.mask_tokens(tokens.clone(), draws);
        let posterior = self.encode(seen);
        let latent = self.drop_latent(posterior.sample(draws), draws);
        let [chunks, k] = tokens.dims();
        let table = Projection::Embedding(self.encoder.embedding.weight.val());
        let targets = tokens.reshape([chunks * k]);
        let cross_entropy = cross_entropy(self.decoder.hidden(latent), table, targets);
        let kl = posterior.kl().clamp_min(self.kl_floor).sum_dim(1).mean();
        let total = cross_entropy.clone() * k as f64 + kl.clone() * self.kl_weight;
        AutoencoderLoss {
            total,
            cross_entropy,
            kl,
        }
    }

    /// Replaces a share of the tokens by id 0, as the released code does.
    fn mask_tokens(&self, tokens: Tensor<2, Int>, draws: &mut dyn Draws) -> Tensor<2, Int> {
        if self.token_dropout == 0.0 {
            return tokens;
        }
        let [chunks, k] = tokens.dims();
        let masked = draws
            .uniform(chunks * k, &tokens.device())
            .reshape([chunks, k])
            .lower_scalar(self.token_dropout);
        tokens.mask_fill(masked, 0)
    }

    fn drop_latent(&self, latent: Tensor<2>, draws: &mut dyn Draws) -> Tensor<2> {
        if self.latent_dropout == 0.0 {
            return latent;
        }
        let [chunks, l] = latent.dims();
        let kept = draws
            .uniform(chunks * l, &latent.device())
            .reshape([chunks, l])
            .greater_equal_scalar(self.latent_dropout)
            .float();
        latent * kept / (1.0 - self.latent_dropout)
    }
}

impl ChunkDecoder for ChunkAutoencoder {
    fn chunk_size(&self) -> usize {
        self.chunk_size
    }

    fn vocab_size(&self) -> usize {
        self.encoder.embedding.weight.dims()[0]
    }

    fn logits(&self, latent: Tensor<2>) -> Tensor<3> {
        let [chunks, _] = latent.dims();
        let logits = self
            .decoder
            .forward(latent, self.encoder.embedding.weight.val());
        let [_, vocab] = logits.dims();
        logits.reshape([chunks, self.chunk_size, vocab])
    }
    fn decode(&self, latent: Tensor<2>) -> Tensor<2, Int> {
        self.greedy().decode(latent)
    }
}
