//! Checksums: what every file of the cache goes through.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

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
    let mut hasher = Sha256::new();
    hash_into(&mut file, &mut io::sink(), &mut hasher, &mut |_| ())
        .map_err(Error::io("read", path))?;
    Ok(hex(&hasher.finalize()))
}

/// Copies `reader` to `writer` through `hasher`, calling `on_bytes` with the bytes so far.
pub(crate) fn hash_into(
    reader: &mut dyn Read,
    writer: &mut dyn Write,
    hasher: &mut Sha256,
    on_bytes: &mut dyn FnMut(u64),
) -> io::Result<()> {
    let mut block = vec![0; 1 << 17];
    let mut total = 0;
    loop {
        let n = match reader.read(&mut block) {
            Ok(0) => return Ok(()),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sha256_of_a_file_matches_the_standard_vector() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("abc");
        std::fs::write(&path, b"abc").unwrap();
        assert_eq!(
            sha256_file(&path).unwrap(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
