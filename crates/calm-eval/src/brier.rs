//! BrierLM of a model over held-out windows, with the unigram distribution as the floor.

use burn::tensor::Device;
use calm_likelihood_free::{
    BrierAccumulator, BrierEstimate, MAX_N, Rollout, brier_at, unigram_brier_at,
};
use calm_lm::{CalmModel, CalmRollout};
use calm_nn::{HostDraws, mix};

use crate::replicas::each_window;
use crate::{EvalConfig, EvalError, Replica, spread};

/// Scores of one model under one protocol.
#[derive(Clone, Debug, PartialEq)]
pub struct BrierReport {
    /// The model's Brier-1..4 and BrierLM with standard errors over windows.
    pub estimate: BrierEstimate,
    /// Brier-1..4 of the corpus's unigram distribution on the same starts: what is reached
    /// without looking at the context.
    pub unigram: [f64; MAX_N],
    /// Standard errors of Brier-1..4 minus the unigram's, paired by window: what the text's
    /// difficulty adds to both drops out.
    pub over_unigram_se: [f64; MAX_N],
    /// Windows scored.
    pub windows: usize,
    /// Brier-1..4 of each of them, to compare models window by window.
    pub window_brier: Vec<[f64; MAX_N]>,
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
    let only = [Replica::only(model, device)];
    evaluate_on(&only, tokens, window, unigram_counts, config, on_window)
}

/// As [`evaluate`], on several devices, one at least.
///
/// # Errors
/// See [`EvalError`].
///
/// # Panics
/// Without a replica.
pub fn evaluate_on(
    replicas: &[Replica<CalmModel>],
    tokens: &[u32],
    window: usize,
    unigram_counts: &[u64],
    config: &EvalConfig,
    on_window: &mut dyn FnMut(usize) -> bool,
) -> Result<Option<BrierReport>, EvalError> {
    let windows = spread(tokens, window, config.windows)?;
    let chunk_size = replicas[0].model.autoencoder.chunk_size();
    let every = config.stride(chunk_size);
    if !every.is_multiple_of(chunk_size) {
        return Err(EvalError::Unaligned { every, chunk_size });
    }
    config.check_pairs()?;
    let score = |replica: &Replica<CalmModel>,
                 indices: &mut dyn Iterator<Item = usize>,
                 give: &mut dyn FnMut(usize, Vec<Scored>)| {
        let mut rollout = CalmRollout::new(&replica.model, &replica.device.device).every(every);
        for i in indices {
            give(i, score_starts(&mut rollout, windows[i], i, config));
        }
    };
    let found = each_window(replicas, windows.len(), score, on_window)?;
    found
        .map(|found| Scores::of(found, unigram_counts).report(&windows))
        .transpose()
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
    config.check_pairs()?;
    let mut found = Vec::with_capacity(windows.len());
    for (i, window) in windows.iter().enumerate() {
        found.push(score_starts(rollout, window, i, config));
        if !on_window(i + 1) && i + 1 < windows.len() {
            return Ok(None);
        }
    }
    Scores::of(found, unigram_counts).report(windows).map(Some)
}

/// A start: the text's next tokens, and the model's Brier-1..4 there.
pub(crate) type Scored = ([u32; MAX_N], [f64; MAX_N]);

/// The starts of window number `index`.
fn score_starts(
    rollout: &mut dyn Rollout,
    window: &[u32],
    index: usize,
    config: &EvalConfig,
) -> Vec<Scored> {
    let mut draws = HostDraws::new(mix(config.seed, index as u64));
    let starts = rollout.roll_out(window, config.draws, &mut draws);
    let scored = starts.iter().map(|start| (start.target, brier_at(start)));
    scored.collect()
}

/// Scores of a model beside those of the unigram distribution on the same starts.
pub(crate) struct Scores {
    unigram: Vec<f64>,
    model: BrierAccumulator,
    floor: BrierAccumulator,
    differences: BrierAccumulator,
}

impl Scores {
    pub(crate) fn new(unigram_counts: &[u64]) -> Self {
        let total: u64 = unigram_counts.iter().sum();
        Self {
            unigram: unigram_counts
                .iter()
                .map(|&count| count as f64 / total as f64)
                .collect(),
            model: BrierAccumulator::default(),
            floor: BrierAccumulator::default(),
            differences: BrierAccumulator::default(),
        }
    }

    /// Those of windows, in their order.
    fn of(windows: Vec<Vec<Scored>>, unigram_counts: &[u64]) -> Self {
        let mut scores = Self::new(unigram_counts);
        windows
            .into_iter()
            .for_each(|starts| scores.add_window(starts));
        scores
    }

    /// Adds a window's starts.
    pub(crate) fn add_window(&mut self, starts: impl IntoIterator<Item = Scored>) {
        let (targets, model): (Vec<_>, Vec<_>) = starts.into_iter().unzip();
        let floor: Vec<_> = targets
            .iter()
            .map(|target| unigram_brier_at(target, &self.unigram))
            .collect();
        let difference = |(a, b): (&[f64; MAX_N], &[f64; MAX_N])| -> [f64; MAX_N] {
            std::array::from_fn(|n| a[n] - b[n])
        };
        self.differences
            .add_window(model.iter().zip(&floor).map(difference));
        self.model.add_window(model);
        self.floor.add_window(floor);
    }

    /// What came out over `windows`.
    pub(crate) fn report(&self, windows: &[&[u32]]) -> Result<BrierReport, EvalError> {
        let estimates = (
            self.model.estimate(),
            self.floor.estimate(),
            self.differences.estimate(),
        );
        let (Some(estimate), Some(floor), Some(difference)) = estimates else {
            let window = windows.first().map_or(0, |w| w.len());
            return Err(EvalError::WindowTooShort { window });
        };
        Ok(BrierReport {
            estimate,
            unigram: floor.brier,
            over_unigram_se: difference.brier_se,
            windows: windows.len(),
            window_brier: self.model.window_means(),
        })
    }
}
