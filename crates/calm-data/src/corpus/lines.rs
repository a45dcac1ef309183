//! Lines of a byte stream with their numbers and offsets, in bounded memory.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::reader::Place;
use crate::error::{Error, Result};

/// One line, or a piece of one that is longer than the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    /// The bytes without the line end (LF or CRLF).
    pub bytes: &'a [u8],
    /// Line number, from 1.
    pub number: u64,
    /// Offset of the first byte in the stream.
    pub offset: u64,
    /// Whether the line ends here; otherwise the next piece goes on with it.
    pub complete: bool,
}

/// Reads lines; one longer than `limit` bytes comes in pieces that end between UTF-8 characters.
#[derive(Debug)]
pub(crate) struct Lines<R> {
    reader: BufReader<R>,
    path: PathBuf,
    limit: u64,
    buffer: Vec<u8>,
    next_offset: u64,
    number: u64,
    inside_line: bool,
}

impl<R: Read> Lines<R> {
    pub fn new(reader: R, path: &Path, limit: u64) -> Self {
        Self {
            reader: BufReader::with_capacity(1 << 16, reader),
            path: path.to_path_buf(),
            limit,
            buffer: Vec::new(),
            next_offset: 0,
            number: 0,
            inside_line: false,
        }
    }

    /// The same for a `reader` that begins at the start of a line inside a stream.
    pub fn starting_at(place: Place, reader: R, path: &Path, limit: u64) -> Self {
        Self {
            next_offset: place.bytes,
            number: place.items,
            ..Self::new(reader, path, limit)
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The lines and bytes read.
    pub fn place(&self) -> Place {
        Place {
            items: self.number,
            bytes: self.next_offset,
        }
    }

    /// The next line or piece, `None` at the end.
    pub fn next_line(&mut self) -> Result<Option<Line<'_>>> {
        self.buffer.clear();
        self.fill().map_err(Error::io("read", &self.path))?;
        if self.buffer.is_empty() {
            return Ok(None);
        }
        if !self.inside_line {
            self.number += 1;
        }
        let offset = self.next_offset;
        self.next_offset += self.buffer.len() as u64;

        let mut bytes = self.buffer.as_slice();
        let ended = bytes.ends_with(b"\n");
        if ended {
            bytes = &bytes[..bytes.len() - 1];
            bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        }
        let complete = ended || (self.buffer.len() as u64) < self.limit;
        self.inside_line = !complete;
        // A byte order mark belongs to the file, not to its text.
        let mark = if offset == 0 && bytes.starts_with(b"\xef\xbb\xbf") {
            3
        } else {
            0
        };
        let (bytes, offset) = (&bytes[mark..], offset + mark as u64);
        Ok(Some(Line {
            bytes,
            number: self.number,
            offset,
            complete,
        }))
    }

    fn fill(&mut self) -> std::io::Result<()> {
        (&mut self.reader)
            .take(self.limit)
            .read_until(b'\n', &mut self.buffer)?;
        if (self.buffer.len() as u64) < self.limit || self.buffer.ends_with(b"\n") {
            return Ok(());
        }
        // Cut at the limit: take the rest of a character, and of a line end, along.
        for _ in 0..3 {
            match self.reader.fill_buf()?.first() {
                Some(byte) if byte & 0b1100_0000 == 0b1000_0000 => self.buffer.push(*byte),
                _ => break,
            }
            self.reader.consume(1);
        }
        if self.buffer.ends_with(b"\r") && self.reader.fill_buf()?.first() == Some(&b'\n') {
            self.buffer.push(b'\n');
            self.reader.consume(1);
        }
        Ok(())
    }
}

/// The line as text, or the offset of the first byte that is no UTF-8.
pub(crate) fn utf8<'a>(line: &Line<'a>) -> Result<&'a str, u64> {
    std::str::from_utf8(line.bytes).map_err(|e| line.offset + e.valid_up_to() as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8], limit: u64) -> Vec<(String, u64, u64, bool)> {
        let mut lines = Lines::new(bytes, Path::new("x"), limit);
        let mut out = Vec::new();
        while let Some(line) = lines.next_line().unwrap() {
            let text = utf8(&line).unwrap().to_string();
            out.push((text, line.number, line.offset, line.complete));
        }
        out
    }

    #[test]
    fn ends_numbers_and_offsets() {
        assert_eq!(
            read(b"a\r\n\nbc\r\nd", 100),
            [
                ("a".into(), 1, 0, true),
                (String::new(), 2, 3, true),
                ("bc".into(), 3, 4, true),
                ("d".into(), 4, 8, true)
            ]
        );
        assert_eq!(read(b"", 100), []);
        assert_eq!(read(b"\xef\xbb\xbfa\n", 100), [("a".into(), 1, 3, true)]);
    }

    #[test]
    fn invalid_utf8_is_located_in_the_file() {
        let mut lines = Lines::new(&b"ok\nab\xffc"[..], Path::new("x"), 100);
        lines.next_line().unwrap();
        assert_eq!(utf8(&lines.next_line().unwrap().unwrap()), Err(5));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]
        // Pieces are whole characters, and joined they are the text.
        #[test]
        fn pieces_join_to_the_text(text in "[aé海🙂\n]{0,60}", limit in 4_u64..12) {
            let mut joined = String::new();
            let pieces = read(text.as_bytes(), limit);
            for (i, (piece, _, offset, complete)) in pieces.iter().enumerate() {
                prop_assert!(piece.len() as u64 <= limit + 3);
                prop_assert_eq!(*offset, joined.len() as u64);
                joined.push_str(piece);
                if *complete && (i + 1 < pieces.len() || text.ends_with('\n')) {
                    joined.push('\n');
                }
            }
            prop_assert_eq!(joined, text);
        }
    }
}
