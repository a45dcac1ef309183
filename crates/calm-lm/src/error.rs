//! Errors of the composed model.

use std::path::PathBuf;

use calm_likelihood_free::SamplerError;
use calm_nn::{ConfigError, PromptError};
use thiserror::Error;

use crate::config::Kind;

/// What can go wrong with a model, its files or its device.
#[derive(Debug, Error)]
pub enum Error {
    /// Sizes that don't fit together.
    #[error("model configuration: {0}")]
    Config(#[from] ConfigError),
    /// A temperature or pool that can't be served.
    #[error(transparent)]
    Sampler(#[from] SamplerError),
    /// The tokenizer could not be read.
    #[error(transparent)]
    Data(#[from] calm_data::Error),
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A directory that holds no checkpoint.
    #[error("{}: no checkpoint here ({missing} is missing)", path.display())]
    NoCheckpoint {
        /// The directory.
        path: PathBuf,
        /// The file that should be there.
        missing: String,
    },
    /// A file of a checkpoint is not what was written.
    #[error("{}: damaged checkpoint file ({detail})", path.display())]
    DamagedCheckpoint {
        /// The file.
        path: PathBuf,
        /// What differs.
        detail: String,
    },
    /// A checkpoint of another kind of model.
    #[error("{}: this checkpoint holds {got}, not {expected}", path.display())]
    WrongKind {
        /// The directory.
        path: PathBuf,
        /// What was to be loaded.
        expected: Kind,
        /// What it holds.
        got: Kind,
    },
    /// Weights that don't fit the configuration beside them.
    #[error("{}: weights don't fit the configuration: {detail}", path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// What Burn says.
        detail: String,
    },
    /// The tokenizer is not the one that the model was trained with.
    #[error(
        "{}: this tokenizer ({got:.12}..) is not the one that the model was trained with ({expected:.12}..)",
        path.display()
    )]
    WrongTokenizer {
        /// The tokenizer file.
        path: PathBuf,
        /// Fingerprint that the checkpoint names.
        expected: String,
        /// Fingerprint of the file.
        got: String,
    },
    /// A checkpoint that was imported without a tokenizer.
    #[error(
        "{}: this checkpoint was imported without a tokenizer; name one (--tokenizer FILE)",
        path.display()
    )]
    NoTokenizer {
        /// The directory.
        path: PathBuf,
    },
    /// Tensor files of another program.
    #[error(transparent)]
    TensorFile(#[from] calm_weights::Error),
    /// A released checkpoint that is not what can be imported.
    #[error("{}: {detail}", path.display())]
    Import {
        /// The file.
        path: PathBuf,
        /// Why.
        detail: String,
    },
    /// A model with a part that the released code lacks.
    #[error("the released code has no {setting}: this model can't be exported")]
    Export {
        /// The part.
        setting: &'static str,
    },
    /// Inputs of a trace that don't fit the model.
    #[error("{}: {detail}", path.display())]
    TraceInput {
        /// The file.
        path: PathBuf,
        /// What doesn't fit.
        detail: String,
    },
    /// A prompt that can't be read.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// A device string that can't be read.
    #[error("unknown device '{given}'; known: {known}")]
    UnknownDevice {
        /// What was given.
        given: String,
        /// The forms that are understood.
        known: &'static str,
    },
    /// A device whose executor is not compiled in.
    #[error(
        "device '{given}' is not compiled in; run through `cargo xtask .. --device {given}` or build with `--features {feature}`"
    )]
    NotCompiled {
        /// What was given.
        given: String,
        /// The feature that brings it.
        feature: &'static str,
    },
    /// A compute server.
    #[error("device '{device}': {detail}")]
    Remote {
        /// The device's string.
        device: String,
        /// What is wrong with it.
        detail: String,
    },
    /// No such device on this machine.
    #[error("device '{given}': {found} found on this machine{hint}")]
    NoDevice {
        /// What was given.
        given: String,
        /// How many there are, in words.
        found: String,
        /// What might help.
        hint: &'static str,
    },
}

impl Error {
    /// Wraps an I/O error with the path it happened at.
    pub fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}

/// Result with this crate's [`enum@Error`].
pub type Result<T> = std::result::Result<T, Error>;
