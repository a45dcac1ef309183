//! Streams from files: what they hold, that they go on exactly, and what they refuse.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::sync::LazyLock;

use tempfile::TempDir;

use super::*;
use crate::{BadLinePolicy, CacheDir, Corpus, Part, Split};

static TOKENIZER: LazyLock<Tokenizer> =
    LazyLock::new(|| Tokenizer::train((0..100).map(document), 300).unwrap());

const WINDOW: usize = 12;

fn config(buffer_tokens: usize) -> StreamConfig {
    StreamConfig {
        window: WINDOW,
        chunk: 4,
        buffer_tokens,
        rank: Rank::ONLY,
    }
}

fn document(i: usize) -> String {
    let line = format!("document {i} is about the number {} and no other\n", i * i);
    // Every seventh is so long that it is cut in stretches of its own.
    line.repeat(if i % 7 == 3 { 60 } else { 1 })
}

fn line(i: usize) -> String {
    let text = serde_json::to_string(&document(i)).unwrap();
    // Blank lines and other fields count in places.
    format!("{{\"id\": {i}, \"text\": {text}}}\n{}", ["", "\n"][i % 2])
}

/// Works of 2,000 bytes or more are cut.
fn split() -> Split {
    Split::new(0.1, 0.1, 2000)
}

/// A directory with a file of every kind.
fn directory() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        fs::write(directory.path().join(name), bytes).unwrap();
    };
    let lines = |range: std::ops::Range<usize>| range.map(line).collect::<String>();
    write("a.jsonl", lines(0..40).as_bytes());
    write(
        "b.txt",
        (200..260).map(document).collect::<String>().as_bytes(),
    );
    write("c.txt", document(304).as_bytes());
    let mut zstd = Vec::new();
    // Two frames, as a parallel compressor makes them.
    for range in [40..60, 60..80] {
        let mut encoder = zstd::Encoder::new(&mut zstd, 1).unwrap();
        encoder.write_all(lines(range).as_bytes()).unwrap();
        encoder.finish().unwrap();
    }
    write("d.jsonl.zst", &zstd);
    #[cfg(feature = "parquet")]
    {
        let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/parquet");
        write(
            "e.parquet",
            &fs::read(format!("{fixtures}/zstd_v2.parquet")).unwrap(),
        );
    }
    directory
}

fn shards_of(directory: &TempDir) -> Shards {
    let corpus = Corpus::parse(&[directory.path().to_str().unwrap().to_owned()]).unwrap();
    let cache = CacheDir::at("/nonexistent");
    let policy = BadLinePolicy::Fatal;
    corpus.shards(&cache, &split(), policy).unwrap()
}

fn open(directory: &TempDir, buffer: usize, cursor: Cursor) -> Result<ShardStream> {
    shards_of(directory).stream(&TOKENIZER, config(buffer), cursor)
}

/// The windows of an epoch, read in the plainest way: a file at a time, as a whole.
fn windows_of_epoch(directory: &TempDir, seed: u64, epoch: u64, rank: Rank) -> Vec<Vec<u32>> {
    let mut files: Vec<_> = fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let order = Permutation::new(files.len() as u64, key(seed, epoch, PURPOSE_ORDER));
    let mut tokens = Vec::new();
    for i in (rank.index..files.len()).step_by(rank.of) {
        let file = files[order.get(i as u64) as usize].to_str().unwrap();
        let corpus = Corpus::parse(&[file.to_owned()]).unwrap();
        let cache = CacheDir::at("/nonexistent");
        for stretch in corpus
            .stretches(&cache, &split(), BadLinePolicy::Fatal)
            .unwrap()
            .map(Result::unwrap)
            .filter(|stretch| stretch.part == Part::Train)
        {
            tokens.extend(TOKENIZER.encode(&stretch.text).unwrap());
            tokens.extend(stretch.ends.then(|| TOKENIZER.end_of_text()));
        }
    }
    let offset = below(key(seed, epoch, PURPOSE_OFFSET), WINDOW as u64) as usize;
    let windows = tokens[offset..].chunks_exact(WINDOW);
    windows.map(<[u32]>::to_vec).collect()
}

/// How often each window comes.
fn counted(windows: impl IntoIterator<Item = Vec<u32>>) -> BTreeMap<Vec<u32>, usize> {
    let mut counts = BTreeMap::new();
    for window in windows {
        *counts.entry(window).or_default() += 1;
    }
    counts
}

#[test]
fn every_window_of_an_epoch_comes_once_and_mixed_within_its_block() {
    let directory = directory();
    for buffer in [1, 20 * WINDOW, 1 << 20] {
        let mut stream = open(&directory, buffer, Cursor::new(5)).unwrap();
        for epoch in 0..3 {
            let expected = windows_of_epoch(&directory, 5, epoch, Rank::ONLY);
            assert!(expected.len() > 300, "{}", expected.len());
            let block = (buffer / WINDOW).max(1);
            let mut in_order = 0;
            for expected in expected.chunks(block) {
                let found: Vec<_> = expected
                    .iter()
                    .map(|_| stream.next_window().unwrap().to_vec())
                    .collect();
                in_order += expected.iter().zip(&found).filter(|(a, b)| a == b).count();
                assert_eq!(counted(found), counted(expected.to_vec()));
                assert_eq!(stream.cursor().epoch, epoch);
            }
            // Of a random order about one window in a block stays where it was.
            assert!(block == 1 || in_order < expected.len() / 4, "{in_order}");
        }
    }
}

#[test]
fn a_resumed_stream_goes_on_exactly_from_any_cursor() {
    let directory = directory();
    for buffer in [1, 7 * WINDOW, 64 * WINDOW] {
        let mut whole = open(&directory, buffer, Cursor::new(9)).unwrap();
        let mut windows: Vec<(Cursor, Vec<u32>)> = Vec::new();
        while whole.cursor().epoch < 2 || !windows.len().is_multiple_of(200) {
            windows.push((whole.cursor(), whole.next_window().unwrap().to_vec()));
        }
        for from in (0..windows.len() - 100).step_by(67) {
            let saved = serde_json::to_string(&windows[from].0).unwrap();
            let cursor: Cursor = serde_json::from_str(&saved).unwrap();
            let mut resumed = open(&directory, buffer, cursor).unwrap();
            for (i, (_, expected)) in windows[from..from + 90].iter().enumerate() {
                assert_eq!(
                    resumed.next_window().unwrap(),
                    expected,
                    "{buffer} {from} {i}"
                );
            }
            let (after, _) = windows[from + 90];
            // A block's end and the beginning of the next are the same place.
            if after.position > 0 {
                assert_eq!(resumed.cursor(), after);
            }
        }
    }
}

#[test]
fn what_lies_before_a_cursor_is_not_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.jsonl");
    let lines: String = (0..400).map(line).collect();
    fs::write(&path, &lines).unwrap();
    let mut stream = open(&directory, 10 * WINDOW, Cursor::new(1)).unwrap();
    while stream.cursor().block.unwrap().bytes < lines.len() as u64 / 2 {
        stream.next_window().unwrap();
    }
    let cursor = stream.cursor();
    let expected: Vec<_> = (0..50)
        .map(|_| stream.next_window().unwrap().to_vec())
        .collect();
    // No JSON up to there.
    let before = cursor.block.unwrap().bytes as usize;
    let damaged = format!("{}{}", "x".repeat(before), &lines[before..]);
    fs::write(&path, damaged).unwrap();
    let mut resumed = open(&directory, 10 * WINDOW, cursor).unwrap();
    for expected in expected {
        assert_eq!(resumed.next_window().unwrap(), expected);
    }
}

#[test]
fn readers_share_the_files_of_an_epoch() {
    let directory = directory();
    let mut shared = Vec::new();
    for index in 0..3 {
        let rank = Rank { index, of: 3 };
        let expected = windows_of_epoch(&directory, 2, 0, rank);
        let config = StreamConfig {
            rank,
            ..config(1 << 20)
        };
        let shards = shards_of(&directory);
        let mut stream = shards.stream(&TOKENIZER, config, Cursor::new(2)).unwrap();
        let found: Vec<_> = expected
            .iter()
            .map(|_| stream.next_window().unwrap().to_vec())
            .collect();
        assert_eq!(stream.cursor().epoch, 0);
        assert_eq!(counted(found), counted(expected.clone()));
        shared.extend(expected);
    }
    // All but what is cut at the beginnings and ends of the three.
    let all = windows_of_epoch(&directory, 2, 0, Rank::ONLY);
    assert!((all.len() - 6..=all.len()).contains(&shared.len()));
    let too_many = Rank { index: 0, of: 9 };
    let config = StreamConfig {
        rank: too_many,
        ..config(1)
    };
    let error = shards_of(&directory).stream(&TOKENIZER, config, Cursor::new(2));
    assert!(matches!(error, Err(Error::FewShards { readers: 9, .. })));
}

#[test]
fn bad_sizes_and_foreign_cursors_are_errors() {
    let directory = directory();
    let odd = StreamConfig {
        window: 10,
        ..config(1)
    };
    let error = shards_of(&directory).stream(&TOKENIZER, odd, Cursor::new(2));
    assert!(matches!(error, Err(Error::WindowNotMultiple { .. })));
    let start = BlockStart {
        number: 3,
        shard: 99,
        items: 0,
        bytes: 0,
        stretches: 0,
        tokens: 0,
    };
    let foreign = Cursor {
        block: Some(start),
        ..Cursor::new(2)
    };
    let error = open(&directory, 1, foreign);
    assert!(matches!(error, Err(Error::CursorOutOfRange { .. })));
    let little = tempfile::tempdir().unwrap();
    fs::write(little.path().join("a.txt"), "too little").unwrap();
    let error = open(&little, 1, Cursor::new(2));
    assert!(matches!(
        error,
        Err(Error::TooFewTokens { window: WINDOW, .. })
    ));
}

#[test]
fn a_file_that_is_gone_or_damaged_ends_the_stream_with_its_name() {
    let directory = directory();
    let mut stream = open(&directory, 1, Cursor::new(5)).unwrap();
    for entry in fs::read_dir(directory.path()).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let error = loop {
        match stream.next_window() {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(
        error
            .to_string()
            .contains(directory.path().to_str().unwrap()),
        "{error}"
    );
    assert!(matches!(stream.next_window(), Err(Error::StreamEnded)));

    let bad = tempfile::tempdir().unwrap();
    let lines: String = (0..50).map(line).collect();
    fs::write(
        bad.path().join("a.jsonl"),
        format!("{lines}no JSON\n{lines}"),
    )
    .unwrap();
    let corpus = Corpus::parse(&[bad.path().to_str().unwrap().to_owned()]).unwrap();
    let cache = CacheDir::at("/nonexistent");
    let read = |policy| {
        let shards = corpus.shards(&cache, &split(), policy).unwrap();
        let mut stream = shards.stream(&TOKENIZER, config(1 << 20), Cursor::new(1))?;
        stream.next_window()?;
        Ok(stream.bad_lines())
    };
    assert!(matches!(
        read(BadLinePolicy::Fatal),
        Err(Error::BadLine { line: 76, .. })
    ));
    assert_eq!(read(BadLinePolicy::Skip).unwrap(), 1);
}

/// Text of one to two windows, of which an epoch may leave out too much.
#[test]
fn barely_a_window_is_enough_in_every_epoch() {
    let directory = tempfile::tempdir().unwrap();
    let text = "many words for a window ".repeat(40);
    let mut length = text.len();
    let tokens = |length: usize| TOKENIZER.encode(&text[..length]).unwrap().len();
    while tokens(length) >= WINDOW * 3 / 2 {
        length -= 1;
    }
    fs::write(directory.path().join("a.txt"), &text[..length]).unwrap();
    let corpus = Corpus::parse(&[directory.path().to_str().unwrap().to_owned()]).unwrap();
    let cache = CacheDir::at("/nonexistent");
    let all = Split::new(0.0, 0.0, 2000);
    let shards = corpus.shards(&cache, &all, BadLinePolicy::Fatal).unwrap();
    let mut stream = shards
        .stream(&TOKENIZER, config(1), Cursor::new(3))
        .unwrap();
    for epoch in 0..30 {
        assert_eq!(stream.next_window().unwrap().len(), WINDOW);
        assert_eq!(stream.cursor().epoch, epoch);
    }
}

/// Training ends inside a file and inside an epoch.
#[test]
fn bad_lines_are_counted_as_they_are_passed() {
    let directory = tempfile::tempdir().unwrap();
    let lines: String = (0..400).map(|i| format!("{}no JSON\n", line(i))).collect();
    fs::write(directory.path().join("a.jsonl"), &lines).unwrap();
    let corpus = Corpus::parse(&[directory.path().to_str().unwrap().to_owned()]).unwrap();
    let cache = CacheDir::at("/nonexistent");
    let shards = corpus
        .shards(&cache, &split(), BadLinePolicy::Skip)
        .unwrap();
    let mut stream = shards
        .stream(&TOKENIZER, config(1), Cursor::new(3))
        .unwrap();
    stream.next_window().unwrap();
    assert!(stream.bad_lines() > 0);
    while stream.cursor().epoch == 0 {
        stream.next_window().unwrap();
    }
    // Blocks of the next epoch may be counted already, no more than one.
    assert!(
        (400..=800).contains(&stream.bad_lines()),
        "{}",
        stream.bad_lines()
    );
}

#[test]
fn a_stream_that_is_dropped_ends_its_reader_soon() {
    let directory = directory();
    let stream = open(&directory, 100 * WINDOW, Cursor::new(5)).unwrap();
    let stopped = Arc::clone(&stream.stopped);
    drop(stream);
    assert!(stopped.load(Ordering::Relaxed));
    // The reader's clone is gone with it.
    assert_eq!(Arc::strong_count(&stopped), 1);
}

#[test]
fn places_that_the_files_do_not_have_are_refused() {
    let directory = directory();
    let mut stream = open(&directory, 5 * WINDOW, Cursor::new(5)).unwrap();
    stream.next_window().unwrap();
    let right = stream.cursor();
    let start = right.block.unwrap();
    let beyond = BlockStart {
        items: 1_000_000,
        bytes: 1 << 40,
        ..start
    };
    for cursor in [
        Cursor {
            position: 6,
            ..right
        },
        Cursor {
            block: Some(beyond),
            ..right
        },
        Cursor {
            position: 1,
            ..Cursor::new(5)
        },
    ] {
        let error = open(&directory, 5 * WINDOW, cursor).map(|_| ());
        assert!(
            matches!(error, Err(Error::CursorOutOfRange { .. })),
            "{cursor:?}"
        );
    }
}
