//! The experiment: everything that a run depends on, as one TOML file.

use burn::tensor::Device;
use calm_baseline::TokenModelConfig;
use calm_data::{BadLinePolicy, Split};
use calm_eval::EvalConfig;
use calm_kernels::{MatmulPrecision, precision_on};
use calm_likelihood_free::{BatchSampler, MAX_N};
use calm_lm::ModelConfig;
use calm_nn::{ConfigError, TransformerConfig};
use calm_records::Stage;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A complete experiment. Every field stands in every preset; there are no hidden defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experiment {
    /// Name of the preset.
    pub preset: String,
    /// Seed of weights, order of the text, and all draws.
    pub seed: u64,
    /// How matrix products round in training; scores and texts are made in f32.
    pub precision: Precision,
    /// Whether a training step keeps of every block its inputs alone and computes the block again in
    /// the backward pass ([`calm_kernels::checkpoint()`]): less memory, more time, the same gradients.
    #[serde(default)]
    pub gradient_checkpointing: bool,
    /// A run, or a checkpoint of an autoencoder stage, whose autoencoder is taken instead of training
    /// one; empty trains one. It must have been trained on the same text, split and tokenizer.
    pub autoencoder_from: String,
    /// A run, or a checkpoint, whose model is trained further, on another text and with a fresh
    /// optimizer; empty begins with fresh weights. `[model]` is its own but for what only training
    /// needs, and so is the tokenizer.
    #[serde(default)]
    pub init_from: String,
    /// The text.
    pub data: DataConfig,
    /// The model.
    pub model: ModelConfig,
    /// The optimizer, for both stages.
    pub optim: OptimConfig,
    /// The autoencoder stage.
    pub autoencoder: StageConfig,
    /// The language-model stage.
    pub lm: StageConfig,
    /// The token model that the CALM is compared with, and its stage.
    pub baseline: BaselineConfig,
    /// Evaluation at the end of a run.
    pub eval: EvalConfig,
    /// Evaluation on the way, for the curves.
    pub progress_eval: EvalConfig,
    /// Sample texts at the end of a run.
    pub samples: SamplesConfig,
    /// Checkpoints.
    pub checkpoint: CheckpointConfig,
}

/// Which stages to train.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stages {
    /// The autoencoder, then the language model.
    All,
    /// The autoencoder alone.
    Autoencoder,
    /// The language model on the autoencoder that the run directory holds.
    Lm,
    /// The token baseline, which needs neither.
    Baseline,
}

/// How the matrix products of a training step round. Weights, gradients, the optimizer and
/// everything between the products stay in f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// f32 throughout.
    #[default]
    F32,
    /// Factors rounded to bf16, sums in f32, on CPUs with AVX-512 bf16 (on others the same as f32);
    /// on GPUs that have it those of linear layers, whose results are rounded too.
    Bf16,
}

impl Precision {
    /// As in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }

    /// What it comes to on `device`: f32, where that has no products of bf16.
    pub fn on(self, device: &Device) -> Self {
        match precision_on(self.of_products(), device) {
            MatmulPrecision::F32 => Self::F32,
            MatmulPrecision::Bf16 => Self::Bf16,
        }
    }

    /// What the kernels call it.
    pub fn of_products(self) -> MatmulPrecision {
        match self {
            Self::F32 => MatmulPrecision::F32,
            Self::Bf16 => MatmulPrecision::Bf16,
        }
    }
}

/// The token baseline: text, vocabulary, window and optimizer are the CALM's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaselineConfig {
    /// Peak learning rate.
    pub lr: f64,
    /// Standard deviation of the weights at the start.
    pub init_std: f64,
    /// Whether the output layer is the embedding table.
    pub tied_embeddings: bool,
    /// Whether embeddings are scaled by `sqrt(d)`.
    #[serde(default)]
    pub scale_embeddings: bool,
    /// Whether residual branches begin at zero.
    #[serde(default)]
    pub zero_init_residual: bool,
    /// Tokens before each that its embedding takes over from ([`calm_nn::NearTokens`]); published
    /// baselines have none.
    #[serde(default)]
    pub near_tokens: usize,
    /// The decoder stack.
    pub transformer: TransformerConfig,
    /// The stage.
    pub training: StageConfig,
}

/// The text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Named corpora or paths.
    pub corpus: Vec<String>,
    /// A tokenizer.json to use; empty trains one of `model.vocab_size` tokens on the corpus.
    pub tokenizer: String,
    /// Share of the text that choices are made on: evaluations on the way.
    pub validation_fraction: f64,
    /// Share of the text that final scores are reported on.
    pub test_fraction: f64,
    /// Texts of fewer bytes are in one part as a whole, longer ones are cut in three stretches.
    /// Little text is always cut, and its shares may be larger; the resolved configuration has
    /// what was done.
    pub whole_below: u64,
    /// What to do with a bad JSONL line.
    pub bad_lines: BadLinePolicy,
    /// Named corpora or paths that the autoencoder is trained on instead; empty for the same text. What
    /// the corpus holds out must not be among it, which nobody checks.
    #[serde(default)]
    pub autoencoder_corpus: Vec<String>,
    /// Text that is encoded while it is trained on.
    #[serde(default)]
    pub stream: StreamSettings,
}

/// Whether and how text is streamed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamSettings {
    /// Whether text is encoded while it is trained on, in memory, instead of as a whole before the first
    /// step, on disk (4 bytes a token). Windows are then shuffled within a buffer, and files among each
    /// other, instead of all windows among each other.
    pub enabled: bool,
    /// Tokens of the buffer. Memory holds two of them, at 4 bytes a token.
    pub buffer_tokens: usize,
    /// Tokens of each part that are encoded before the first step all the same, the first ones: those
    /// that evaluations take their windows from, and those that tell how often each token occurs.
    pub sample_tokens: u64,
}

impl StreamSettings {
    /// Whether what is encoded first, and the buffer, hold a window.
    pub(crate) fn check(&self, window: usize) -> Result<()> {
        let few = |key, tokens: u64| match tokens < window as u64 {
            true => Err(Error::FewStreamTokens {
                key,
                tokens,
                window,
            }),
            false => Ok(()),
        };
        if self.enabled {
            few("sample_tokens", self.sample_tokens)?;
            few("buffer_tokens", self.buffer_tokens as u64)?;
        }
        Ok(())
    }
}

impl Default for StreamSettings {
    fn default() -> Self {
        Self {
            enabled: false,
            buffer_tokens: 8 << 20,
            sample_tokens: 4 << 20,
        }
    }
}

impl DataConfig {
    /// The split of the text. Its salt is fixed, so that every run holds out the same.
    pub fn split(&self) -> Split {
        Split::new(
            self.validation_fraction,
            self.test_fraction,
            self.whole_below,
        )
    }

    /// The same text under the shares of `split`.
    pub fn set_split(&mut self, split: &Split) {
        self.validation_fraction = split.validation_fraction;
        self.test_fraction = split.test_fraction;
        self.whole_below = split.whole_below;
    }
}

/// AdamW and its schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimConfig {
    /// Peak learning rate of the language-model stage.
    pub lr: f64,
    /// Peak learning rate of the autoencoder stage.
    pub autoencoder_lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled decay of matrices and embeddings; biases and norms are never decayed.
    pub weight_decay: f64,
    /// Largest global norm of the gradient; larger ones are scaled down.
    pub clip_norm: f64,
}

/// One stage of training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageConfig {
    /// Optimizer steps.
    pub steps: u64,
    /// Windows per forward pass.
    pub batch_windows: usize,
    /// Forward passes per optimizer step, one after the other; their gradients are averaged. More
    /// passes of fewer windows take less memory and more time.
    pub accumulate: usize,
    /// Steps over which the learning rate rises linearly from 0.
    pub warmup_steps: u64,
    /// Last steps over which it falls linearly to 0; 0 keeps it constant, as published.
    pub decay_steps: u64,
    /// Steps between lines of metrics.jsonl.
    pub log_every: u64,
    /// Steps between evaluations on the way; 0 for none.
    pub eval_every: u64,
    /// Steps between checkpoints; the last step always makes one.
    pub checkpoint_every: u64,
}

impl StageConfig {
    /// Learning rate of `step`, counted from 1: warm-up, constant, decay.
    pub fn lr(&self, peak: f64, step: u64) -> f64 {
        let up = if self.warmup_steps == 0 {
            1.0
        } else {
            step as f64 / self.warmup_steps as f64
        };
        let left = (self.steps + 1).saturating_sub(step) as f64;
        let down = if self.decay_steps == 0 {
            1.0
        } else {
            left / self.decay_steps as f64
        };
        peak * up.min(down).min(1.0)
    }

    /// Tokens that the whole stage reads.
    pub fn total_tokens(&self, window: usize) -> u64 {
        self.steps * self.tokens_per_step(window)
    }

    /// Tokens that one optimizer step reads.
    pub fn tokens_per_step(&self, window: usize) -> u64 {
        (self.batch_windows * self.accumulate * window) as u64
    }
}

/// Sample texts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplesConfig {
    /// Prompts; the empty one is allowed.
    pub prompts: Vec<String>,
    /// Temperatures, each 1/n.
    pub temperatures: Vec<f64>,
    /// Tokens per text.
    pub tokens: usize,
    /// Draws per chunk below temperature 1, at most.
    pub pool: usize,
}

/// Checkpoints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointConfig {
    /// Newest checkpoints kept per stage.
    pub keep: usize,
}

impl Experiment {
    /// The whole configuration of the token baseline.
    pub fn token_model(&self) -> TokenModelConfig {
        TokenModelConfig {
            vocab_size: self.model.vocab_size,
            window: self.model.window,
            init_std: self.baseline.init_std,
            tied_embeddings: self.baseline.tied_embeddings,
            scale_embeddings: self.baseline.scale_embeddings,
            zero_init_residual: self.baseline.zero_init_residual,
            near_tokens: self.baseline.near_tokens,
            transformer: self.baseline.transformer.clone(),
        }
    }

    /// The configuration of a stage.
    pub fn stage(&self, stage: Stage) -> &StageConfig {
        match stage {
            Stage::Autoencoder => &self.autoencoder,
            Stage::Lm => &self.lm,
            Stage::Baseline => &self.baseline.training,
        }
    }

    /// Refuses what an experiment with a local decoder has no autoencoder for.
    pub(crate) fn check_local(&self, stages: Stages) -> Result<()> {
        if stages == Stages::Autoencoder || !self.autoencoder_from.is_empty() {
            return Err(Error::LocalNeedsNoAutoencoder);
        }
        Ok(())
    }

    /// Checks everything that can be checked before work begins.
    ///
    /// # Errors
    /// Names the field and what it must be.
    pub fn validate(&self) -> Result<()> {
        self.model.validate()?;
        self.token_model().validate()?;
        let (validation, test) = (self.data.validation_fraction, self.data.test_fraction);
        let inside = validation > 0.0 && validation < 1.0;
        ConfigError::range(
            "data.validation_fraction",
            validation,
            inside,
            "0 < share < 1",
        )?;
        let inside = test > 0.0 && validation + test < 1.0;
        let must = "a share above 0 that leaves text to train on";
        ConfigError::range("data.test_fraction", test, inside, must)?;
        for (field, value) in [
            ("optim.lr", self.optim.lr),
            ("optim.autoencoder_lr", self.optim.autoencoder_lr),
            ("baseline.lr", self.baseline.lr),
            ("optim.epsilon", self.optim.epsilon),
            ("optim.clip_norm", self.optim.clip_norm),
        ] {
            let inside = value > 0.0 && value.is_finite();
            ConfigError::range(field, value, inside, "greater than 0")?;
        }
        for (field, value) in [
            ("optim.beta1", self.optim.beta1),
            ("optim.beta2", self.optim.beta2),
        ] {
            ConfigError::range(field, value, (0.0..1.0).contains(&value), "0 <= beta < 1")?;
        }
        let decay = self.optim.weight_decay;
        ConfigError::range("optim.weight_decay", decay, decay >= 0.0, "0 or more")?;
        for stage in [&self.autoencoder, &self.lm, &self.baseline.training] {
            ConfigError::positive("batch_windows", stage.batch_windows)?;
            ConfigError::positive("accumulate", stage.accumulate)?;
            ConfigError::positive("steps", stage.steps as usize)?;
            ConfigError::positive("log_every", stage.log_every as usize)?;
            ConfigError::positive("checkpoint_every", stage.checkpoint_every as usize)?;
        }
        for eval in [&self.eval, &self.progress_eval] {
            let draws = eval.draws as f64;
            ConfigError::range(
                "eval.draws",
                draws,
                draws >= 2.0,
                "2 or more: pairs are compared",
            )?;
            if eval.every > 0 {
                let k = self.model.chunk_size;
                ConfigError::multiple("eval.every", eval.every, "model.chunk_size", k)?;
                let (every, inside) = (eval.every as f64, eval.every + MAX_N <= self.model.window);
                ConfigError::range(
                    "eval.every",
                    every,
                    inside,
                    "a position with four tokens left",
                )?;
            }
            let windows = eval.windows as f64;
            ConfigError::range("eval.windows", windows, windows >= 2.0, "2 or more")?;
        }
        ConfigError::positive("checkpoint.keep", self.checkpoint.keep)?;
        // A temperature that can't be served must not wait for the end of the run to say so.
        for &temperature in &self.samples.temperatures {
            BatchSampler::new(temperature, self.samples.pool).map_err(calm_lm::Error::from)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage() -> StageConfig {
        StageConfig {
            steps: 100,
            batch_windows: 2,
            accumulate: 3,
            warmup_steps: 10,
            decay_steps: 20,
            log_every: 1,
            eval_every: 0,
            checkpoint_every: 50,
        }
    }

    #[test]
    fn the_learning_rate_warms_up_stays_and_decays() {
        let s = stage();
        assert!(
            (s.lr(1.0, 1) - 0.1).abs() < 1e-12,
            "the first step already learns"
        );
        assert_eq!(s.lr(1.0, 10), 1.0);
        assert_eq!(s.lr(1.0, 81), 1.0);
        assert!((s.lr(1.0, 91) - 0.5).abs() < 1e-12);
        assert!(
            (s.lr(1.0, 100) - 0.05).abs() < 1e-12,
            "the last step still learns"
        );
        let constant = StageConfig {
            warmup_steps: 0,
            decay_steps: 0,
            ..s
        };
        assert!((1..=100).all(|step| constant.lr(3e-4, step) == 3e-4));
    }

    #[test]
    fn a_step_reads_every_accumulated_window() {
        assert_eq!(stage().tokens_per_step(64), 2 * 3 * 64);
    }
}
