//! The sections of the report besides cards and curves.

use crate::escape::escape;
use crate::findings::{Findings, brier_lm_of, standard_errors};
use crate::format::{
    bytes, count, duration, fixed, grouped, scientific, signed, significant, with_error,
};
use crate::{Align, ModelSummary, SampleText, Table};

use super::Records;

pub(super) fn findings(found: Option<&Findings>) -> String {
    let mut html = String::from("<section>\n<h2>What this shows and what it does not</h2>\n");
    match found {
        Some(found) => {
            if !found.shows.is_empty() {
                html.push_str(&list("It shows", "shows", &found.shows));
            }
            html.push_str(&list("It does not show", "limits", &found.does_not_show));
        }
        None => html.push_str(
            "<p class=\"empty\">Nothing yet: this run has no final evaluation. Losses that fall \
             say that training works, not that the model is good.</p>\n",
        ),
    }
    html.push_str("</section>\n");
    html
}

fn list(title: &str, class: &str, items: &[String]) -> String {
    let items: Vec<_> = items
        .iter()
        .map(|item| match item.split_once(". ") {
            // "Whether X. Explanation": the first sentence names the thing.
            Some((head, rest)) if class == "limits" => {
                format!(
                    "<li><strong>{}.</strong> {}</li>\n",
                    prose(head),
                    prose(rest)
                )
            }
            _ => format!("<li>{}</li>\n", prose(item)),
        })
        .collect();
    format!(
        "<h3>{title}</h3>\n<ul class=\"{class}\">\n{}</ul>\n",
        items.concat()
    )
}

/// Escaped running text in which a line never breaks between a number and its unit or error.
pub(super) fn prose(text: &str) -> String {
    let characters: Vec<_> = text.chars().collect();
    let joins = |i: usize| {
        let at = |i: usize| characters.get(i).copied().unwrap_or(' ');
        let prefix = "kMGTK".contains(at(i + 1)) && !at(i + 2).is_alphabetic();
        (i > 0 && at(i - 1).is_ascii_digit() && ("%±×".contains(at(i + 1)) || prefix))
            || (i > 0 && "±×=".contains(at(i - 1)))
    };
    let joined: String = characters
        .iter()
        .enumerate()
        .map(|(i, &c)| if c == ' ' && joins(i) { '\u{a0}' } else { c })
        .collect();
    escape(&joined)
}

pub(super) fn scores(records: &Records) -> String {
    let Some(summary) = &records.summary else {
        return String::new();
    };
    let calm = summary.calm.as_ref();
    let baseline = summary.baseline.as_ref();
    let Some(reference) = calm.or(baseline.map(|b| &b.model)) else {
        return String::new();
    };

    let unigram = &reference.unigram_brier;
    let mut headers = vec![String::new()];
    headers.extend(calm.map(|model| format!("CALM, K = {}", model.chunk_size)));
    headers.extend(baseline.map(|_| "Token baseline".to_owned()));
    headers.push("Unigram".to_owned());
    headers.extend(calm.map(|_| "CALM − unigram, in SE".to_owned()));
    let mut brier = Table::new(headers);
    let models = || calm.into_iter().chain(baseline.map(|b| &b.model));
    for (i, &chance) in unigram.iter().enumerate() {
        let mut row = vec![format!("Brier-{}", i + 1)];
        row.extend(models().map(|model| with_error(model.brier[i], model.brier_se[i])));
        row.push(significant(chance, 3));
        row.extend(calm.map(|model| {
            signed(
                standard_errors(model.brier[i] - chance, model.over_unigram_se[i]),
                1,
            )
        }));
        brier.row(row);
    }
    let mut row = vec!["BrierLM".to_owned()];
    row.extend(
        models().map(|model| with_error(model.brier_lm, model.brier_lm_se.unwrap_or(f64::NAN))),
    );
    row.push(significant(brier_lm_of(unigram), 3));
    row.extend(calm.map(|_| "—".to_owned()));
    brier.row(row);

    let mut costs = Table::new([
        "",
        "K",
        "Parameters",
        "Training FLOP",
        "FLOP per generated token",
        "Perplexity",
    ]);
    if let Some(model) = calm {
        costs.row(cost_row("CALM", model, "—".into()));
    }
    if let Some(baseline) = baseline {
        let perplexity = significant(baseline.perplexity, 3);
        costs.row(cost_row("Token baseline", &baseline.model, perplexity));
    }

    let protocol = match &summary.protocol {
        Some(p) => {
            let mut table = Table::new(["", ""]);
            table
                .row(["Text".to_owned(), p.part.name().to_owned()])
                .row([
                    "Window".to_owned(),
                    format!("{} tokens", grouped(p.window_tokens as u64)),
                ])
                .row(["Positions scored".to_owned(), grouped(p.positions)])
                .row([
                    "Draws per position".to_owned(),
                    format!("{} (every pair enters the estimate)", p.draws),
                ])
                .row(["Seed of the draws".to_owned(), p.seed.to_string()]);
            facts(table)
        }
        None => "<p class=\"empty\">The protocol was not stored with the figures.</p>\n".into(),
    };
    format!(
        "<section>\n<h2>Scores and their protocol</h2>\n<div class=\"scroll\">{}</div>\n\
         <p class=\"caption\">Value ± standard error. Brier-n scores the next n tokens as one \
         outcome; BrierLM is 100 times the geometric mean of the four, and 0 as soon as one of \
         them is not positive. SE: the standard error of the difference, paired by window.</p>\n{protocol}<h3>Size and cost</h3>\n\
         <div class=\"scroll\">{}</div>\n<p class=\"caption\">FLOP per generated token: one sample \
         a step, temperature 1. A perplexity exists only for the token model: CALM has no \
         likelihood.</p>\n</section>\n",
        brier.to_html(),
        costs.to_html(),
    )
}

fn cost_row(name: &str, model: &ModelSummary, perplexity: String) -> Vec<String> {
    vec![
        name.to_owned(),
        model.chunk_size.to_string(),
        count(model.parameters as f64),
        scientific(model.train_flops, 2),
        scientific(model.infer_flops_per_token, 2),
        perplexity,
    ]
}

/// A table of names and values without a header.
fn facts(table: Table) -> String {
    let html = table.align([Align::Left, Align::Left]).to_html();
    format!("<div class=\"facts-table\">{html}</div>\n")
}

pub(super) fn samples(records: &Records) -> String {
    let mut html = String::from("<section>\n<h2>Sample text</h2>\n");
    if records.samples.is_empty() {
        html.push_str("<p class=\"empty\">No text has been generated in this run.</p>\n");
    } else {
        html.push_str(
            "<p class=\"caption\">Every text stored with the run, unedited. The prompt is marked; line \
             breaks are the model’s.</p>\n",
        );
    }
    records
        .samples
        .iter()
        .for_each(|sample| html.push_str(&one_sample("", sample)));
    html.push_str("</section>\n");
    html
}

/// A text under its temperature, which `before` stands before.
pub(super) fn one_sample(before: &str, sample: &SampleText) -> String {
    // A third is stored as 0.333…: two decimals are what a reader asks for.
    let temperature = fixed(sample.temperature, 2);
    let temperature = temperature.trim_end_matches('0').trim_end_matches('.');
    let mut facts = vec![format!("{} tokens", grouped(sample.tokens))];
    facts.extend(sample.sampler.clone());
    facts.push(format!("seed {}", sample.seed));
    if let Some(seconds) = sample.seconds {
        facts.push(duration(seconds));
        if seconds > 0.0 {
            facts.push(format!(
                "{} tokens/s",
                significant_rate(sample.tokens as f64 / seconds)
            ));
        }
    }
    let prompt = match sample.prompt.as_str() {
        "" => String::new(),
        prompt => format!("<mark>{}</mark>", escape(prompt)),
    };
    let text = match sample.text.as_str() {
        "" => "<em>(the model ended the text at once)</em>".to_owned(),
        text => escape(text),
    };
    format!(
        "<article class=\"sample\">\n<h3>{}T = {} <small>{}</small></h3>\n\
         <div class=\"text\">{prompt}{text}</div>\n</article>\n",
        escape(before),
        escape(temperature),
        escape(&facts.join(" · ")),
    )
}

fn significant_rate(rate: f64) -> String {
    if rate >= 100.0 {
        count(rate)
    } else {
        significant(rate, 2)
    }
}

pub(super) fn configuration(records: &Records) -> String {
    let body = match &records.config {
        Some(config) => format!(
            "<details><summary>config.toml, as resolved before the first step</summary>\n\
             <pre>{}</pre>\n</details>\n",
            escape(config.trim_end())
        ),
        None => "<p class=\"empty\">The run directory holds no config.toml.</p>\n".to_owned(),
    };
    format!("<section>\n<h2>Configuration</h2>\n{body}</section>\n")
}

pub(super) fn machine(records: &Records) -> String {
    let mut html = String::from("<section>\n<h2>Machine and command</h2>\n");
    let Some(info) = &records.info else {
        html.push_str("<p class=\"empty\">The run directory holds no run.json.</p>\n</section>\n");
        return html;
    };
    let unknown = || "unknown".to_owned();
    let memory = info.host.memory_bytes.map_or_else(unknown, bytes);
    let host = format!(
        "{} {}, {} hardware threads, {memory} memory",
        info.host.os, info.host.arch, info.host.cpus
    );
    let tree = match info.dirty {
        Some(true) => " with uncommitted changes",
        Some(false) => ", clean",
        None => "",
    };
    let revision = info
        .git_revision
        .as_ref()
        .map_or_else(unknown, |r| format!("{r}{tree}"));
    let mut table = Table::new(["", ""]);
    for (name, value) in [
        (
            "Device",
            format!("{} ({})", info.device, info.device_identity),
        ),
        ("Precision", info.precision.clone()),
        ("Host", host),
        ("Revision", revision),
        ("Burn", info.burn.clone()),
        ("Compiler", info.rustc.clone().unwrap_or_else(unknown)),
        ("Seed", info.seed.to_string()),
        ("Started", info.started.clone()),
    ] {
        table.row([name.to_owned(), value]);
    }
    html.push_str(&facts(table));
    let checkout = info
        .git_revision
        .as_ref()
        .map(|r| format!("git checkout {r}\n"));
    html.push_str(&format!(
        "<h3>To reproduce</h3>\n<pre>{}{}</pre>\n",
        escape(&checkout.unwrap_or_default()),
        escape(&info.command()),
    ));
    if info.dirty == Some(true) {
        html.push_str(
            "<p class=\"caption\">The working tree held changes that this revision lacks: the \
             figures may not come out the same from it.</p>\n",
        );
    }
    html.push_str("</section>\n");
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_stays_with_its_unit() {
        let text = "98.9 % of 1.23 M tokens, (1.2 ± 0.3) × 10 < 5 More";
        assert_eq!(
            prose(text),
            "98.9\u{a0}% of 1.23\u{a0}M tokens, (1.2\u{a0}±\u{a0}0.3) ×\u{a0}10 &lt; 5 More"
        );
    }
}
