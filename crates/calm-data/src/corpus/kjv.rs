//! The King James Bible as it lies in its source file: one verse a line, after its reference.

use std::collections::VecDeque;
use std::io::Read;

use super::lines::{Lines, utf8};
use super::reader::{End, Next, Piece, PieceReader};
use crate::error::{Error, Result};

/// One book a work, one chapter a document, one verse a line, references and editorial marks
/// removed.
#[derive(Debug)]
pub(crate) struct Books<R> {
    lines: Lines<R>,
    /// The chapters of a book that was read.
    ready: VecDeque<Piece>,
    /// The first verse of the next book, with its book and chapter.
    waiting: Option<(String, String)>,
}

impl<R: Read> Books<R> {
    pub fn new(lines: Lines<R>) -> Self {
        Self {
            lines,
            ready: VecDeque::new(),
            waiting: None,
        }
    }

    /// Reads the chapters of the next book; none at the end.
    fn read_book(&mut self) -> Result<Vec<String>> {
        let path = self.lines.path().to_path_buf();
        let (mut last, mut chapters) = match self.waiting.take() {
            Some((chapter, verse)) => (chapter, vec![verse]),
            None => (String::new(), Vec::new()),
        };
        while let Some(line) = self.lines.next_line()? {
            let text = utf8(&line).map_err(|offset| Error::NotUtf8 {
                path: path.clone(),
                offset,
            })?;
            if text.trim().is_empty() {
                continue;
            }
            let Some((chapter, verse)) = split_reference(text) else {
                let reason = "no verse reference such as `Genesis 1:1`".to_string();
                return Err(Error::BadLine {
                    path,
                    line: line.number,
                    reason,
                });
            };
            let verse = without_marks(verse);
            if let Some(verses) = chapters.last_mut().filter(|_| last == chapter) {
                verses.push('\n');
                verses.push_str(&verse);
            } else if chapters.is_empty() || book(&last) == book(chapter) {
                last = chapter.to_string();
                chapters.push(verse);
            } else {
                self.waiting = Some((chapter.to_string(), verse));
                break;
            }
        }
        Ok(chapters)
    }
}

impl<R: Read + Send> PieceReader for Books<R> {
    fn next_piece(&mut self) -> Result<Next> {
        if self.ready.is_empty() {
            let chapters = self.read_book()?;
            let of = chapters.iter().map(|text| text.len() as u64).sum();
            let mut at = 0;
            for text in chapters {
                let (begin, length) = (at, text.len() as u64);
                at += length;
                let end = if at == of { End::Work } else { End::Document };
                let at = begin;
                self.ready.push_back(Piece { text, at, of, end });
            }
        }
        Ok(self.ready.pop_front().map_or(Next::End, Next::Piece))
    }
}

/// `"1 John 2"` -> `"1 John"`.
fn book(chapter: &str) -> &str {
    chapter.rsplit_once(' ').map_or(chapter, |(book, _)| book)
}

/// `"1 John 2:3 And hereby"` -> `("1 John 2", "And hereby")`. The verse's own colons are safe: the
/// reference is the first word of digits, colon, digits.
fn split_reference(line: &str) -> Option<(&str, &str)> {
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let mut start = 0;
    for word in line.split_inclusive(' ') {
        let bare = word.trim_end();
        if let Some((chapter, verse)) = bare.split_once(':')
            && digits(chapter)
            && digits(verse)
            && start > 0
        {
            let text = line[start + word.len()..].trim();
            return Some((&line[..start + chapter.len()], text));
        }
        start += word.len();
    }
    None
}

/// Removes the square brackets around supplied words and the angle quotes around words of Jesus:
/// marks of the edition, not of the text. The words stay.
fn without_marks(verse: &str) -> String {
    verse
        .chars()
        .filter(|c| !matches!(c, '[' | ']' | '‹' | '›'))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn chapters(text: &str) -> Result<Vec<(String, End)>> {
        let mut reader = Books::new(Lines::new(text.as_bytes(), Path::new("kjv.txt"), 1 << 16));
        let mut out = Vec::new();
        while let Next::Piece(piece) = reader.next_piece()? {
            out.push((piece.text, piece.end));
        }
        Ok(out)
    }

    #[test]
    fn references_and_marks_go_words_stay_and_a_book_is_one_work() {
        let text = "Song of Songs 1:1 The song [of] songs, [which is] his.\r\n\
                    Song of Songs 1:2 Let him: yea, [even] him.\n\
                    Song of Songs 2:1 I [am] the rose.\n\
                    1 John 2:1 ‹Come unto me›, at 3:16 of the clock.\n\
                    2 John 2:2 Another book, the same chapter.\n";
        let expected = [
            (
                "The song of songs, which is his.\nLet him: yea, even him.",
                End::Document,
            ),
            ("I am the rose.", End::Work),
            ("Come unto me, at 3:16 of the clock.", End::Work),
            ("Another book, the same chapter.", End::Work),
        ];
        let expected = expected.map(|(text, end)| (text.to_owned(), end));
        assert_eq!(chapters(text).unwrap(), expected);
    }

    #[test]
    fn a_line_without_reference_is_an_error_with_its_number() {
        let error = chapters("Ruth 1:1 Now\nno reference here\n").unwrap_err();
        assert!(matches!(error, Error::BadLine { line: 2, .. }), "{error}");
        assert!(chapters("1:1 no book\n").is_err());
    }
}
