//! Errors of training.

use std::path::PathBuf;

use calm_report::Stage;
use thiserror::Error;

/// What can stop a run.
#[derive(Debug, Error)]
pub enum Error {
    /// Corpus, tokenizer or token cache.
    #[error(transparent)]
    Data(#[from] calm_data::Error),
    /// Model, checkpoint or device.
    #[error(transparent)]
    Model(#[from] calm_lm::Error),
    /// Run records.
    #[error(transparent)]
    Record(#[from] calm_report::Error),
    /// Evaluation.
    #[error(transparent)]
    Eval(#[from] calm_eval::EvalError),
    /// Values that don't fit together.
    #[error("configuration: {0}")]
    Config(#[from] calm_nn::ConfigError),
    /// No preset of that name.
    #[error(
        "unknown preset '{given}'{}; known: {known}; or give a path to a .toml file",
        hint(suggestion)
    )]
    UnknownPreset {
        /// What was given.
        given: String,
        /// The nearest known name.
        suggestion: Option<String>,
        /// All known names.
        known: String,
    },
    /// A key that no preset has.
    #[error("{origin}: unknown key '{key}'{}", hint(suggestion))]
    UnknownKey {
        /// Where it stands: a file or `--set`.
        origin: String,
        /// The dotted key.
        key: String,
        /// The nearest known key.
        suggestion: Option<String>,
    },
    /// A configuration that is not the TOML or the type it should be.
    #[error("{origin}: {detail}")]
    BadConfig {
        /// Where it stands.
        origin: String,
        /// What is wrong.
        detail: String,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The tokenizer has more tokens than the model.
    #[error("{tokenizer} has {got} tokens, model.vocab_size is {expected}: set it to {got}")]
    VocabularyMismatch {
        /// The tokenizer file.
        tokenizer: String,
        /// Its tokens.
        got: usize,
        /// What the model expects.
        expected: usize,
    },
    /// Stage lm without a trained autoencoder.
    #[error(
        "{}: the lm stage needs a trained autoencoder and there is none; run with --stage all or autoencoder first",
        run.display()
    )]
    NoAutoencoder {
        /// The run directory.
        run: PathBuf,
    },
    /// The loss or the gradient is no number.
    #[error(
        "{stage} step {step}: {what} is not finite; batch cursor epoch {epoch} position {position}; last good checkpoint: {checkpoint}; try a lower learning rate"
    )]
    NotFinite {
        /// The stage.
        stage: Stage,
        /// The step, from 1.
        step: u64,
        /// Loss or gradient norm.
        what: &'static str,
        /// Epoch of the batch.
        epoch: u64,
        /// Windows of that epoch taken before the batch.
        position: u64,
        /// Where to go on from.
        checkpoint: String,
    },
}

fn hint(suggestion: &Option<String>) -> String {
    suggestion
        .as_ref()
        .map(|s| format!(" (did you mean '{s}'?)"))
        .unwrap_or_default()
}

impl Error {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}

/// Result with this crate's [`enum@Error`].
pub type Result<T> = std::result::Result<T, Error>;
