//! A whole run: data, stages, final evaluation, records. Also how it is resumed.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use burn::tensor::Device;
use calm_data::{CacheDir, Tokenizer, unigram};
use calm_kernels::can_checkpoint;
use calm_lm::NamedDevice;
use calm_records::{JsonlWriter, RunDir, RunInfo, Stage, write_atomic};
use calm_report::write_report;

use crate::config::{Experiment, Stages};
use crate::event::{Event, Observer};
use crate::finish::finish;
use crate::found::{Found, cut_records};
use crate::initial::Initial;
use crate::lock::RunLock;
use crate::parallel::{Devices, check_parts};
use crate::pretrained::Pretrained;
use crate::stages::{train_baseline, train_calm, train_local};
use crate::step_loop::Run;
use crate::text::Text;
use crate::{Error, Precision, Result, data, machine, preset};

/// What a remote device has for a step where nobody says.
pub const DEVICE_TIMEOUT: Duration = Duration::from_secs(600);

/// What to run, beside the experiment.
#[derive(Debug)]
pub struct Options<'a> {
    /// The run directory.
    pub out: PathBuf,
    /// Which stages.
    pub stages: Stages,
    /// The device.
    pub device: &'a NamedDevice,
    /// Others that take parts of each step: `accumulate` is at least the number of all. Model, optimizer
    /// and evaluation are on `device`.
    pub others: &'a [NamedDevice],
    /// How long a remote device may take for a step.
    pub device_timeout: Duration,
    /// Whether gradients are summed by all devices at once instead of on the first: CUDA devices alone can,
    /// in Burn 0.22.1.
    pub all_reduce: bool,
    /// Where corpora and token streams are kept.
    pub cache: &'a CacheDir,
    /// Set to true to finish the step, save and stop.
    pub interrupt: &'a AtomicBool,
}

impl Options<'_> {
    /// The device, and the others.
    fn all(&self) -> impl Iterator<Item = &NamedDevice> {
        std::iter::once(self.device).chain(self.others)
    }

    /// Devices.
    fn count(&self) -> usize {
        1 + self.others.len()
    }

    /// The devices' strings, for the records.
    fn names(&self) -> String {
        let all: Vec<&str> = self.all().map(|named| named.name.as_str()).collect();
        all.join(",")
    }
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
    let initial = Initial::open(&experiment, observe)?;
    if let Some(initial) = &initial {
        initial.check_stages(&experiment, options.stages)?;
    } else if experiment.model.is_local() {
        experiment.check_local(options.stages)?;
    } else if options.stages == Stages::Lm {
        return Err(Error::NoAutoencoder {
            run: options.out.clone(),
        });
    }
    check_device(&experiment, options)?;
    let makes_autoencoder =
        initial.is_none() && !experiment.model.is_local() && experiment.autoencoder_from.is_empty();
    check_parts(
        &experiment,
        options.stages,
        makes_autoencoder,
        options.count(),
    )?;
    // Before the directory is made, so that bad input leaves nothing behind.
    if RunDir::open(&options.out).is_ok() {
        return Err(calm_records::Error::RunExists {
            root: options.out.clone(),
        }
        .into());
    }
    let pretrained = match options.stages {
        Stages::Baseline => None,
        _ => Pretrained::open(&experiment)?,
    };
    let (vocab_size, window) = (experiment.model.vocab_size, experiment.model.window);
    experiment.data.stream.check(window)?;
    data::fit_split(&mut experiment.data, window, options.cache, observe)?;
    let tokenizer = match (&initial, &pretrained) {
        (Some(initial), _) => initial.tokenizer(&experiment)?,
        (None, Some(pretrained)) if experiment.data.tokenizer.is_empty() => {
            pretrained.tokenizer()?.clone()
        }
        _ => data::tokenizer(&experiment.data, vocab_size, options.cache, observe)?,
    };
    // Little text gives fewer tokens than asked for; the resolved configuration says how many.
    experiment.model.vocab_size = tokenizer.vocab_size();
    let text = Text::open(&experiment.data, &tokenizer, options.cache, observe)?;
    check_text(&experiment, &text, &tokenizer)?;
    if let Some(pretrained) = &pretrained {
        pretrained.check_text(&experiment, &text)?;
    }

    let directory = RunDir::create(&options.out)?;
    let lock = RunLock::take(&directory)?;
    // Who held the lock until now may have begun the run.
    RunDir::create(&options.out)?;
    tokenizer.save(&directory.tokenizer())?;
    info.device = options.names();
    info.seed = experiment.seed;
    info.precision = experiment
        .precision
        .on(&options.device.device)
        .name()
        .to_owned();
    info.save(&directory.run())?;
    if let Some(pretrained) = &pretrained {
        pretrained.place(&mut experiment, &directory, &text, &options.device.device)?;
    }
    if let Some(initial) = &initial {
        initial.place(
            &experiment,
            &directory,
            &tokenizer,
            &text,
            &options.device.device,
        )?;
    }
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
        text,
        started,
        _lock: lock,
    };
    go_on(&prepared, options, observe)
}

fn check_device(experiment: &Experiment, options: &Options<'_>) -> Result<()> {
    // A processor without them trains in f32 and says so in run.json; a device that one chose is
    // chosen for what it has.
    let lacks = experiment.precision.on(&options.device.device) != experiment.precision;
    if lacks && options.device.device != Device::flex() {
        return Err(Error::PrecisionNotOnDevice {
            precision: experiment.precision.name(),
            device: options.device.name.clone(),
        });
    }
    let precision = experiment.precision.on(&options.device.device);
    for other in options.others {
        // All parts of a step are rounded alike.
        if experiment.precision.on(&other.device) != precision {
            return Err(Error::PrecisionNotOnDevice {
                precision: precision.name(),
                device: other.name.clone(),
            });
        }
    }
    let is_cuda = |named: &&NamedDevice| named.name.starts_with("cuda");
    if options.all_reduce
        && let Some(other) = options.all().find(|named| !is_cuda(named))
    {
        return Err(Error::NoAllReduce {
            device: other.name.clone(),
        });
    }
    if experiment.gradient_checkpointing {
        for named in options.all() {
            if !can_checkpoint(&named.device) {
                return Err(Error::CheckpointingNotOnDevice {
                    device: named.name.clone(),
                });
            }
        }
    }
    Ok(())
}

/// Goes on with the run in `options.out`, from its newest checkpoint, with its own resolved
/// configuration.
///
/// # Errors
/// A directory without a run, a damaged checkpoint, another tokenizer than the run's.
pub fn resume(options: &Options<'_>, observe: Observer<'_>) -> Result<RunEnd> {
    let started = Instant::now();
    let directory = RunDir::open(&options.out)?;
    let lock = RunLock::take(&directory)?;
    let experiment = preset::load(&directory.config())?;
    check_device(&experiment, options)?;
    let info = RunInfo::load(&directory.run())?;
    // That of a model which was trained elsewhere may have fewer tokens than the model.
    let tokenizer = Tokenizer::load(&directory.tokenizer())?;
    let tokenizer = tokenizer.for_vocabulary(experiment.model.vocab_size)?;
    let text = Text::open(&experiment.data, &tokenizer, options.cache, observe)?;
    let prepared = Prepared {
        experiment,
        info,
        directory,
        tokenizer,
        text,
        started,
        _lock: lock,
    };
    go_on(&prepared, options, observe)
}

/// Text enough to train and to evaluate on, before anything is written.
fn check_text(experiment: &Experiment, text: &Text, tokenizer: &Tokenizer) -> Result<()> {
    let (window, k) = (experiment.model.window, experiment.model.chunk_size);
    text.check(window, k)?;
    calm_eval::spread(
        text.store.validation(),
        window,
        experiment.progress_eval.windows,
    )?;
    calm_eval::spread(text.store.test(), window, experiment.eval.windows)?;
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
    text: Text,
    started: Instant,
    _lock: RunLock,
}

/// The record of a run with what it goes on with, which may be another device or another
/// processor. Of a trained run the precision stays.
fn moved(
    mut info: RunInfo,
    is_trained: bool,
    precision: Precision,
    options: &Options<'_>,
) -> RunInfo {
    if info.device != options.names() {
        info.device = options.names();
        info.device_identity = format!("{:?}", options.device.device);
    }
    if !is_trained && !info.precision.ends_with(precision.name()) {
        info.precision = format!("{}, then {}", info.precision, precision.name());
    }
    info
}

fn go_on(prepared: &Prepared, options: &Options<'_>, observe: Observer<'_>) -> Result<RunEnd> {
    let Prepared {
        experiment,
        info,
        directory,
        tokenizer,
        text,
        started,
        _lock,
    } = prepared;
    let found = Found::look(directory, tokenizer, observe)?;
    found.check(options.stages, experiment, directory, text)?;
    if !found.is_trained(options.stages, experiment) {
        let autoencoder = found.autoencoder_left(experiment);
        check_parts(experiment, options.stages, autoencoder, options.count())?;
    }
    cut_records(directory, &found)?;
    let precision = experiment.precision.on(&options.device.device);
    let is_trained = found.is_trained(options.stages, experiment);
    let record = moved(info.clone(), is_trained, precision, options);
    if record != *info {
        record.save(&directory.run())?;
    }
    if !is_trained && precision != experiment.precision {
        observe(Event::PrecisionLacking(experiment.precision));
    }
    let counts = unigram(text.store.train(), experiment.model.vocab_size);
    let device = &options.device.device;
    let mut run = Run {
        experiment,
        directory,
        tokenizer,
        text,
        unigram: &counts,
        device,
        devices: Devices::new(
            options.device,
            options.others,
            options.device_timeout,
            options.all_reduce,
        ),
        // Of several devices together nobody measured it.
        peak_flops: match options.others {
            [] => machine::matmul_peak(device, precision),
            _ => None,
        },
        metrics: JsonlWriter::open_append(&directory.metrics())?,
        history: JsonlWriter::open_append(&directory.eval_history())?,
        interrupt: options.interrupt,
        started: *started,
        earlier_seconds: found
            .states()
            .map(|state| state.wall_seconds)
            .fold(0.0, f64::max),
    };
    let trained = match options.stages {
        Stages::Baseline => train_baseline(&found, &mut run, observe)?,
        Stages::All | Stages::Lm if experiment.model.is_local() => {
            train_local(&found, &mut run, observe)?
        }
        stages => train_calm(stages == Stages::Autoencoder, &found, &mut run, observe)?,
    };
    let Some(trained) = trained else {
        return Ok(RunEnd::Interrupted);
    };
    let is_baseline = |stage: Stage| stage == Stage::Baseline;
    let other_tokens = found
        .states()
        .filter(|s| is_baseline(s.stage) != (options.stages == Stages::Baseline))
        .map(|state| state.tokens)
        .sum();
    let Some(summary) = finish(trained, other_tokens, &record, &run, observe)? else {
        return Ok(RunEnd::Interrupted);
    };
    summary.save(&directory.summary())?;
    write_report(directory)?;
    observe(Event::Finished(&summary));
    Ok(RunEnd::Complete)
}
