//! The program as users meet it: bad input, signals, the commands after a run.

mod bad_input;
mod commands;
mod compare;
mod cost;
mod devices;
mod released;
mod signals;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A place for one test, with a text, an empty cache and `--set` values for a run of seconds.
pub(crate) struct Place(tempfile::TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        let mut text = String::new();
        for i in 0..600u32 {
            let word = ["river", "stone", "house", "morning", "song"][(i * i % 5) as usize];
            text.push_str(&format!(
                "The {word} of day {i} walks under the grey sky and sings. "
            ));
            if i % 10 == 9 {
                text.push_str("\n\n");
            }
        }
        std::fs::write(place.path("text.txt"), text).unwrap();
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// `calm` with this place's cache, in this place.
    pub(crate) fn calm(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_calm"));
        command
            .args(args)
            .current_dir(self.0.path())
            .env("CALM_CACHE", self.path("cache"));
        command
    }

    /// `calm train` on the text, `out` as its run directory.
    pub(crate) fn train(&self, out: &str) -> Command {
        let mut command = self.calm(&["train", "--preset", "debug", "--corpus", "text.txt"]);
        command.args(["--out", out, "--set"]).args([
            "data.validation_fraction=0.15",
            "data.test_fraction=0.15",
            "model.vocab_size=300",
            "model.window=16",
            "model.autoencoder.hidden_size=16",
            "model.backbone.hidden_size=16",
            "autoencoder.steps=40",
            "autoencoder.log_every=1",
            "autoencoder.checkpoint_every=4",
            "autoencoder.batch_windows=64",
            "lm.steps=40",
            "lm.log_every=1",
            "lm.checkpoint_every=4",
            "lm.batch_windows=32",
            "baseline.transformer.hidden_size=16",
            "baseline.training.steps=20",
            "samples.tokens=6",
            "samples.prompts=[\"The\"]",
        ]);
        command
    }
}

/// The one line of an expected failure: status 1, nothing but `error: ..` last on stderr, no
/// panic.
pub(crate) fn failure(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        !stderr.contains("panicked") && !stderr.contains("RUST_BACKTRACE"),
        "{stderr}"
    );
    let errors: Vec<&str> = stderr
        .lines()
        .filter(|line| line.starts_with("error:"))
        .collect();
    assert_eq!(errors.len(), 1, "{stderr}");
    assert_eq!(stderr.lines().last(), errors.first().copied(), "{stderr}");
    errors[0].to_owned()
}

pub(crate) fn success(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The logged losses of a run as text, digit for digit.
pub(crate) fn losses(run: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    text.lines()
        .map(|line| {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            format!(
                "{} {} {} {}",
                row["stage"], row["step"], row["loss"], row["grad_norm"]
            )
        })
        .collect()
}
