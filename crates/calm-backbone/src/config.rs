//! Sizes of the backbone.

use calm_nn::{ConfigError, Cost, Init, TransformerConfig};
use serde::{Deserialize, Serialize};

use crate::{Backbone, ChunkCompressor};

/// Configuration of a [`Backbone`] (CALM, section 3.3.3).
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
