//! config.json of released checkpoints, and the sizes that their tensors have.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use calm_autoencoder::{AutoencoderConfig, AutoencoderSettings};
use calm_baseline::TokenModelConfig;
use calm_likelihood_free::{DiffusionLoss, HeadKind, HeadSettings};
use calm_nn::{TransformerConfig, WEIGHT_STD};
use calm_weights::{Tensor, printable};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::names::{ENCODER_TABLE, HEAD, OUTPUT, TOKEN_TABLE};
use crate::{Error, ModelConfig, Result};

/// Longest config.json that is read.
const LONGEST_CONFIG: u64 = 1 << 20;

/// Steps of the published context, where a file states none.
const PUBLISHED_STEPS: usize = 2048;

/// The longest context that is believed.
const MOST_POSITIONS: usize = 1 << 24;

/// What is read of a config.json. Sizes are those of the tensors: what is stated as well must agree.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ReleasedConfig {
    vocab_size: Option<usize>,
    hidden_size: Option<usize>,
    intermediate_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    max_position_embeddings: Option<usize>,
    initializer_range: Option<f64>,
    rms_norm_eps: Option<f64>,
    rope_theta: Option<f64>,
    rope_scaling: Option<Value>,
    /// Where newer versions of transformers put the two before.
    rope_parameters: Option<Value>,
    model_type: Option<String>,
    hidden_act: Option<String>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    tie_word_embeddings: Option<bool>,
    bos_token_id: Option<Ids>,
    eos_token_id: Option<Ids>,
    pad_token_id: Option<Ids>,
    // CALM's
    patch_size: Option<usize>,
    latent_size: Option<usize>,
    num_mlp_layers: Option<usize>,
    noise_size: Option<usize>,
    num_samples: Option<usize>,
    beta: Option<f64>,
    // the autoencoder's
    num_encoder_layers: Option<usize>,
    num_decoder_layers: Option<usize>,
    ae_dropout: Option<f64>,
    kl_weight: Option<f64>,
    kl_clamp: Option<f64>,
}

/// One id, or several.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Ids {
    One(i64),
    Some(Vec<i64>),
}

impl Ids {
    /// The first, as far as it is an id: some files have -1 for none.
    fn first(&self) -> Option<u32> {
        let first = match self {
            Self::One(id) => Some(id),
            Self::Some(ids) => ids.first(),
        };
        first.and_then(|&id| u32::try_from(id).ok())
    }
}

/// Ids of tokens that a released configuration names, which the model itself does without.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenIds {
    /// Begins a text.
    pub bos: Option<u32>,
    /// Ends a text.
    pub eos: Option<u32>,
    /// Fills up a chunk or a batch.
    pub pad: Option<u32>,
}

/// Why something can't be imported, in words.
type Refused<T> = std::result::Result<T, String>;

impl ReleasedConfig {
    /// Reads config.json of a directory.
    ///
    /// # Errors
    /// Where it is missing, too long or can't be read.
    pub fn read(directory: &Path) -> Result<Self> {
        let path = directory.join("config.json");
        let mut json = Vec::new();
        let file = File::open(&path).map_err(Error::io(&path))?;
        let read = file.take(LONGEST_CONFIG + 1).read_to_end(&mut json);
        read.map_err(Error::io(&path))?;
        let refused = |detail: String| Error::Import {
            path: path.clone(),
            detail: printable(&detail),
        };
        if json.len() as u64 > LONGEST_CONFIG {
            return Err(refused("longer than any configuration".to_owned()));
        }
        Self::parse(&json).map_err(refused)
    }

    /// The configuration in a config.json.
    ///
    /// # Errors
    /// In words.
    pub fn parse(json: &[u8]) -> std::result::Result<Self, String> {
        serde_json::from_slice(json).map_err(|e| e.to_string())
    }

    /// The tokens that it names.
    pub fn token_ids(&self) -> TokenIds {
        let first = |ids: &Option<Ids>| ids.as_ref().and_then(Ids::first);
        TokenIds {
            bos: first(&self.bos_token_id),
            eos: first(&self.eos_token_id),
            pad: first(&self.pad_token_id),
        }
    }

    /// The autoencoder whose tensors have names after `prefix`.
    pub fn autoencoder(&self, tensors: &Sizes<'_>, prefix: &str) -> Refused<AutoencoderConfig> {
        let tensors = tensors.below(prefix);
        let [vocab_size, d] = tensors.matrix(ENCODER_TABLE)?;
        let [_, wide] = tensors.matrix("encoder.squeeze_layer.weight")?;
        let [twice, _] = tensors.matrix("encoder.hidden_to_latent.weight")?;
        let [ff, _] = tensors.matrix("encoder.encoder_layers.0.mlp.gate_proj.weight")?;
        let config = AutoencoderConfig {
            vocab_size: agree("vocab_size", self.vocab_size, vocab_size)?,
            chunk_size: agree("patch_size", self.patch_size, whole(wide, d, "patch_size")?)?,
            latent_size: agree(
                "latent_size",
                self.latent_size,
                whole(twice, 2, "latent_size")?,
            )?,
            settings: AutoencoderSettings {
                hidden_size: agree("hidden_size", self.hidden_size, d)?,
                intermediate_size: agree("intermediate_size", self.intermediate_size, ff)?,
                encoder_layers: agree(
                    "num_encoder_layers",
                    self.num_encoder_layers,
                    tensors.count("encoder.encoder_layers"),
                )?,
                decoder_layers: agree(
                    "num_decoder_layers",
                    self.num_decoder_layers,
                    tensors.count("decoder.decoder_layers"),
                )?,
                norm_eps: self.rms_norm_eps.unwrap_or(1e-6),
                token_dropout: self.ae_dropout.unwrap_or(0.15),
                latent_dropout: self.ae_dropout.unwrap_or(0.15),
                kl_weight: self.kl_weight.unwrap_or(1e-3),
                kl_floor: self.kl_clamp.unwrap_or(0.5),
            },
        };
        config.validate().map_err(|e| e.to_string())?;
        Ok(config)
    }

    /// The CALM over an autoencoder.
    pub fn calm(
        &self,
        tensors: &Sizes<'_>,
        autoencoder: AutoencoderConfig,
    ) -> Refused<ModelConfig> {
        let [vocab_size, d] = tensors.matrix("transformer.embed_tokens.weight")?;
        let [_, wide] = tensors.matrix("embed_proj.0.weight")?;
        let chunk_size = agree("patch_size", self.patch_size, whole(wide, d, "patch_size")?)?;
        let head = self.head(tensors)?;
        let latent_size = agree("latent_size", self.latent_size, head.latent_size)?;
        for (what, of_it, here) in [
            ("tokens a chunk (K)", autoencoder.chunk_size, chunk_size),
            ("numbers a latent (l)", autoencoder.latent_size, latent_size),
            (
                "tokens in the vocabulary",
                autoencoder.vocab_size,
                vocab_size,
            ),
        ] {
            if of_it != here {
                return Err(format!(
                    "the autoencoder has {of_it} {what} and the language model {here}: they don't belong together"
                ));
            }
        }
        let steps = self.positions()?;
        let config = ModelConfig {
            vocab_size: agree("vocab_size", self.vocab_size, vocab_size)?,
            chunk_size,
            chunk_context: 0,
            compressor: Default::default(),
            latent_size,
            decoder: Default::default(),
            window: steps * chunk_size,
            init_std: self.initializer_range.unwrap_or(WEIGHT_STD),
            zero_init_residual: false,
            aux_weight: 0.0,
            objective: Default::default(),
            autoencoder: autoencoder.settings,
            backbone: self.transformer(tensors, "transformer", d)?,
            head: head.settings,
            local: Default::default(),
        };
        config.validate().map_err(|e| e.to_string())?;
        Ok(config)
    }

    /// The head, told by its tensors.
    fn head(&self, tensors: &Sizes<'_>) -> Refused<FoundHead> {
        let head = tensors.below(&format!("{HEAD}."));
        let defaults = HeadSettings {
            samples: self.num_samples.unwrap_or(8),
            ..HeadSettings::default()
        };
        if head.has("noise_embd.weight") {
            let [_, noise_size] = head.matrix("noise_embd.weight")?;
            let [latent_size, _] = head.matrix("final_layer.linears.2.weight")?;
            let blocks = head.count("mlp_blocks");
            return Ok(FoundHead {
                latent_size,
                settings: HeadSettings {
                    kind: HeadKind::Energy,
                    blocks: agree("num_mlp_layers", self.num_mlp_layers, blocks)?,
                    noise_size: agree("noise_size", self.noise_size, noise_size)?,
                    alpha: self.beta.unwrap_or(1.0),
                    ..defaults
                },
            });
        }
        let [_, latent_size] = head
            .matrix("net.input_proj.weight")
            .map_err(|_| "its head is none that is known: energy, flow or diffusion".to_owned())?;
        let [out, _] = head.matrix("net.final_layer.linear.weight")?;
        let kind = match out.checked_div(latent_size) {
            Some(1) if out == latent_size => HeadKind::Flow,
            Some(2) if out == 2 * latent_size => HeadKind::Diffusion,
            _ => {
                return Err(format!(
                    "a head that makes {out} numbers of {latent_size} is neither flow nor diffusion"
                ));
            }
        };
        let blocks = head.count("net.res_blocks");
        Ok(FoundHead {
            latent_size,
            settings: HeadSettings {
                kind,
                blocks: agree("num_mlp_layers", self.num_mlp_layers, blocks)?,
                diffusion_loss: DiffusionLoss::Released,
                ..defaults
            },
        })
    }

    /// The token model; `tied` where its output layer is the embedding table.
    pub fn token_model(&self, tensors: &Sizes<'_>) -> Refused<TokenModelConfig> {
        // Others have LLaMA's tensors and compute something else with them.
        if let Some(other) = self.model_type.as_deref().filter(|&kind| kind != "llama") {
            return Err(format!("model_type = {other:?}, where llama is known"));
        }
        let [vocab_size, d] = tensors.matrix(TOKEN_TABLE)?;
        let config = TokenModelConfig {
            vocab_size: agree("vocab_size", self.vocab_size, vocab_size)?,
            window: self.positions()?,
            init_std: self.initializer_range.unwrap_or(WEIGHT_STD),
            tied_embeddings: !tensors.has(OUTPUT) || self.tie_word_embeddings == Some(true),
            scale_embeddings: false,
            zero_init_residual: false,
            near_tokens: 0,
            transformer: self.transformer(tensors, "model", d)?,
        };
        config.validate().map_err(|e| e.to_string())?;
        Ok(config)
    }

    fn transformer(
        &self,
        tensors: &Sizes<'_>,
        prefix: &str,
        d: usize,
    ) -> Refused<TransformerConfig> {
        let rope_theta = self.rope_theta()?;
        for (key, said) in [
            ("attention_bias", self.attention_bias),
            ("mlp_bias", self.mlp_bias),
        ] {
            if said == Some(true) {
                return Err(format!("{key}: layers have no biases here"));
            }
        }
        if let Some(act) = self.hidden_act.as_deref().filter(|&act| act != "silu") {
            return Err(format!("hidden_act = {act:?}, where silu is known"));
        }
        let heads = self
            .num_attention_heads
            .ok_or("num_attention_heads is missing")?;
        let layers = tensors.below(&format!("{prefix}.layers."));
        let [keys, _] = layers.matrix("0.self_attn.k_proj.weight")?;
        let [ff, _] = layers.matrix("0.mlp.gate_proj.weight")?;
        let head_dim = whole(d, heads, "num_attention_heads")?;
        let kv_heads = whole(keys, head_dim, "num_key_value_heads")?;
        agree("head_dim", self.head_dim, head_dim)?;
        let found = tensors.count(&format!("{prefix}.layers"));
        let config = TransformerConfig {
            layers: agree("num_hidden_layers", self.num_hidden_layers, found)?,
            hidden_size: agree("hidden_size", self.hidden_size, d)?,
            intermediate_size: agree("intermediate_size", self.intermediate_size, ff)?,
            heads,
            kv_heads: agree("num_key_value_heads", self.num_key_value_heads, kv_heads)?,
            rope_theta,
            norm_eps: self.rms_norm_eps.unwrap_or(1e-6),
        };
        config.validate().map_err(|e| e.to_string())?;
        Ok(config)
    }

    /// Positions of the context.
    fn positions(&self) -> Refused<usize> {
        let stated = self.max_position_embeddings.unwrap_or(PUBLISHED_STEPS);
        match stated <= MOST_POSITIONS {
            true => Ok(stated),
            false => Err(format!(
                "max_position_embeddings = {stated}: more than any model has"
            )),
        }
    }

    /// The base of the rotary frequencies, which are not scaled here.
    fn rope_theta(&self) -> Refused<f64> {
        let newer = self.rope_parameters.as_ref();
        for (key, settings) in [
            ("rope_scaling", &self.rope_scaling),
            ("rope_parameters", &self.rope_parameters),
        ] {
            let Some(settings) = settings else { continue };
            let kind = settings.get("rope_type").or(settings.get("type"));
            let plain = kind.is_none_or(|kind| kind.as_str() == Some("default"));
            let scaled = key == "rope_scaling" && kind.is_none();
            let whole = settings
                .get("partial_rotary_factor")
                .is_none_or(|f| f.as_f64() == Some(1.0));
            if !plain || scaled || !whole {
                return Err(format!(
                    "{key}: positions are neither scaled nor left out here"
                ));
            }
        }
        let in_it = newer
            .and_then(|newer| newer.get("rope_theta"))
            .map(|theta| {
                theta
                    .as_f64()
                    .ok_or("rope_parameters.rope_theta is no number".to_owned())
            });
        match (self.rope_theta, in_it.transpose()?) {
            (Some(one), Some(other)) if one != other => Err(format!(
                "rope_theta is {one}, and {other} in rope_parameters"
            )),
            (one, other) => Ok(one.or(other).unwrap_or(10_000.0)),
        }
    }

    /// Of the autoencoder inside a CALM's file, whose config.json speaks of the language model: nothing
    /// but what both share.
    pub fn of_the_autoencoder_inside(&self) -> Self {
        Self {
            vocab_size: self.vocab_size,
            patch_size: self.patch_size,
            latent_size: self.latent_size,
            ..Self::default()
        }
    }
}

struct FoundHead {
    latent_size: usize,
    settings: HeadSettings,
}

/// The size that the tensors have, where nothing else is stated.
fn agree(key: &str, said: Option<usize>, found: usize) -> Refused<usize> {
    match said {
        Some(said) if said != found => Err(format!(
            "config.json says {key} = {said}, but by the weights it is {found}"
        )),
        _ => Ok(found),
    }
}

fn whole(size: usize, part: usize, key: &str) -> Refused<usize> {
    match size.checked_rem(part) {
        Some(0) => Ok(size / part),
        _ => Err(format!(
            "{key}: the weights have {size}, which is no multiple of {part}"
        )),
    }
}

/// Shapes of tensors, by name.
pub struct Sizes<'a> {
    tensors: &'a BTreeMap<String, Tensor>,
    prefix: String,
}

impl<'a> Sizes<'a> {
    pub fn new(tensors: &'a BTreeMap<String, Tensor>) -> Self {
        let prefix = String::new();
        Self { tensors, prefix }
    }

    fn below(&self, prefix: &str) -> Self {
        Self {
            tensors: self.tensors,
            prefix: format!("{}{prefix}", self.prefix),
        }
    }

    fn get(&self, name: &str) -> Option<&'a Tensor> {
        self.tensors.get(&format!("{}{name}", self.prefix))
    }

    fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    fn matrix(&self, name: &str) -> Refused<[usize; 2]> {
        let full = || format!("{}{name}", self.prefix);
        let tensor = self
            .get(name)
            .ok_or_else(|| format!("tensor {} is missing", full()))?;
        let shape = tensor.shape();
        if shape.contains(&0) {
            // Of such a one the other extent could be anything, and the file as small as may be.
            return Err(format!("tensor {} is empty: {shape:?}", full()));
        }
        shape
            .try_into()
            .map_err(|_| format!("tensor {} is no matrix but {shape:?}", full()))
    }

    /// Layers of a list: one more than the largest number after `list`.
    fn count(&self, list: &str) -> usize {
        let start = format!("{}{list}.", self.prefix);
        let names = self.tensors.range(start.clone()..);
        let names = names.map_while(|(name, _)| name.strip_prefix(&start));
        let numbers = names.filter_map(|rest| rest.split('.').next()?.parse::<usize>().ok());
        // No more than there are tensors: what lies beyond them is unexpected.
        let most = self.tensors.len();
        numbers
            .filter(|&i| i < most)
            .max()
            .map_or(0, |last| last + 1)
    }
}
