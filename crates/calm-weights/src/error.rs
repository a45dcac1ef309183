//! What can be wrong with a tensor file.

use std::path::PathBuf;

use thiserror::Error;

/// What can be wrong with tensor files.
#[derive(Debug, Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A directory without tensor files.
    #[error("{}: no weights here; looked for {expected}", path.display())]
    NoWeights {
        /// The directory.
        path: PathBuf,
        /// The names that were looked for.
        expected: String,
    },
    /// A file that is not what its name says, cut short, or made to mislead.
    #[error("{}: {detail}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// Numbers of another kind than what they are wanted for.
    #[error("{}: tensor {name} is {dtype}, wanted is {wanted}", path.display())]
    WrongDtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// What it holds.
        dtype: String,
        /// What would do.
        wanted: &'static str,
    },
}

impl Error {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }

    pub(crate) fn malformed(path: impl Into<PathBuf>, detail: impl ToString) -> Self {
        let (path, detail) = (path.into(), printable(&detail.to_string()));
        Self::Malformed { path, detail }
    }
}

/// Words from a file, in one line of bounded length, without what a terminal would obey: a file can put
/// anything into its names.
pub fn printable(words: &str) -> String {
    const LONGEST: usize = 400;
    let plain = |c: char| match c.is_control() {
        true => ' ',
        false => c,
    };
    let mut line: String = words.chars().map(plain).take(LONGEST).collect();
    if words.chars().nth(LONGEST).is_some() {
        line.push_str("..");
    }
    line
}

/// Result with this crate's [`enum@Error`].
pub type Result<T> = std::result::Result<T, Error>;
