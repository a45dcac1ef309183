//! Files that are whole or not there: written beside their place, flushed to disk, renamed.
//!
//! ```
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("figures.json");
//! calm_files::write_atomic(&path, b"{}")?;
//! assert_eq!(std::fs::read(&path)?, b"{}");
//! # Ok::<(), std::io::Error>(())
//! ```

use std::fs::File;
use std::io::{Result, Write};
use std::path::Path;

use tempfile::NamedTempFile;

/// Writes `bytes` to `path`: a reader sees the old file or the new one, never a part.
///
/// # Errors
/// When any step fails; the old file is then untouched, and no temporary is left.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = beside(path)?;
    file.write_all(bytes)?;
    persist(file, path)
}

/// A temporary file in the directory of `path`, to be written and then [`persist`]ed there; dropped
/// before that, it is removed.
///
/// # Errors
/// Where it can't be created.
pub fn beside(path: &Path) -> Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    // The default of 0600 is for secrets; what is made here is an ordinary file, subject to the
    // umask.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.prefix(".writing-").tempfile_in(parent(path))
}

/// Flushes a finished temporary file to disk and gives it its name.
///
/// # Errors
/// When any step fails.
pub fn persist(file: NamedTempFile, path: &Path) -> Result<()> {
    file.as_file().sync_all()?;
    file.persist(path)?;
    sync_directory(parent(path))
}

/// Makes the renames in `directory` durable.
///
/// # Errors
/// Where it can't be opened or flushed.
pub fn sync_directory(directory: &Path) -> Result<()> {
    // Elsewhere a directory can't be opened as a file, and the rename is durable without it.
    if cfg!(unix) {
        File::open(directory)?.sync_all()?;
    }
    Ok(())
}

/// The directory that holds `path` ("." for a bare file name).
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_nothing_is_left_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        write_atomic(&path, b"first, longer").unwrap();
        write_atomic(&path, b"second").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"second");
        drop(beside(&path).unwrap());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn a_file_is_as_readable_as_any_other() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let mode = |name: &str| {
            let metadata = std::fs::metadata(directory.path().join(name)).unwrap();
            metadata.permissions().mode()
        };
        std::fs::write(directory.path().join("plain"), "x").unwrap();
        write_atomic(&directory.path().join("atomic"), b"x").unwrap();
        assert_eq!(mode("atomic"), mode("plain"));
    }

    #[test]
    fn a_missing_directory_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("no/such");
        assert!(write_atomic(&path, b"x").is_err());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
