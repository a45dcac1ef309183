//! `calm eval`: BrierLM and reconstruction on held-out text.

use std::path::PathBuf;

use calm_data::{BadLinePolicy, CacheDir, unigram};
use calm_eval::{BrierReport, EvalConfig, evaluate, evaluate_tokens, reconstruct, spread};
use calm_lm::DEVICE_FORMS;
use calm_report::{Table, write_atomic};
use calm_train::{DataConfig, Event, data::token_store, preset};
use serde::Serialize;

use crate::error::{CliError, Result};
use crate::model::{AnyCheckpoint, ModelArgs};
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
    /// Independent draws per start; for a baseline, prefixes drawn per start.
    #[arg(long, default_value_t = 16)]
    draws: usize,
    /// Seed of the draws.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Score the positions that are multiples of this many tokens; of a baseline, these by
    /// themselves beside all [default: those that begin a chunk, for a baseline every 4th].
    #[arg(
        long,
        default_value_t = 0,
        value_name = "TOKENS",
        hide_default_value = true
    )]
    every: usize,
    /// Also write the figures to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[arg(long, default_value = "flex", help = format!("The device: {DEVICE_FORMS}"))]
    device: String,
}

/// Stride of the second scoring of a baseline where none is asked for: the published K.
const TOKEN_STRIDE: usize = 4;

/// Brier scores as written with `--json`.
#[derive(Serialize)]
struct Scores {
    brier: [f64; 4],
    brier_se: [f64; 4],
    unigram_brier: [f64; 4],
    over_unigram_se: [f64; 4],
    brier_lm: f64,
    brier_lm_se: f64,
    positions: u64,
}

impl From<&BrierReport> for Scores {
    fn from(report: &BrierReport) -> Self {
        let e = &report.estimate;
        Self {
            brier: e.brier,
            brier_se: e.brier_se,
            unigram_brier: report.unigram,
            over_unigram_se: report.over_unigram_se,
            brier_lm: e.brier_lm,
            brier_lm_se: e.brier_lm_se,
            positions: e.positions,
        }
    }
}

/// What is written with `--json`.
#[derive(Serialize)]
struct Record {
    corpus: Vec<String>,
    heldout_fraction: f64,
    #[serde(flatten)]
    model: ModelRecord,
    window_tokens: usize,
    windows: usize,
    draws: usize,
    seed: u64,
}

#[derive(Serialize)]
#[serde(untagged)]
enum ModelRecord {
    Calm {
        token_accuracy: f64,
        noisy_token_accuracy: f64,
        #[serde(flatten)]
        scores: Scores,
    },
    Baseline {
        cross_entropy: f64,
        cross_entropy_se: f64,
        perplexity: f64,
        every: usize,
        aligned: Scores,
        #[serde(flatten)]
        scores: Scores,
    },
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
    let eval = EvalConfig {
        windows: args.windows,
        draws: args.draws,
        every: args.every,
        seed: args.seed,
    };
    let (window_tokens, vocab_size) = match &checkpoint {
        AnyCheckpoint::Calm(c) => (c.config().window, c.config().vocab_size),
        AnyCheckpoint::Baseline(c) => (c.config().window, c.config().vocab_size),
    };
    let heldout = store.heldout();
    let windows = spread(heldout, window_tokens, eval.windows)?;
    let counts = unigram(store.train(), vocab_size);
    let of = windows.len();
    let on_window = &mut |done| {
        progress.show(Event::Scoring { done, of });
        true
    };
    let whole = "an evaluation that is never stopped is complete";
    let model = match &checkpoint {
        AnyCheckpoint::Calm(checkpoint) => {
            let model = checkpoint.load(&device)?;
            let rebuilt = reconstruct(&model.autoencoder, &windows, eval.seed, &device);
            let (w, on) = (window_tokens, on_window);
            let report = evaluate(&model, heldout, w, &counts, &eval, &device, on)?.expect(whole);
            ModelRecord::Calm {
                token_accuracy: rebuilt.token_accuracy,
                noisy_token_accuracy: rebuilt.noisy_token_accuracy,
                scores: (&report).into(),
            }
        }
        AnyCheckpoint::Baseline(checkpoint) => {
            if args.every == 0 {
                return Err(CliError::Usage("--every must be at least 1".to_owned()));
            }
            let model = checkpoint.load(&device)?;
            let (w, every) = (window_tokens, eval.stride(TOKEN_STRIDE));
            let report = evaluate_tokens(
                &model,
                heldout,
                w,
                TOKEN_STRIDE,
                true,
                &counts,
                &eval,
                &device,
                on_window,
            )?
            .expect(whole);
            ModelRecord::Baseline {
                cross_entropy: report.cross_entropy,
                cross_entropy_se: report.cross_entropy_se,
                perplexity: report.perplexity(),
                every,
                aligned: (&report.aligned).into(),
                scores: report
                    .everywhere
                    .as_ref()
                    .expect("all positions were asked for")
                    .into(),
            }
        }
    };
    let record = Record {
        corpus: data.corpus,
        heldout_fraction: data.heldout_fraction,
        model,
        window_tokens,
        windows: of,
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

/// The figures as tables, and the protocol under them.
fn table(record: &Record) -> String {
    let (figures, starts) = match &record.model {
        ModelRecord::Calm {
            token_accuracy,
            noisy_token_accuracy,
            scores,
        } => {
            let accuracy = format!(
                "token accuracy of the autoencoder {:.2} %, from a drawn latent {:.2} %",
                100.0 * token_accuracy,
                100.0 * noisy_token_accuracy
            );
            (
                format!("{}{accuracy}\n", scores_table(scores)),
                scores.positions,
            )
        }
        ModelRecord::Baseline {
            cross_entropy,
            cross_entropy_se,
            perplexity,
            every,
            aligned,
            scores,
        } => (
            format!(
                "{}\nat the {} starts that are multiples of {every}\n{}\n\
                 cross-entropy {cross_entropy:.4} ± {cross_entropy_se:.4} nats a token, \
                 perplexity {perplexity:.2}\n",
                scores_table(scores),
                aligned.positions,
                scores_table(aligned),
            ),
            scores.positions,
        ),
    };
    format!(
        "{figures}{starts} starts in {} windows of {} tokens, {} draws, seed {}; {:.0} % of {} \
         held out\n",
        record.windows,
        record.window_tokens,
        record.draws,
        record.seed,
        100.0 * record.heldout_fraction,
        record.corpus.join(" ")
    )
}

fn scores_table(scores: &Scores) -> String {
    let mut table = Table::new([
        "score",
        "model",
        "standard error",
        "unigram",
        "model - unigram, in SE",
    ]);
    for n in 0..4 {
        let above = (scores.brier[n] - scores.unigram_brier[n]) / scores.over_unigram_se[n];
        table.row([
            format!("Brier-{}", n + 1),
            format!("{:.5}", scores.brier[n]),
            format!("{:.5}", scores.brier_se[n]),
            format!("{:.5}", scores.unigram_brier[n]),
            format!("{above:+.1}"),
        ]);
    }
    // Where a factor is not positive BrierLM is 0 by definition and has no standard error.
    let [lm, se] = match scores.brier_lm {
        0.0 => ["0".to_owned(), "n/a".to_owned()],
        value => [value, scores.brier_lm_se].map(|x| format!("{x:.3}")),
    };
    table.row(["BrierLM".to_owned(), lm, se, String::new(), String::new()]);
    table.to_text()
}
