//! Sizes and regularisation of the chunk autoencoder.

use calm_nn::{ConfigError, Cost, Init, SwiGlu};
use serde::{Deserialize, Serialize};

use crate::{ChunkAutoencoder, Decoder, Encoder};

/// Configuration of a [`ChunkAutoencoder`] (CALM, section 2, Eq. 1 to 4).
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
        ConfigError::positive("hidden_size", self.hidden_size)?;
        ConfigError::positive("intermediate_size", self.intermediate_size)?;
        ConfigError::positive("encoder_layers", self.encoder_layers)?;
        ConfigError::positive("decoder_layers", self.decoder_layers)?;
        // An odd count would leave a layer unused: half of them work on either stage.
        ConfigError::multiple("encoder_layers", self.encoder_layers, "two stages", 2)?;
        ConfigError::multiple("decoder_layers", self.decoder_layers, "two stages", 2)?;
        for (field, value) in [
            ("token_dropout", self.token_dropout),
            ("latent_dropout", self.latent_dropout),
        ] {
            ConfigError::range(field, value, (0.0..1.0).contains(&value), "0 <= p < 1")?;
        }
        for (field, value) in [
            ("kl_weight", self.kl_weight),
            ("kl_floor", self.kl_floor),
            ("norm_eps", self.norm_eps),
        ] {
            ConfigError::range(
                field,
                value,
                value >= 0.0 && value.is_finite(),
                "0 <= x < inf",
            )?;
        }
        Ok(())
    }

    /// The autoencoder with fresh weights.
    pub fn init(&self, init: &mut Init<'_>) -> ChunkAutoencoder {
        ChunkAutoencoder::new(Encoder::new(self, init), Decoder::new(self, init), self)
    }

    /// Multiply-accumulates of encoding one chunk; embedding look-ups are free.
    pub fn encoder_macs(&self) -> u64 {
        let [k, d, l] = [self.chunk_size, self.hidden_size, self.latent_size].map(|x| x as u64);
        self.block_macs(self.encoder_layers) + k * d * d + 2 * d * l
    }

    /// Multiply-accumulates of decoding one chunk, the `V * d` scores of all K positions
    /// included.
    pub fn decoder_macs(&self) -> u64 {
        let [k, d, l] = [self.chunk_size, self.hidden_size, self.latent_size].map(|x| x as u64);
        let logits = k * d * self.vocab_size as u64;
        self.block_macs(self.decoder_layers) + k * d * d + d * l + logits
    }

    fn block_macs(&self, layers: usize) -> u64 {
        // One half runs once per token, the other once per chunk.
        let applications = (layers / 2 * (self.chunk_size + 1)) as u64;
        SwiGlu::weights(self.hidden_size, self.intermediate_size) * applications
    }
}

impl Cost for AutoencoderConfig {
    fn parameters(&self) -> u64 {
        let [v, k, d, l] = [
            self.vocab_size,
            self.chunk_size,
            self.hidden_size,
            self.latent_size,
        ]
        .map(|x| x as u64);
        let layers = (self.encoder_layers + self.decoder_layers) as u64;
        let blocks = layers * (SwiGlu::weights(self.hidden_size, self.intermediate_size) + d);
        let encoder = k * d * d + d + d + 2 * l * d + 2 * l;
        let decoder = l * d + d + k * d * d + k * d + d;
        v * d + blocks + encoder + decoder
    }

    /// Encoder and decoder of one chunk; there is no context.
    fn forward_macs(&self, _context: usize) -> u64 {
        self.encoder_macs() + self.decoder_macs()
    }
}
