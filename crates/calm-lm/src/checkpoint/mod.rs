//! The checkpoint directory: one format for training, evaluation, generation and import.
//!
//! ```text
//! step-000500/
//!   manifest.json         size and sha256 of every other file, and the split of the training
//!                         text
//!   manifest.sha256       that of the manifest, as `sha256sum -c` reads it; written last, and absent in
//!                         checkpoints of before 2026-12
//!   config.json           the ModelConfig, or the TokenModelConfig of a token baseline, or the
//!                         AutoencoderConfig of an autoencoder that was imported alone
//!   tokenizer.json        absent where an import had none
//!   autoencoder.bpk
//!   language_model.bpk    absent while the autoencoder is trained
//!   auxiliary.bpk         its auxiliary heads, where training has a part of them
//!   local_model.bpk       instead of these: a model with a local decoder
//!   token_model.bpk       or a token baseline
//!   optim.bpk state.json  whatever the writer adds
//! ```

mod reader;
mod weights;
mod writer;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use calm_autoencoder::AutoencoderConfig;
use calm_baseline::TokenModelConfig;
use calm_data::{Split, sha256_file};
use calm_nn::ConfigError;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{Error, Kind, ModelConfig, Result};
pub use reader::{
    AutoencoderCheckpoint, BaselineCheckpoint, Checkpoint, CheckpointOf, check_tokenizer,
    checkpoint_kind,
};
pub use weights::WeightNumbers;
pub(crate) use weights::kept_in;
pub use writer::CheckpointWriter;

const FORMAT: u32 = 1;
const MANIFEST: &str = "manifest.json";
const MANIFEST_SUM: &str = "manifest.sha256";
const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";
const AUTOENCODER: &str = "autoencoder.bpk";
const LANGUAGE_MODEL: &str = "language_model.bpk";
const AUXILIARY: &str = "auxiliary.bpk";
const LOCAL_MODEL: &str = "local_model.bpk";
const TOKEN_MODEL: &str = "token_model.bpk";

/// A configuration that stands in a checkpoint and says what the weights beside it are.
pub trait CheckpointConfig: Serialize + DeserializeOwned {
    /// What a checkpoint with this configuration holds.
    const KIND: Kind;

    /// Checks that all parts fit together.
    ///
    /// # Errors
    /// Names the field and what it must be.
    fn check(&self) -> std::result::Result<(), ConfigError>;

    /// Tokens in the vocabulary, V.
    fn vocab_size(&self) -> usize;
}

impl CheckpointConfig for ModelConfig {
    const KIND: Kind = Kind::Calm;

    fn check(&self) -> std::result::Result<(), ConfigError> {
        self.validate()
    }

    fn vocab_size(&self) -> usize {
        self.vocab_size
    }
}

impl CheckpointConfig for TokenModelConfig {
    const KIND: Kind = Kind::TokenModel;

    fn check(&self) -> std::result::Result<(), ConfigError> {
        self.validate()
    }

    fn vocab_size(&self) -> usize {
        self.vocab_size
    }
}

impl CheckpointConfig for AutoencoderConfig {
    const KIND: Kind = Kind::Autoencoder;

    fn check(&self) -> std::result::Result<(), ConfigError> {
        self.validate()
    }

    fn vocab_size(&self) -> usize {
        self.vocab_size
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    format: u32,
    #[serde(default)]
    kind: Kind,
    /// Absent where there is no tokenizer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tokenizer_fingerprint: Option<String>,
    /// How the text was split that the model was trained on; absent where nobody said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    split: Option<Split>,
    /// [`calm_data::TokenStore::content`] of that text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// How a text of the training stream ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    lead_in: Vec<u32>,
    files: BTreeMap<String, FileEntry>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct FileEntry {
    bytes: u64,
    sha256: String,
}

/// The line that stands in [`MANIFEST_SUM`].
fn manifest_sum(manifest: &Path) -> Result<String> {
    Ok(format!("{}  {MANIFEST}\n", sha256_file(manifest)?))
}

fn entry_of(path: &Path) -> Result<FileEntry> {
    let bytes = fs::metadata(path).map_err(Error::io(path))?.len();
    Ok(FileEntry {
        bytes,
        sha256: sha256_file(path)?,
    })
}
