//! Sample texts at the end of a run.

use std::sync::atomic::Ordering;
use std::time::Instant;

use calm_baseline::{TokenGenerator, TokenModel, TokenSampler};
use calm_likelihood_free::GrowingSampler;
use calm_lm::{CalmModel, GenerateOptions, Generator, LocalModel};
use calm_nn::{Limits, NextToken};
use calm_records::SampleText;

use crate::Result;
use crate::event::{Event, Observer};
use crate::step_loop::Run;

/// Texts of the CALM; false where the run was interrupted.
pub(crate) fn write_samples(
    model: &CalmModel,
    run: &Run<'_>,
    observe: Observer<'_>,
) -> Result<bool> {
    let experiment = run.experiment;
    let settings = &experiment.samples;
    let lead_in = run.lead_in();
    let mut write = |temperature: f64, prompt: &[u32], seed: u64| {
        let sampler =
            GrowingSampler::new(temperature, settings.pool).map_err(calm_lm::Error::from)?;
        let options = GenerateOptions {
            sampler: sampler.into(),
            max_tokens: settings.tokens,
            end_of_text: run.tokenizer.end_of_text(),
            lead_in: &lead_in,
            seed,
        };
        let prompts = [prompt.to_vec()];
        let generator = Generator::new(model, &experiment.model, &prompts, options, run.device)?;
        let largest = sampler.largest();
        let how = (largest > 1).then(|| format!("growing pools of at most {largest} draws"));
        Ok((sampler.temperature(), generator.run().remove(0), how))
    };
    write_each("", run, &mut write, observe)
}

/// Texts of a model with a local decoder; false where the run was interrupted.
pub(crate) fn write_local_samples(
    model: &LocalModel,
    run: &Run<'_>,
    observe: Observer<'_>,
) -> Result<bool> {
    write_token_samples(model, &run.lead_in(), "", "local decoder", run, observe)
}

/// Texts of the token baseline; false where the run was interrupted.
pub(crate) fn write_baseline_samples(
    model: &TokenModel,
    run: &Run<'_>,
    observe: Observer<'_>,
) -> Result<bool> {
    write_token_samples(model, &[], "baseline-", "token baseline", run, observe)
}

/// Texts of a model that draws token by token, in files whose names begin with `prefix`.
fn write_token_samples<M: NextToken>(
    model: &M,
    lead_in: &[u32],
    prefix: &str,
    how: &str,
    run: &Run<'_>,
    observe: Observer<'_>,
) -> Result<bool> {
    let experiment = run.experiment;
    let mut write = |temperature: f64, prompt: &[u32], seed: u64| {
        let sampler = TokenSampler::new(temperature, None, None)
            .expect("the configuration allows no temperature below 0");
        let limits = Limits {
            window: experiment.model.window,
            max_tokens: experiment.samples.tokens,
            end_of_text: run.tokenizer.end_of_text(),
        };
        let (prompts, device) = ([prompt.to_vec()], run.device);
        let generator =
            TokenGenerator::new(model, sampler, limits, lead_in, &prompts, seed, device)
                .map_err(calm_lm::Error::from)?;
        Ok((temperature, generator.run().remove(0), Some(how.to_owned())))
    };
    write_each(prefix, run, &mut write, observe)
}

/// Temperature, new tokens, and how they were drawn.
type Written = (f64, Vec<u32>, Option<String>);

/// Writes one text, of a temperature, a prompt and a seed.
type Write<'a> = dyn FnMut(f64, &[u32], u64) -> Result<Written> + 'a;

/// One text for every prompt and temperature, each with a seed of its own and in a file of its own
/// whose name begins with `prefix`; false where the run was interrupted.
fn write_each(
    prefix: &str,
    run: &Run<'_>,
    write: &mut Write<'_>,
    observe: Observer<'_>,
) -> Result<bool> {
    let settings = &run.experiment.samples;
    for (t, &temperature) in settings.temperatures.iter().enumerate() {
        for (p, prompt) in settings.prompts.iter().enumerate() {
            if run.interrupt.load(Ordering::SeqCst) {
                return Ok(false);
            }
            let begun = Instant::now();
            // With the same draws, texts of a weak model are alike whatever the prompt.
            let nth = (t * settings.prompts.len() + p) as u64;
            let seed = run.experiment.seed.wrapping_add(nth);
            let (temperature, generated, sampler) =
                write(temperature, &run.tokenizer.encode(prompt)?, seed)?;
            let sample = SampleText {
                temperature,
                sampler,
                prompt: prompt.clone(),
                text: run.tokenizer.decode(&generated)?,
                tokens: generated.len() as u64,
                seed,
                seconds: Some(begun.elapsed().as_secs_f64()),
            };
            let name = format!("{prefix}{t}-{p}.json");
            sample.save(&run.directory.samples().join(name))?;
            observe(Event::Sampled(&sample));
        }
    }
    Ok(true)
}
