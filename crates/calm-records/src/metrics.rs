//! Rows of `metrics.jsonl` (one per logged step) and of `eval/history.jsonl` (one per evaluation).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Protocol;
use crate::finite;

/// Which model a row or a checkpoint belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// The chunk autoencoder.
    Autoencoder,
    /// The CALM language model on the frozen autoencoder.
    Lm,
    /// The token model that CALM is compared with.
    Baseline,
}

impl Stage {
    /// All stages in the order in which they are trained.
    pub const ALL: [Self; 3] = [Self::Autoencoder, Self::Lm, Self::Baseline];

    /// The name used in files and directories.
    pub fn name(self) -> &'static str {
        match self {
            Self::Autoencoder => "autoencoder",
            Self::Lm => "lm",
            Self::Baseline => "baseline",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One logged training step. `tokens`, `flops` and `seconds` count from the start of the stage.
///
/// A number that is not finite is written as `null` and read back as NaN.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricRow {
    /// The model being trained.
    pub stage: Stage,
    /// Optimizer steps done, this one included.
    pub step: u64,
    /// Tokens seen.
    pub tokens: u64,
    /// Floating-point operations spent, by the counting rule of the model's cost.
    #[serde(deserialize_with = "finite::number")]
    pub flops: f64,
    /// Seconds spent in steps of this stage; evaluations and checkpoints are left out.
    #[serde(deserialize_with = "finite::number")]
    pub seconds: f64,
    /// Training loss of this step.
    #[serde(deserialize_with = "finite::number")]
    pub loss: f64,
    /// Throughput since the previous row, in tokens per second.
    #[serde(deserialize_with = "finite::number")]
    pub tokens_per_s: f64,
    /// Share of the device's peak FLOP rate that was used, where the peak is known.
    #[serde(default)]
    pub mfu: Option<f64>,
    /// Global gradient norm before clipping.
    #[serde(deserialize_with = "finite::number")]
    pub grad_norm: f64,
    /// Learning rate.
    #[serde(deserialize_with = "finite::number")]
    pub lr: f64,
    /// Autoencoder: KL term, unweighted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kl: Option<f64>,
    /// Autoencoder: reconstruction term.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reconstruction: Option<f64>,
    /// Autoencoder: share of the batch's tokens reconstructed exactly, under training noise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_accuracy: Option<f64>,
    /// Energy score: mean distance between model samples and posterior draws.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attraction: Option<f64>,
    /// Energy score: mean distance between model samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repulsion: Option<f64>,
    /// Auxiliary cross-entropy of the next chunk's tokens, unweighted, nats a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auxiliary: Option<f64>,
    /// Log score of the next chunk's tokens, unweighted, nats a chunk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_score: Option<f64>,
    /// Brier loss of the next chunk's tokens, unweighted, mean over prefixes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brier_loss: Option<f64>,
}

/// One evaluation during a run. Brier arrays hold n = 1..4.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvalPoint {
    /// The model that was evaluated.
    pub stage: Stage,
    /// Optimizer steps it had done.
    pub step: u64,
    /// Tokens it had seen.
    pub tokens: u64,
    /// Share of held-out tokens reconstructed from the posterior mean.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_accuracy: Option<f64>,
    /// Share of held-out tokens reconstructed from a latent drawn from the posterior.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noisy_token_accuracy: Option<f64>,
    /// Brier-1..4.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "finite::maybe_four"
    )]
    pub brier: Option<[f64; 4]>,
    /// Standard errors of Brier-1..4.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "finite::maybe_four"
    )]
    pub brier_se: Option<[f64; 4]>,
    /// BrierLM, 0 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brier_lm: Option<f64>,
    /// Standard error of BrierLM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brier_lm_se: Option<f64>,
    /// Cross-entropy of held-out tokens, nats a token, of a model that has a likelihood.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cross_entropy: Option<f64>,
    /// Energy loss with the hidden states permuted over positions, over the loss with the true ones:
    /// 1 where the head does not heed its condition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permuted_loss_ratio: Option<f64>,
    /// Share of the next chunks' tokens that come out of the head with its noise at zero.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noiseless_token_accuracy: Option<f64>,
    /// Of every window, to compare models window by window.
    #[serde(
        default,
        alias = "window_brier_1",
        skip_serializing_if = "Option::is_none"
    )]
    pub window_brier: Option<WindowBrier>,
    /// Cross-entropy of every window, of a model that has a likelihood.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_cross_entropy: Option<Vec<f64>>,
    /// How the Brier figures were obtained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
}

/// Brier scores of every window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum WindowBrier {
    /// Brier-1..4.
    All(Vec<[f64; 4]>),
    /// Brier-1 alone, as records from before 2026-11-29 hold it.
    First(Vec<f64>),
}

impl WindowBrier {
    /// Brier-1 of every window.
    pub fn first(&self) -> Vec<f64> {
        match self {
            Self::All(all) => all.iter().map(|brier| brier[0]).collect(),
            Self::First(first) => first.clone(),
        }
    }

    /// Brier-1..4 of every window, where they are known.
    pub fn all(&self) -> Option<&[[f64; 4]]> {
        match self {
            Self::All(all) => Some(all),
            Self::First(_) => None,
        }
    }

    /// All scores through `f`.
    #[must_use]
    pub fn map(self, f: impl Fn(f64) -> f64) -> Self {
        match self {
            Self::All(all) => Self::All(all.into_iter().map(|brier| brier.map(&f)).collect()),
            Self::First(first) => Self::First(first.into_iter().map(f).collect()),
        }
    }

    /// Windows.
    pub fn windows(&self) -> usize {
        match self {
            Self::All(all) => all.len(),
            Self::First(first) => first.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examples::row;

    #[test]
    fn scores_of_windows_are_read_from_before_they_were_four() {
        let point = |of_windows: &str| -> EvalPoint {
            let text = format!(r#"{{"stage":"lm","step":1,"tokens":1{of_windows}}}"#);
            serde_json::from_str(&text).unwrap()
        };
        assert_eq!(point("").window_brier, None);
        let first = point(r#","window_brier_1":[0.5,1]"#).window_brier.unwrap();
        assert_eq!(first, WindowBrier::First(vec![0.5, 1.0]));
        assert_eq!((first.first(), first.all()), (vec![0.5, 1.0], None));
        let four = r#","window_brier":[[0.5,0.25,0,-0.1]]"#;
        let all = point(four).window_brier.unwrap();
        assert_eq!(all.all(), Some(&[[0.5, 0.25, 0.0, -0.1]][..]));
        assert_eq!((all.first(), all.windows()), (vec![0.5], 1));
        let back = serde_json::to_string(&point(four)).unwrap();
        assert!(
            back.contains(r#""window_brier":[[0.5,0.25,0.0,-0.1]]"#),
            "{back}"
        );
    }

    #[test]
    fn a_row_has_exactly_the_promised_keys() {
        let json = serde_json::to_string(&row(Stage::Lm, 2)).unwrap();
        assert_eq!(
            json,
            "{\"stage\":\"lm\",\"step\":2,\"tokens\":1024,\"flops\":3000000000.0,\"seconds\":0.5,\
             \"loss\":4.0,\"tokens_per_s\":2048.0,\"mfu\":null,\"grad_norm\":0.5,\"lr\":0.0003}"
        );
    }

    #[test]
    fn not_a_number_stays_valid_json() {
        let odd = MetricRow {
            grad_norm: f64::INFINITY,
            ..row(Stage::Lm, 1)
        };
        let json = serde_json::to_string(&odd).unwrap();
        assert!(json.contains("\"grad_norm\":null"), "{json}");
        let back: MetricRow = serde_json::from_str(&json).unwrap();
        assert!(back.grad_norm.is_nan());

        let point = EvalPoint {
            stage: Stage::Lm,
            step: 1,
            tokens: 1,
            token_accuracy: None,
            noisy_token_accuracy: None,
            brier: Some([0.5, f64::NAN, 0.0, -0.1]),
            brier_se: None,
            brier_lm: Some(0.0),
            brier_lm_se: None,
            cross_entropy: None,
            permuted_loss_ratio: None,
            noiseless_token_accuracy: None,
            window_brier: None,
            window_cross_entropy: None,
            protocol: None,
        };
        let json = serde_json::to_string(&point).unwrap();
        assert!(json.contains("\"brier\":[0.5,null,0.0,-0.1]"), "{json}");
        let back: EvalPoint = serde_json::from_str(&json).unwrap();
        let brier = back.brier.unwrap();
        assert!(brier[1].is_nan());
        assert_eq!((brier[0], brier[3], back.brier_se), (0.5, -0.1, None));
    }

    #[test]
    fn a_missing_loss_is_an_error_but_a_missing_extra_is_not() {
        let mut value = serde_json::to_value(row(Stage::Baseline, 3)).unwrap();
        value.as_object_mut().unwrap().remove("mfu");
        assert!(serde_json::from_value::<MetricRow>(value.clone()).is_ok());
        value.as_object_mut().unwrap().remove("loss");
        let error = serde_json::from_value::<MetricRow>(value).unwrap_err();
        assert!(error.to_string().contains("loss"), "{error}");
    }

    #[test]
    fn stage_names_agree_with_their_json() {
        for stage in Stage::ALL {
            assert_eq!(
                serde_json::to_string(&stage).unwrap(),
                format!("\"{stage}\"")
            );
        }
        assert!(serde_json::from_str::<Stage>("\"LM\"").is_err());
    }
}
