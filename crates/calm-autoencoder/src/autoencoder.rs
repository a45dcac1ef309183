//! The chunk autoencoder: configuration, encoder, decoder, loss (CALM, section 2, Eq. 1 to 4).

mod greedy;
mod memory;

use burn::module::Module;
use burn::nn::{Embedding, Linear, RmsNorm};
use burn::tensor::{Int, Tensor};
use calm_kernels::{Projection, checkpoint, cross_entropy};
use calm_nn::{ConfigError, Cost, Draws, Init, Posterior, SwiGlu, linear, look_up, rms_norm};
use serde::{Deserialize, Serialize};

pub use greedy::{BegunChunks, GreedyDecoder};

/// Configuration of a [`ChunkAutoencoder`] (CALM, section 2).
///
/// The published one: K = 4, l = 32 K, d = 512, SwiGLU width 1280, two layers on either side.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AutoencoderConfig {
    /// Tokens in the vocabulary, V.
    pub vocab_size: usize,
    /// Tokens per chunk, K.
    pub chunk_size: usize,
    /// Latent width, l.
    pub latent_size: usize,
    /// What it shares with no other part.
    pub settings: AutoencoderSettings,
}

/// What a [`ChunkAutoencoder`] shares with no other part of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AutoencoderSettings {
    /// Hidden width, d.
    pub hidden_size: usize,
    /// Inner width of the SwiGLU.
    pub intermediate_size: usize,
    /// Encoder blocks: half per token, half per chunk; even.
    pub encoder_layers: usize,
    /// Decoder blocks: half per chunk, half per token; even.
    pub decoder_layers: usize,
    /// Epsilon of the RMSNorms.
    pub norm_eps: f64,
    /// Share of the input tokens masked in training (replaced by id 0).
    pub token_dropout: f64,
    /// Share of the latent's entries dropped in training (the others scaled up).
    pub latent_dropout: f64,
    /// Weight of the KL term, beta.
    pub kl_weight: f64,
    /// Floor of the KL per dimension, in nats ("free bits").
    pub kl_floor: f64,
}

impl AutoencoderConfig {
    /// Checks that the sizes fit together.
    ///
    /// # Errors
    /// Names the field and what it must be.
    pub fn validate(&self) -> Result<(), ConfigError> {
        ConfigError::positive("vocab_size", self.vocab_size)?;
        ConfigError::positive("chunk_size", self.chunk_size)?;
        ConfigError::positive("latent_size", self.latent_size)?;
        ConfigError::positive("hidden_size", self.settings.hidden_size)?;
        ConfigError::positive("intermediate_size", self.settings.intermediate_size)?;
        ConfigError::positive("encoder_layers", self.settings.encoder_layers)?;
        ConfigError::positive("decoder_layers", self.settings.decoder_layers)?;
        // An odd count would leave a layer unused: half of them work on either stage.
        ConfigError::multiple(
            "encoder_layers",
            self.settings.encoder_layers,
            "two stages",
            2,
        )?;
        ConfigError::multiple(
            "decoder_layers",
            self.settings.decoder_layers,
            "two stages",
            2,
        )?;
        for (field, value) in [
            ("token_dropout", self.settings.token_dropout),
            ("latent_dropout", self.settings.latent_dropout),
        ] {
            ConfigError::range(field, value, (0.0..1.0).contains(&value), "0 <= p < 1")?;
        }
        for (field, value) in [
            ("kl_weight", self.settings.kl_weight),
            ("kl_floor", self.settings.kl_floor),
        ] {
            ConfigError::range(
                field,
                value,
                value >= 0.0 && value.is_finite(),
                "0 <= x < inf",
            )?;
        }
        let eps = self.settings.norm_eps;
        let inside = eps > 0.0 && eps.is_finite();
        ConfigError::range("norm_eps", eps, inside, "0 < eps < inf")
    }

    /// The autoencoder with fresh weights.
    pub fn init(&self, init: &mut Init<'_>) -> ChunkAutoencoder {
        ChunkAutoencoder {
            encoder: Encoder::new(self, init),
            decoder: Decoder::new(self, init),
            chunk_size: self.chunk_size,
            token_dropout: self.settings.token_dropout,
            latent_dropout: self.settings.latent_dropout,
            kl_weight: self.settings.kl_weight,
            kl_floor: self.settings.kl_floor,
        }
    }

    /// Multiply-accumulates of encoding one chunk; embedding look-ups are free.
    pub fn encoder_macs(&self) -> u64 {
        let [k, d, l] =
            [self.chunk_size, self.settings.hidden_size, self.latent_size].map(|x| x as u64);
        self.block_macs(self.settings.encoder_layers) + k * d * d + 2 * d * l
    }

    /// Multiply-accumulates of decoding one chunk, the `V * d` scores of all K positions
    /// included.
    pub fn decoder_macs(&self) -> u64 {
        self.begin_macs() + self.chunk_size as u64 * self.position_macs()
    }

    /// The part of [`AutoencoderConfig::decoder_macs`] that a chunk takes once
    /// ([`GreedyDecoder::begin`]).
    pub fn begin_macs(&self) -> u64 {
        let [k, d, l] =
            [self.chunk_size, self.settings.hidden_size, self.latent_size].map(|x| x as u64);
        let blocks = self.decoder_block_macs();
        blocks + k * d * d + d * l
    }

    /// The part that each of the K positions takes ([`BegunChunks::tokens`]).
    pub fn position_macs(&self) -> u64 {
        let scores = self.settings.hidden_size * self.vocab_size;
        self.decoder_block_macs() + scores as u64
    }

    /// Of either half of the decoder's blocks, applied once.
    fn decoder_block_macs(&self) -> u64 {
        let c = &self.settings;
        SwiGlu::weights(c.hidden_size, c.intermediate_size) * (c.decoder_layers / 2) as u64
    }

    fn block_macs(&self, layers: usize) -> u64 {
        // One half runs once per token, the other once per chunk.
        let applications = (layers / 2 * (self.chunk_size + 1)) as u64;
        SwiGlu::weights(self.settings.hidden_size, self.settings.intermediate_size) * applications
    }
}

impl Cost for AutoencoderConfig {
    fn parameters(&self) -> u64 {
        let [v, k, d, l] = [
            self.vocab_size,
            self.chunk_size,
            self.settings.hidden_size,
            self.latent_size,
        ]
        .map(|x| x as u64);
        let layers = (self.settings.encoder_layers + self.settings.decoder_layers) as u64;
        let blocks = layers
            * (SwiGlu::weights(self.settings.hidden_size, self.settings.intermediate_size) + d);
        let encoder = k * d * d + d + d + 2 * l * d + 2 * l;
        let decoder = l * d + d + k * d * d + k * d + d;
        v * d + blocks + encoder + decoder
    }

    /// Encoder and decoder of one chunk; there is no context.
    fn forward_macs(&self, _context: usize) -> u64 {
        self.encoder_macs() + self.decoder_macs()
    }
}

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
    fn stage(layers: usize, c: &AutoencoderConfig, init: &mut Init<'_>) -> Vec<Self> {
        (0..layers / 2)
            .map(|_| Self {
                norm: init.rms_norm(c.settings.hidden_size, c.settings.norm_eps),
                mlp: SwiGlu::new(c.settings.hidden_size, c.settings.intermediate_size, init),
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

fn run(stage: &[FeedForwardBlock], x: Tensor<2>) -> Tensor<2> {
    stage.iter().fold(x, |x, block| {
        checkpoint(block, [x], |block: &FeedForwardBlock, [x]| block.forward(x))
    })
}

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
    fn new(c: &AutoencoderConfig, init: &mut Init<'_>) -> Self {
        Self {
            embedding: init.embedding(c.vocab_size, c.settings.hidden_size),
            token_blocks: FeedForwardBlock::stage(c.settings.encoder_layers, c, init),
            squeeze: init.linear(
                c.chunk_size * c.settings.hidden_size,
                c.settings.hidden_size,
            ),
            chunk_blocks: FeedForwardBlock::stage(c.settings.encoder_layers, c, init),
            norm: init.rms_norm(c.settings.hidden_size, c.settings.norm_eps),
            to_posterior: init.linear(c.settings.hidden_size, 2 * c.latent_size),
        }
    }

    /// # Shapes
    /// - tokens: `[chunks, K]`
    /// - output: mean and log_std `[chunks, l]`
    pub fn forward(&self, tokens: Tensor<2, Int>) -> Posterior {
        let [chunks, k] = tokens.dims();
        let embedded = look_up(&self.embedding, tokens);
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
    fn new(c: &AutoencoderConfig, init: &mut Init<'_>) -> Self {
        Self {
            from_latent: init.linear(c.latent_size, c.settings.hidden_size),
            chunk_blocks: FeedForwardBlock::stage(c.settings.decoder_layers, c, init),
            expand: init.linear(
                c.settings.hidden_size,
                c.chunk_size * c.settings.hidden_size,
            ),
            token_blocks: FeedForwardBlock::stage(c.settings.decoder_layers, c, init),
            norm: init.rms_norm(c.settings.hidden_size, c.settings.norm_eps),
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
        calm_kernels::linear_by_table(self.hidden(latent), embedding)
    }
}

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

    /// Training loss with both dropouts: `K * CE + beta * KL`, the KL floored per dimension (CALM,
    /// section 2, Eq. 1 to 4).
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

/// What losses and samplers see: latent vectors become the tokens of their chunks.
impl ChunkAutoencoder {
    /// Tokens per chunk, K.
    pub fn chunk_size(&self) -> usize {
        self.chunk_size
    }

    /// Latent width, l.
    pub fn latent_size(&self) -> usize {
        self.decoder.from_latent.weight.lazy_shape()[0]
    }

    /// Tokens in the vocabulary, V.
    pub fn vocab_size(&self) -> usize {
        self.encoder.embedding.weight.dims()[0]
    }

    /// Scores of all tokens at all K positions of each chunk.
    ///
    /// # Shapes
    /// - latent: `[chunks, l]`
    /// - output: `[chunks, K, V]`
    pub fn logits(&self, latent: Tensor<2>) -> Tensor<3> {
        let [chunks, _] = latent.dims();
        let logits = self
            .decoder
            .forward(latent, self.encoder.embedding.weight.val());
        let [_, vocab] = logits.dims();
        logits.reshape([chunks, self.chunk_size, vocab])
    }

    /// The most likely token at each position.
    ///
    /// # Shapes
    /// - latent: `[chunks, l]`
    /// - output: `[chunks, K]`
    pub fn decode(&self, latent: Tensor<2>) -> Tensor<2, Int> {
        self.greedy().decode(latent)
    }
}
