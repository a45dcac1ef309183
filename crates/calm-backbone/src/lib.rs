//! The vector-prediction backbone: chunk compression and a causal transformer (CALM, section 3).
//!
//! ```
//! use burn::tensor::{Device, Int, Tensor};
//! use calm_backbone::{BackboneConfig, CompressorKind};
//! use calm_nn::{Init, TransformerConfig};
//!
//! let device = Device::flex();
//! let transformer = TransformerConfig {
//!     layers: 2, hidden_size: 32, intermediate_size: 48, heads: 4, kv_heads: 4,
//!     rope_theta: 10_000.0, norm_eps: 1e-6,
//! };
//! let config = BackboneConfig {
//!     vocab_size: 50, chunk_size: 4, chunk_context: 0, compressor: CompressorKind::Mlp, transformer,
//! };
//! config.validate()?;
//! let backbone = config.init(&mut Init::new(1, &device));
//! let tokens = Tensor::<3, Int>::zeros([1, 6, 4], &device); // 24 tokens are 6 steps
//! assert_eq!(backbone.forward(tokens).dims(), [1, 6, 32]);
//! # Ok::<(), calm_nn::ConfigError>(())
//! ```

mod backbone;

pub use backbone::{Backbone, BackboneConfig, ChunkCompressor, CompressorKind};
