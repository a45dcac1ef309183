//! A model of any kind that other programs know too: an autoencoder alone, a CALM or a token model.

use std::path::Path;

use burn::tensor::Device;
use calm_autoencoder::{AutoencoderConfig, ChunkAutoencoder};
use calm_baseline::{TokenModel, TokenModelConfig};
use calm_data::Tokenizer;

use crate::checkpoint::kept_in;
use crate::{CalmModel, CheckpointWriter, ModelConfig, Result, TokenIds, WeightNumbers};

/// A model and its configuration, of one of the kinds that are imported, exported and traced.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // There is one of these in a program.
pub enum AnyModel {
    /// A chunk autoencoder alone.
    Autoencoder(AutoencoderConfig, ChunkAutoencoder),
    /// A CALM with its autoencoder.
    Calm(ModelConfig, CalmModel),
    /// A LLaMA token model.
    TokenModel(TokenModelConfig, TokenModel),
}

impl AnyModel {
    /// Reads the released checkpoint in `directory`: `config.json` and weights as safetensors or
    /// PyTorch's, in one file or in shards. What it holds is told by the names of its tensors. A CALM
    /// takes its autoencoder from the directory `autoencoder`, or from inside its own file.
    ///
    /// Numbers of 16 and 32 bits stay what they are (f16 becomes f32), so what computes needs
    /// [`AnyModel::with_weights`] first, or a checkpoint of ours in between. Nothing but the model itself
    /// and one tensor more stands in memory.
    ///
    /// # Errors
    /// Files that can't be read; tensors that are missing, unexpected or of another shape, by name; a
    /// configuration that contradicts them, or asks for what is not known here.
    pub fn import(directory: &Path, autoencoder: Option<&Path>, device: &Device) -> Result<Self> {
        crate::released::import(directory, autoencoder, device)
    }

    /// The same, with weights kept in `numbers`.
    pub fn with_weights(self, numbers: WeightNumbers) -> Self {
        match self {
            Self::Autoencoder(config, model) => Self::Autoencoder(config, kept_in(model, numbers)),
            Self::Calm(config, model) => Self::Calm(config, kept_in(model, numbers)),
            Self::TokenModel(config, model) => Self::TokenModel(config, kept_in(model, numbers)),
        }
    }

    /// Writes it in the form of the released code: `config.json` and `model.safetensors` (and the
    /// tokenizer's two files, where there is one) into `directory`, and of a CALM its autoencoder into the
    /// directory `autoencoder` below it, which `ae_path` in config.json names: the released class opens it
    /// always. A tensor stands under each of its names. One tensor at a time is made. `ids` are those that
    /// an import had; where none is known the tokenizer's end of a text begins and ends one, and nothing
    /// pads.
    ///
    /// # Errors
    /// Where the model has parts that the released code lacks, by name, or files can't be written.
    pub fn export(
        &self,
        tokenizer: Option<&Tokenizer>,
        ids: TokenIds,
        directory: &Path,
    ) -> Result<()> {
        crate::released::export(self, tokenizer, ids, directory)
    }

    /// The writer of a checkpoint in `target` with the weights already inside. What is written is let go.
    ///
    /// # Errors
    /// Where the files can't be written.
    pub fn writer(self, target: &Path, tokenizer: Option<&Tokenizer>) -> Result<CheckpointWriter> {
        Ok(match self {
            Self::Autoencoder(config, model) => {
                let writer = CheckpointWriter::new(target, &config, tokenizer)?;
                writer.write_autoencoder(model)?;
                writer
            }
            Self::Calm(config, model) => {
                let writer = CheckpointWriter::new(target, &config, tokenizer)?;
                writer.write_autoencoder(model.autoencoder)?;
                writer.write_language_model(model.language_model)?;
                writer
            }
            Self::TokenModel(config, model) => {
                let writer = CheckpointWriter::new(target, &config, tokenizer)?;
                writer.write_token_model(model)?;
                writer
            }
        })
    }

    /// Tokens in the vocabulary, V.
    pub fn vocab_size(&self) -> usize {
        match self {
            Self::Autoencoder(config, _) => config.vocab_size,
            Self::Calm(config, _) => config.vocab_size,
            Self::TokenModel(config, _) => config.vocab_size,
        }
    }
}
