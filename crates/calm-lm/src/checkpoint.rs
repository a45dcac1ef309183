//! The checkpoint directory: one format for training, evaluation, generation and import.
//!
//! ```text
//! step-000500/
//!   manifest.json         size and sha256 of every other file, written last
//!   config.json           the ModelConfig
//!   tokenizer.json
//!   autoencoder.bpk
//!   language_model.bpk    absent while the autoencoder is trained
//!   optim.bpk state.json  whatever the writer adds
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::store::ModuleRecord;
use burn::tensor::Device;
use calm_autoencoder::ChunkAutoencoder;
use calm_data::{Tokenizer, sha256_file};
use serde::{Deserialize, Serialize};

use crate::{CalmModel, Error, LanguageModel, ModelConfig, Result};

const FORMAT: u32 = 1;
const MANIFEST: &str = "manifest.json";
const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";
const AUTOENCODER: &str = "autoencoder.bpk";
const LANGUAGE_MODEL: &str = "language_model.bpk";

#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    format: u32,
    tokenizer_fingerprint: String,
    files: BTreeMap<String, FileEntry>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct FileEntry {
    bytes: u64,
    sha256: String,
}

/// Writes a checkpoint into a temporary directory beside its place and moves it there whole.
///
/// Dropped without [`CheckpointWriter::finish`], it leaves nothing behind.
#[derive(Debug)]
pub struct CheckpointWriter {
    directory: tempfile::TempDir,
    target: PathBuf,
    fingerprint: String,
}

impl CheckpointWriter {
    /// A writer for the directory `target`, with configuration and tokenizer already inside.
    ///
    /// # Errors
    /// Where the files can't be written.
    pub fn new(target: &Path, config: &ModelConfig, tokenizer: &Tokenizer) -> Result<Self> {
        let parent = target.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(parent).map_err(Error::io(parent))?;
        let directory = tempfile::Builder::new()
            .prefix(".writing-")
            .tempdir_in(parent)
            .map_err(Error::io(parent))?;
        let writer = Self {
            directory,
            target: target.to_owned(),
            fingerprint: tokenizer.fingerprint().to_owned(),
        };
        writer.write_json(CONFIG, config)?;
        tokenizer.save(&writer.path(TOKENIZER))?;
        Ok(writer)
    }

    /// Where to write the file `name` of the checkpoint.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Adds a JSON file.
    ///
    /// # Errors
    /// Where the file can't be written.
    pub fn write_json(&self, name: &str, value: &impl Serialize) -> Result<()> {
        let path = self.path(name);
        let text = serde_json::to_string_pretty(value).map_err(|e| Error::Io {
            path: path.clone(),
            source: e.into(),
        })?;
        fs::write(&path, text + "\n").map_err(Error::io(path))
    }

    /// Adds the autoencoder's weights.
    ///
    /// # Errors
    /// Where the file can't be written.
    pub fn write_autoencoder(&self, autoencoder: &ChunkAutoencoder) -> Result<()> {
        self.write_weights(AUTOENCODER, autoencoder.clone())
    }

    /// Adds the language model's weights.
    ///
    /// # Errors
    /// Where the file can't be written.
    pub fn write_language_model(&self, language_model: &LanguageModel) -> Result<()> {
        self.write_weights(LANGUAGE_MODEL, language_model.clone())
    }

    fn write_weights<M: Module>(&self, name: &str, module: M) -> Result<()> {
        let path = self.path(name);
        module.into_record().save(&path).map_err(|e| Error::Io {
            path,
            source: std::io::Error::other(e.to_string()),
        })
    }

    /// Writes the manifest, flushes everything to disk and moves the directory to its place.
    /// A checkpoint that stands there already is replaced.
    ///
    /// # Errors
    /// Where a file can't be written; the target is then as it was.
    pub fn finish(self) -> Result<()> {
        let directory = self.directory.path().to_owned();
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(&directory).map_err(Error::io(&directory))? {
            let path = entry.map_err(Error::io(&directory))?.path();
            File::open(&path)
                .and_then(|f| f.sync_all())
                .map_err(Error::io(&path))?;
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            files.insert(name, entry_of(&path)?);
        }
        let manifest = Manifest {
            format: FORMAT,
            tokenizer_fingerprint: self.fingerprint.clone(),
            files,
        };
        self.write_json(MANIFEST, &manifest)?;
        sync(&self.path(MANIFEST))?;
        sync(&directory)?;
        // A directory can't be renamed over a full one: the old one steps aside first.
        let aside = self.target.with_extension("old");
        let replaced = self.target.exists();
        if replaced {
            let _ = fs::remove_dir_all(&aside);
            fs::rename(&self.target, &aside).map_err(Error::io(&self.target))?;
        }
        if let Err(source) = fs::rename(&directory, &self.target) {
            if replaced {
                let _ = fs::rename(&aside, &self.target);
            }
            let path = self.target;
            return Err(Error::Io { path, source });
        }
        // It stands under its own name now; there is nothing left to clean up.
        let _ = self.directory.keep();
        if replaced {
            fs::remove_dir_all(&aside).map_err(Error::io(&aside))?;
        }
        sync(self.target.parent().unwrap_or(Path::new(".")))
    }
}

fn sync(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|f| f.sync_all())
        .map_err(Error::io(path))
}

fn entry_of(path: &Path) -> Result<FileEntry> {
    let bytes = fs::metadata(path).map_err(Error::io(path))?.len();
    Ok(FileEntry {
        bytes,
        sha256: sha256_file(path)?,
    })
}

/// A checkpoint directory whose files are what was written.
#[derive(Debug)]
pub struct Checkpoint {
    directory: PathBuf,
    config: ModelConfig,
    tokenizer: Tokenizer,
}

impl Checkpoint {
    /// Opens `directory` and checks size and sha256 of every file.
    ///
    /// # Errors
    /// No checkpoint there, a damaged or missing file, another tokenizer than the model's.
    pub fn open(directory: &Path) -> Result<Self> {
        let path = directory.join(MANIFEST);
        if !path.is_file() {
            let (path, missing) = (directory.to_owned(), MANIFEST.to_owned());
            return Err(Error::NoCheckpoint { path, missing });
        }
        let manifest: Manifest = read_json(&path)?;
        if manifest.format != FORMAT {
            let detail = format!("format {} where {FORMAT} is known", manifest.format);
            return Err(Error::DamagedCheckpoint { path, detail });
        }
        // The tokenizer first: a foreign one deserves its own message.
        let tokenizer_path = directory.join(TOKENIZER);
        if tokenizer_path.is_file() {
            check_tokenizer(&tokenizer_path, &manifest.tokenizer_fingerprint)?;
        }
        for (name, expected) in &manifest.files {
            check_file(&directory.join(name), expected)?;
        }
        let config: ModelConfig = read_json(&directory.join(CONFIG))?;
        config.validate()?;
        let tokenizer = Tokenizer::load(&tokenizer_path)?;
        Ok(Self {
            directory: directory.to_owned(),
            config,
            tokenizer,
        })
    }

    /// The model's configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The tokenizer that the model was trained with.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// A file of the checkpoint.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Reads a JSON file of the checkpoint.
    ///
    /// # Errors
    /// Where it is missing or can't be read as `T`.
    pub fn read_json<T: for<'de> Deserialize<'de>>(&self, name: &str) -> Result<T> {
        read_json(&self.path(name))
    }

    /// The autoencoder on `device`.
    ///
    /// # Errors
    /// Where the weights are missing or don't fit the configuration.
    pub fn load_autoencoder(&self, device: &Device) -> Result<ChunkAutoencoder> {
        let fresh = self
            .config
            .autoencoder()
            .init(&mut calm_nn::Init::new(0, device));
        self.load_weights(AUTOENCODER, fresh)
    }

    /// The language model on `device`.
    ///
    /// # Errors
    /// Where the weights are missing or don't fit the configuration.
    pub fn load_language_model(&self, device: &Device) -> Result<LanguageModel> {
        let fresh = self.config.init_language_model(0, device);
        self.load_weights(LANGUAGE_MODEL, fresh)
    }

    /// The whole model on `device`.
    ///
    /// # Errors
    /// Where weights are missing or don't fit the configuration.
    pub fn load(&self, device: &Device) -> Result<CalmModel> {
        Ok(CalmModel {
            autoencoder: self.load_autoencoder(device)?,
            language_model: self.load_language_model(device)?,
        })
    }

    fn load_weights<M: Module>(&self, name: &str, fresh: M) -> Result<M> {
        let path = self.path(name);
        if !path.is_file() {
            let missing = name.to_owned();
            return Err(Error::NoCheckpoint {
                path: self.directory.clone(),
                missing,
            });
        }
        let weights = |detail: String| Error::Weights {
            path: path.clone(),
            detail,
        };
        let record = ModuleRecord::load(&path).map_err(|e| weights(e.to_string()))?;
        fresh
            .try_load_record(record)
            .map_err(|e| weights(e.to_string()))
    }
}

/// Refuses a tokenizer file whose fingerprint is not the expected one.
///
/// # Errors
/// [`Error::WrongTokenizer`], or the file can't be read.
pub fn check_tokenizer(path: &Path, expected: &str) -> Result<()> {
    let tokenizer = Tokenizer::load(path)?;
    if tokenizer.fingerprint() != expected {
        return Err(Error::WrongTokenizer {
            path: path.to_owned(),
            expected: expected.to_owned(),
            got: tokenizer.fingerprint().to_owned(),
        });
    }
    Ok(())
}

fn check_file(path: &Path, expected: &FileEntry) -> Result<()> {
    let damaged = |detail| Error::DamagedCheckpoint {
        path: path.to_owned(),
        detail,
    };
    if !path.is_file() {
        return Err(damaged("missing".to_owned()));
    }
    let bytes = fs::metadata(path).map_err(Error::io(path))?.len();
    if bytes != expected.bytes {
        return Err(damaged(format!(
            "{bytes} bytes where {} were written",
            expected.bytes
        )));
    }
    if entry_of(path)? != *expected {
        return Err(damaged("its sha256 is not the one written".to_owned()));
    }
    Ok(())
}

fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T> {
    let text = fs::read_to_string(path).map_err(Error::io(path))?;
    serde_json::from_str(&text).map_err(|e| Error::DamagedCheckpoint {
        path: path.to_owned(),
        detail: e.to_string(),
    })
}
