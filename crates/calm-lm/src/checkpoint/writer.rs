//! Writing a checkpoint: whole or not at all.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use calm_autoencoder::ChunkAutoencoder;
use calm_baseline::TokenModel;
use calm_data::{Split, Tokenizer};
use calm_likelihood_free::Head;
use serde::Serialize;

use super::{
    AUTOENCODER, AUXILIARY, CONFIG, CheckpointConfig, FORMAT, LANGUAGE_MODEL, LOCAL_MODEL,
    MANIFEST, MANIFEST_SUM, Manifest, TOKEN_MODEL, TOKENIZER, entry_of, manifest_sum, weights,
};
use crate::model::Stored;
use crate::{Error, Kind, LanguageModel, LocalModel, Result};

/// Writes a checkpoint into a temporary directory beside its place and moves it there whole.
///
/// Dropped without [`CheckpointWriter::finish`], it leaves nothing behind.
#[derive(Debug)]
pub struct CheckpointWriter {
    directory: tempfile::TempDir,
    target: PathBuf,
    kind: Kind,
    fingerprint: Option<String>,
    split: Option<Split>,
    text: Option<String>,
    lead_in: Vec<u32>,
}

impl CheckpointWriter {
    /// A writer for the directory `target`, with configuration and tokenizer, if there is one, already
    /// inside.
    ///
    /// # Errors
    /// Where the files can't be written.
    pub fn new<'a, C: CheckpointConfig>(
        target: &Path,
        config: &C,
        tokenizer: impl Into<Option<&'a Tokenizer>>,
    ) -> Result<Self> {
        let tokenizer = tokenizer.into();
        if target.file_name().is_none() {
            let source = std::io::Error::other("a directory with a name of its own is needed");
            let path = target.to_owned();
            return Err(Error::Io { path, source });
        }
        let parent = calm_files::parent(target);
        fs::create_dir_all(parent).map_err(Error::io(parent))?;
        let directory = tempfile::Builder::new()
            .prefix(".writing-")
            .tempdir_in(parent)
            .map_err(Error::io(parent))?;
        let writer = Self {
            directory,
            target: target.to_owned(),
            kind: C::KIND,
            fingerprint: tokenizer.map(|t| t.fingerprint().to_owned()),
            split: None,
            text: None,
            lead_in: Vec::new(),
        };
        writer.write_json(CONFIG, config)?;
        if let Some(tokenizer) = tokenizer {
            tokenizer.save(&writer.path(TOKENIZER))?;
        }
        Ok(writer)
    }

    /// The same, with the split of the text that the model is trained on, and the text's
    /// [`calm_data::TokenStore::content`].
    pub fn with_text(self, split: Split, text: String) -> Self {
        Self {
            split: Some(split),
            text: Some(text),
            ..self
        }
    }

    /// The same, with how a text of the training stream ended: see [`CheckpointOf::lead_in`](super::CheckpointOf::lead_in).
    pub fn with_lead_in(self, lead_in: Vec<u32>) -> Self {
        Self { lead_in, ..self }
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
    pub fn write_autoencoder(&self, autoencoder: ChunkAutoencoder) -> Result<()> {
        weights::save(autoencoder, &self.path(AUTOENCODER))
    }

    /// Adds the language model's weights, its auxiliary heads in a file of their own.
    ///
    /// # Errors
    /// Where the file can't be written.
    pub fn write_language_model(&self, language_model: LanguageModel) -> Result<()> {
        let LanguageModel {
            backbone,
            head,
            auxiliary,
            ..
        } = language_model;
        if let Some(auxiliary) = auxiliary {
            weights::save(auxiliary, &self.path(AUXILIARY))?;
        }
        let path = self.path(LANGUAGE_MODEL);
        match head {
            Head::Energy(head) => weights::save(Stored { backbone, head }, &path),
            Head::Flow(head) => weights::save(Stored { backbone, head }, &path),
            Head::Diffusion(head) => weights::save(Stored { backbone, head }, &path),
        }
    }

    /// Adds the weights of a model with a local decoder.
    ///
    /// # Errors
    /// Where the file can't be written.
    pub fn write_local_model(&self, model: LocalModel) -> Result<()> {
        weights::save(model, &self.path(LOCAL_MODEL))
    }

    /// Adds a token baseline's weights.
    ///
    /// # Errors
    /// Where the file can't be written.
    pub fn write_token_model(&self, model: TokenModel) -> Result<()> {
        weights::save(model, &self.path(TOKEN_MODEL))
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
            kind: self.kind,
            tokenizer_fingerprint: self.fingerprint.clone(),
            split: self.split.clone(),
            text: self.text.clone(),
            lead_in: self.lead_in.clone(),
            files,
        };
        self.write_json(MANIFEST, &manifest)?;
        let (manifest, sum) = (self.path(MANIFEST), self.path(MANIFEST_SUM));
        fs::write(&sum, manifest_sum(&manifest)?).map_err(Error::io(&sum))?;
        for path in [&manifest, &sum] {
            File::open(path)
                .and_then(|file| file.sync_all())
                .map_err(Error::io(path))?;
        }
        calm_files::sync_directory(&directory).map_err(Error::io(&directory))?;
        // A directory can't be renamed over a full one: the old one steps aside first, to a name that
        // nobody else has.
        let parent = calm_files::parent(&self.target);
        let place = tempfile::Builder::new()
            .prefix(".writing-old-")
            .tempdir_in(parent);
        let place = place.map_err(Error::io(parent))?;
        let aside = place.path().join("old");
        let replaced = self.target.exists();
        if replaced {
            fs::rename(&self.target, &aside).map_err(Error::io(&self.target))?;
        }
        if let Err(source) = fs::rename(&directory, &self.target) {
            let path = match replaced && fs::rename(&aside, &self.target).is_err() {
                // What was there stays where it was put.
                true => place.keep().join("old"),
                false => self.target,
            };
            return Err(Error::Io { path, source });
        }
        // It stands under its own name now; there is nothing left to clean up.
        let _ = self.directory.keep();
        place.close().map_err(Error::io(&aside))?;
        calm_files::sync_directory(parent).map_err(Error::io(parent))
    }
}
