//! The headline figures.

use crate::Stage;
use crate::escape::escape;
use crate::findings::standard_errors;
use crate::format::with_error_parts;
use crate::format::{bytes, count, duration, fixed, grouped, percent, signed, significant};

use super::{Records, spoken};

struct Card {
    label: &'static str,
    value: String,
    /// Beside the value, smaller: its error or unit.
    beside: String,
    note: String,
}

fn card(label: &'static str, value: String, note: String) -> Card {
    Card {
        label,
        value,
        beside: String::new(),
        note,
    }
}

fn figure(label: &'static str, value: f64, error: f64, note: String) -> Card {
    let (value, error, power) = with_error_parts(value, error);
    let beside = match power {
        Some(power) => format!("± {error} {power}"),
        None => format!("± {error}"),
    };
    Card {
        label,
        value,
        beside,
        note,
    }
}

pub(super) fn cards(records: &Records) -> String {
    let cards = match &records.summary {
        Some(_) => of_summary(records),
        None => of_progress(records),
    };
    if cards.is_empty() {
        return String::new();
    }
    let mut html = String::from("<dl class=\"cards\">\n");
    for Card {
        label,
        value,
        beside,
        note,
    } in cards
    {
        let beside = match beside.as_str() {
            "" => String::new(),
            text => format!(" <small>{}</small>", escape(text)),
        };
        html.push_str(&format!(
            "<div><dt>{}</dt><dd class=\"value\">{}{beside}</dd><dd class=\"note\">{}</dd></div>\n",
            escape(label),
            escape(&value),
            escape(&note),
        ));
    }
    html.push_str("</dl>\n");
    html
}

fn of_summary(records: &Records) -> Vec<Card> {
    let Some(summary) = &records.summary else {
        return Vec::new();
    };
    let mut cards = Vec::new();
    if let Some(calm) = &summary.calm {
        let z = standard_errors(
            calm.brier[0] - calm.unigram_brier[0],
            calm.over_unigram_se[0],
        );
        cards.push(figure(
            "BrierLM",
            calm.brier_lm,
            calm.brier_lm_se.unwrap_or(f64::NAN),
            "0 to 100, higher is better".into(),
        ));
        cards.push(figure(
            "Brier-1",
            calm.brier[0],
            calm.brier_se[0],
            format!(
                "unigram {} · {} SE",
                significant(calm.unigram_brier[0], 3),
                signed(z, 1)
            ),
        ));
    }
    if let Some(autoencoder) = &summary.autoencoder {
        cards.push(card(
            "Tokens reconstructed",
            percent(autoencoder.token_accuracy),
            format!(
                "{} from a drawn latent",
                percent(autoencoder.noisy_token_accuracy)
            ),
        ));
    }
    if let Some(calm) = &summary.calm {
        cards.push(card(
            "Chunk size K",
            calm.chunk_size.to_string(),
            "tokens per step".into(),
        ));
        cards.push(card(
            "Parameters",
            count(calm.parameters as f64),
            "without the autoencoder".into(),
        ));
    }
    cards.push(card(
        "Training tokens",
        count(summary.tokens_seen as f64),
        "all stages together".into(),
    ));
    cards.push(card(
        "Wall time",
        duration(summary.wall_seconds),
        "from start to summary".into(),
    ));
    cards.extend(throughput(records));
    let memory = summary.peak_rss_bytes.map_or("unknown".into(), bytes);
    cards.push(card(
        "Peak memory",
        memory,
        "resident set of the process".into(),
    ));
    cards
}

/// Median throughput of the language model, or of the first other stage that ran.
fn throughput(records: &Records) -> Option<Card> {
    let stages = [Stage::Lm, Stage::Autoencoder, Stage::Baseline];
    let (stage, rate) = stages.into_iter().find_map(|stage| {
        Some((
            stage,
            median(records.rows(stage).map(|row| row.tokens_per_s))?,
        ))
    })?;
    let mut note = format!("median, {}", spoken(stage));
    if let Some(mfu) = median(records.rows(stage).filter_map(|row| row.mfu)) {
        note.push_str(&format!(" · MFU {}", percent(mfu)));
    }
    Some(Card {
        label: "Throughput",
        value: count(rate),
        beside: "tokens/s".into(),
        note,
    })
}

/// While there is no summary: where each stage stands.
fn of_progress(records: &Records) -> Vec<Card> {
    let mut cards = Vec::new();
    for (stage, label) in Stage::ALL
        .into_iter()
        .zip(["Autoencoder", "Language model", "Baseline"])
    {
        if let Some(row) = records.rows(stage).last() {
            cards.push(Card {
                label,
                value: format!("step {}", grouped(row.step)),
                beside: String::new(),
                note: format!(
                    "loss {} · {} tokens · {}",
                    if row.loss.abs() >= 1e-3 {
                        fixed(row.loss, 3)
                    } else {
                        significant(row.loss, 3)
                    },
                    count(row.tokens as f64),
                    duration(row.seconds).replace(' ', "\u{a0}"),
                ),
            });
        }
    }
    cards.extend(throughput(records));
    cards
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median([].into_iter()), None);
        assert_eq!(median([3.0, f64::NAN, 1.0, 2.0].into_iter()), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 100.0].into_iter()), Some(3.0));
    }
}
