//! Parquet: one document a row, in the column `text`.
//!
//! Of a file the footer and the pages of that column are read, one page at a time.

use std::any::Any;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parquet::basic::{Compression, ConvertedType, LogicalType, Type as Physical};
use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, ParquetMetaDataReader};
use parquet::file::reader::{ChunkReader, Length, SerializedPageReader};
use parquet::schema::types::SchemaDescriptor;

use super::jsonl::LONGEST_LINE;
use super::parquet_footer;
use super::parquet_pages::CheckedPages;
use super::reader::{Next, Piece, PieceReader, Place};
use crate::error::{Error, Result};

const COLUMN: &str = "text";

/// Reads one document per row; nulls and blank texts are passed over.
pub(crate) struct ParquetRows {
    path: PathBuf,
    file: Arc<Shared>,
    metadata: ParquetMetaData,
    /// Index of the column among the leaves of the schema.
    column: usize,
    /// Of every row group its rows, counted through the file from 0.
    groups: Vec<Range<u64>>,
    next_group: usize,
    current: Option<Group>,
    /// Rows before the next.
    row: u64,
    /// Longest text in bytes; a longer one is a bad row.
    longest: u64,
    progress: Progress,
}

/// The row group that is being read.
struct Group {
    values: ColumnReaderImpl<ByteArrayType>,
    rows: Range<u64>,
}

impl ParquetRows {
    /// Opens `path` and reads its footer; what is read counts in `bytes`. Row groups before the row that
    /// `from` names are not read, pages before it in its own are not decoded.
    pub fn open(path: &Path, from: Place, bytes: &Arc<AtomicU64>) -> Result<Self> {
        let mut rows = Self::with_longest(path, bytes, LONGEST_LINE)?;
        guarded(|| rows.skip_to(from.items)).map_err(unreadable(path))?;
        Ok(rows)
    }

    fn with_longest(path: &Path, bytes: &Arc<AtomicU64>, longest: u64) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        let length = file.metadata().map_err(Error::io("read", path))?.len();
        let file = Arc::new(Shared { file, length });
        let footer = || {
            check_footer(&file)?;
            let metadata = ParquetMetaDataReader::new().parse_and_finish(&*file)?;
            let column = column(metadata.file_metadata().schema_descr())?;
            let groups = groups(&metadata)?;
            Ok((metadata, column, groups))
        };
        let (metadata, column, groups) = guarded(footer).map_err(unreadable(path))?;
        Ok(Self {
            path: path.to_path_buf(),
            file,
            metadata,
            column,
            progress: Progress {
                all: length,
                rows: groups.last().map_or(0, |rows| rows.end),
                told: 0,
                bytes: Arc::clone(bytes),
            },
            groups,
            next_group: 0,
            current: None,
            row: 0,
            longest,
        })
    }

    fn skip_to(&mut self, row: u64) -> Result<(), Reason> {
        self.row = row;
        self.next_group = self.groups.partition_point(|rows| rows.end <= row);
        let Some(rows) = self.groups.get(self.next_group) else {
            return Ok(());
        };
        let before = row - rows.start;
        if before > 0 {
            let mut group = self.open_group()?;
            group.rows.start = row;
            let skipped = group.values.skip_records(before as usize)?;
            if skipped as u64 != before {
                return Err("a row group has fewer rows than the footer says".into());
            }
            self.current = Some(group);
        }
        Ok(())
    }

    /// Begins the next row group.
    fn open_group(&mut self) -> Result<Group, Reason> {
        let i = self.next_group;
        self.next_group += 1;
        let meta = self.metadata.row_group(i).column(self.column);
        let rows = self.groups[i].clone();
        let values = values(&self.file, meta, rows.end - rows.start)?;
        Ok(Group { values, rows })
    }

    /// The next row's number, from 1, and its value; `None` at the end of the file.
    fn next_row(&mut self) -> Result<Option<(u64, Option<ByteArray>)>, Reason> {
        loop {
            let group = match &mut self.current {
                Some(group) => group,
                None if self.next_group == self.groups.len() => return Ok(None),
                None => {
                    let group = self.open_group()?;
                    self.current.insert(group)
                }
            };
            let (mut value, mut levels) = (Vec::with_capacity(1), Vec::with_capacity(1));
            // One row at a time: rows share the bytes of their page, and no second page is read
            // before the first is done with.
            let (rows, ..) = group
                .values
                .read_records(1, Some(&mut levels), None, &mut value)?;
            let expected = group.rows.next();
            match (rows, expected) {
                (0, None) => self.current = None,
                (1, Some(row)) => {
                    self.row = row + 1;
                    return Ok(Some((row + 1, value.pop())));
                }
                (rows, _) => {
                    let than = if rows == 0 { "fewer" } else { "more" };
                    let i = self.next_group;
                    return Err(
                        format!("row group {i} has {than} rows than the footer says").into(),
                    );
                }
            }
        }
    }
}

impl PieceReader for ParquetRows {
    fn next_piece(&mut self) -> Result<Next> {
        loop {
            let row = guarded(|| self.next_row()).map_err(unreadable(&self.path))?;
            let Some((row, value)) = row else {
                self.progress.end();
                return Ok(Next::End);
            };
            self.progress.row(row);
            let Some(value) = value else { continue };
            let bad = |reason| Ok(Next::BadLine { line: row, reason });
            if value.len() as u64 > self.longest {
                return bad(format!("longer than {} MiB", self.longest >> 20));
            }
            let text = match std::str::from_utf8(value.data()) {
                Ok(text) if text.trim().is_empty() => continue,
                Ok(text) => text.replace("\r\n", "\n"),
                Err(e) => return bad(format!("not UTF-8 at byte {} of the text", e.valid_up_to())),
            };
            return Ok(Next::Piece(Piece::whole(text)));
        }
    }

    fn place(&self) -> Option<Place> {
        Some(Place {
            items: self.row,
            bytes: 0,
        })
    }
}

/// An error where the footer is one that the library must not be shown. What else is wrong with the
/// file, it says itself.
fn check_footer(file: &Shared) -> Result<(), Reason> {
    const END: u64 = 8;
    let Some(at) = file.length.checked_sub(END) else {
        return Ok(());
    };
    let end = file.get_bytes(at, END as usize)?;
    let length = u32::from_le_bytes([end[0], end[1], end[2], end[3]]);
    if !end.ends_with(b"PAR1") || u64::from(length) > at {
        return Ok(());
    }
    let footer = file.get_bytes(at - u64::from(length), length as usize)?;
    match parquet_footer::is_sane(&footer) {
        true => Ok(()),
        false => Err("damaged: a footer that can't be".into()),
    }
}

/// Where the column stands among the leaves of the schema.
fn column(schema: &SchemaDescriptor) -> Result<usize, Reason> {
    let fields = schema.root_schema().get_fields();
    let mut found = fields.iter().filter(|field| field.name() == COLUMN);
    let Some(field) = found.next() else {
        let names: Vec<&str> = fields.iter().take(20).map(|field| field.name()).collect();
        let names = names.join(", ");
        return Err(format!("no column `{COLUMN}` among its columns ({names})").into());
    };
    if found.next().is_some() {
        return Err(format!("two columns are named `{COLUMN}`").into());
    }
    let no_text = || Reason(format!("column `{COLUMN}` holds no strings"));
    // A leaf whose path is longer belongs to a list or struct of that name.
    let leaf = |i: &usize| schema.column(*i).path().parts() == [COLUMN];
    let i = (0..schema.num_columns()).find(leaf).ok_or_else(no_text)?;
    let column = schema.column(i);
    let info = field.get_basic_info();
    let is_text = match info.logical_type_ref() {
        Some(logical) => matches!(
            logical,
            LogicalType::String | LogicalType::Enum | LogicalType::Json
        ),
        None => matches!(
            info.converted_type(),
            ConvertedType::NONE | ConvertedType::UTF8 | ConvertedType::ENUM | ConvertedType::JSON
        ),
    };
    let is_flat = column.max_rep_level() == 0 && column.max_def_level() <= 1;
    (column.physical_type() == Physical::BYTE_ARRAY && is_text && is_flat)
        .then_some(i)
        .ok_or_else(no_text)
}

/// The rows of every row group.
fn groups(metadata: &ParquetMetaData) -> Result<Vec<Range<u64>>, Reason> {
    let mut end = 0;
    let group = |rows: i64| {
        let start = end;
        end = u64::try_from(rows).ok().and_then(|n| n.checked_add(end))?;
        Some(start..end)
    };
    let rows = metadata.row_groups().iter().map(|group| group.num_rows());
    let groups: Option<_> = rows.map(group).collect();
    groups.ok_or_else(|| "a row group's number of rows is none".into())
}

/// Reads the column's values in one row group.
fn values(
    file: &Arc<Shared>,
    meta: &ColumnChunkMetaData,
    rows: u64,
) -> Result<ColumnReaderImpl<ByteArrayType>, Reason> {
    let known = matches!(
        meta.compression(),
        Compression::UNCOMPRESSED
            | Compression::SNAPPY
            | Compression::GZIP(_)
            | Compression::ZSTD(_)
    );
    if !known {
        let codec = meta.compression();
        return Err(format!("compressed as {codec}; snappy, zstd, gzip or nothing is read").into());
    }
    // The library takes these for numbers of a right file.
    let start = meta
        .dictionary_page_offset()
        .unwrap_or(meta.data_page_offset());
    let end = start.checked_add(meta.compressed_size());
    let inside = |end: i64| start >= 0 && end >= start && end as u64 <= file.length;
    if !end.is_some_and(inside) {
        return Err(format!("column `{COLUMN}` lies outside the file; is it cut off?").into());
    }
    let rows = usize::try_from(rows).map_err(|_| "too many rows in a row group")?;
    let pages = SerializedPageReader::new(Arc::clone(file), meta, rows, None)?;
    let column = meta.column_descr_ptr();
    let optional = column.max_def_level() > 0;
    let pages = Box::new(CheckedPages::new(pages, optional));
    Ok(ColumnReaderImpl::<ByteArrayType>::new(column, pages))
}

/// Why a file can't be read.
struct Reason(String);

impl From<String> for Reason {
    fn from(reason: String) -> Self {
        Self(reason)
    }
}

impl From<&str> for Reason {
    fn from(reason: &str) -> Self {
        Self(reason.to_owned())
    }
}

impl From<ParquetError> for Reason {
    fn from(error: ParquetError) -> Self {
        let message = error.to_string();
        let prefixes = ["Parquet error: ", "EOF: ", "External: "];
        let short = prefixes.iter().find_map(|p| message.strip_prefix(p));
        Self(short.unwrap_or(&message).to_owned())
    }
}

fn unreadable(path: &Path) -> impl FnOnce(Reason) -> Error {
    |Reason(reason)| Error::BadParquet {
        path: path.to_path_buf(),
        reason,
    }
}

/// Runs a piece of reading. The library panics at some damage that it does not look for; nothing of
/// what it leaves is used again.
fn guarded<T>(read: impl FnOnce() -> Result<T, Reason>) -> Result<T, Reason> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|panic| Err(panic_reason(&*panic).into()))
}

fn panic_reason(panic: &(dyn Any + Send)) -> String {
    let message = panic.downcast_ref::<String>().map(String::as_str);
    let message = message.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("damaged ({})", message.unwrap_or("the reader gave up"))
}

/// Progress in bytes of the whole file, by rows: other columns are never read.
struct Progress {
    all: u64,
    rows: u64,
    told: u64,
    bytes: Arc<AtomicU64>,
}

impl Progress {
    fn row(&mut self, row: u64) {
        let share = u128::from(self.all) * u128::from(row) / u128::from(self.rows.max(row));
        // No more than `all`, which is a u64.
        self.tell(share as u64);
    }

    fn end(&mut self) {
        self.tell(self.all);
    }

    fn tell(&mut self, upto: u64) {
        self.bytes.fetch_add(upto - self.told, Ordering::Relaxed);
        self.told = upto;
    }
}

/// A file that takes no length for granted: memory is asked for what the file has.
struct Shared {
    file: File,
    length: u64,
}

impl Length for Shared {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for Shared {
    type T = BufReader<File>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        let mut file = self.file.try_clone()?;
        file.seek(SeekFrom::Start(start))?;
        // Asked for page headers, which are short.
        Ok(BufReader::with_capacity(1 << 10, file))
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        let end = start.checked_add(length as u64);
        if end.is_none_or(|end| end > self.length) {
            return Err(ParquetError::EOF("the file is cut off".to_owned()));
        }
        let mut file = self.file.try_clone()?;
        file.seek(SeekFrom::Start(start))?;
        let mut buffer = vec![0; length];
        file.read_exact(&mut buffer)?;
        Ok(buffer.into())
    }
}

#[cfg(test)]
#[path = "parquet_tests.rs"]
mod tests;
