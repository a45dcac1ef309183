//! Building, opening and refusing token caches.

use std::collections::BTreeSet;
use std::fs;
use std::sync::LazyLock;

use tempfile::TempDir;

use super::*;

static TOKENIZER: LazyLock<Tokenizer> =
    LazyLock::new(|| Tokenizer::train((0..100).map(text), 300).unwrap());

const SPLIT: Split = Split {
    heldout_fraction: 0.2,
    seed: 1,
};

fn text(i: usize) -> String {
    format!("document {i} is about the number {} and no other", i * i)
}

struct Scene {
    directory: TempDir,
    cache: CacheDir,
    corpus: Corpus,
}

fn scene(lines: &str) -> Scene {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c.jsonl");
    fs::write(&path, lines).unwrap();
    let corpus = Corpus::parse(&[path.to_str().unwrap().to_string()]).unwrap();
    Scene {
        cache: CacheDir::at(directory.path().join("cache")),
        directory,
        corpus,
    }
}

fn records(n: usize) -> String {
    (0..n)
        .map(|i| format!("{{\"text\": \"{}\"}}\n", text(i)))
        .collect()
}

impl Scene {
    fn prepare_with(&self, split: Split, policy: BadLinePolicy) -> Result<TokenStore> {
        TokenStore::prepare(
            &self.corpus,
            &self.cache,
            &TOKENIZER,
            split,
            policy,
            &mut |_| (),
        )
    }

    fn prepare(&self) -> Result<TokenStore> {
        self.prepare_with(SPLIT, BadLinePolicy::Fatal)
    }

    fn files(&self) -> usize {
        fs::read_dir(self.cache.tokens()).map_or(0, Iterator::count)
    }
}

/// Splits a stream at its end-of-text tokens, which must also end it.
fn texts_of(tokens: &[u32]) -> Vec<String> {
    let end = TOKENIZER.end_of_text();
    assert_eq!(tokens.last(), Some(&end));
    let parts = tokens[..tokens.len() - 1].split(|&id| id == end);
    parts.map(|ids| TOKENIZER.decode(ids).unwrap()).collect()
}

#[test]
fn every_document_is_once_in_one_stream_in_order() {
    let store = scene(&records(200)).prepare().unwrap();
    let (train, heldout) = (texts_of(store.train()), texts_of(store.heldout()));
    assert_eq!(
        store.documents(),
        (train.len() as u64, heldout.len() as u64)
    );
    let expected = |side| {
        (0..200)
            .map(text)
            .filter(|t| SPLIT.is_heldout(t) == side)
            .collect::<Vec<_>>()
    };
    assert_eq!(train, expected(false));
    assert_eq!(heldout, expected(true));
    assert!((20..60).contains(&heldout.len()));
}

#[test]
fn identical_documents_are_on_one_side() {
    let store = scene(&records(40).repeat(3)).prepare().unwrap();
    let train: BTreeSet<_> = texts_of(store.train()).into_iter().collect();
    let heldout: BTreeSet<_> = texts_of(store.heldout()).into_iter().collect();
    assert!(train.is_disjoint(&heldout));
    assert_eq!(train.len() + heldout.len(), 40);
}

#[test]
fn a_second_prepare_opens_and_other_settings_build_another() {
    let scene = scene(&records(60));
    let mut events = Vec::new();
    let mut prepare = |split| {
        let policy = BadLinePolicy::Fatal;
        TokenStore::prepare(
            &scene.corpus,
            &scene.cache,
            &TOKENIZER,
            split,
            policy,
            &mut |p| {
                events.push(p);
            },
        )
        .unwrap()
    };
    let first = prepare(SPLIT);
    let again = prepare(SPLIT);
    let other = prepare(Split { seed: 2, ..SPLIT });
    assert_eq!((first.path(), first.key()), (again.path(), again.key()));
    assert_eq!(first.train(), again.train());
    assert_ne!(first.key(), other.key());
    // One event per build, none for the opening.
    assert_eq!(events.len(), 2);
    let total = scene.corpus.total_bytes(&scene.cache).unwrap();
    assert_eq!(
        (
            events[0].documents,
            events[0].bytes_read,
            events[0].bytes_total
        ),
        (60, total, total)
    );
    assert_eq!(
        events[0].tokens,
        (first.train().len() + first.heldout().len()) as u64
    );
    assert_eq!(scene.files(), 2);
}

#[test]
fn a_cache_is_the_same_file_wherever_it_is_built() {
    let scene = scene(&records(50));
    let here = scene.prepare().unwrap();
    let elsewhere = CacheDir::at(scene.directory.path().join("elsewhere"));
    let policy = BadLinePolicy::Fatal;
    let there = TokenStore::prepare(
        &scene.corpus,
        &elsewhere,
        &TOKENIZER,
        SPLIT,
        policy,
        &mut |_| (),
    )
    .unwrap();
    assert_eq!(
        fs::read(here.path()).unwrap(),
        fs::read(there.path()).unwrap()
    );
    assert_eq!(here.tokenizer_fingerprint(), TOKENIZER.fingerprint());
    assert_eq!(here.vocab_size(), TOKENIZER.vocab_size());
}

#[test]
fn damaged_files_are_refused_by_name_and_not_rebuilt() {
    let scene = scene(&records(60));
    let path = scene.prepare().unwrap().path().to_path_buf();
    let good = fs::read(&path).unwrap();
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let mut newer = good.clone();
    newer[8] = 9;
    let longer = [good.as_slice(), &[0; 4]].concat();
    let cases: [(&[u8], &str); 7] = [
        (&flipped, "checksum of its ids"),
        (&newer, "format version 9"),
        (&longer, "bytes instead of"),
        (&good[..good.len() - 4], "bytes instead of"),
        (&good[..100], "less than a header"),
        (b"", "less than a header"),
        (&[b'x'; 4096], "no token cache"),
    ];
    for (bytes, reason) in cases {
        fs::write(&path, bytes).unwrap();
        let error = scene.prepare().unwrap_err();
        assert!(matches!(&error, Error::CorruptTokenCache { path: p, .. } if *p == path));
        let message = error.to_string();
        assert!(
            message.contains(reason) && message.contains("delete this file"),
            "{message}"
        );
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }
}

#[test]
fn a_cache_of_something_else_under_this_name_is_refused() {
    let scene = scene(&records(60));
    let first = scene.prepare().unwrap().path().to_path_buf();
    let split = Split { seed: 2, ..SPLIT };
    let second = scene
        .prepare_with(split, BadLinePolicy::Fatal)
        .unwrap()
        .path()
        .to_path_buf();
    fs::copy(&second, &first).unwrap();
    let message = scene.prepare().unwrap_err().to_string();
    assert!(message.contains("belongs to another"), "{message}");
}

#[test]
fn the_tokenizer_is_checked() {
    let store = scene(&records(60)).prepare().unwrap();
    store.check_tokenizer(&TOKENIZER).unwrap();
    let other = Tokenizer::train((0..100).map(text), 280).unwrap();
    let error = store.check_tokenizer(&other).unwrap_err();
    assert!(matches!(error, Error::WrongTokenizer { .. }), "{error}");
}

#[test]
fn failed_builds_leave_nothing() {
    let too_small = scene(&records(1));
    let error = too_small.prepare().unwrap_err();
    assert!(
        matches!(error, Error::CorpusTooSmall { documents: 1, .. }),
        "{error}"
    );
    assert_eq!(too_small.files(), 0);
    let broken = scene(&format!("{}oops", records(60)));
    let error = broken.prepare().unwrap_err();
    assert!(matches!(error, Error::BadLine { line: 61, .. }), "{error}");
    assert_eq!(broken.files(), 0);
    let bad_split = Split {
        heldout_fraction: 0.0,
        seed: 0,
    };
    let error = broken
        .prepare_with(bad_split, BadLinePolicy::Skip)
        .unwrap_err();
    assert!(matches!(error, Error::BadSplit { .. }), "{error}");
}

#[test]
fn skipped_lines_are_remembered_and_still_stop_a_strict_caller() {
    let scene = scene(&format!("{}oops", records(60)));
    assert_eq!(
        scene
            .prepare_with(SPLIT, BadLinePolicy::Skip)
            .unwrap()
            .bad_lines(),
        1
    );
    assert_eq!(
        scene
            .prepare_with(SPLIT, BadLinePolicy::Skip)
            .unwrap()
            .bad_lines(),
        1
    );
    assert!(matches!(
        scene.prepare(),
        Err(Error::BadLine { line: 61, .. })
    ));
    assert_eq!(scene.files(), 1);
}

#[test]
fn a_cache_directory_that_is_a_file_is_an_io_error() {
    let scene = scene(&records(60));
    fs::write(scene.directory.path().join("cache"), "in the way").unwrap();
    let error = scene.prepare().unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_reported_not_swallowed() {
    let mut full = Stream::new(
        fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap(),
    );
    // The buffer takes the document, so the error comes when the file is closed.
    full.document(&[1, 2, 3], 0).unwrap();
    let train = Stream::new(NamedTempFile::new().unwrap());
    let fingerprint = digest_of(TOKENIZER.fingerprint());
    let mut header = Header {
        train_tokens: 0,
        heldout_tokens: 4,
        train_documents: 0,
        heldout_documents: 1,
        bad_lines: 0,
        vocab_size: 4,
        key: [0; 32],
        fingerprint,
        body: [0; 32],
    };
    let error = join(train, full, &mut header).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
}
