//! Scores of a model that knows its own probabilities, under the protocol that a CALM is scored
//! under.

use burn::tensor::Device;
use calm_baseline::{WindowScores, score_window};
use calm_nn::{HostDraws, NextToken, mix};

use crate::brier::Scores;
use crate::replicas::each_window;
use crate::{BrierReport, EvalConfig, EvalError, Replica, spread};

/// Scores of a model with probabilities.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenReport {
    /// Brier scores at the positions that are multiples of the stride: those that a CALM of that
    /// chunk size is scored at.
    pub aligned: BrierReport,
    /// Brier scores at every position of the windows, where they were asked for.
    pub everywhere: Option<BrierReport>,
    /// Cross-entropy per token, in nats, of all tokens of the windows but the first.
    pub cross_entropy: f64,
    /// Its standard error over windows.
    pub cross_entropy_se: f64,
    /// Cross-entropy of every window.
    pub window_cross_entropy: Vec<f64>,
}

impl TokenReport {
    /// Perplexity per token.
    pub fn perplexity(&self) -> f64 {
        self.cross_entropy.exp()
    }
}

/// What is scored, and where.
#[derive(Clone, Copy, Debug)]
pub struct TokenScoring<'a> {
    /// The text, of which windows are spread over.
    pub tokens: &'a [u32],
    /// Tokens per window.
    pub window: usize,
    /// Of the CALM whose positions are scored ([`EvalConfig::stride`]).
    pub chunk_size: usize,
    /// Whether all positions are scored besides, which takes as many times longer.
    pub everywhere: bool,
    /// `[token]` counts of the training text.
    pub unigram_counts: &'a [u64],
    /// The protocol. `draws` prefixes are drawn at every position; see [`score_window`] for what they are
    /// needed for.
    pub config: &'a EvalConfig,
}

/// Scores `model` (without autodiff, on `device`).
///
/// `on_window` is called after each window with the number done and says whether to go on; `None` where
/// it did not.
///
/// # Errors
/// See [`EvalError`].
pub fn evaluate_tokens<M: NextToken + Clone + Send>(
    model: &M,
    device: &Device,
    scoring: &TokenScoring<'_>,
    on_window: &mut dyn FnMut(usize) -> bool,
) -> Result<Option<TokenReport>, EvalError> {
    evaluate_tokens_on(&[Replica::only(model, device)], scoring, on_window)
}

/// As [`evaluate_tokens`], on several devices, one at least.
///
/// # Errors
/// See [`EvalError`].
///
/// # Panics
/// Without a replica.
pub fn evaluate_tokens_on<M: NextToken + Clone + Send>(
    replicas: &[Replica<M>],
    scoring: &TokenScoring<'_>,
    on_window: &mut dyn FnMut(usize) -> bool,
) -> Result<Option<TokenReport>, EvalError> {
    let TokenScoring {
        tokens,
        window,
        chunk_size,
        everywhere,
        unigram_counts,
        config,
    } = *scoring;
    if config.draws == 0 {
        return Err(EvalError::TooFewDraws { draws: 0 });
    }
    let every = config.stride(chunk_size.max(1));
    let stride = if everywhere { 1 } else { every };
    let windows = spread(tokens, window, config.windows)?;
    let score = |replica: &Replica<M>,
                 indices: &mut dyn Iterator<Item = usize>,
                 give: &mut dyn FnMut(usize, WindowScores)| {
        let (model, device) = (&replica.model, &replica.device.device);
        for i in indices {
            let mut draws = HostDraws::new(mix(config.seed, i as u64));
            let window = windows[i];
            give(
                i,
                score_window(model, window, stride, config.draws, &mut draws, device),
            );
        }
    };
    let Some(found) = each_window(replicas, windows.len(), score, on_window)? else {
        return Ok(None);
    };
    let mut all = Scores::new(unigram_counts);
    let mut aligned = Scores::new(unigram_counts);
    let mut means = Vec::with_capacity(windows.len());
    for (window, found) in windows.iter().zip(&found) {
        means.push(found.surprisal.iter().sum::<f64>() / found.surprisal.len() as f64);
        let scored: Vec<_> = found
            .positions
            .iter()
            .zip(&found.brier)
            .map(|(&p, &brier)| (p, (std::array::from_fn(|j| window[p + j]), brier)))
            .collect();
        aligned.add_window(scored.iter().filter(|(p, _)| p % every == 0).map(|s| s.1));
        all.add_window(scored.into_iter().map(|s| s.1));
    }
    let count = means.len() as f64;
    let mean = means.iter().sum::<f64>() / count;
    let square: f64 = means.iter().map(|m| (m - mean).powi(2)).sum();
    Ok(Some(TokenReport {
        aligned: aligned.report(&windows)?,
        everywhere: everywhere.then(|| all.report(&windows)).transpose()?,
        cross_entropy: mean,
        cross_entropy_se: (square / (count - 1.0) / count).sqrt(),
        window_cross_entropy: means,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use calm_baseline::{TokenModel, TokenModelConfig};
    use calm_nn::{RandomStream, TransformerConfig};

    fn model(device: &Device) -> TokenModel {
        let transformer = TransformerConfig {
            layers: 1,
            hidden_size: 16,
            intermediate_size: 20,
            heads: 2,
            kv_heads: 2,
            rope_theta: 10_000.0,
            norm_eps: 1e-6,
        };
        let config = TokenModelConfig {
            vocab_size: 7,
            window: 16,
            init_std: 0.4,
            tied_embeddings: false,
            scale_embeddings: false,
            zero_init_residual: false,
            near_tokens: 0,
            transformer,
        };
        config.init(3, device)
    }

    fn config(every: usize, draws: usize) -> EvalConfig {
        EvalConfig {
            windows: 5,
            draws,
            every,
            seed: 2,
        }
    }

    fn scoring<'a>(
        tokens: &'a [u32],
        everywhere: bool,
        config: &'a EvalConfig,
    ) -> TokenScoring<'a> {
        TokenScoring {
            tokens,
            window: 16,
            chunk_size: 4,
            everywhere,
            unigram_counts: &[1; 7],
            config,
        }
    }

    #[test]
    fn several_devices_give_the_scores_of_one() {
        let device = calm_lm::NamedDevice::open("flex").unwrap();
        let model = model(&device.device);
        let mut random = RandomStream::new(1);
        let tokens: Vec<u32> = (0..100).map(|_| random.below(7) as u32).collect();
        let config = config(0, 2);
        let scoring = scoring(&tokens, true, &config);
        let replica = Replica { model, device };
        let [one, three] = [1, 3].map(|count| {
            let replicas = vec![replica.clone(); count];
            let report = evaluate_tokens_on(&replicas, &scoring, &mut |_| true);
            report.unwrap().unwrap()
        });
        assert_eq!(one, three);
    }

    #[test]
    fn the_aligned_scores_are_those_of_the_multiples_alone() {
        let device = Device::flex();
        let model = model(&device);
        let mut random = RandomStream::new(1);
        let tokens: Vec<u32> = (0..100).map(|_| random.below(7) as u32).collect();
        let run = |config: &EvalConfig| {
            evaluate_tokens(
                &model,
                &device,
                &scoring(&tokens, true, config),
                &mut |_| true,
            )
            .unwrap()
            .unwrap()
        };
        let found = run(&config(0, 2));
        // Positions 1..=12 of five windows; of these 4, 8, 12.
        let everywhere = found.everywhere.clone().unwrap();
        assert_eq!(everywhere.estimate.positions, 60);
        assert_eq!(found.aligned.estimate.positions, 15);
        let (mut sums, mut surprisal) = ([0.0; 2], 0.0);
        for (i, window) in spread(&tokens, 16, 5).unwrap().iter().enumerate() {
            let mut draws = HostDraws::new(mix(2, i as u64));
            let scores = score_window(&model, window, 1, 2, &mut draws, &device);
            surprisal += scores.surprisal.iter().sum::<f64>();
            for (p, brier) in scores.positions.iter().zip(&scores.brier) {
                sums[0] += brier[1];
                sums[1] += if p % 4 == 0 { brier[1] } else { 0.0 };
            }
        }
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} and {b}");
        close(everywhere.estimate.brier[1], sums[0] / 60.0);
        close(found.aligned.estimate.brier[1], sums[1] / 15.0);
        close(found.cross_entropy, surprisal / 75.0);
        let windows = &found.window_cross_entropy;
        close(windows.iter().sum::<f64>() / 5.0, found.cross_entropy);
        close(found.perplexity().ln(), found.cross_entropy);
        assert_eq!(run(&config(6, 2)).aligned.estimate.positions, 10);

        // Alone the aligned positions draw other prefixes; Brier-1 needs none.
        let on = &mut |_| true;
        let config = config(0, 2);
        let alone = evaluate_tokens(&model, &device, &scoring(&tokens, false, &config), on);
        let alone = alone.unwrap().unwrap();
        assert!(alone.everywhere.is_none());
        let (a, b) = (alone.aligned.estimate, found.aligned.estimate);
        close(a.brier[0], b.brier[0]);
        assert_eq!(a.positions, b.positions);
    }

    #[test]
    fn no_draws_are_refused() {
        let device = Device::flex();
        let (tokens, on) = ([0; 100], &mut |_| true);
        let (model, config) = (model(&device), config(0, 0));
        let error = evaluate_tokens(&model, &device, &scoring(&tokens, false, &config), on);
        assert_eq!(error, Err(EvalError::TooFewDraws { draws: 0 }));
    }
}
