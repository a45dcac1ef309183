//! The chunk autoencoder: K tokens to one latent vector and back (CALM, section 2).
//!
//! ```
//! use burn::tensor::{Device, Int, Tensor};
//! use calm_autoencoder::{AutoencoderConfig, AutoencoderSettings};
//! use calm_nn::{HostDraws, Init};
//!
//! let device = Device::flex();
//! let config = AutoencoderConfig {
//!     vocab_size: 50, chunk_size: 4, latent_size: 16,
//!     settings: AutoencoderSettings {
//!         hidden_size: 32, intermediate_size: 48, encoder_layers: 2, decoder_layers: 2,
//!         norm_eps: 1e-6, token_dropout: 0.15, latent_dropout: 0.15, kl_weight: 1e-3, kl_floor: 0.5,
//!     },
//! };
//! config.validate()?;
//! let autoencoder = config.init(&mut Init::new(1, &device));
//! let tokens = Tensor::<2, Int>::from_ints([[3, 1, 4, 1], [5, 9, 2, 6]], &device);
//! let posterior = autoencoder.encode(tokens.clone());
//! let latent = posterior.sample(&mut HostDraws::new(2));
//! assert_eq!(autoencoder.decode(latent).dims(), [2, 4]);
//! # Ok::<(), calm_nn::ConfigError>(())
//! ```

mod autoencoder;

pub use autoencoder::{
    AutoencoderConfig, AutoencoderLoss, AutoencoderSettings, BegunChunks, ChunkAutoencoder,
    Decoder, Encoder, FeedForwardBlock, GreedyDecoder,
};
