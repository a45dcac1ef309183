//! Reading a checkpoint: nothing is trusted before its size and sha256 are those written.

use std::fs;
use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleDisplay};
use burn::tensor::Device;
use calm_autoencoder::{AutoencoderConfig, ChunkAutoencoder};
use calm_backbone::Backbone;
use calm_baseline::{TokenModel, TokenModelConfig};
use calm_data::{Split, Tokenizer};
use calm_likelihood_free::Head;
use serde::Deserialize;

use super::{
    AUTOENCODER, AUXILIARY, CONFIG, CheckpointConfig, FORMAT, FileEntry, LANGUAGE_MODEL,
    LOCAL_MODEL, MANIFEST, MANIFEST_SUM, Manifest, TOKEN_MODEL, TOKENIZER, WeightNumbers, entry_of,
    manifest_sum, weights,
};
use crate::model::Stored;
use crate::{CalmModel, Error, Kind, LanguageModel, LocalModel, ModelConfig, Result};

/// A checkpoint of a CALM, or of its autoencoder alone.
pub type Checkpoint = CheckpointOf<ModelConfig>;

/// A checkpoint of a token baseline.
pub type BaselineCheckpoint = CheckpointOf<TokenModelConfig>;

/// A checkpoint of an autoencoder that was imported alone.
pub type AutoencoderCheckpoint = CheckpointOf<AutoencoderConfig>;

/// A checkpoint directory whose files are what was written, of a model with configuration `C`.
#[derive(Debug)]
pub struct CheckpointOf<C> {
    directory: PathBuf,
    config: C,
    tokenizer: Option<Tokenizer>,
    split: Option<Split>,
    text: Option<String>,
    lead_in: Vec<u32>,
    numbers: WeightNumbers,
}

/// What the checkpoint in `directory` holds, by its manifest alone.
///
/// # Errors
/// No checkpoint there, or a manifest that can't be read.
pub fn checkpoint_kind(directory: &Path) -> Result<Kind> {
    Ok(manifest(directory)?.kind)
}

fn manifest(directory: &Path) -> Result<Manifest> {
    let path = directory.join(MANIFEST);
    if !path.is_file() {
        let (path, missing) = (directory.to_owned(), MANIFEST.to_owned());
        return Err(Error::NoCheckpoint { path, missing });
    }
    let sum = directory.join(MANIFEST_SUM);
    if sum.is_file() && fs::read(&sum).map_err(Error::io(&sum))? != manifest_sum(&path)?.as_bytes()
    {
        let detail = "its sha256 is not the one written".to_owned();
        return Err(Error::DamagedCheckpoint { path, detail });
    }
    let manifest: Manifest = read_json(&path)?;
    if manifest.format != FORMAT {
        let detail = format!("format {} where {FORMAT} is known", manifest.format);
        return Err(Error::DamagedCheckpoint { path, detail });
    }
    Ok(manifest)
}

impl<C: CheckpointConfig> CheckpointOf<C> {
    /// Opens `directory` and checks size and sha256 of every file.
    ///
    /// # Errors
    /// No checkpoint there or one of another kind, a damaged or missing file, another tokenizer
    /// than the model's.
    pub fn open(directory: &Path) -> Result<Self> {
        let manifest = manifest(directory)?;
        if manifest.kind != C::KIND {
            return Err(Error::WrongKind {
                path: directory.to_owned(),
                expected: C::KIND,
                got: manifest.kind,
            });
        }
        // The tokenizer first: a foreign one deserves its own message.
        let tokenizer_path = directory.join(TOKENIZER);
        let tokenizer = match &manifest.tokenizer_fingerprint {
            // Where it is missing its entry among the files says so.
            Some(expected) if tokenizer_path.is_file() => {
                Some(expected_tokenizer(&tokenizer_path, expected)?)
            }
            _ => None,
        };
        for (name, expected) in &manifest.files {
            check_file(&directory.join(name), expected)?;
        }
        let config: C = read_json(&directory.join(CONFIG))?;
        config.check()?;
        let fitting = tokenizer.map(|tokenizer| tokenizer.for_vocabulary(config.vocab_size()));
        let tokenizer = fitting.transpose()?;
        Ok(Self {
            directory: directory.to_owned(),
            config,
            tokenizer,
            split: manifest.split,
            text: manifest.text,
            lead_in: manifest.lead_in,
            numbers: WeightNumbers::default(),
        })
    }

    /// The model's configuration.
    pub fn config(&self) -> &C {
        &self.config
    }

    /// The tokenizer that the model was trained with.
    ///
    /// # Errors
    /// [`Error::NoTokenizer`] where an import had none.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        self.tokenizer.as_ref().ok_or_else(|| Error::NoTokenizer {
            path: self.directory.clone(),
        })
    }

    /// The same, with a tokenizer for one that has none.
    ///
    /// # Errors
    /// Where it has more tokens than the model, or is not the one that the model has.
    pub fn with_tokenizer(self, tokenizer: Tokenizer) -> Result<Self> {
        let own = self.tokenizer.as_ref().map(Tokenizer::fingerprint);
        if let Some(own) = own.filter(|&own| own != tokenizer.fingerprint()) {
            return Err(Error::WrongTokenizer {
                path: self.directory.clone(),
                expected: own.to_owned(),
                got: tokenizer.fingerprint().to_owned(),
            });
        }
        let tokenizer = Some(tokenizer.for_vocabulary(self.config.vocab_size())?);
        Ok(Self { tokenizer, ..self })
    }

    /// The same, with weights kept in `numbers` once they are loaded.
    pub fn with_weights(self, numbers: WeightNumbers) -> Self {
        Self { numbers, ..self }
    }

    /// How the text was split that the model was trained on; `None` where the checkpoint doesn't
    /// say. Under this split, and only under it, the test part of that text was never seen.
    pub fn split(&self) -> Option<&Split> {
        self.split.as_ref()
    }

    /// [`calm_data::TokenStore::content`] of the text that the model was trained on, if the
    /// checkpoint says.
    pub fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }

    /// How a text of the training stream ended: its last tokens, at least K, and end-of-text. Read
    /// in front of a prompt they make it what the model has seen, the beginning of a text after the
    /// end of another. Empty where the checkpoint doesn't say.
    pub fn lead_in(&self) -> &[u32] {
        &self.lead_in
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
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

    fn load_weights<M: Module>(&self, name: &str, fresh: M, device: &Device) -> Result<M> {
        let path = self.path(name);
        if !path.is_file() {
            let missing = name.to_owned();
            return Err(Error::NoCheckpoint {
                path: self.directory.clone(),
                missing,
            });
        }
        weights::load(&path, fresh, self.numbers, device)
    }
}

impl Checkpoint {
    /// The autoencoder on `device`.
    ///
    /// # Errors
    /// Where the weights are missing or don't fit the configuration.
    pub fn load_autoencoder(&self, device: &Device) -> Result<ChunkAutoencoder> {
        let fresh = self
            .config
            .autoencoder()
            .init(&mut calm_nn::Init::unloaded(device));
        self.load_weights(AUTOENCODER, fresh, device)
    }

    /// The language model on `device`, without what only training needs.
    ///
    /// # Errors
    /// Where the weights are missing or don't fit the configuration.
    pub fn load_language_model(&self, device: &Device) -> Result<LanguageModel> {
        let fresh = self.config.unloaded_language_model(device);
        let (backbone, head) = (fresh.backbone.clone(), fresh.head.clone());
        let (backbone, head) = match head {
            Head::Energy(head) => self.load_stored(backbone, head, Head::Energy, device),
            Head::Flow(head) => self.load_stored(backbone, head, Head::Flow, device),
            Head::Diffusion(head) => self.load_stored(backbone, head, Head::Diffusion, device),
        }?;
        Ok(LanguageModel {
            backbone,
            head,
            ..fresh.without_auxiliary()
        })
    }

    fn load_stored<H: Module + ModuleDisplay>(
        &self,
        backbone: Backbone,
        head: H,
        kind: impl FnOnce(H) -> Head,
        device: &Device,
    ) -> Result<(Backbone, Head)> {
        let Stored { backbone, head } =
            self.load_weights(LANGUAGE_MODEL, Stored { backbone, head }, device)?;
        Ok((backbone, kind(head)))
    }

    /// The language model as it is trained: with its auxiliary heads, if it has any.
    ///
    /// # Errors
    /// Where the weights are missing or don't fit the configuration.
    pub fn load_trained_language_model(&self, device: &Device) -> Result<LanguageModel> {
        let model = self.load_language_model(device)?;
        let auxiliary = self.config.auxiliary().map(|config| {
            let fresh = config.init(&mut calm_nn::Init::unloaded(device));
            self.load_weights(AUXILIARY, fresh, device)
        });
        let auxiliary = auxiliary.transpose()?;
        Ok(LanguageModel { auxiliary, ..model })
    }

    /// The model with a local decoder on `device`.
    ///
    /// # Errors
    /// Where the weights are missing or don't fit the configuration.
    pub fn load_local(&self, device: &Device) -> Result<LocalModel> {
        self.load_weights(LOCAL_MODEL, self.config.unloaded_local(device), device)
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
}

impl AutoencoderCheckpoint {
    /// The autoencoder on `device`.
    ///
    /// # Errors
    /// Where the weights are missing or don't fit the configuration.
    pub fn load(&self, device: &Device) -> Result<ChunkAutoencoder> {
        let fresh = self.config.init(&mut calm_nn::Init::unloaded(device));
        self.load_weights(AUTOENCODER, fresh, device)
    }
}

impl BaselineCheckpoint {
    /// The token model on `device`.
    ///
    /// # Errors
    /// Where the weights are missing or don't fit the configuration.
    pub fn load(&self, device: &Device) -> Result<TokenModel> {
        self.load_weights(TOKEN_MODEL, self.config.unloaded(device), device)
    }
}

/// Refuses a tokenizer file whose fingerprint is not the expected one.
///
/// # Errors
/// [`Error::WrongTokenizer`], or the file can't be read.
pub fn check_tokenizer(path: &Path, expected: &str) -> Result<()> {
    expected_tokenizer(path, expected).map(|_| ())
}

fn expected_tokenizer(path: &Path, expected: &str) -> Result<Tokenizer> {
    let tokenizer = Tokenizer::load(path)?;
    if tokenizer.fingerprint() != expected {
        return Err(Error::WrongTokenizer {
            path: path.to_owned(),
            expected: expected.to_owned(),
            got: tokenizer.fingerprint().to_owned(),
        });
    }
    Ok(tokenizer)
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
