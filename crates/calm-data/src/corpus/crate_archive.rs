//! Source code inside pinned archives of crates, which are gzipped tar files.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use flate2::bufread::GzDecoder;
use tar::Archive;

use super::reader::Texts;
use crate::error::{Error, Result};

/// Largest source file that is taken, in bytes.
const LARGEST_FILE: u64 = 1 << 18;

/// A file with this or a larger share of digits in what is not white space is data.
const DIGITS_OF_DATA: f64 = 0.2;

/// A generator says so in the first bytes of a file.
const HEAD_BYTES: usize = 1024;

/// The code among the files `src/**/*.rs`, sorted by path; each file is a text. The path is not in it:
/// the same file in two crates must be the same text, so that the split keeps both in one part.
///
/// # Errors
/// [`Error::Io`] where the archive cannot be opened, [`Error::BadArchive`] where it is damaged, holds
/// no code, or a source file is not UTF-8.
pub(crate) fn sources(path: &Path) -> Result<Texts> {
    let bad = |reason: String| Error::BadArchive {
        path: path.into(),
        reason,
    };
    let file = File::open(path).map_err(Error::io("open", path))?;
    let mut archive = Archive::new(GzDecoder::new(BufReader::new(file)));
    let mut files = BTreeMap::new();
    for entry in archive.entries().map_err(|e| bad(e.to_string()))? {
        let entry = entry.map_err(|e| bad(e.to_string()))?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        // Everything lies under `name-version/`.
        let inside = name.split_once('/').map_or("", |(_, inside)| inside);
        let source = inside.starts_with("src/") && inside.ends_with(".rs");
        if !(source && entry.header().entry_type().is_file()) || entry.size() > LARGEST_FILE {
            continue;
        }
        let mut bytes = Vec::new();
        let read = entry.take(LARGEST_FILE).read_to_end(&mut bytes);
        read.map_err(|e| bad(format!("{name}: {e}")))?;
        let text = String::from_utf8(bytes).map_err(|e| bad(format!("{name}: {e}")))?;
        if is_code(&text) {
            files.insert(name, text.replace("\r\n", "\n").trim().to_string());
        }
    }
    if files.is_empty() {
        return Err(bad("no source code under src".to_string()));
    }
    Ok(Texts::new(files.into_values().collect()))
}

/// Code is written by hand and of at most 256 KiB, and less than a fifth of it are digits; other
/// files are tables and bindings. An empty file is none.
fn is_code(text: &str) -> bool {
    let head = text[..text.floor_char_boundary(HEAD_BYTES)].to_lowercase();
    let generated = ["@generated", "do not edit"].map(|mark| head.contains(mark));
    let solid = text.bytes().filter(|b| !b.is_ascii_whitespace()).count();
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    text.len() as u64 <= LARGEST_FILE
        && generated == [false, false]
        && (digits as f64) < DIGITS_OF_DATA * solid as f64
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use tar::{Builder, Header};
    use tempfile::NamedTempFile;

    use super::super::reader::{Next, PieceReader};
    use super::*;

    /// An archive of these files, given without the folder `anna-1.0.0`.
    fn archive(files: &[(&str, &str)]) -> NamedTempFile {
        let file = NamedTempFile::new().unwrap();
        let packed = GzEncoder::new(file.reopen().unwrap(), Compression::fast());
        let mut builder = Builder::new(packed);
        for (name, text) in files {
            let mut header = Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            let name = format!("anna-1.0.0/{name}");
            builder
                .append_data(&mut header, name, text.as_bytes())
                .unwrap();
        }
        builder.into_inner().unwrap().finish().unwrap();
        file
    }

    fn all(mut texts: Texts) -> Vec<String> {
        let mut out = Vec::new();
        while let Next::Piece(piece) = texts.next_piece().unwrap() {
            out.push(piece.text);
        }
        out
    }

    #[test]
    fn source_files_come_in_order_of_their_paths() {
        let long = format!("src/{}/mod.rs", "deep/".repeat(40));
        let file = archive(&[
            ("src/lib.rs", "mod a;\r\nmod b;\r\n"),
            ("src/a.rs", "fn a() {}\n"),
            ("src/a/b.rs", "    fn b() {}\n"),
            (&long, "fn deep() {}\n"),
            ("src/empty.rs", "\n"),
            ("src/words.txt", "no code"),
            ("tests/it.rs", "fn test() {}"),
            ("build.rs", "fn main() {}"),
        ]);
        assert_eq!(
            all(sources(file.path()).unwrap()),
            ["fn a() {}", "fn b() {}", "fn deep() {}", "mod a;\nmod b;"]
        );
    }

    #[test]
    fn tables_generated_and_very_long_files_are_no_code() {
        let line = "fn not(x: bool) -> bool { !x } // of 1 bit\n";
        assert!(is_code(line));
        assert!(!is_code(""));
        assert!(!is_code("const TABLE: [u8; 4] = [17, 255, 0, 40];"));
        assert!(!is_code(&format!("// This file is @generated.\n{line}")));
        assert!(!is_code(&format!("// DO NOT EDIT THIS FILE.\n{line}")));
        // Only the head speaks of the file itself.
        assert!(is_code(&format!("{}// @generated", line.repeat(40))));
        let fits = LARGEST_FILE as usize / line.len();
        assert!(is_code(&line.repeat(fits)));
        assert!(!is_code(&line.repeat(fits + 1)));
        // A head that would end inside a character.
        assert!(is_code(&"é".repeat(1000)[..]));
        assert!(is_code(&format!("x{}", "é".repeat(1000))));
        let long = line.repeat(fits + 1);
        let file = archive(&[("src/long.rs", &long), ("src/lib.rs", line)]);
        assert_eq!(all(sources(file.path()).unwrap()), [line.trim()]);
    }

    #[test]
    fn damaged_archives_and_files_are_errors() {
        let reason = |path: &Path| match sources(path) {
            Err(Error::BadArchive { reason, .. }) => reason,
            other => panic!("{other:?}"),
        };
        let file = archive(&[("README.md", "no code")]);
        assert_eq!(reason(file.path()), "no source code under src");
        let noise: String = (0..9_000_u32)
            .map(|i| char::from(b'a' + (i.wrapping_mul(2_654_435_761) >> 24) as u8 % 26))
            .collect();
        let file = archive(&[("src/lib.rs", &noise)]);
        let bytes = std::fs::read(file.path()).unwrap();
        std::fs::write(file.path(), &bytes[..bytes.len() / 2]).unwrap();
        assert!(!reason(file.path()).is_empty());
        std::fs::write(file.path(), b"no archive at all").unwrap();
        assert!(!reason(file.path()).is_empty());
        assert!(matches!(
            sources(Path::new("/nonexistent")),
            Err(Error::Io { .. })
        ));
    }
}
