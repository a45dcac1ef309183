//! The token baseline that a CALM is compared with: a LLaMA-style language model on the same
//! blocks, cached decoding, speculative decoding, and its Brier scores.
//!
//! ```
//! use burn::tensor::Device;
//! use calm_baseline::{PromptLookup, SpeculativeGenerator, TokenModelConfig, TokenSampler};
//! use calm_nn::{Limits, TransformerConfig};
//!
//! let device = Device::flex();
//! let transformer = TransformerConfig {
//!     layers: 1, hidden_size: 16, intermediate_size: 24, heads: 2, kv_heads: 1,
//!     rope_theta: 10_000.0, norm_eps: 1e-6,
//! };
//! let config = TokenModelConfig {
//!     vocab_size: 11, window: 32, init_std: 0.25, tied_embeddings: false, scale_embeddings: false,
//!     zero_init_residual: false, near_tokens: 2, transformer,
//! };
//! let model = config.init(7, &device);
//! let limits = Limits { window: 32, max_tokens: 20, end_of_text: 10 };
//! let sampler = TokenSampler::new(0.8, None, Some(0.95))?;
//! let drafter = PromptLookup::new(3);
//! let generator =
//!     SpeculativeGenerator::new(&model, drafter, 4, sampler, limits, &[1, 2, 3], 0, &device)?;
//! let (text, stats) = generator.run();
//! assert!(text.len() <= 20 && stats.target_passes <= 21);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod brier;
mod config;
mod draft;
mod generate;
mod model;
mod sampler;
mod speculative;

pub use brier::{WindowScores, score_window};
pub use config::TokenModelConfig;
pub use draft::{Drafter, ModelDrafter, PromptLookup, Proposal};
pub use generate::TokenGenerator;
pub use model::TokenModel;
pub use sampler::{SamplingError, TokenSampler};
pub use speculative::{SpeculationStats, SpeculativeGenerator};
