//! Fused attention against attention written out.

use std::time::Instant;

use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Device, Tensor, TensorData};
use calm_baseline::TokenModelConfig;
use calm_kernels::{causal_attention, fused, reference};
use calm_nn::RandomStream;

use crate::record::Technique;
use crate::spec::SpeedConfig;
use crate::speed::median;

/// Lengths at which attention is timed.
const LENGTHS: [usize; 3] = [512, 1024, 2048];

/// One layer's attention over a window, fused against written out: a forward pass, and, where the
/// models train with the fused one, forward and backward.
pub(crate) fn attention_rows(
    config: &TokenModelConfig,
    speed: &SpeedConfig,
    device: &Device,
) -> Vec<Technique> {
    let shape = Shape {
        heads: config.transformer.heads,
        kv_heads: config.transformer.kv_heads,
        width: config.transformer.head_dim(),
    };
    let mut rows = Vec::new();
    for training in [false, true] {
        if training && !fused(device) {
            continue;
        }
        let device = &if training {
            device.clone().autodiff()
        } else {
            device.clone()
        };
        for length in LENGTHS {
            rows.push(row(shape, length, training, speed, device));
        }
    }
    rows
}

#[derive(Clone, Copy)]
struct Shape {
    heads: usize,
    kv_heads: usize,
    width: usize,
}

fn row(
    shape: Shape,
    length: usize,
    training: bool,
    speed: &SpeedConfig,
    device: &Device,
) -> Technique {
    let mut random = RandomStream::new(length as u64);
    let mut draw = |heads: usize| {
        let shape = [1, length, heads * shape.width];
        let data = TensorData::new(random.normal(shape.iter().product()), shape);
        Tensor::<3>::from_data(data, device)
    };
    let (q, k, v) = (
        draw(shape.heads),
        draw(shape.kv_heads),
        draw(shape.kv_heads),
    );
    let time = |version: &dyn Fn(Tensor<3>, Tensor<3>, Tensor<3>) -> Tensor<3>| {
        let begun = Instant::now();
        if training {
            let leaves = [&q, &k, &v].map(|x| x.clone().require_grad());
            let [q, k, v] = leaves.clone();
            let gradients = version(q, k, v).sum().backward();
            for leaf in leaves {
                let _ = leaf.grad(&gradients).map(Tensor::into_data);
            }
        } else {
            let _ = version(q.clone(), k.clone(), v.clone()).into_data();
        }
        1.0 / begun.elapsed().as_secs_f64()
    };
    let Shape {
        heads, kv_heads, ..
    } = shape;
    let as_in_models = |q, k, v| attended(q, k, v, shape);
    let plain = |q, k, v| reference::causal_attention(q, k, v, heads, kv_heads);
    let pairs: Vec<(f64, f64)> = (0..speed.repetitions + 1)
        .map(|_| (time(&as_in_models), time(&plain)))
        .skip(1)
        .collect();
    let (pass, unit) = if training {
        ("in training", "passes/s of one layer, forward and backward")
    } else {
        ("in inference", "passes/s of one layer")
    };
    Technique {
        name: format!("fused attention {pass}, {length} positions"),
        mechanism: "never holds the scores of all pairs of positions".to_owned(),
        unit: unit.to_owned(),
        rate: median(pairs.iter().map(|p| p.0).collect()),
        ratio: median(pairs.iter().map(|p| p.0 / p.1).collect()),
        compared_with: "scores written out".to_owned(),
        steps_per_1000_tokens: None,
        draft_steps_per_1000_tokens: None,
        acceptance: None,
        cache_bytes_per_token: None,
        distribution: "unchanged".to_owned(),
        limit: "cheaper steps, as many of them".to_owned(),
    }
}

/// Causal attention as the models have it: our kernel where there is one, else Burn's operation,
/// which they use for the first positions of a cache.
fn attended(q: Tensor<3>, k: Tensor<3>, v: Tensor<3>, shape: Shape) -> Tensor<3> {
    let Shape {
        heads,
        kv_heads,
        width,
    } = shape;
    if fused(&q.device()) {
        return causal_attention(q, k, v, heads, kv_heads);
    }
    let [batch, length, d] = q.dims();
    let split = |x: Tensor<3>, own: usize| {
        x.reshape([batch, length, own, 1, width])
            .expand([batch, length, own, heads / own, width])
            .reshape([batch, length, heads, width])
            .swap_dims(1, 2)
    };
    let options = AttentionModuleOptions {
        is_causal: true,
        ..Default::default()
    };
    let (q, k, v) = (split(q, heads), split(k, kv_heads), split(v, kv_heads));
    attention(q, k, v, None, None, options)
        .swap_dims(1, 2)
        .reshape([batch, length, d])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_a_ratio_of_the_same_work() {
        let device = Device::flex();
        let config = calm_train::preset::resolve("debug", &[])
            .unwrap()
            .token_model();
        let speed = SpeedConfig {
            repetitions: 1,
            ..crate::Grid::resolve("debug").unwrap().speed
        };
        let rows = attention_rows(&config, &speed, &device);
        assert_eq!(rows.len(), 2 * LENGTHS.len());
        assert!(rows.iter().all(|row| row.rate > 0.0 && row.ratio > 0.0));
    }
}
