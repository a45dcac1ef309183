//! The end of a run: final evaluation, sample texts, summary.

use std::sync::atomic::Ordering;
use std::time::Instant;

use calm_autoencoder::ChunkAutoencoder;
use calm_eval::{evaluate, reconstruct, spread};
use calm_likelihood_free::BatchSampler;
use calm_lm::{CalmModel, GenerateOptions, Generator, LanguageModel};
use calm_report::{
    AutoencoderSummary, ModelSummary, Protocol, RunInfo, SCHEMA, SampleText, Summary,
};

use crate::config::SamplesConfig;
use crate::event::{Event, Observer};
use crate::state::TrainState;
use crate::step_loop::Run;
use crate::{Result, machine};

/// Evaluates what was trained, writes the samples and makes the summary; `None` where the run was
/// interrupted meanwhile (everything trained is saved already).
pub(crate) fn finish(
    autoencoder: ChunkAutoencoder,
    language_model: Option<LanguageModel>,
    state: &TrainState,
    unigram_counts: &[u64],
    info: &RunInfo,
    run: &Run<'_>,
    observe: Observer<'_>,
) -> Result<Option<Summary>> {
    let experiment = run.experiment;
    let window = experiment.model.window;
    let heldout = run.store.heldout();
    let stopped = || run.interrupt.load(Ordering::SeqCst);
    let windows = spread(heldout, window, experiment.eval.windows)?;
    let rebuilt = reconstruct(&autoencoder, &windows, experiment.eval.seed, run.device);
    let mut calm = None;
    // What the autoencoder's accuracies were measured on; replaced where a model was scored.
    let mut protocol = Protocol {
        window_tokens: window,
        positions: rebuilt.tokens,
        draws: 1,
        seed: experiment.eval.seed,
    };
    if let Some(language_model) = language_model {
        let model = CalmModel {
            autoencoder,
            language_model,
        };
        let of = windows.len();
        let report = evaluate(
            &model,
            heldout,
            window,
            unigram_counts,
            &experiment.eval,
            run.device,
            &mut |done| {
                observe(Event::Scoring { done, of });
                !stopped()
            },
        )?;
        let Some(report) = report else {
            return Ok(None);
        };
        let e = &report.estimate;
        let config = &experiment.model;
        calm = Some(ModelSummary {
            brier_lm: e.brier_lm,
            brier_lm_se: e.brier_lm_se,
            brier: e.brier,
            brier_se: e.brier_se,
            unigram_brier: report.unigram,
            over_unigram_se: report.over_unigram_se,
            chunk_size: config.chunk_size,
            parameters: config.language_model_parameters(),
            train_flops: state.earlier_flops + state.flops,
            infer_flops_per_token: config.inference_flops(config.steps()),
        });
        protocol = Protocol {
            window_tokens: window,
            positions: e.positions,
            draws: experiment.eval.draws,
            seed: experiment.eval.seed,
        };
        if !write_samples(&model, run, observe)? {
            return Ok(None);
        }
    }
    Ok(Some(Summary {
        schema: SCHEMA,
        preset: experiment.preset.clone(),
        device: info.device.clone(),
        tokens_seen: state.earlier_tokens + state.tokens,
        wall_seconds: run.wall_seconds(),
        peak_rss_bytes: machine::peak_rss_bytes().max(state.peak_rss_bytes),
        autoencoder: Some(AutoencoderSummary {
            token_accuracy: rebuilt.token_accuracy,
            noisy_token_accuracy: rebuilt.noisy_token_accuracy,
            heldout_tokens: rebuilt.tokens,
        }),
        calm,
        baseline: None,
        protocol: Some(protocol),
    }))
}

/// One text for every prompt and temperature, each in a file of its own; false where the run was
/// interrupted.
fn write_samples(model: &CalmModel, run: &Run<'_>, observe: Observer<'_>) -> Result<bool> {
    let (experiment, tokenizer, device) = (run.experiment, run.tokenizer, run.device);
    let SamplesConfig {
        prompts,
        temperatures,
        tokens,
        pool,
    } = &experiment.samples;
    for (t, &temperature) in temperatures.iter().enumerate() {
        let sampler = BatchSampler::new(temperature, *pool).map_err(calm_lm::Error::from)?;
        for (p, prompt) in prompts.iter().enumerate() {
            if run.interrupt.load(Ordering::SeqCst) {
                return Ok(false);
            }
            let begun = Instant::now();
            let options = GenerateOptions {
                sampler,
                max_tokens: *tokens,
                end_of_text: tokenizer.end_of_text(),
                seed: experiment.seed,
            };
            let ids = [tokenizer.encode(prompt)?];
            let generator = Generator::new(model, &experiment.model, &ids, options, device)?;
            let generated = generator.run().remove(0);
            let sample = SampleText {
                temperature: sampler.temperature(),
                sampler: (sampler.power() > 1)
                    .then(|| format!("batch of {} draws per chunk", sampler.pool())),
                prompt: prompt.clone(),
                text: tokenizer.decode(&generated)?,
                tokens: generated.len() as u64,
                seed: experiment.seed,
                seconds: Some(begun.elapsed().as_secs_f64()),
            };
            sample.save(&run.directory.samples().join(format!("{t}-{p}.json")))?;
            observe(Event::Sampled(&sample));
        }
    }
    Ok(true)
}
