//! JSON Lines: one document a line, in the field `text`.

use std::io::Read;

use serde::Deserialize;

use super::lines::{Lines, utf8};
use super::reader::{Next, Piece, PieceReader, Place};
use crate::error::Result;

/// A line longer than this many bytes is a bad line: memory stays bounded.
pub(crate) const LONGEST_LINE: u64 = 1 << 26;

/// Other fields are ignored without being stored.
#[derive(Deserialize)]
struct Record {
    text: String,
}

/// Reads one document per line; blank lines and empty texts are passed over.
#[derive(Debug)]
pub(crate) struct JsonLines<R> {
    lines: Lines<R>,
}

impl<R: Read> JsonLines<R> {
    pub fn new(lines: Lines<R>) -> Self {
        Self { lines }
    }
}

impl<R: Read + Send> PieceReader for JsonLines<R> {
    fn next_piece(&mut self) -> Result<Next> {
        let mut too_long = None;
        while let Some(line) = self.lines.next_line()? {
            if !line.complete {
                too_long = Some(line.number);
                continue;
            }
            if too_long.is_some() {
                break;
            }
            let number = line.number;
            let text = match utf8(&line) {
                Ok(text) if text.trim().is_empty() => continue,
                Ok(text) => text,
                Err(offset) => {
                    let reason = format!("not UTF-8 at byte {offset} of the file");
                    return Ok(Next::BadLine {
                        line: number,
                        reason,
                    });
                }
            };
            match serde_json::from_str::<Record>(text) {
                Ok(record) if record.text.trim().is_empty() => continue,
                Ok(Record { text }) => {
                    let text = if text.contains("\r\n") {
                        text.replace("\r\n", "\n")
                    } else {
                        text
                    };
                    return Ok(Next::Piece(Piece::whole(text)));
                }
                Err(e) => {
                    return Ok(Next::BadLine {
                        line: number,
                        reason: reason(&e),
                    });
                }
            }
        }
        Ok(too_long.map_or(Next::End, |line| Next::BadLine {
            line,
            reason: format!("longer than {} MiB", LONGEST_LINE >> 20),
        }))
    }

    fn place(&self) -> Option<Place> {
        Some(self.lines.place())
    }
}

/// The parser's message without its own "at line 1", which would contradict the file's line.
fn reason(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let what = message
        .rsplit_once(" at line ")
        .map_or(message.as_str(), |(what, _)| what);
    format!("{what} at column {}", error.column())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn read(bytes: &[u8], limit: u64) -> Vec<Result<String, (u64, String)>> {
        let mut reader = JsonLines::new(Lines::new(bytes, Path::new("x.jsonl"), limit));
        let mut out = Vec::new();
        loop {
            match reader.next_piece().unwrap() {
                Next::Piece(piece) => out.push(Ok(piece.text)),
                Next::BadLine { line, reason } => out.push(Err((line, reason))),
                Next::End => return out,
            }
        }
    }

    #[test]
    fn texts_come_out_and_other_fields_do_not_matter() {
        let bytes = br#"{"text": "one\r\ntwo", "id": 1}

{"meta": {"text": "no"}, "text": "\u6d77"}
{"text": " "}"#;
        assert_eq!(
            read(bytes, LONGEST_LINE),
            [Ok("one\ntwo".into()), Ok("海".into())]
        );
    }

    #[test]
    fn every_kind_of_bad_line_is_reported_with_its_number() {
        let bytes = b"{\"text\": \"a\"}\n{\"text\": \"b\"\n{\"body\": \"c\"}\n{\"text\": 3}\n\
                      {\"text\": \"\xff\"}\n{\"text\": \"\\ud800\"}\n[]\n{\"text\": \"z\"}\n";
        let found = read(bytes, LONGEST_LINE);
        assert_eq!(found.first(), Some(&Ok("a".into())));
        assert_eq!(found.last(), Some(&Ok("z".into())));
        let bad: Vec<_> = found.into_iter().filter_map(Result::err).collect();
        assert_eq!(
            bad.iter().map(|(line, _)| *line).collect::<Vec<_>>(),
            [2, 3, 4, 5, 6, 7]
        );
        assert!(bad[0].1.starts_with("EOF while parsing"), "{}", bad[0].1);
        assert!(bad[1].1.contains("missing field `text`"), "{}", bad[1].1);
        assert!(bad[2].1.contains("expected a string"), "{}", bad[2].1);
        assert!(
            bad[3].1.starts_with("not UTF-8 at byte 63 "),
            "{}",
            bad[3].1
        );
        assert!(bad.iter().all(|(_, reason)| !reason.contains("line 1")));
    }

    #[test]
    fn a_line_over_the_limit_is_one_bad_line() {
        let long = format!("{{\"text\": \"{}\"}}", "x".repeat(500));
        let bytes = format!("{{\"text\": \"a\"}}\n{long}\n{{\"text\": \"b\"}}");
        let found = read(bytes.as_bytes(), 64);
        assert_eq!(found.len(), 3);
        assert!(matches!(&found[1], Err((2, reason)) if reason.contains("longer than")));
        assert_eq!(found[2], Ok("b".into()));
        let at_the_end = read(long.as_bytes(), 64);
        assert!(matches!(&at_the_end[..], [Err((1, _))]), "{at_the_end:?}");
    }
}
