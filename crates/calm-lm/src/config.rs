//! The `[model]` table: everything that fixes a CALM's weights and window.

use calm_autoencoder::{AutoencoderConfig, AutoencoderSettings};
use calm_backbone::{BackboneConfig, CompressorKind};
use calm_likelihood_free::{HeadConfig, HeadSettings, MAX_N};
use calm_local_decoder::{LocalDecoderConfig, LocalDecoderSettings};
use calm_nn::{ConfigError, Cost, Init, TransformerConfig, mix};
use serde::{Deserialize, Serialize};

use crate::{AuxiliaryConfig, CalmModel, LanguageModel, LocalModel, Objective};
use burn::tensor::Device;

/// Configuration of a [`CalmModel`]. Sizes that several parts share stand here once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Tokens in the vocabulary, V, the end-of-text token included.
    pub vocab_size: usize,
    /// Tokens per chunk, K.
    pub chunk_size: usize,
    /// Tokens before a chunk that the backbone's input is made of too, C (published: 0;
    /// [`calm_backbone::ChunkCompressor`]).
    #[serde(default)]
    pub chunk_context: usize,
    /// How the backbone's input for a chunk is made of embeddings (published: by an MLP).
    #[serde(default)]
    pub compressor: CompressorKind,
    /// Latent width, l (published: 32 K).
    pub latent_size: usize,
    /// What turns a predicted vector into tokens.
    #[serde(default)]
    pub decoder: DecoderKind,
    /// Tokens per window, in training, evaluation and generation; a multiple of K.
    pub window: usize,
    /// Standard deviation of the weights at the start (published: 0.02, for widths of 1,000 and
    /// more; about `1 / sqrt(d)` suits narrow models).
    pub init_std: f64,
    /// Whether the residual branches of the backbone and of the local decoder begin at zero
    /// (published: no; [`Init::branch_end`]).
    #[serde(default)]
    pub zero_init_residual: bool,
    /// Weight of the cross-entropy of the next chunk's tokens, named from the hidden state, beside
    /// the energy score; 0, as in the paper, for none.
    #[serde(default)]
    pub aux_weight: f64,
    /// What the head is trained by (published: the energy score alone).
    #[serde(default)]
    pub objective: Objective,
    /// The chunk autoencoder.
    pub autoencoder: AutoencoderSettings,
    /// The backbone's decoder stack.
    pub backbone: TransformerConfig,
    /// The generative head (published: the energy head).
    pub head: HeadSettings,
    /// The local decoder, where that is the decoder.
    #[serde(default)]
    pub local: LocalDecoderSettings,
}

/// What turns a predicted vector into tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DecoderKind {
    /// The frozen decoder of the chunk autoencoder, of a vector that the head drew: CALM.
    #[default]
    Autoencoder,
    /// A small transformer over tokens, of a vector that is the backbone's state: not CALM's method,
    /// see [`calm_local_decoder`]. It needs neither autoencoder nor head.
    Local,
}

impl ModelConfig {
    /// Checks that all parts fit together.
    ///
    /// # Errors
    /// Names the field and what it must be.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.autoencoder().validate()?;
        self.backbone().validate()?;
        self.head().validate()?;
        self.local().validate()?;
        ConfigError::multiple(
            "model.window",
            self.window,
            "model.chunk_size",
            self.chunk_size,
        )?;
        for (key, reach) in [
            ("model.chunk_context", self.chunk_context),
            ("model.local.near_tokens", self.local.near_tokens),
        ] {
            let inside = reach < self.window;
            ConfigError::range(key, reach as f64, inside, "less than the window")?;
        }
        let aux = self.aux_weight;
        ConfigError::range(
            "model.aux_weight",
            aux,
            aux >= 0.0 && aux.is_finite(),
            "0 or more",
        )?;
        self.objective.validate(&self.head, self.decoder)?;
        let positive = self.init_std > 0.0 && self.init_std.is_finite();
        ConfigError::range("model.init_std", self.init_std, positive, "greater than 0")?;
        // One chunk to see; behind it one to predict, and the four tokens that a Brier-4 scores.
        let smallest = self.chunk_size + self.chunk_size.max(MAX_N);
        let range = "at least two chunks, and four tokens behind the first";
        let inside = self.window >= smallest;
        ConfigError::range("model.window", self.window as f64, inside, range)
    }

    /// Chunks per window, S.
    pub fn steps(&self) -> usize {
        self.window / self.chunk_size
    }

    /// The autoencoder's whole configuration.
    pub fn autoencoder(&self) -> AutoencoderConfig {
        AutoencoderConfig {
            vocab_size: self.vocab_size,
            chunk_size: self.chunk_size,
            latent_size: self.latent_size,
            settings: self.autoencoder.clone(),
        }
    }

    /// The backbone's whole configuration.
    pub fn backbone(&self) -> BackboneConfig {
        BackboneConfig {
            vocab_size: self.vocab_size,
            chunk_size: self.chunk_size,
            chunk_context: self.chunk_context,
            compressor: self.compressor,
            transformer: self.backbone.clone(),
        }
    }

    /// The head's whole configuration.
    pub fn head(&self) -> HeadConfig {
        HeadConfig {
            hidden_size: self.backbone.hidden_size,
            latent_size: self.latent_size,
            settings: self.head.clone(),
        }
    }

    /// The local decoder's whole configuration.
    pub fn local(&self) -> LocalDecoderConfig {
        LocalDecoderConfig {
            vocab_size: self.vocab_size,
            chunk_size: self.chunk_size,
            chunk_width: self.backbone.hidden_size,
            settings: self.local.clone(),
        }
    }

    /// The auxiliary heads, where the loss has a part of them.
    pub fn auxiliary(&self) -> Option<AuxiliaryConfig> {
        (self.aux_weight > 0.0 && !self.is_local()).then_some(AuxiliaryConfig {
            vocab_size: self.vocab_size,
            chunk_size: self.chunk_size,
            hidden_size: self.backbone.hidden_size,
        })
    }

    /// Whether the decoder is the local one.
    pub fn is_local(&self) -> bool {
        self.decoder == DecoderKind::Local
    }

    /// A model with a local decoder and fresh weights from `seed`, equal on every device.
    pub fn init_local(&self, seed: u64, device: &Device) -> LocalModel {
        self.build_local(&mut self.language_model_weights(seed, device))
    }

    fn build_local(&self, init: &mut Init<'_>) -> LocalModel {
        LocalModel {
            backbone: self.backbone().init(init),
            decoder: self.local().init(init),
        }
    }

    /// The same, waiting for weights from a file ([`Init::unloaded`]).
    pub fn unloaded_local(&self, device: &Device) -> LocalModel {
        self.build_local(&mut Init::unloaded(device))
    }

    /// A CALM with fresh weights from `seed`, equal on every device.
    pub fn init(&self, seed: u64, device: &Device) -> CalmModel {
        let autoencoder = self
            .autoencoder()
            .init(&mut Init::new(mix(seed, 1), device).with_std(self.init_std));
        CalmModel {
            autoencoder,
            language_model: self.init_language_model(seed, device),
        }
    }

    /// The language model alone, with the weights that [`ModelConfig::init`] gives it.
    pub fn init_language_model(&self, seed: u64, device: &Device) -> LanguageModel {
        self.build_language_model(&mut self.language_model_weights(seed, device))
    }

    /// The language model, waiting for weights from a file ([`Init::unloaded`]).
    pub fn unloaded_language_model(&self, device: &Device) -> LanguageModel {
        self.build_language_model(&mut Init::unloaded(device))
    }

    /// A CALM that waits for weights from a file ([`Init::unloaded`]).
    pub fn unloaded(&self, device: &Device) -> CalmModel {
        CalmModel {
            autoencoder: self.autoencoder().init(&mut Init::unloaded(device)),
            language_model: self.unloaded_language_model(device),
        }
    }

    fn build_language_model(&self, init: &mut Init<'_>) -> LanguageModel {
        LanguageModel {
            backbone: self.backbone().init(init),
            head: self.head().init(init),
            auxiliary: self.auxiliary().map(|auxiliary| auxiliary.init(init)),
            aux_weight: self.aux_weight,
            objective: self.objective,
        }
    }

    fn language_model_weights<'a>(&self, seed: u64, device: &'a Device) -> Init<'a> {
        Init::new(mix(seed, 2), device)
            .with_std(self.init_std)
            .with_zero_residual(self.zero_init_residual)
    }

    /// Parameters of the backbone and of what follows it: the head, without the autoencoder, or the
    /// local decoder.
    pub fn language_model_parameters(&self) -> u64 {
        let backbone = self.backbone().parameters();
        match self.decoder {
            DecoderKind::Autoencoder => backbone + self.head().parameters(),
            DecoderKind::Local => backbone + self.local().parameters(),
        }
    }

    /// Multiply-accumulates of a chunk's forward pass with a local decoder.
    fn local_macs(&self, context: usize) -> u64 {
        let tokens = self.chunk_size as u64 * self.local().forward_macs(context);
        self.backbone().forward_macs(context) + tokens
    }

    /// FLOPs per token of training the language model: backbone and head forward and backward,
    /// the frozen encoder forward, the auxiliary heads, the frozen decoder where the objective reads
    /// it; attention over `context` steps. The distances of the energy score, N (M + N/2) l
    /// multiply-accumulates a position, are left out: 0.7 % of preset `nano`, 0.02 % of CALM-M.
    pub fn language_model_train_flops(&self, context: usize) -> f64 {
        if self.is_local() {
            return 6.0 * self.local_macs(context) as f64 / self.chunk_size as f64;
        }
        let auxiliary = self.auxiliary().map_or(0, |a| a.forward_macs(context));
        let [head, decoded] = self.objective_macs();
        let trained = self.backbone().forward_macs(context) + head + auxiliary;
        // The decoder is frozen: forward and the gradients of its inputs.
        let macs = 3 * trained + 2 * decoded + self.autoencoder().encoder_macs();
        2.0 * macs as f64 / self.chunk_size as f64
    }

    /// Multiply-accumulates of a chunk, forward: in the head and its loss, and in the frozen decoder.
    fn objective_macs(&self) -> [u64; 2] {
        let objective = &self.objective;
        if !objective.reads_decoder() {
            return [self.head().loss_macs(), 0];
        }
        let draws = objective.draws as u64;
        let head = self
            .head()
            .sample_macs(objective.samples(self.head.samples) as u64);
        let overlaps = match objective.brier > 0.0 {
            true => draws * draws * (self.chunk_size * self.vocab_size) as u64,
            false => 0,
        };
        [head + overlaps, draws * self.autoencoder().decoder_macs()]
    }

    /// FLOPs per token of the frozen encoder that makes the language model's targets; part of
    /// [`ModelConfig::language_model_train_flops`].
    pub fn encoder_flops(&self) -> f64 {
        if self.is_local() {
            return 0.0;
        }
        2.0 * self.autoencoder().encoder_macs() as f64 / self.chunk_size as f64
    }

    /// FLOPs per token of decoding one sample; part of [`ModelConfig::inference_flops`].
    pub fn decoder_flops(&self) -> f64 {
        if self.is_local() {
            return 0.0;
        }
        2.0 * self.autoencoder().decoder_macs() as f64 / self.chunk_size as f64
    }

    /// Bytes of the key/value cache per token.
    pub fn cache_bytes_per_token(&self) -> f64 {
        let backbone = self.backbone().cache_bytes() as f64 / self.chunk_size as f64;
        match self.decoder {
            DecoderKind::Autoencoder => backbone,
            DecoderKind::Local => backbone + self.local().cache_bytes() as f64,
        }
    }

    /// FLOPs per token of training the autoencoder; a local decoder needs none.
    pub fn autoencoder_train_flops(&self) -> f64 {
        if self.is_local() {
            return 0.0;
        }
        6.0 * self.autoencoder().forward_macs(0) as f64 / self.chunk_size as f64
    }

    /// FLOPs per generated token: one step with one head sample and one decode (T = 1).
    pub fn inference_flops(&self, context: usize) -> f64 {
        self.sampling_flops(context, 1)
    }

    /// FLOPs per generated token where each chunk is chosen among `samples` draws of the head, all
    /// decoded to their ends: a bound for temperatures below 1, at which draws are cut short and pools
    /// may be smaller.
    pub fn sampling_flops(&self, context: usize, samples: u64) -> f64 {
        if self.is_local() {
            // Any temperature is one draw from given probabilities.
            return 2.0 * self.local_macs(context) as f64 / self.chunk_size as f64;
        }
        let decoded = samples * self.autoencoder().decoder_macs();
        let draws = self.head().sample_macs(samples) + decoded;
        let macs = self.backbone().forward_macs(context) + draws;
        2.0 * macs as f64 / self.chunk_size as f64
    }
}

/// What a checkpoint holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A CALM, or of one in training its autoencoder alone.
    #[default]
    Calm,
    /// A token baseline.
    TokenModel,
    /// An autoencoder that was imported alone.
    Autoencoder,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Calm => "a CALM",
            Self::TokenModel => "a token baseline",
            Self::Autoencoder => "an autoencoder alone",
        })
    }
}
