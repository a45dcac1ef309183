//! The layout of a run directory: one format for training, evaluation, generation and import.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{Error, Result, Stage};

/// A run directory. It only knows where things lie; each record reads and writes itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunDir {
    /// The directory itself.
    pub root: PathBuf,
}

impl RunDir {
    /// Makes the directory and its folders for a new run.
    ///
    /// # Errors
    /// [`Error::RunExists`] when it already holds one, and [`Error::Io`].
    pub fn create(root: impl Into<PathBuf>) -> Result<Self> {
        let run = Self { root: root.into() };
        if run.holds_run() {
            return Err(Error::RunExists { root: run.root });
        }
        for directory in [run.samples(), run.eval(), run.root.join("checkpoints")] {
            fs::create_dir_all(&directory).map_err(Error::io("create", &directory))?;
        }
        Ok(run)
    }

    /// Opens the directory of an existing run.
    ///
    /// # Errors
    /// [`Error::NoRun`] when it holds none.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self> {
        let run = Self { root: root.into() };
        if run.holds_run() {
            Ok(run)
        } else {
            Err(Error::NoRun { root: run.root })
        }
    }

    fn holds_run(&self) -> bool {
        self.config().exists()
    }

    /// Last component of the path, resolved where it is `.` or the like: the name of the run.
    pub fn name(&self) -> String {
        let resolved = fs::canonicalize(&self.root).unwrap_or_else(|_| self.root.clone());
        let name = resolved.file_name().unwrap_or(resolved.as_os_str());
        name.to_string_lossy().into_owned()
    }

    /// `config.toml`: the resolved configuration.
    pub fn config(&self) -> PathBuf {
        self.root.join("config.toml")
    }

    /// `run.json`: a [`crate::RunInfo`].
    pub fn run(&self) -> PathBuf {
        self.root.join("run.json")
    }

    /// `tokenizer.json`.
    pub fn tokenizer(&self) -> PathBuf {
        self.root.join("tokenizer.json")
    }

    /// `metrics.jsonl`: a [`crate::MetricRow`] per logged step.
    pub fn metrics(&self) -> PathBuf {
        self.root.join("metrics.jsonl")
    }

    /// `summary.json`: a [`crate::Summary`].
    pub fn summary(&self) -> PathBuf {
        self.root.join("summary.json")
    }

    /// `lock`: held by the process that trains in the directory.
    pub fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// `samples/`: a [`crate::SampleText`] per file.
    pub fn samples(&self) -> PathBuf {
        self.root.join("samples")
    }

    /// `eval/`.
    pub fn eval(&self) -> PathBuf {
        self.root.join("eval")
    }

    /// `eval/history.jsonl`: a [`crate::EvalPoint`] per evaluation during training.
    pub fn eval_history(&self) -> PathBuf {
        self.eval().join("history.jsonl")
    }

    /// `checkpoints/<stage>/`.
    pub fn checkpoints(&self, stage: Stage) -> PathBuf {
        self.root.join("checkpoints").join(stage.name())
    }

    /// `checkpoints/<stage>/step-000500/`, wide enough that names sort like numbers up to a
    /// million steps.
    pub fn checkpoint(&self, stage: Stage, step: u64) -> PathBuf {
        self.checkpoints(stage).join(format!("step-{step:06}"))
    }

    /// `checkpoints/<stage>/latest`: names the newest complete checkpoint.
    pub fn latest(&self, stage: Stage) -> PathBuf {
        self.checkpoints(stage).join("latest")
    }

    /// `tensorboard/<stage>/`: event files, see [`crate::EventWriter`].
    pub fn tensorboard(&self, stage: Stage) -> PathBuf {
        self.root.join("tensorboard").join(stage.name())
    }

    /// `report.html`.
    pub fn report(&self) -> PathBuf {
        self.root.join("report.html")
    }
}

impl AsRef<Path> for RunDir {
    fn as_ref(&self) -> &Path {
        &self.root
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_used_once() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("runs/first");
        let error = RunDir::open(&root).unwrap_err();
        assert!(matches!(error, Error::NoRun { .. }), "{error}");
        assert!(
            error.to_string().contains("runs/first holds no run"),
            "{error}"
        );

        let run = RunDir::create(&root).unwrap();
        // Nothing of a run is in it yet: a crash right here must not block the directory.
        RunDir::create(&root).unwrap();
        assert!(matches!(RunDir::open(&root), Err(Error::NoRun { .. })));

        // The configuration is written last: with less there is nothing to resume.
        fs::write(run.run(), "x").unwrap();
        RunDir::create(&root).unwrap();
        fs::write(run.config(), "x").unwrap();
        assert_eq!(RunDir::open(&root).unwrap(), run);
        let error = RunDir::create(&root).unwrap_err();
        assert!(error.to_string().contains("--resume"), "{error}");
    }

    #[test]
    fn a_file_in_the_way_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(RunDir::create(file.path()), Err(Error::Io { .. })));
    }

    #[test]
    fn paths_follow_the_format() {
        let run = RunDir { root: "r".into() };
        for (path, expected) in [
            (run.config(), "r/config.toml"),
            (run.run(), "r/run.json"),
            (run.tokenizer(), "r/tokenizer.json"),
            (run.metrics(), "r/metrics.jsonl"),
            (run.summary(), "r/summary.json"),
            (run.samples(), "r/samples"),
            (run.eval_history(), "r/eval/history.jsonl"),
            (
                run.checkpoint(Stage::Lm, 500),
                "r/checkpoints/lm/step-000500",
            ),
            (
                run.latest(Stage::Autoencoder),
                "r/checkpoints/autoencoder/latest",
            ),
            (run.report(), "r/report.html"),
        ] {
            assert_eq!(path, Path::new(expected));
        }
        assert_eq!(run.name(), "r");
    }
}
