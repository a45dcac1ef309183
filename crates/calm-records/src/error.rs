//! The one error type of this crate.

use std::io;
use std::path::{Path, PathBuf};

/// What can go wrong with the records of a run. Each variant prints as one line: what, where, and
/// what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused a file operation.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was attempted, as a verb ("read", "write", "create").
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A record is not the JSON that was expected.
    #[error(
        "{}:{line}: not a valid {record} record ({reason}); restore the file from a copy or \
         remove it",
        path.display()
    )]
    Json {
        /// The file.
        path: PathBuf,
        /// One-based line number.
        line: usize,
        /// What kind of record was expected.
        record: &'static str,
        /// The parser's complaint.
        reason: String,
    },
    /// A line-by-line file ends in the middle of a line: the writer was interrupted.
    #[error(
        "{}:{line}: the last line is incomplete (the writer was interrupted); resume the run, \
         which cuts it off, or delete that line",
        path.display()
    )]
    TornLine {
        /// The file.
        path: PathBuf,
        /// One-based number of the incomplete line.
        line: usize,
    },
    /// A record cannot be written as JSON.
    #[error("cannot encode the record for {}: {reason}", path.display())]
    Encode {
        /// The file it was meant for.
        path: PathBuf,
        /// The encoder's complaint.
        reason: String,
    },
    /// `summary.json` was written in a format that this version does not read.
    #[error(
        "{}: summary schema {found}, this version reads schema {expected}; use the version \
         that wrote it or evaluate the run again",
        path.display()
    )]
    Schema {
        /// The file.
        path: PathBuf,
        /// The schema number in the file.
        found: u32,
        /// The schema number of this version.
        expected: u32,
    },
    /// A new run was to be written where one already lies.
    #[error(
        "{} already holds a run; continue it with --resume or choose another directory with --out",
        root.display()
    )]
    RunExists {
        /// The directory.
        root: PathBuf,
    },
    /// A run was to be read where none lies.
    #[error(
        "{} holds no run (config.toml is not there); check the path, or start a \
         run there without --resume",
        root.display()
    )]
    NoRun {
        /// The directory.
        root: PathBuf,
    },
}

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Wraps an I/O error with what was attempted and where: for `map_err`.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            action,
            path: path.to_path_buf(),
            source,
        }
    }

    /// Wraps a JSON error found on `line`, whose own position suffix is dropped.
    pub(crate) fn json<T>(path: &Path, line: usize, error: &serde_json::Error) -> Self {
        let text = error.to_string();
        let reason = text.split(" at line ").next().unwrap_or(&text).to_owned();
        let record = std::any::type_name::<T>()
            .rsplit("::")
            .next()
            .unwrap_or("JSON");
        Self::Json {
            path: path.to_path_buf(),
            line,
            record,
            reason,
        }
    }
}
