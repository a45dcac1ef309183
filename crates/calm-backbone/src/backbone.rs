//! Configuration, chunk compression, and the transformer over chunks (CALM, section 3.3.3).

use burn::module::Module;
use burn::nn::{Embedding, LayerNorm, Linear};
use burn::tensor::{Device, Int, Tensor};
use calm_kernels::silu;
use calm_nn::{
    Branches, CachedModel, ConfigError, Cost, Init, KvCache, Transformer, TransformerConfig,
    layer_norm, linear,
};
use serde::{Deserialize, Serialize};

/// Configuration of a [`Backbone`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackboneConfig {
    /// Tokens in the vocabulary, V.
    pub vocab_size: usize,
    /// Tokens per chunk, K.
    pub chunk_size: usize,
    /// The decoder stack.
    pub transformer: TransformerConfig,
}

impl BackboneConfig {
    /// Checks that the sizes fit together.
    ///
    /// # Errors
    /// Names the field and what it must be.
    pub fn validate(&self) -> Result<(), ConfigError> {
        ConfigError::positive("vocab_size", self.vocab_size)?;
        ConfigError::positive("chunk_size", self.chunk_size)?;
        self.transformer.validate()
    }

    /// The backbone with fresh weights.
    pub fn init(&self, init: &mut Init<'_>) -> Backbone {
        Backbone {
            compressor: ChunkCompressor::new(self, init),
            transformer: self.transformer.init(init),
        }
    }

    fn compressor_macs(&self) -> u64 {
        let (k, d) = (self.chunk_size as u64, self.transformer.hidden_size as u64);
        2 * k * d * d + 2 * d * d
    }
}

impl Cost for BackboneConfig {
    fn parameters(&self) -> u64 {
        let d = self.transformer.hidden_size as u64;
        let table = self.vocab_size as u64 * d;
        // Biases 2d + d, LayerNorm 2d.
        table + self.compressor_macs() + 5 * d + self.transformer.parameters()
    }

    fn forward_macs(&self, context: usize) -> u64 {
        self.compressor_macs() + self.transformer.forward_macs(context)
    }

    fn cache_bytes(&self) -> u64 {
        self.transformer.cache_bytes()
    }
}

/// Embed K tokens, `Linear K d -> 2 d`, SiLU, `Linear 2 d -> d`, LayerNorm.
///
/// Tokens, not the latent vector, are fed back: with latents BrierLM falls from 4.70 to 3.25
/// (the authors' finding).
#[derive(Module, Debug)]
pub struct ChunkCompressor {
    /// The backbone's own token table `[V, d]`, untied from the autoencoder's.
    pub embedding: Embedding,
    /// `[K d, 2 d]`.
    pub widen: Linear,
    /// `[2 d, d]`.
    pub narrow: Linear,
    /// Final norm, epsilon 1e-6.
    pub norm: LayerNorm,
}

impl ChunkCompressor {
    fn new(c: &BackboneConfig, init: &mut Init<'_>) -> Self {
        let d = c.transformer.hidden_size;
        Self {
            embedding: init.embedding(c.vocab_size, d),
            widen: init.linear(c.chunk_size * d, 2 * d),
            narrow: init.linear(2 * d, d),
            norm: init.layer_norm(d),
        }
    }

    /// Tokens per chunk, K.
    pub fn chunk_size(&self) -> usize {
        let d = self.norm.gamma.dims()[0];
        self.widen.weight.dims()[0] / d
    }

    /// # Shapes
    /// - tokens: `[batch, steps, K]`
    /// - output: `[batch, steps, d]`
    pub fn forward(&self, tokens: Tensor<3, Int>) -> Tensor<3> {
        let [batch, steps, k] = tokens.dims();
        let embedded = self.embedding.forward(tokens.reshape([batch * steps, k]));
        let d = embedded.dims()[2];
        let wide = silu(linear(&self.widen, embedded.reshape([batch, steps, k * d])));
        layer_norm(&self.norm, linear(&self.narrow, wide))
    }
}

/// Chunk compression and a causal transformer: the hidden state of step i predicts the vector of
/// chunk i + 1.
#[derive(Module, Debug)]
pub struct Backbone {
    /// Tokens of a chunk to one vector.
    pub compressor: ChunkCompressor,
    /// The decoder stack.
    pub transformer: Transformer,
}

impl Backbone {
    /// Width d of inputs and states.
    pub fn width(&self) -> usize {
        self.compressor.norm.gamma.dims()[0]
    }

    /// Hidden states of whole windows.
    ///
    /// # Shapes
    /// - tokens: `[batch, steps, K]`
    /// - output: `[batch, steps, d]`
    pub fn forward(&self, tokens: Tensor<3, Int>) -> Tensor<3> {
        self.transformer.forward(self.compressor.forward(tokens))
    }

    /// Hidden states after many alternative next chunks of one cached sequence (see
    /// [`Transformer::branch`]).
    ///
    /// # Shapes
    /// - tokens: `[queries, K]`, the chunk at step `prefix[q]` plus the steps taken before
    /// - output: `[queries, d]`
    pub fn branch(
        &self,
        tokens: Tensor<2, Int>,
        prefix: &[usize],
        cache: &KvCache,
        branches: &mut Branches,
    ) -> Tensor<2> {
        let x = self.compressor.forward(tokens.unsqueeze_dim(0));
        self.transformer
            .branch(x, prefix, cache, branches)
            .squeeze_dim(0)
    }
}

impl CachedModel for Backbone {
    type Cache = KvCache;

    fn chunk_size(&self) -> usize {
        self.compressor.chunk_size()
    }

    fn vocab_size(&self) -> usize {
        self.compressor.embedding.weight.dims()[0]
    }

    fn cache(&self, batch: usize, capacity: usize, device: &Device) -> KvCache {
        self.transformer.cache(batch, capacity, device)
    }

    fn step(&self, tokens: Tensor<3, Int>, fillers: &[usize], cache: &mut KvCache) -> Tensor<3> {
        self.transformer
            .step(self.compressor.forward(tokens), fillers, cache)
    }
}
