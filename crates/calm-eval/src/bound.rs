//! A bound on a CALM's perplexity: its head and the frozen decoder's probabilities as one mixture.
//!
//! Not the paper's; see [`log_score`] and [`mixture_brier`].

use burn::tensor::{Device, Int, Tensor};
use calm_likelihood_free::{GenerativeHead, MAX_N, log_score, mixture_brier};
use calm_lm::{CalmModel, DecodedDraws};
use calm_nn::{HostDraws, chunk_tensor, mix};
use serde::Serialize;

/// Negative log-likelihood, bounded by so many draws of the head.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bound {
    /// Draws a chunk, N.
    pub draws: usize,
    /// Nats a token, from above.
    pub cross_entropy: f64,
    /// Its standard error over windows.
    pub cross_entropy_se: f64,
}

impl Bound {
    /// `exp` of the cross-entropy.
    pub fn perplexity(&self) -> f64 {
        self.cross_entropy.exp()
    }
}

/// What [`bound`] finds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BoundReport {
    /// Bounds by 1, 2, 4, .. draws, the last by all of them.
    pub bounds: Vec<Bound>,
    /// Brier-1, -2, .. of the mixture at the starts of chunks, as far as a chunk and four tokens
    /// reach.
    pub brier: Vec<f64>,
    /// Their standard errors over windows.
    pub brier_se: Vec<f64>,
    /// Chunks scored: all of the windows but their first.
    pub chunks: usize,
}

/// Probabilities of the chunks that are scored together, of one at least: 64 MiB of f32. About four such
/// tensors live at once.
const PROBABILITIES_AT_ONCE: usize = 1 << 24;

/// Scores `model` (without autodiff, on `device`) on `windows` by `draws` draws of the head a chunk.
/// `on_window` is called after each window with the number done.
///
/// # Panics
/// With fewer than two draws or windows, or windows of less than two chunks.
pub fn bound(
    model: &CalmModel,
    windows: &[&[u32]],
    draws: usize,
    seed: u64,
    device: &Device,
    on_window: &mut dyn FnMut(usize),
) -> BoundReport {
    assert!(
        draws >= 2 && windows.len() >= 2,
        "two draws and two windows"
    );
    let k = model.autoencoder.chunk_size();
    let groups: Vec<usize> = (0..)
        .map(|i| 1 << i)
        .take_while(|&group| group < draws)
        .chain([draws])
        .collect();
    // Of every window, means over its chunks: bounds, then Brier scores.
    let mut of_windows: Vec<Vec<f64>> = Vec::new();
    let mut chunks = 0;
    for (i, window) in windows.iter().enumerate() {
        let scores = of_window(model, window, draws, &groups, mix(seed, i as u64), device);
        chunks += window.len() / k - 1;
        of_windows.push(scores);
        on_window(i + 1);
    }
    let estimates: Vec<(f64, f64)> = (0..of_windows[0].len())
        .map(|i| mean(of_windows.iter().map(|scores| scores[i])))
        .collect();
    let (bounds, brier) = estimates.split_at(groups.len());
    BoundReport {
        bounds: groups
            .iter()
            .zip(bounds)
            .map(|(&draws, &(nats, error))| Bound {
                draws,
                cross_entropy: nats / k as f64,
                cross_entropy_se: error / k as f64,
            })
            .collect(),
        brier: brier.iter().map(|&(brier, _)| brier).collect(),
        brier_se: brier.iter().map(|&(_, error)| error).collect(),
        chunks,
    }
}

fn of_window(
    model: &CalmModel,
    window: &[u32],
    draws: usize,
    groups: &[usize],
    seed: u64,
    device: &Device,
) -> Vec<f64> {
    let (k, language_model) = (model.autoencoder.chunk_size(), &model.language_model);
    let predictions = window.len() / k - 1;
    let tokens = chunk_tensor(window, 1, k, device);
    let seen = tokens.clone().narrow(1, 0, predictions);
    let next = tokens.narrow(1, 1, predictions).squeeze_dim::<2>(0);
    let hidden = language_model.backbone.forward(seen).squeeze_dim::<2>(0);
    let mut random = HostDraws::new(seed);
    let latent = language_model.head.sample(hidden, draws, &mut random);
    let latent = latent.swap_dims(0, 1); // [predictions, draws, l]

    let vocabulary = model.autoencoder.vocab_size();
    let block = (PROBABILITIES_AT_ONCE / (draws * k * vocabulary)).max(1);
    let scored = k.min(MAX_N);
    let mut sums = vec![0.0; groups.len() + scored];
    for first in (0..predictions).step_by(block) {
        let size = block.min(predictions - first);
        let part = Part::new(
            model,
            latent.clone().narrow(0, first, size),
            next.clone().narrow(0, first, size),
            scored,
        );
        for chunk in 0..size {
            let logs = part.log_likelihoods(chunk);
            let bounds = groups.iter().map(|&group| log_score(&logs, group));
            let (hits, overlaps) = part.probabilities(chunk);
            let scores = bounds.chain(mixture_brier(&hits, &overlaps));
            sums.iter_mut().zip(scores).for_each(|(sum, x)| *sum += x);
        }
    }
    sums.into_iter()
        .map(|sum| sum / predictions as f64)
        .collect()
}

/// What the decoder says of some chunks, read to the host.
struct Part {
    draws: usize,
    k: usize,
    scored: usize,
    /// `[chunks, draws, K]`: logarithms of the true tokens' probabilities.
    logs: Vec<f32>,
    /// `[chunks, scored, draws, draws]`
    overlaps: Vec<f32>,
}

impl Part {
    /// # Shapes
    /// - latent: `[chunks, draws, l]`
    /// - next: `[chunks, K]`
    fn new(model: &CalmModel, latent: Tensor<3>, next: Tensor<2, Int>, scored: usize) -> Self {
        let ([_, draws, _], [_, k]) = (latent.dims(), next.dims());
        let decoded = DecodedDraws::new(&model.autoencoder, latent, next, scored);
        let overlaps = decoded.overlaps.expect("one token at least is scored");
        Self {
            draws,
            k,
            scored,
            logs: decoded.log_probabilities.into_data().iter().collect(),
            overlaps: overlaps.into_data().iter().collect(),
        }
    }

    /// `ln p(y_k | z_n)`, a row of K for every draw.
    fn rows(&self, chunk: usize) -> impl Iterator<Item = &[f32]> {
        let size = self.draws * self.k;
        self.logs[chunk * size..][..size].chunks_exact(self.k)
    }

    fn log_likelihoods(&self, chunk: usize) -> Vec<f64> {
        let sum = |row: &[f32]| row.iter().map(|&x| f64::from(x)).sum();
        self.rows(chunk).map(sum).collect()
    }

    /// As [`mixture_brier`] takes them.
    fn probabilities(&self, chunk: usize) -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
        let hits = |row: &[f32]| row.iter().map(|&x| f64::from(x).exp()).collect();
        let pairs = self.draws * self.draws;
        let overlaps = self.overlaps[chunk * self.scored * pairs..][..self.scored * pairs]
            .chunks_exact(pairs)
            .map(|all| all.iter().map(|&x| f64::from(x)).collect())
            .collect();
        (self.rows(chunk).map(hits).collect(), overlaps)
    }
}

/// Mean and its standard error.
fn mean(values: impl ExactSizeIterator<Item = f64> + Clone) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.clone().sum::<f64>() / n;
    let variance = values.map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean, (variance / n).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use calm_autoencoder::AutoencoderSettings;
    use calm_lm::{
        CompressorKind, DecoderKind, HeadSettings, LocalDecoderSettings, ModelConfig, Objective,
    };
    use calm_nn::{Init, TransformerConfig};

    const V: usize = 5;
    const K: usize = 2;

    fn config() -> ModelConfig {
        ModelConfig {
            vocab_size: V,
            chunk_size: K,
            chunk_context: 0,
            compressor: CompressorKind::Mlp,
            decoder: DecoderKind::Autoencoder,
            latent_size: 4,
            window: 8,
            init_std: 0.5,
            zero_init_residual: false,
            aux_weight: 0.0,
            objective: Objective::default(),
            autoencoder: AutoencoderSettings {
                hidden_size: 8,
                intermediate_size: 12,
                encoder_layers: 2,
                decoder_layers: 2,
                norm_eps: 1e-6,
                token_dropout: 0.0,
                latent_dropout: 0.0,
                kl_weight: 1e-3,
                kl_floor: 0.5,
            },
            backbone: TransformerConfig {
                layers: 1,
                hidden_size: 8,
                intermediate_size: 12,
                heads: 2,
                kv_heads: 2,
                rope_theta: 10_000.0,
                norm_eps: 1e-6,
            },
            head: HeadSettings {
                noise_size: 3,
                ..HeadSettings::default()
            },
            local: LocalDecoderSettings::default(),
        }
    }

    /// Every chunk enumerated, on the host: `p_n(x)` of all draws and all `V^K` chunks.
    #[test]
    fn it_is_what_enumeration_gives() {
        let (device, config, draws) = (Device::flex(), config(), 6);
        let mut model = config.init(1, &device);
        *model.language_model.head.output_mut() = Init::new(2, &device).with_std(0.8).linear(8, 4);
        let windows: [&[u32]; 2] = [&[0, 1, 2, 3, 4, 0, 2, 4], &[1, 1, 3, 0, 2, 2, 4, 1]];
        let found = bound(&model, &windows, draws, 7, &device, &mut |_| {});

        let mut expected: Vec<Vec<f64>> = Vec::new();
        for (i, window) in windows.iter().enumerate() {
            let tokens = chunk_tensor(window, 1, K, &device).narrow(1, 0, 3);
            let backbone = &model.language_model.backbone;
            let hidden = backbone.forward(tokens).squeeze_dim::<2>(0);
            let mut random = HostDraws::new(mix(7, i as u64));
            let latent = model.language_model.head.sample(hidden, draws, &mut random);
            let mut sums = [0.0; 6];
            for chunk in 0..3 {
                let own = latent.clone().narrow(1, chunk, 1).squeeze_dim::<2>(1);
                let logits: Vec<f32> = model.autoencoder.logits(own).into_data().iter().collect();
                let softmax = |n: usize, k: usize| -> Vec<f64> {
                    let row = &logits[(n * K + k) * V..][..V];
                    let all: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
                    row.iter().map(|&x| f64::from(x).exp() / all).collect()
                };
                let p = |n: usize, x: &[usize]| -> f64 {
                    x.iter()
                        .enumerate()
                        .map(|(k, &x)| softmax(n, k)[x])
                        .product()
                };
                let truth = [
                    window[2 * chunk + 2] as usize,
                    window[2 * chunk + 3] as usize,
                ];
                for (at, group) in [1, 2, 4, 6].into_iter().enumerate() {
                    let starts: Vec<usize> = (0..draws / group).map(|g| g * group).collect();
                    let mean = |&s: &usize| {
                        -((s..s + group).map(|n| p(n, &truth)).sum::<f64>() / group as f64).ln()
                    };
                    sums[at] += starts.iter().map(mean).sum::<f64>() / starts.len() as f64;
                }
                let prefixes: [Vec<Vec<usize>>; 2] = [
                    (0..V).map(|a| vec![a]).collect(),
                    (0..V * V).map(|x| vec![x / V, x % V]).collect(),
                ];
                for (j, all) in prefixes.iter().enumerate() {
                    let hits: f64 = (0..draws).map(|n| p(n, &truth[..=j])).sum();
                    let mut pairs = 0.0;
                    for x in all {
                        let each: Vec<f64> = (0..draws).map(|n| p(n, x)).collect();
                        let sum: f64 = each.iter().sum();
                        pairs += sum * sum - each.iter().map(|p| p * p).sum::<f64>();
                    }
                    sums[4 + j] += 2.0 * hits / draws as f64 - pairs / (draws * (draws - 1)) as f64;
                }
            }
            expected.push(sums.iter().map(|sum| sum / 3.0).collect());
        }
        let expected: Vec<f64> = (0..6)
            .map(|i| (expected[0][i] + expected[1][i]) / 2.0)
            .collect();
        assert_eq!(found.chunks, 6);
        let sizes: Vec<usize> = found.bounds.iter().map(|bound| bound.draws).collect();
        assert_eq!(sizes, [1, 2, 4, 6]);
        for (bound, expected) in found.bounds.iter().zip(&expected) {
            let nats = expected / K as f64;
            approx::assert_relative_eq!(bound.cross_entropy, nats, max_relative = 1e-5);
        }
        for (brier, expected) in found.brier.iter().zip(&expected[4..]) {
            approx::assert_abs_diff_eq!(*brier, *expected, epsilon = 1e-5);
        }
        // Not all the same: the draws differ.
        assert!(found.bounds[0].cross_entropy > found.bounds[3].cross_entropy + 1e-3);
    }
}
