//! One cell: train it, go on with it or load it, score it, time it.

use std::path::Path;
use std::sync::atomic::Ordering;

use burn::tensor::Device;
use calm_baseline::TokenModel;
use calm_data::Part;
use calm_eval::{
    BrierReport, EvalConfig, TokenReport, TokenScoring, evaluate_rollout, evaluate_tokens, spread,
};
use calm_lm::{CalmModel, CalmRollout, LocalModel, NamedDevice};
use calm_nn::Cost;
use calm_records::{EvalPoint, MetricRow, RunDir, Stage, Summary, WindowBrier, read_jsonl};
use calm_train::{
    Options as TrainOptions, RunEnd, Stages, baseline_checkpoint, language_model_checkpoint, preset,
};

use crate::grid::Grid;
use crate::record::{CellRecord, CurvePoint, MadeWith};
use crate::setting::{Options, Text};
use crate::spec::{Cell, CellKind};
use crate::{Error, Event, Result};
use crate::{memory, speed};

/// How cells are judged: protocol and text.
pub(crate) struct Judge<'a> {
    pub grid: &'a Grid,
    /// How points of the learning curves are scored.
    pub progress: EvalConfig,
    pub text: &'a Text,
}

/// File of a cell's record in its directory.
pub(crate) const RECORD: &str = "cell.json";

/// The record of a cell: read where it is finished, else made. `None` where it was interrupted.
pub(crate) fn run_cell(
    cell: &Cell,
    judge: &Judge<'_>,
    options: &Options<'_>,
    observe: &mut dyn FnMut(Event<'_>),
) -> Result<Option<CellRecord>> {
    let directory = &options.directory(cell);
    // A cell's autoencoder is the same wherever the comparison lies and however it is called.
    let mut experiment = cell.experiment.clone();
    if Path::new(&experiment.autoencoder_from).starts_with(&options.out) {
        experiment.autoencoder_from.clear();
    }
    let made_with = MadeWith {
        experiment: preset::to_toml(&experiment)?,
        protocol: judge.grid.protocol,
        speed: judge.grid.speed.clone(),
        device: options.device_name.to_owned(),
        text: judge.text.store.key().to_owned(),
        host: options.info.host.clone(),
        loaded: cell.loaded.clone(),
    };
    let path = directory.join(RECORD);
    if let Some(record) = CellRecord::load(&path)? {
        if !record.made_with.fits(&made_with) {
            let path = directory.to_owned();
            return Err(Error::OtherCell { path });
        }
        return Ok(Some(record));
    }
    if cell.loaded.is_some() {
        // A run that was begun there would seem to be the one that the record is about.
        if RunDir::open(directory).is_ok() {
            let path = directory.to_owned();
            return Err(Error::OtherCell { path });
        }
        std::fs::create_dir_all(directory).map_err(Error::io(directory))?;
    } else {
        memory::forget_peak();
        if !train(cell, directory, options, observe)? {
            return Ok(None);
        }
    }
    let record = measure(cell, judge, made_with, options, observe)?;
    if let Some(record) = &record {
        record.save(&path)?;
    }
    Ok(record)
}

/// Trains the cell in its run directory; false where it was interrupted.
pub(crate) fn train(
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
        // Taken already, wherever the comparison lay then.
        asked.autoencoder_from.clone_from(&found.autoencoder_from);
        if asked != found {
            let path = directory.to_owned();
            return Err(Error::OtherCell { path });
        }
        if run.summary().is_file() {
            return Ok(true);
        }
    }
    let device = NamedDevice {
        name: options.device_name.to_owned(),
        device: options.device.clone(),
    };
    let train_options = TrainOptions {
        out: directory.to_owned(),
        stages: match cell.kind {
            CellKind::Calm | CellKind::Local => Stages::All,
            CellKind::Baseline => Stages::Baseline,
        },
        device: &device,
        others: &[],
        device_timeout: calm_train::DEVICE_TIMEOUT,
        all_reduce: false,
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

/// A trained model without autodiff.
#[allow(clippy::large_enum_variant)] // There is one of these at a time.
enum Model {
    Calm(CalmModel),
    Local(LocalModel),
    Token(TokenModel),
}

impl Model {
    fn load(kind: CellKind, run: &RunDir, device: &Device) -> Result<Self> {
        Ok(match kind {
            CellKind::Calm => Self::Calm(language_model_checkpoint(run)?.checkpoint.load(device)?),
            CellKind::Local => Self::Local(
                language_model_checkpoint(run)?
                    .checkpoint
                    .load_local(device)?,
            ),
            CellKind::Baseline => Self::Token(baseline_checkpoint(run)?.checkpoint.load(device)?),
        })
    }

    /// Brier scores, and every window's cross-entropy where the model has one; `None` where it was
    /// interrupted.
    fn score(
        &self,
        eval: &EvalConfig,
        window: usize,
        (text, part): (&Text, Part),
        options: &Options<'_>,
        observe: &mut dyn FnMut(Event<'_>),
    ) -> Result<Option<(BrierReport, Option<Vec<f64>>)>> {
        let (counts, tokens, device) = (&text.unigram, text.store.part(part), options.device);
        let windows = spread(tokens, window, eval.windows)?;
        let of = windows.len();
        let on_window = &mut |done| {
            observe(Event::Train(calm_train::Event::Scoring { done, of }));
            !options.interrupt.load(Ordering::SeqCst)
        };
        let scoring = TokenScoring {
            tokens,
            window,
            chunk_size: 1,
            everywhere: false,
            unigram_counts: counts,
            config: eval,
        };
        fn with_probabilities(
            report: Option<TokenReport>,
        ) -> Option<(BrierReport, Option<Vec<f64>>)> {
            report.map(|report| (report.aligned, Some(report.window_cross_entropy)))
        }
        Ok(match self {
            Self::Calm(model) => {
                let rollout = &mut CalmRollout::new(model, device).every(eval.every);
                let report = evaluate_rollout(rollout, &windows, counts, eval, on_window)?;
                report.map(|report| (report, None))
            }
            Self::Local(model) => {
                with_probabilities(evaluate_tokens(model, device, &scoring, on_window)?)
            }
            Self::Token(model) => {
                with_probabilities(evaluate_tokens(model, device, &scoring, on_window)?)
            }
        })
    }
}

/// Scores and times a trained cell; `None` where it was interrupted.
fn measure(
    cell: &Cell,
    judge: &Judge<'_>,
    made_with: MadeWith,
    options: &Options<'_>,
    observe: &mut dyn FnMut(Event<'_>),
) -> Result<Option<CellRecord>> {
    let run = options.run(cell)?;
    // As resolved: the vocabulary is the tokenizer's.
    let experiment = preset::load(&run.config())?;
    let Judge {
        grid,
        progress,
        text,
    } = judge;
    let (device, window, protocol) = (options.device, experiment.model.window, grid.protocol);
    let model = Model::load(cell.kind, &run, device)?;
    let (draws, costs) = match cell.kind {
        // Draws of a model with probabilities are prefixes.
        CellKind::Local => (protocol.token_draws, Costs::calm(&experiment)),
        CellKind::Calm => (protocol.draws, Costs::calm(&experiment)),
        CellKind::Baseline => (protocol.token_draws, Costs::token(&experiment)),
    };
    let eval = protocol.eval(draws);
    // Reported on one part, compared along the way on the other.
    let reported = (*text, Part::Test);
    let Some((report, nats)) = model.score(&eval, window, reported, options, observe)? else {
        return Ok(None);
    };
    let rows: Vec<MetricRow> = read_jsonl(&run.metrics())?;
    let train_seconds = stage_seconds(&rows, cell.kind).iter().map(|(_, s)| s).sum();
    let validation = text.store.validation();
    // Other windows or positions can't be compared with those of the other cells.
    let mut curve = if experiment.progress_eval.every == progress.every {
        let windows = spread(validation, window, progress.windows)?.len();
        curve(&run, &rows, cell.kind, &costs, windows)?
    } else {
        Vec::new()
    };
    // The end belongs to the frontier of every model.
    if curve.last().is_none_or(|last| last.tokens != costs.tokens) {
        let compared = (*text, Part::Validation);
        let Some((report, nats)) = model.score(progress, window, compared, options, observe)?
        else {
            return Ok(None);
        };
        curve.push(CurvePoint {
            tokens: costs.tokens,
            train_flops: costs.train_flops(costs.tokens),
            train_seconds,
            brier_1: report.estimate.brier[0],
            brier_1_se: report.estimate.brier_se[0],
            window_brier: WindowBrier::All(report.window_brier),
            window_cross_entropy: nats,
        });
    }
    memory::forget_peak();
    let speed = match &model {
        Model::Calm(model) => {
            speed::calm(model, &experiment.model, validation, &grid.speed, device)
        }
        Model::Local(model) => speed::token(model, window, validation, &grid.speed, device),
        Model::Token(model) => speed::token(model, window, validation, &grid.speed, device),
    };
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
        train_seconds,
        peak_rss_bytes: summary.peak_rss_bytes,
        decoding_rss_bytes: calm_train::peak_rss_bytes(),
        infer_flops_per_token: costs.infer,
        infer_flops_per_token_without_autoencoder: costs.infer_without_autoencoder,
        cache_bytes_per_token: costs.cache,
        windows: report.window_brier.len(),
        scores: (&report).into(),
        cross_entropy: nats
            .as_ref()
            .map(|nats| nats.iter().sum::<f64>() / nats.len() as f64),
        window_cross_entropy: nats,
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
        let autoencoder_tokens = match config.is_local() {
            true => 0,
            false => experiment.autoencoder.total_tokens(window),
        };
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

/// Seconds in steps of each stage of the model, from its last row: a run may hold the other kind
/// of model too.
fn stage_seconds(rows: &[MetricRow], kind: CellKind) -> Vec<(Stage, f64)> {
    let stages: &[Stage] = match kind {
        CellKind::Calm => &[Stage::Autoencoder, Stage::Lm],
        CellKind::Local => &[Stage::Lm],
        CellKind::Baseline => &[Stage::Baseline],
    };
    stages
        .iter()
        .filter_map(|&stage| {
            let last = rows.iter().rev().find(|row| row.stage == stage)?;
            Some((stage, last.seconds))
        })
        .collect()
}

/// Quality on the way, from the run's evaluations on `windows` windows.
fn curve(
    run: &RunDir,
    rows: &[MetricRow],
    kind: CellKind,
    costs: &Costs,
    windows: usize,
) -> Result<Vec<CurvePoint>> {
    let stage = kind.stage();
    let points: Vec<EvalPoint> = read_jsonl(&run.eval_history())?;
    let earlier: f64 = stage_seconds(rows, kind)
        .iter()
        .filter(|(s, _)| *s == Stage::Autoencoder)
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
                window_brier: point.window_brier.clone()?,
                window_cross_entropy: point.window_cross_entropy.clone(),
            })
        })
        .filter(|point| point.window_brier.windows() == windows)
        .collect())
}
