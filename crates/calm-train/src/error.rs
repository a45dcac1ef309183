//! Errors of training.

use std::path::PathBuf;

use calm_records::Stage;
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
    Record(#[from] calm_records::Error),
    /// Evaluation.
    #[error(transparent)]
    Eval(#[from] calm_eval::EvalError),
    /// Values that don't fit together.
    #[error("configuration: {0}")]
    Config(#[from] calm_nn::ConfigError),
    /// An autoencoder for a model that uses none.
    #[error(
        "model.decoder = \"local\" uses no autoencoder: leave out --stage autoencoder and \
         autoencoder_from"
    )]
    LocalNeedsNoAutoencoder,
    /// A model that can't be trained further in this way.
    #[error("init_from {from}: {detail}")]
    BadInitialModel {
        /// What was named.
        from: String,
        /// Why.
        detail: String,
    },
    /// A precision that the device lacks.
    #[error("precision = \"{precision}\": {device} has no such arithmetic; use precision=f32")]
    PrecisionNotOnDevice {
        /// What the configuration asks for.
        precision: &'static str,
        /// The device's string.
        device: String,
    },
    /// A stream that holds no window.
    #[error("data.stream.{key} is {tokens}, less than a window of {window} tokens: raise it")]
    FewStreamTokens {
        /// The key.
        key: &'static str,
        /// Its value.
        tokens: u64,
        /// Tokens of a window.
        window: usize,
    },
    /// An all-reduce where there is none.
    #[error(
        "--all-reduce: {device} has none, only CUDA devices do; leave it out, and the first sums"
    )]
    NoAllReduce {
        /// The device's string.
        device: String,
    },
    /// Gradient checkpointing where there is none.
    #[error(
        "gradient_checkpointing = true: {device} computes without kernels of ours, where it is not to be \
         had; use gradient_checkpointing=false, and fewer batch_windows with more accumulate"
    )]
    CheckpointingNotOnDevice {
        /// The device's string.
        device: String,
    },
    /// Fewer parts of a step than devices.
    #[error(
        "{devices} devices and {parts} part(s) of a step in {stage}: every device takes whole parts; \
         raise {}.accumulate to {devices} and divide batch_windows by as much",
        config_key(*stage)
    )]
    FewParts {
        /// The stage.
        stage: Stage,
        /// Its `accumulate`.
        parts: usize,
        /// Devices of the run.
        devices: usize,
    },
    /// A device that does not answer any more.
    #[error("device '{device}' is lost: {detail}; `--resume` goes on from the newest checkpoint")]
    DeviceLost {
        /// Its string.
        device: String,
        /// What was seen.
        detail: String,
    },
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
    /// Another process trains in the directory.
    #[error(
        "{}: {holder}, is training here; wait for its end, stop it, or give another --out",
        run.display()
    )]
    Locked {
        /// The run directory.
        run: PathBuf,
        /// Which process, and since when.
        holder: String,
    },
    /// Checkpoints, and none that can be read.
    #[error(
        "{}: none of its checkpoints is valid; the newest: {newest}; remove the directory to train the stage from its start",
        stage.display()
    )]
    NoValidCheckpoint {
        /// The stage's directory of checkpoints.
        stage: PathBuf,
        /// What is wrong with the newest.
        newest: Box<calm_lm::Error>,
    },
    /// An option beside `--resume` that says another thing than the run.
    #[error(
        "{key} is {run} in the run, and {given} was given; leave it out to go on, or start a new run with another --out"
    )]
    ResumeDiffers {
        /// The key of the configuration.
        key: String,
        /// The run's value.
        run: String,
        /// The value given.
        given: String,
    },
    /// An autoencoder that can't be taken from elsewhere.
    #[error("autoencoder of {from}: {detail}")]
    BadAutoencoder {
        /// Where it was to come from.
        from: String,
        /// What is wrong, and what to do.
        detail: String,
    },
    /// Stage autoencoder where a language model stands on the autoencoder already.
    #[error(
        "{}: the run has a language model on this autoencoder; resume with --stage all or lm",
        run.display()
    )]
    HasLanguageModel {
        /// The run directory.
        run: PathBuf,
    },
    /// The text is no longer the one that the run was trained on.
    #[error(
        "{}: the corpus has changed since the run began ({got:.12}.. where {expected:.12}.. was trained on); restore it, or start a new run",
        run.display()
    )]
    TextChanged {
        /// The run directory.
        run: PathBuf,
        /// Key of the text that the checkpoint saw.
        expected: String,
        /// Key of the text now.
        got: String,
    },
    /// A sample prompt longer than the window.
    #[error("samples.prompts: '{prompt}' has {tokens} tokens, more than the window of {window}")]
    PromptTooLong {
        /// The prompt.
        prompt: String,
        /// Its tokens.
        tokens: usize,
        /// Tokens per window.
        window: usize,
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
        "{stage} step {step}: {what} is not finite; batch cursor epoch {epoch} position {position}; last checkpoint: {checkpoint}; lower the learning rate in the config.toml of the run, then --resume"
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

/// The part of the configuration that a stage's steps stand in.
fn config_key(stage: Stage) -> &'static str {
    match stage {
        Stage::Autoencoder => "autoencoder",
        Stage::Lm => "lm",
        Stage::Baseline => "baseline.training",
    }
}
