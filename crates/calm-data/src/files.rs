//! Checksums and atomic writes: what every file of the cache goes through.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use crate::error::{Error, Result};

/// Lower-case hexadecimal of `bytes`.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(2 * bytes.len()), |mut out, byte| {
            // Writing to a String cannot fail.
            let _ = write!(out, "{byte:02x}");
            out
        })
}

/// sha256 of a file's bytes as 64 hexadecimal digits, read in blocks.
///
/// # Errors
/// [`Error::Io`] where the file cannot be opened or read.
pub fn sha256_file(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(Error::io("open", path))?;
    hash_reader(&mut file, &mut io::sink(), &mut |_| ()).map_err(Error::io("read", path))
}

/// Copies `reader` to `writer`, calling `on_bytes` with the bytes so far; returns the sha256 in hex.
pub(crate) fn hash_reader(
    reader: &mut dyn Read,
    writer: &mut dyn Write,
    on_bytes: &mut dyn FnMut(u64),
) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut block = vec![0; 1 << 17];
    let mut total = 0;
    loop {
        let n = match reader.read(&mut block) {
            Ok(0) => return Ok(hex(&hasher.finalize())),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        hasher.update(&block[..n]);
        writer.write_all(&block[..n])?;
        total += n as u64;
        on_bytes(total);
    }
}

/// The directory that holds `path` ("." for a bare file name).
pub(crate) fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Writes `bytes` to `path` so that the file is either the old one or complete.
///
/// # Errors
/// [`Error::Io`]; nothing is left behind then.
pub(crate) fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut temporary =
        NamedTempFile::new_in(parent_of(path)).map_err(Error::io("create a file beside", path))?;
    temporary
        .write_all(bytes)
        .map_err(Error::io("write", path))?;
    persist(temporary, path)
}

/// Makes a finished temporary file durable under its final name: fsync, rename, fsync of the
/// directory.
pub(crate) fn persist(temporary: NamedTempFile, path: &Path) -> Result<()> {
    // A temporary file is private to its owner; a result is as readable as any other file.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::Permissions::from_mode(0o644);
        temporary
            .as_file()
            .set_permissions(mode)
            .map_err(Error::io("write", path))?;
    }
    temporary
        .as_file()
        .sync_all()
        .map_err(Error::io("write", path))?;
    temporary
        .persist(path)
        .map_err(|e| Error::io("write", path)(e.error))?;
    sync_directory(parent_of(path))
}

/// Makes a rename in `directory` durable (a directory cannot be synced on every system).
fn sync_directory(directory: &Path) -> Result<()> {
    if cfg!(unix) {
        let handle = File::open(directory).map_err(Error::io("open", directory))?;
        handle.sync_all().map_err(Error::io("sync", directory))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sha256_of_a_file_matches_the_standard_vector() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("abc");
        write_atomic(&path, b"abc").unwrap();
        assert_eq!(
            sha256_file(&path).unwrap(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn atomic_write_replaces_and_leaves_one_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        write_atomic(&path, b"first, longer").unwrap();
        write_atomic(&path, b"second").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"second");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn atomic_write_into_a_missing_directory_names_the_path() {
        let directory = tempfile::tempdir().unwrap();
        let error = write_atomic(&directory.path().join("no/such"), b"x").unwrap_err();
        assert!(
            matches!(&error, Error::Io { path, .. } if path.ends_with("no/such")),
            "{error}"
        );
    }
}
