//! What ends a command early.

use std::path::PathBuf;

use thiserror::Error;

#[derive(Debug, Error)]
pub enum CliError {
    #[error(transparent)]
    Train(#[from] calm_train::Error),
    #[error(transparent)]
    Model(#[from] calm_lm::Error),
    #[error(transparent)]
    Data(#[from] calm_data::Error),
    #[error(transparent)]
    Record(#[from] calm_records::Error),
    #[error(transparent)]
    Sampling(#[from] calm_baseline::SamplingError),
    #[error(transparent)]
    Compare(#[from] calm_compare::Error),
    #[error(transparent)]
    Conform(#[from] calm_conform::Error),
    #[error(transparent)]
    Eval(#[from] calm_eval::EvalError),
    #[error("{0}")]
    Usage(String),
    #[error("{}: {source}", path.display())]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    /// Whoever read standard output has gone: nothing more is to be done or said.
    #[error("nobody reads standard output any more")]
    NobodyReads,
    /// Saved and stopped on request.
    #[error("{0}")]
    Interrupted(String),
}

pub type Result<T> = std::result::Result<T, CliError>;
