//! Scores of the token baseline under the protocol that a CALM is scored under.

use burn::tensor::Device;
use calm_baseline::TokenModel;
use calm_nn::{HostDraws, mix};

use crate::brier::Scores;
use crate::{BrierReport, EvalConfig, EvalError, spread};

/// Scores of a token model.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenReport {
    /// Brier scores at every position of the windows.
    pub everywhere: BrierReport,
    /// Brier scores at the positions that are multiples of the stride alone: those that a CALM of
    /// that chunk size is scored at.
    pub aligned: BrierReport,
    /// Cross-entropy per token, in nats, of all tokens of the windows but the first.
    pub cross_entropy: f64,
    /// Its standard error over windows.
    pub cross_entropy_se: f64,
}

impl TokenReport {
    /// Perplexity per token.
    pub fn perplexity(&self) -> f64 {
        self.cross_entropy.exp()
    }
}

/// Scores `model` (without autodiff, on `device`) on windows spread over `tokens`; positions that
/// are multiples of `every` are scored a second time by themselves.
///
/// `config.draws` prefixes are drawn at every position; see [`TokenModel::score_window`] for what
/// they are needed for. `on_window` is called after each window with the number done and says
/// whether to go on; `None` where it did not.
///
/// # Errors
/// See [`EvalError`].
#[allow(clippy::too_many_arguments)] // Those of `evaluate`, and the stride.
pub fn evaluate_tokens(
    model: &TokenModel,
    tokens: &[u32],
    window: usize,
    every: usize,
    unigram_counts: &[u64],
    config: &EvalConfig,
    device: &Device,
    on_window: &mut dyn FnMut(usize) -> bool,
) -> Result<Option<TokenReport>, EvalError> {
    let windows = spread(tokens, window, config.windows)?;
    let mut everywhere = Scores::new(unigram_counts);
    let mut aligned = Scores::new(unigram_counts);
    let mut means = Vec::with_capacity(windows.len());
    for (i, window) in windows.iter().enumerate() {
        let mut draws = HostDraws::new(mix(config.seed, i as u64));
        let found = model.score_window(window, 1, config.draws, &mut draws, device);
        means.push(found.surprisal.iter().sum::<f64>() / found.surprisal.len() as f64);
        let scored: Vec<_> = found
            .positions
            .iter()
            .zip(&found.brier)
            .map(|(&p, &brier)| (p, (std::array::from_fn(|j| window[p + j]), brier)))
            .collect();
        aligned.add_window(scored.iter().filter(|(p, _)| p % every == 0).map(|s| s.1));
        everywhere.add_window(scored.into_iter().map(|s| s.1));
        if !on_window(i + 1) && i + 1 < windows.len() {
            return Ok(None);
        }
    }
    let count = means.len() as f64;
    let mean = means.iter().sum::<f64>() / count;
    let square: f64 = means.iter().map(|m| (m - mean).powi(2)).sum();
    Ok(Some(TokenReport {
        everywhere: everywhere.report(&windows)?,
        aligned: aligned.report(&windows)?,
        cross_entropy: mean,
        cross_entropy_se: (square / (count - 1.0) / count).sqrt(),
    }))
}
