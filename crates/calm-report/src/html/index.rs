//! `index.html`: the runs of a directory side by side.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::curves::figure;
use super::sections::one_sample;
use super::{Records, html_page};
use crate::escape::escape;
use crate::file::write_atomic;
use crate::format::{count, duration, scientific, significant, with_error};
use crate::{Error, LineChart, ModelSummary, Result, RunDir, Series, Stage, Table};

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
    let path = directory.join("index.html");
    write_atomic(&path, page(&runs, &unread).as_bytes())?;
    Ok(path)
}

fn page(runs: &[Records], unread: &[String]) -> String {
    let mut body = format!("<header><h1>Runs: {}</h1></header>\n", runs.len());
    for reason in unread {
        let reason = escape(reason);
        body.push_str(&format!(
            "<p class=\"notice\"><strong>Not read:</strong> {reason}</p>\n"
        ));
    }
    let mut section = |title: &str, content: String| {
        if !content.is_empty() {
            body.push_str(&format!(
                "<section>\n<h2>{title}</h2>\n{content}</section>\n"
            ));
        }
    };
    section("Scores and costs", scores(runs));
    section("Learning curves", curves(runs));
    section("Where the configurations differ", differences(runs));
    section("A text of each", texts(runs));
    html_page("runs · CALM", &body)
}

/// A row for every model of every run; the names are links to the reports.
fn scores(runs: &[Records]) -> String {
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
    for run in runs {
        let of = |model: &ModelSummary, name: String, perplexity: String| {
            let summary = run.summary.as_ref().expect("the model is of a summary");
            vec![
                name,
                model.chunk_size.to_string(),
                count(model.parameters as f64),
                scientific(model.train_flops, 2),
                with_error(model.brier[0], model.brier_se[0]),
                with_error(model.brier_lm, model.brier_lm_se.unwrap_or(f64::NAN)),
                perplexity,
                count(summary.tokens_seen as f64),
                duration(summary.wall_seconds),
            ]
        };
        let calm = run.summary.as_ref().and_then(|s| s.calm.as_ref());
        let baseline = run.summary.as_ref().and_then(|s| s.baseline.as_ref());
        if let Some(calm) = calm {
            table.row(of(calm, run.name.clone(), String::new()));
        }
        if let Some(token) = baseline {
            let name = format!("{}, token model", run.name);
            table.row(of(&token.model, name, significant(token.perplexity, 3)));
        }
        if calm.is_none() && baseline.is_none() {
            table.row([run.name.clone(), "not finished".to_owned()]);
        }
    }
    let links: Vec<String> = runs
        .iter()
        .filter(|run| run.has_report)
        .map(|run| {
            let name = escape(&run.name);
            format!("<a href=\"{}/report.html\">{name}</a>", url(&run.name))
        })
        .collect();
    let reports = match links.as_slice() {
        [] => String::new(),
        links => format!(" Reports: {}.", links.join(", ")),
    };
    format!(
        "<div class=\"scroll wide\">{}</div>\n<p class=\"caption\">Scores are comparable where text, \
         split, window and draws are the same.{reports}</p>\n",
        table.to_html(),
    )
}

/// The name of a directory as a part of a URL, every byte but letters, digits and `-._~` escaped.
fn url(name: &str) -> String {
    let part = |byte: u8| match byte {
        b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    name.bytes().map(part).collect()
}

fn curves(runs: &[Records]) -> String {
    let mut chart = LineChart::new("Brier-1 over training", "tokens", "higher is better");
    for run in runs {
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
        String::new()
    } else {
        figure(&chart, "A band is one standard error to either side.")
    }
}

/// The keys of the resolved configurations that are not the same in all runs.
fn differences(runs: &[Records]) -> String {
    let configured: Vec<(&str, BTreeMap<String, String>)> = runs
        .iter()
        .filter_map(|run| Some((run.name.as_str(), values(run.config.as_ref()?))))
        .collect();
    let mut keys: Vec<&String> = configured.iter().flat_map(|(_, v)| v.keys()).collect();
    keys.sort();
    keys.dedup();
    let names = configured.iter().map(|(name, _)| *name);
    let mut table = Table::new(std::iter::once("key").chain(names));
    for key in keys {
        let row: Vec<&str> = configured
            .iter()
            .map(|(_, values)| values.get(key).map_or("—", String::as_str))
            .collect();
        if row.windows(2).any(|pair| pair[0] != pair[1]) {
            table.row(std::iter::once(key.as_str()).chain(row));
        }
    }
    if table.is_empty() {
        return String::new();
    }
    format!("<div class=\"scroll wide\">{}</div>\n", table.to_html())
}

/// The values of a resolved configuration by dotted key, as they stand in it: it is written by this
/// program, one key a line.
fn values(config: &str) -> BTreeMap<String, String> {
    let mut section = String::new();
    let mut found = BTreeMap::new();
    for line in config.lines() {
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            section = format!("{name}.");
        } else if let Some((key, value)) = line.split_once(" = ") {
            found.insert(format!("{section}{key}"), value.to_owned());
        }
    }
    found
}

/// The text of every run whose temperature is nearest to 1/2.
fn texts(runs: &[Records]) -> String {
    let mut html = String::new();
    for run in runs {
        let prompted = run
            .samples
            .iter()
            .filter(|sample| !sample.prompt.is_empty());
        let nearest = prompted.min_by(|a, b| {
            let away = |temperature: f64| (temperature - 0.5).abs();
            away(a.temperature).total_cmp(&away(b.temperature))
        });
        if let Some(sample) = nearest {
            html.push_str(&one_sample(&format!("{}, ", run.name), sample));
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::tests::summary;

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
        std::fs::write(dir.path().join("two/samples/a.json"), SAMPLE).unwrap();
        std::fs::write(dir.path().join("one #1/report.html"), "").unwrap();
        let page = std::fs::read_to_string(write_index(dir.path()).unwrap()).unwrap();
        for part in [
            "<h1>Runs: 2</h1>",
            "Not read:</strong> broken",
            "href=\"one%20%231/report.html\"",
            "two, token model",
            "optim.lr",
            "2e-3",
            "two, T = 0.5",
            "<mark>A &lt;b&gt;</mark> text",
        ] {
            assert!(page.contains(part), "{part}");
        }
        assert!(!page.contains("two/report.html"), "a link to nothing");
        assert!(!page.contains("optim.beta1") && !page.contains("3e-3"));
    }

    const SAMPLE: &str = r#"{"temperature": 0.5, "prompt": "A <b>", "text": " text", "tokens": 1,
        "seed": 1}"#;
}
