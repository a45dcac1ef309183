//! Where a model comes from: `--run DIR` or `--model DIR`.

use std::path::{Path, PathBuf};

use calm_data::{Split, Tokenizer};
use calm_lm::{
    BaselineCheckpoint, Checkpoint, CheckpointConfig, CheckpointOf, Kind, checkpoint_kind,
};
use calm_records::RunDir;
use calm_train::Newest;
use clap::Args;

use crate::error::Result;
use crate::output::tell;

#[derive(Args)]
#[group(required = true, multiple = false)]
pub struct Place {
    /// A run directory; its newest valid language-model checkpoint is used.
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
    /// A checkpoint directory.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
}

#[derive(Args)]
pub struct ModelArgs {
    #[command(flatten)]
    place: Place,
    /// The run's token baseline instead of its CALM.
    #[arg(long, requires = "run")]
    baseline: bool,
}

/// A checkpoint of either kind.
#[allow(clippy::large_enum_variant)] // There is one of these in a program.
pub enum AnyCheckpoint {
    Calm(Checkpoint),
    Baseline(BaselineCheckpoint),
}

impl AnyCheckpoint {
    /// The checkpoint in a directory, of whatever kind.
    pub fn open(directory: &Path) -> Result<Self> {
        Ok(match checkpoint_kind(directory)? {
            Kind::Calm => Self::Calm(Checkpoint::open(directory)?),
            Kind::TokenModel => Self::Baseline(BaselineCheckpoint::open(directory)?),
        })
    }

    pub fn tokenizer(&self) -> &Tokenizer {
        match self {
            Self::Calm(checkpoint) => checkpoint.tokenizer(),
            Self::Baseline(checkpoint) => checkpoint.tokenizer(),
        }
    }

    pub fn split(&self) -> Option<&Split> {
        match self {
            Self::Calm(checkpoint) => checkpoint.split(),
            Self::Baseline(checkpoint) => checkpoint.split(),
        }
    }

    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Calm(checkpoint) => checkpoint.text(),
            Self::Baseline(checkpoint) => checkpoint.text(),
        }
    }

    pub fn directory(&self) -> &Path {
        match self {
            Self::Calm(checkpoint) => checkpoint.directory(),
            Self::Baseline(checkpoint) => checkpoint.directory(),
        }
    }
}

impl ModelArgs {
    /// Opens the checkpoint, and the run where one was given.
    pub fn open(&self) -> Result<(AnyCheckpoint, Option<RunDir>)> {
        match (&self.place.run, &self.place.model) {
            (Some(run), _) => {
                let run = RunDir::open(run)?;
                let checkpoint = if self.baseline {
                    AnyCheckpoint::Baseline(told(calm_train::baseline_checkpoint(&run)?))
                } else {
                    AnyCheckpoint::Calm(told(calm_train::language_model_checkpoint(&run)?))
                };
                Ok((checkpoint, Some(run)))
            }
            (None, Some(model)) => Ok((AnyCheckpoint::open(model)?, None)),
            (None, None) => unreachable!("clap requires one of them"),
        }
    }
}

/// The checkpoint, after a line on stderr for each that should have come before it.
fn told<C: CheckpointConfig>(newest: Newest<C>) -> CheckpointOf<C> {
    for error in &newest.passed_over {
        tell(&passed_over(error, newest.checkpoint.directory()));
    }
    newest.checkpoint
}

/// What is said where a newer checkpoint can't be used.
pub fn passed_over(error: &calm_lm::Error, taken: &Path) -> String {
    format!("{error}; taking {} in its place", taken.display())
}
