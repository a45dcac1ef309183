//! The tables of the comparison's report.

use calm_report::{Table, format};

use crate::models::Model;
use crate::record::{CellRecord, Scores, SpeedRow, Technique};

pub(crate) fn scores_table(models: &[Model<'_>]) -> Table {
    let mut table = Table::new([
        "model",
        "K",
        "seeds",
        "Brier-1",
        "Brier-2",
        "Brier-3",
        "Brier-4",
        "BrierLM",
        "perplexity",
    ]);
    for model in models {
        let first = model.cells[0];
        let mut row = vec![
            model.name.to_owned(),
            first.chunk_size.to_string(),
            model.cells.len().to_string(),
        ];
        row.extend((0..4).map(|n| {
            let (value, error) = model.brier(n);
            format::with_error(value, error)
        }));
        let (value, error) = model.brier_lm();
        row.push(match (value, error) {
            (0.0, _) => "0".to_owned(),
            (value, Some(error)) => format::with_error(value, error),
            (value, None) => format!("{} ± n/a", format::significant(value, 3)),
        });
        row.push(first.perplexity().map_or("—".to_owned(), |_| {
            let mean = model
                .mean(|c| c.perplexity().unwrap_or(f64::NAN), |_| 0.0)
                .0;
            format::significant(mean, 3)
        }));
        table.row(row);
    }
    if let Some(model) = models.first() {
        let Scores { unigram, .. } = &model.cells[0].scores;
        let mut row = vec!["unigram".to_owned(), String::new(), String::new()];
        row.extend(unigram.iter().map(|&value| format::significant(value, 3)));
        table.row(row);
    }
    table
}

pub(crate) fn cost_table(models: &[Model<'_>]) -> Table {
    let mut table = Table::new([
        "model",
        "parameters",
        "training FLOP",
        "without autoencoder",
        "training time",
        "memory, training",
        "memory, decoding",
        "FLOP a token",
        "without decoder",
    ]);
    for model in models {
        let first = model.cells[0];
        let seconds = model.mean(|c| c.train_seconds, |_| 0.0).0;
        table.row([
            model.name.to_owned(),
            format::count(first.parameters as f64),
            format::scientific(first.train_flops, 2),
            format::scientific(first.train_flops_without_autoencoder, 2),
            format::duration(seconds),
            first.peak_rss_bytes.map_or("—".to_owned(), format::bytes),
            first
                .decoding_rss_bytes
                .map_or("—".to_owned(), format::bytes),
            format::scientific(first.infer_flops_per_token, 2),
            format::scientific(first.infer_flops_per_token_without_autoencoder, 2),
        ]);
    }
    table
}

pub(crate) fn speed_table(models: &[Model<'_>]) -> Table {
    let batches: Vec<usize> = models.first().map_or(Vec::new(), |m| {
        m.cells[0].speed.iter().map(|s| s.batch).collect()
    });
    let mut headers = vec![
        "model".to_owned(),
        "steps per 1,000 tokens".to_owned(),
        "cache bytes a token".to_owned(),
    ];
    headers.extend(batches.iter().map(|b| format!("first token, batch {b}")));
    headers.extend(batches.iter().map(|b| format!("tokens/s, batch {b}")));
    let mut table = Table::new(headers);
    for model in models {
        let first: &CellRecord = model.cells[0];
        let shown = |show: &dyn Fn(&SpeedRow) -> String| -> Vec<String> {
            let at = |&batch: &usize| first.speed_at(batch).map_or("—".to_owned(), show);
            batches.iter().map(at).collect()
        };
        let steps = |s: &SpeedRow| format::fixed(s.steps_per_1000_tokens, 0);
        let mut row = vec![
            model.name.to_owned(),
            first.speed.first().map_or("—".to_owned(), steps),
            format::grouped(first.cache_bytes_per_token.round() as u64),
        ];
        row.extend(shown(&|s| {
            format!("{:.1} ms", 1000.0 * s.first_token_seconds)
        }));
        row.extend(shown(&|s| format::grouped(s.tokens_per_s.round() as u64)));
        table.row(row);
    }
    table
}

pub(crate) fn technique_table(techniques: &[Technique]) -> Table {
    let mut table = Table::new([
        "way",
        "measured",
        "ratio",
        "to",
        "steps per 1,000 tokens",
        "of the draft",
        "accepted",
        "cache bytes a token",
    ]);
    let optional = |value: Option<f64>, show: fn(f64) -> String| value.map_or("—".into(), show);
    for t in techniques {
        table.row([
            t.name.clone(),
            format!("{} {}", format::significant(t.rate, 3), t.unit),
            format::significant(t.ratio, 3),
            t.compared_with.clone(),
            optional(t.steps_per_1000_tokens, |s| format::fixed(s, 0)),
            optional(t.draft_steps_per_1000_tokens, |s| format::fixed(s, 0)),
            optional(t.acceptance, format::percent),
            optional(t.cache_bytes_per_token, |b| {
                format::grouped(b.round() as u64)
            }),
        ]);
    }
    table
}

/// Mechanism, effect and limit of a technique in a sentence.
pub(crate) fn described(t: &Technique) -> String {
    format!(
        "{}: {}. Effect: {} times {}. Distribution of the text: {}. Limit: {}.",
        t.name,
        t.mechanism,
        format::significant(t.ratio, 2),
        t.compared_with,
        t.distribution,
        t.limit,
    )
}
