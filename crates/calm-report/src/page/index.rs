//! `index.html`: the runs of a directory side by side.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use askama::Template;
use calm_records::{Error, ModelSummary, Result, RunDir, SampleText, Stage, write_atomic};

use super::{Records, Sample, html_page, perplexity};
use crate::{LineChart, Series, Table, show};

/// Writes `index.html` into `directory`: a row for every run below it, their learning curves in one
/// chart, where their configurations differ, and a text of each. Returns its path.
///
/// A run whose records can't be read is named with the reason and the others are shown.
///
/// # Errors
/// [`Error::Io`] where the directory can't be read or written, [`Error::NoRun`] where it holds no
/// run.
pub fn write_index(directory: &Path) -> Result<PathBuf> {
    let io = || Error::io("read", directory);
    let mut runs = Vec::new();
    let mut unread = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(io())? {
        let Ok(run) = RunDir::open(entry.map_err(io())?.path()) else {
            continue;
        };
        match Records::load(&run) {
            Ok(records) => runs.push(records),
            Err(error) => unread.push(format!("{}: {error}", run.name())),
        }
    }
    if runs.is_empty() && unread.is_empty() {
        let root = directory.to_owned();
        return Err(Error::NoRun { root });
    }
    let started = |records: &Records| records.info.as_ref().map(|info| info.started.clone());
    runs.sort_by_key(|records| (started(records), records.name.clone()));
    unread.sort();
    let body = Index { runs, unread }
        .render()
        .expect("writing to a string");
    let path = directory.join("index.html");
    write_atomic(&path, html_page("runs · CALM", &body).as_bytes())?;
    Ok(path)
}

#[derive(Template)]
#[template(path = "index.html")]
struct Index {
    runs: Vec<Records>,
    unread: Vec<String>,
}

impl Index {
    /// A row for every model of every run.
    fn scores(&self) -> Table {
        let mut table = Table::new([
            "run",
            "K",
            "parameters",
            "training FLOP",
            "Brier-1",
            "BrierLM",
            "perplexity",
            "tokens seen",
            "time",
        ]);
        for run in &self.runs {
            let Some(summary) = &run.summary else {
                table.row([run.name.as_str(), "not finished"]);
                continue;
            };
            let of = |model: &ModelSummary, name: String, perplexity: String| {
                vec![
                    name,
                    model.chunk_size.to_string(),
                    show::count(model.parameters),
                    show::scientific(model.train_flops, 2),
                    show::with_error(model.brier[0], model.brier_se[0]),
                    show::maybe_error(model.brier_lm, &model.brier_lm_se),
                    perplexity,
                    show::count(summary.tokens_seen),
                    show::duration(summary.wall_seconds),
                ]
            };
            if let Some(calm) = &summary.calm {
                table.row(of(calm, run.name.clone(), perplexity(calm)));
            }
            if let Some(token) = &summary.baseline {
                let name = format!("{}, token model", run.name);
                table.row(of(token, name, perplexity(token)));
            }
            if summary.calm.is_none() && summary.baseline.is_none() {
                table.row([run.name.as_str(), "no language model"]);
            }
        }
        table
    }

    /// Empty where no run was evaluated on the way.
    fn curves(&self) -> String {
        let mut chart = LineChart::new("Brier-1 over training", "tokens", "higher is better");
        for run in &self.runs {
            for (stage, what) in [(Stage::Lm, ""), (Stage::Baseline, ", token model")] {
                let of = run.evaluations(stage);
                let (points, errors): (Vec<_>, Vec<_>) = of
                    .filter_map(|p| Some(((p.tokens as f64, p.brier?[0]), p.brier_se?[0])))
                    .unzip();
                if !points.is_empty() {
                    let name = format!("{}{what}", run.name);
                    chart = chart.series(Series::new(name, points).with_errors(errors));
                }
            }
        }
        if chart.is_empty() {
            return String::new();
        }
        chart.to_figure("A band is one standard error to either side.")
    }

    /// The keys of the resolved configurations that are not the same in all runs.
    fn differences(&self) -> Table {
        let configured: Vec<(&str, BTreeMap<String, String>)> = self
            .runs
            .iter()
            .filter_map(|run| Some((run.name.as_str(), values(run.config.as_ref()?)?)))
            .collect();
        let keys: BTreeSet<&String> = configured.iter().flat_map(|(_, v)| v.keys()).collect();
        let names = configured.iter().map(|(name, _)| *name);
        let mut table = Table::new(std::iter::once("key").chain(names));
        for key in keys {
            let value = |values: &BTreeMap<String, String>| values.get(key).cloned();
            let row: Vec<_> = configured.iter().map(|(_, values)| value(values)).collect();
            if row.windows(2).any(|pair| pair[0] != pair[1]) {
                let shown = row.into_iter().map(|value| value.unwrap_or("—".to_owned()));
                table.row(std::iter::once(key.clone()).chain(shown));
            }
        }
        table
    }

    /// The text of every run whose temperature is nearest to 1/2.
    fn texts(&self) -> Vec<(String, &SampleText)> {
        let nearest = |run: &'_ Records| {
            let away = |temperature: f64| (temperature - 0.5).abs();
            let prompted = (0..run.samples.len()).filter(|&i| !run.samples[i].prompt.is_empty());
            prompted.min_by(|&a, &b| {
                let [a, b] = [a, b].map(|i| away(run.samples[i].temperature));
                a.total_cmp(&b)
            })
        };
        let runs = self.runs.iter();
        runs.filter_map(|run| Some((format!("{}, ", run.name), &run.samples[nearest(run)?])))
            .collect()
    }
}

/// The values of a resolved configuration by dotted key; `None` where it is not TOML.
fn values(config: &str) -> Option<BTreeMap<String, String>> {
    fn flatten(prefix: &str, table: &toml::Table, found: &mut BTreeMap<String, String>) {
        for (key, value) in table {
            let path = format!("{prefix}{key}");
            match value {
                toml::Value::Table(inner) => flatten(&format!("{path}."), inner, found),
                value => drop(found.insert(path, value.to_string())),
            }
        }
    }
    let mut found = BTreeMap::new();
    flatten("", &config.parse().ok()?, &mut found);
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use calm_records::examples::summary;

    #[test]
    fn runs_stand_side_by_side_and_a_damaged_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(write_index(dir.path()), Err(Error::NoRun { .. })));
        for (name, lr) in [("one #1", "1e-3"), ("two", "2e-3"), ("broken", "3e-3")] {
            let run = RunDir::create(dir.path().join(name)).unwrap();
            let config = format!("seed = 1\n\n[optim]\nlr = {lr}\nbeta1 = 0.9\n");
            std::fs::write(run.config(), config).unwrap();
            match name {
                "broken" => std::fs::write(run.summary(), "{").unwrap(),
                _ => summary().save(&run.summary()).unwrap(),
            }
        }
        let sample = r#"{"temperature": 0.5, "prompt": "A <b>", "text": " text", "tokens": 1,
            "seed": 1}"#;
        std::fs::write(dir.path().join("two/samples/a.json"), sample).unwrap();
        std::fs::write(dir.path().join("one #1/report.html"), "").unwrap();
        let page = std::fs::read_to_string(write_index(dir.path()).unwrap()).unwrap();
        for part in [
            "<h1>Runs: 2</h1>",
            "Not read:</strong> broken",
            "href=\"one%20%231/report.html\"",
            "two, token model",
            "optim.lr",
            "0.002",
            "two, T = 0.5",
            "<mark>A &#60;b&#62;</mark> text",
        ] {
            assert!(page.contains(part), "{part}");
        }
        assert!(!page.contains("two/report.html"), "a link to nothing");
        assert!(!page.contains("optim.beta1") && !page.contains("0.003"));
    }
}
