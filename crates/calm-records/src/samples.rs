//! `samples/*.json`: generated text with what it took to generate it.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::file::{load_json, save_json};
use crate::{Error, Result};

/// One generated text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SampleText {
    /// Temperature that was asked for.
    pub temperature: f64,
    /// How the temperature was reached, in words, where it matters ("growing pools of at most 200 draws").
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampler: Option<String>,
    /// The text that the model was given; may be empty.
    pub prompt: String,
    /// The continuation, without the prompt.
    pub text: String,
    /// Tokens in the continuation.
    pub tokens: u64,
    /// Seed of the draws.
    pub seed: u64,
    /// Wall-clock seconds that the continuation took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
}

impl SampleText {
    /// Reads one sample.
    ///
    /// # Errors
    /// [`Error::Io`] and, with file and line, [`Error::Json`].
    pub fn load(path: &Path) -> Result<Self> {
        load_json(path)
    }

    /// Writes one sample atomically.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&self, path: &Path) -> Result<()> {
        save_json(path, self)
    }
}

/// Reads every `*.json` of a directory in the order of the file names. A directory that does not
/// exist holds no samples.
///
/// # Errors
/// [`Error::Io`] and, with file and line, [`Error::Json`].
pub fn load_samples(directory: &Path) -> Result<Vec<SampleText>> {
    let entries = match fs::read_dir(directory) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(Error::io("read", directory))?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(Error::io("read", directory))?.path();
        if path.extension() == Some(OsStr::new("json")) {
            paths.push(path);
        }
    }
    paths.sort();
    paths.iter().map(|path| SampleText::load(path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examples::sample;

    #[test]
    fn samples_come_back_in_name_order_and_other_files_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        sample(0.5, "b\n\"quoted\"")
            .save(&dir.path().join("b.json"))
            .unwrap();
        sample(1.0, "a").save(&dir.path().join("a.json")).unwrap();
        fs::write(dir.path().join("notes.txt"), "not json").unwrap();
        let all = load_samples(dir.path()).unwrap();
        assert_eq!(all, [sample(1.0, "a"), sample(0.5, "b\n\"quoted\"")]);
    }

    #[test]
    fn no_directory_means_no_samples_but_a_bad_file_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load_samples(&dir.path().join("samples")).unwrap(), []);
        fs::write(dir.path().join("t.json"), "{\"temperature\": 1.0}").unwrap();
        let error = load_samples(dir.path()).unwrap_err().to_string();
        assert!(
            error.contains("t.json:1:") && error.contains("prompt"),
            "{error}"
        );
    }
}
