//! Timing of decoding.

use std::time::Instant;

use burn::tensor::Device;
use calm_baseline::{TokenGenerator, TokenSampler};
use calm_likelihood_free::BatchSampler;
use calm_lm::{CalmModel, GenerateOptions, Generator, ModelConfig};
use calm_nn::{Limits, NextToken};

use crate::record::SpeedRow;
use crate::spec::SpeedConfig;

/// No token: texts then end at their limit alone, so that every model makes as many tokens.
pub(crate) const NEVER: u32 = u32::MAX;

/// Prompts of a batch, cut one after another from the front of `text`.
fn prompts(text: &[u32], batch: usize, length: usize) -> Vec<Vec<u32>> {
    (0..batch)
        .map(|i| {
            let start = i * length % (text.len() - length + 1);
            text[start..start + length].to_vec()
        })
        .collect()
}

/// The CALM at every batch size, one sample a step (T = 1).
pub(crate) fn calm(
    model: &CalmModel,
    config: &ModelConfig,
    text: &[u32],
    speed: &SpeedConfig,
    device: &Device,
) -> Vec<SpeedRow> {
    let sampler = BatchSampler::new(1.0, 1).expect("a temperature of 1 needs no pool");
    rows(speed, |batch, seed| {
        let options = GenerateOptions {
            sampler: sampler.into(),
            max_tokens: speed.tokens,
            end_of_text: NEVER,
            lead_in: &[],
            seed,
        };
        let prompts = prompts(text, batch, speed.prompt_tokens);
        let mut generator = Generator::new(model, config, &prompts, options, device)
            .expect("prompts fit the window");
        Box::new(move || (!generator.is_done()).then(|| generator.step().concat().len()))
    })
}

/// A model with probabilities at every batch size, plain cached decoding at T = 1.
pub(crate) fn token<M: NextToken>(
    model: &M,
    window: usize,
    text: &[u32],
    speed: &SpeedConfig,
    device: &Device,
) -> Vec<SpeedRow> {
    let sampler = TokenSampler::new(1.0, None, None).expect("a temperature of 1");
    rows(speed, |batch, seed| {
        let limits = Limits {
            window,
            max_tokens: speed.tokens,
            end_of_text: NEVER,
        };
        let prompts = prompts(text, batch, speed.prompt_tokens);
        let mut generator =
            TokenGenerator::new(model, sampler, limits, &[], &prompts, seed, device)
                .expect("prompts fit the window");
        Box::new(move || (!generator.is_done()).then(|| generator.step().concat().len()))
    })
}

/// A generator that makes its next tokens and says how many, or `None` at its end.
type Stepper<'a> = Box<dyn FnMut() -> Option<usize> + 'a>;

fn rows<'a>(speed: &SpeedConfig, start: impl Fn(usize, u64) -> Stepper<'a>) -> Vec<SpeedRow> {
    speed
        .batches
        .iter()
        .map(|&batch| {
            let timed = (0..speed.repetitions as u64)
                .map(|seed| time(|| start(batch, seed)))
                .collect::<Vec<_>>();
            let pick = |f: fn(&Timing) -> f64| median(timed.iter().map(f).collect());
            SpeedRow {
                batch,
                first_token_seconds: pick(|t| t.first),
                tokens_per_s: pick(|t| t.later_tokens / t.later),
                steps_per_1000_tokens: pick(|t| t.steps) * 1000.0 / speed.tokens as f64,
            }
        })
        .collect()
}

struct Timing {
    first: f64,
    later: f64,
    later_tokens: f64,
    steps: f64,
}

fn time<'a>(start: impl FnOnce() -> Stepper<'a>) -> Timing {
    let begun = Instant::now();
    let mut step = start();
    step();
    let first = begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    let (mut tokens, mut steps) = (0, 1);
    while let Some(fresh) = step() {
        tokens += fresh;
        steps += 1;
    }
    Timing {
        first,
        later: begun.elapsed().as_secs_f64(),
        later_tokens: tokens as f64,
        steps: steps as f64,
    }
}

/// The middle value; of an even number of them the mean of the two.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    match n {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => 0.5 * (values[n / 2 - 1] + values[n / 2]),
    }
}
