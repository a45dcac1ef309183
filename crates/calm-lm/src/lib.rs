//! The composed CALM model: a frozen chunk autoencoder and a language model that predicts the
//! next vector in its latent space. Loss, generation, checkpoint directory, device strings.
//!
//! The backend is the [`Device`](burn::tensor::Device), chosen at run time: [`open_device`].
//!
//! ```no_run
//! use calm_lm::{Checkpoint, GenerateOptions, Generator, open_device};
//! use calm_likelihood_free::BatchSampler;
//!
//! let device = open_device("flex")?;
//! let checkpoint = Checkpoint::open("runs/nano/checkpoints/lm/step-001000".as_ref())?;
//! let model = checkpoint.load(&device)?;
//! let tokenizer = checkpoint.tokenizer()?;
//! let options = GenerateOptions {
//!     sampler: BatchSampler::new(0.5, 200)?.into(), max_tokens: 64,
//!     end_of_text: tokenizer.end_of_text(), lead_in: checkpoint.lead_in(), seed: 1,
//! };
//! let prompts = [tokenizer.encode("In the beginning")?];
//! let texts = Generator::new(&model, checkpoint.config(), &prompts, options, &device)?.run();
//! println!("{}", tokenizer.decode(&texts[0])?);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod any_model;
mod auxiliary;
mod checkpoint;
mod config;
mod device;
mod error;
mod generate;
mod local;
mod memory;
mod model;
mod objective;
mod pool;
mod released;
mod rollout;
mod trace;

pub use any_model::AnyModel;
pub use auxiliary::{AuxiliaryConfig, AuxiliaryHead};
pub use calm_autoencoder::AutoencoderSettings;
pub use calm_backbone::CompressorKind;
pub use calm_likelihood_free::{DiffusionLoss, Head, HeadKind, HeadSettings, Solver};
pub use calm_local_decoder::{LocalDecoderSettings, Memory};
pub use checkpoint::{
    AutoencoderCheckpoint, BaselineCheckpoint, Checkpoint, CheckpointConfig, CheckpointOf,
    CheckpointWriter, WeightNumbers, check_tokenizer, checkpoint_kind,
};
pub use config::{DecoderKind, Kind, ModelConfig};
pub use device::{
    DEVICE_FORMS, Listen, NamedDevice, TOKEN_VARIABLE, device_token, open_device, serve_devices,
};
pub use error::{Error, Result};
pub use generate::{ChunkSampler, GenerateOptions, Generator, Spent};
pub use local::{LocalModel, LocalModelBranches, LocalModelCache};
pub use model::{CalmModel, LanguageModel};
pub use objective::{DecodedDraws, Objective};
pub use released::{ReleasedConfig, TokenIds};
pub use rollout::CalmRollout;
pub use trace::{TraceInputs, trace};
