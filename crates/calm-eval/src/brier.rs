//! BrierLM of a model over held-out windows, with the unigram distribution as the floor.

use burn::tensor::Device;
use calm_likelihood_free::{
    BrierAccumulator, BrierEstimate, MAX_N, Rollout, brier_at, unigram_brier_at,
};
use calm_lm::{CalmModel, CalmRollout};
use calm_nn::{HostDraws, mix};

use crate::{EvalConfig, EvalError, spread};

/// Scores of one model under one protocol.
#[derive(Clone, Debug, PartialEq)]
pub struct BrierReport {
    /// The model's Brier-1..4 and BrierLM with standard errors over windows.
    pub estimate: BrierEstimate,
    /// Brier-1..4 of the corpus's unigram distribution on the same starts: what is reached
    /// without looking at the context.
    pub unigram: [f64; MAX_N],
    /// Standard error of Brier-1 minus the unigram's, paired by window.
    pub over_unigram_se: f64,
    /// Windows scored.
    pub windows: usize,
}

/// Scores `model` (without autodiff, on `device`) on windows spread over `tokens`.
///
/// `unigram_counts[token]` counts the training text. `on_window` is called after each window with
/// the number done and says whether to go on; `None` where it did not.
///
/// # Errors
/// See [`EvalError`].
pub fn evaluate(
    model: &CalmModel,
    tokens: &[u32],
    window: usize,
    unigram_counts: &[u64],
    config: &EvalConfig,
    device: &Device,
    on_window: &mut dyn FnMut(usize) -> bool,
) -> Result<Option<BrierReport>, EvalError> {
    let windows = spread(tokens, window, config.windows)?;
    evaluate_rollout(
        &mut CalmRollout::new(model, device),
        &windows,
        unigram_counts,
        config,
        on_window,
    )
}

/// As [`evaluate`], for anything that can be rolled out.
///
/// # Errors
/// See [`EvalError`].
pub fn evaluate_rollout(
    rollout: &mut dyn Rollout,
    windows: &[&[u32]],
    unigram_counts: &[u64],
    config: &EvalConfig,
    on_window: &mut dyn FnMut(usize) -> bool,
) -> Result<Option<BrierReport>, EvalError> {
    if config.draws < 2 {
        return Err(EvalError::TooFewDraws {
            draws: config.draws,
        });
    }
    let total: u64 = unigram_counts.iter().sum();
    let unigram: Vec<f64> = unigram_counts
        .iter()
        .map(|&c| c as f64 / total as f64)
        .collect();
    let mut model_scores = BrierAccumulator::default();
    let mut unigram_scores = BrierAccumulator::default();
    let mut differences = BrierAccumulator::default();
    for (i, window) in windows.iter().enumerate() {
        let mut draws = HostDraws::new(mix(config.seed, i as u64));
        let starts = rollout.roll_out(window, config.draws, &mut draws);
        let ours: Vec<_> = starts.iter().map(brier_at).collect();
        let floor: Vec<_> = starts
            .iter()
            .map(|start| unigram_brier_at(&start.target, &unigram))
            .collect();
        differences.add_window(
            ours.iter()
                .zip(&floor)
                .map(|(a, b)| std::array::from_fn(|n| a[n] - b[n])),
        );
        model_scores.add_window(ours);
        unigram_scores.add_window(floor);
        if !on_window(i + 1) && i + 1 < windows.len() {
            return Ok(None);
        }
    }
    let window = windows.first().map_or(0, |w| w.len());
    let estimate = model_scores.estimate();
    let (Some(estimate), Some(unigram), Some(difference)) =
        (estimate, unigram_scores.estimate(), differences.estimate())
    else {
        return Err(EvalError::WindowTooShort { window });
    };
    Ok(Some(BrierReport {
        estimate,
        unigram: unigram.brier,
        over_unigram_se: difference.brier_se[0],
        windows: windows.len(),
    }))
}
