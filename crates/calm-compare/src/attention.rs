//! Fused attention against attention written out.

use std::time::Instant;

use burn::tensor::activation::softmax;
use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Bool, Device, Tensor, TensorData};
use calm_baseline::TokenModelConfig;
use calm_nn::RandomStream;

use crate::grid::SpeedConfig;
use crate::speed::median;
use crate::techniques::Technique;

/// Lengths at which attention is timed: from where Burn's executor for the CPU leaves the scores of
/// all pairs out (above 512 positions).
const LENGTHS: [usize; 3] = [768, 1024, 2048];

/// One layer's attention over a window, fused against written out.
pub(crate) fn attention_rows(
    config: &TokenModelConfig,
    speed: &SpeedConfig,
    device: &Device,
) -> Vec<Technique> {
    let (heads, width) = (config.transformer.heads, config.transformer.head_dim());
    LENGTHS
        .into_iter()
        .map(|length| {
            let mut random = RandomStream::new(length as u64);
            let mut draw = || {
                let shape = [1, heads, length, width];
                let data = TensorData::new(random.normal(shape.iter().product()), shape);
                Tensor::<4>::from_data(data, device)
            };
            let (q, k, v) = (draw(), draw(), draw());
            let time = |f: &dyn Fn() -> Tensor<4>| {
                let begun = Instant::now();
                let _ = f().into_data();
                1.0 / begun.elapsed().as_secs_f64()
            };
            let fused = || attended(q.clone(), k.clone(), v.clone());
            let hidden = causal_mask(length, device);
            let plain = || written_out(q.clone(), k.clone(), v.clone(), hidden.clone());
            let pairs: Vec<(f64, f64)> = (0..speed.repetitions + 1)
                .map(|_| (time(&fused), time(&plain)))
                .skip(1)
                .collect();
            Technique {
                name: format!("fused attention, {length} positions"),
                mechanism: "never holds the scores of all pairs of positions".to_owned(),
                unit: "passes/s of one layer".to_owned(),
                rate: median(pairs.iter().map(|p| p.0).collect()),
                ratio: median(pairs.iter().map(|p| p.0 / p.1).collect()),
                compared_with: "scores written out".to_owned(),
                steps_per_1000_tokens: None,
                draft_steps_per_1000_tokens: None,
                acceptance: None,
                cache_bytes_per_token: None,
                distribution: "unchanged".to_owned(),
                limit: "cheaper steps, as many of them; in inference, not yet in training"
                    .to_owned(),
            }
        })
        .collect()
}

/// Causal attention by Burn's fused operation, as the models use it.
fn attended(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>) -> Tensor<4> {
    let options = AttentionModuleOptions {
        is_causal: true,
        ..Default::default()
    };
    attention(q, k, v, None, None, options)
}

/// Hides later positions: true above the diagonal, `[1, 1, length, length]`.
fn causal_mask(length: usize, device: &Device) -> Tensor<4, Bool> {
    Tensor::<2, Bool>::tril_mask([length, length], 0, device).reshape([1, 1, length, length])
}

/// The same with the scores of all pairs in memory.
fn written_out(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, hidden: Tensor<4, Bool>) -> Tensor<4> {
    let width = q.dims()[3];
    let scores = q.matmul(k.transpose()) / (width as f64).sqrt();
    let hidden = hidden.expand(scores.dims());
    softmax(scores.mask_fill(hidden, f32::NEG_INFINITY), 3).matmul(v)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fused_attention_is_attention() {
        let device = Device::flex();
        let mut random = RandomStream::new(1);
        let mut draw = || {
            let data = TensorData::new(random.normal(2 * 3 * 9 * 4), [2, 3, 9, 4]);
            Tensor::<4>::from_data(data, &device)
        };
        let (q, k, v) = (draw(), draw(), draw());
        let a = attended(q.clone(), k.clone(), v.clone()).into_data();
        let b = written_out(q, k, v, causal_mask(9, &device)).into_data();
        for (a, b) in a.iter::<f32>().zip(b.iter::<f32>()) {
            assert!((a - b).abs() < 1e-5, "{a} and {b}");
        }
    }
}
