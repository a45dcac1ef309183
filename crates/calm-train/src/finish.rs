//! The end of a run: final evaluation and summary.

use std::sync::atomic::Ordering;

use calm_autoencoder::ChunkAutoencoder;
use calm_baseline::TokenModel;
use calm_eval::{BrierReport, TokenScoring, evaluate, evaluate_tokens, reconstruct, spread};
use calm_lm::{CalmModel, LocalModel};
use calm_nn::{Cost, NextToken};
use calm_records::{
    AutoencoderSummary, ModelSummary, Protocol, RunInfo, SCHEMA, Summary, TextPart,
};

use crate::event::{Event, Observer};
use crate::samples::{write_baseline_samples, write_local_samples, write_samples};
use crate::state::TrainState;
use crate::step_loop::Run;
use crate::{Result, machine};

/// What a run has trained, without autodiff, and the state of its last stage.
#[allow(clippy::large_enum_variant)] // There is one of these in a run.
pub(crate) enum Trained {
    Autoencoder(ChunkAutoencoder, TrainState),
    Calm(CalmModel, TrainState),
    Local(LocalModel, TrainState),
    Baseline(TokenModel, TrainState),
}

/// Evaluates what was trained, writes the samples and makes the summary; `None` where the run was
/// interrupted meanwhile (everything trained is saved already).
///
/// What earlier calls trained in this directory, on `other_tokens`, stays in the summary.
pub(crate) fn finish(
    trained: Trained,
    other_tokens: u64,
    info: &RunInfo,
    run: &Run<'_>,
    observe: Observer<'_>,
) -> Result<Option<Summary>> {
    let path = run.directory.summary();
    let before = if path.is_file() {
        Some(Summary::load(&path)?)
    } else {
        None
    };
    let (Trained::Autoencoder(_, state)
    | Trained::Calm(_, state)
    | Trained::Local(_, state)
    | Trained::Baseline(_, state)) = &trained;
    let peak = machine::peak_rss_bytes().max(state.peak_rss_bytes);
    let mut summary = Summary {
        schema: SCHEMA,
        preset: run.experiment.preset.clone(),
        device: info.device.clone(),
        tokens_seen: state.earlier_tokens + state.tokens + other_tokens,
        wall_seconds: run.wall_seconds(),
        peak_rss_bytes: before.as_ref().and_then(|b| b.peak_rss_bytes).max(peak),
        autoencoder: None,
        calm: None,
        baseline: None,
        protocol: None,
    };
    let scored = match &trained {
        Trained::Autoencoder(autoencoder, _) => reconstruction(autoencoder, &mut summary, run)?,
        Trained::Calm(calm, state) => {
            reconstruction(&calm.autoencoder, &mut summary, run)?
                && score_calm(calm, state, &mut summary, run, observe)?
                && write_samples(calm, run, observe)?
        }
        Trained::Local(model, state) => {
            let config = &run.experiment.model;
            let scored = score_tokens(model, config.window, &mut summary, run, observe)?;
            summary.calm = scored.map(|scores| ModelSummary {
                chunk_size: config.chunk_size,
                parameters: config.language_model_parameters(),
                train_flops: state.flops,
                infer_flops_per_token: config.inference_flops(config.steps()),
                ..scores
            });
            summary.calm.is_some() && write_local_samples(model, run, observe)?
        }
        Trained::Baseline(model, state) => {
            let config = run.experiment.token_model();
            let scored = score_tokens(model, config.window, &mut summary, run, observe)?;
            summary.baseline = scored.map(|scores| ModelSummary {
                chunk_size: 1,
                parameters: config.parameters(),
                train_flops: state.flops,
                infer_flops_per_token: config.inference_flops(config.window),
                ..scores
            });
            summary.baseline.is_some() && write_baseline_samples(model, run, observe)?
        }
    };
    if !scored {
        return Ok(None);
    }
    if let Some(before) = before {
        // The protocol is that of the scores; an autoencoder alone has none.
        let scored = before.calm.is_some() || before.baseline.is_some();
        if scored && matches!(trained, Trained::Autoencoder(..)) {
            summary.protocol = before.protocol;
        }
        summary.autoencoder = summary.autoencoder.or(before.autoencoder);
        summary.calm = summary.calm.or(before.calm);
        summary.baseline = summary.baseline.or(before.baseline);
    }
    Ok(Some(summary))
}

/// Share of the test part's tokens that come back from the autoencoder; never stops early.
fn reconstruction(
    autoencoder: &ChunkAutoencoder,
    summary: &mut Summary,
    run: &Run<'_>,
) -> Result<bool> {
    let (window, eval) = (run.experiment.model.window, &run.experiment.eval);
    let windows = spread(run.text.store.test(), window, eval.windows)?;
    let rebuilt = reconstruct(autoencoder, &windows, eval.seed, run.device);
    summary.autoencoder = Some(AutoencoderSummary {
        token_accuracy: rebuilt.token_accuracy,
        noisy_token_accuracy: rebuilt.noisy_token_accuracy,
        heldout_tokens: rebuilt.tokens,
    });
    // What the accuracies were measured on; replaced where a model is scored.
    summary.protocol = Some(Protocol {
        window_tokens: window,
        positions: rebuilt.tokens,
        draws: 1,
        seed: eval.seed,
        part: TextPart::Test,
    });
    Ok(true)
}

/// The CALM's scores; false where the run was interrupted.
fn score_calm(
    calm: &CalmModel,
    state: &TrainState,
    summary: &mut Summary,
    run: &Run<'_>,
    observe: Observer<'_>,
) -> Result<bool> {
    let (config, eval) = (&run.experiment.model, &run.experiment.eval);
    let report = evaluate(
        calm,
        run.text.store.test(),
        config.window,
        run.unigram,
        eval,
        run.device,
        &mut |done| run.go_on_scoring(done, observe),
    )?;
    let Some(report) = report else {
        return Ok(false);
    };
    summary.protocol = Some(run.protocol(&report));
    summary.calm = Some(ModelSummary {
        chunk_size: config.chunk_size,
        parameters: config.language_model_parameters(),
        train_flops: state.earlier_flops + state.flops,
        infer_flops_per_token: config.inference_flops(config.steps()),
        ..scores(&report)
    });
    Ok(true)
}

/// Scores of a model with a likelihood, at the positions that a CALM is scored at, with costs of 0;
/// `None` where the run was interrupted.
fn score_tokens<M: NextToken + Clone + Send>(
    model: &M,
    window: usize,
    summary: &mut Summary,
    run: &Run<'_>,
    observe: Observer<'_>,
) -> Result<Option<ModelSummary>> {
    let scoring = TokenScoring {
        tokens: run.text.store.test(),
        window,
        chunk_size: run.experiment.model.chunk_size,
        everywhere: false,
        unigram_counts: run.unigram,
        config: &run.experiment.eval,
    };
    let report = evaluate_tokens(model, run.device, &scoring, &mut |done| {
        run.go_on_scoring(done, observe)
    })?;
    Ok(report.map(|report| {
        summary.protocol = Some(run.protocol(&report.aligned));
        ModelSummary {
            perplexity: Some(report.perplexity()),
            ..scores(&report.aligned)
        }
    }))
}

/// The scores of a report, with costs of 0.
fn scores(report: &BrierReport) -> ModelSummary {
    let e = &report.estimate;
    ModelSummary {
        brier_lm: e.brier_lm,
        brier_lm_se: e.brier_lm_se,
        brier: e.brier,
        brier_se: e.brier_se,
        unigram_brier: report.unigram,
        over_unigram_se: report.over_unigram_se,
        chunk_size: 0,
        parameters: 0,
        train_flops: 0.0,
        infer_flops_per_token: 0.0,
        perplexity: None,
    }
}

impl Run<'_> {
    /// Tells how far the final evaluation is and says whether to go on.
    fn go_on_scoring(&self, done: usize, observe: Observer<'_>) -> bool {
        let available = self.text.store.test().len() / self.experiment.model.window;
        let of = self.experiment.eval.windows.min(available);
        observe(Event::Scoring { done, of });
        !self.interrupt.load(Ordering::SeqCst)
    }

    fn protocol(&self, report: &BrierReport) -> Protocol {
        Protocol {
            window_tokens: self.experiment.model.window,
            positions: report.estimate.positions,
            draws: self.experiment.eval.draws,
            seed: self.experiment.eval.seed,
            part: TextPart::Test,
        }
    }
}
