//! Whether a CALM's head heeds the hidden state: two figures that show it within minutes.

use burn::tensor::{Device, Int, Tensor};
use calm_likelihood_free::GenerativeHead;
use calm_lm::CalmModel;
use calm_nn::{Draws, HostDraws, chunk_tensor, mix};

/// How much the head heeds its condition.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Heed {
    /// Loss with the hidden states permuted over positions, over that with the true ones: 1
    /// where the condition is not heeded, more where it is.
    pub permuted_loss_ratio: f64,
    /// Share of the next chunks' tokens that the autoencoder reads from the head's output with the
    /// noise at zero.
    pub noiseless_token_accuracy: f64,
}

/// Measures it over `windows`, for a model without autodiff.
///
/// Both losses have the same draws; the permutation turns all positions of all windows half round,
/// so that none keeps its own.
///
/// # Panics
/// Where there is no window, or windows of other than two or more whole chunks.
pub fn heed(model: &CalmModel, windows: &[&[u32]], seed: u64, device: &Device) -> Heed {
    let k = model.autoencoder.chunk_size();
    let (language_model, decoder) = (&model.language_model, model.autoencoder.greedy());
    let (mut hidden, mut next) = (Vec::new(), Vec::new());
    for window in windows {
        let tokens = chunk_tensor(window, 1, k, device);
        let predictions = window.len() / k - 1;
        let seen = tokens.clone().narrow(1, 0, predictions);
        hidden.push(language_model.backbone.forward(seen).squeeze_dim::<2>(0));
        next.push(tokens.narrow(1, 1, predictions).squeeze_dim::<2>(0));
    }
    let hidden = Tensor::cat(hidden, 0);
    let [rows, _] = hidden.dims();
    let half = rows / 2;
    let second = hidden.clone().narrow(0, half, rows - half);
    let permuted = Tensor::cat(vec![second, hidden.clone().narrow(0, 0, half)], 0);
    let (mut losses, mut agree, mut first) = ([0.0; 2], 0, 0);
    for (i, next) in next.into_iter().enumerate() {
        let [positions, _] = next.dims();
        let of_window = |states: &Tensor<2>| states.clone().narrow(0, first, positions);
        let posterior = model.autoencoder.encode(next.clone());
        for (loss, states) in losses.iter_mut().zip([&hidden, &permuted]) {
            let mut draws = HostDraws::new(mix(seed, i as u64));
            let head = &language_model.head;
            let mean = head.loss(of_window(states), &posterior, &mut draws).total;
            *loss += positions as f64 * f64::from(mean.into_scalar::<f32>());
        }
        let head = &language_model.head;
        let latent = head.sample(of_window(&hidden), 1, &mut Silence);
        agree += agreement(decoder.decode(latent.squeeze_dim(0)), &next);
        first += positions;
    }
    Heed {
        permuted_loss_ratio: losses[1] / losses[0],
        noiseless_token_accuracy: agree as f64 / (rows * k) as f64,
    }
}

/// The middle of every distribution.
struct Silence;

impl Draws for Silence {
    fn normal(&mut self, n: usize, device: &Device) -> Tensor<1> {
        Tensor::zeros([n], device)
    }

    fn uniform(&mut self, n: usize, device: &Device) -> Tensor<1> {
        Tensor::full([n], 0.5, device)
    }
}

fn agreement(decoded: Tensor<2, Int>, tokens: &Tensor<2, Int>) -> i64 {
    let equal = decoded.equal(tokens.clone()).int();
    equal.sum().into_scalar::<i64>()
}
