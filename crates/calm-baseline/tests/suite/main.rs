//! Golden values and properties of the token baseline.

mod brier;
mod decoding;
mod golden;
mod model;
mod sampler;
mod speculative;

use burn::tensor::{Device, Int, Tensor, TensorData};
use calm_baseline::{TokenModel, TokenModelConfig};
use calm_nn::NextToken;
use calm_nn::{RandomStream, TransformerConfig};

/// A small model whose predictions are far from uniform.
fn small(seed: u64, device: &Device) -> (TokenModelConfig, TokenModel) {
    let config = TokenModelConfig {
        vocab_size: 13,
        window: 16,
        init_std: 0.35,
        tied_embeddings: false,
        scale_embeddings: false,
        zero_init_residual: false,
        near_tokens: 2,
        transformer: TransformerConfig {
            layers: 2,
            hidden_size: 16,
            intermediate_size: 20,
            heads: 4,
            kv_heads: 2,
            rope_theta: 10_000.0,
            norm_eps: 1e-6,
        },
    };
    let model = with_near_weights(config.init(seed, device), seed);
    (config, model)
}

/// The weights of near tokens begin at zero; with these they matter.
fn with_near_weights(mut model: TokenModel, seed: u64) -> TokenModel {
    let near = model.near.as_mut().expect("near tokens");
    near.weights = near.weights.clone().map(|weights| {
        let values = RandomStream::new(seed).normal(weights.shape().num_elements());
        let data = TensorData::new(values, weights.shape());
        Tensor::from_data(data, &weights.device()) * 0.5
    });
    model
}

/// A model of five tokens for tests that enumerate.
fn enumerable(seed: u64, device: &Device) -> TokenModel {
    let (mut config, _) = small(seed, device);
    config.vocab_size = 5;
    config.transformer.layers = 1;
    with_near_weights(config.init(seed, device), seed)
}

fn ids(n: usize, vocabulary: usize, seed: u64) -> Vec<u32> {
    let mut random = RandomStream::new(seed);
    (0..n).map(|_| random.below(vocabulary) as u32).collect()
}

/// Token ids as `[1, n]`.
fn row(tokens: &[u32], device: &Device) -> Tensor<2, Int> {
    let values: Vec<i32> = tokens.iter().map(|&t| t as i32).collect();
    Tensor::from_data(TensorData::new(values, [1, tokens.len()]), device)
}

/// Scores after each token of a text, by reading the whole: `text.len()` rows.
fn scores(model: &TokenModel, text: &[u32], device: &Device) -> Vec<Vec<f32>> {
    let hidden = model.hidden(row(text, device)).squeeze_dim::<2>(0);
    let logits = model.logits(hidden);
    let [_, width] = logits.dims();
    let values: Vec<f32> = logits.into_data().iter::<f32>().collect();
    values.chunks_exact(width).map(<[f32]>::to_vec).collect()
}

/// Pearson's statistic of observed counts against probabilities.
fn chi_square(counts: &[usize], probabilities: &[f64]) -> f64 {
    let n = counts.iter().sum::<usize>() as f64;
    counts
        .iter()
        .zip(probabilities)
        .map(|(&count, &p)| {
            if p == 0.0 {
                assert_eq!(count, 0, "an impossible outcome came");
                return 0.0;
            }
            (count as f64 - n * p).powi(2) / (n * p)
        })
        .sum()
}
