//! What can go wrong in a repository task.

use std::fmt;
use std::path::PathBuf;

/// Shorthand for this crate's results.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of a repository task; `Display` is one line that says what, where and what to do.
///
/// Written by hand: one derive macro would double the build time of xtask.
#[derive(Debug)]
pub enum Error {
    /// The command line asks for something that does not exist.
    Usage(String),
    /// A program could not be started.
    Spawn {
        /// The program's name.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// A program ended with a non-zero status.
    Failed {
        /// The command line.
        command: String,
        /// Its exit status, 128 + signal where a signal ended it.
        status: u8,
    },
    /// A file or folder could not be read.
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The build ended well but named no binary of the program.
    NoBinary {
        /// The binary's name.
        name: &'static str,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(message) => f.write_str(message),
            Self::Spawn { program, source } => {
                write!(
                    f,
                    "cannot start {program}: {source}; is it installed and on PATH?"
                )
            }
            Self::Failed { command, status } => write!(f, "`{command}` ended with status {status}"),
            Self::Io { path, source } => write!(f, "cannot read {}: {source}", path.display()),
            Self::NoBinary { name } => write!(
                f,
                "cargo built no binary '{name}'; is it still a [[bin]] of its Cargo.toml?"
            ),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Spawn { source, .. } | Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
