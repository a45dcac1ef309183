//! LLaMA blocks shared by the CALM backbone and the token baseline, and what the lower crates of
//! the workspace speak through: [`Cost`], [`Draws`].
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use calm_nn::{Cost, Init, TransformerConfig};
//!
//! let device = Device::flex();
//! let config = TransformerConfig {
//!     layers: 2, hidden_size: 32, intermediate_size: 48, heads: 4, kv_heads: 2,
//!     rope_theta: 10_000.0, norm_eps: 1e-6,
//! };
//! config.validate()?;
//! let transformer = config.init(&mut Init::new(7, &device));
//! let hidden = transformer.forward(Tensor::ones([1, 5, 32], &device));
//! assert_eq!(hidden.dims(), [1, 5, 32]);
//! assert_eq!(config.cache_bytes(), 2 * 2 * 16 * 4);
//! # Ok::<(), calm_nn::ConfigError>(())
//! ```

mod decoding;
mod draws;
mod error;
mod init;
mod kv_cache;
mod layers;
mod memory;
mod near_tokens;
mod output_layer;
mod posterior;
mod random;
mod rope;
mod text_cache;
mod traits;
mod transformer;

pub use decoding::{
    CachedModel, Decoding, Limits, NextToken, PromptError, StepCache, Stop, chunk_tensor,
};
pub use draws::{Draws, HostDraws, Replay};
pub use error::ConfigError;
pub use init::{Init, LAYER_NORM_EPS, WEIGHT_STD};
pub use kv_cache::{KvCache, LayerCache};
pub use layers::{SwiGlu, embed, layer_norm, linear, look_up, rms_norm};
pub use memory::{PartMemory, TrainingMemory, f32_bytes, id_bytes, step_bytes};
pub use near_tokens::{NearTokens, embedding_memory};
pub use output_layer::{OutputLayer, cross_entropy_memory};
pub use posterior::Posterior;
pub use random::{RandomStream, mix};
pub use rope::Rope;
pub use text_cache::{BranchTokens, TextBranches, TextCache, TokenHistory, keep_rows};
pub use traits::{Cost, MAX_N};
pub use transformer::{
    AttentionMask, Block, Branches, SelfAttention, Transformer, TransformerConfig, norm_memory,
};
