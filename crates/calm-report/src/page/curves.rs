//! The curves of a run, as figures.

use calm_records::{EvalPoint, MetricRow, Stage};

use super::{Records, spoken};
use crate::format::{fixed, grouped, significant};
use crate::{LineChart, Scale, Series};

const X: &str = "tokens";

/// A part of a loss: its name and where it stands in a row.
type Term = (&'static str, fn(&MetricRow) -> Option<f64>);

/// What a run is judged by.
pub(super) fn main(records: &Records) -> Vec<String> {
    let brier_1 = LineChart::new("Brier-1 over training", X, "higher is better");
    let brier_lm = LineChart::new("BrierLM over training", X, "0 to 100, higher is better");
    let unigram = records.summary.as_ref().and_then(|summary| {
        let token = summary.baseline.as_ref();
        Some(summary.calm.as_ref().or(token)?.unigram_brier[0])
    });
    let figures = [
        loss(records, Stage::Autoencoder),
        reconstruction(records),
        loss(records, Stage::Lm),
        scores(records, brier_1, unigram, |p| {
            Some((p.brier?[0], p.brier_se.map_or(f64::NAN, |se| se[0])))
        }),
        scores(records, brier_lm.within(0.0, 100.0), None, |p| {
            Some((p.brier_lm?, p.brier_lm_se.unwrap_or(f64::NAN)))
        }),
        loss(records, Stage::Baseline),
    ];
    figures.into_iter().flatten().collect()
}

/// What one looks up when something is wrong.
pub(super) fn more(records: &Records) -> Vec<String> {
    let autoencoder: [Term; 2] = [
        ("reconstruction", |row| row.reconstruction),
        ("KL, unweighted", |row| row.kl),
    ];
    let energy: [Term; 2] = [
        ("attraction: samples to targets", |row| row.attraction),
        ("repulsion: samples among themselves", |row| row.repulsion),
    ];
    let tokens: [Term; 3] = [
        ("log score, nats a chunk", |row| row.log_score),
        ("Brier loss", |row| row.brier_loss),
        ("auxiliary heads, nats a token", |row| row.auxiliary),
    ];
    let stages = |title, label| LineChart::new(title, "tokens of the stage", label);
    let norm = stages("Gradient norm", "global norm before clipping");
    let norm = norm.scales(Scale::Linear, Scale::Log);
    let speed = stages("Throughput", "tokens per second");
    let rate = stages("Learning rate", "per optimizer step");
    let figures = [
        terms(
            records,
            Stage::Autoencoder,
            LineChart::new("Autoencoder: terms of the loss", X, "nats per chunk"),
            autoencoder,
        ),
        terms(
            records,
            Stage::Lm,
            LineChart::new("Language model: terms of the energy score", X, "distance"),
            energy,
        ),
        terms(
            records,
            Stage::Lm,
            LineChart::new("Language model: scores of the next tokens", X, "unweighted"),
            tokens,
        ),
        by_stage(records, speed, false, |row| row.tokens_per_s),
        by_stage(records, norm, true, |row| row.grad_norm),
        by_stage(records, rate, false, |row| row.lr),
    ];
    figures.into_iter().flatten().collect()
}

fn drawn(chart: &LineChart, caption: &str) -> Option<String> {
    (!chart.is_empty()).then(|| chart.to_figure(caption.trim()))
}

/// Points of a figure over the tokens seen, where it was logged.
fn over_tokens<'a>(
    rows: impl Iterator<Item = &'a MetricRow>,
    value: impl Fn(&MetricRow) -> Option<f64>,
) -> Vec<(f64, f64)> {
    let points = rows.map(|row| Some((row.tokens as f64, value(row)?)));
    points.flatten().collect()
}

/// Smoothed where there are enough points for an average to mean anything; the note says how.
fn smoothed(name: &str, points: Vec<(f64, f64)>) -> (Series, String) {
    let count = points.len() as f64;
    let series = Series::new(name, points);
    if count < 30.0 {
        return (series, String::new());
    }
    // The average then spans about a sixtieth of the run: a wider one would lag visibly.
    let weight = (1.0 - 60.0 / count).clamp(0.5, 0.99);
    let note = format!(
        " Faint: every logged step; strong: exponential moving average of weight {}.",
        fixed(weight, 2)
    );
    (series.smoothed(weight), note)
}

/// Logarithmic where the values span more than a factor of 30, all of them positive.
fn fitting_scale<'a>(points: impl Iterator<Item = &'a (f64, f64)>) -> Scale {
    let values = points.map(|p| p.1).filter(|v| v.is_finite());
    let (low, high) = values.fold((f64::MAX, 0.0_f64), |(l, h), v| (l.min(v), h.max(v)));
    if low > 0.0 && high > 30.0 * low {
        Scale::Log
    } else {
        Scale::Linear
    }
}

fn loss(records: &Records, stage: Stage) -> Option<String> {
    let points = over_tokens(records.rows(stage), |row| Some(row.loss));
    let energy = records.rows(stage).any(|row| row.attraction.is_some());
    let weighted = records.rows(stage).any(|row| {
        let others = [row.auxiliary, row.log_score, row.brier_loss];
        others.iter().any(Option::is_some)
    });
    let (title, label, caption) = match stage {
        Stage::Autoencoder => (
            "Autoencoder: training loss",
            "reconstruction and weighted KL, nats per chunk",
            "Measured under training noise (dropout, masked tokens).",
        ),
        Stage::Lm if records.calm().is_some_and(|calm| calm.perplexity.is_some()) => (
            "Language model: training loss",
            "cross-entropy, nats per token",
            "",
        ),
        Stage::Lm => (
            "Language model: training loss",
            match (energy, weighted) {
                (true, false) => "energy score, lower is better",
                (false, false) => "loss of the generative head",
                (_, true) => "weighted sum of its terms",
            },
            "Comparable only over the same frozen autoencoder; not a measure of text quality.",
        ),
        Stage::Baseline => (
            "Token baseline: training loss",
            "cross-entropy, nats per token",
            "",
        ),
    };
    if points.is_empty() {
        return None;
    }
    let scale = fitting_scale(points.iter());
    let (series, note) = smoothed("training", points);
    let chart = LineChart::new(title, X, label).scales(Scale::Linear, scale);
    drawn(&chart.series(series), &format!("{caption}{note}"))
}

fn reconstruction(records: &Records) -> Option<String> {
    type Share = fn(&EvalPoint) -> Option<f64>;
    let held_out: [(&str, Share); 2] = [
        ("held-out, posterior mean", |p| p.token_accuracy),
        ("held-out, drawn latent", |p| p.noisy_token_accuracy),
    ];
    let mut chart =
        LineChart::new("Autoencoder: tokens reconstructed", X, "share of tokens").percent();
    for (name, share) in held_out {
        let points = records.evaluations(Stage::Autoencoder);
        let points: Vec<_> = points
            .filter_map(|p| Some((p.tokens as f64, share(p)?)))
            .collect();
        if !points.is_empty() {
            chart = chart.series(Series::new(name, points).with_dots());
        }
    }
    let batches = over_tokens(records.rows(Stage::Autoencoder), |row| row.token_accuracy);
    let mut caption = String::new();
    if !batches.is_empty() {
        let (series, note) = smoothed("training batches, with noise", batches);
        (chart, caption) = (chart.series(series), note);
    }
    drawn(&chart, &caption)
}

/// A score of both kinds of model, with its error.
fn scores(
    records: &Records,
    mut chart: LineChart,
    unigram: Option<f64>,
    value: impl Fn(&EvalPoint) -> Option<(f64, f64)>,
) -> Option<String> {
    for (stage, name) in [(Stage::Lm, "CALM"), (Stage::Baseline, "token baseline")] {
        let points = records.evaluations(stage);
        let (points, errors): (Vec<_>, Vec<_>) = points
            .filter_map(|p| value(p).map(|(v, error)| ((p.tokens as f64, v), error)))
            .unzip();
        if !points.is_empty() {
            chart = chart.series(Series::new(name, points).with_errors(errors).with_dots());
        }
    }
    if let Some(unigram) = unigram.filter(|u| u.is_finite()) {
        chart = chart.reference(unigram, format!("unigram {}", significant(unigram, 3)));
    }
    let band = "Band: one standard error on either side.";
    drawn(&chart, &format!("{band}{}", protocol_note(records)))
}

/// The protocol of the points along the way, where it is not that of the final figures.
fn protocol_note(records: &Records) -> String {
    let along = records.evaluations.iter().rev().find_map(|p| p.protocol);
    let last = records.summary.as_ref().and_then(|s| s.protocol);
    let Some(p) = along.filter(|_| last != along) else {
        return String::new();
    };
    format!(
        " Along the way: {}, windows of {} tokens, {} positions, {} draws (the final figures have \
         their own protocol).",
        p.part.name(),
        p.window_tokens,
        grouped(p.positions),
        p.draws,
    )
}

fn terms<const N: usize>(
    records: &Records,
    stage: Stage,
    chart: LineChart,
    terms: [Term; N],
) -> Option<String> {
    let curves = terms.map(|(name, value)| (name, over_tokens(records.rows(stage), value)));
    let scale = fitting_scale(curves.iter().flat_map(|(_, points)| points));
    let curves = curves.into_iter().filter(|(_, points)| !points.is_empty());
    let chart = curves.fold(
        chart.scales(Scale::Linear, scale),
        |chart, (name, points)| chart.series(smoothed(name, points).0),
    );
    drawn(&chart, "")
}

fn by_stage(
    records: &Records,
    mut chart: LineChart,
    smooth: bool,
    value: fn(&MetricRow) -> f64,
) -> Option<String> {
    for stage in Stage::ALL {
        let points = over_tokens(records.rows(stage), |row| Some(value(row)));
        if !points.is_empty() {
            chart = chart.series(match smooth {
                true => smoothed(spoken(stage), points).0,
                false => Series::new(spoken(stage), points),
            });
        }
    }
    drawn(&chart, "")
}
