//! One cell: train it or go on with it, score it, time it.

use std::path::Path;
use std::sync::atomic::Ordering;

use calm_eval::{evaluate_rollout, evaluate_tokens, spread};
use calm_lm::CalmRollout;
use calm_nn::Cost;
use calm_report::{EvalPoint, MetricRow, RunDir, Stage, Summary, read_jsonl};
use calm_train::{
    Options as TrainOptions, RunEnd, Stages, baseline_checkpoint, language_model_checkpoint, preset,
};

use crate::compare::{Options, Text};
use crate::grid::{Cell, CellKind, Grid};
use crate::record::{CellRecord, CurvePoint, MadeWith};
use crate::{Error, Event, Result};
use crate::{memory, speed};

/// File of a cell's record in its directory.
pub(crate) const RECORD: &str = "cell.json";

/// The record of a cell: read where it is finished, else made. `None` where it was interrupted.
pub(crate) fn run_cell(
    cell: &Cell,
    grid: &Grid,
    text: &Text,
    options: &Options<'_>,
    observe: &mut dyn FnMut(Event<'_>),
) -> Result<Option<CellRecord>> {
    let directory = &options.directory(cell);
    let made_with = MadeWith {
        experiment: preset::to_toml(&cell.experiment)?,
        protocol: grid.protocol,
        speed: grid.speed.clone(),
        device: options.device_name.to_owned(),
        text: text.store.key().to_owned(),
        host: options.info.host.clone(),
    };
    let path = directory.join(RECORD);
    if let Some(record) = CellRecord::load(&path)? {
        if !record.made_with.fits(&made_with) {
            let path = directory.to_owned();
            return Err(Error::OtherCell { path });
        }
        return Ok(Some(record));
    }
    memory::forget_peak();
    if !train(cell, directory, options, observe)? {
        return Ok(None);
    }
    let record = measure(cell, grid, text, made_with, options, observe)?;
    if let Some(record) = &record {
        record.save(&path)?;
    }
    Ok(record)
}

/// Trains the cell in its run directory; false where it was interrupted.
fn train(
    cell: &Cell,
    directory: &Path,
    options: &Options<'_>,
    observe: &mut dyn FnMut(Event<'_>),
) -> Result<bool> {
    let run = RunDir::open(directory).ok();
    if let Some(run) = &run {
        let found = preset::load(&run.config())?;
        // The resolved vocabulary may be smaller than the one asked for, nothing else may differ.
        let mut asked = cell.experiment.clone();
        asked.model.vocab_size = found.model.vocab_size;
        if asked != found {
            let path = directory.to_owned();
            return Err(Error::OtherCell { path });
        }
        if run.summary().is_file() {
            return Ok(true);
        }
    }
    let train_options = TrainOptions {
        out: directory.to_owned(),
        stages: match cell.kind {
            CellKind::Calm => Stages::All,
            CellKind::Baseline => Stages::Baseline,
        },
        device: options.device,
        device_name: options.device_name,
        cache: options.cache,
        interrupt: options.interrupt,
    };
    let mut forward = |event: calm_train::Event<'_>| observe(Event::Train(event));
    let end = if run.is_some() {
        calm_train::resume(&train_options, &mut forward)
    } else {
        let info = options.info.clone();
        calm_train::train(cell.experiment.clone(), info, &train_options, &mut forward)
    };
    let end = end.map_err(|source| Error::Train {
        cell: cell.name(),
        source: Box::new(source),
    })?;
    Ok(end == RunEnd::Complete)
}

/// Scores and times a trained cell; `None` where it was interrupted.
fn measure(
    cell: &Cell,
    grid: &Grid,
    text: &Text,
    made_with: MadeWith,
    options: &Options<'_>,
    observe: &mut dyn FnMut(Event<'_>),
) -> Result<Option<CellRecord>> {
    let run = RunDir::open(options.directory(cell))?;
    // As resolved: the vocabulary is the tokenizer's.
    let experiment = preset::load(&run.config())?;
    let (counts, heldout) = (&text.unigram, text.store.heldout());
    let (window, protocol) = (experiment.model.window, grid.protocol);
    let windows = spread(heldout, window, protocol.windows)?;
    let of = windows.len();
    let on_window = &mut |done| {
        observe(Event::Train(calm_train::Event::Scoring { done, of }));
        !options.interrupt.load(Ordering::SeqCst)
    };
    let device = options.device;
    let (scores, cross_entropy, costs, speed) = match cell.kind {
        CellKind::Calm => {
            let model = language_model_checkpoint(&run)?.load(device)?;
            let rollout = &mut CalmRollout::new(&model, device).every(protocol.every);
            let eval = protocol.eval(protocol.draws);
            let report = evaluate_rollout(rollout, &windows, counts, &eval, on_window)?;
            let Some(report) = report else {
                return Ok(None);
            };
            let config = &experiment.model;
            memory::forget_peak();
            let speed = speed::calm(&model, config, heldout, &grid.speed, device);
            ((&report).into(), None, Costs::calm(&experiment), speed)
        }
        CellKind::Baseline => {
            let model = baseline_checkpoint(&run)?.load(device)?;
            let eval = protocol.eval(protocol.token_draws);
            let report = evaluate_tokens(
                &model, heldout, window, 1, false, counts, &eval, device, on_window,
            )?;
            let Some(report) = report else {
                return Ok(None);
            };
            memory::forget_peak();
            let speed = speed::token(&model, window, heldout, &grid.speed, device);
            let cross_entropy = Some(report.cross_entropy);
            (
                (&report.aligned).into(),
                cross_entropy,
                Costs::token(&experiment),
                speed,
            )
        }
    };
    let curve = curve(&run, cell.kind, &costs)?;
    let rows: Vec<MetricRow> = read_jsonl(&run.metrics())?;
    let summary = Summary::load(&run.summary())?;
    Ok(Some(CellRecord {
        made_with,
        git_revision: options.info.git_revision.clone(),
        model: cell.model.clone(),
        kind: cell.kind,
        seed: cell.seed,
        chunk_size: cell.chunk_size(),
        parameters: costs.parameters,
        train_tokens: costs.tokens,
        autoencoder_tokens: costs.autoencoder_tokens,
        train_flops: costs.train_flops(costs.tokens),
        train_flops_without_autoencoder: costs.own_flops_per_token * costs.tokens as f64,
        train_seconds: stage_seconds(&rows).iter().map(|(_, s)| s).sum(),
        peak_rss_bytes: summary.peak_rss_bytes,
        decoding_rss_bytes: calm_train::peak_rss_bytes(),
        infer_flops_per_token: costs.infer,
        infer_flops_per_token_without_autoencoder: costs.infer_without_autoencoder,
        cache_bytes_per_token: costs.cache,
        scores,
        windows: of,
        cross_entropy,
        curve,
        speed,
    }))
}

/// What a cell costs, by the counting rule.
struct Costs {
    parameters: u64,
    tokens: u64,
    autoencoder_tokens: u64,
    /// The autoencoder's own training.
    before: f64,
    flops_per_token: f64,
    own_flops_per_token: f64,
    infer: f64,
    infer_without_autoencoder: f64,
    cache: f64,
}

impl Costs {
    fn calm(experiment: &calm_train::Experiment) -> Self {
        let (config, window) = (&experiment.model, experiment.model.window);
        let steps = config.steps();
        let autoencoder_tokens = experiment.autoencoder.total_tokens(window);
        let flops_per_token = config.language_model_train_flops(steps);
        let infer = config.inference_flops(steps);
        Self {
            parameters: config.language_model_parameters(),
            tokens: experiment.lm.total_tokens(window),
            autoencoder_tokens,
            before: config.autoencoder_train_flops() * autoencoder_tokens as f64,
            flops_per_token,
            own_flops_per_token: flops_per_token - config.encoder_flops(),
            infer,
            infer_without_autoencoder: infer - config.decoder_flops(),
            cache: config.cache_bytes_per_token(),
        }
    }

    fn token(experiment: &calm_train::Experiment) -> Self {
        let config = experiment.token_model();
        let training = &experiment.baseline.training;
        let flops_per_token = config.train_flops(config.window);
        let infer = config.inference_flops(config.window);
        Self {
            parameters: config.parameters(),
            tokens: training.total_tokens(config.window),
            autoencoder_tokens: 0,
            before: 0.0,
            flops_per_token,
            own_flops_per_token: flops_per_token,
            infer,
            infer_without_autoencoder: infer,
            cache: config.cache_bytes() as f64,
        }
    }

    /// All training FLOPs after `tokens` of the language model's training.
    fn train_flops(&self, tokens: u64) -> f64 {
        self.before + self.flops_per_token * tokens as f64
    }
}

/// Seconds in steps of each stage, from its last row.
fn stage_seconds(rows: &[MetricRow]) -> Vec<(Stage, f64)> {
    Stage::ALL
        .into_iter()
        .filter_map(|stage| {
            let last = rows.iter().rev().find(|row| row.stage == stage)?;
            Some((stage, last.seconds))
        })
        .collect()
}

/// Quality on the way, from the run's evaluations.
fn curve(run: &RunDir, kind: CellKind, costs: &Costs) -> Result<Vec<CurvePoint>> {
    let stage = match kind {
        CellKind::Calm => Stage::Lm,
        CellKind::Baseline => Stage::Baseline,
    };
    let rows: Vec<MetricRow> = read_jsonl(&run.metrics())?;
    let points: Vec<EvalPoint> = read_jsonl(&run.eval_history())?;
    let earlier: f64 = stage_seconds(&rows)
        .iter()
        .filter(|(s, _)| *s == Stage::Autoencoder && kind == CellKind::Calm)
        .map(|(_, seconds)| seconds)
        .sum();
    let seconds_at = |step: u64| {
        rows.iter()
            .filter(|row| row.stage == stage && row.step <= step)
            .map(|row| row.seconds)
            .fold(0.0, f64::max)
    };
    Ok(points
        .iter()
        .filter(|point| point.stage == stage)
        .filter_map(|point| {
            Some(CurvePoint {
                tokens: point.tokens,
                train_flops: costs.train_flops(point.tokens),
                train_seconds: earlier + seconds_at(point.step),
                brier_1: point.brier?[0],
                brier_1_se: point.brier_se?[0],
                window_brier_1: point.window_brier_1.clone()?,
            })
        })
        .collect())
}
