//! Configuration, chunk compression, and the transformer over chunks (CALM, section 3.3.3).

use burn::module::Module;
use burn::nn::{Embedding, LayerNorm, Linear};
use burn::tensor::{Device, Int, Tensor};
use calm_kernels::silu;
use calm_nn::{
    CachedModel, ConfigError, Cost, Init, PartMemory, TextBranches, TextCache, TrainingMemory,
    Transformer, TransformerConfig, f32_bytes, id_bytes, layer_norm, linear, look_up,
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
    /// Tokens before a chunk that its input is made of too, C (published: 0).
    pub chunk_context: usize,
    /// How a chunk's embeddings become one vector (published: an MLP).
    pub compressor: CompressorKind,
    /// The decoder stack.
    pub transformer: TransformerConfig,
}

/// How a [`ChunkCompressor`] makes one vector of embeddings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CompressorKind {
    /// Two layers with SiLU between them, as published.
    #[default]
    Mlp,
    /// One layer. What attends to compressed chunks, as a local decoder's memory does, learns sooner
    /// from it (docs/log.md).
    Linear,
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
        let d = self.transformer.hidden_size as u64;
        let tokens = (self.chunk_context + self.chunk_size) as u64;
        match self.compressor {
            CompressorKind::Mlp => 2 * tokens * d * d + 2 * d * d,
            CompressorKind::Linear => tokens * d * d,
        }
    }
}

impl Cost for BackboneConfig {
    fn parameters(&self) -> u64 {
        let d = self.transformer.hidden_size as u64;
        let table = self.vocab_size as u64 * d;
        // Biases and LayerNorm.
        let vectors = match self.compressor {
            CompressorKind::Mlp => 2 * d + d + 2 * d,
            CompressorKind::Linear => d + 2 * d,
        };
        table + self.compressor_macs() + vectors + self.transformer.parameters()
    }

    fn forward_macs(&self, context: usize) -> u64 {
        self.compressor_macs() + self.transformer.forward_macs(context)
    }

    fn cache_bytes(&self) -> u64 {
        self.transformer.cache_bytes()
    }
}

impl TrainingMemory for BackboneConfig {
    /// The compressor, then the transformer; positions are chunks.
    fn training_memory(&self, positions: usize, checkpointing: bool) -> Vec<PartMemory> {
        let d = self.transformer.hidden_size;
        let tokens = self.chunk_context + self.chunk_size;
        // Inputs of the linear layers, of SiLU and of the norm.
        let (inner, widest) = match self.compressor {
            CompressorKind::Mlp => (5 * d, 2 * d),
            CompressorKind::Linear => (d, d),
        };
        let table = f32_bytes(self.vocab_size * d);
        let own = self.parameters() - self.transformer.parameters();
        let of = |width: usize| f32_bytes(positions * width);
        let compressor = PartMemory {
            parameters: own * size_of::<f32>() as u64,
            largest: table.max(f32_bytes(tokens * d * widest)),
            kept: id_bytes(positions * self.chunk_size) + of(tokens * d + inner),
            forward: of(self.chunk_size * d),
            backward: of((tokens + self.chunk_size) * d) + table,
        };
        let mut parts = vec![compressor];
        parts.extend(self.transformer.training_memory(positions, checkpointing));
        parts
    }
}

/// Embed the K tokens of a chunk and the C before it, `Linear (C + K) d -> 2 d`, SiLU,
/// `Linear 2 d -> d`, LayerNorm; of the linear kind `Linear (C + K) d -> d`, LayerNorm.
///
/// Tokens, not the latent vector, are fed back: with latents BrierLM falls from 4.70 to 3.25
/// (the authors' finding). Published chunks know of themselves alone, C = 0. With the tokens before
/// them a state can look for what followed the same tokens earlier in the text, wherever chunks are
/// cut. Before a text's beginning the embeddings are zero.
#[derive(Module, Debug)]
pub struct ChunkCompressor {
    /// The backbone's own token table `[V, d]`, untied from the autoencoder's.
    pub embedding: Embedding,
    /// `[(C + K) d, 2 d]`, of the linear kind `[(C + K) d, d]`; the oldest token first.
    pub widen: Linear,
    /// `[2 d, d]`; the linear kind has none.
    pub narrow: Option<Linear>,
    /// Final norm, epsilon 1e-6.
    pub norm: LayerNorm,
    chunk_size: usize,
    context: usize,
}

impl ChunkCompressor {
    fn new(c: &BackboneConfig, init: &mut Init<'_>) -> Self {
        let (d, tokens) = (c.transformer.hidden_size, c.chunk_context + c.chunk_size);
        let (inner, narrow) = match c.compressor {
            CompressorKind::Mlp => (2 * d, true),
            CompressorKind::Linear => (d, false),
        };
        Self {
            embedding: init.embedding(c.vocab_size, d),
            widen: init.linear(tokens * d, inner),
            narrow: narrow.then(|| init.linear(inner, d)),
            norm: init.layer_norm(d),
            chunk_size: c.chunk_size,
            context: c.chunk_context,
        }
    }

    /// Tokens per chunk, K.
    pub fn chunk_size(&self) -> usize {
        self.chunk_size
    }

    /// Tokens before a chunk that it is made of too, C.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Chunks of texts from their beginning on.
    ///
    /// # Shapes
    /// - tokens: `[batch, steps, K]`
    /// - output: `[batch, steps, d]`
    pub fn forward(&self, tokens: Tensor<3, Int>) -> Tensor<3> {
        let [batch, steps, k] = tokens.dims();
        self.compress(self.embed(tokens.reshape([batch, steps * k])), 0)
    }

    /// Embeddings, of which [`ChunkCompressor::compress`] makes chunks.
    pub fn embed(&self, tokens: Tensor<2, Int>) -> Tensor<3> {
        look_up(&self.embedding, tokens)
    }

    /// Chunks of embeddings, the first `before` of which (at most C) are of tokens before the first
    /// chunk.
    ///
    /// # Shapes
    /// - embedded: `[batch, before + steps * K, d]`
    /// - output: `[batch, steps, d]`
    pub fn compress(&self, embedded: Tensor<3>, before: usize) -> Tensor<3> {
        let [batch, given, d] = embedded.dims();
        let (k, context) = (self.chunk_size, self.context);
        let tokens = given - before;
        let steps = tokens / k;
        let padded = match context - before {
            0 => embedded,
            missing => {
                let nothing = Tensor::zeros([batch, missing, d], &embedded.device());
                Tensor::cat(vec![nothing, embedded], 1)
            }
        };
        // Of every chunk, `count` tokens from place `from` of the C + K on.
        let piece = |from: usize, count: usize| {
            let chunks = padded.clone().narrow(1, from, tokens);
            let chunks = chunks.reshape([batch, steps, k, d]);
            chunks
                .narrow(2, 0, count)
                .reshape([batch, steps, count * d])
        };
        let near = (0..context)
            .step_by(k)
            .map(|from| piece(from, k.min(context - from)));
        let mut pieces: Vec<_> = near.chain([piece(context, k)]).collect();
        let chunks = match pieces.len() {
            1 => pieces.remove(0),
            _ => Tensor::cat(pieces, 2),
        };
        let wide = linear(&self.widen, chunks);
        let vectors = match &self.narrow {
            Some(narrow) => linear(narrow, silu(wide)),
            None => wide,
        };
        layer_norm(&self.norm, vectors)
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
        cache: &TextCache,
        branches: &mut TextBranches,
    ) -> Tensor<2> {
        let compressor = &self.compressor;
        let embed = |tokens| compressor.embed(tokens);
        let (x, before) = branches.read(tokens, prefix, cache, embed);
        let x = compressor.compress(x, before).swap_dims(0, 1);
        self.transformer
            .branch(x, prefix, &cache.keys, &mut branches.keys)
            .squeeze_dim(0)
    }
}

impl CachedModel for Backbone {
    type Cache = TextCache;

    fn chunk_size(&self) -> usize {
        self.compressor.chunk_size()
    }

    fn vocab_size(&self) -> usize {
        self.compressor.embedding.weight.dims()[0]
    }

    fn cache(&self, batch: usize, capacity: usize, device: &Device) -> TextCache {
        let keys = self.transformer.cache(batch, capacity, device);
        let (k, context) = (self.compressor.chunk_size(), self.compressor.context());
        TextCache::new(keys, batch, k, context, device)
    }

    fn step(&self, tokens: Tensor<3, Int>, fillers: &[usize], cache: &mut TextCache) -> Tensor<3> {
        let [batch, new, k] = tokens.dims();
        let compressor = &self.compressor;
        let tokens = tokens.reshape([batch, new * k]);
        let (x, before) = cache.read(tokens, fillers, |tokens| compressor.embed(tokens));
        let x = compressor.compress(x, before);
        self.transformer.step(x, fillers, &mut cache.keys)
    }
}
