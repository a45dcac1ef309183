//! Plain text: a file is one document.

use std::io::Read;

use super::lines::{Lines, utf8};
use super::reader::{End, Next, PIECE_BYTES, Piece, PieceReader};
use crate::error::{Error, Result};

/// Reads a file as one document, in pieces. Lines keep their ends, runs of blank lines become one.
///
/// A piece ends before white space wherever the text has any, so that a byte-level tokenizer makes
/// the same tokens of the pieces as of the whole.
#[derive(Debug)]
pub(crate) struct Text<R> {
    lines: Lines<R>,
    length: u64,
    /// The next piece so far, and where it begins and ends in the file.
    waiting: String,
    at: u64,
    end: u64,
    /// What stands between it and the next line.
    separator: &'static str,
}

impl<R: Read> Text<R> {
    /// Reads `lines` of a file of `length` bytes.
    pub fn new(lines: Lines<R>, length: u64) -> Self {
        Self {
            lines,
            length,
            waiting: String::new(),
            at: 0,
            end: 0,
            separator: "",
        }
    }

    /// What waits, as a piece; inside a line, without the word that may go on.
    fn piece(&mut self, end: End) -> Piece {
        let inside_line = end == End::Nothing && self.separator.is_empty();
        let cut = if inside_line {
            let space = self.waiting.rfind(char::is_whitespace).unwrap_or(0);
            let cut = self.waiting[..space].trim_end().len();
            Some(cut).filter(|cut| 2 * cut >= self.waiting.len())
        } else {
            None
        };
        let rest = cut.map_or_else(String::new, |cut| self.waiting.split_off(cut));
        let at = self.at;
        self.at = self.end - rest.len() as u64;
        Piece {
            text: std::mem::replace(&mut self.waiting, rest),
            at,
            of: self.length,
            end,
        }
    }
}

impl<R: Read + Send> PieceReader for Text<R> {
    fn next_piece(&mut self) -> Result<Next> {
        let path = self.lines.path().to_path_buf();
        while let Some(line) = self.lines.next_line()? {
            let text = utf8(&line).map_err(|offset| Error::NotUtf8 {
                path: path.clone(),
                offset,
            })?;
            let blank = text.trim().is_empty();
            if blank && !self.separator.is_empty() {
                self.separator = "\n\n";
                continue;
            }
            if blank && self.waiting.is_empty() {
                continue;
            }
            let (text, end) = (text.to_owned(), line.offset + text.len() as u64);
            let next = if line.complete { "\n" } else { "" };
            let full = self.waiting.len() >= PIECE_BYTES;
            let piece = full.then(|| self.piece(End::Nothing));
            self.waiting.push_str(self.separator);
            self.waiting.push_str(&text);
            (self.end, self.separator) = (end, next);
            if let Some(piece) = piece {
                return Ok(Next::Piece(piece));
            }
        }
        if self.waiting.is_empty() {
            return Ok(Next::End);
        }
        Ok(Next::Piece(self.piece(End::Work)))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn pieces(text: &str) -> Vec<Piece> {
        let lines = Lines::new(text.as_bytes(), Path::new("x.txt"), PIECE_BYTES as u64);
        let mut reader = Text::new(lines, text.len() as u64);
        let mut out = Vec::new();
        while let Next::Piece(piece) = reader.next_piece().unwrap() {
            out.push(piece);
        }
        out
    }

    #[test]
    fn a_file_is_one_document_and_its_pieces_end_before_white_space() {
        for text in [
            "One line of verse, and another\nof the same poem.\n\n".repeat(5_000),
            "one endless line of words and no end ".repeat(5_000),
        ] {
            let text = text.trim_end();
            let found = pieces(text);
            let (last, others) = found.split_last().unwrap();
            assert_eq!(last.end, End::Work);
            assert!(!others.is_empty());
            let mut at = 0;
            for piece in &found {
                assert_eq!((piece.at, piece.of), (at, text.len() as u64));
                assert!(at == 0 || piece.text.starts_with(char::is_whitespace));
                assert!(piece.text.len() < 3 * PIECE_BYTES);
                at += piece.text.len() as u64;
            }
            assert!(others.iter().all(|piece| piece.end == End::Nothing));
            let joined: String = found.iter().map(|piece| piece.text.as_str()).collect();
            assert_eq!(joined, text);
        }
    }

    #[test]
    fn lines_and_indentation_are_kept_and_crlf_becomes_lf() {
        let texts = |text: &str| -> Vec<String> {
            pieces(text).into_iter().map(|piece| piece.text).collect()
        };
        assert_eq!(texts("  a\r\n  b\r\n\r\n\r\nc"), ["  a\n  b\n\nc"]);
        assert_eq!(texts(" \n\n\t\n"), Vec::<String>::new());
    }

    #[test]
    fn one_endless_word_is_cut_without_loss() {
        let text = "海".repeat(50_000);
        let found = pieces(&text);
        assert!(found.len() > 1);
        let joined: String = found.iter().map(|piece| piece.text.as_str()).collect();
        assert_eq!(joined, text);
    }

    #[test]
    fn invalid_utf8_names_file_and_offset() {
        let bytes = &b"fine\n\nal\xc3\x28so"[..];
        let lines = Lines::new(bytes, Path::new("x.txt"), PIECE_BYTES as u64);
        let error = Text::new(lines, 12).next_piece().unwrap_err();
        assert_eq!(
            error.to_string(),
            "x.txt: not UTF-8 at byte 8: convert the file to UTF-8"
        );
    }
}
