//! Where a model comes from: `--run DIR` or `--model DIR`.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use calm_data::{Split, Tokenizer};
use calm_lm::{
    AnyModel, AutoencoderCheckpoint, BaselineCheckpoint, Checkpoint, CheckpointConfig,
    CheckpointOf, Kind, WeightNumbers, checkpoint_kind,
};
use calm_records::RunDir;
use calm_train::Newest;
use clap::Args;

use crate::error::{CliError, Result};
use crate::import::TOKEN_IDS;
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
    /// The tokenizer of a model that was imported without one: a tokenizer.json or its directory.
    #[arg(long, value_name = "FILE|DIR")]
    tokenizer: Option<PathBuf>,
}

/// What weights are kept in while they are used.
#[derive(Args)]
pub struct WeightsArgs {
    /// What weights are kept in: as they are stored, widened to f32, or rounded to bf16 or int8 (8 bits
    /// with a scale for each block), which makes memory and what decoding reads a half or a quarter.
    #[arg(long, value_enum, default_value = "stored")]
    weights: WeightsName,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum WeightsName {
    Stored,
    F32,
    Bf16,
    Int8,
}

impl WeightsArgs {
    pub fn numbers(&self) -> WeightNumbers {
        match self.weights {
            WeightsName::Stored => WeightNumbers::Stored,
            WeightsName::F32 => WeightNumbers::F32,
            WeightsName::Bf16 => WeightNumbers::Bf16,
            WeightsName::Int8 => WeightNumbers::Int8,
        }
    }
}

/// A checkpoint of either kind.
#[allow(clippy::large_enum_variant)] // There is one of these in a program.
pub enum AnyCheckpoint {
    Calm(Checkpoint),
    Baseline(BaselineCheckpoint),
    Autoencoder(AutoencoderCheckpoint),
}

impl AnyCheckpoint {
    /// The checkpoint in a directory, of whatever kind.
    pub fn open(directory: &Path) -> Result<Self> {
        Ok(match checkpoint_kind(directory)? {
            Kind::Calm => Self::Calm(Checkpoint::open(directory)?),
            Kind::TokenModel => Self::Baseline(BaselineCheckpoint::open(directory)?),
            Kind::Autoencoder => Self::Autoencoder(AutoencoderCheckpoint::open(directory)?),
        })
    }

    /// The whole model.
    pub fn load(&self, device: &Device) -> Result<AnyModel> {
        Ok(match self {
            Self::Calm(c) if c.config().is_local() => {
                let message = "a model with a local decoder is none that others know: it is neither \
                               traced nor exported";
                return Err(CliError::Usage(message.to_owned()));
            }
            Self::Calm(c) => AnyModel::Calm(c.config().clone(), c.load(device)?),
            Self::Baseline(c) => AnyModel::TokenModel(c.config().clone(), c.load(device)?),
            Self::Autoencoder(c) => AnyModel::Autoencoder(c.config().clone(), c.load(device)?),
        })
    }

    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        Ok(match self {
            Self::Calm(checkpoint) => checkpoint.tokenizer(),
            Self::Baseline(checkpoint) => checkpoint.tokenizer(),
            Self::Autoencoder(checkpoint) => checkpoint.tokenizer(),
        }?)
    }

    /// Whether it was imported.
    pub fn is_imported(&self) -> bool {
        self.path(TOKEN_IDS).is_file()
    }

    /// A file of the checkpoint.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory().join(name)
    }

    /// Reads a JSON file of the checkpoint.
    pub fn read_json<T: for<'de> serde::Deserialize<'de>>(&self, name: &str) -> Result<T> {
        Ok(match self {
            Self::Calm(checkpoint) => checkpoint.read_json(name),
            Self::Baseline(checkpoint) => checkpoint.read_json(name),
            Self::Autoencoder(checkpoint) => checkpoint.read_json(name),
        }?)
    }

    /// The same, with weights kept in `numbers` once they are loaded.
    pub fn with_weights(self, numbers: WeightNumbers) -> Self {
        match self {
            Self::Calm(checkpoint) => Self::Calm(checkpoint.with_weights(numbers)),
            Self::Baseline(checkpoint) => Self::Baseline(checkpoint.with_weights(numbers)),
            Self::Autoencoder(checkpoint) => Self::Autoencoder(checkpoint.with_weights(numbers)),
        }
    }

    fn with_tokenizer(self, tokenizer: Tokenizer) -> Result<Self> {
        Ok(match self {
            Self::Calm(checkpoint) => Self::Calm(checkpoint.with_tokenizer(tokenizer)?),
            Self::Baseline(checkpoint) => Self::Baseline(checkpoint.with_tokenizer(tokenizer)?),
            Self::Autoencoder(checkpoint) => {
                Self::Autoencoder(checkpoint.with_tokenizer(tokenizer)?)
            }
        })
    }

    pub fn split(&self) -> Option<&Split> {
        match self {
            Self::Calm(checkpoint) => checkpoint.split(),
            Self::Baseline(checkpoint) => checkpoint.split(),
            Self::Autoencoder(checkpoint) => checkpoint.split(),
        }
    }

    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Calm(checkpoint) => checkpoint.text(),
            Self::Baseline(checkpoint) => checkpoint.text(),
            Self::Autoencoder(checkpoint) => checkpoint.text(),
        }
    }

    pub fn directory(&self) -> &Path {
        match self {
            Self::Calm(checkpoint) => checkpoint.directory(),
            Self::Baseline(checkpoint) => checkpoint.directory(),
            Self::Autoencoder(checkpoint) => checkpoint.directory(),
        }
    }
}

impl ModelArgs {
    /// Opens the checkpoint, and the run where one was given.
    pub fn open(&self) -> Result<(AnyCheckpoint, Option<RunDir>)> {
        let (checkpoint, run) = match (&self.place.run, &self.place.model) {
            (Some(run), _) => {
                let run = RunDir::open(run)?;
                let checkpoint = if self.baseline {
                    AnyCheckpoint::Baseline(told(calm_train::baseline_checkpoint(&run)?))
                } else {
                    AnyCheckpoint::Calm(told(calm_train::language_model_checkpoint(&run)?))
                };
                (checkpoint, Some(run))
            }
            (None, Some(model)) => (AnyCheckpoint::open(model)?, None),
            (None, None) => unreachable!("clap requires one of them"),
        };
        let checkpoint = match &self.tokenizer {
            Some(path) => checkpoint.with_tokenizer(Tokenizer::load(path)?)?,
            None => checkpoint,
        };
        Ok((checkpoint, run))
    }
}

/// What is said of a command that an autoencoder alone can't serve.
pub fn no_language_model() -> CliError {
    CliError::Usage(
        "an autoencoder alone has no language model; it can be traced and exported".into(),
    )
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
