//! TensorBoard event files: the records of a run for those who watch with the tool that they have.
//!
//! The format is a TFRecord stream (length, data, masked CRC-32C of either) of `Event` messages
//! (tensorflow/core/util/event.proto). The three messages that scalars need are written here by hand:
//! the crate that writes them brings 36 others.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::Value;

use crate::{Error, Result};

/// Appends scalars to an event file of its own; files of one directory are one curve.
#[derive(Debug)]
pub struct EventWriter {
    file: File,
    path: PathBuf,
}

impl EventWriter {
    /// Starts a file in `directory`, which is made where it is not there, for steps after `step`: what
    /// earlier files say of those is void, as it must be where a run was resumed.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn create(directory: &Path, step: u64) -> Result<Self> {
        fs::create_dir_all(directory).map_err(Error::io("create", directory))?;
        // TensorBoard reads files in the order of their names.
        let nanos = now().as_nanos();
        let path = directory.join(format!(
            "events.out.tfevents.{:010}.{:09}",
            nanos / 1_000_000_000,
            nanos % 1_000_000_000
        ));
        let options = OpenOptions::new().append(true).create_new(true).open(&path);
        let file = options.map_err(Error::io("create", &path))?;
        let mut writer = Self { file, path };
        writer.event(0, FILE_VERSION, b"brain.Event:2")?;
        const START: [u8; 2] = [field(1, VARINT), 1];
        writer.event(step + 1, SESSION_LOG, &START)?;
        Ok(writer)
    }

    /// Appends every number of a record under `prefix` and its key, and those of Brier-1 to 4 and their
    /// errors under the key and n; what else it holds is left out, as are numbers that are not finite.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Encode`].
    pub fn record(&mut self, step: u64, prefix: &str, record: &impl Serialize) -> Result<()> {
        let value = serde_json::to_value(record).map_err(|error| Error::Encode {
            path: self.path.clone(),
            reason: error.to_string(),
        })?;
        let mut summary = Vec::new();
        for (key, value) in value.as_object().into_iter().flatten() {
            match (key.as_str(), value) {
                ("brier" | "brier_se", Value::Array(four)) => {
                    for (n, value) in four.iter().enumerate() {
                        scalar(&mut summary, &format!("{prefix}{key}_{}", n + 1), value);
                    }
                }
                ("step", _) => {}
                (key, value) => scalar(&mut summary, &format!("{prefix}{key}"), value),
            }
        }
        self.event(step, SUMMARY, &summary)
    }

    /// One `Event` in a write of its own: a killed process loses at most the one it was writing.
    fn event(&mut self, step: u64, what: u8, content: &[u8]) -> Result<()> {
        let mut event = vec![field(1, FIXED_64)];
        event.extend(now().as_secs_f64().to_le_bytes());
        event.push(field(2, VARINT));
        varint(&mut event, step);
        message(&mut event, what, content);
        let length = (event.len() as u64).to_le_bytes();
        let mut record = length.to_vec();
        record.extend(masked_crc(&length).to_le_bytes());
        record.extend(&event);
        record.extend(masked_crc(&event).to_le_bytes());
        let written = self.file.write_all(&record);
        written.map_err(Error::io("append to", &self.path))
    }
}

// Wire types of protocol buffers, and the fields of Event that hold content.
const VARINT: u8 = 0;
const FIXED_64: u8 = 1;
const BYTES: u8 = 2;
const FIXED_32: u8 = 5;
const FILE_VERSION: u8 = field(3, BYTES);
const SUMMARY: u8 = field(5, BYTES);
const SESSION_LOG: u8 = field(7, BYTES);

const fn field(number: u8, wire: u8) -> u8 {
    number << 3 | wire
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn message(out: &mut Vec<u8>, field: u8, content: &[u8]) {
    out.push(field);
    varint(out, content.len() as u64);
    out.extend(content);
}

/// `Summary.Value { tag, simple_value }`, where `value` is a number.
fn scalar(summary: &mut Vec<u8>, tag: &str, value: &Value) {
    if let Some(value) = value.as_f64() {
        let mut inner = Vec::new();
        message(&mut inner, field(1, BYTES), tag.as_bytes());
        inner.push(field(2, FIXED_32));
        inner.extend((value as f32).to_le_bytes());
        message(summary, field(1, BYTES), &inner);
    }
}

fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
        .rotate_right(15)
        .wrapping_add(0xa282_ead8)
}

fn now() -> std::time::Duration {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Stage;
    use crate::examples::row;

    /// The messages of a file whose lengths and checksums all hold.
    fn events(path: &Path) -> Vec<Vec<u8>> {
        let bytes = fs::read(path).unwrap();
        let (mut rest, mut events) = (&bytes[..], Vec::new());
        while !rest.is_empty() {
            let (length, after) = rest.split_at(8);
            let size = u64::from_le_bytes(length.try_into().unwrap()) as usize;
            let crc = |bytes: &[u8]| u32::from_le_bytes(bytes[..4].try_into().unwrap());
            assert_eq!(crc(after), masked_crc(length));
            let event = &after[4..4 + size];
            assert_eq!(crc(&after[4 + size..]), masked_crc(event));
            events.push(event.to_vec());
            rest = &after[size + 8..];
        }
        events
    }

    #[test]
    fn a_row_is_written_as_tensorboard_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let directory = dir.path().join("lm");
        let mut writer = EventWriter::create(&directory, 299).unwrap();
        writer.record(300, "", &row(Stage::Lm, 300)).unwrap();
        let point = serde_json::json!({"stage": "lm", "step": 300, "tokens": 9, "brier": [1, 2, 3, 4],
            "window_brier": [[5, 6, 7, 8]]});
        writer.record(300, "eval/", &point).unwrap();
        let events = events(&writer.path);
        assert_eq!(events.len(), 4);
        // Wall time, then step 0 and the version; step 300 and the start of a session.
        assert_eq!(events[0][9..], *b"\x10\x00\x1a\x0dbrain.Event:2");
        assert_eq!(events[1][9..], *b"\x10\xac\x02\x3a\x02\x08\x01");
        assert_eq!(events[2][9..13], *b"\x10\xac\x02\x2a");
        // tag "lr" with the float nearest to 3e-4; a text and an absent number are no scalars.
        let lr = [
            b"\x0a\x09\x0a\x02lr\x15".as_slice(),
            &3e-4_f32.to_le_bytes(),
        ]
        .concat();
        let holds = |part: &[u8]| events[2].windows(part.len()).any(|window| window == part);
        assert!(holds(&lr), "{:x?}", events[2]);
        assert!(!holds(b"stage") && !holds(b"mfu") && !holds(b"step"));
        let point = String::from_utf8_lossy(&events[3]);
        assert!(
            point.contains("eval/brier_4") && point.contains("eval/tokens"),
            "{point:?}"
        );
        assert!(!point.contains("window"), "{point:?}");
        // RFC 3720, B.4: 32 bytes of zeros.
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
    }

    #[test]
    fn a_resumed_run_has_another_file_that_comes_later() {
        let dir = tempfile::tempdir().unwrap();
        let first = EventWriter::create(dir.path(), 0).unwrap();
        let second = EventWriter::create(dir.path(), 10).unwrap();
        assert!(first.path < second.path);
    }
}
