//! The local decoder: a second way to turn a predicted vector into tokens, with exact probabilities.
//!
//! A CALM's autoencoder decodes a chunk's vector alone, so the vector must carry everything. Here a
//! small causal transformer over *tokens* reads the last W tokens across chunk borders, a condition
//! made from the vector for each of the chunk's K positions, and a memory of all earlier chunks. The
//! vector need not tell what the near text tells already, the likelihood is exact, and a temperature
//! costs nothing; N tokens still take N / K steps of the backbone. This is not CALM's method but a
//! relative of Block Transformer (arXiv 2406.02657) and MEGABYTE (arXiv 2305.07185).
//!
//! ```
//! use burn::tensor::{Device, Int, Tensor};
//! use calm_local_decoder::{Chunks, LocalDecoderConfig, LocalDecoderSettings, Memory};
//! use calm_nn::Init;
//!
//! let device = Device::flex();
//! let settings = LocalDecoderSettings {
//!     layers: 1, hidden_size: 16, intermediate_size: 24, heads: 2, kv_heads: 2,
//!     rope_theta: 10_000.0, norm_eps: 1e-6, near_tokens: 2, window: 8, vector_size: 32,
//!     memory: Memory::Both, tied_embeddings: false,
//! };
//! let config = LocalDecoderConfig { vocab_size: 11, chunk_size: 4, chunk_width: 32, settings };
//! config.validate()?;
//! let decoder = config.init(&mut Init::new(7, &device));
//! // Two whole chunks and one token of a third, as the states of some backbone.
//! let tokens = Tensor::<2, Int>::from_ints([[1, 2, 3, 4, 5, 6, 7, 8, 9]], &device);
//! let wide = || Tensor::<3>::ones([1, 2, 32], &device);
//! let chunks = Chunks { inputs: wide(), states: wide() };
//! let hidden = decoder.forward(tokens, Some(&chunks));
//! let scores = decoder.output_layer().logits(hidden.squeeze_dim(0));
//! assert_eq!(scores.dims(), [9, 11]);
//! # Ok::<(), calm_nn::ConfigError>(())
//! ```

mod cache;
mod decoder;
mod step;

pub use cache::LocalCache;
pub use decoder::{
    Chunks, LocalDecoder, LocalDecoderConfig, LocalDecoderSettings, LocalLayer, Memory,
    MemoryProjection,
};
pub use step::LocalBranches;
