//! Models from a hub that speaks Hugging Face's protocol, with feature `hub`: fetched into that
//! program's own cache, resumed where they were cut off, and believed only by their checksums.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use hf_hub::api::Progress;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, CacheRepo, Repo, RepoType};
use sha1::Digest as _;

use crate::index::{LONGEST_INDEX, WEIGHT_FILES, parse_index};

/// What a directory of a model needs beside its weights, and what it may have.
const BESIDE: [&str; 3] = ["config.json", "tokenizer.json", "tokenizer_config.json"];

/// The ending of hf-hub's unfinished downloads.
const PART: &str = "part";

/// Times that a download which breaks off is gone on with.
const ATTEMPTS: usize = 4;

/// What went wrong with a hub.
#[derive(Debug, thiserror::Error)]
#[error("{model}: {detail}")]
pub struct HubError {
    /// The model.
    pub model: String,
    /// Why, and what to do.
    pub detail: String,
}

/// `OWNER/NAME` or `OWNER/NAME@REVISION`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubModel {
    name: String,
    revision: String,
}

impl HubModel {
    /// Reads such a name.
    ///
    /// # Errors
    /// In words, where it is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, revision) = text.split_once('@').unwrap_or((text, "main"));
        let plain = |part: &str| {
            // It becomes a part of a path, and of an address.
            let known = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            !part.is_empty() && part.chars().all(known) && !part.starts_with('.')
        };
        let parts: Vec<_> = name.split('/').collect();
        match parts.len() == 2 && parts.iter().all(|part| plain(part)) && plain(revision) {
            true => Ok(Self {
                name: name.to_owned(),
                revision: revision.to_owned(),
            }),
            false => Err(format!("'{text}' is no OWNER/NAME or OWNER/NAME@REVISION")),
        }
    }
}

impl fmt::Display for HubModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.revision.as_str() {
            "main" => write!(f, "hf:{}", self.name),
            revision => write!(f, "hf:{}@{revision}", self.name),
        }
    }
}

/// How a download goes: file, bytes of it that are there, and its bytes.
pub type OnProgress<'a> = &'a mut dyn FnMut(&str, u64, u64);

/// A hub, and where what comes from it is kept.
#[derive(Clone, Debug)]
pub struct Hub {
    endpoint: Option<String>,
    cache: Cache,
    token: Option<String>,
}

impl Hub {
    /// As the environment says: address (`HF_ENDPOINT`), cache (`HF_HOME`), token (`HF_TOKEN`, or the
    /// one that `hf auth login` left in the cache).
    pub fn from_env() -> Self {
        let cache = Cache::from_env();
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            endpoint: set("HF_ENDPOINT"),
            token: set("HF_TOKEN").or_else(|| cache.token()),
            cache,
        }
    }

    /// A hub at another address, with a cache of its own.
    pub fn at(endpoint: &str, cache: &Path, token: Option<&str>) -> Self {
        Self {
            endpoint: Some(endpoint.to_owned()),
            cache: Cache::new(cache.to_owned()),
            token: token.map(str::to_owned),
        }
    }

    /// The directory of a model with its configuration, weights and tokenizer, all of one commit. What
    /// is there already and whole is not fetched again.
    ///
    /// # Errors
    /// A hub that can't be reached or refuses, a model without weights, and a file that is not what its
    /// checksum says, which is removed.
    pub fn fetch(&self, model: &HubModel, progress: OnProgress<'_>) -> Result<PathBuf, HubError> {
        let failed = |detail: String| HubError {
            model: model.to_string(),
            detail,
        };
        let builder = ApiBuilder::from_cache(self.cache.clone())
            .with_progress(false)
            .with_token(self.token.clone());
        let builder = match &self.endpoint {
            Some(endpoint) => builder.with_endpoint(endpoint.trim_end_matches('/').to_owned()),
            None => builder,
        };
        let api = builder.build().map_err(|e| failed(e.to_string()))?;
        let of = |revision: &str| {
            let (name, revision) = (model.name.clone(), revision.to_owned());
            api.repo(Repo::with_revision(name, RepoType::Model, revision))
        };
        let info = of(&model.revision).info();
        let info = info.map_err(|e| failed(self.in_words(&e)))?;
        if !is_hex(&info.sha) {
            return Err(failed("the hub names no commit".to_owned()));
        }
        // All files of this commit, whatever is put there meanwhile.
        let repo = of(&info.sha);
        let there: BTreeSet<_> = info
            .siblings
            .iter()
            .map(|file| file.rfilename.as_str())
            .collect();
        let weights = WEIGHT_FILES.into_iter().find(|&name| there.contains(name));
        let weights = weights.ok_or_else(|| {
            failed(format!(
                "no weights there; looked for {}",
                WEIGHT_FILES.join(", ")
            ))
        })?;
        let mut get = |name: &str| self.get(&api, &repo, name, progress).map_err(failed);
        for name in BESIDE.into_iter().filter(|&name| there.contains(name)) {
            get(name)?;
        }
        let path = get(weights)?;
        if weights.ends_with(".json") {
            let json = read_index(&path).map_err(|e| failed(e.to_string()))?;
            let shards = parse_index(&json).map_err(|e| failed(format!("{weights}: {e}")))?;
            for shard in shards.keys() {
                get(shard)?;
            }
        }
        Ok(path.parent().unwrap_or(Path::new("")).to_owned())
    }

    /// A file of a commit, whole.
    fn get(
        &self,
        api: &Api,
        repo: &ApiRepo,
        name: &str,
        progress: OnProgress<'_>,
    ) -> Result<PathBuf, String> {
        let in_words = |e: ApiError| format!("{name}: {}", self.in_words(&e));
        let about = api.metadata(&repo.url(name)).map_err(in_words)?;
        // They become names of files.
        if !is_hex(about.etag()) || !is_hex(about.commit_hash()) {
            return Err(format!("{name}: the hub tells no checksum of it"));
        }
        let (checksum, size) = (about.etag(), about.size() as u64);
        let cached = self.cached(repo, name);
        if let Some(path) = cached.filter(|path| is_whole(path, checksum, size)) {
            return Ok(path);
        }
        let mut failed = None;
        for attempt in 0..ATTEMPTS {
            self.drop_overlong_part(repo, name, checksum, size);
            if attempt > 0 {
                std::thread::sleep(std::time::Duration::from_millis(300 << attempt));
            }
            let shown = Shown {
                name,
                done: 0,
                size,
                progress: &mut *progress,
            };
            match repo.download_with_progress(name, shown) {
                Ok(path) if is_whole(&path, checksum, size) => return Ok(path),
                Ok(path) => {
                    // The name leads to it; what it is called is its checksum.
                    let blob = path.canonicalize().unwrap_or_else(|_| path.clone());
                    let _ = (std::fs::remove_file(&path), std::fs::remove_file(blob));
                    return Err(format!(
                        "{name} is not what its checksum says, and was removed"
                    ));
                }
                Err(error) => failed = Some(error),
            }
        }
        Err(in_words(failed.expect("an attempt failed")))
    }

    /// The model in the cache, and the commit, that `repo` speaks of.
    fn in_cache(&self, repo: &ApiRepo, name: &str) -> Option<(CacheRepo, String)> {
        // The address of a file ends with its commit and its name.
        let url = repo.url(name);
        let mut parts = url.rsplit('/');
        let (_, commit) = (parts.next()?, parts.next()?);
        let owner_and_name: Vec<_> = parts.skip(1).take(2).collect();
        let [own, owner] = owner_and_name[..] else {
            return None;
        };
        let model = Repo::model(format!("{owner}/{own}"));
        Some((self.cache.repo(model), commit.to_owned()))
    }

    /// Where an earlier download of it is.
    fn cached(&self, repo: &ApiRepo, name: &str) -> Option<PathBuf> {
        let (model, commit) = self.in_cache(repo, name)?;
        let path = model.pointer_path(&commit).join(name);
        path.is_file().then_some(path)
    }

    /// A part that is as long as the whole was not renamed in time, or is of something else: there is
    /// nothing after it to ask for.
    fn drop_overlong_part(&self, repo: &ApiRepo, name: &str, checksum: &str, size: u64) {
        let Some((model, _)) = self.in_cache(repo, name) else {
            return;
        };
        let part = model.blob_path(checksum).with_extension(PART);
        if std::fs::metadata(&part).is_ok_and(|part| part.len() >= size) {
            let _ = std::fs::remove_file(part);
        }
    }

    /// What an error means, and what can be done.
    fn in_words(&self, error: &ApiError) -> String {
        let text = error
            .to_string()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        let endpoint = self.endpoint.as_deref().unwrap_or("https://huggingface.co");
        let answered = matches!(error, ApiError::RequestError(_));
        let status = |code: &str| answered && text.contains(code);
        if status("401") || status("403") {
            let token = match self.token {
                Some(_) => "the token in HF_TOKEN does not open it",
                None => "it needs a token in HF_TOKEN",
            };
            return format!(
                "{endpoint} refuses: {token}, or its licence is to be accepted there ({text})"
            );
        }
        if status("404") {
            return format!("no such model, revision or file at {endpoint} ({text})");
        }
        match error {
            ApiError::RequestError(_) | ApiError::IoError(_) | ApiError::TooManyRetries(_) => {
                format!(
                    "{endpoint} can't be reached, or broke off ({text}); what came is kept, and the \
                     same command goes on. Without a network, import from a directory"
                )
            }
            _ => text,
        }
    }
}

fn is_hex(text: &str) -> bool {
    (8..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// An index, as far as one is ever long.
fn read_index(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut json = Vec::new();
    let file = std::fs::File::open(path)?;
    std::io::Read::read_to_end(&mut std::io::Read::take(file, LONGEST_INDEX), &mut json)?;
    Ok(json)
}

/// Whether a file has its size and checksum: the sha256 of a large file, git's sha1 of a small one.
fn is_whole(path: &Path, checksum: &str, size: u64) -> bool {
    let found = || -> std::io::Result<String> {
        let mut file = std::fs::File::open(path)?;
        if file.metadata()?.len() != size {
            return Ok(String::new());
        }
        if checksum.len() == 64 {
            let mut hash = sha2::Sha256::new();
            std::io::copy(&mut file, &mut hash)?;
            return Ok(hex(&hash.finalize()));
        }
        let mut hash = sha1::Sha1::new();
        hash.update(format!("blob {size}\0"));
        std::io::copy(&mut file, &mut hash)?;
        Ok(hex(&hash.finalize()))
    };
    found().is_ok_and(|found| found.eq_ignore_ascii_case(checksum))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Tells how a file comes.
struct Shown<'a> {
    name: &'a str,
    done: u64,
    size: u64,
    progress: &'a mut dyn FnMut(&str, u64, u64),
}

impl Progress for Shown<'_> {
    fn init(&mut self, size: usize, _filename: &str) {
        (self.size, self.done) = (size as u64, 0);
    }

    fn update(&mut self, size: usize) {
        self.done += size as u64;
        (self.progress)(self.name, self.done, self.size);
    }

    fn finish(&mut self) {}
}
