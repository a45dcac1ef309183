//! The King James Bible as it lies in its source file: one verse a line, after its reference.

use std::io::Read;

use super::documents::{DocumentReader, Next};
use super::lines::{Lines, utf8};
use crate::error::{Error, Result};

/// One chapter a document, one verse a line, references and editorial marks removed.
#[derive(Debug)]
pub(crate) struct Chapters<R> {
    lines: Lines<R>,
    /// The first verse of the next chapter, with its book and chapter.
    waiting: Option<(String, String)>,
}

impl<R: Read> Chapters<R> {
    pub fn new(lines: Lines<R>) -> Self {
        Self {
            lines,
            waiting: None,
        }
    }
}

impl<R: Read + Send> DocumentReader for Chapters<R> {
    fn next_document(&mut self) -> Result<Next> {
        let path = self.lines.path().to_path_buf();
        let mut current = self.waiting.take();
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
            match &mut current {
                None => current = Some((chapter.to_string(), verse)),
                Some((same, verses)) if same == chapter => {
                    verses.push('\n');
                    verses.push_str(&verse);
                }
                Some(_) => {
                    self.waiting = Some((chapter.to_string(), verse));
                    break;
                }
            }
        }
        Ok(current.map_or(Next::End, |(_, verses)| Next::Document(verses)))
    }
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

    fn chapters(text: &str) -> Result<Vec<String>> {
        let mut reader = Chapters::new(Lines::new(text.as_bytes(), Path::new("kjv.txt"), 1 << 16));
        let mut out = Vec::new();
        while let Next::Document(text) = reader.next_document()? {
            out.push(text);
        }
        Ok(out)
    }

    #[test]
    fn references_and_marks_go_words_stay() {
        let text = "Song of Songs 1:1 The song [of] songs, [which is] his.\r\n\
                    Song of Songs 1:2 Let him: yea, [even] him.\n\
                    Song of Songs 2:1 I [am] the rose.\n\
                    1 John 2:1 ‹Come unto me›, at 3:16 of the clock.\n\
                    2 John 2:2 Another book, the same chapter.\n";
        assert_eq!(
            chapters(text).unwrap(),
            [
                "The song of songs, which is his.\nLet him: yea, even him.",
                "I am the rose.",
                "Come unto me, at 3:16 of the clock.",
                "Another book, the same chapter."
            ]
        );
    }

    #[test]
    fn a_line_without_reference_is_an_error_with_its_number() {
        let error = chapters("Ruth 1:1 Now\nno reference here\n").unwrap_err();
        assert!(matches!(error, Error::BadLine { line: 2, .. }), "{error}");
        assert!(chapters("1:1 no book\n").is_err());
    }
}
