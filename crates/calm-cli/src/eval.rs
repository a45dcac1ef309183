//! `calm eval`: BrierLM and reconstruction on held-out text.

use std::path::PathBuf;

use calm_data::{BadLinePolicy, CacheDir, unigram};
use calm_eval::{EvalConfig, evaluate, reconstruct, spread};
use calm_lm::DEVICE_FORMS;
use calm_report::{Table, write_atomic};
use calm_train::{DataConfig, Event, data::token_store, preset};
use serde::Serialize;

use crate::error::{CliError, Result};
use crate::model::ModelArgs;
use crate::output::print;
use crate::progress::Progress;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Named corpora or paths; the held-out part is scored [default: the run's].
    #[arg(long, num_args = 1.., value_name = "NAME|PATH")]
    corpus: Vec<String>,
    /// With --model: share of the documents that was held out in training.
    #[arg(long, default_value_t = 0.05, conflicts_with = "run")]
    heldout_fraction: f64,
    /// Windows of held-out text.
    #[arg(long, default_value_t = 128)]
    windows: usize,
    /// Independent draws per start.
    #[arg(long, default_value_t = 16)]
    draws: usize,
    /// Seed of the draws.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Also write the figures to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[arg(long, default_value = "flex", help = format!("The device: {DEVICE_FORMS}"))]
    device: String,
}

/// What is written with `--json`.
#[derive(Serialize)]
struct Record {
    corpus: Vec<String>,
    heldout_fraction: f64,
    token_accuracy: f64,
    noisy_token_accuracy: f64,
    brier: [f64; 4],
    brier_se: [f64; 4],
    unigram_brier: [f64; 4],
    over_unigram_se: [f64; 4],
    brier_lm: f64,
    brier_lm_se: f64,
    window_tokens: usize,
    windows: usize,
    positions: u64,
    draws: usize,
    seed: u64,
}

pub fn run(args: Args) -> Result<()> {
    let device = calm_lm::open_device(&args.device)?;
    let (checkpoint, run) = args.model.open()?;
    let mut data = match &run {
        Some(run) => preset::load(&run.config())?.data,
        None if args.corpus.is_empty() => {
            let message = "--model names no corpus of its own: give --corpus NAME|PATH";
            return Err(CliError::Usage(message.to_owned()));
        }
        None => DataConfig {
            corpus: Vec::new(),
            tokenizer: String::new(),
            heldout_fraction: args.heldout_fraction,
            bad_lines: BadLinePolicy::Fatal,
        },
    };
    if !args.corpus.is_empty() {
        data.corpus.clone_from(&args.corpus);
    }
    let cache = CacheDir::default_location()?;
    let mut progress = Progress::new();
    let store = token_store(&data, checkpoint.tokenizer(), &cache, &mut |event| {
        progress.show(event)
    })?;
    let model = checkpoint.load(&device)?;
    let config = checkpoint.config();
    let eval = EvalConfig {
        windows: args.windows,
        draws: args.draws,
        seed: args.seed,
    };
    let windows = spread(store.heldout(), config.window, eval.windows)?;
    let rebuilt = reconstruct(&model.autoencoder, &windows, eval.seed, &device);
    let counts = unigram(store.train(), config.vocab_size);
    let of = windows.len();
    let on_window = &mut |done| {
        progress.show(Event::Scoring { done, of });
        true
    };
    let heldout = store.heldout();
    let report = evaluate(
        &model,
        heldout,
        config.window,
        &counts,
        &eval,
        &device,
        on_window,
    )?
    .expect("an evaluation that is never stopped is complete");
    let e = report.estimate;
    let record = Record {
        corpus: data.corpus,
        heldout_fraction: data.heldout_fraction,
        token_accuracy: rebuilt.token_accuracy,
        noisy_token_accuracy: rebuilt.noisy_token_accuracy,
        brier: e.brier,
        brier_se: e.brier_se,
        unigram_brier: report.unigram,
        over_unigram_se: report.over_unigram_se,
        brier_lm: e.brier_lm,
        brier_lm_se: e.brier_lm_se,
        window_tokens: config.window,
        windows: report.windows,
        positions: e.positions,
        draws: eval.draws,
        seed: eval.seed,
    };
    print(&table(&record))?;
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&record).expect("numbers have a JSON form");
        write_atomic(path, (text + "\n").as_bytes())?;
    }
    Ok(())
}

/// The figures as a table, and the protocol under it.
fn table(record: &Record) -> String {
    let mut table = Table::new([
        "score",
        "model",
        "standard error",
        "unigram",
        "model - unigram, in SE",
    ]);
    for n in 0..4 {
        table.row([
            format!("Brier-{}", n + 1),
            format!("{:.5}", record.brier[n]),
            format!("{:.5}", record.brier_se[n]),
            format!("{:.5}", record.unigram_brier[n]),
            format!(
                "{:+.1}",
                (record.brier[n] - record.unigram_brier[n]) / record.over_unigram_se[n]
            ),
        ]);
    }
    // Where a factor is not positive BrierLM is 0 by definition and has no standard error.
    let [lm, se] = match record.brier_lm {
        0.0 => ["0".to_owned(), "n/a".to_owned()],
        value => [value, record.brier_lm_se].map(|x| format!("{x:.3}")),
    };
    table.row(["BrierLM".to_owned(), lm, se, String::new(), String::new()]);
    format!(
        "{}token accuracy of the autoencoder {:.2} %, from a drawn latent {:.2} %\n\
         {} starts in {} windows of {} tokens, {} draws, seed {}; {:.0} % of {} held out\n",
        table.to_text(),
        100.0 * record.token_accuracy,
        100.0 * record.noisy_token_accuracy,
        record.positions,
        record.windows,
        record.window_tokens,
        record.draws,
        record.seed,
        100.0 * record.heldout_fraction,
        record.corpus.join(" ")
    )
}
