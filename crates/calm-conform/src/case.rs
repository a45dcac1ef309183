//! Cases as they stand in files.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::Error;

/// What is computed, and how far a device may be from what is expected.
#[derive(Clone, Debug, Deserialize)]
pub struct Case {
    /// Its name, as in the table.
    pub name: String,
    /// Largest difference, in parts of an output's largest number.
    pub tolerance: f64,
    /// The work.
    #[serde(flatten)]
    pub work: Work,
}

/// The kinds of work.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Work {
    /// An operation of calm-kernels: values and gradients of all inputs, against its plain version on
    /// the CPU.
    Kernel {
        /// Which.
        operation: String,
        /// Its sizes by name.
        sizes: BTreeMap<String, usize>,
    },
    /// A model with weights of a seed, against the same on the CPU, and what was recorded there.
    Model {
        /// Which part of it.
        part: Part,
        /// What is looked at.
        check: Check,
        /// Changes of preset `debug`.
        #[serde(default)]
        set: Vec<String>,
    },
    /// A short run of all stages, whose losses are on record.
    Training {
        /// Changes of preset `debug`.
        #[serde(default)]
        set: Vec<String>,
        /// The token model, too.
        #[serde(default)]
        baseline: bool,
        /// The language model begins on the CPU and goes on on the device after so many steps.
        #[serde(default)]
        moves_after: Option<u64>,
    },
}

/// Parts of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// The chunk autoencoder.
    Autoencoder,
    /// Backbone and head on an autoencoder.
    Calm,
    /// Backbone and local decoder.
    Local,
    /// The token model.
    Token,
}

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// Outputs without autodiff.
    Forward,
    /// The training loss and the gradients of all parameters.
    Gradients,
    /// A text by recorded draws.
    Text,
    /// Outputs of a model that was made on the other device and moved, both ways.
    Move,
    /// A checkpoint that one device wrote and another reads, both ways.
    Checkpoint,
    /// A checkpoint whose weights are rounded to bf16, and to 8 bits, at loading.
    ShortWeights,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    case: Vec<Case>,
}

/// The cases of a file.
pub(crate) fn parse(name: &str, text: &str) -> Result<Vec<Case>, Error> {
    let file: File = toml::from_str(text).map_err(|e| Error::Cases {
        file: name.to_owned(),
        detail: e.to_string().trim_end().replace('\n', " "),
    })?;
    Ok(file.case)
}
