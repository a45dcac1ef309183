//! What is kept of a cell: `cell.json` in its directory, and a row of `cells.csv`.

use std::path::Path;

use calm_eval::BrierReport;
use calm_records::{Host, WindowBrier};
use calm_train::preset;
use serde::{Deserialize, Serialize};

use crate::spec::{CellKind, Loaded, ProtocolConfig, SpeedConfig};
use crate::{Error, Result};

/// Everything that was measured of one cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CellRecord {
    /// The experiment as TOML and the protocol: equal for a cell that need not be made again.
    pub made_with: MadeWith,
    /// Revision of the source of the program that scored it, where it is known.
    pub git_revision: Option<String>,
    /// Name of the model in the grid.
    pub model: String,
    /// Its kind.
    pub kind: CellKind,
    /// Seed.
    pub seed: u64,
    /// Tokens per step, K.
    pub chunk_size: usize,
    /// Parameters, without the autoencoder's.
    pub parameters: u64,
    /// Training tokens of the language model.
    pub train_tokens: u64,
    /// Training tokens of the autoencoder; 0 for a token model.
    pub autoencoder_tokens: u64,
    /// Training FLOPs, the autoencoder's training and its frozen encoder included.
    pub train_flops: f64,
    /// Training FLOPs of backbone and head alone.
    pub train_flops_without_autoencoder: f64,
    /// Seconds spent in training steps, all stages.
    pub train_seconds: f64,
    /// Largest resident memory of the process while it was trained, bytes; what the process held
    /// before is in it.
    pub peak_rss_bytes: Option<u64>,
    /// The same while it was timed.
    pub decoding_rss_bytes: Option<u64>,
    /// FLOPs per generated token, one sample a step, the decoder included.
    pub infer_flops_per_token: f64,
    /// The same without the decoder.
    pub infer_flops_per_token_without_autoencoder: f64,
    /// Key/value cache per token of context, bytes.
    pub cache_bytes_per_token: f64,
    /// Scores.
    pub scores: Scores,
    /// Windows scored.
    pub windows: usize,
    /// Cross-entropy per token in nats; a CALM has none.
    pub cross_entropy: Option<f64>,
    /// The same of every window; records from before 2026-11-28 lack it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_cross_entropy: Option<Vec<f64>>,
    /// Quality on the way, by cost; the last point is that of the end.
    pub curve: Vec<CurvePoint>,
    /// Decoding.
    pub speed: Vec<SpeedRow>,
}

/// What a cell was made with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MadeWith {
    /// The experiment as TOML.
    pub experiment: String,
    /// The protocol of the scores.
    pub protocol: ProtocolConfig,
    /// How decoding was timed.
    pub speed: SpeedConfig,
    /// The device.
    pub device: String,
    /// Identifies the token streams: corpus, tokenizer, split.
    pub text: String,
    /// The machine.
    pub host: Host,
    /// The run that it was loaded from, where it was not trained here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loaded: Option<Loaded>,
}

impl MadeWith {
    /// Whether a result made with `self` can stand beside one made with `other`.
    pub fn fits(&self, other: &Self) -> bool {
        let made = Self {
            host: other.host.clone(),
            experiment: other.experiment.clone(),
            ..self.clone()
        };
        made == *other
            && same_machine(&self.host, &other.host)
            && preset::same(&self.experiment, &other.experiment)
    }
}

/// Whether two records tell of one machine. The memory that the system reports may differ by a
/// little after a restart and is not compared.
pub(crate) fn same_machine(a: &Host, b: &Host) -> bool {
    let told = |host: &Host| Host {
        memory_bytes: None,
        ..host.clone()
    };
    told(a) == told(b)
}

/// What a comparison's scaling law is of: its CALMs, or where it has none its local decoders. They
/// are different methods, and one law would mix them.
pub(crate) fn law_of(cells: &[CellRecord]) -> CellKind {
    let calm = cells.iter().any(|cell| cell.kind == CellKind::Calm);
    if calm {
        CellKind::Calm
    } else {
        CellKind::Local
    }
}

/// Brier scores under the comparison's protocol. Arrays hold n = 1..4.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Brier-1..4.
    pub brier: [f64; 4],
    /// Their standard errors over windows.
    pub brier_se: [f64; 4],
    /// The covariances of the four; records from before 2026-11-27 lack them.
    #[serde(default)]
    pub covariance: Option<[[f64; 4]; 4]>,
    /// BrierLM.
    pub brier_lm: f64,
    /// Its standard error, where it has one.
    pub brier_lm_se: Option<f64>,
    /// Brier-1..4 of the unigram distribution at the same positions.
    pub unigram: [f64; 4],
    /// Positions scored.
    pub positions: u64,
    /// Of every window.
    #[serde(alias = "window_brier_1")]
    pub window_brier: WindowBrier,
}

impl From<&BrierReport> for Scores {
    fn from(report: &BrierReport) -> Self {
        let e = &report.estimate;
        Self {
            brier: e.brier,
            brier_se: e.brier_se,
            covariance: Some(e.covariance),
            brier_lm: e.brier_lm,
            brier_lm_se: e.brier_lm_se,
            unigram: report.unigram,
            positions: e.positions,
            window_brier: WindowBrier::All(report.window_brier.clone()),
        }
    }
}

impl Scores {
    /// Leaves out a standard error that the record has from before 2026-11-27 and that is none: 0
    /// where BrierLM is 0, and one that a Brier-n within its own error of 0 makes meaningless.
    pub(crate) fn settle(&mut self) {
        let near = |n: usize| self.brier[n] < self.brier_se[n];
        if (0..4).any(near) || self.brier_lm == 0.0 {
            self.brier_lm_se = None;
        }
    }
}

/// Quality during training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// Training tokens of the language model so far.
    pub tokens: u64,
    /// Training FLOPs so far, the autoencoder's included.
    pub train_flops: f64,
    /// Seconds in training steps so far, all stages.
    pub train_seconds: f64,
    /// Brier-1 of the evaluation on the way, at the protocol's positions on fewer windows.
    pub brier_1: f64,
    /// Its standard error.
    pub brier_1_se: f64,
    /// Brier scores of every window.
    #[serde(alias = "window_brier_1")]
    pub window_brier: WindowBrier,
    /// Cross-entropy of every window, nats a token, of a model that has a likelihood; records from
    /// before 2026-11-28 lack it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_cross_entropy: Option<Vec<f64>>,
}

/// One way to be efficient, at batch 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Technique {
    /// Its name.
    pub name: String,
    /// What it does.
    pub mechanism: String,
    /// What is measured: tokens per second in decoding, or passes over a window per second.
    pub unit: String,
    /// The median of that.
    pub rate: f64,
    /// Median ratio to the row that it is compared with, the two timed one after the other.
    pub ratio: f64,
    /// Name of that row.
    pub compared_with: String,
    /// Passes of the model per 1,000 tokens.
    pub steps_per_1000_tokens: Option<f64>,
    /// Passes of the draft model per 1,000 tokens, in speculation by one.
    pub draft_steps_per_1000_tokens: Option<f64>,
    /// Share of the proposals accepted, in speculation.
    pub acceptance: Option<f64>,
    /// Key/value cache, bytes per token of context.
    pub cache_bytes_per_token: Option<f64>,
    /// Whose distribution the text has.
    pub distribution: String,
    /// What it does not do.
    pub limit: String,
}

/// Decoding at one batch size: medians.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SpeedRow {
    /// Texts side by side.
    pub batch: usize,
    /// Seconds from the prompts to the first token of every text.
    pub first_token_seconds: f64,
    /// Tokens per second after that, all texts together.
    pub tokens_per_s: f64,
    /// Generative steps per 1,000 tokens of a text; of a local decoder its own, whose backbone takes
    /// one for K of them.
    pub steps_per_1000_tokens: f64,
}

impl CellRecord {
    /// Reads `cell.json`; `None` where there is none.
    ///
    /// # Errors
    /// A file that can't be read or parsed.
    pub fn load(path: &Path) -> Result<Option<Self>> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io(path)(e)),
        };
        let bad = |e: serde_json::Error| Error::io(path)(std::io::Error::other(e));
        serde_json::from_str(&text).map(Some).map_err(bad)
    }

    /// Rounds what is kept of every window to 1e-5, far below its error: with all its digits the
    /// report of some forty models has megabytes of them.
    pub(crate) fn round_windows(&mut self) {
        let round = |x: f64| (x * 1e5).round() / 1e5;
        let nats = |windows: &mut Option<Vec<f64>>| {
            windows.iter_mut().flatten().for_each(|x| *x = round(*x));
        };
        let brier = |windows: &mut WindowBrier| *windows = windows.clone().map(round);
        nats(&mut self.window_cross_entropy);
        brier(&mut self.scores.window_brier);
        for point in &mut self.curve {
            nats(&mut point.window_cross_entropy);
            brier(&mut point.window_brier);
        }
    }

    /// Writes `cell.json` atomically.
    ///
    /// # Errors
    /// Where it can't be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).expect("numbers have a JSON form");
        Ok(calm_records::write_atomic(path, (text + "\n").as_bytes())?)
    }

    /// Perplexity per token, of a token model.
    pub fn perplexity(&self) -> Option<f64> {
        self.cross_entropy.map(f64::exp)
    }

    /// Its speed at a batch size.
    pub fn speed_at(&self, batch: usize) -> Option<&SpeedRow> {
        self.speed.iter().find(|row| row.batch == batch)
    }
}

/// All cells as CSV, one row a cell, with a header where there is a cell; what a cell lacks is empty.
pub fn to_csv(records: &[CellRecord]) -> String {
    let speed = records.first().map_or(&[][..], |r| &r.speed);
    let batches: Vec<usize> = speed.iter().map(|s| s.batch).collect();
    let mut out = csv::Writer::from_writer(Vec::new());
    for (index, record) in records.iter().enumerate() {
        let columns = columns(record, &batches);
        let (names, cells): (Vec<String>, Vec<String>) = columns.into_iter().unzip();
        let header = (index == 0).then_some(names);
        for line in header.into_iter().chain([cells]) {
            out.write_record(line)
                .expect("rows of one length in memory");
        }
    }
    let bytes = out.into_inner().expect("writing to memory");
    String::from_utf8(bytes).expect("text was written")
}

/// Name and value of every cell of a row.
fn columns(r: &CellRecord, batches: &[usize]) -> Vec<(String, String)> {
    fn some(value: Option<impl ToString>) -> String {
        value.map_or(String::new(), |value| value.to_string())
    }
    let s = &r.scores;
    let mut columns: Vec<(String, String)> = [
        ("model", r.model.clone()),
        ("kind", r.kind.name().to_owned()),
        ("seed", r.seed.to_string()),
        ("chunk_size", r.chunk_size.to_string()),
        ("parameters", r.parameters.to_string()),
        ("train_tokens", r.train_tokens.to_string()),
        ("train_flops", r.train_flops.to_string()),
        (
            "train_flops_without_autoencoder",
            r.train_flops_without_autoencoder.to_string(),
        ),
        ("train_seconds", r.train_seconds.to_string()),
        ("peak_rss_bytes", some(r.peak_rss_bytes)),
        ("decoding_rss_bytes", some(r.decoding_rss_bytes)),
        ("infer_flops_per_token", r.infer_flops_per_token.to_string()),
        (
            "infer_flops_per_token_without_autoencoder",
            r.infer_flops_per_token_without_autoencoder.to_string(),
        ),
        ("cache_bytes_per_token", r.cache_bytes_per_token.to_string()),
        ("perplexity", some(r.perplexity())),
        ("brier_lm", s.brier_lm.to_string()),
        ("brier_lm_se", some(s.brier_lm_se)),
        ("positions", s.positions.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec();
    let mut push = |name: String, value: String| columns.push((name, value));
    for n in 0..4 {
        push(format!("brier_{}", n + 1), s.brier[n].to_string());
        push(format!("brier_{}_se", n + 1), s.brier_se[n].to_string());
        push(format!("unigram_{}", n + 1), s.unigram[n].to_string());
    }
    for &batch in batches {
        let row = r.speed_at(batch);
        push(
            format!("first_token_seconds_batch_{batch}"),
            some(row.map(|row| row.first_token_seconds)),
        );
        push(
            format!("tokens_per_s_batch_{batch}"),
            some(row.map(|row| row.tokens_per_s)),
        );
    }
    let steps = r.speed.first().map(|row| row.steps_per_1000_tokens);
    push("steps_per_1000_tokens".to_owned(), some(steps));
    columns
}
