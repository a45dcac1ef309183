//! Corpora from names and paths to documents.

use std::io::Write;

use tempfile::TempDir;

use super::*;

fn parse(names: &[&str]) -> Result<Corpus> {
    Corpus::parse(
        &names
            .iter()
            .map(|name| name.to_string())
            .collect::<Vec<_>>(),
    )
}

fn write(directory: &TempDir, name: &str, content: impl AsRef<[u8]>) -> String {
    let path = directory.path().join(name);
    fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_string()
}

fn stretches(corpus: &Corpus, policy: BadLinePolicy) -> Stretches {
    let cache = CacheDir::at("/nonexistent");
    corpus
        .stretches(&cache, &Split::all_test(), policy)
        .unwrap()
}

fn texts(path: &str) -> Result<Vec<String>> {
    let corpus = parse(&[path])?;
    stretches(&corpus, BadLinePolicy::Fatal)
        .map(|d| d.map(|d| d.text))
        .collect()
}

#[test]
fn quickstart_is_four_books() {
    let corpus = parse(&["quickstart", "sotu"]).unwrap();
    assert_eq!(
        corpus.names(),
        ["shakespeare", "kjv", "gatsby", "alice", "sotu"]
    );
    assert!(matches!(
        corpus.total_bytes(&CacheDir::at("/nonexistent")),
        Err(Error::NotFetched {
            corpus: "shakespeare",
            ..
        })
    ));
}

#[test]
fn an_unknown_name_lists_the_known_and_suggests_the_close() {
    let message = parse(&["shakspear"]).unwrap_err().to_string();
    assert_eq!(
        message,
        "`shakspear` is neither a known corpus (quickstart, shakespeare, kjv, gatsby, alice, \
         wikipedia, sotu, rust) nor an existing path; did you mean `shakespeare`?"
    );
    let message = parse(&["./data/of/mine.txt"]).unwrap_err().to_string();
    assert!(!message.contains("did you mean"), "{message}");
    assert!(matches!(parse(&[]), Err(Error::NoCorpus { .. })));
}

#[test]
fn a_source_that_stands_twice_is_refused() {
    let error = parse(&["quickstart", "kjv"]).unwrap_err();
    assert!(
        matches!(&error, Error::DuplicateSource { name } if name == "kjv"),
        "{error}"
    );
}

#[test]
fn every_format_streams_its_text() {
    let directory = tempfile::tempdir().unwrap();
    let lines = "{\"text\": \"one\"}\n{\"text\": \"two\"}\n";
    let packed = zstd::encode_all(lines.as_bytes(), 3).unwrap();
    let jsonl = write(&directory, "a.jsonl", lines);
    let zst = write(&directory, "b.jsonl.zst", packed);
    let text = write(&directory, "c.TXT", "a text\r\n");
    assert_eq!(texts(&jsonl).unwrap(), ["one", "two"]);
    assert_eq!(texts(&zst).unwrap(), ["one", "two"]);
    assert_eq!(texts(&text).unwrap(), ["a text"]);
}

#[test]
fn a_directory_is_read_in_the_order_of_its_names() {
    let directory = tempfile::tempdir().unwrap();
    write(&directory, "b.md", "second");
    write(&directory, "a.jsonl", "{\"text\": \"first\"}");
    write(&directory, ".hidden.txt", "no");
    write(&directory, "notes.pdf", "no");
    let path = directory.path().to_str().unwrap();
    assert_eq!(texts(path).unwrap(), ["first", "second"]);
}

#[test]
fn paths_without_a_reader_are_errors() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    assert!(matches!(parse(&[path]), Err(Error::NoTextFiles { .. })));
    let csv = write(&directory, "a.csv", "a,b");
    assert!(matches!(parse(&[&csv]), Err(Error::UnsupportedFile { .. })));
}

/// What a directory holds does not depend on how the program was built.
#[test]
#[cfg(not(feature = "parquet"))]
fn without_its_reader_a_parquet_file_is_an_error_that_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let path = write(&directory, "a.Parquet", "PAR1");
    write(&directory, "b.txt", "text");
    for named in [path.as_str(), directory.path().to_str().unwrap()] {
        assert_eq!(
            parse(&[named]).unwrap_err().to_string(),
            format!(
                "{path}: this program was built without a reader of Parquet files; build it with \
                 --features parquet"
            )
        );
    }
}

#[test]
#[cfg(feature = "parquet")]
fn parquet_files_are_read_like_others() {
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/parquet");
    let directory = tempfile::tempdir().unwrap();
    for name in ["gzip_delta.parquet", "snappy.parquet", "zstd_v2.parquet"] {
        let bytes = fs::read(Path::new(fixtures).join(name)).unwrap();
        write(&directory, name, bytes);
    }
    let corpus = parse(&[directory.path().to_str().unwrap()]).unwrap();
    let cache = CacheDir::at("/nonexistent");
    let mut documents = stretches(&corpus, BadLinePolicy::Fatal);
    let found: Vec<_> = documents.by_ref().map(|d| d.unwrap().text).collect();
    assert_eq!(found.len() % 3, 0);
    assert_eq!(found[0], "A first row.");
    assert_eq!(found[0], found[found.len() / 3]);
    assert_eq!(documents.bytes_read(), corpus.total_bytes(&cache).unwrap());
    let path = write(&directory, "a.parquet", "no Parquet");
    let message = texts(&path).unwrap_err().to_string();
    let begin = format!("{path}: unreadable Parquet file: ");
    assert!(message.starts_with(&begin), "{message}");
}

#[test]
fn empty_files_are_errors_and_end_the_iterator() {
    let directory = tempfile::tempdir().unwrap();
    let path = write(&directory, "a.txt", "\n \r\n");
    write(&directory, "b.txt", "text");
    let corpus = parse(&[directory.path().to_str().unwrap()]).unwrap();
    let mut documents = stretches(&corpus, BadLinePolicy::Skip);
    assert!(matches!(
        documents.next(),
        Some(Err(Error::EmptyFile { path: p, bad_lines: 0 })) if p == Path::new(&path)
    ));
    assert!(documents.next().is_none());
}

#[test]
fn bad_lines_are_skipped_and_counted_or_fatal() {
    let directory = tempfile::tempdir().unwrap();
    let path = write(
        &directory,
        "a.jsonl",
        "{\"text\": \"one\"}\nnot json\n{\"text\": \"two\"}\n{}",
    );
    let corpus = parse(&[&path]).unwrap();
    let mut skipping = stretches(&corpus, BadLinePolicy::Skip);
    let found: Vec<_> = skipping.by_ref().map(|d| d.unwrap().text).collect();
    assert_eq!(found, ["one", "two"]);
    assert_eq!(skipping.bad_lines(), 2);
    let mut strict = stretches(&corpus, BadLinePolicy::Fatal);
    assert_eq!(strict.next().unwrap().unwrap().text, "one");
    let message = strict.next().unwrap().unwrap_err().to_string();
    assert!(
        message.starts_with(&format!("{path}:2: bad line: expected ")),
        "{message}"
    );
    assert!(strict.next().is_none());
}

#[test]
fn a_truncated_archive_is_an_error_under_either_policy() {
    let directory = tempfile::tempdir().unwrap();
    let lines: String = (0..5000)
        .map(|i| format!("{{\"text\": \"{}\"}}\n", i * 7919))
        .collect();
    let packed = zstd::encode_all(lines.as_bytes(), 3).unwrap();
    let path = write(&directory, "a.jsonl.zst", &packed[..packed.len() / 2]);
    let corpus = parse(&[&path]).unwrap();
    let last = stretches(&corpus, BadLinePolicy::Skip).last().unwrap();
    assert!(matches!(last, Err(Error::Io { .. })), "{last:?}");
    let path = write(&directory, "b.jsonl.zst", b"not zstd at all");
    assert!(matches!(texts(&path), Err(Error::Io { .. })));
}

#[test]
fn text_that_is_not_utf8_names_the_byte() {
    let directory = tempfile::tempdir().unwrap();
    let path = write(&directory, "a.txt", b"caf\xe9");
    let error = texts(&path).unwrap_err();
    assert!(matches!(error, Error::NotUtf8 { offset: 3, .. }), "{error}");
}

#[test]
fn bytes_read_reach_the_total() {
    let directory = tempfile::tempdir().unwrap();
    let path = write(&directory, "a.txt", "some text\n".repeat(1000));
    let corpus = parse(&[&path]).unwrap();
    let mut documents = stretches(&corpus, BadLinePolicy::Fatal);
    assert_eq!(documents.bytes_read(), 0);
    documents.by_ref().for_each(drop);
    assert_eq!(
        documents.bytes_read(),
        corpus.total_bytes(&CacheDir::at("/x")).unwrap()
    );
}

#[test]
fn the_key_follows_the_content() {
    let directory = tempfile::tempdir().unwrap();
    let path = write(&directory, "a.txt", "one");
    let corpus = parse(&[&path]).unwrap();
    let key = corpus.key().unwrap();
    assert_eq!(key, corpus.key().unwrap());
    assert_eq!(key.len(), 64);
    write(&directory, "a.txt", "one and more");
    assert_ne!(key, corpus.key().unwrap());
    let (kjv, alice) = (parse(&["kjv"]).unwrap(), parse(&["alice"]).unwrap());
    assert_ne!(kjv.key().unwrap(), alice.key().unwrap());
    assert_ne!(
        parse(&["kjv", "alice"]).unwrap().key().unwrap(),
        parse(&["alice", "kjv"]).unwrap().key().unwrap()
    );
    fs::remove_file(&path).unwrap();
    assert!(corpus.key().is_err());
}

/// A large file costs no more memory than its longest line: the reader is asked for a few
/// documents only, and so little of the file has been read.
#[test]
fn reading_is_lazy() {
    let mut file = tempfile::Builder::new()
        .suffix(".jsonl")
        .tempfile()
        .unwrap();
    for i in 0..200_000 {
        writeln!(file, "{{\"text\": \"document {i}\"}}").unwrap();
    }
    file.flush().unwrap();
    let corpus = parse(&[file.path().to_str().unwrap()]).unwrap();
    let mut documents = stretches(&corpus, BadLinePolicy::Fatal);
    assert_eq!(documents.nth(2).unwrap().unwrap().text, "document 2");
    assert!(documents.bytes_read() <= 1 << 16);
    assert_eq!(documents.count(), 199_997);
}
