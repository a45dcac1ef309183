//! Configuration, weights and the whole forward pass of the local decoder.

use burn::module::Module;
use burn::nn::{Embedding, Linear, RmsNorm};
use burn::tensor::{Device, Int, Tensor};
use calm_kernels::{Band, checkpoint, local_attention};
use calm_nn::{
    Block, ConfigError, Cost, Init, NearTokens, OutputLayer, PartMemory, Rope, TrainingMemory,
    TransformerConfig, cross_entropy_memory, embed, embedding_memory, f32_bytes, linear,
    norm_memory, rms_norm,
};
use serde::{Deserialize, Serialize};

/// Configuration of a [`LocalDecoder`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalDecoderConfig {
    /// Tokens in the vocabulary, V.
    pub vocab_size: usize,
    /// Tokens per chunk, K.
    pub chunk_size: usize,
    /// Width of the chunks' inputs and states, the backbone's.
    pub chunk_width: usize,
    /// What it shares with no other part.
    pub settings: LocalDecoderSettings,
}

/// What a [`LocalDecoder`] shares with no other part of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalDecoderSettings {
    /// Layers over tokens.
    pub layers: usize,
    /// Their width d.
    pub hidden_size: usize,
    /// Inner width of the SwiGLU.
    pub intermediate_size: usize,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads; divides `heads`.
    pub kv_heads: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Epsilon of the RMSNorms.
    pub norm_eps: f64,
    /// Tokens before each that its embedding takes over from, through a weight per channel
    /// ([`NearTokens`]).
    #[serde(default)]
    pub near_tokens: usize,
    /// Tokens that a token sees in each layer, itself included, W.
    pub window: usize,
    /// Width l of the predicted vector; the backbone's width takes its state as it is.
    pub vector_size: usize,
    /// What tokens see of earlier chunks beside the predicted vector.
    pub memory: Memory,
    /// Whether the output layer is the embedding table.
    pub tied_embeddings: bool,
}

/// What every token attends to of all chunks that ended before the token that it predicts.
///
/// A chunk's entry is one key and value in each layer, so the cache of it is K times shorter than
/// that of a token model. (Relatives: cross-attention to one shared cache in YOCO, arXiv 2405.05254;
/// the compressed branch of sparse attention.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Memory {
    /// Nothing: the predicted vector alone tells of them.
    None,
    /// The backbone's states.
    States,
    /// The compressed chunks that the backbone reads.
    Inputs,
    /// Both, side by side in one entry.
    Both,
}

impl Memory {
    /// Width of an entry, of chunks `width` wide; 0 where there is none.
    fn width(self, width: usize) -> usize {
        match self {
            Self::None => 0,
            Self::States | Self::Inputs => width,
            Self::Both => 2 * width,
        }
    }

    /// The entries of some chunks, `[batch, chunks, width of an entry]`.
    pub fn entries(self, chunks: &Chunks) -> Option<Tensor<3>> {
        let (inputs, states) = (&chunks.inputs, &chunks.states);
        match self {
            Self::None => None,
            Self::States => Some(states.clone()),
            Self::Inputs => Some(inputs.clone()),
            Self::Both => Some(Tensor::cat(vec![inputs.clone(), states.clone()], 2)),
        }
    }
}

/// Whole chunks as a backbone sees them, each `[batch, chunks, chunk_width]`.
#[derive(Clone, Debug)]
pub struct Chunks {
    /// The compressed tokens of each chunk.
    pub inputs: Tensor<3>,
    /// The states after each chunk, which predict the next chunk's vector.
    pub states: Tensor<3>,
}

impl Default for LocalDecoderSettings {
    /// What a configuration from before there were local decoders reads as.
    fn default() -> Self {
        Self {
            layers: 1,
            hidden_size: 256,
            intermediate_size: 688,
            heads: 8,
            kv_heads: 8,
            rope_theta: 10_000.0,
            norm_eps: 1e-6,
            near_tokens: 0,
            window: 8,
            vector_size: 256,
            memory: Memory::Both,
            tied_embeddings: false,
        }
    }
}

impl LocalDecoderSettings {
    /// The sizes of its layers.
    pub fn transformer(&self) -> TransformerConfig {
        TransformerConfig {
            layers: self.layers,
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            heads: self.heads,
            kv_heads: self.kv_heads,
            rope_theta: self.rope_theta,
            norm_eps: self.norm_eps,
        }
    }
}

impl LocalDecoderConfig {
    /// Checks that the sizes fit together.
    ///
    /// # Errors
    /// Names the field and what it must be.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let settings = &self.settings;
        ConfigError::positive("vocab_size", self.vocab_size)?;
        ConfigError::positive("chunk_size", self.chunk_size)?;
        ConfigError::positive("model.local.layers", settings.layers)?;
        ConfigError::positive("model.local.window", settings.window)?;
        ConfigError::positive("model.local.vector_size", settings.vector_size)?;
        settings.transformer().validate()
    }

    /// The decoder with fresh weights.
    pub fn init(&self, init: &mut Init<'_>) -> LocalDecoder {
        let settings = &self.settings;
        let transformer = settings.transformer();
        let (v, d, l) = (self.vocab_size, settings.hidden_size, settings.vector_size);
        let entry = settings.memory.width(self.chunk_width);
        let kv = settings.kv_heads * transformer.head_dim();
        LocalDecoder {
            embedding: init.embedding(v, d),
            near: NearTokens::new(settings.near_tokens, d, init),
            to_vector: (l != self.chunk_width).then(|| init.linear_no_bias(self.chunk_width, l)),
            expand: init.linear(l, self.chunk_size * d),
            layers: (0..settings.layers)
                .map(|_| LocalLayer {
                    block: Block::new(&transformer, init),
                    memory: (entry > 0).then(|| MemoryProjection {
                        k: init.linear_no_bias(entry, kv),
                        v: init.linear_no_bias(entry, kv),
                    }),
                })
                .collect(),
            norm: init.rms_norm(d, settings.norm_eps),
            output: (!settings.tied_embeddings).then(|| init.linear_no_bias(d, v)),
            sizes: Sizes {
                chunk: self.chunk_size,
                window: settings.window,
                heads: settings.heads,
                kv_heads: settings.kv_heads,
                head_dim: transformer.head_dim(),
                rope_theta: settings.rope_theta,
                chunk_width: self.chunk_width,
                memory: settings.memory,
            },
        }
    }

    fn table(&self) -> u64 {
        (self.vocab_size * self.settings.hidden_size) as u64
    }

    fn near_weights(&self) -> u64 {
        (self.settings.near_tokens * self.settings.hidden_size) as u64
    }

    /// Weights that meet a chunk once: the vector, its conditions, and the memory's projections.
    fn chunk_weights(&self) -> u64 {
        let settings = &self.settings;
        let (d, l) = (settings.hidden_size, settings.vector_size);
        let to_vector = match l == self.chunk_width {
            true => 0,
            false => self.chunk_width * l,
        };
        let kv = settings.kv_heads * settings.transformer().head_dim();
        let memory = 2 * settings.memory.width(self.chunk_width) * kv * settings.layers;
        (to_vector + l * self.chunk_size * d + memory) as u64
    }
}

impl Cost for LocalDecoderConfig {
    fn parameters(&self) -> u64 {
        let tables = if self.settings.tied_embeddings { 1 } else { 2 };
        let biases = (self.chunk_size * self.settings.hidden_size) as u64;
        let layers = self.settings.transformer().parameters();
        let near = self.near_weights();
        tables * self.table() + near + self.chunk_weights() + biases + layers
    }

    /// One token, with `context` chunks in the memory; a chunk's own work is shared out over its
    /// tokens, rounded up.
    fn forward_macs(&self, context: usize) -> u64 {
        let settings = &self.settings;
        let chunks = match settings.memory {
            Memory::None => 0,
            _ => context,
        };
        let shared = self.chunk_weights().div_ceil(self.chunk_size as u64);
        let layers = settings
            .transformer()
            .forward_macs(settings.window + chunks);
        shared + layers + self.near_weights() + self.table()
    }

    /// Of a token: what the memory keeps; the last W tokens are a constant beside it.
    fn cache_bytes(&self) -> u64 {
        match self.settings.memory {
            Memory::None => 0,
            _ => self.settings.transformer().cache_bytes() / self.chunk_size as u64,
        }
    }
}

impl TrainingMemory for LocalDecoderConfig {
    /// Vectors with their conditions, embeddings, layers, the final norm, the cross-entropy; positions are
    /// tokens.
    fn training_memory(&self, positions: usize, checkpointing: bool) -> Vec<PartMemory> {
        let settings = &self.settings;
        let (v, d, l) = (self.vocab_size, settings.hidden_size, settings.vector_size);
        let (chunks, width) = (positions.div_ceil(self.chunk_size), self.chunk_width);
        let transformer = settings.transformer();
        let kv = settings.kv_heads * transformer.head_dim();
        let entry = settings.memory.width(width);
        let of = |width: usize| f32_bytes(positions * width);
        let per_chunk = |width: usize| f32_bytes(chunks * width);
        let (to_vector, vectors) = match l == width {
            true => (0, 0),
            false => (width * l, l),
        };
        // Entries stand once for all layers; compressed inputs are kept by the backbone too.
        let joined = match settings.memory {
            Memory::States | Memory::Both => entry,
            Memory::None | Memory::Inputs => 0,
        };
        let conditions = PartMemory {
            parameters: f32_bytes(to_vector + (l + 1) * self.chunk_size * d),
            largest: f32_bytes((l * self.chunk_size * d).max(to_vector)),
            kept: per_chunk(width + vectors + joined),
            forward: of(d),
            backward: of(d) + per_chunk(joined + width),
        };
        let mut layer = transformer.layer_memory(positions, false);
        layer.parameters += f32_bytes(2 * entry * kv);
        if entry > 0 {
            // Keys and values with those of the memory in front.
            layer.kept += per_chunk(2 * kv);
            layer.largest = layer.largest.max(f32_bytes(entry * kv));
        }
        if checkpointing {
            layer = layer.checkpointed(of(d), of(d));
        }
        let near = settings.near_tokens;
        let tied = settings.tied_embeddings;
        let mut parts = vec![conditions, embedding_memory(positions, v, d, near, tied)];
        parts.extend(vec![layer; settings.layers]);
        parts.push(norm_memory(positions, d));
        parts.push(cross_entropy_memory(positions, d, v));
        parts
    }
}

/// Keys and values of a layer's memory.
#[derive(Module, Debug)]
pub struct MemoryProjection {
    /// `[entry, kv_heads * head_dim]`
    pub k: Linear,
    /// `[entry, kv_heads * head_dim]`
    pub v: Linear,
}

/// A transformer layer whose attention sees a band of tokens and the memory of chunks.
#[derive(Module, Debug)]
pub struct LocalLayer {
    /// The layer.
    pub block: Block,
    /// Where it has a memory.
    pub memory: Option<MemoryProjection>,
}

/// Numbers that the weights don't show.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub chunk: usize,
    pub window: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub rope_theta: f64,
    pub chunk_width: usize,
    pub memory: Memory,
}

impl Sizes {
    pub(crate) fn band(&self) -> Band {
        Band {
            window: self.window,
            chunk: self.chunk,
        }
    }
}

/// A small causal transformer over tokens that reads, at every position, the token there plus a
/// condition made from the vector of the chunk that the *next* token belongs to.
///
/// Relatives: the token decoder of Block Transformer (arXiv 2406.02657), the local model of MEGABYTE
/// (arXiv 2305.07185). Neither is part of CALM.
#[derive(Module, Debug)]
pub struct LocalDecoder {
    /// Token table `[V, d]`.
    pub embedding: Embedding,
    /// What embeddings take over from the tokens before.
    pub near: Option<NearTokens>,
    /// State to vector `[chunk_width, l]`, where these widths differ.
    pub to_vector: Option<Linear>,
    /// Vector to the K conditions of a chunk's positions, `[l, K d]`.
    pub expand: Linear,
    /// The layers.
    pub layers: Vec<LocalLayer>,
    /// The final norm.
    pub norm: RmsNorm,
    /// Output layer `[d, V]`; where it is missing the embedding table serves.
    pub output: Option<Linear>,
    #[module(skip)]
    pub(crate) sizes: Sizes,
}

impl LocalDecoder {
    /// Tokens per chunk, K.
    pub fn chunk_size(&self) -> usize {
        self.sizes.chunk
    }

    /// Tokens in the vocabulary, V.
    pub fn vocab_size(&self) -> usize {
        self.embedding.weight.dims()[0]
    }

    /// Query heads.
    pub fn heads(&self) -> usize {
        self.sizes.heads
    }

    /// What tokens see of earlier chunks.
    pub fn memory(&self) -> Memory {
        self.sizes.memory
    }

    /// Conditions of the positions of the chunk that follows each state.
    ///
    /// # Shapes
    /// - states: `[batch, chunks, chunk_width]`; zeros where no chunk was before
    /// - output: `[batch, chunks * K, d]`
    pub fn conditions(&self, states: Tensor<3>) -> Tensor<3> {
        let [batch, chunks, _] = states.dims();
        let vectors = match &self.to_vector {
            Some(to_vector) => linear(to_vector, states),
            None => states,
        };
        let expanded = linear(&self.expand, vectors);
        let d = expanded.dims()[2] / self.sizes.chunk;
        expanded.reshape([batch, chunks * self.sizes.chunk, d])
    }

    /// Embeddings as large as the conditions, which are made of normed states, `[batch, positions, d]`:
    /// unscaled, a step of the optimizer moved a condition by more than the embedding was large
    /// (docs/log.md).
    pub fn embed(&self, tokens: Tensor<2, Int>) -> Tensor<3> {
        embed(&self.embedding, tokens, true)
    }

    /// Tokens before each that its embedding takes over from.
    pub fn near_tokens(&self) -> usize {
        self.near.as_ref().map_or(0, NearTokens::count)
    }

    /// What the first layer reads: embeddings, all but the first `before`, with what they take over,
    /// and the conditions of the tokens after them.
    ///
    /// # Shapes
    /// - embedded: `[batch, before + positions, d]`
    /// - conditions, output: `[batch, positions, d]`
    pub fn inputs(&self, embedded: Tensor<3>, before: usize, conditions: Tensor<3>) -> Tensor<3> {
        let embedded = match &self.near {
            None => embedded,
            Some(near) => near.forward(embedded, before),
        };
        embedded + conditions
    }

    /// Hidden states of texts from their first token on: that of position t holds what is known of
    /// token t + 1.
    ///
    /// # Shapes
    /// - tokens: `[batch, positions]`
    /// - chunks: of the `positions / K` whole chunks, where there are any
    /// - output: `[batch, positions, d]`
    pub fn forward(&self, tokens: Tensor<2, Int>, chunks: Option<&Chunks>) -> Tensor<3> {
        let ([batch, positions], device) = (tokens.dims(), tokens.device());
        let whole = positions / self.sizes.chunk;
        // Before the first chunk there is none.
        let mut states = vec![Tensor::zeros([batch, 1, self.sizes.chunk_width], &device)];
        states.extend(chunks.map(|chunks| chunks.states.clone()));
        let states = Tensor::cat(states, 1);
        // Position t predicts t + 1, and token 0 nobody.
        let conditions = self.conditions(states).narrow(1, 1, positions);
        let inner = device.without_autodiff();
        let rope = self.rope(0..positions, &inner);
        let memory = chunks.and_then(|chunks| self.sizes.memory.entries(chunks));
        let at_ends = self.rope_of_chunks(0..whole, &inner);
        let x = self.inputs(self.embed(tokens), 0, conditions);
        let sizes = self.sizes;
        let forward = move |layer: &LocalLayer, x: Tensor<3>, entries: Option<Tensor<3>>| {
            let memory = entries.zip(layer.memory.as_ref());
            let memory = memory.map(|(entries, project)| project.forward(entries, &at_ends));
            layer.block.forward(x, |attention, x| {
                let (q, k, v) = attention.project(x, &rope);
                let (heads, kv_heads) = (sizes.heads, sizes.kv_heads);
                let context = local_attention(q, k, v, memory, heads, kv_heads, sizes.band());
                linear(&attention.o, context)
            })
        };
        let x = self.layers.iter().fold(x, |x, layer| {
            let forward = forward.clone();
            match memory.clone() {
                None => checkpoint(layer, [x], move |layer, [x]| forward(layer, x, None)),
                Some(entries) => checkpoint(layer, [x, entries], move |layer, [x, entries]| {
                    forward(layer, x, Some(entries))
                }),
            }
        });
        rms_norm(&self.norm, x)
    }

    /// The last layer.
    pub fn output_layer(&self) -> OutputLayer<'_> {
        OutputLayer::new(self.output.as_ref(), &self.embedding)
    }

    pub(crate) fn rope(&self, positions: impl IntoIterator<Item = usize>, device: &Device) -> Rope {
        Rope::at(
            positions,
            self.sizes.head_dim,
            self.sizes.rope_theta,
            device,
        )
    }

    /// A chunk's memory stands where its last token does.
    pub(crate) fn rope_of_chunks(&self, chunks: std::ops::Range<usize>, device: &Device) -> Rope {
        let k = self.sizes.chunk;
        self.rope(chunks.map(|chunk| (chunk + 1) * k - 1), device)
    }
}

impl MemoryProjection {
    /// Rotated keys, and values, `[batch, chunks, kv_heads * head_dim]` each.
    pub(crate) fn forward(&self, entries: Tensor<3>, rope: &Rope) -> (Tensor<3>, Tensor<3>) {
        let keys = rope.rotate(linear(&self.k, entries.clone()));
        (keys, linear(&self.v, entries))
    }
}
