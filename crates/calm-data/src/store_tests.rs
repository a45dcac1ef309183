//! Building, opening and refusing token caches.

use std::collections::BTreeSet;
use std::fs;
use std::sync::LazyLock;

use tempfile::TempDir;

use super::*;

static TOKENIZER: LazyLock<Tokenizer> =
    LazyLock::new(|| Tokenizer::train((0..100).map(text), 300).unwrap());

fn split() -> Split {
    Split {
        salt: 1,
        ..Split::new(0.2, 0.2, 1 << 16)
    }
}

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
    fn prepare_some(&self, at_most: u64) -> TokenStore {
        let (corpus, cache, policy) = (&self.corpus, &self.cache, BadLinePolicy::Fatal);
        let some = Some(at_most);
        TokenStore::prepare(
            corpus,
            cache,
            &TOKENIZER,
            &split(),
            policy,
            some,
            &mut |_| (),
        )
        .unwrap()
    }

    fn prepare_with(
        &self,
        split: &Split,
        policy: BadLinePolicy,
        on_event: &mut dyn FnMut(PrepareEvent),
    ) -> Result<TokenStore> {
        TokenStore::prepare(
            &self.corpus,
            &self.cache,
            &TOKENIZER,
            split,
            policy,
            None,
            on_event,
        )
    }

    fn prepare(&self) -> Result<TokenStore> {
        self.prepare_with(&split(), BadLinePolicy::Fatal, &mut |_| ())
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
    let split = split();
    let mut documents = [0; 3];
    for part in Part::ALL {
        let found = texts_of(store.part(part));
        let is_here = |text: &String| split.part_of(split.hasher().chain_update(text)) == part;
        let expected: Vec<_> = (0..200).map(text).filter(is_here).collect();
        assert_eq!(found, expected);
        documents[part as usize] = found.len() as u64;
    }
    assert_eq!(store.documents(), documents);
}

#[test]
fn the_beginning_of_a_text_is_that_of_its_parts() {
    let scene = scene(&records(200));
    let whole = scene.prepare().unwrap();
    let some = scene.prepare_some(150);
    for part in Part::ALL {
        assert!(whole.part(part).len() > 150);
        assert_eq!(some.part(part), &whole.part(part)[..150]);
    }
    assert_ne!(some.key(), whole.key());
    assert_ne!(some.key(), scene.prepare_some(151).key());
    let all = scene.prepare_some(1 << 40);
    assert_eq!(all.content(), whole.content());
}

#[test]
fn identical_documents_are_in_one_part() {
    let store = scene(&records(40).repeat(3)).prepare().unwrap();
    let parts =
        Part::ALL.map(|part| -> BTreeSet<_> { texts_of(store.part(part)).into_iter().collect() });
    let all: BTreeSet<_> = parts.iter().flatten().collect();
    assert_eq!(parts.iter().map(BTreeSet::len).sum::<usize>(), 40);
    assert_eq!(all.len(), 40);
}

#[test]
fn a_second_prepare_opens_and_other_settings_build_another() {
    let scene = scene(&records(60));
    let mut events = Vec::new();
    let mut prepare = |split: &Split| {
        let policy = BadLinePolicy::Fatal;
        let on_event = &mut |event| match event {
            PrepareEvent::Progress(progress) => events.push(progress),
            PrepareEvent::Damaged(error) => panic!("{error}"),
        };
        scene.prepare_with(split, policy, on_event).unwrap()
    };
    let first = prepare(&split());
    let again = prepare(&split());
    let other = prepare(&Split { salt: 2, ..split() });
    assert_eq!((first.path(), first.key()), (again.path(), again.key()));
    assert_eq!(first.train(), again.train());
    assert_ne!(first.key(), other.key());
    // One event per build, none for the opening.
    assert_eq!(events.len(), 2);
    let total = scene.corpus.total_bytes(&scene.cache).unwrap();
    let tokens = Part::ALL.map(|part| first.part(part).len() as u64);
    let progress = PrepareProgress {
        tokens: tokens.iter().sum(),
        bytes_read: total,
        bytes_total: total,
    };
    assert_eq!(events[0], progress);
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
        &split(),
        policy,
        None,
        &mut |_| (),
    )
    .unwrap();
    assert_eq!(
        fs::read(here.path()).unwrap(),
        fs::read(there.path()).unwrap()
    );
    assert_eq!(here.vocab_size(), TOKENIZER.vocab_size());
}

#[test]
fn a_damaged_cache_is_named_and_made_again() {
    let scene = scene(&records(60));
    let path = scene.prepare().unwrap().path().to_path_buf();
    let good = fs::read(&path).unwrap();
    let other = Split { salt: 2, ..split() };
    let other = scene
        .prepare_with(&other, BadLinePolicy::Fatal, &mut |_| ())
        .unwrap();
    let foreign = fs::read(other.path()).unwrap();
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let mut newer = good.clone();
    newer[8] = 9;
    let longer = [good.as_slice(), &[0; 4]].concat();
    let cases: [(&[u8], &str); 8] = [
        (&flipped, "checksum of its ids"),
        (&newer, "format version 9"),
        (&longer, "bytes instead of"),
        (&good[..good.len() - 4], "bytes instead of"),
        (&good[..100], "less than a header"),
        (b"", "less than a header"),
        (&[b'x'; 4096], "no token cache"),
        (&foreign, "belongs to another"),
    ];
    for (bytes, reason) in cases {
        fs::write(&path, bytes).unwrap();
        let mut told = Vec::new();
        let on_event = &mut |event| {
            if let PrepareEvent::Damaged(error) = event {
                told.push(error.to_string());
            }
        };
        let store = scene
            .prepare_with(&split(), BadLinePolicy::Fatal, on_event)
            .unwrap();
        assert_eq!(told.len(), 1);
        assert!(told[0].contains(reason), "{}", told[0]);
        assert!(told[0].contains(path.to_str().unwrap()), "{}", told[0]);
        assert_eq!(store.path(), path);
        assert_eq!(fs::read(&path).unwrap(), good);
    }
}

#[test]
fn failed_builds_leave_nothing() {
    let too_small = scene(&records(1));
    let error = too_small.prepare().unwrap_err();
    assert!(matches!(error, Error::CorpusTooSmall { .. }), "{error}");
    assert_eq!(too_small.files(), 0);
    let broken = scene(&format!("{}oops", records(60)));
    let error = broken.prepare().unwrap_err();
    assert!(matches!(error, Error::BadLine { line: 61, .. }), "{error}");
    assert_eq!(broken.files(), 0);
    let bad_split = Split::new(0.6, 0.6, 0);
    let error = broken
        .prepare_with(&bad_split, BadLinePolicy::Skip, &mut |_| ())
        .unwrap_err();
    assert!(matches!(error, Error::BadSplit { .. }), "{error}");
}

#[test]
fn skipped_lines_are_remembered_and_still_stop_a_strict_caller() {
    let scene = scene(&format!("{}oops", records(60)));
    for _ in 0..2 {
        let store = scene.prepare_with(&split(), BadLinePolicy::Skip, &mut |_| ());
        assert_eq!(store.unwrap().bad_lines(), 1);
    }
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
    let stream = |path: &str| {
        let file = fs::OpenOptions::new().write(true).read(true).open(path);
        Stream::new(file.unwrap(), u64::MAX)
    };
    let mut full = stream("/dev/full");
    // The buffer takes the document, so the error comes when the file is closed.
    full.write(&[1, 2, 3], Some(0)).unwrap();
    let parts = [full, stream("/dev/null"), stream("/dev/null")];
    let mut header = Header {
        tokens: [4, 0, 0],
        documents: [1, 0, 0],
        bad_lines: 0,
        vocab_size: 4,
        key: [0; 32],
        fingerprint: digest_of(TOKENIZER.fingerprint()),
        body: [0; 32],
    };
    let error = join(NamedTempFile::new().unwrap(), parts, &mut header).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
}
