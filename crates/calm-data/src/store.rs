//! The memory-mapped token cache: one train and one held-out stream of ids per corpus, tokenizer
//! and split.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use crate::cache::{CacheDir, create_directory};
use crate::corpus::{BadLinePolicy, Corpus};
use crate::error::{Error, Result};
use crate::files::{hex, persist};
use crate::split::Split;
use crate::store_header::{FORMAT_VERSION, HEADER_BYTES, Header};
use crate::tokenizer::Tokenizer;

#[cfg(target_endian = "big")]
compile_error!("token caches hold little-endian ids and are viewed in place");

/// Text encoded in one go: enough to keep all cores busy, little enough to be no burden.
const BATCH_BYTES: usize = 1 << 20;
const BATCH_DOCUMENTS: usize = 1 << 10;

/// Progress of building a token cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrepareProgress {
    /// Documents encoded so far.
    pub documents: u64,
    /// Tokens written so far, end-of-text included.
    pub tokens: u64,
    /// Bytes of the corpus files read so far.
    pub bytes_read: u64,
    /// Bytes of the corpus files in all.
    pub bytes_total: u64,
}

/// Token ids of a corpus: documents one after the other, each followed by one end-of-text token,
/// never padded. The same streams serve every chunk size and every model.
#[derive(Debug)]
pub struct TokenStore {
    path: PathBuf,
    map: Mmap,
    header: Header,
    key: String,
    fingerprint: String,
}

impl TokenStore {
    /// Opens the cache of this corpus, tokenizer and split, and builds it where there is none yet.
    /// Named corpora must have been fetched for building. Memory stays bounded; a failed build
    /// leaves nothing behind.
    ///
    /// # Errors
    /// [`Error::CorruptTokenCache`] for a file that fails its checks (it is not rebuilt silently),
    /// [`Error::BadSplit`], [`Error::CorpusTooSmall`] where one side would be empty, the errors of
    /// [`Corpus::documents`] and of its iterator, [`Error::Io`] (a full disk for one).
    pub fn prepare(
        corpus: &Corpus,
        cache: &CacheDir,
        tokenizer: &Tokenizer,
        split: Split,
        policy: BadLinePolicy,
        on_progress: &mut dyn FnMut(PrepareProgress),
    ) -> Result<Self> {
        split.validate()?;
        let key = key_of(&corpus.key()?, tokenizer, split);
        let directory = cache.tokens();
        let path = directory.join(format!("{}.tokens", &hex(&key)[..32]));
        if path.exists() {
            let store = Self::open(&path)?;
            if store.header.key != key {
                return Err(corrupt(
                    &path,
                    "it belongs to another corpus, tokenizer or split",
                ));
            }
            store.check_tokenizer(tokenizer)?;
            // A cache with skipped lines does not satisfy a caller who wants to be stopped by them.
            if store.bad_lines() == 0 || policy == BadLinePolicy::Skip {
                return Ok(store);
            }
        }
        create_directory(&directory)?;
        let mut documents = corpus.documents(cache, policy)?;
        let bytes_total = corpus.total_bytes(cache)?;
        let mut builder = Builder::new(&path, tokenizer, split)?;
        while let Some(document) = documents.next() {
            if builder.add(document?.text)? {
                on_progress(builder.progress(documents.bytes_read(), bytes_total));
            }
        }
        builder.encode()?;
        on_progress(builder.progress(documents.bytes_read(), bytes_total));
        builder.finish(key, documents.bad_lines())?;
        Self::open(&path)
    }

    /// Opens a token cache and verifies magic, version, lengths and checksums, which reads the
    /// whole file once.
    ///
    /// # Errors
    /// [`Error::CorruptTokenCache`] saying what is wrong and which file to delete, [`Error::Io`].
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        let length = file.metadata().map_err(Error::io("read", path))?.len();
        if length < HEADER_BYTES as u64 {
            return Err(corrupt(
                path,
                format!("{length} bytes are less than a header"),
            ));
        }
        // SAFETY: the map is only read. Caches are written once under a temporary name and then
        // renamed, so no process of ours changes a file that is mapped.
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io("map", path))?;
        let header = Header::from_bytes(&map).map_err(|reason| corrupt(path, reason))?;
        if header.file_bytes() != Some(length) {
            let expected = header.file_bytes().unwrap_or(u64::MAX);
            return Err(corrupt(
                path,
                format!("it has {length} bytes instead of {expected}"),
            ));
        }
        let body = &map[HEADER_BYTES..];
        if Sha256::digest(body)[..] != header.body {
            return Err(corrupt(path, "the checksum of its ids does not match"));
        }
        // SAFETY: any four bytes are a valid u32.
        let (before, ids, after) = unsafe { body.align_to::<u32>() };
        if !before.is_empty() || !after.is_empty() {
            return Err(corrupt(path, "its ids are not aligned"));
        }
        if let Some(id) = ids.iter().find(|&&id| u64::from(id) >= header.vocab_size) {
            let reason = format!("id {id} is outside its vocabulary of {}", header.vocab_size);
            return Err(corrupt(path, reason));
        }
        let (key, fingerprint) = (hex(&header.key), hex(&header.fingerprint));
        Ok(Self {
            path: path.to_path_buf(),
            map,
            header,
            key,
            fingerprint,
        })
    }

    /// Checks that the cache was made with this tokenizer.
    ///
    /// # Errors
    /// [`Error::WrongTokenizer`] with both fingerprints.
    pub fn check_tokenizer(&self, tokenizer: &Tokenizer) -> Result<()> {
        if self.fingerprint == tokenizer.fingerprint() {
            return Ok(());
        }
        Err(Error::WrongTokenizer {
            path: self.path.clone(),
            found: self.fingerprint.clone(),
            expected: tokenizer.fingerprint().to_string(),
        })
    }

    /// The training stream.
    pub fn train(&self) -> &[u32] {
        &self.ids()[..self.header.train_tokens as usize]
    }

    /// The held-out stream.
    pub fn heldout(&self) -> &[u32] {
        &self.ids()[self.header.train_tokens as usize..]
    }

    fn ids(&self) -> &[u32] {
        // SAFETY: any four bytes are a valid u32. Alignment and lengths were checked by `open`: a
        // map begins at a page, the header is a multiple of four bytes long.
        unsafe { self.map[HEADER_BYTES..].align_to::<u32>().1 }
    }

    /// The cache file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Identifies corpus, tokenizer, split and format as 64 hexadecimal digits.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Fingerprint of the tokenizer that made the ids, 64 hexadecimal digits.
    pub fn tokenizer_fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Number of ids of that tokenizer: every id is below it.
    pub fn vocab_size(&self) -> usize {
        self.header.vocab_size as usize
    }

    /// Documents in the training and in the held-out stream.
    pub fn documents(&self) -> (u64, u64) {
        (self.header.train_documents, self.header.heldout_documents)
    }

    /// Lines that were skipped as bad when the cache was built.
    pub fn bad_lines(&self) -> u64 {
        self.header.bad_lines
    }
}

fn corrupt(path: &Path, reason: impl Into<String>) -> Error {
    Error::CorruptTokenCache {
        path: path.to_path_buf(),
        reason: reason.into(),
    }
}

/// Digest of everything that decides the content of a cache file.
fn key_of(corpus_key: &str, tokenizer: &Tokenizer, split: Split) -> [u8; 32] {
    Sha256::new()
        .chain_update(FORMAT_VERSION.to_le_bytes())
        .chain_update(corpus_key)
        .chain_update(tokenizer.fingerprint())
        .chain_update(split.heldout_fraction.to_bits().to_le_bytes())
        .chain_update(split.seed.to_le_bytes())
        .finalize()
        .into()
}

/// Ids on their way to disk, with a running checksum.
struct Stream<W: Write> {
    writer: BufWriter<W>,
    hasher: Sha256,
    tokens: u64,
    documents: u64,
}

impl<W: Write> Stream<W> {
    fn new(writer: W) -> Self {
        let writer = BufWriter::with_capacity(1 << 18, writer);
        Self {
            writer,
            hasher: Sha256::new(),
            tokens: 0,
            documents: 0,
        }
    }

    fn document(&mut self, ids: &[u32], end_of_text: u32) -> io::Result<()> {
        let ids = ids.iter().chain([&end_of_text]);
        let bytes: Vec<u8> = ids.flat_map(|id| id.to_le_bytes()).collect();
        self.hasher.update(&bytes);
        self.writer.write_all(&bytes)?;
        self.tokens += (bytes.len() / 4) as u64;
        self.documents += 1;
        Ok(())
    }
}

/// Builds a cache file: the training ids go behind the place of the header in the final file's
/// temporary, the held-out ids into a nameless file that is appended at the end.
struct Builder<'a> {
    path: &'a Path,
    tokenizer: &'a Tokenizer,
    split: Split,
    train: Stream<NamedTempFile>,
    heldout: Stream<File>,
    waiting: Vec<String>,
    waiting_bytes: usize,
}

impl<'a> Builder<'a> {
    fn new(path: &'a Path, tokenizer: &'a Tokenizer, split: Split) -> Result<Self> {
        let directory = crate::files::parent_of(path);
        let failed = || Error::io("create a file beside", path);
        let mut train = Stream::new(
            tempfile::Builder::new()
                .tempfile_in(directory)
                .map_err(failed())?,
        );
        train
            .writer
            .write_all(&[0; HEADER_BYTES])
            .map_err(Error::io("write", path))?;
        let heldout = Stream::new(tempfile::tempfile_in(directory).map_err(failed())?);
        let (waiting, waiting_bytes) = (Vec::new(), 0);
        Ok(Self {
            path,
            tokenizer,
            split,
            train,
            heldout,
            waiting,
            waiting_bytes,
        })
    }

    /// Takes a document; returns whether a batch was encoded.
    fn add(&mut self, text: String) -> Result<bool> {
        self.waiting_bytes += text.len();
        self.waiting.push(text);
        let full = self.waiting_bytes >= BATCH_BYTES || self.waiting.len() >= BATCH_DOCUMENTS;
        if full {
            self.encode()?;
        }
        Ok(full)
    }

    fn encode(&mut self) -> Result<()> {
        self.waiting_bytes = 0;
        let texts = std::mem::take(&mut self.waiting);
        let sides: Vec<bool> = texts
            .iter()
            .map(|text| self.split.is_heldout(text))
            .collect();
        let end_of_text = self.tokenizer.end_of_text();
        for (ids, heldout) in self.tokenizer.encode_batch(texts)?.into_iter().zip(sides) {
            if heldout {
                self.heldout.document(&ids, end_of_text)
            } else {
                self.train.document(&ids, end_of_text)
            }
            .map_err(Error::io("write", self.path))?;
        }
        Ok(())
    }

    fn progress(&self, bytes_read: u64, bytes_total: u64) -> PrepareProgress {
        PrepareProgress {
            documents: self.train.documents + self.heldout.documents,
            tokens: self.train.tokens + self.heldout.tokens,
            bytes_read,
            bytes_total,
        }
    }

    fn finish(self, key: [u8; 32], bad_lines: u64) -> Result<()> {
        let Self {
            path,
            tokenizer,
            split,
            train,
            heldout,
            ..
        } = self;
        let documents = train.documents + heldout.documents;
        for (stream, side) in [(train.documents, "train"), (heldout.documents, "held-out")] {
            if stream == 0 {
                let fraction = split.heldout_fraction;
                return Err(Error::CorpusTooSmall {
                    documents,
                    side,
                    fraction,
                });
            }
        }
        let mut header = Header {
            train_tokens: train.tokens,
            heldout_tokens: heldout.tokens,
            train_documents: train.documents,
            heldout_documents: heldout.documents,
            bad_lines,
            vocab_size: tokenizer.vocab_size() as u64,
            key,
            fingerprint: digest_of(tokenizer.fingerprint()),
            body: [0; 32],
        };
        let file = join(train, heldout, &mut header).map_err(Error::io("write", path))?;
        persist(file, path)
    }
}

/// Appends the held-out ids to the training ids and writes the header before both.
fn join(
    train: Stream<NamedTempFile>,
    heldout: Stream<File>,
    header: &mut Header,
) -> io::Result<NamedTempFile> {
    let Stream {
        mut writer,
        mut hasher,
        ..
    } = train;
    let mut tail = heldout
        .writer
        .into_inner()
        .map_err(io::IntoInnerError::into_error)?;
    tail.seek(SeekFrom::Start(0))?;
    let mut tail = BufReader::new(tail);
    let mut block = vec![0; 1 << 17];
    loop {
        let n = tail.read(&mut block)?;
        if n == 0 {
            break;
        }
        hasher.update(&block[..n]);
        writer.write_all(&block[..n])?;
    }
    header.body = hasher.finalize().into();
    let mut file = writer
        .into_inner()
        .map_err(io::IntoInnerError::into_error)?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&header.to_bytes())?;
    Ok(file)
}

/// The 32 bytes of a fingerprint's 64 hexadecimal digits.
fn digest_of(fingerprint: &str) -> [u8; 32] {
    let mut digest = [0; 32];
    for (byte, pair) in digest
        .iter_mut()
        .zip(fingerprint.as_bytes().chunks_exact(2))
    {
        let digit = |c: u8| (c as char).to_digit(16).unwrap_or(0) as u8;
        *byte = digit(pair[0]) << 4 | digit(pair[1]);
    }
    digest
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
