//! Whole files: atomic writing, and JSON records read back with file and line in the error.

use std::fs;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Error, Result};

/// Writes `bytes` to `path`, whole or not at all ([`calm_files::write_atomic`]).
///
/// # Errors
/// [`Error::Io`] when any step fails; the old file is then untouched.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    calm_files::write_atomic(path, bytes).map_err(Error::io("write", path))
}

/// Reads one JSON record.
pub(crate) fn load_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = fs::read(path).map_err(Error::io("read", path))?;
    serde_json::from_slice(&bytes).map_err(|e| Error::json::<T>(path, e.line().max(1), &e))
}

/// Writes one JSON record, indented, atomically.
pub(crate) fn save_json<T: Serialize>(path: &Path, record: &T) -> Result<()> {
    let mut bytes = serde_json::to_vec_pretty(record).map_err(|e| Error::Encode {
        path: path.to_path_buf(),
        reason: e.to_string(),
    })?;
    bytes.push(b'\n');
    write_atomic(path, &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_directory_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = write_atomic(&dir.path().join("no/such/file.json"), b"x").unwrap_err();
        assert!(error.to_string().contains("no/such/file.json"), "{error}");
    }
}
