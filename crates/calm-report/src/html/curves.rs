//! The curves of a run.

use crate::escape::escape;
use crate::format::{fixed, grouped, significant};
use crate::{EvalPoint, LineChart, MetricRow, Protocol, Scale, Series, Stage};

use super::{Records, spoken};

const X: &str = "tokens";

/// A part of a loss: its name and where it stands in a row.
type Term = (&'static str, fn(&MetricRow) -> Option<f64>);

pub(super) fn curves(records: &Records) -> String {
    let main: Vec<_> = [
        loss(records, Stage::Autoencoder),
        reconstruction(records),
        loss(records, Stage::Lm),
        brier_1(records),
        brier_lm(records),
        loss(records, Stage::Baseline),
    ]
    .into_iter()
    .flatten()
    .collect();
    let more: Vec<_> = [
        autoencoder_terms(records),
        energy_terms(records),
        by_stage(
            records,
            stages("Throughput", "tokens per second"),
            false,
            |row| row.tokens_per_s,
        ),
        by_stage(
            records,
            stages("Gradient norm", "global norm before clipping")
                .scales(Scale::Linear, Scale::Log),
            true,
            |row| row.grad_norm,
        ),
        by_stage(
            records,
            stages("Learning rate", "per optimizer step"),
            false,
            |row| row.lr,
        ),
    ]
    .into_iter()
    .flatten()
    .collect();
    let mut html = String::from("<section>\n<h2>Curves</h2>\n");
    if main.is_empty() {
        html.push_str("<p class=\"empty\">No steps or evaluations have been logged yet.</p>\n");
    }
    html.push_str(&main.concat());
    if !more.is_empty() {
        html.push_str(&format!(
            "<details><summary>More curves: loss terms, throughput, gradient norm, learning \
             rate</summary>\n{}</details>\n",
            more.concat()
        ));
    }
    html.push_str("</section>\n");
    html
}

pub(super) fn figure(chart: &LineChart, caption: &str) -> String {
    let svg = chart.to_inline_svg();
    let caption = match caption {
        "" => String::new(),
        text => format!("<figcaption>{}</figcaption>\n", escape(text)),
    };
    format!("<figure>\n{svg}{caption}</figure>\n")
}

/// Points of a figure over the tokens seen, where it was logged.
fn over_tokens<'a>(
    rows: impl Iterator<Item = &'a MetricRow>,
    value: impl Fn(&MetricRow) -> Option<f64>,
) -> Vec<(f64, f64)> {
    rows.filter_map(|row| Some((row.tokens as f64, value(row)?)))
        .collect()
}

/// Smoothed where there are enough points for an average to mean anything, with the weight used.
fn smoothed(name: &str, points: Vec<(f64, f64)>) -> (Series, Option<f64>) {
    let count = points.len() as f64;
    let series = Series::new(name, points);
    if count < 30.0 {
        return (series, None);
    }
    // The average then spans about a sixtieth of the run: a wider one would lag visibly.
    let weight = (1.0 - 60.0 / count).clamp(0.5, 0.99);
    (series.smoothed(weight), Some(weight))
}

fn smoothing_note(weight: Option<f64>) -> String {
    weight.map_or(String::new(), |weight| {
        format!(
            " Faint: every logged step; strong: exponential moving average of weight {}.",
            fixed(weight, 2)
        )
    })
}

/// Logarithmic where the values span more than a factor of 30, all of them positive.
fn fitting_scale(points: &[(f64, f64)]) -> Scale {
    let values = || points.iter().map(|p| p.1).filter(|v| v.is_finite());
    let (low, high) = (
        values().fold(f64::MAX, f64::min),
        values().fold(0.0, f64::max),
    );
    if low > 0.0 && high > 30.0 * low {
        Scale::Log
    } else {
        Scale::Linear
    }
}

fn loss(records: &Records, stage: Stage) -> Option<String> {
    let points = over_tokens(records.rows(stage), |row| Some(row.loss));
    if points.is_empty() {
        return None;
    }
    let energy = records.rows(stage).any(|row| row.attraction.is_some());
    let (title, label, caption) = match stage {
        Stage::Autoencoder => (
            "Autoencoder: training loss",
            "reconstruction and weighted KL, nats per chunk",
            "Measured under training noise (dropout, masked tokens).",
        ),
        Stage::Lm => (
            "Language model: training loss",
            if energy {
                "energy score, lower is better"
            } else {
                "loss of the generative head"
            },
            "Comparable only over the same frozen autoencoder; not a measure of text quality.",
        ),
        Stage::Baseline => (
            "Token baseline: training loss",
            "cross-entropy, nats per token",
            "",
        ),
    };
    let scale = fitting_scale(&points);
    let (series, weight) = smoothed("training", points);
    let chart = LineChart::new(title, X, label)
        .scales(Scale::Linear, scale)
        .series(series);
    Some(figure(
        &chart,
        format!("{caption}{}", smoothing_note(weight)).trim(),
    ))
}

fn reconstruction(records: &Records) -> Option<String> {
    let held_out = |value: fn(&EvalPoint) -> Option<f64>| -> Vec<(f64, f64)> {
        let points = records.evaluations(Stage::Autoencoder);
        points
            .filter_map(|p| Some((p.tokens as f64, value(p)?)))
            .collect()
    };
    let exact = held_out(|p| p.token_accuracy);
    let noisy = held_out(|p| p.noisy_token_accuracy);
    let batches = over_tokens(records.rows(Stage::Autoencoder), |row| row.token_accuracy);
    let mut chart =
        LineChart::new("Autoencoder: tokens reconstructed", X, "share of tokens").percent();
    let mut caption = String::new();
    for (name, points) in [
        ("held-out, posterior mean", exact),
        ("held-out, drawn latent", noisy),
    ] {
        if !points.is_empty() {
            chart = chart.series(Series::new(name, points).with_dots());
        }
    }
    if !batches.is_empty() {
        let (series, weight) = smoothed("training batches, with noise", batches);
        chart = chart.series(series);
        caption = smoothing_note(weight);
    }
    (!chart.is_empty()).then(|| figure(&chart, caption.trim()))
}

fn brier_1(records: &Records) -> Option<String> {
    let unigram = records.summary.as_ref().and_then(|summary| {
        let model = summary
            .calm
            .as_ref()
            .or(summary.baseline.as_ref().map(|b| &b.model))?;
        Some(model.unigram_brier[0])
    });
    let value = |p: &EvalPoint| Some((p.brier?[0], p.brier_se.map_or(f64::NAN, |se| se[0])));
    let chart = LineChart::new("Brier-1 over training", X, "higher is better");
    scores(records, chart, value, unigram)
}

fn brier_lm(records: &Records) -> Option<String> {
    let value = |p: &EvalPoint| Some((p.brier_lm?, p.brier_lm_se.unwrap_or(f64::NAN)));
    let chart = LineChart::new("BrierLM over training", X, "0 to 100, higher is better");
    scores(records, chart.within(0.0, 100.0), value, None)
}

/// A score of both kinds of model, with its error.
fn scores(
    records: &Records,
    mut chart: LineChart,
    value: impl Fn(&EvalPoint) -> Option<(f64, f64)>,
    unigram: Option<f64>,
) -> Option<String> {
    for (stage, name) in [(Stage::Lm, "CALM"), (Stage::Baseline, "token baseline")] {
        let (points, errors): (Vec<_>, Vec<_>) = records
            .evaluations(stage)
            .filter_map(|p| value(p).map(|(v, error)| ((p.tokens as f64, v), error)))
            .unzip();
        if !points.is_empty() {
            chart = chart.series(Series::new(name, points).with_errors(errors).with_dots());
        }
    }
    if chart.is_empty() {
        return None;
    }
    if let Some(unigram) = unigram.filter(|u| u.is_finite()) {
        chart = chart.reference(unigram, format!("unigram {}", significant(unigram, 3)));
    }
    let band = "Band: one standard error on either side.";
    Some(figure(&chart, &format!("{band}{}", protocol_note(records))))
}

/// The protocol of the points along the way, where it is not that of the final figures.
fn protocol_note(records: &Records) -> String {
    let along = records.evaluations.iter().rev().find_map(|p| p.protocol);
    let last = records.summary.as_ref().and_then(|s| s.protocol);
    match along {
        Some(p) if last != along => format!(" {}", describe(&p)),
        _ => String::new(),
    }
}

fn describe(protocol: &Protocol) -> String {
    format!(
        "Along the way: {}, windows of {} tokens, {} positions, {} draws (the final figures have \
         their own protocol).",
        protocol.part.name(),
        protocol.window_tokens,
        grouped(protocol.positions),
        protocol.draws,
    )
}

fn autoencoder_terms(records: &Records) -> Option<String> {
    let terms: [Term; 2] = [
        ("reconstruction", |row| row.reconstruction),
        ("KL, unweighted", |row| row.kl),
    ];
    terms_chart(
        records,
        Stage::Autoencoder,
        "Autoencoder: terms of the loss",
        "nats per chunk",
        terms,
    )
}

fn energy_terms(records: &Records) -> Option<String> {
    let terms: [Term; 2] = [
        ("attraction: samples to targets", |row| row.attraction),
        ("repulsion: samples among themselves", |row| row.repulsion),
    ];
    terms_chart(
        records,
        Stage::Lm,
        "Language model: terms of the energy score",
        "distance",
        terms,
    )
}

fn terms_chart(
    records: &Records,
    stage: Stage,
    title: &str,
    label: &str,
    terms: [Term; 2],
) -> Option<String> {
    let curves = terms.map(|(name, value)| (name, over_tokens(records.rows(stage), value)));
    let all: Vec<_> = curves
        .iter()
        .flat_map(|(_, points)| points)
        .copied()
        .collect();
    let mut chart = LineChart::new(title, X, label).scales(Scale::Linear, fitting_scale(&all));
    for (name, points) in curves {
        if !points.is_empty() {
            chart = chart.series(smoothed(name, points).0);
        }
    }
    (!chart.is_empty()).then(|| figure(&chart, ""))
}

/// An empty chart for one figure of every stage.
fn stages(title: &str, label: &str) -> LineChart {
    LineChart::new(title, "tokens of the stage", label).height(260.0)
}

fn by_stage(
    records: &Records,
    mut chart: LineChart,
    smooth: bool,
    value: fn(&MetricRow) -> f64,
) -> Option<String> {
    for stage in Stage::ALL {
        let points = over_tokens(records.rows(stage), |row| Some(value(row)));
        if points.is_empty() {
            continue;
        }
        chart = chart.series(match smooth {
            true => smoothed(spoken(stage), points).0,
            false => Series::new(spoken(stage), points),
        });
    }
    (!chart.is_empty()).then(|| figure(&chart, ""))
}
