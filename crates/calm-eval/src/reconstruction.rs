//! How well the autoencoder gives back what it was given.

use burn::tensor::{Device, Int, Tensor};
use calm_autoencoder::ChunkAutoencoder;
use calm_nn::{HostDraws, chunk_tensor, mix};

/// Shares of held-out tokens that come back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reconstruction {
    /// Decoding the posterior's mean.
    pub token_accuracy: f64,
    /// Decoding a draw from the posterior, which is what the language model aims at.
    pub noisy_token_accuracy: f64,
    /// Tokens compared.
    pub tokens: u64,
}

/// Encodes and decodes `windows` with a frozen autoencoder.
///
/// # Panics
/// Where a window is no multiple of K.
pub fn reconstruct(
    autoencoder: &ChunkAutoencoder,
    windows: &[&[u32]],
    seed: u64,
    device: &Device,
) -> Reconstruction {
    let k = autoencoder.chunk_size();
    let decoder = autoencoder.greedy();
    let (mut exact, mut noisy, mut tokens) = (0u64, 0u64, 0u64);
    for (i, window) in windows.iter().enumerate() {
        let chunks = chunk_tensor(window, 1, k, device).squeeze_dim::<2>(0);
        let posterior = autoencoder.encode(chunks.clone());
        let draw = posterior.sample(&mut HostDraws::new(mix(seed, i as u64)));
        exact += agreement(&decoder.decode(posterior.mean), &chunks);
        noisy += agreement(&decoder.decode(draw), &chunks);
        tokens += window.len() as u64;
    }
    let share = |count: u64| count as f64 / tokens as f64;
    Reconstruction {
        token_accuracy: share(exact),
        noisy_token_accuracy: share(noisy),
        tokens,
    }
}

fn agreement(decoded: &Tensor<2, Int>, tokens: &Tensor<2, Int>) -> u64 {
    decoded
        .clone()
        .equal(tokens.clone())
        .int()
        .sum()
        .into_scalar::<i64>() as u64
}
