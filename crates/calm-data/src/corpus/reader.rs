//! What a reader of a file yields: pieces of text, the documents that they end, the works that
//! these belong to.

use crate::error::Result;

/// A longer text comes in pieces of about this many bytes.
pub(crate) const PIECE_BYTES: usize = 1 << 16;

/// What is over after a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Nothing: the document goes on.
    Nothing,
    /// A document, and its work goes on.
    Document,
    /// A document, and the work with it.
    Work,
}

/// Consecutive text of one document; not empty, line ends are LF.
///
/// A *document* ends with end-of-text. A *work* is what the split treats as one: mostly a single
/// document, but a book of chapters is one too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    pub text: String,
    /// Where it begins in its work, in bytes as they lie in the file.
    pub at: u64,
    /// The work's length in the same bytes.
    pub of: u64,
    pub end: End,
}

impl Piece {
    /// A work of one document in one piece.
    pub fn whole(text: String) -> Self {
        Self {
            at: 0,
            of: text.len() as u64,
            text,
            end: End::Work,
        }
    }
}

/// What a reader finds next.
#[derive(Debug)]
pub(crate) enum Next {
    Piece(Piece),
    BadLine { line: u64, reason: String },
    End,
}

/// Where a reader stands in its file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// Pieces before it; of JSON Lines the lines, of Parquet the rows.
    pub items: u64,
    /// Bytes before it, decompressed, where the reader can begin at one; else 0.
    pub bytes: u64,
}

/// Reads one file.
pub(crate) trait PieceReader: Send {
    fn next_piece(&mut self) -> Result<Next>;

    /// Where the next piece begins, where that is more than a number of pieces.
    fn place(&self) -> Option<Place> {
        None
    }
}

/// Whole texts, each a work of one document, read ahead from a small pinned archive.
#[derive(Debug)]
pub(crate) struct Texts(std::vec::IntoIter<String>);

impl Texts {
    pub fn new(texts: Vec<String>) -> Self {
        Self(texts.into_iter())
    }

    #[cfg(test)]
    pub fn all(self) -> Vec<String> {
        self.0.collect()
    }
}

impl PieceReader for Texts {
    fn next_piece(&mut self) -> Result<Next> {
        let piece = self.0.next().map(Piece::whole);
        Ok(piece.map_or(Next::End, Next::Piece))
    }
}
