//! The memory-mapped token cache: a stream of ids for each part of a corpus under a tokenizer and a
//! split.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use crate::cache::{CacheDir, create_directory};
use crate::corpus::{BadLinePolicy, Corpus, Stretch};
use crate::error::{Error, Result};
use crate::files::{hash_into, hex};
use crate::split::{Part, Split};
use crate::store_header::{FORMAT_VERSION, HEADER_BYTES, Header};
use crate::tokenizer::{BATCH_BYTES, BATCH_TEXTS, Tokenizer};

#[cfg(target_endian = "big")]
compile_error!("token caches hold little-endian ids and are viewed in place");

/// Progress of building a token cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrepareProgress {
    /// Tokens written so far, end-of-text included.
    pub tokens: u64,
    /// Bytes of the corpus files read so far.
    pub bytes_read: u64,
    /// Bytes of the corpus files in all.
    pub bytes_total: u64,
}

/// What [`TokenStore::prepare`] tells meanwhile.
#[derive(Debug)]
pub enum PrepareEvent {
    /// The cache that was there can't be used, for this reason, and is made again.
    Damaged(Error),
    /// A new cache is being built.
    Progress(PrepareProgress),
}

/// Token ids of a corpus in three streams, one for each part: documents one after the other, never
/// padded, each followed by one end-of-text token; so is what is left of a document at the border
/// to another part. The same streams serve every chunk size and every model.
#[derive(Debug)]
pub struct TokenStore {
    path: PathBuf,
    map: Mmap,
    header: Header,
    key: String,
}

impl TokenStore {
    /// Opens the cache of this corpus, tokenizer and split, and builds it where there is none yet
    /// or a damaged one. Named corpora must have been fetched for building. Memory stays bounded;
    /// a failed build leaves nothing behind.
    ///
    /// With `at_most` a part ends after so many tokens, and reading once all parts have them: the
    /// beginning of a text that is too long to be encoded as a whole.
    ///
    /// # Errors
    /// [`Error::CorpusTooSmall`] where a part that has a share would be empty, the errors of
    /// [`Corpus::stretches`] and of its iterator, [`Error::Io`] (a full disk for one).
    pub fn prepare(
        corpus: &Corpus,
        cache: &CacheDir,
        tokenizer: &Tokenizer,
        split: &Split,
        policy: BadLinePolicy,
        at_most: Option<u64>,
        on_event: &mut dyn FnMut(PrepareEvent),
    ) -> Result<Self> {
        split.validate()?;
        let key = key_of(&corpus.key()?, tokenizer, split, at_most);
        let directory = cache.tokens();
        let path = directory.join(format!("{}.tokens", &hex(&key)[..32]));
        if path.exists() {
            match Self::open(&path).and_then(|store| store.check_key(key)) {
                // A cache with skipped lines does not satisfy a caller who wants to be stopped by
                // them.
                Ok(store) if store.bad_lines() == 0 || policy == BadLinePolicy::Skip => {
                    return Ok(store);
                }
                Ok(_) => {}
                Err(error @ Error::CorruptTokenCache { .. }) => {
                    on_event(PrepareEvent::Damaged(error));
                }
                Err(error) => return Err(error),
            }
        }
        create_directory(&directory)?;
        let mut stretches = corpus.stretches(cache, split, policy)?;
        let bytes_total = corpus.total_bytes(cache)?;
        let at_most = at_most.unwrap_or(u64::MAX);
        let mut builder = Builder::new(&path, tokenizer, at_most)?;
        let mut tell = |builder: &Builder<'_>, bytes_read| {
            on_event(PrepareEvent::Progress(PrepareProgress {
                tokens: builder.tokens(),
                bytes_read,
                bytes_total,
            }));
        };
        while let Some(stretch) = stretches.next() {
            if builder.add(stretch?)? {
                tell(&builder, stretches.bytes_read());
                if builder.is_full(split) {
                    break;
                }
            }
        }
        builder.encode()?;
        tell(&builder, stretches.bytes_read());
        builder.finish(key, split, stretches.bad_lines())?;
        Self::open(&path)
    }

    fn check_key(self, key: [u8; 32]) -> Result<Self> {
        if self.header.key == key {
            return Ok(self);
        }
        let reason = "it belongs to another corpus, tokenizer or split";
        Err(corrupt(&self.path, reason))
    }

    /// Opens a token cache and verifies magic, version, lengths and checksums, which reads the
    /// whole file once.
    ///
    /// # Errors
    /// [`Error::CorruptTokenCache`] saying what is wrong, [`Error::Io`].
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
        let key = hex(&header.key);
        Ok(Self {
            path: path.to_path_buf(),
            map,
            header,
            key,
        })
    }

    /// The stream of a part.
    pub fn part(&self, part: Part) -> &[u32] {
        let length = |part: Part| self.header.tokens[part as usize] as usize;
        let before = Part::ALL.into_iter().take(part as usize);
        let start: usize = before.map(length).sum();
        &self.ids()[start..start + length(part)]
    }

    /// The stream to train on.
    pub fn train(&self) -> &[u32] {
        self.part(Part::Train)
    }

    /// The stream to make choices on.
    pub fn validation(&self) -> &[u32] {
        self.part(Part::Validation)
    }

    /// The stream to report on.
    pub fn test(&self) -> &[u32] {
        self.part(Part::Test)
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

    /// Identifies the ids of all parts, as 64 hexadecimal digits: the same for the same text,
    /// tokenizer and split, wherever the files lie.
    pub fn content(&self) -> String {
        hex(&self.header.body)
    }

    /// Number of ids of that tokenizer: every id is below it.
    pub fn vocab_size(&self) -> usize {
        self.header.vocab_size as usize
    }

    /// Documents, and stretches of them, in each part, in the order of [`Part::ALL`].
    pub fn documents(&self) -> [u64; 3] {
        self.header.documents
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
fn key_of(
    corpus_key: &str,
    tokenizer: &Tokenizer,
    split: &Split,
    at_most: Option<u64>,
) -> [u8; 32] {
    let hasher = Sha256::new()
        .chain_update(FORMAT_VERSION.to_le_bytes())
        .chain_update(corpus_key)
        .chain_update(tokenizer.fingerprint())
        .chain_update(&split.rule)
        .chain_update(split.validation_fraction.to_bits().to_le_bytes())
        .chain_update(split.test_fraction.to_bits().to_le_bytes())
        .chain_update(split.whole_below.to_le_bytes())
        .chain_update(split.salt.to_le_bytes());
    match at_most {
        None => hasher.finalize().into(),
        Some(tokens) => hasher.chain_update(tokens.to_le_bytes()).finalize().into(),
    }
}

/// Ids of a part on their way to disk.
struct Stream {
    writer: BufWriter<File>,
    hasher: Sha256,
    tokens: u64,
    at_most: u64,
    documents: u64,
}

impl Stream {
    fn new(file: File, at_most: u64) -> Self {
        let writer = BufWriter::with_capacity(1 << 18, file);
        Self {
            writer,
            hasher: Sha256::new(),
            tokens: 0,
            at_most,
            documents: 0,
        }
    }

    fn is_full(&self) -> bool {
        self.tokens == self.at_most
    }

    fn write(&mut self, ids: &[u32], end_of_text: Option<u32>) -> io::Result<()> {
        let room = usize::try_from(self.at_most - self.tokens).unwrap_or(usize::MAX);
        let end_of_text = end_of_text.filter(|_| ids.len() < room);
        let ids = ids.iter().take(room).chain(&end_of_text);
        let bytes: Vec<u8> = ids.flat_map(|id| id.to_le_bytes()).collect();
        self.hasher.update(&bytes);
        self.writer.write_all(&bytes)?;
        self.tokens += (bytes.len() / 4) as u64;
        self.documents += u64::from(end_of_text.is_some());
        Ok(())
    }
}

/// Builds a cache file: the training ids go behind the place of the header in the final file's
/// temporary, those of the other parts into nameless files that are appended at the end.
struct Builder<'a> {
    path: &'a Path,
    tokenizer: &'a Tokenizer,
    file: NamedTempFile,
    parts: [Stream; 3],
    waiting: Vec<Stretch>,
    waiting_bytes: usize,
}

impl<'a> Builder<'a> {
    fn new(path: &'a Path, tokenizer: &'a Tokenizer, at_most: u64) -> Result<Self> {
        let stream = |file| Stream::new(file, at_most);
        let create = || -> io::Result<(NamedTempFile, [Stream; 3])> {
            let mut file = calm_files::beside(path)?;
            file.write_all(&[0; HEADER_BYTES])?;
            let train = stream(file.as_file().try_clone()?);
            let nameless = || tempfile::tempfile_in(calm_files::parent(path)).map(stream);
            Ok((file, [train, nameless()?, nameless()?]))
        };
        let (file, parts) = create().map_err(Error::io("create a file beside", path))?;
        Ok(Self {
            path,
            tokenizer,
            file,
            parts,
            waiting: Vec::new(),
            waiting_bytes: 0,
        })
    }

    /// Whether no part takes more.
    fn is_full(&self, split: &Split) -> bool {
        let wanted = |part: &Part| split.share(*part) > 0.0;
        let full = |part: Part| self.parts[part as usize].is_full();
        Part::ALL.into_iter().filter(wanted).all(full)
    }

    /// Takes a stretch; returns whether a batch was encoded.
    fn add(&mut self, stretch: Stretch) -> Result<bool> {
        if self.parts[stretch.part as usize].is_full() {
            return Ok(false);
        }
        self.waiting_bytes += stretch.text.len();
        self.waiting.push(stretch);
        let full = self.waiting_bytes >= BATCH_BYTES || self.waiting.len() >= BATCH_TEXTS;
        if full {
            self.encode()?;
        }
        Ok(full)
    }

    fn encode(&mut self) -> Result<()> {
        self.waiting_bytes = 0;
        let stretches = std::mem::take(&mut self.waiting);
        let places: Vec<_> = stretches.iter().map(|s| (s.part, s.ends)).collect();
        let texts = stretches.into_iter().map(|s| s.text).collect();
        let end_of_text = self.tokenizer.end_of_text();
        for (ids, (part, ends)) in self.tokenizer.encode_batch(texts)?.iter().zip(places) {
            self.parts[part as usize]
                .write(ids, ends.then_some(end_of_text))
                .map_err(Error::io("write", self.path))?;
        }
        Ok(())
    }

    fn tokens(&self) -> u64 {
        self.parts.iter().map(|part| part.tokens).sum()
    }

    fn finish(self, key: [u8; 32], split: &Split, bad_lines: u64) -> Result<()> {
        let Self {
            path,
            tokenizer,
            file,
            parts,
            ..
        } = self;
        let tokens = parts.each_ref().map(|part| part.tokens);
        for part in Part::ALL {
            let share = split.share(part);
            if tokens[part as usize] == 0 && share > 0.0 {
                let part = part.name();
                return Err(Error::CorpusTooSmall { part, share });
            }
        }
        let mut header = Header {
            tokens,
            documents: parts.each_ref().map(|part| part.documents),
            bad_lines,
            vocab_size: tokenizer.vocab_size() as u64,
            key,
            fingerprint: digest_of(tokenizer.fingerprint()),
            body: [0; 32],
        };
        join(file, parts, &mut header)
            .and_then(|file| calm_files::persist(file, path))
            .map_err(Error::io("write", path))
    }
}

/// Appends the other parts to the training ids in `file` and writes the header before them.
fn join(
    mut file: NamedTempFile,
    [train, validation, test]: [Stream; 3],
    header: &mut Header,
) -> io::Result<NamedTempFile> {
    let into_inner = |writer: BufWriter<File>| {
        let inner = writer.into_inner();
        inner.map_err(io::IntoInnerError::into_error)
    };
    let (mut all, mut hasher) = (into_inner(train.writer)?, train.hasher);
    for part in [validation, test] {
        let mut ids = into_inner(part.writer)?;
        ids.seek(SeekFrom::Start(0))?;
        hash_into(&mut ids, &mut all, &mut hasher, &mut |_| ())?;
    }
    header.body = hasher.finalize().into();
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
