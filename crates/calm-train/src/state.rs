//! Loop state, and the checkpoints of a stage.

use std::path::{Path, PathBuf};

use calm_data::Cursor;
use calm_lm::{BaselineCheckpoint, Checkpoint, CheckpointConfig, CheckpointOf, check_tokenizer};
use calm_report::{RunDir, Stage, write_atomic};
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

/// The newest checkpoint of a stage, if there is one.
pub(crate) fn latest<C: CheckpointConfig>(
    run: &RunDir,
    stage: Stage,
) -> Result<Option<CheckpointOf<C>>> {
    let pointer = run.latest(stage);
    if !pointer.is_file() {
        return Ok(None);
    }
    let name = std::fs::read_to_string(&pointer).map_err(Error::io(&pointer))?;
    Ok(Some(CheckpointOf::open(
        &run.checkpoints(stage).join(name.trim()),
    )?))
}

/// The newest language-model checkpoint of a run, whose tokenizer must be the run's.
///
/// # Errors
/// No such checkpoint yet, a damaged one, another tokenizer in the run directory.
pub fn language_model_checkpoint(run: &RunDir) -> Result<Checkpoint> {
    newest(run, Stage::Lm)
}

/// The newest token-baseline checkpoint of a run, whose tokenizer must be the run's.
///
/// # Errors
/// As [`language_model_checkpoint`].
pub fn baseline_checkpoint(run: &RunDir) -> Result<BaselineCheckpoint> {
    newest(run, Stage::Baseline)
}

fn newest<C: CheckpointConfig>(run: &RunDir, stage: Stage) -> Result<CheckpointOf<C>> {
    let Some(checkpoint) = latest::<C>(run, stage)? else {
        let missing = format!("checkpoints/{}/latest", stage.name());
        let path = run.root.clone();
        return Err(calm_lm::Error::NoCheckpoint { path, missing }.into());
    };
    check_tokenizer(&run.tokenizer(), checkpoint.tokenizer().fingerprint())?;
    Ok(checkpoint)
}

/// Points `latest` at the checkpoint of `step` and removes all but the newest `keep`.
pub(crate) fn publish(run: &RunDir, stage: Stage, step: u64, keep: usize) -> Result<()> {
    let name = file_name(&run.checkpoint(stage, step));
    write_atomic(&run.latest(stage), format!("{name}\n").as_bytes())?;
    let mut steps = checkpoints(&run.checkpoints(stage))?;
    steps.sort();
    let surplus = steps.len().saturating_sub(keep);
    for old in &steps[..surplus] {
        if file_name(old) != name {
            std::fs::remove_dir_all(old).map_err(Error::io(old))?;
        }
    }
    Ok(())
}

/// The checkpoint directories of a stage. What an interrupted write left behind is removed.
fn checkpoints(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(Error::io(directory))? {
        let path = entry.map_err(Error::io(directory))?.path();
        let name = file_name(&path);
        if name.starts_with(".writing-") || name.ends_with(".old") {
            std::fs::remove_dir_all(&path).map_err(Error::io(&path))?;
        } else if path.is_dir() && name.starts_with("step-") && !name.contains('.') {
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
