//! Loop state, and the checkpoints of a stage.

use std::path::{Path, PathBuf};

use calm_baseline::TokenModelConfig;
use calm_data::Cursor;
use calm_lm::{CheckpointConfig, CheckpointOf, ModelConfig, check_tokenizer};
use calm_records::{RunDir, Stage, write_atomic};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Name of the loop state in a checkpoint.
pub(crate) const STATE: &str = "state.json";
/// Name of the optimizer state in a checkpoint.
pub(crate) const OPTIM: &str = "optim.bpk";

/// Everything beside the weights and the optimizer that a stage needs to go on exactly.
///
/// Random draws need no state: those of a step come from `(seed, stage, step)`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainState {
    /// The stage.
    pub stage: Stage,
    /// Steps done.
    pub step: u64,
    /// Tokens read in this stage.
    pub tokens: u64,
    /// FLOPs spent in this stage, by the counting rule of `Cost`.
    pub flops: f64,
    /// Seconds spent in steps of this stage.
    pub seconds: f64,
    /// Identifies the token streams: corpus, tokenizer, split.
    pub text: String,
    /// Where the text goes on.
    pub cursor: Cursor,
    /// Tokens of the stages before this one.
    pub earlier_tokens: u64,
    /// FLOPs of the stages before this one.
    pub earlier_flops: f64,
    /// Wall-clock seconds of the run up to here, all stages and sessions.
    pub wall_seconds: f64,
    /// Largest resident memory seen so far, bytes.
    pub peak_rss_bytes: Option<u64>,
}

impl TrainState {
    /// The state that a checkpoint was saved with.
    ///
    /// # Errors
    /// A checkpoint that lacks it or holds a damaged one.
    pub fn of<C: CheckpointConfig>(checkpoint: &CheckpointOf<C>) -> Result<Self> {
        Ok(checkpoint.read_json(STATE)?)
    }

    /// The start of `stage`.
    pub(crate) fn start(stage: Stage, seed: u64, text: &str) -> Self {
        Self {
            stage,
            step: 0,
            tokens: 0,
            flops: 0.0,
            seconds: 0.0,
            text: text.to_owned(),
            cursor: Cursor::new(seed),
            earlier_tokens: 0,
            earlier_flops: 0.0,
            wall_seconds: 0.0,
            peak_rss_bytes: None,
        }
    }
}

/// The newest valid checkpoint of a stage.
#[derive(Debug)]
pub struct Newest<C> {
    /// The checkpoint.
    pub checkpoint: CheckpointOf<C>,
    /// What is wrong with those that should have come before it.
    pub passed_over: Vec<calm_lm::Error>,
}

/// The newest valid checkpoint of a stage, if the stage has any. One that `latest` names and that is
/// gone is passed over like a damaged one; where it names an older one, a trainer ended between a
/// checkpoint and the line that names it.
///
/// # Errors
/// Where there are some and none is valid.
pub(crate) fn newest<C: CheckpointConfig>(run: &RunDir, stage: Stage) -> Result<Option<Newest<C>>> {
    let directory = run.checkpoints(stage);
    let named = std::fs::read_to_string(run.latest(stage)).ok();
    let mut candidates = step_directories(&directory)?;
    candidates.extend(named.map(|name| directory.join(name.trim())));
    candidates.sort_by_key(|path| (step_of(path), path.clone()));
    candidates.dedup();

    let mut passed_over = Vec::new();
    for path in candidates.iter().rev() {
        match CheckpointOf::open(path) {
            Ok(checkpoint) => {
                return Ok(Some(Newest {
                    checkpoint,
                    passed_over,
                }));
            }
            Err(error) => passed_over.push(error),
        }
    }
    match passed_over.into_iter().next() {
        None => Ok(None),
        Some(error) => Err(Error::NoValidCheckpoint {
            stage: directory,
            newest: Box::new(error),
        }),
    }
}

/// The newest valid language-model checkpoint of a run, whose tokenizer must be the run's.
///
/// # Errors
/// No such checkpoint yet, none that is valid, another tokenizer in the run directory.
pub fn language_model_checkpoint(run: &RunDir) -> Result<Newest<ModelConfig>> {
    of_run(run, Stage::Lm)
}

/// The newest valid token-baseline checkpoint of a run, whose tokenizer must be the run's.
///
/// # Errors
/// As [`language_model_checkpoint`].
pub fn baseline_checkpoint(run: &RunDir) -> Result<Newest<TokenModelConfig>> {
    of_run(run, Stage::Baseline)
}

fn of_run<C: CheckpointConfig>(run: &RunDir, stage: Stage) -> Result<Newest<C>> {
    let Some(newest) = newest::<C>(run, stage)? else {
        let missing = format!("checkpoints/{}/latest", stage.name());
        let path = run.root.clone();
        return Err(calm_lm::Error::NoCheckpoint { path, missing }.into());
    };
    let fingerprint = newest.checkpoint.tokenizer()?.fingerprint();
    check_tokenizer(&run.tokenizer(), fingerprint)?;
    Ok(newest)
}

/// Points `latest` at the checkpoint of `step`, the next after that of `before`, and removes all
/// but the newest `keep`, what an interrupted write left behind, and steps that the run went back
/// from because they were damaged.
pub(crate) fn publish(
    run: &RunDir,
    stage: Stage,
    before: Option<u64>,
    step: u64,
    keep: usize,
) -> Result<()> {
    let newest = run.checkpoint(stage, step);
    let name = file_name(&newest);
    write_atomic(&run.latest(stage), format!("{name}\n").as_bytes())?;
    let directory = run.checkpoints(stage);
    let mut steps = step_directories(&directory)?;
    steps.sort_by_key(|path| step_of(path));
    let (kept, undone): (Vec<_>, Vec<_>) = steps.into_iter().partition(|path| {
        *path == newest || before.is_some_and(|last| step_of(path) <= Some(last))
    });
    let surplus = kept.len().saturating_sub(keep);
    let half_written = half_written(&directory)?;
    for path in kept[..surplus].iter().chain(&undone) {
        // Under its own name a checkpoint is whole, whenever the trainer ends.
        let aside = directory.join(format!("{HALF}removed-{}", file_name(path)));
        std::fs::rename(path, &aside).map_err(Error::io(path))?;
        std::fs::remove_dir_all(&aside).map_err(Error::io(&aside))?;
    }
    for path in &half_written {
        std::fs::remove_dir_all(path).map_err(Error::io(path))?;
    }
    Ok(())
}

/// The checkpoint directories of a stage, `step-000500` and the like.
fn step_directories(directory: &Path) -> Result<Vec<PathBuf>> {
    directories(directory, |name| {
        name.starts_with("step-") && !name.contains('.')
    })
}

/// The step that a checkpoint's name holds: names are as wide as six digits, and wider where they must.
fn step_of(path: &Path) -> Option<u64> {
    file_name(path).strip_prefix("step-")?.parse().ok()
}

/// How the names of what is written, or removed, begin.
const HALF: &str = ".writing-";

/// What an interruption left behind.
fn half_written(directory: &Path) -> Result<Vec<PathBuf>> {
    directories(directory, |name| {
        name.starts_with(HALF) || name.ends_with(".old")
    })
}

fn directories(parent: &Path, is_wanted: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    if !parent.is_dir() {
        return Ok(found);
    }
    for entry in std::fs::read_dir(parent).map_err(Error::io(parent))? {
        let path = entry.map_err(Error::io(parent))?.path();
        if path.is_dir() && is_wanted(&file_name(&path)) {
            found.push(path);
        }
    }
    Ok(found)
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}
