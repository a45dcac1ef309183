//! A whole run: data, stages, final evaluation, records. Also how it is resumed.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use burn::tensor::Device;
use calm_data::{CacheDir, TokenStore, Tokenizer, unigram};
use calm_lm::{Checkpoint, LanguageModel, check_tokenizer};
use calm_report::{
    JsonlWriter, MetricRow, RunDir, RunInfo, Stage, truncate_after, write_atomic, write_report,
};

use crate::config::Experiment;
use crate::event::{Event, Observer};
use crate::finish::finish;
use crate::state::{STATE, TrainState, latest};
use crate::step_loop::{Run, Start, run_stage};
use crate::tasks::{AutoencoderTask, Judge, LanguageModelTask};
use crate::{Error, Result, data, machine, preset};

/// Which stages to train.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stages {
    /// The autoencoder, then the language model.
    All,
    /// The autoencoder alone.
    Autoencoder,
    /// The language model on the autoencoder that the run directory holds.
    Lm,
}

/// What to run, beside the experiment.
#[derive(Debug)]
pub struct Options<'a> {
    /// The run directory.
    pub out: PathBuf,
    /// Which stages.
    pub stages: Stages,
    /// The device, without autodiff.
    pub device: &'a Device,
    /// Its string, for the records.
    pub device_name: &'a str,
    /// Where corpora and token streams are kept.
    pub cache: &'a CacheDir,
    /// Set to true to finish the step, save and stop.
    pub interrupt: &'a AtomicBool,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunEnd {
    /// Everything asked for was done.
    Complete,
    /// It was interrupted and has saved its state.
    Interrupted,
}

/// Starts a new run.
///
/// # Errors
/// A directory that holds a run already, and everything that can go wrong with data, model and
/// files. What was written before stays usable with [`resume`].
pub fn train(
    mut experiment: Experiment,
    mut info: RunInfo,
    options: &Options<'_>,
    observe: Observer<'_>,
) -> Result<RunEnd> {
    let started = Instant::now();
    if options.stages == Stages::Lm {
        return Err(Error::NoAutoencoder {
            run: options.out.clone(),
        });
    }
    // Before the directory is made, so that bad input leaves nothing behind.
    if RunDir::open(&options.out).is_ok() {
        return Err(calm_report::Error::RunExists {
            root: options.out.clone(),
        }
        .into());
    }
    let vocab_size = experiment.model.vocab_size;
    let tokenizer = data::tokenizer(&experiment.data, vocab_size, options.cache, observe)?;
    // Little text gives fewer tokens than asked for; the resolved configuration says how many.
    experiment.model.vocab_size = tokenizer.vocab_size();
    let store = data::token_store(&experiment.data, &tokenizer, options.cache, observe)?;
    check_text(&experiment, &store, &tokenizer)?;

    let directory = RunDir::create(&options.out)?;
    tokenizer.save(&directory.tokenizer())?;
    info.seed = experiment.seed;
    info.save(&directory.run())?;
    // Last, because a directory with a configuration is a run that can be resumed.
    write_atomic(
        &directory.config(),
        preset::to_toml(&experiment)?.as_bytes(),
    )?;
    let prepared = Prepared {
        experiment,
        info,
        directory,
        tokenizer,
        store,
        started,
    };
    go_on(&prepared, options, observe)
}

/// Goes on with the run in `options.out`, from its newest checkpoint, with its own resolved
/// configuration.
///
/// # Errors
/// A directory without a run, a damaged checkpoint, another tokenizer than the run's.
pub fn resume(options: &Options<'_>, observe: Observer<'_>) -> Result<RunEnd> {
    let started = Instant::now();
    let directory = RunDir::open(&options.out)?;
    let experiment = preset::load(&directory.config())?;
    let mut info = RunInfo::load(&directory.run())?;
    if info.device != options.device_name {
        // A run may move to another device; its records then name the one it ends on.
        info.device = options.device_name.to_owned();
        info.device_identity = format!("{:?}", options.device);
        info.save(&directory.run())?;
    }
    let tokenizer = Tokenizer::load(&directory.tokenizer())?;
    let store = data::token_store(&experiment.data, &tokenizer, options.cache, observe)?;
    let prepared = Prepared {
        experiment,
        info,
        directory,
        tokenizer,
        store,
        started,
    };
    go_on(&prepared, options, observe)
}

/// Text enough to train and to evaluate on, before anything is written.
fn check_text(experiment: &Experiment, store: &TokenStore, tokenizer: &Tokenizer) -> Result<()> {
    let (window, k) = (experiment.model.window, experiment.model.chunk_size);
    calm_data::Windows::new(store.train(), window, k)?;
    calm_eval::spread(store.heldout(), window, experiment.eval.windows)?;
    for prompt in &experiment.samples.prompts {
        let tokens = tokenizer.encode(prompt)?.len();
        if tokens > window {
            let prompt = prompt.clone();
            return Err(Error::PromptTooLong {
                prompt,
                tokens,
                window,
            });
        }
    }
    Ok(())
}

/// A run whose directory and text are ready.
struct Prepared {
    experiment: Experiment,
    info: RunInfo,
    directory: RunDir,
    tokenizer: Tokenizer,
    store: TokenStore,
    started: Instant,
}

fn go_on(prepared: &Prepared, options: &Options<'_>, observe: Observer<'_>) -> Result<RunEnd> {
    let Prepared {
        experiment,
        info,
        directory,
        tokenizer,
        store,
        started,
    } = prepared;
    let device = options.device;
    let found = Found::look(directory, tokenizer)?;
    if options.stages == Stages::Lm && !found.autoencoder_complete(experiment) {
        return Err(Error::NoAutoencoder {
            run: directory.root.clone(),
        });
    }
    if options.stages == Stages::Autoencoder && found.lm.is_some() {
        let run = directory.root.clone();
        return Err(Error::HasLanguageModel { run });
    }
    if let Some(state) = found.newest()
        && state.text != store.key()
    {
        return Err(Error::TextChanged {
            run: directory.root.clone(),
            expected: state.text.clone(),
            got: store.key().to_owned(),
        });
    }
    cut_records(directory, &found)?;
    let counts = unigram(store.train(), experiment.model.vocab_size);
    let judge = || Judge {
        heldout: store.heldout(),
        unigram: &counts,
        config: &experiment.progress_eval,
        device,
    };
    let mut run = Run {
        experiment,
        directory,
        tokenizer,
        store,
        device,
        peak_flops: machine::matmul_peak(device),
        metrics: JsonlWriter::open_append(&directory.metrics())?,
        history: JsonlWriter::open_append(&directory.eval_history())?,
        interrupt: options.interrupt,
        started: *started,
        earlier_seconds: found.newest().map_or(0.0, |state| state.wall_seconds),
    };

    let task = AutoencoderTask {
        model: &experiment.model,
        judge: judge(),
    };
    let start = match &found.autoencoder {
        Some((state, checkpoint)) => Start {
            model: checkpoint.load_autoencoder(device)?,
            state: state.clone(),
            resumed: Some(checkpoint),
        },
        None => Start {
            model: experiment.model.init(experiment.seed, device).autoencoder,
            state: TrainState::start(Stage::Autoencoder, experiment.seed, store.key()),
            resumed: None,
        },
    };
    let (config, lr) = (&experiment.autoencoder, experiment.optim.autoencoder_lr);
    let Some((autoencoder, mut newest)) = run_stage(&task, config, lr, start, &mut run, observe)?
    else {
        return Ok(RunEnd::Interrupted);
    };

    let mut trained: Option<LanguageModel> = None;
    if options.stages != Stages::Autoencoder {
        let task = LanguageModelTask {
            model: &experiment.model,
            autoencoder: &autoencoder,
            judge: judge(),
        };
        let start = match &found.lm {
            Some((state, checkpoint)) => Start {
                model: checkpoint.load_language_model(device)?,
                state: state.clone(),
                resumed: Some(checkpoint),
            },
            None => Start {
                model: experiment
                    .model
                    .init_language_model(experiment.seed, device),
                state: TrainState {
                    earlier_tokens: newest.tokens,
                    earlier_flops: newest.flops,
                    ..TrainState::start(Stage::Lm, experiment.seed ^ 1, store.key())
                },
                resumed: None,
            },
        };
        let (config, lr) = (&experiment.lm, experiment.optim.lr);
        let Some((model, state)) = run_stage(&task, config, lr, start, &mut run, observe)? else {
            return Ok(RunEnd::Interrupted);
        };
        (trained, newest) = (Some(model), state);
    }

    let summary = finish(autoencoder, trained, &newest, &counts, info, &run, observe)?;
    let Some(summary) = summary else {
        return Ok(RunEnd::Interrupted);
    };
    summary.save(&directory.summary())?;
    write_report(directory)?;
    observe(Event::Finished(&summary));
    Ok(RunEnd::Complete)
}

/// The newest checkpoints in a run directory.
struct Found {
    autoencoder: Option<(TrainState, Checkpoint)>,
    lm: Option<(TrainState, Checkpoint)>,
}

impl Found {
    fn look(directory: &RunDir, tokenizer: &Tokenizer) -> Result<Self> {
        let find = |stage| -> Result<Option<(TrainState, Checkpoint)>> {
            let Some((path, checkpoint)) = latest(directory, stage)? else {
                return Ok(None);
            };
            check_tokenizer(&path.join("tokenizer.json"), tokenizer.fingerprint())?;
            let state = checkpoint.read_json(STATE)?;
            Ok(Some((state, checkpoint)))
        };
        Ok(Self {
            autoencoder: find(Stage::Autoencoder)?,
            lm: find(Stage::Lm)?,
        })
    }

    fn autoencoder_complete(&self, experiment: &Experiment) -> bool {
        let steps = experiment.autoencoder.steps;
        self.autoencoder
            .as_ref()
            .is_some_and(|(state, _)| state.step >= steps)
    }

    fn newest(&self) -> Option<&TrainState> {
        self.lm
            .as_ref()
            .or(self.autoencoder.as_ref())
            .map(|(state, _)| state)
    }
}

/// Cuts the records back to the checkpoint that the run goes on from.
fn cut_records(directory: &RunDir, found: &Found) -> Result<()> {
    let newest = found.newest().map(|state| (state.stage, state.step));
    let keep = |stage: Stage, step: u64| newest.is_some_and(|newest| (stage, step) <= newest);
    truncate_after(&directory.metrics(), |row: &MetricRow| {
        keep(row.stage, row.step)
    })?;
    truncate_after(&directory.eval_history(), |row: &calm_report::EvalPoint| {
        keep(row.stage, row.step)
    })?;
    Ok(())
}
