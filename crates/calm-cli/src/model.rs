//! Where a model comes from: `--run DIR` or `--model DIR`.

use std::path::PathBuf;

use calm_lm::Checkpoint;
use calm_report::RunDir;
use clap::Args;

use crate::error::Result;

#[derive(Args)]
#[group(required = true, multiple = false)]
pub struct ModelArgs {
    /// A run directory; its newest language-model checkpoint is used.
    #[arg(long, value_name = "DIR")]
    pub run: Option<PathBuf>,
    /// A checkpoint directory.
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
}

impl ModelArgs {
    /// Opens the checkpoint, and the run where one was given.
    pub fn open(&self) -> Result<(Checkpoint, Option<RunDir>)> {
        match (&self.run, &self.model) {
            (Some(run), _) => {
                let run = RunDir::open(run)?;
                let checkpoint = calm_train::language_model_checkpoint(&run)?;
                Ok((checkpoint, Some(run)))
            }
            (None, Some(model)) => Ok((Checkpoint::open(model)?, None)),
            (None, None) => unreachable!("clap requires one of them"),
        }
    }
}
