//! How the time of a CALM training step grows with its sizes: window, K, N and M.

use std::time::Instant;

use burn::tensor::Device;
use calm_lm::ModelConfig;
use calm_report::{LineChart, Scale, Series};
use serde::Serialize;

use crate::jobs::{calm_config, language_model};
use crate::timing::median;

/// What is varied, and how the report calls it.
pub const AXES: [(&str, &str); 4] = [
    ("window", "window (tokens), 8,192 tokens a step"),
    ("k", "tokens per chunk K, l = 32 K"),
    ("n", "model samples N"),
    ("m", "posterior draws M"),
];

/// One size, measured.
#[derive(Clone, Debug, Serialize)]
pub struct Growth {
    /// The name of its axis in [`AXES`].
    pub axis: &'static str,
    /// The size on that axis; all others are those of the job `calm-train`.
    pub value: usize,
    /// Tokens of a step.
    pub tokens: usize,
    /// Time of a step over its tokens, the median over all steps.
    pub us_per_token: f64,
    /// FLOPs of the step's matrix products over its tokens.
    pub flops_per_token: f64,
}

struct Variant {
    axis: &'static str,
    value: usize,
    config: ModelConfig,
    windows: usize,
}

fn variants() -> Vec<Variant> {
    let mut all = Vec::new();
    let mut add = |axis, values: &[usize], make: &dyn Fn(usize) -> (ModelConfig, usize)| {
        for &value in values {
            let (config, windows) = make(value);
            all.push(Variant {
                axis,
                value,
                config,
                windows,
            });
        }
    };
    add("window", &[512, 1024, 2048, 4096, 8192], &|window| {
        (calm_config(window), 8192 / window)
    });
    let varied = |change: &dyn Fn(&mut ModelConfig)| {
        let mut config = calm_config(1024);
        change(&mut config);
        (config, 4)
    };
    add("k", &[1, 2, 4, 8], &|k| {
        varied(&|config| {
            config.chunk_size = k;
            config.latent_size = 32 * k;
        })
    });
    add("n", &[2, 4, 8, 16, 32], &|n| {
        varied(&|config| config.head.samples = n)
    });
    add("m", &[25, 50, 100, 200, 400], &|m| {
        varied(&|config| config.head.posterior_samples = m)
    });
    all
}

/// Measures every size, each in every one of `rounds` rounds for `seconds`, so that a slow minute
/// of the machine meets all of them.
pub fn measure(
    device: &Device,
    rounds: usize,
    seconds: f64,
    mut after_round: impl FnMut(usize),
) -> Vec<Growth> {
    let variants = variants();
    let mut times = vec![Vec::new(); variants.len()];
    for round in 0..rounds {
        for (variant, times) in variants.iter().zip(&mut times) {
            let mut step = language_model(&variant.config, device, variant.windows);
            step();
            let begun = Instant::now();
            let before = times.len();
            while times.len() < before + 2 || begun.elapsed().as_secs_f64() < seconds {
                let start = Instant::now();
                step();
                times.push(start.elapsed().as_secs_f64());
            }
        }
        after_round(round);
    }
    variants
        .iter()
        .zip(&mut times)
        .map(|(variant, times)| {
            let config = &variant.config;
            let tokens = variant.windows * config.window;
            Growth {
                axis: variant.axis,
                value: variant.value,
                tokens,
                us_per_token: median(times) * 1e6 / tokens as f64,
                // A position attends to half of the window on average.
                flops_per_token: config.language_model_train_flops(config.steps() / 2),
            }
        })
        .collect()
}

/// Time per token along one axis, beside what the matrix products alone would make of the first
/// point.
pub fn chart(axis: &str, label: &str, all: &[Growth]) -> LineChart {
    let some: Vec<&Growth> = all.iter().filter(|growth| growth.axis == axis).collect();
    let measured = some.iter().map(|g| (g.value as f64, g.us_per_token));
    let by_flops = some.iter().map(|g| {
        let grown = g.flops_per_token / some[0].flops_per_token;
        (g.value as f64, some[0].us_per_token * grown)
    });
    LineChart::new("Training time per token", label, "µs per token")
        .scales(Scale::Log, Scale::Linear)
        .within(0.0, f64::INFINITY)
        .from_zero()
        .series(Series::new("measured", measured.collect()).with_dots())
        .series(Series::new("as the FLOPs of matrix products", by_flops.collect()).with_dots())
}
