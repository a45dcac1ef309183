//! The suite: cases, what is on record of them, and a run of it on a device.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Instant;

use burn::tensor::Device;
use calm_lm::NamedDevice;
use serde::Serialize;
use thiserror::Error;

use crate::case::{Case, Check, Part, Work, parse};
use crate::kernels::{self, Sizes};
use crate::outputs::{Outputs, Recorded};
use crate::{models, training};

/// The built-in cases.
const CASES: [(&str, &str); 3] = [
    ("kernels.toml", include_str!("../cases/kernels.toml")),
    ("models.toml", include_str!("../cases/models.toml")),
    ("training.toml", include_str!("../cases/training.toml")),
];

/// What the CPU gave.
const RECORD: &str = include_str!("../cases/recorded.json");

/// What keeps a suite or a case from being run.
#[derive(Debug, Error)]
pub enum Error {
    /// A file of cases that can't be read.
    #[error("{file}: {detail}")]
    Cases {
        /// The file.
        file: String,
        /// What is wrong.
        detail: String,
    },
    /// An operation that the suite does not know.
    #[error("no operation '{0}'")]
    Operation(String),
    /// A size that an operation needs.
    #[error("{operation} needs a size '{size}'")]
    Size {
        /// The operation.
        operation: String,
        /// The size.
        size: &'static str,
    },
    /// A size that an operation does not know.
    #[error("{operation} has no size '{size}'")]
    UnknownSize {
        /// The operation.
        operation: String,
        /// The size.
        size: String,
    },
    /// A training that is over before it moves.
    #[error("moves_after is not below lm.steps: it never moves")]
    NeverMoves,
    /// A check that a part of a model has not.
    #[error("{0:?} has no check {1:?}")]
    NoSuchCheck(Part, Check),
    /// Nothing is on record.
    #[error("nothing is on record for this case")]
    NoRecord,
    /// A prompt that can't be read.
    #[error("{0}")]
    Prompt(String),
    /// Models and checkpoints.
    #[error(transparent)]
    Model(#[from] calm_lm::Error),
    /// Configuration and training.
    #[error(transparent)]
    Train(#[from] calm_train::Error),
    /// A temporary folder.
    #[error("a temporary folder: {0}")]
    Place(std::io::Error),
}

/// Cases with what is on record of them.
#[derive(Clone, Debug)]
pub struct Suite {
    cases: Vec<Case>,
    record: BTreeMap<String, Vec<(String, Recorded)>>,
}

/// How a case ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Within its tolerance.
    Passed,
    /// Beyond it, or not to its end.
    Failed,
}

/// What became of a case.
#[derive(Clone, Debug, Serialize)]
pub struct CaseResult {
    /// Its name.
    pub name: String,
    /// The largest difference, in parts of the largest number of its output; none where there is
    /// nothing to compare.
    pub apart: Option<f64>,
    /// What it may be.
    pub tolerance: f64,
    /// Seconds on the device.
    pub seconds: f64,
    /// How it ended.
    pub status: Status,
    /// The output with the largest difference, or why there is none.
    pub detail: String,
}

impl Suite {
    /// The built-in cases.
    ///
    /// # Errors
    /// Never; where a file of ours is damaged.
    pub fn built_in() -> Result<Self, Error> {
        let mut cases = Vec::new();
        for (name, text) in CASES {
            cases.extend(parse(name, text)?);
        }
        let record = serde_json::from_str(RECORD).map_err(|e| Error::Cases {
            file: "recorded.json".to_owned(),
            detail: e.to_string(),
        })?;
        Ok(Self { cases, record })
    }

    /// The cases of a file, of which nothing is on record: on the CPU, models have nothing to compare
    /// with.
    ///
    /// # Errors
    /// A file that can't be read or holds no cases.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|e| Error::Cases {
            file: file.clone(),
            detail: e.to_string(),
        })?;
        let (cases, record) = (parse(&file, &text)?, BTreeMap::new());
        Ok(Self { cases, record })
    }

    /// The cases whose names hold a word.
    #[must_use]
    pub fn only(mut self, word: &str) -> Self {
        self.cases.retain(|case| case.name.contains(word));
        self
    }

    /// The cases.
    pub fn cases(&self) -> &[Case] {
        &self.cases
    }

    /// Runs all cases on a device. Kernels are held against their plain versions on the CPU, models
    /// against the same on the CPU, or where this is the CPU against what is on record; trainings always
    /// against the record.
    pub fn run(
        &self,
        device: &NamedDevice,
        on_result: &mut dyn FnMut(&CaseResult),
    ) -> Vec<CaseResult> {
        let results = self.cases.iter().map(|case| {
            let begun = Instant::now();
            let found = guarded(|| outputs(case, device));
            let seconds = begun.elapsed().as_secs_f64();
            let compared = found.and_then(|found| guarded(|| self.compare(case, &found, device)));
            let result = match compared {
                Ok((apart, at)) => CaseResult {
                    name: case.name.clone(),
                    apart: Some(apart),
                    tolerance: case.tolerance,
                    seconds,
                    status: match apart <= case.tolerance {
                        true => Status::Passed,
                        false => Status::Failed,
                    },
                    detail: at,
                },
                Err(why) => CaseResult {
                    name: case.name.clone(),
                    apart: None,
                    tolerance: case.tolerance,
                    seconds,
                    status: Status::Failed,
                    detail: why,
                },
            };
            on_result(&result);
            result
        });
        results.collect()
    }

    fn compare(
        &self,
        case: &Case,
        found: &Outputs,
        device: &NamedDevice,
    ) -> Result<(f64, String), Error> {
        let on_record = || {
            let record = self.record.get(&case.name).ok_or(Error::NoRecord)?;
            Ok(found.apart_from_record(record))
        };
        let flex = NamedDevice::open("flex")?;
        match &case.work {
            Work::Kernel { operation, sizes } => {
                let sizes = Sizes::new(operation, sizes);
                Ok(found.apart(&kernels::run(&sizes, &flex.device, true)?))
            }
            Work::Training { .. } => on_record(),
            Work::Model { .. } if device.device == Device::flex() => on_record(),
            Work::Model { .. } => Ok(found.apart(&outputs(case, &flex)?)),
        }
    }

    /// What models and trainings give on the CPU, as `recorded.json` holds it.
    ///
    /// # Errors
    /// Where a case can't be run.
    pub fn record(&self) -> Result<String, Error> {
        let flex = NamedDevice::open("flex")?;
        let mut lines = Vec::new();
        for case in &self.cases {
            if !matches!(case.work, Work::Kernel { .. }) {
                let recorded = outputs(case, &flex)?.record();
                let known = "numbers and names";
                let name = serde_json::to_string(&case.name).expect(known);
                let recorded = serde_json::to_string(&recorded).expect(known);
                lines.push(format!("{name}: {recorded}"));
            }
        }
        Ok(format!("{{\n{}\n}}\n", lines.join(",\n")))
    }
}

/// A case's work on a device.
fn outputs(case: &Case, device: &NamedDevice) -> Result<Outputs, Error> {
    match &case.work {
        Work::Kernel { operation, sizes } => {
            kernels::run(&Sizes::new(operation, sizes), &device.device, false)
        }
        Work::Model { part, check, set } => models::run(*part, *check, set, &device.device),
        Work::Training {
            set,
            baseline,
            moves_after,
        } => training::run(set, *baseline, *moves_after, device),
    }
}

/// An executor that lacks an operation panics: that is a result too.
fn guarded<R>(work: impl FnOnce() -> Result<R, Error>) -> Result<R, String> {
    let line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|e| line(&e.to_string())),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(line(text.unwrap_or("it panicked")))
        }
    }
}
