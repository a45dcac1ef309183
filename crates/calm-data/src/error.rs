//! The one error type of this crate: every message is one line that says what, where and what to do.

use std::io;
use std::path::{Path, PathBuf};

/// Result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong between a corpus name and a window of token ids.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused a file operation (missing file, full disk, no permission).
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried, as a verb: "read", "write", "create".
        action: &'static str,
        /// The file or directory concerned.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// No place for the cache is known.
    #[error("no cache directory: set CALM_CACHE, XDG_CACHE_HOME or HOME to an absolute path")]
    NoCacheLocation,

    /// The list of corpora was empty.
    #[error("no corpus given: name a known corpus ({known}) or a path")]
    NoCorpus {
        /// The known names, comma-separated.
        known: String,
    },
    /// A name that is neither a known corpus nor an existing path.
    #[error("`{name}` is neither a known corpus ({known}) nor an existing path{}",
        suggestion.as_ref().map(|s| format!("; did you mean `{s}`?")).unwrap_or_default())]
    UnknownCorpus {
        /// What was asked for.
        name: String,
        /// The known names, comma-separated.
        known: String,
        /// The known name closest to it, where one is close.
        suggestion: Option<String>,
    },
    /// One source would be read twice.
    #[error("corpus `{name}` is listed twice: remove one of them")]
    DuplicateSource {
        /// The name or path that stands twice.
        name: String,
    },
    /// A file whose extension names no reader.
    #[error("{path}: no reader for this file; expected .txt, .md, .jsonl, .jsonl.zst or .parquet")]
    UnsupportedFile {
        /// The file.
        path: PathBuf,
    },
    /// A Parquet file, and a program that was built without feature `parquet`.
    #[error(
        "{path}: this program was built without a reader of Parquet files; build it with --features \
         parquet"
    )]
    WithoutParquet {
        /// The file.
        path: PathBuf,
    },
    /// A directory without a single readable file.
    #[error("{path}: the directory holds no .txt, .md, .jsonl, .jsonl.zst or .parquet file")]
    NoTextFiles {
        /// The directory.
        path: PathBuf,
    },
    /// A named corpus was read before it was fetched.
    #[error("corpus `{corpus}` is not in the cache ({path} is missing): fetch it first")]
    NotFetched {
        /// Name of the corpus.
        corpus: &'static str,
        /// Where the file should be.
        path: PathBuf,
    },
    /// A program that a fetch needs is not installed.
    #[error("corpus `{corpus}` needs {tool}, which was not found: {hint}")]
    MissingTool {
        /// Name of the corpus.
        corpus: String,
        /// The program.
        tool: &'static str,
        /// What to do.
        hint: &'static str,
    },
    /// A fetch ran and did not deliver.
    #[error("cannot fetch corpus `{corpus}` with `{command}`: {reason}")]
    Fetch {
        /// Name of the corpus.
        corpus: String,
        /// The command that was run.
        command: String,
        /// Its own error, or what was missing afterwards.
        reason: String,
    },
    /// A fetched or cached file is not the pinned one.
    #[error(
        "{path}: checksum mismatch for corpus `{corpus}`: expected sha256 {expected}, got {got}; {advice}"
    )]
    ChecksumMismatch {
        /// Name of the corpus.
        corpus: String,
        /// The file that was checked.
        path: PathBuf,
        /// The pinned sha256, hexadecimal.
        expected: String,
        /// The file's sha256, hexadecimal.
        got: String,
        /// What was done with the file and what to do next.
        advice: &'static str,
    },
    /// A wheel or zip archive that cannot be read.
    #[error("{path}: unreadable archive: {reason}; delete the file and fetch again")]
    BadArchive {
        /// The archive.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A text file that is not UTF-8.
    #[error("{path}: not UTF-8 at byte {offset}: convert the file to UTF-8")]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// Offset of the first invalid byte in the (decompressed) file.
        offset: u64,
    },
    /// A Parquet file that is damaged, or has no column of texts.
    #[error("{path}: unreadable Parquet file: {reason}")]
    BadParquet {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file without a single document.
    #[error("{path}: no documents in it ({bad_lines} bad lines skipped): remove it or fill it")]
    EmptyFile {
        /// The file.
        path: PathBuf,
        /// Lines that were skipped as bad in this file.
        bad_lines: u64,
    },
    /// A line that the reader cannot turn into text.
    #[error("{path}:{line}: bad line: {reason}")]
    BadLine {
        /// The file.
        path: PathBuf,
        /// Line number, from 1; of a Parquet file the row.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },

    /// A vocabulary that cannot hold the 256 bytes and the end-of-text token.
    #[error("vocabulary of {vocab_size} tokens is too small: 256 bytes and end-of-text need 257")]
    VocabTooSmall {
        /// The size asked for.
        vocab_size: usize,
    },
    /// A tokenizer with more tokens than the model that it is for.
    #[error(
        "the tokenizer has {tokenizer} tokens and the model {model}: it is another model's (name its \
         own with --tokenizer)"
    )]
    VocabTooLarge {
        /// Tokens of the tokenizer.
        tokenizer: usize,
        /// Tokens of the model.
        model: usize,
    },
    /// The text to train a tokenizer on had no characters.
    #[error("cannot train a tokenizer: the text is empty")]
    EmptyTrainingText,
    /// The tokenizer library failed in training or encoding.
    #[error("tokenizer failed to {action}: {reason}")]
    Tokenize {
        /// What was tried: "train", "encode", "decode", "serialize".
        action: &'static str,
        /// The library's own message.
        reason: String,
    },
    /// A tokenizer.json that does not load.
    #[error("{path}: not a usable tokenizer.json: {reason}")]
    BadTokenizer {
        /// The file.
        path: PathBuf,
        /// The library's own message.
        reason: String,
    },
    /// A tokenizer.json without a token that ends a text.
    #[error("{path}: no end-of-text token: the vocabulary has none of {expected}")]
    NoEndOfText {
        /// The file.
        path: PathBuf,
        /// The tokens that were looked for.
        expected: String,
    },
    /// A token id outside the vocabulary.
    #[error("token id {id} is outside the vocabulary of {vocab_size} tokens")]
    UnknownToken {
        /// The id.
        id: u32,
        /// Number of ids in the vocabulary.
        vocab_size: usize,
    },

    /// A token cache that is truncated, altered, or another program's file.
    #[error("{path}: damaged token cache: {reason}")]
    CorruptTokenCache {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Fractions of a split that are no shares.
    #[error(
        "validation fraction {validation} and test fraction {test}: each must be above 0, and together they must leave text to train on"
    )]
    BadSplit {
        /// The validation fraction.
        validation: f64,
        /// The test fraction.
        test: f64,
    },
    /// A split that was made by another version of the program.
    #[error(
        "the split follows rule `{found}` where `{known}` is known: what it held out can't be told"
    )]
    UnknownSplitRule {
        /// The rule's name.
        found: String,
        /// That of this program.
        known: &'static str,
    },
    /// A test part larger than the one that was held out.
    #[error(
        "test fraction {asked} is more than the {own} that was held out in training: the part would hold text that was trained on"
    )]
    LargerTestPart {
        /// The fraction asked for.
        asked: f64,
        /// That of the split.
        own: f64,
    },
    /// A part of the split got no text.
    #[error(
        "corpus too small: nothing of it is in the {part} part, whose share is {share}: use more text or another share"
    )]
    CorpusTooSmall {
        /// The name of the part that is empty.
        part: &'static str,
        /// Its share.
        share: f64,
    },

    /// A window that does not divide into chunks.
    #[error("window of {window} tokens is no positive multiple of the chunk size {chunk}")]
    WindowNotMultiple {
        /// Window length in tokens.
        window: usize,
        /// Chunk size K in tokens.
        chunk: usize,
    },
    /// A stream shorter than one window.
    #[error(
        "{tokens} tokens do not fill one window of {window}: use more text or a shorter window"
    )]
    TooFewTokens {
        /// Tokens in the stream.
        tokens: usize,
        /// Window length in tokens.
        window: usize,
    },
    /// Fewer files than readers.
    #[error(
        "{shards} files can't be shared by {readers} readers: give more files, or fewer readers"
    )]
    FewShards {
        /// Files of the corpus.
        shards: usize,
        /// Readers.
        readers: usize,
    },
    /// A stream of text that has ended with an error was asked for more.
    #[error("the stream of text has ended with an error: open it anew")]
    StreamEnded,
    /// A cursor that points behind the end of its epoch.
    #[error(
        "cursor position {position} is outside epoch {epoch}, which has {windows} windows: the corpus, window or seed has changed"
    )]
    CursorOutOfRange {
        /// The cursor's epoch.
        epoch: u64,
        /// The cursor's position.
        position: u64,
        /// Windows in that epoch.
        windows: u64,
    },
}

impl Error {
    /// Closure that wraps an [`io::Error`] with what was tried and where.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}
