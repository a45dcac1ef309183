//! `calm eval`: BrierLM and reconstruction on held-out text.

use std::path::PathBuf;

use calm_data::{BadLinePolicy, CacheDir, Split, unigram};
use calm_eval::{
    BrierReport, EvalConfig, Replica, TokenScoring, evaluate_on, evaluate_tokens_on, reconstruct,
    spread,
};
use calm_nn::NextToken;
use calm_records::{TextPart, write_atomic};
use calm_report::Table;
use calm_train::{DataConfig, Event, StreamSettings, data::token_store, preset};
use serde::Serialize;

use crate::bound::BoundRecord;
use crate::devices::{DevicesArgs, replicas};
use crate::error::{CliError, Result};
use crate::model::{AnyCheckpoint, ModelArgs, WeightsArgs, no_language_model};
use crate::output::print;
use crate::progress::Progress;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Named corpora or paths; the test part is scored, by the split that the model was trained
    /// under [default: the run's].
    #[arg(long, num_args = 1.., value_name = "NAME|PATH")]
    corpus: Vec<String>,
    /// The model has seen nothing of --corpus: score all of it. You vouch for it, and the protocol
    /// says so.
    #[arg(long, requires = "corpus", conflicts_with = "test_fraction")]
    unseen: bool,
    /// A smaller test part than the one held out in training; a larger one is refused.
    #[arg(long, value_name = "SHARE", visible_alias = "heldout-fraction")]
    test_fraction: Option<f64>,
    /// Windows of text to score.
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
    /// CALM: bound its perplexity by so many draws of the head a chunk, with the decoder's
    /// probabilities (ours, not the paper's); the run's token model stands beside it.
    #[arg(long, value_name = "N", conflicts_with = "baseline")]
    bound: Option<usize>,
    /// Also write the figures to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    weights: WeightsArgs,
    #[command(flatten)]
    devices: DevicesArgs,
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
    brier_lm_se: Option<f64>,
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
    part: TextPart,
    /// Whether the corpus is the very text that the model was trained on a part of.
    of_training_text: bool,
    /// How the corpus was split; none where all of it was scored.
    split: Option<Split>,
    /// Of text that training streams, the tokens of the part that windows are spread over, its first.
    #[serde(skip_serializing_if = "Option::is_none")]
    first_tokens: Option<u64>,
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
        #[serde(skip_serializing_if = "Option::is_none")]
        bound: Option<BoundRecord>,
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
    if args.bound.is_some_and(|draws| draws < 2) {
        let message = "--bound takes two draws or more: one tells nothing of how it moves";
        return Err(CliError::Usage(message.to_owned()));
    }
    let devices = args.devices.open()?;
    let (checkpoint, run) = args.model.open()?;
    let checkpoint = checkpoint.with_weights(args.weights.numbers());
    let is_plain = matches!(&checkpoint, AnyCheckpoint::Calm(c) if !c.config().is_local());
    if args.bound.is_some() && !is_plain {
        let message = "--bound: this model has a perplexity, not a bound on it";
        return Err(CliError::Usage(message.to_owned()));
    }
    let mut data = match &run {
        Some(run) => preset::load(&run.config())?.data,
        None if args.corpus.is_empty() => {
            let message = "--model names no corpus of its own: give --corpus NAME|PATH";
            return Err(CliError::Usage(message.to_owned()));
        }
        None => DataConfig {
            corpus: Vec::new(),
            tokenizer: String::new(),
            validation_fraction: 0.0,
            test_fraction: 0.0,
            whole_below: 0,
            bad_lines: BadLinePolicy::Fatal,
            autoencoder_corpus: Vec::new(),
            stream: StreamSettings::default(),
        },
    };
    let own = match args.unseen {
        true => Split::all_test(),
        false => split_of(&checkpoint)?,
    };
    let split = match args.test_fraction {
        Some(fraction) => own.with_test_fraction(fraction)?,
        None => own.clone(),
    };
    if !args.corpus.is_empty() {
        data.corpus.clone_from(&args.corpus);
        data.stream = StreamSettings::default();
    }
    let cache = CacheDir::default_location()?;
    let mut progress = Progress::new();
    let tokenizer = checkpoint.tokenizer()?;
    let mut open =
        |split: &Split| token_store(&data, split, tokenizer, &cache, &mut |e| progress.show(e));
    let store = open(&split)?;
    let content = match split == own {
        true => store.content(),
        false => open(&own)?.content(),
    };
    let eval = EvalConfig {
        windows: args.windows,
        draws: args.draws,
        every: args.every,
        seed: args.seed,
    };
    let (window_tokens, vocab_size) = match &checkpoint {
        AnyCheckpoint::Calm(c) => (c.config().window, c.config().vocab_size),
        AnyCheckpoint::Baseline(c) => (c.config().window, c.config().vocab_size),
        AnyCheckpoint::Autoencoder(_) => return Err(no_language_model()),
    };
    let scored = store.test();
    let windows = spread(scored, window_tokens, eval.windows)?;
    // Of a text that is scored as a whole, its own.
    let counts = unigram(if args.unseen { scored } else { store.train() }, vocab_size);
    let of = windows.len();
    let on_window: &mut dyn FnMut(usize) -> bool = &mut |done| {
        progress.show(Event::Scoring { done, of });
        true
    };
    let scoring = TokenScoring {
        tokens: scored,
        window: window_tokens,
        chunk_size: TOKEN_STRIDE,
        everywhere: true,
        unigram_counts: &counts,
        config: &eval,
    };
    let model = match &checkpoint {
        AnyCheckpoint::Calm(checkpoint) if checkpoint.config().is_local() => {
            let models = replicas(&devices, |d| Ok(checkpoint.load_local(&d.device)?))?;
            let chunk_size = checkpoint.config().chunk_size;
            let scoring = TokenScoring {
                chunk_size,
                ..scoring
            };
            token_record(&models, &scoring, on_window)?
        }
        AnyCheckpoint::Calm(checkpoint) => {
            let models = replicas(&devices, |d| Ok(checkpoint.load(&d.device)?))?;
            let (model, device) = (&models[0].model, &devices[0].device);
            let rebuilt = reconstruct(&model.autoencoder, &windows, eval.seed, device);
            let (w, on) = (window_tokens, &mut *on_window);
            let report = evaluate_on(&models, scored, w, &counts, &eval, on)?.expect(WHOLE);
            let bound = args.bound.map(|draws| {
                let mut on = |done| _ = on_window(done);
                BoundRecord::new(
                    model,
                    run.as_ref(),
                    &windows,
                    draws,
                    eval.seed,
                    device,
                    &mut on,
                )
            });
            ModelRecord::Calm {
                token_accuracy: rebuilt.token_accuracy,
                noisy_token_accuracy: rebuilt.noisy_token_accuracy,
                scores: (&report).into(),
                bound: bound.transpose()?,
            }
        }
        AnyCheckpoint::Baseline(checkpoint) => {
            let models = replicas(&devices, |d| Ok(checkpoint.load(&d.device)?))?;
            token_record(&models, &scoring, on_window)?
        }
        AnyCheckpoint::Autoencoder(_) => return Err(no_language_model()),
    };
    let record = Record {
        corpus: data.corpus,
        part: match args.unseen {
            true => TextPart::WholeUnseen,
            false => TextPart::Test,
        },
        of_training_text: checkpoint.text() == Some(&content),
        split: (!args.unseen).then_some(split),
        first_tokens: data.stream.enabled.then_some(scored.len() as u64),
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

const WHOLE: &str = "an evaluation that is never stopped is complete";

/// Scores of a model that has probabilities, at all positions and by themselves at those that were asked
/// for.
fn token_record<M: NextToken + Clone + Send>(
    models: &[Replica<M>],
    scoring: &TokenScoring<'_>,
    on_window: &mut dyn FnMut(usize) -> bool,
) -> Result<ModelRecord> {
    let report = evaluate_tokens_on(models, scoring, on_window)?.expect(WHOLE);
    let everywhere = report.everywhere.as_ref();
    Ok(ModelRecord::Baseline {
        cross_entropy: report.cross_entropy,
        cross_entropy_se: report.cross_entropy_se,
        perplexity: report.perplexity(),
        every: scoring.config.stride(scoring.chunk_size),
        aligned: (&report.aligned).into(),
        scores: everywhere.expect("all positions were asked for").into(),
    })
}

/// The split of the text that the checkpoint was trained on.
fn split_of(checkpoint: &AnyCheckpoint) -> Result<Split> {
    let Some(split) = checkpoint.split() else {
        return Err(CliError::Usage(format!(
            "{}: the checkpoint doesn't say how its text was split, so any text may have been \
             trained on; give a text that was not with --corpus and --unseen",
            checkpoint.directory().display()
        )));
    };
    split.validate()?;
    Ok(split.clone())
}

/// The figures as tables, and the protocol under them.
fn table(record: &Record) -> String {
    let (figures, starts) = match &record.model {
        ModelRecord::Calm {
            token_accuracy,
            noisy_token_accuracy,
            scores,
            bound,
        } => {
            let bound = bound.as_ref().map_or(String::new(), BoundRecord::table);
            let accuracy = format!(
                "token accuracy of the autoencoder {:.2} %, from a drawn latent {:.2} %",
                100.0 * token_accuracy,
                100.0 * noisy_token_accuracy
            );
            (
                format!("{}{accuracy}\n{bound}", scores_table(scores)),
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
    let corpus = record.corpus.join(" ");
    let text = match &record.split {
        Some(split) => format!(
            "{}the test part, {:.1} % of {corpus}, {}",
            match record.first_tokens {
                Some(tokens) => format!("the first {tokens} tokens of "),
                None => String::new(),
            },
            100.0 * split.test_fraction,
            match record.of_training_text {
                true => "held out in training",
                false =>
                    "which is not the text of training: what of it was trained on can't be told",
            }
        ),
        None => format!("all of {corpus}, given as unseen; unigram of the same text"),
    };
    format!(
        "{figures}{starts} starts in {} windows of {} tokens, {} draws, seed {}; {text}\n",
        record.windows, record.window_tokens, record.draws, record.seed,
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
    // Where a factor is not positive BrierLM is 0 by definition.
    let lm = match scores.brier_lm {
        0.0 => "0".to_owned(),
        value => format!("{value:.3}"),
    };
    let se = scores
        .brier_lm_se
        .map_or("n/a".to_owned(), |se| format!("{se:.3}"));
    table.row(["BrierLM".to_owned(), lm, se, String::new(), String::new()]);
    table.to_text()
}
