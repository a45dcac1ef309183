//! What can go wrong with a comparison.

use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::scaling::Untold;

/// Why a comparison could not go on. Finished cells are kept and not repeated.
#[derive(Debug, Error)]
pub enum Error {
    /// No such grid.
    #[error("unknown grid '{given}'; known: {known}, or a .toml file")]
    UnknownGrid {
        /// What was given.
        given: String,
        /// The grids in the program.
        known: String,
    },
    /// A grid that can't be compared.
    #[error("{origin}: {detail}")]
    BadGrid {
        /// Where it comes from.
        origin: String,
        /// What is wrong.
        detail: String,
    },
    /// A run that a cell can't be loaded from.
    #[error("cell {cell}: run {run} {detail}")]
    BadRun {
        /// The cell.
        cell: String,
        /// The run's directory.
        run: String,
        /// What is wrong with it and what to do.
        detail: String,
    },
    /// Runs of different steps.
    #[error("{}: other steps of stage {stage} than the first run", run.display())]
    OtherSteps {
        /// The run's directory.
        run: PathBuf,
        /// The stage.
        stage: calm_records::Stage,
    },
    /// A law that can't be planned by.
    #[error(
        "the runs leave open {}; no plan is made by a law that can't be told",
        untold.iter().map(ToString::to_string).collect::<Vec<_>>().join(", and ")
    )]
    Untold {
        /// The exponents.
        untold: Vec<Untold>,
    },
    /// A directory that holds results of another grid.
    #[error(
        "{}: this cell was made with another configuration or protocol; give another --out, or remove the directory to make it again",
        path.display()
    )]
    OtherCell {
        /// The cell's directory.
        path: PathBuf,
    },
    /// Training failed.
    #[error("cell {cell}: {source}")]
    Train {
        /// Which.
        cell: String,
        /// Why.
        source: Box<calm_train::Error>,
    },
    /// An experiment that is not valid, or a run that can't be read.
    #[error(transparent)]
    Experiment(Box<calm_train::Error>),
    /// A model could not be loaded.
    #[error(transparent)]
    Model(#[from] calm_lm::Error),
    /// A model could not be scored.
    #[error(transparent)]
    Eval(#[from] calm_eval::EvalError),
    /// A record could not be read or written.
    #[error(transparent)]
    Record(#[from] calm_records::Error),
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
}

impl From<calm_train::Error> for Error {
    fn from(error: calm_train::Error) -> Self {
        Self::Experiment(Box::new(error))
    }
}

impl Error {
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}

/// Result with this crate's [`enum@Error`].
pub type Result<T> = std::result::Result<T, Error>;
