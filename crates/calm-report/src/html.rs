//! `report.html`: one file that needs nothing else, no script and no network.

mod cards;
mod curves;
mod index;
mod sections;

use std::path::{Path, PathBuf};

use crate::escape::escape;
use crate::file::write_atomic;
use crate::format::{count, duration};
use crate::{
    CHART_CSS, Error, EvalPoint, MetricRow, Result, RunDir, RunInfo, SampleText, Stage, Summary,
    findings, load_samples, read_jsonl_lenient,
};

pub use index::write_index;

const STYLE: &str = include_str!("html/style.css");

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
        self.evaluations
            .iter()
            .filter(move |point| point.stage == stage)
    }

    /// What a complete report would have besides.
    fn missing(&self) -> Vec<&'static str> {
        let scores = |s: &Summary| s.calm.is_some() || s.baseline.is_some();
        let checks = [
            (
                self.summary.is_none(),
                "the final evaluation (summary.json)",
            ),
            (
                self.summary.as_ref().is_some_and(|s| !scores(s)),
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
        checks
            .into_iter()
            .filter_map(|(missing, what)| missing.then_some(what))
            .collect()
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
    Ok(page(&Records::load(run)?))
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

fn page(records: &Records) -> String {
    let found = records.summary.as_ref().map(findings);
    let mut body = header(records);
    if let Some(summary) = &records.summary {
        body.push_str(&format!(
            "<p class=\"lead\">{}</p>\n",
            sections::prose(&lead(summary))
        ));
    }
    let missing = records.missing();
    if !missing.is_empty() {
        let items = missing.join("; ");
        body.push_str(&format!(
            "<p class=\"notice\"><strong>Not in this report:</strong> {}.</p>\n",
            escape(&items)
        ));
    }
    body.push_str(&cards::cards(records));
    body.push_str(&sections::findings(found.as_ref()));
    body.push_str(&sections::scores(records));
    body.push_str(&curves::curves(records));
    body.push_str(&sections::samples(records));
    body.push_str(&sections::configuration(records));
    body.push_str(&sections::machine(records));
    html_page(&format!("{} · CALM run", records.name), &body)
}

/// A whole page in the style of the reports around `body`, which is HTML; it loads nothing.
pub fn html_page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta http-equiv=\"Content-Security-Policy\" \
         content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{}</title>\n<style>\n{STYLE}{CHART_CSS}</style>\n</head>\n<body>\n\
         <main>\n{body}<footer>calm-report {}</footer>\n</main>\n</body>\n</html>\n",
        escape(title),
        env!("CARGO_PKG_VERSION"),
    )
}

/// A stage as a reader calls it.
fn spoken(stage: Stage) -> &'static str {
    match stage {
        Stage::Autoencoder => "autoencoder",
        Stage::Lm => "language model",
        Stage::Baseline => "token baseline",
    }
}

/// What the run is, in one sentence.
fn lead(summary: &Summary) -> String {
    let tokens = count(summary.tokens_seen as f64);
    let spent = format!(
        "trained on {tokens} tokens in {}",
        duration(summary.wall_seconds)
    );
    let what = match (&summary.calm, &summary.baseline) {
        (Some(calm), baseline) => format!(
            "A CALM that writes {} tokens a step, with {} parameters{}",
            calm.chunk_size,
            count(calm.parameters as f64),
            if baseline.is_some() {
                ", beside a token baseline"
            } else {
                ""
            },
        ),
        (None, Some(baseline)) => format!(
            "A token baseline with {} parameters",
            count(baseline.model.parameters as f64)
        ),
        (None, None) => "A chunk autoencoder".to_owned(),
    };
    format!("{what}, {spent}.")
}

fn header(records: &Records) -> String {
    let mut facts = Vec::new();
    if let Some(summary) = &records.summary {
        facts.push(format!("preset {}", summary.preset));
    }
    let device = records.info.as_ref().map(|info| &info.device);
    if let Some(device) = device.or(records.summary.as_ref().map(|s| &s.device)) {
        facts.push(format!("device {device}"));
    }
    if let Some(info) = &records.info {
        facts.push(format!("seed {}", info.seed));
        facts.push(format!(
            "started {}",
            info.started.replace('T', " ").replace('Z', " UTC")
        ));
    }
    let facts: Vec<_> = facts
        .iter()
        .map(|f| format!("<span>{}</span>", escape(f)))
        .collect();
    format!(
        "<header>\n<p class=\"kicker\">Continuous autoregressive language model</p>\n\
         <h1>{}</h1>\n<p class=\"facts\">{}</p>\n</header>\n",
        escape(&records.name),
        facts.join(" "),
    )
}

#[cfg(test)]
#[path = "html_tests.rs"]
mod tests;
