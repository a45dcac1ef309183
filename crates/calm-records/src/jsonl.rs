//! Files of one JSON record per line: appending, reading, and cutting back to a checkpoint.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::file::write_atomic;
use crate::{Error, Result};

/// Appends records of type `T`, each as one line that reaches the operating system before
/// [`write`](Self::write) returns: a killed process loses at most the line it was writing.
#[derive(Debug)]
pub struct JsonlWriter<T> {
    file: File,
    path: PathBuf,
    record: PhantomData<fn(&T)>,
}

impl<T: Serialize> JsonlWriter<T> {
    /// Starts a new file.
    ///
    /// # Errors
    /// [`Error::Io`], also when the file already exists: records are never overwritten silently.
    pub fn create(path: &Path) -> Result<Self> {
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .open(path)
            .map_err(Error::io("create", path))?;
        Ok(Self {
            file,
            path: path.to_path_buf(),
            record: PhantomData,
        })
    }

    /// Continues a file, or starts it where there is none.
    ///
    /// # Errors
    /// [`Error::TornLine`] when the file ends in the middle of a line (cut it with
    /// [`truncate_after`] first), and [`Error::Io`].
    pub fn open_append(path: &Path) -> Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path)
            .map_err(Error::io("open", path))?;
        if file
            .seek(SeekFrom::End(0))
            .map_err(Error::io("read", path))?
            > 0
        {
            let mut last = [0];
            file.seek(SeekFrom::End(-1))
                .map_err(Error::io("read", path))?;
            file.read_exact(&mut last)
                .map_err(Error::io("read", path))?;
            if last != *b"\n" {
                let bytes = fs::read(path).map_err(Error::io("read", path))?;
                return Err(torn(path, &bytes));
            }
        }
        Ok(Self {
            file,
            path: path.to_path_buf(),
            record: PhantomData,
        })
    }

    /// Appends one record.
    ///
    /// # Errors
    /// [`Error::Io`] (disk full, for one) and [`Error::Encode`].
    pub fn write(&mut self, record: &T) -> Result<()> {
        let mut line = serde_json::to_vec(record).map_err(|e| Error::Encode {
            path: self.path.clone(),
            reason: e.to_string(),
        })?;
        line.push(b'\n');
        // One system call for the whole line: it is all there or, if the process dies, cut once.
        self.file
            .write_all(&line)
            .map_err(Error::io("append to", &self.path))
    }

    /// Forces what was written onto the disk: called beside a checkpoint, so that the log never
    /// lies behind it after a power failure.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn sync(&self) -> Result<()> {
        self.file.sync_all().map_err(Error::io("write", &self.path))
    }
}

/// Reads every record of a file.
///
/// # Errors
/// [`Error::Json`] with file and line, [`Error::TornLine`] when the last line has no newline, and
/// [`Error::Io`].
pub fn read_jsonl<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    let bytes = fs::read(path).map_err(Error::io("read", path))?;
    let (whole, torn_tail) = split_torn(&bytes);
    if !torn_tail.is_empty() {
        return Err(torn(path, &bytes));
    }
    parse(path, whole)
}

/// Reads every complete record of a file that may still be growing: a last line without a newline
/// is left out, even if it happens to parse (a number may have been cut short).
///
/// # Errors
/// [`Error::Json`] with file and line, and [`Error::Io`].
pub fn read_jsonl_lenient<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    let bytes = fs::read(path).map_err(Error::io("read", path))?;
    parse(path, split_torn(&bytes).0)
}

/// Rewrites the file atomically with only the records for which `keep` is true, each byte for byte
/// as it was; a last line without a newline goes too. A file that does not exist stays so.
///
/// # Errors
/// [`Error::Json`] with file and line, and [`Error::Io`]; the file is then untouched.
pub fn truncate_after<T, F>(path: &Path, mut keep: F) -> Result<()>
where
    T: DeserializeOwned,
    F: FnMut(&T) -> bool,
{
    let bytes = match fs::read(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        read => read.map_err(Error::io("read", path))?,
    };
    let (whole, _) = split_torn(&bytes);
    let mut kept = Vec::with_capacity(whole.len());
    for (index, line) in whole.split_inclusive(|&b| b == b'\n').enumerate() {
        if keep(&parse_line(path, index, line)?) {
            kept.extend_from_slice(line);
        }
    }
    if kept.len() == bytes.len() {
        Ok(())
    } else {
        write_atomic(path, &kept)
    }
}

/// The complete lines, and what follows the last newline.
fn split_torn(bytes: &[u8]) -> (&[u8], &[u8]) {
    bytes.split_at(
        bytes
            .iter()
            .rposition(|&b| b == b'\n')
            .map_or(0, |end| end + 1),
    )
}

fn torn(path: &Path, bytes: &[u8]) -> Error {
    let line = 1 + bytes.iter().filter(|&&b| b == b'\n').count();
    Error::TornLine {
        path: path.to_path_buf(),
        line,
    }
}

fn parse<T: DeserializeOwned>(path: &Path, whole: &[u8]) -> Result<Vec<T>> {
    let lines = whole.split_inclusive(|&b| b == b'\n').enumerate();
    lines
        .map(|(index, line)| parse_line(path, index, line))
        .collect()
}

fn parse_line<T: DeserializeOwned>(path: &Path, index: usize, line: &[u8]) -> Result<T> {
    serde_json::from_slice(line).map_err(|e| Error::json::<T>(path, index + 1, &e))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::examples::row;
    use crate::{MetricRow, Stage};

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        fs::write(&path, text).unwrap();
        (dir, path)
    }

    fn line(step: u64) -> String {
        serde_json::to_string(&row(Stage::Lm, step)).unwrap() + "\n"
    }

    #[test]
    fn every_record_is_on_disk_when_write_returns() {
        let (_dir, path) = file("");
        fs::remove_file(&path).unwrap();
        let mut writer = JsonlWriter::create(&path).unwrap();
        writer.write(&row(Stage::Lm, 1)).unwrap();
        assert_eq!(read_jsonl::<MetricRow>(&path).unwrap(), [row(Stage::Lm, 1)]);
        drop(writer);
        JsonlWriter::open_append(&path)
            .unwrap()
            .write(&row(Stage::Lm, 2))
            .unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), line(1) + &line(2));
    }

    #[test]
    fn create_never_overwrites() {
        let (_dir, path) = file(&line(1));
        assert!(matches!(
            JsonlWriter::<MetricRow>::create(&path),
            Err(Error::Io { .. })
        ));
        assert_eq!(fs::read_to_string(&path).unwrap(), line(1));
    }

    #[test]
    fn a_torn_last_line_is_an_error_unless_lenient() {
        // Cut right before the newline: it parses, and still it is not complete.
        let text = line(1) + line(2).trim_end();
        let (_dir, path) = file(&text);
        assert!(matches!(
            read_jsonl::<MetricRow>(&path),
            Err(Error::TornLine { line: 2, .. })
        ));
        assert!(matches!(
            JsonlWriter::<MetricRow>::open_append(&path),
            Err(Error::TornLine { line: 2, .. })
        ));
        assert_eq!(
            read_jsonl_lenient::<MetricRow>(&path).unwrap(),
            [row(Stage::Lm, 1)]
        );
    }

    #[test]
    fn a_bad_line_is_an_error_with_file_and_line_even_when_lenient() {
        let (_dir, path) = file(&(line(1) + "{\"stage\":\"lm\",\"step\":oops}\n" + &line(3)));
        for result in [
            read_jsonl::<MetricRow>(&path),
            read_jsonl_lenient::<MetricRow>(&path),
        ] {
            let error = result.unwrap_err();
            assert!(matches!(error, Error::Json { line: 2, .. }), "{error}");
            assert!(error.to_string().contains("metrics.jsonl:2:"), "{error}");
        }
        let before = fs::read(&path).unwrap();
        assert!(truncate_after(&path, |r: &MetricRow| r.step < 2).is_err());
        assert_eq!(fs::read(&path).unwrap(), before);
    }

    #[test]
    fn truncation_keeps_bytes_and_drops_the_torn_line() {
        // Spacing, key order and number spelling that this version would not write itself.
        let odd = line(1)
            .replace("\"step\":1", "\"step\" :  1")
            .replace("0.0003", "3.00e-4");
        let (_dir, path) = file(&(odd.clone() + &line(2) + &line(3)[..20]));
        truncate_after(&path, |r: &MetricRow| r.step <= 2).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), odd.clone() + &line(2));
        truncate_after(&path, |r: &MetricRow| r.step <= 1).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), odd);
        truncate_after(&path, |_: &MetricRow| false).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"");
    }

    #[test]
    fn truncating_what_was_never_written_is_fine() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        truncate_after(&path, |_: &MetricRow| true).unwrap();
        assert!(!path.exists());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn a_file_cut_anywhere_resumes_to_a_prefix_of_whole_lines(
            count in 1_u64..8, keep in 0_u64..8, cut in 0.0_f64..1.0,
        ) {
            let full: String = (1..=count).map(line).collect();
            let (_dir, path) = file(&full[..(cut * full.len() as f64) as usize]);
            truncate_after(&path, |r: &MetricRow| r.step <= keep).unwrap();
            let rest = fs::read_to_string(&path).unwrap();
            prop_assert!(full.starts_with(&rest));
            let rows = read_jsonl::<MetricRow>(&path).unwrap();
            prop_assert!(rows.len() as u64 <= keep);
        }

        #[test]
        fn finite_numbers_survive_bit_for_bit(bits in any::<u64>()) {
            let loss = f64::from_bits(bits);
            prop_assume!(loss.is_finite());
            let json = serde_json::to_string(&MetricRow { loss, ..row(Stage::Lm, 1) }).unwrap();
            let back: MetricRow = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(back.loss.to_bits(), bits);
        }
    }
}
