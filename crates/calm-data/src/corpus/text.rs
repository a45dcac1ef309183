//! Plain text: paragraphs grouped into passages.

use std::io::Read;

use super::documents::{DocumentReader, Next};
use super::lines::{Lines, utf8};
use crate::error::{Error, Result};

/// A passage ends at the first blank line after this many characters.
const PASSAGE_CHARACTERS: usize = 2_000;

/// Text without blank lines is cut at the next line end after this many characters.
const LONGEST_PARAGRAPH: usize = 16_000;

/// A line longer than this many bytes is cut inside.
pub(crate) const LONGEST_PIECE: u64 = 1 << 16;

/// Groups consecutive paragraphs (separated by blank lines) into passages of at least
/// [`PASSAGE_CHARACTERS`]; the last one of a file takes what is left. Lines keep their ends, runs
/// of blank lines become one.
#[derive(Debug)]
pub(crate) struct Passages<R> {
    lines: Lines<R>,
}

impl<R: Read> Passages<R> {
    pub fn new(lines: Lines<R>) -> Self {
        Self { lines }
    }
}

impl<R: Read + Send> DocumentReader for Passages<R> {
    fn next_document(&mut self) -> Result<Next> {
        let mut passage = String::new();
        let mut characters = 0;
        // What stands between the text so far and the next line.
        let mut separator = "";
        let path = self.lines.path().to_path_buf();
        while let Some(line) = self.lines.next_line()? {
            let text = utf8(&line).map_err(|offset| Error::NotUtf8 {
                path: path.clone(),
                offset,
            })?;
            if text.trim().is_empty() && !separator.is_empty() {
                if characters >= PASSAGE_CHARACTERS {
                    return Ok(Next::Document(passage));
                }
                separator = "\n\n";
                continue;
            }
            if text.trim().is_empty() && passage.is_empty() {
                continue;
            }
            passage.push_str(separator);
            passage.push_str(text);
            characters += separator.len() + text.chars().count();
            if characters >= LONGEST_PARAGRAPH {
                return Ok(Next::Document(passage));
            }
            separator = if line.complete { "\n" } else { "" };
        }
        Ok(if passage.is_empty() {
            Next::End
        } else {
            Next::Document(passage)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn passages(text: &str) -> Vec<String> {
        let lines = Lines::new(text.as_bytes(), Path::new("x.txt"), LONGEST_PIECE);
        let mut reader = Passages::new(lines);
        let mut out = Vec::new();
        while let Next::Document(text) = reader.next_document().unwrap() {
            out.push(text);
        }
        out
    }

    #[test]
    fn paragraphs_are_grouped_to_two_thousand_characters() {
        let paragraph = "é".repeat(700);
        let text = format!("\n\n{}\n", [paragraph.as_str(); 7].join("\n\n \t\n\r\n"));
        let found = passages(&text);
        let three = [paragraph.as_str(); 3].join("\n\n");
        assert_eq!(found, [three.clone(), three, paragraph]);
    }

    #[test]
    fn lines_and_indentation_are_kept_and_crlf_becomes_lf() {
        assert_eq!(passages("  a\r\n  b\r\n\r\n\r\nc"), ["  a\n  b\n\nc"]);
        assert_eq!(passages(" \n\n\t\n"), Vec::<String>::new());
    }

    #[test]
    fn text_without_blank_lines_is_cut_at_line_ends() {
        let line = "x".repeat(999);
        let found = passages(&format!("{line}\n").repeat(40));
        assert_eq!(found.len(), 3);
        assert_eq!(
            found[0],
            [line.as_str(); 16].join("\n").to_string() + "\n" + &line
        );
        assert!(found.iter().all(|text| text.len() <= 17_000));
    }

    #[test]
    fn one_endless_line_is_cut_without_loss() {
        let text = "海".repeat(50_000);
        let found = passages(&text);
        assert!(found.len() > 1);
        assert_eq!(found.concat(), text);
    }

    #[test]
    fn invalid_utf8_names_file_and_offset() {
        let lines = Lines::new(
            &b"fine\n\nal\xc3\x28so"[..],
            Path::new("x.txt"),
            LONGEST_PIECE,
        );
        let error = Passages::new(lines).next_document().unwrap_err();
        assert_eq!(
            error.to_string(),
            "x.txt: not UTF-8 at byte 8: convert the file to UTF-8"
        );
    }
}
