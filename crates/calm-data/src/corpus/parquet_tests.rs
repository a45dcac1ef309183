//! Rows of Parquet files, right ones and damaged ones.

use std::fs;

use parquet::basic::{Encoding, GzipLevel, ZstdLevel};
use parquet::data_type::Int64Type;
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder, WriterVersion};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::ColumnPath;
use tempfile::NamedTempFile;

use super::*;

const OPTIONAL: &str = "message m { required int64 id; optional binary text (UTF8); }";
const REQUIRED: &str = "message m { required int64 id; required binary text; }";

fn plain() -> WriterPropertiesBuilder {
    WriterProperties::builder().set_dictionary_enabled(false)
}

/// A file with these groups of rows; `id` is their number.
fn file(schema: &str, properties: WriterPropertiesBuilder, groups: &[&[Option<&[u8]>]]) -> Vec<u8> {
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let optional = schema.get_fields()[1].is_optional();
    let properties = Arc::new(properties.build());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, properties).unwrap();
    for rows in groups {
        let mut group = writer.next_row_group().unwrap();
        let ids: Vec<i64> = (0..rows.len() as i64).collect();
        let mut column = group.next_column().unwrap().unwrap();
        let ids = column.typed::<Int64Type>().write_batch(&ids, None, None);
        ids.unwrap();
        column.close().unwrap();
        let levels: Vec<i16> = rows.iter().map(|row| i16::from(row.is_some())).collect();
        let values = rows.iter().flatten();
        let values: Vec<ByteArray> = values.map(|row| row.to_vec().into()).collect();
        let levels = optional.then_some(&levels[..]);
        let mut column = group.next_column().unwrap().unwrap();
        let texts = column.typed::<ByteArrayType>();
        texts.write_batch(&values, levels, None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    writer.into_inner().unwrap()
}

fn texts<'a>(rows: &[&'a str]) -> Vec<Option<&'a [u8]>> {
    rows.iter().map(|row| Some(row.as_bytes())).collect()
}

fn on_disk(bytes: &[u8]) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    fs::write(file.path(), bytes).unwrap();
    file
}

type Row = Result<String, (u64, String)>;

fn read_path(path: &Path, longest: u64) -> Result<(Vec<Row>, u64)> {
    let bytes = Arc::new(AtomicU64::new(0));
    let mut reader = ParquetRows::with_longest(path, &bytes, longest)?;
    let (mut out, mut before) = (Vec::new(), 0);
    loop {
        match reader.next_piece()? {
            Next::Piece(piece) => out.push(Ok(piece.text)),
            Next::BadLine { line, reason } => out.push(Err((line, reason))),
            Next::End => return Ok((out, bytes.load(Ordering::Relaxed))),
        }
        let now = bytes.load(Ordering::Relaxed);
        assert!(now >= before);
        before = now;
    }
}

fn read(bytes: &[u8]) -> Result<Vec<Row>> {
    let file = on_disk(bytes);
    let (rows, counted) = read_path(file.path(), LONGEST_LINE)?;
    assert_eq!(counted, bytes.len() as u64);
    Ok(rows)
}

fn reason(bytes: &[u8]) -> String {
    match read(bytes).unwrap_err() {
        Error::BadParquet { reason, .. } => reason,
        other => panic!("{other}"),
    }
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fixtures/parquet")
        .join(name)
}

const FIXTURES: [&str; 3] = ["snappy.parquet", "zstd_v2.parquet", "gzip_delta.parquet"];

/// Across row groups, nulls and pages; of a required and of an optional column.
#[test]
fn a_reader_that_begins_at_a_place_reads_the_rest() {
    let rows: Vec<String> = (0..50).map(|i| format!("row {i}")).collect();
    let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
    let mut groups: Vec<_> = rows.chunks(17).map(texts).collect();
    let required = file(
        REQUIRED,
        plain(),
        &groups.iter().map(Vec::as_slice).collect::<Vec<_>>(),
    );
    groups[1][3] = None;
    groups[2][0] = None;
    let small = WriterProperties::builder().set_data_page_row_count_limit(5);
    let optional = file(
        OPTIONAL,
        small,
        &groups.iter().map(Vec::as_slice).collect::<Vec<_>>(),
    );
    let files = [on_disk(&required), on_disk(&optional)];
    let paths = files.iter().map(|file| file.path().to_path_buf());
    for path in paths.chain(FIXTURES.map(fixture)) {
        let bytes = Arc::new(AtomicU64::new(0));
        let mut reader = ParquetRows::open(&path, Place::default(), &bytes).unwrap();
        let (mut places, mut pieces) = (vec![reader.place().unwrap()], Vec::new());
        while let Next::Piece(piece) = reader.next_piece().unwrap() {
            pieces.push(piece);
            places.push(reader.place().unwrap());
        }
        for (i, place) in places.into_iter().enumerate() {
            let mut reader = ParquetRows::open(&path, place, &bytes).unwrap();
            assert_eq!(reader.place(), Some(place));
            for piece in &pieces[i..] {
                let next = reader.next_piece().unwrap();
                assert!(matches!(next, Next::Piece(found) if found == *piece), "{i}");
            }
            assert!(matches!(reader.next_piece().unwrap(), Next::End));
        }
    }
}

/// Written by another program: compressions, encodings and versions of pages that are about.
#[test]
fn files_of_another_writer_hold_their_texts() {
    let expected = fs::read(fixture("texts.json")).unwrap();
    let expected: Vec<String> = serde_json::from_slice(&expected).unwrap();
    assert!(expected.len() > 60);
    for name in FIXTURES {
        let (found, _) = read_path(&fixture(name), LONGEST_LINE).unwrap();
        let found: Vec<String> = found.into_iter().map(|row| row.unwrap()).collect();
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn every_compression_and_encoding_reads_alike() {
    let long = "many words ".repeat(3000);
    let first = texts(&["one", "two\r\nlines", "one", &long, "three"]);
    let mut second = texts(&["four", " \n", "", "five"]);
    second.insert(1, None);
    second.push(None);
    let expected = ["one", "two\nlines", "one", &long, "three", "four", "five"];
    let expected = expected.map(|text| Ok(text.to_owned()));
    let small = |properties: WriterPropertiesBuilder| {
        let properties = properties.set_data_page_size_limit(64);
        properties.set_write_batch_size(2)
    };
    let text = || ColumnPath::from(COLUMN);
    for compression in [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(GzipLevel::default()),
        Compression::ZSTD(ZstdLevel::default()),
    ] {
        for version in [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0] {
            for properties in [
                WriterProperties::builder(),
                plain().set_column_encoding(text(), Encoding::PLAIN),
                plain().set_column_encoding(text(), Encoding::DELTA_LENGTH_BYTE_ARRAY),
                plain().set_column_encoding(text(), Encoding::DELTA_BYTE_ARRAY),
            ] {
                let properties = properties.set_compression(compression);
                let properties = small(properties.set_writer_version(version));
                let bytes = file(OPTIONAL, properties.clone(), &[&first, &[], &second]);
                assert_eq!(read(&bytes).unwrap(), expected, "{compression} {version:?}");
                let bytes = file(REQUIRED, properties, &[&first]);
                assert_eq!(read(&bytes).unwrap(), expected[..5]);
            }
        }
    }
}

#[test]
fn bad_rows_have_their_number_in_the_file() {
    let first: [Option<&[u8]>; 3] = [Some(b"one"), None, Some(b"ab\xffc")];
    let long = [b'x'; 100];
    let second: [Option<&[u8]>; 2] = [Some(&long), Some(b"two")];
    let bytes = file(OPTIONAL, WriterProperties::builder(), &[&first, &second]);
    let (rows, _) = read_path(on_disk(&bytes).path(), 99).unwrap();
    let bad = |row, reason: &str| Err((row, reason.to_owned()));
    assert_eq!(
        rows,
        [
            Ok("one".to_owned()),
            bad(3, "not UTF-8 at byte 2 of the text"),
            bad(4, "longer than 0 MiB"),
            Ok("two".to_owned())
        ]
    );
}

#[test]
fn a_column_that_is_no_text_is_named() {
    let rows = texts(&["a"]);
    let reason_of = |schema| reason(&file(schema, plain(), &[&rows]));
    assert_eq!(
        reason_of("message m { required int64 id; required binary body (UTF8); }"),
        "no column `text` among its columns (id, body)"
    );
    for schema in [
        "message m { required int64 text; required binary body (UTF8); }",
        "message m { required int64 id; required binary text (DECIMAL(9,2)); }",
        "message m { required int64 id; required binary text (BSON); }",
    ] {
        assert_eq!(reason_of(schema), "column `text` holds no strings");
    }
    let two = "message m { required int64 text; required binary text (UTF8); }";
    assert_eq!(reason_of(two), "two columns are named `text`");
    for nested in [
        "message m { optional group text (LIST) { repeated group list { optional binary text; } } }",
        "message m { repeated binary text (UTF8); }",
    ] {
        let schema = Arc::new(parse_message_type(nested).unwrap());
        let writer = SerializedFileWriter::new(Vec::new(), schema, Arc::default()).unwrap();
        let bytes = writer.into_inner().unwrap();
        assert_eq!(reason(&bytes), "column `text` holds no strings");
    }
}

#[test]
fn a_compression_that_is_not_read_is_named() {
    let bytes = fs::read(fixture("snappy.parquet")).unwrap();
    let file = on_disk(&bytes);
    let mut reader = ParquetRows::open(file.path(), Place::default(), &Arc::default()).unwrap();
    let column = reader.metadata.row_group(0).column(reader.column).clone();
    let column = column.into_builder().set_compression(Compression::LZ4_RAW);
    let error = values(&reader.file, &column.build().unwrap(), 25).err();
    assert!(
        error
            .unwrap()
            .0
            .starts_with("compressed as LZ4_RAW; snappy")
    );
    assert!(reader.next_piece().is_ok());
}

#[test]
fn foreign_and_cut_files_are_errors() {
    for bytes in [
        &b""[..],
        b"PAR1",
        b"a text that is no Parquet file",
        b"PAR1\xff\xff\xff\xffPAR1",
    ] {
        assert!(!reason(bytes).is_empty());
    }
    for name in FIXTURES {
        let whole = fs::read(fixture(name)).unwrap();
        for length in (0..whole.len()).step_by(97) {
            assert!(!reason(&whole[..length]).is_empty());
            // With the footer, and a hole before it.
            let footer = whole.len() - 8;
            let size = u32::from_le_bytes(whole[footer..footer + 4].try_into().unwrap());
            let data = footer - size as usize;
            let cut = [&whole[..length.min(data)], &whole[data..]].concat();
            if length < data / 2 {
                assert!(matches!(read(&cut), Err(Error::BadParquet { .. })));
            }
        }
    }
}

/// A generator of numbers that are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}

/// Damage is an error, or other text: no panic comes out, and no row more than there is room for.
/// The first two files have no checksums of their pages, so that damage comes as far as the decoders.
#[test]
fn damage_is_an_error_and_never_a_panic() {
    let rows: Vec<String> = (0..40)
        .map(|i| format!("row {i} {}", "ab".repeat(i)))
        .collect();
    let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
    let written = |encoding, version| {
        let properties = plain().set_column_encoding(ColumnPath::from(COLUMN), encoding);
        let properties = properties
            .set_data_page_size_limit(256)
            .set_write_batch_size(8);
        let bytes = file(
            OPTIONAL,
            properties.set_writer_version(version),
            &[&texts(&rows)],
        );
        assert_eq!(read(&bytes).unwrap().len(), 40);
        bytes
    };
    let mut files: Vec<Vec<u8>> = ["snappy.parquet", "gzip_delta.parquet"]
        .map(|name| fs::read(fixture(name)).unwrap())
        .into();
    for encoding in [
        Encoding::PLAIN,
        Encoding::DELTA_LENGTH_BYTE_ARRAY,
        Encoding::DELTA_BYTE_ARRAY,
    ] {
        files.push(written(encoding, WriterVersion::PARQUET_1_0));
        files.push(written(encoding, WriterVersion::PARQUET_2_0));
    }
    let (mut errors, mut read_well) = (0, 0);
    for (i, whole) in files.iter().enumerate() {
        let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15 ^ i as u64);
        for case in 0..200 {
            let mut bytes = whole.clone();
            for _ in 0..=case % 4 {
                let at = numbers.below(bytes.len());
                match case % 3 {
                    0 => bytes[at] ^= 1 << numbers.below(8),
                    1 => bytes[at] = 0xff,
                    _ => bytes[at] = numbers.below(256) as u8,
                }
            }
            match read(&bytes) {
                Ok(rows) => {
                    assert!(rows.len() <= whole.len());
                    read_well += 1;
                }
                Err(Error::BadParquet { reason, .. }) => {
                    assert!(!reason.is_empty());
                    errors += 1;
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
    assert!(errors > 100 && read_well > 100, "{errors} {read_well}");
}
