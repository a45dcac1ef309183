//! `report.html`: one file that needs nothing else and loads nothing; the words and the layout are
//! in `templates/`.

mod curves;
mod index;

use std::path::{Path, PathBuf};

use askama::Template;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use calm_records::{
    Error, EvalPoint, MetricRow, ModelSummary, Protocol, Result, RunDir, RunInfo, SampleText,
    Stage, Summary, load_samples, read_jsonl_lenient, write_atomic,
};
use sha2::{Digest, Sha256};

use crate::chart::CHART_CSS;
use crate::findings::Findings;
use crate::format::{significant, with_error_parts};
use crate::{Table, show};

pub use index::write_index;

/// Everything that a report is made of; what a run does not have yet is empty.
struct Records {
    name: String,
    info: Option<RunInfo>,
    summary: Option<Summary>,
    metrics: Vec<MetricRow>,
    evaluations: Vec<EvalPoint>,
    samples: Vec<SampleText>,
    config: Option<String>,
    has_report: bool,
}

impl Records {
    fn load(run: &RunDir) -> Result<Self> {
        let mut samples = load_samples(&run.samples())?;
        samples.sort_by(|a, b| a.temperature.total_cmp(&b.temperature));
        Ok(Self {
            name: run.name(),
            info: load_if_there(&run.run(), RunInfo::load)?,
            summary: load_if_there(&run.summary(), Summary::load)?,
            // Lenient: a report may be asked for while the run is being written.
            metrics: load_if_there(&run.metrics(), read_jsonl_lenient)?.unwrap_or_default(),
            evaluations: load_if_there(&run.eval_history(), read_jsonl_lenient)?
                .unwrap_or_default(),
            samples,
            config: load_if_there(&run.config(), |path| {
                let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
                Ok(String::from_utf8_lossy(&bytes).into_owned())
            })?,
            has_report: run.report().is_file(),
        })
    }

    fn rows(&self, stage: Stage) -> impl Iterator<Item = &MetricRow> {
        self.metrics.iter().filter(move |row| row.stage == stage)
    }

    fn evaluations(&self, stage: Stage) -> impl Iterator<Item = &EvalPoint> {
        let points = self.evaluations.iter();
        points.filter(move |point| point.stage == stage)
    }

    fn calm(&self) -> Option<&ModelSummary> {
        self.summary.as_ref()?.calm.as_ref()
    }

    fn token(&self) -> Option<&ModelSummary> {
        self.summary.as_ref()?.baseline.as_ref()
    }

    fn protocol(&self) -> Option<&Protocol> {
        self.summary.as_ref()?.protocol.as_ref()
    }

    /// What a complete report would have besides.
    fn missing(&self) -> String {
        let scores = |s: &Summary| s.calm.is_some() || s.baseline.is_some();
        let unscored = self.summary.as_ref().is_some_and(|s| !scores(s));
        let checks = [
            (
                self.summary.is_none(),
                "the final evaluation (summary.json)",
            ),
            (
                unscored,
                "scores of a language model (no such stage was evaluated)",
            ),
            (self.metrics.is_empty(), "training curves (metrics.jsonl)"),
            (
                self.evaluations.is_empty(),
                "evaluations during training (eval/history.jsonl)",
            ),
            (self.samples.is_empty(), "sample text (samples/)"),
            (self.config.is_none(), "the configuration (config.toml)"),
            (self.info.is_none(), "machine and command line (run.json)"),
        ];
        let missing = checks.into_iter().filter(|(missing, _)| *missing);
        missing.map(|(_, what)| what).collect::<Vec<_>>().join("; ")
    }

    /// Median throughput of the language model, or of the first other stage that ran: the stage, the
    /// rate, the share of the peak.
    fn throughput(&self) -> Option<(&'static str, u64, Option<f64>)> {
        let stages = [Stage::Lm, Stage::Autoencoder, Stage::Baseline];
        stages.into_iter().find_map(|stage| {
            let rate = median(self.rows(stage).map(|row| row.tokens_per_s))?;
            let mfu = median(self.rows(stage).filter_map(|row| row.mfu));
            Some((spoken(stage), rate.round() as u64, mfu))
        })
    }

    /// Where each stage stands.
    fn progress(&self) -> Vec<&MetricRow> {
        let last = |stage: Stage| self.rows(stage).last();
        Stage::ALL.into_iter().filter_map(last).collect()
    }
}

fn load_if_there<T>(path: &Path, load: impl FnOnce(&Path) -> Result<T>) -> Result<Option<T>> {
    match load(path) {
        Ok(record) => Ok(Some(record)),
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The report of a run as HTML. Records that are not there (yet) are named in the report.
///
/// # Errors
/// Records that are there and cannot be read: [`Error::Json`], [`Error::Schema`], [`Error::Io`].
pub fn render(run: &RunDir) -> Result<String> {
    let records = Records::load(run)?;
    let report = Report {
        main: curves::main(&records),
        more: curves::more(&records),
        findings: records.summary.as_ref().map(|summary| Findings { summary }),
        records: &records,
    };
    let body = report.render().expect("writing to a string");
    Ok(html_page(&format!("{} · CALM run", records.name), &body))
}

/// Renders the report and writes it atomically to [`RunDir::report`], whose path is returned.
///
/// # Errors
/// Those of [`render`], and [`Error::Io`] for the report itself.
pub fn write_report(run: &RunDir) -> Result<PathBuf> {
    let path = run.report();
    write_atomic(&path, render(run)?.as_bytes())?;
    Ok(path)
}

/// A whole page in the style of the reports around `body`, which is HTML. It loads nothing, and runs
/// no script but its own, which tells the values of charts.
pub fn html_page(title: &str, body: &str) -> String {
    #[derive(Template)]
    #[template(path = "page.html")]
    struct Page<'a> {
        title: &'a str,
        body: &'a str,
        style: &'a str,
        chart_style: &'a str,
        script: &'a str,
        script_hash: String,
        version: &'a str,
    }
    let script = include_str!("../templates/chart.js");
    let page = Page {
        title,
        body,
        style: include_str!("../templates/page.css"),
        chart_style: CHART_CSS,
        script,
        script_hash: STANDARD.encode(Sha256::digest(script)),
        version: env!("CARGO_PKG_VERSION"),
    };
    page.render().expect("writing to a string")
}

/// A stage as a reader calls it.
fn spoken(stage: Stage) -> &'static str {
    match stage {
        Stage::Autoencoder => "autoencoder",
        Stage::Lm => "language model",
        Stage::Baseline => "token baseline",
    }
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<_> = values.filter(|v| v.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

/// What a CALM is called: with a local decoder it has a likelihood.
fn calm_name(model: &ModelSummary) -> &'static str {
    match model.perplexity {
        None => "CALM",
        Some(_) => "CALM with a local decoder",
    }
}

fn perplexity(model: &ModelSummary) -> String {
    model
        .perplexity
        .map_or_else(|| "—".to_owned(), |value| significant(value, 3))
}

#[derive(Template)]
#[template(path = "report.html")]
struct Report<'a> {
    records: &'a Records,
    findings: Option<Findings<'a>>,
    main: Vec<String>,
    more: Vec<String>,
}

impl Report<'_> {
    /// Whether a model was scored from draws alone: a CALM without a likelihood.
    fn has_draws(&self) -> bool {
        let calm = self.records.calm();
        calm.is_some_and(|calm| calm.perplexity.is_none())
    }

    fn calm_name(&self, model: &ModelSummary) -> &'static str {
        calm_name(model)
    }

    /// Value, and its error with what the scale of both is.
    fn headline(&self, value: &f64, error: Option<&f64>) -> (String, String) {
        let error = error.copied().filter(|e| e.is_finite());
        let Some(error) = error else {
            return (significant(*value, 3), "error unknown".to_owned());
        };
        let (value, error, power) = with_error_parts(*value, error);
        let power = power.map_or(String::new(), |power| format!(" {power}"));
        (value, format!("± {error}{power}"))
    }

    /// Brier-1 to 4 and BrierLM of every model; `None` where none was scored.
    fn scores(&self) -> Option<Table> {
        let (calm, token) = (self.records.calm(), self.records.token());
        let unigram = &calm.or(token)?.unigram_brier;
        let models: Vec<&ModelSummary> = calm.into_iter().chain(token).collect();
        let mut headers = vec![String::new()];
        headers.extend(calm.map(|model| format!("CALM, K = {}", model.chunk_size)));
        headers.extend(token.map(|_| "Token baseline".to_owned()));
        headers.push("Unigram".to_owned());
        headers.extend(calm.map(|_| "CALM − unigram, in SE".to_owned()));
        let mut table = Table::new(headers);
        for (n, chance) in unigram.iter().enumerate() {
            let mut row = vec![format!("Brier-{}", n + 1)];
            row.extend(
                models
                    .iter()
                    .map(|m| show::with_error(m.brier[n], m.brier_se[n])),
            );
            row.push(significant(*chance, 3));
            row.extend(calm.map(|m| show::errors(m.brier[n] - chance, m.over_unigram_se[n])));
            table.row(row);
        }
        let mut row = vec!["BrierLM".to_owned()];
        row.extend(
            models
                .iter()
                .map(|m| show::maybe_error(m.brier_lm, &m.brier_lm_se)),
        );
        row.push(show::brier_lm_of(unigram));
        row.extend(calm.map(|_| "—".to_owned()));
        table.row(row);
        Some(table)
    }

    fn costs(&self) -> Table {
        let mut table = Table::new([
            "",
            "K",
            "Parameters",
            "Training FLOP",
            "FLOP per generated token",
            "Perplexity",
        ]);
        let summary = self.records.summary.as_ref();
        let baseline = summary.and_then(|summary| summary.baseline.as_ref());
        let token = baseline.map(|model| ("Token baseline", model));
        let calm = self.records.calm().map(|model| (calm_name(model), model));
        for (name, model) in calm.into_iter().chain(token) {
            table.row([
                name.to_owned(),
                model.chunk_size.to_string(),
                show::count(model.parameters),
                show::scientific(model.train_flops, 2),
                show::scientific(model.infer_flops_per_token, 2),
                perplexity(model),
            ]);
        }
        table
    }

    fn over_unigram(&self, model: &ModelSummary) -> String {
        show::errors(
            model.brier[0] - model.unigram_brier[0],
            model.over_unigram_se[0],
        )
    }
}

/// A text under its temperature, with what stands before it.
#[derive(Template)]
#[template(path = "sample.html")]
struct Sample<'a> {
    before: &'a str,
    sample: &'a SampleText,
}

impl<'a> Sample<'a> {
    fn of(before: &'a str, sample: &'a SampleText) -> Self {
        Self { before, sample }
    }

    /// A third is stored as 0.333…: two decimals are what a reader asks for.
    fn temperature(&self) -> String {
        let text = format!("{:.2}", self.sample.temperature);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }

    fn rate(&self) -> Option<String> {
        let rate = self.sample.tokens as f64 / self.sample.seconds.filter(|s| *s > 0.0)?;
        Some(match rate {
            r if r >= 100.0 => crate::format::count(r),
            r => significant(r, 2),
        })
    }
}

#[cfg(test)]
#[path = "page_tests.rs"]
mod tests;
