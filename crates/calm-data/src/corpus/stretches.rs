//! The text of a corpus, each stretch with the part that it belongs to.

use std::collections::VecDeque;

use sha2::{Digest, Sha256};

use super::pieces::Pieces;
use super::reader::{End, PIECE_BYTES, Piece, Place};
use crate::error::Result;
use crate::split::{Part, Split};

/// A cut looks this many bytes ahead for the end of a line, and then for the end of a word.
const LOOK_AHEAD: usize = 256;

/// Consecutive text of one part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    /// The part.
    pub part: Part,
    /// Its text; empty where only an end is told.
    pub text: String,
    /// Whether end-of-text follows: a document is over, or what follows lies in another part.
    pub ends: bool,
}

/// Iterator over `Result<Stretch>`; after an error it ends. Memory is bounded by the longest JSONL
/// record and by [`Split::whole_below`], not by the corpus.
#[derive(Debug)]
pub struct Stretches {
    pieces: Pieces,
    split: Split,
    /// A short work so far, and its hash.
    work: Vec<Piece>,
    hasher: Sha256,
    ready: VecDeque<Stretch>,
    /// The part whose text goes on.
    open: Option<Part>,
    /// Where the work that the next stretch belongs to begins, and its stretches so far.
    start: Place,
    given: u64,
    /// Whether no work is under way.
    between_works: bool,
}

impl Stretches {
    pub(crate) fn new(pieces: Pieces, split: Split) -> Self {
        Self {
            pieces,
            hasher: split.hasher(),
            split,
            work: Vec::new(),
            ready: VecDeque::new(),
            open: None,
            start: Place::default(),
            given: 0,
            between_works: true,
        }
    }

    /// Where the next stretch of the file begins: its work, and how many stretches of it come before.
    /// Nothing that was read before the work has a say in what is read after it begins.
    pub(crate) fn place(&self) -> (Place, u64) {
        match self.between_works && self.ready.is_empty() {
            true => (self.pieces.place(), 0),
            false => (self.start, self.given),
        }
    }

    /// Lines skipped as bad so far.
    pub fn bad_lines(&self) -> u64 {
        self.pieces.bad_lines()
    }

    /// Bytes taken from the files so far, as they lie on disk (see [`crate::Corpus::total_bytes`]).
    pub fn bytes_read(&self) -> u64 {
        self.pieces.bytes_read()
    }

    fn sort(&mut self, piece: Piece) {
        if !self.split.is_whole(piece.of) {
            return self.cut(piece);
        }
        self.hasher.update(&piece.text);
        let complete = piece.end == End::Work;
        self.work.push(piece);
        if complete {
            let hasher = std::mem::replace(&mut self.hasher, self.split.hasher());
            let part = self.split.part_of(hasher);
            for piece in std::mem::take(&mut self.work) {
                self.give(part, piece.text, piece.end != End::Nothing);
            }
        }
    }

    /// Cuts a piece of a long work where a part ends, and where it is long itself.
    fn cut(&mut self, piece: Piece) {
        let (mut text, mut at) = (piece.text.as_str(), piece.at);
        loop {
            let (part, border) = self.split.stretch(at, piece.of);
            let to_border = usize::try_from(border - at).unwrap_or(usize::MAX);
            let wanted = to_border.min(2 * PIECE_BYTES);
            if text.len() <= wanted {
                return self.give(part, text.to_owned(), piece.end != End::Nothing);
            }
            let cut = cut_after(text, wanted);
            self.give(part, text[..cut].to_owned(), false);
            (text, at) = (&text[cut..], at + cut as u64);
        }
    }

    fn give(&mut self, part: Part, text: String, ends: bool) {
        let mut text = text;
        if self.open != Some(part) {
            if let Some(part) = self.open.take() {
                self.ready.push_back(Stretch {
                    part,
                    text: String::new(),
                    ends: true,
                });
                // A document keeps its indentation, a stretch begins with a word.
                text = text.trim_start().to_owned();
            }
            if text.is_empty() {
                return;
            }
        }
        self.open = (!ends).then_some(part);
        self.ready.push_back(Stretch { part, text, ends });
    }

    /// Bytes of the works' text in each part; stops as soon as every part has `enough` of them. Of
    /// a long work the beginning tells it.
    pub(crate) fn survey(mut self, enough: u64) -> Result<[u64; 3]> {
        let mut bytes = [0; 3];
        while let Some(piece) = self.pieces.next() {
            let piece = piece?;
            let (at, of) = (piece.at, piece.of);
            if self.split.is_whole(of) {
                self.sort(piece);
                if let Some(stretch) = self.ready.pop_front() {
                    bytes[stretch.part as usize] += of;
                }
                self.ready.clear();
            } else if at == 0 {
                let share = |part| (self.split.share(part) * of as f64) as u64;
                let (validation, test) = (share(Part::Validation), share(Part::Test));
                for (sum, more) in bytes
                    .iter_mut()
                    .zip([of - validation - test, validation, test])
                {
                    *sum += more;
                }
            }
            if bytes.iter().all(|&bytes| bytes >= enough) {
                break;
            }
        }
        Ok(bytes)
    }
}

impl Iterator for Stretches {
    type Item = Result<Stretch>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(stretch) = self.ready.pop_front() {
                self.given += 1;
                return Some(Ok(stretch));
            }
            if self.between_works {
                (self.start, self.given) = (self.pieces.place(), 0);
            }
            match self.pieces.next()? {
                Ok(piece) => {
                    self.between_works = piece.end == End::Work;
                    self.sort(piece);
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// Where to cut `text` at or soon after `index`: before a line end, else before white space, so
/// that a byte-level tokenizer makes the same tokens of both sides as of the whole; else between
/// two characters.
fn cut_after(text: &str, index: usize) -> usize {
    let from = text.ceil_char_boundary(index);
    let to = text.ceil_char_boundary((from + LOOK_AHEAD).min(text.len()));
    let ahead = &text[from..to];
    // Behind a word: the white space before `from` is no end of one.
    let end_of = |space: usize| {
        let word = text[..from + space].trim_end().len();
        (word >= from && word > 0).then_some(word)
    };
    let line = ahead.match_indices('\n').find_map(|(i, _)| end_of(i));
    let word = || {
        ahead
            .match_indices(char::is_whitespace)
            .find_map(|(i, _)| end_of(i))
    };
    line.or_else(word).unwrap_or(from)
}

#[cfg(test)]
#[path = "stretches_tests.rs"]
mod tests;
