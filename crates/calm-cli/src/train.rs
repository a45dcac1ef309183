//! `calm train`.

use std::path::PathBuf;
use std::time::Duration;

use calm_data::CacheDir;
use calm_lm::{Kind, checkpoint_kind};
use calm_records::{Host, RunDir, RunInfo, Stage, utc_now};
use calm_report::format;
use calm_train::{DEVICE_TIMEOUT, Event, Options, RunEnd, Stages, preset, resume, train};
use clap::ValueEnum;

use crate::devices::DevicesArgs;
use crate::error::{CliError, Result};
use crate::interrupt;
use crate::output::print;
use crate::progress::Progress;
use crate::watchdog::Watchdog;

#[derive(clap::Args)]
pub struct Args {
    /// The preset.
    #[arg(
        long,
        help = format!(
            "A preset ({}) or a complete .toml file [default: nano]",
            preset::PRESETS.map(|(name, _)| name).join(", ")
        )
    )]
    preset: Option<String>,
    #[command(flatten)]
    devices: DevicesArgs,
    /// Seconds that a remote device may take for a step before the run ends.
    #[arg(
        long,
        default_value_t = DEVICE_TIMEOUT.as_secs(),
        value_parser = clap::value_parser!(u64).range(1..),
        value_name = "SECONDS"
    )]
    device_timeout: u64,
    /// Sum gradients by an all-reduce among the devices instead of on the first: for CUDA devices of this
    /// machine. Nobody has run it yet.
    #[arg(long, requires = "devices")]
    all_reduce: bool,
    /// Which stages to train [default: all; of a token model's preset: baseline].
    #[arg(long, value_enum)]
    stage: Option<StageArg>,
    /// Named corpora or paths, instead of the preset's.
    #[arg(long, num_args = 1.., value_name = "NAME|PATH")]
    corpus: Vec<String>,
    /// Take the autoencoder of a run (or of a checkpoint of its stage) instead of training one; same
    /// text, split, tokenizer and sizes.
    #[arg(long, value_name = "DIR")]
    autoencoder: Option<String>,
    /// Train a model further, on this text: of a checkpoint directory, such as an import, or the newest
    /// of a run (its language model; where it has none its token model). It brings its sizes and its tokenizer, and keeps its autoencoder; the optimizer starts fresh.
    #[arg(long, value_name = "DIR", conflicts_with = "autoencoder")]
    init: Option<String>,
    /// The run directory [default: runs/NAME with the name of the preset].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on with the run in the directory, exactly where its newest valid checkpoint stands; what
    /// else is given must agree with the run.
    #[arg(long)]
    resume: bool,
    /// Override a value of the configuration, for example optim.lr=3e-4.
    #[arg(long, num_args = 1.., value_name = "KEY=VALUE")]
    set: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum StageArg {
    /// The autoencoder, then the language model.
    All,
    /// The chunk autoencoder alone.
    Autoencoder,
    /// The language model on the run's autoencoder (with --resume), or of the model that --init names.
    Lm,
    /// The token baseline; with --resume beside the CALM that the run holds.
    Baseline,
}

pub fn run(args: Args) -> Result<()> {
    let mut set = args.set.clone();
    if !args.corpus.is_empty() {
        let list = serde_json::to_string(&args.corpus).expect("strings have a JSON form");
        set.push(format!("data.corpus={list}"));
    }
    if let Some(from) = &args.autoencoder {
        let from = serde_json::Value::from(from.as_str());
        set.push(format!("autoencoder_from={from}"));
    }
    if let (Some(init), true) = (&args.init, args.resume) {
        set.push(format!(
            "init_from={}",
            serde_json::Value::from(init.as_str())
        ));
    }
    let name = args.preset.as_deref().unwrap_or("nano");
    let out_of = |preset: &str| PathBuf::from("runs").join(preset);
    let (experiment, out) = if args.resume {
        // The run's own configuration counts, and what is given need not suit any preset.
        let out = match args.out {
            Some(out) => out,
            None => out_of(&preset::resolve(name, &[])?.preset),
        };
        let config = RunDir::open(&out)?.config();
        preset::check_resume(&config, args.preset.as_deref(), &set)?;
        (preset::load(&config)?, out)
    } else {
        let experiment = preset::resolve_from(name, args.init.as_deref(), &set)?;
        let out = args.out.unwrap_or_else(|| out_of(&experiment.preset));
        (experiment, out)
    };
    let default = match &args.init {
        Some(init) if trains_baseline(init) => StageArg::Baseline,
        Some(_) => StageArg::Lm,
        None if preset::is_token_model(&experiment.preset) => StageArg::Baseline,
        None => StageArg::All,
    };
    let stages = match args.stage.unwrap_or(default) {
        StageArg::All => Stages::All,
        StageArg::Autoencoder => Stages::Autoencoder,
        StageArg::Lm => Stages::Lm,
        StageArg::Baseline => Stages::Baseline,
    };
    let devices = args.devices.open()?;
    let (device, others) = devices.split_first().expect("one at least");
    let options = Options {
        out: out.clone(),
        stages,
        device,
        others,
        device_timeout: Duration::from_secs(args.device_timeout),
        all_reduce: args.all_reduce,
        cache: &CacheDir::default_location()?,
        interrupt: interrupt::install(),
    };
    let mut progress = Progress::new();
    let mut summary = None;
    let watchdog = Watchdog::start(&devices, options.device_timeout);
    let mut observe = |event: Event<'_>| {
        watchdog.news();
        match &event {
            Event::StageStarted { .. } => interrupt::save_from_now_on(),
            Event::Finished(finished) => summary = Some((*finished).clone()),
            _ => {}
        }
        progress.show(event);
    };
    let end = if args.resume {
        resume(&options, &mut observe)
    } else {
        train(
            experiment,
            run_info(&device.name, &device.device),
            &options,
            &mut observe,
        )
    };
    progress.finish_bar();
    if end? == RunEnd::Interrupted {
        let mut again = format!("cargo xtask train --resume --out {}", out.display());
        match args.devices.devices.as_slice() {
            [] if args.devices.device == "flex" => {}
            [] => again.push_str(&format!(" --device {}", args.devices.device)),
            several => again.push_str(&format!(" --devices {}", several.join(","))),
        }
        if args.all_reduce {
            again.push_str(" --all-reduce");
        }
        if args.device_timeout != DEVICE_TIMEOUT.as_secs() {
            again.push_str(&format!(" --device-timeout {}", args.device_timeout));
        }
        match stages {
            Stages::Autoencoder => again.push_str(" --stage autoencoder"),
            Stages::Baseline => again.push_str(" --stage baseline"),
            Stages::All | Stages::Lm => {}
        }
        return Err(CliError::Interrupted(format!(
            "stopped; the state is saved: go on with `{again}`"
        )));
    }
    let figures = summary.as_ref().map(closing_lines).unwrap_or_default();
    print(&format!(
        "{figures}report: {}\n",
        out.join("report.html").display()
    ))
}

/// Whether a model to be trained further is a token model.
fn trains_baseline(init: &str) -> bool {
    match RunDir::open(init) {
        Ok(run) => !run.checkpoints(Stage::Lm).is_dir(),
        Err(_) => matches!(checkpoint_kind(init.as_ref()), Ok(Kind::TokenModel)),
    }
}

/// The headline figures, one a line.
fn closing_lines(summary: &calm_records::Summary) -> String {
    let mut lines = String::new();
    let mut add = |name: &str, value: String| lines.push_str(&format!("{name:<28}{value}\n"));
    if let Some(a) = &summary.autoencoder {
        let accuracy = format!(
            "{:.2} % (from a drawn latent {:.2} %)",
            100.0 * a.token_accuracy,
            100.0 * a.noisy_token_accuracy
        );
        add("autoencoder token accuracy", accuracy);
    }
    let calm = summary.calm.as_ref().map(|calm| ("CALM", calm));
    let baseline = summary.baseline.as_ref().map(|b| ("baseline", b));
    for (name, scores) in calm.into_iter().chain(baseline) {
        for n in 0..4 {
            let value = format!(
                "{:.5} ± {:.5} (unigram {:.5})",
                scores.brier[n], scores.brier_se[n], scores.unigram_brier[n]
            );
            add(&format!("{name} Brier-{}", n + 1), value);
        }
        // Where a factor is not positive BrierLM is 0 by definition.
        let lm = match (scores.brier_lm, scores.brier_lm_se) {
            (0.0, _) => "0 (a Brier-n is not positive)".to_owned(),
            (value, Some(se)) => format!("{value:.3} ± {se:.3}"),
            (value, None) => format!("{value:.3} (a Brier-n is within its error of 0)"),
        };
        add(&format!("{name} BrierLM"), lm);
        if let Some(perplexity) = scores.perplexity {
            add(&format!("{name} perplexity"), format!("{perplexity:.1}"));
        }
    }
    if let Some(p) = &summary.protocol {
        let protocol = format!(
            "{} starts in windows of {} tokens of {}, {} draws, seed {}",
            p.positions,
            p.window_tokens,
            p.part.name(),
            p.draws,
            p.seed
        );
        add("protocol", protocol);
    }
    add("wall time", format::duration(summary.wall_seconds));
    if let Some(bytes) = summary.peak_rss_bytes {
        add("peak memory", format::bytes(bytes));
    }
    lines
}

pub fn run_info(device_string: &str, device: &burn::tensor::Device) -> RunInfo {
    let git = |args: &[&str]| -> Option<String> {
        let output = std::process::Command::new("git").args(args).output().ok()?;
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    RunInfo {
        git_revision: git(&["rev-parse", "HEAD"]),
        dirty: git(&["status", "--porcelain"]).map(|changes| !changes.is_empty()),
        rustc: Some(env!("CALM_RUSTC").to_owned()).filter(|version| !version.is_empty()),
        burn: "0.22.1".to_owned(),
        device: device_string.to_owned(),
        device_identity: format!("{device:?}"),
        precision: "f32".to_owned(),
        seed: 0,
        argv: std::env::args().collect(),
        started: utc_now(),
        host: Host::detect(),
    }
}
