//! Sizes of the token model.

use burn::tensor::Device;
use calm_nn::{
    ConfigError, Cost, Init, NearTokens, PartMemory, TrainingMemory, TransformerConfig,
    cross_entropy_memory, embedding_memory,
};
use serde::{Deserialize, Serialize};

use crate::TokenModel;

/// Configuration of a [`TokenModel`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenModelConfig {
    /// Tokens in the vocabulary, V, the end-of-text token included.
    pub vocab_size: usize,
    /// Tokens per window, in training, evaluation and generation.
    pub window: usize,
    /// Standard deviation of the weights at the start.
    pub init_std: f64,
    /// Whether the output layer is the embedding table (published baselines: no).
    pub tied_embeddings: bool,
    /// Whether embeddings are scaled by `sqrt(d)` (published baselines: no; [`calm_nn::embed`]).
    #[serde(default)]
    pub scale_embeddings: bool,
    /// Whether residual branches begin at zero (published baselines: no; [`Init::branch_end`]).
    #[serde(default)]
    pub zero_init_residual: bool,
    /// Tokens before each that its embedding takes over from, through a weight per channel (published
    /// baselines: 0; [`NearTokens`]).
    #[serde(default)]
    pub near_tokens: usize,
    /// The decoder stack.
    pub transformer: TransformerConfig,
}

impl TokenModelConfig {
    /// Checks that the sizes fit together.
    ///
    /// # Errors
    /// Names the field and what it must be.
    pub fn validate(&self) -> Result<(), ConfigError> {
        ConfigError::positive("baseline.vocab_size", self.vocab_size)?;
        let window = self.window as f64;
        ConfigError::range("window", window, self.window >= 2, "2 or more")?;
        let near = self.near_tokens;
        let fits = near < self.window;
        ConfigError::range(
            "baseline.near_tokens",
            near as f64,
            fits,
            "less than the window",
        )?;
        let positive = self.init_std > 0.0 && self.init_std.is_finite();
        let std = self.init_std;
        ConfigError::range("baseline.init_std", std, positive, "greater than 0")?;
        self.transformer.validate()
    }

    /// A model with fresh weights from `seed`, equal on every device.
    pub fn init(&self, seed: u64, device: &Device) -> TokenModel {
        let init = Init::new(seed, device);
        let init = init.with_std(self.init_std);
        self.build(&mut init.with_zero_residual(self.zero_init_residual))
    }

    /// A model that waits for weights from a file ([`Init::unloaded`]).
    pub fn unloaded(&self, device: &Device) -> TokenModel {
        self.build(&mut Init::unloaded(device))
    }

    fn build(&self, init: &mut Init<'_>) -> TokenModel {
        let (v, d) = (self.vocab_size, self.transformer.hidden_size);
        TokenModel {
            embedding: init.embedding(v, d),
            near: NearTokens::new(self.near_tokens, d, init),
            transformer: self.transformer.init(init),
            output: (!self.tied_embeddings).then(|| init.linear_no_bias(d, v)),
            scale_embeddings: self.scale_embeddings,
        }
    }

    /// FLOPs per token of training: forward and backward, attention over `context` positions.
    pub fn train_flops(&self, context: usize) -> f64 {
        6.0 * self.forward_macs(context) as f64
    }

    /// FLOPs per generated token with a cache of `context` positions.
    pub fn inference_flops(&self, context: usize) -> f64 {
        2.0 * self.forward_macs(context) as f64
    }

    fn table(&self) -> u64 {
        (self.vocab_size * self.transformer.hidden_size) as u64
    }

    fn near_weights(&self) -> u64 {
        (self.near_tokens * self.transformer.hidden_size) as u64
    }
}

impl Cost for TokenModelConfig {
    fn parameters(&self) -> u64 {
        let tables = if self.tied_embeddings { 1 } else { 2 };
        tables * self.table() + self.near_weights() + self.transformer.parameters()
    }

    fn forward_macs(&self, context: usize) -> u64 {
        self.transformer.forward_macs(context) + self.near_weights() + self.table()
    }

    fn cache_bytes(&self) -> u64 {
        self.transformer.cache_bytes()
    }
}

impl TrainingMemory for TokenModelConfig {
    /// Embeddings, the transformer, the cross-entropy; the last token of a window, which nothing is
    /// predicted from, counts as the others do.
    fn training_memory(&self, positions: usize, checkpointing: bool) -> Vec<PartMemory> {
        let (v, d) = (self.vocab_size, self.transformer.hidden_size);
        let embedding = embedding_memory(positions, v, d, self.near_tokens, self.tied_embeddings);
        let mut parts = vec![embedding];
        parts.extend(self.transformer.training_memory(positions, checkpointing));
        parts.push(cross_entropy_memory(positions, d, v));
        parts
    }
}
