//! `run.json`: what it takes to say which program, on which machine, produced a run.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::file::{load_json, save_json};

/// The machine that a run was made on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Hardware threads that the process may use.
    pub cpus: usize,
    /// Physical memory in bytes, where the system tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Operating system, as Rust names it ("linux", "macos", "windows").
    pub os: String,
    /// Processor architecture, as Rust names it ("x86_64", "aarch64").
    pub arch: String,
}

impl Host {
    /// Asks the operating system. What it does not tell is left out, never guessed.
    pub fn detect() -> Self {
        Self {
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: std::fs::read_to_string("/proc/meminfo")
                .ok()
                .and_then(|text| total_memory(&text)),
            os: std::env::consts::OS.to_owned(),
            arch: std::env::consts::ARCH.to_owned(),
        }
    }
}

/// Total memory in bytes from the text of Linux's `/proc/meminfo`, which counts in KiB.
fn total_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Contents of `run.json`, written before step 0 and where a resumed run has moved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunInfo {
    /// Commit that the binary was built from, where it is known.
    pub git_revision: Option<String>,
    /// Whether the working tree held changes that the commit lacks.
    pub dirty: Option<bool>,
    /// Version line of the compiler.
    pub rustc: Option<String>,
    /// Version of Burn.
    pub burn: String,
    /// The string given to `--device`.
    pub device: String,
    /// What that device turned out to be (adapter, driver).
    pub device_identity: String,
    /// How matrix products of training were rounded; "bf16, then f32" where a run has moved.
    pub precision: String,
    /// Seed of every random choice.
    pub seed: u64,
    /// The command line, program first.
    pub argv: Vec<String>,
    /// Start in UTC, RFC 3339 (see [`crate::utc_now`]).
    pub started: String,
    /// The machine.
    pub host: Host,
}

impl RunInfo {
    /// Reads `run.json`.
    ///
    /// # Errors
    /// [`crate::Error::Io`] and, with file and line, [`crate::Error::Json`].
    pub fn load(path: &Path) -> Result<Self> {
        load_json(path)
    }

    /// Writes `run.json` atomically.
    ///
    /// # Errors
    /// [`crate::Error::Io`].
    pub fn save(&self, path: &Path) -> Result<()> {
        save_json(path, self)
    }

    /// The command line as it can be pasted into a POSIX shell.
    pub fn command(&self) -> String {
        self.argv
            .iter()
            .map(|word| shell_quote(word))
            .collect::<Vec<_>>()
            .join(" ")
    }
}

fn shell_quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    #[test]
    fn round_trip() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.json");
        let run = RunInfo {
            git_revision: None,
            dirty: Some(true),
            seed: u64::MAX,
            argv: vec!["calm".into(), "train".into()],
            host: Host::detect(),
            ..RunInfo::default()
        };
        run.save(&path).unwrap();
        assert_eq!(RunInfo::load(&path).unwrap(), run);
    }

    #[test]
    fn a_corrupt_record_names_file_and_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.json");
        std::fs::write(
            &path,
            "{\n  \"burn\": \"0.22.1\",\n  \"seed\": \"seven\"\n}\n",
        )
        .unwrap();
        let error = RunInfo::load(&path).unwrap_err();
        assert!(matches!(error, Error::Json { line: 3, .. }), "{error}");
        assert!(
            error
                .to_string()
                .contains("run.json:3: not a valid RunInfo record"),
            "{error}"
        );
        assert!(!error.to_string().contains("at line"), "{error}");
    }

    #[test]
    fn the_command_can_be_pasted() {
        let argv = ["calm", "--set", "optim.lr=3e-4", "--out", "it's here", ""];
        let run = RunInfo {
            argv: argv.map(String::from).to_vec(),
            ..RunInfo::default()
        };
        assert_eq!(
            run.command(),
            r"calm --set optim.lr=3e-4 --out 'it'\''s here' ''"
        );
    }

    #[test]
    fn memory_is_read_in_bytes_or_left_out() {
        assert_eq!(
            total_memory("MemTotal:       16 kB\nMemFree: 1 kB\n"),
            Some(16 * 1024)
        );
        assert_eq!(total_memory("MemFree: 1 kB\n"), None);
        assert_eq!(total_memory("MemTotal: many\n"), None);
    }
}
