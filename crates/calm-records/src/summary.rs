//! `summary.json`: the final figures of a run, with the protocol that produced them.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::file::{load_json, save_json};
use crate::{Error, Result, finite};

/// Format number of `summary.json`; it rises when a key changes its meaning or goes away.
pub const SCHEMA: u32 = 1;

/// How Brier figures were estimated. Figures under different protocols must not be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Protocol {
    /// Length of an evaluation window, in tokens.
    pub window_tokens: usize,
    /// Positions scored.
    pub positions: u64,
    /// Model draws per position; every pair of them enters the estimate.
    pub draws: usize,
    /// Seed of the draws.
    pub seed: u64,
    /// The text that was scored.
    #[serde(default)]
    pub part: TextPart,
}

/// The part of a text that a figure was measured on; nothing was trained on any of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextPart {
    /// What is reported on at the end, and nothing was chosen by.
    Test,
    /// What choices are made on.
    Validation,
    /// Records from before there were both: one part for choices and reports.
    #[default]
    HeldOut,
    /// The whole of a text that the user vouched for as unseen.
    WholeUnseen,
}

impl TextPart {
    /// In words, to be put behind "of".
    pub fn name(self) -> &'static str {
        match self {
            Self::Test => "the test part",
            Self::Validation => "the validation part",
            Self::HeldOut => "the held-out part",
            Self::WholeUnseen => "a text given as unseen",
        }
    }
}

/// Reconstruction of held-out text by the chunk autoencoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AutoencoderSummary {
    /// Share of tokens reconstructed from the posterior mean.
    #[serde(deserialize_with = "finite::number")]
    pub token_accuracy: f64,
    /// Share of tokens reconstructed from a latent drawn from the posterior.
    #[serde(deserialize_with = "finite::number")]
    pub noisy_token_accuracy: f64,
    /// Held-out tokens that both shares were counted on.
    pub heldout_tokens: u64,
}

/// Scores and costs of a language model. Arrays hold Brier-1..4.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelSummary {
    /// BrierLM: `100 * (Brier-1 * Brier-2 * Brier-3 * Brier-4)^(1/4)`, 0 where the product is
    /// negative (arXiv 2510.27688, section 4.2, Eq. 12 to 15).
    #[serde(deserialize_with = "finite::number")]
    pub brier_lm: f64,
    /// Standard error of BrierLM; `null` where it has none.
    pub brier_lm_se: Option<f64>,
    /// Brier-1..4.
    #[serde(deserialize_with = "finite::four")]
    pub brier: [f64; 4],
    /// Standard errors of Brier-1..4.
    #[serde(deserialize_with = "finite::four")]
    pub brier_se: [f64; 4],
    /// Brier-1..4 of the corpus's unigram distribution on the same positions.
    #[serde(deserialize_with = "finite::four")]
    pub unigram_brier: [f64; 4],
    /// Standard errors of `brier - unigram_brier`, paired by window.
    #[serde(deserialize_with = "finite::four")]
    pub over_unigram_se: [f64; 4],
    /// Tokens per step: K, and 1 for a token model.
    pub chunk_size: usize,
    /// Trained parameters, without those of the frozen autoencoder.
    pub parameters: u64,
    /// Floating-point operations spent on training.
    #[serde(deserialize_with = "finite::number")]
    pub train_flops: f64,
    /// Floating-point operations per generated token, one sample a step (T = 1).
    #[serde(deserialize_with = "finite::number")]
    pub infer_flops_per_token: f64,
    /// Perplexity on held-out text, per token, of a model that has a likelihood: a token model, or
    /// one with a local decoder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub perplexity: Option<f64>,
}

/// Contents of `summary.json`. A section is absent where its stage was not run; a number that is
/// not finite is `null` in the file and NaN here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// [`SCHEMA`] of the version that wrote it.
    pub schema: u32,
    /// Name of the preset.
    pub preset: String,
    /// The string given to `--device`.
    pub device: String,
    /// Training tokens seen, all stages together.
    pub tokens_seen: u64,
    /// Wall-clock seconds, from start to summary.
    #[serde(deserialize_with = "finite::number")]
    pub wall_seconds: f64,
    /// Largest resident memory of the process, where the system tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_rss_bytes: Option<u64>,
    /// Stage `autoencoder`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoencoder: Option<AutoencoderSummary>,
    /// Stage `lm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calm: Option<ModelSummary>,
    /// Stage `baseline`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<ModelSummary>,
    /// Protocol of every Brier figure in this summary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
}

impl Summary {
    /// Reads `summary.json`.
    ///
    /// # Errors
    /// [`Error::Io`], with file and line [`Error::Json`], and [`Error::Schema`] for a file of
    /// another format.
    pub fn load(path: &Path) -> Result<Self> {
        // The number first: a file of another format should be called that, not corrupt.
        #[derive(Deserialize)]
        struct Head {
            schema: u32,
        }
        let found = load_json::<Head>(path)?.schema;
        if found != SCHEMA {
            return Err(Error::Schema {
                path: path.to_path_buf(),
                found,
                expected: SCHEMA,
            });
        }
        load_json(path)
    }

    /// Writes `summary.json` atomically.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&self, path: &Path) -> Result<()> {
        save_json(path, self)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::examples::{model, summary};

    /// Sorted: the order depends on a feature of the JSON library.
    fn keys(value: &serde_json::Value) -> Vec<&str> {
        let mut keys: Vec<_> = value
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        keys.sort_unstable();
        keys
    }

    #[test]
    fn keys_are_those_that_scripts_read() {
        let value = serde_json::to_value(summary()).unwrap();
        let sorted = |names: &[&'static str]| {
            let mut names = names.to_vec();
            names.sort_unstable();
            names
        };
        let top = [
            "schema",
            "preset",
            "device",
            "tokens_seen",
            "wall_seconds",
            "peak_rss_bytes",
            "autoencoder",
            "calm",
            "baseline",
            "protocol",
        ];
        assert_eq!(keys(&value), sorted(&top));
        let autoencoder = ["token_accuracy", "noisy_token_accuracy", "heldout_tokens"];
        assert_eq!(keys(&value["autoencoder"]), sorted(&autoencoder));
        let calm = [
            "brier_lm",
            "brier_lm_se",
            "brier",
            "brier_se",
            "unigram_brier",
            "over_unigram_se",
            "chunk_size",
            "parameters",
            "train_flops",
            "infer_flops_per_token",
        ];
        assert_eq!(keys(&value["calm"]), sorted(&calm));
        let baseline = [&calm[..], &["perplexity"]].concat();
        assert_eq!(keys(&value["baseline"]), sorted(&baseline));
        let protocol = ["window_tokens", "positions", "draws", "seed", "part"];
        assert_eq!(keys(&value["protocol"]), sorted(&protocol));
        assert_eq!(value["calm"]["brier"].as_array().unwrap().len(), 4);
    }

    #[test]
    fn round_trip_with_and_without_sections() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("summary.json");
        for summary in [
            summary(),
            Summary {
                calm: None,
                baseline: None,
                protocol: None,
                ..summary()
            },
            Summary {
                autoencoder: None,
                peak_rss_bytes: None,
                ..summary()
            },
        ] {
            summary.save(&path).unwrap();
            assert_eq!(Summary::load(&path).unwrap(), summary);
            let text = fs::read_to_string(&path).unwrap();
            assert_eq!(text.contains("\"calm\""), summary.calm.is_some(), "{text}");
        }
    }

    #[test]
    fn an_unknown_standard_error_is_null_and_comes_back_as_nan() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("summary.json");
        let mut odd = summary();
        odd.calm = Some(ModelSummary {
            brier_se: [f64::NAN; 4],
            ..model()
        });
        odd.save(&path).unwrap();
        assert!(Summary::load(&path).unwrap().calm.unwrap().brier_se[3].is_nan());
    }

    #[test]
    fn another_schema_is_told_from_a_corrupt_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("summary.json");
        fs::write(&path, "{\"schema\": 9, \"all\": \"different\"}").unwrap();
        assert!(matches!(
            Summary::load(&path),
            Err(Error::Schema {
                found: 9,
                expected: SCHEMA,
                ..
            })
        ));
        summary().save(&path).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, &text[..text.len() / 2]).unwrap();
        let error = Summary::load(&path).unwrap_err();
        assert!(matches!(error, Error::Json { .. }), "{error}");
    }
}
