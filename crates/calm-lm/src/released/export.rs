//! Writing a model in the form of the released code, so that it loads there.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::Param;
use burn::tensor::{DType, Tensor};
use calm_autoencoder::{AutoencoderConfig, ChunkAutoencoder};
use calm_data::Tokenizer;
use calm_likelihood_free::{HeadKind, Solver};
use calm_nn::TransformerConfig;
use calm_weights::{Dtype, TensorToWrite, write_safetensors};
use serde_json::{Value, json};

use super::import::by_columns;
use super::names::{
    self, AUTOENCODER, DECODER_TABLE, ENCODER_TABLE, Exchange, HEAD, HEAD_TOO, OUTPUT, TOKEN_TABLE,
};
use crate::{AnyModel, CalmModel, Error, ModelConfig, Result, TokenIds};

/// [`AnyModel::export`].
pub fn export(
    model: &AnyModel,
    tokenizer: Option<&Tokenizer>,
    ids: TokenIds,
    directory: &Path,
) -> Result<()> {
    match model {
        AnyModel::Autoencoder(config, model) => {
            export_autoencoder(config, model, tokenizer, ids, directory)
        }
        AnyModel::Calm(config, model) => export_calm(config, model, tokenizer, ids, directory),
        AnyModel::TokenModel(config, model) => {
            known("baseline.scale_embeddings", !config.scale_embeddings)?;
            known("baseline.near_tokens", config.near_tokens == 0)?;
            let mut tensors = Writing::default();
            names::token_model(&mut tensors, &mut model.clone());
            if config.tied_embeddings {
                tensors.repeat(TOKEN_TABLE, OUTPUT);
            }
            let mut json = llama(&config.transformer, config.vocab_size, config.init_std);
            set(
                &mut json,
                json!({
                    "architectures": ["LlamaForCausalLM"],
                    "model_type": "llama",
                    "max_position_embeddings": config.window,
                    "tie_word_embeddings": config.tied_embeddings,
                }),
            );
            write(directory, json, tensors, tokenizer, ids)
        }
    }
}

fn export_autoencoder(
    config: &AutoencoderConfig,
    model: &ChunkAutoencoder,
    tokenizer: Option<&Tokenizer>,
    ids: TokenIds,
    directory: &Path,
) -> Result<()> {
    let s = &config.settings;
    known_autoencoder(config)?;
    let mut tensors = Writing::default();
    names::autoencoder(&mut tensors, "", &mut model.clone());
    tensors.repeat(ENCODER_TABLE, DECODER_TABLE);
    let json = json!({
        "vocab_size": config.vocab_size,
        "patch_size": config.chunk_size,
        "latent_size": config.latent_size,
        "hidden_size": s.hidden_size,
        "intermediate_size": s.intermediate_size,
        "num_encoder_layers": s.encoder_layers,
        "num_decoder_layers": s.decoder_layers,
        "rms_norm_eps": s.norm_eps,
        "hidden_act": "silu",
        "mlp_bias": false,
        "ae_dropout": s.latent_dropout,
        "kl_weight": s.kl_weight,
        "kl_clamp": s.kl_floor,
        "tie_word_embeddings": true,
    });
    write(directory, json, tensors, tokenizer, ids)
}

fn export_calm(
    config: &ModelConfig,
    model: &CalmModel,
    tokenizer: Option<&Tokenizer>,
    ids: TokenIds,
    directory: &Path,
) -> Result<()> {
    known("model.decoder = \"local\"", !config.is_local())?;
    known("model.chunk_context", config.chunk_context == 0)?;
    known(
        "model.compressor = \"linear\"",
        config.compressor == Default::default(),
    )?;
    let head = &config.head;
    match head.kind {
        HeadKind::Energy => {}
        HeadKind::Flow => {
            let solver = (head.flow_solver, head.flow_steps);
            known(
                "solver of its flow but 10 midpoint steps",
                solver == (Solver::Midpoint, 10),
            )?;
        }
        HeadKind::Diffusion => {
            let sampler = (head.diffusion_steps, head.diffusion_clip);
            known(
                "sampler of its diffusion but 100 steps without clip",
                sampler == (100, 0.0),
            )?;
        }
    }
    known_autoencoder(&config.autoencoder())?;
    let mut tensors = Writing::default();
    let CalmModel {
        autoencoder,
        language_model,
    } = &mut model.clone();
    names::autoencoder(&mut tensors, AUTOENCODER, autoencoder);
    let table = |name: &str| format!("{AUTOENCODER}{name}");
    tensors.repeat(&table(ENCODER_TABLE), &table(DECODER_TABLE));
    names::backbone(&mut tensors, &mut language_model.backbone);
    names::head(&mut tensors, &mut language_model.head);
    if config.head.kind == HeadKind::Energy {
        tensors.repeat_below(HEAD, HEAD_TOO);
    }
    let beside = directory.join("autoencoder");
    std::fs::create_dir_all(&beside).map_err(Error::io(&beside))?;
    let ae_path = beside.canonicalize().map_err(Error::io(&beside))?;
    let ae_path = ae_path.to_string_lossy();
    let mut json = llama(&config.backbone, config.vocab_size, config.init_std);
    set(
        &mut json,
        json!({
            "ae_path": ae_path,
            "patch_size": config.chunk_size,
            "latent_size": config.latent_size,
            "num_mlp_layers": config.head.blocks,
            "noise_size": config.head.noise_size,
            "num_samples": config.head.samples,
            "beta": config.head.alpha,
            "max_position_embeddings": config.steps(),
            "tie_word_embeddings": false,
        }),
    );
    write(directory, json, tensors, tokenizer, ids)?;
    export_autoencoder(
        &config.autoencoder(),
        &model.autoencoder,
        tokenizer,
        ids,
        &beside,
    )
}

/// The released code has one rate for both dropouts.
fn known_autoencoder(config: &AutoencoderConfig) -> Result<()> {
    let s = &config.settings;
    let fits = s.token_dropout == s.latent_dropout;
    known("autoencoder.token_dropout other than latent_dropout", fits)
}

/// Refuses what the released code doesn't know.
fn known(setting: &'static str, fits: bool) -> Result<()> {
    match fits {
        true => Ok(()),
        false => Err(Error::Export { setting }),
    }
}

/// LLaMA's part of a configuration, everything stated: the released classes have defaults of their own
/// (12 key/value heads among them).
fn llama(config: &TransformerConfig, vocab_size: usize, init_std: f64) -> Value {
    json!({
        "vocab_size": vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "initializer_range": init_std,
        "hidden_act": "silu",
        "attention_bias": false,
        "attention_dropout": 0.0,
        "mlp_bias": false,
    })
}

fn set(json: &mut Value, more: Value) {
    if let (Value::Object(json), Value::Object(more)) = (json, more) {
        json.extend(more);
    }
}

fn write(
    directory: &Path,
    mut json: Value,
    tensors: Writing,
    tokenizer: Option<&Tokenizer>,
    ids: TokenIds,
) -> Result<()> {
    std::fs::create_dir_all(directory).map_err(Error::io(directory))?;
    let end = tokenizer.map(Tokenizer::end_of_text);
    // Of models that were trained here none pads: the row that trains nothing would be a token.
    set(
        &mut json,
        json!({
            "bos_token_id": ids.bos.or(end),
            "eos_token_id": ids.eos.or(end),
            "pad_token_id": ids.pad,
            "torch_dtype": tensors.dtype(),
        }),
    );
    // The weights last: without them nothing loads.
    if let Some(tokenizer) = tokenizer {
        tokenizer.export(directory)?;
    }
    let path = directory.join("config.json");
    let text = serde_json::to_string_pretty(&json).expect("numbers and words have a JSON form");
    calm_files::write_atomic(&path, (text + "\n").as_bytes()).map_err(Error::io(&path))?;
    let path = directory.join("model.safetensors");
    let tensors = tensors
        .0
        .into_iter()
        .map(|(name, tensor)| tensor.into_tensor(name));
    // transformers refuses a file that doesn't say this.
    write_safetensors(&path, &[("format", "pt")], tensors.collect())?;
    Ok(())
}

/// A parameter on its way into a file.
#[derive(Clone)]
enum Outgoing {
    Vector(Tensor<1>),
    Table(Tensor<2>),
    /// Parts that lie one below the other, to be written transposed.
    Matrix(Vec<Tensor<2>>),
}

impl Outgoing {
    fn dtype(&self) -> DType {
        match self {
            Self::Vector(x) => x.dtype(),
            Self::Table(x) => x.dtype(),
            Self::Matrix(parts) => parts[0].dtype(),
        }
    }

    fn into_tensor(self, name: String) -> TensorToWrite {
        let dtype = match self.dtype() {
            DType::BF16 => Dtype::Bf16,
            _ => Dtype::F32,
        };
        let shape = match &self {
            Self::Vector(x) => x.dims().to_vec(),
            Self::Table(x) => x.dims().to_vec(),
            Self::Matrix(parts) => {
                vec![
                    parts[0].dims()[1],
                    parts.iter().map(|part| part.dims()[0]).sum(),
                ]
            }
        };
        TensorToWrite::new(name, dtype, shape, move || self.bytes())
    }

    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Vector(x) => x.clone().into_data().as_bytes().to_vec(),
            Self::Table(x) => x.clone().into_data().as_bytes().to_vec(),
            Self::Matrix(parts) => {
                let rows = parts.iter().map(|part| part.dims()[0]).sum();
                let mut bytes = Vec::new();
                for part in parts {
                    bytes.extend_from_slice(part.clone().into_data().as_bytes());
                }
                match self.dtype() {
                    DType::BF16 => by_columns(&bytes, rows, |b: [u8; 2]| b).into_flattened(),
                    _ => by_columns(&bytes, rows, |b: [u8; 4]| b).into_flattened(),
                }
            }
        }
    }
}

/// What a file will hold, by name.
#[derive(Default)]
struct Writing(BTreeMap<String, Outgoing>);

impl Writing {
    /// Gives a tensor a second name.
    fn repeat(&mut self, name: &str, too: &str) {
        let tensor = self.0[name].clone();
        self.0.insert(too.to_owned(), tensor);
    }

    fn repeat_below(&mut self, prefix: &str, too: &str) {
        let names: Vec<_> = self
            .0
            .keys()
            .filter(|name| name.starts_with(prefix))
            .cloned()
            .collect();
        for name in names {
            let other = name.replacen(prefix, too, 1);
            self.repeat(&name, &other);
        }
    }

    fn dtype(&self) -> &'static str {
        let all_short = self.0.values().all(|tensor| tensor.dtype() == DType::BF16);
        if all_short { "bfloat16" } else { "float32" }
    }
}

impl Exchange for Writing {
    fn vector(&mut self, name: String, ours: &mut Param<Tensor<1>>) {
        self.0.insert(name, Outgoing::Vector(ours.val()));
    }

    fn table(&mut self, name: String, ours: &mut Param<Tensor<2>>) {
        self.0.insert(name, Outgoing::Table(ours.val()));
    }

    fn matrix(&mut self, name: String, ours: &mut [&mut Param<Tensor<2>>]) {
        let parts = ours.iter().map(|part| part.val()).collect();
        self.0.insert(name, Outgoing::Matrix(parts));
    }
}
