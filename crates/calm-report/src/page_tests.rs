//! Tests of the report as a whole.

use std::fs;

use super::*;
use calm_records::JsonlWriter;
use calm_records::examples::row;
use calm_records::examples::sample;
use calm_records::examples::summary;

fn run() -> (tempfile::TempDir, RunDir) {
    let dir = tempfile::tempdir().unwrap();
    let run = RunDir::create(dir.path().join("first")).unwrap();
    (dir, run)
}

fn full() -> (tempfile::TempDir, RunDir) {
    let (dir, run) = run();
    fs::write(
        run.config(),
        "preset = \"<nano>\"\n[model]\nchunk_size = 2\n",
    )
    .unwrap();
    RunInfo {
        git_revision: Some("0123abcd".into()),
        dirty: Some(true),
        argv: vec!["calm".into(), "train".into(), "--set".into(), "a b".into()],
        device_identity: "<b>a device</b>".into(),
        ..RunInfo::default()
    }
    .save(&run.run())
    .unwrap();
    let mut metrics = JsonlWriter::create(&run.metrics()).unwrap();
    for stage in Stage::ALL {
        for step in 1..=50 {
            metrics.write(&row(stage, step)).unwrap();
        }
    }
    let mut history = JsonlWriter::create(&run.eval_history()).unwrap();
    for step in [10, 20, 30] {
        let point = EvalPoint {
            stage: Stage::Lm,
            step,
            tokens: 512 * step,
            token_accuracy: None,
            noisy_token_accuracy: None,
            brier: Some([0.01 + 1e-4 * step as f64, 1e-3, 1e-4, 1e-5]),
            brier_se: Some([4e-4; 4]),
            brier_lm: Some(0.1),
            brier_lm_se: Some(0.02),
            cross_entropy: None,
            permuted_loss_ratio: None,
            noiseless_token_accuracy: None,
            window_brier: None,
            window_cross_entropy: None,
            protocol: summary().protocol,
        };
        history.write(&point).unwrap();
    }
    summary().save(&run.summary()).unwrap();
    sample(1.0, "warm")
        .save(&run.samples().join("a.json"))
        .unwrap();
    sample(1.0 / 3.0, "cool\n\n  <script>alert(1)</script>")
        .save(&run.samples().join("b.json"))
        .unwrap();
    (dir, run)
}

#[test]
fn a_full_run_has_every_section_and_misses_nothing() {
    let (_dir, run) = full();
    let html = render(&run).unwrap();
    for part in [
        "<h1>first</h1>",
        "<dd class=\"value\">0.500 <small>± 0.030</small></dd>",
        "5.0 standard errors above it. No fixed",
        "A CALM that writes 2 tokens a step, with 12.3\u{a0}M parameters",
        "<th scope=\"col\" class=\"num\">CALM, K = 2</th>",
        "<th scope=\"row\">Brier-1</th><td class=\"num\">0.01300\u{a0}±\u{a0}0.00040</td>\
         <td class=\"num\">0.01300\u{a0}±\u{a0}0.00040</td><td class=\"num\">0.0110</td>\
         <td class=\"num\">+5.0</td>",
        "<td>256 tokens</td>",
        "Brier-1 over training",
        "</svg>unigram 0.0110</li>",
        "12\u{a0}min\u{a0}12\u{a0}s",
        "2.0\u{a0}GiB",
        "2,048 <small>tokens/s</small>",
        "git checkout 0123abcd\ncalm train --set &#39;a b&#39;",
        "The working tree held changes",
    ] {
        assert!(html.contains(part), "no {part:?} in the report");
    }
    assert!(!html.contains("Not in this report"));
}

#[test]
fn text_from_records_is_escaped_and_keeps_its_lines() {
    let (_dir, run) = full();
    let html = render(&run).unwrap();
    assert!(html.contains("cool\n\n  &#60;script&#62;alert(1)&#60;/script&#62;"));
    assert!(html.contains("preset = &#34;&#60;nano&#62;&#34;"));
    assert!(html.contains("&#60;b&#62;a device&#60;/b&#62;"));
    assert_eq!(html.matches("<script").count(), 1, "the page's own");
    let at = |text: &str| html.find(text).unwrap();
    assert!(
        at("T = 0.33") < at("T = 1 "),
        "samples are in order of temperature"
    );
}

#[test]
fn the_page_asks_for_nothing_from_outside() {
    let (_dir, run) = full();
    let html = render(&run)
        .unwrap()
        .replace("http://www.w3.org/2000/svg", "");
    for outside in ["http://", "https://", " src=", " href=", "@import", "url("] {
        assert!(!html.contains(outside), "{outside}");
    }
}

#[test]
fn tags_are_balanced() {
    let (_dir, run) = full();
    let html = render(&run).unwrap();
    for tag in [
        "section", "div", "figure", "table", "tr", "td", "th", "dl", "dd", "ul", "li", "svg",
        "text",
    ] {
        let open =
            html.matches(&format!("<{tag}>")).count() + html.matches(&format!("<{tag} ")).count();
        assert_eq!(open, html.matches(&format!("</{tag}>")).count(), "{tag}");
    }
}

#[test]
fn an_empty_run_says_what_is_missing() {
    let (_dir, run) = run();
    let html = render(&run).unwrap();
    for part in [
        "summary.json",
        "metrics.jsonl",
        "samples/",
        "config.toml",
        "run.json",
    ] {
        assert!(html.contains(part), "{part}");
    }
    assert!(html.contains("no final evaluation"));
}

#[test]
fn a_growing_run_shows_how_far_it_is() {
    let (_dir, run) = full();
    fs::remove_file(run.summary()).unwrap();
    let mut metrics = fs::read_to_string(run.metrics()).unwrap();
    metrics.push_str("{\"stage\":\"lm\",\"st");
    fs::write(run.metrics(), metrics).unwrap();
    let html = render(&run).unwrap();
    assert!(html.contains("<dt>language model</dt><dd class=\"value\">step 50</dd>"));
    assert!(html.contains("<strong>Not in this report:</strong> the final evaluation"));
}

#[test]
fn a_corrupt_record_is_an_error_and_the_old_report_stays() {
    let (_dir, run) = full();
    let path = write_report(&run).unwrap();
    let before = fs::read(&path).unwrap();
    fs::write(run.metrics(), "{\"stage\":\"lm\"}\n").unwrap();
    let error = write_report(&run).unwrap_err().to_string();
    assert!(error.contains("metrics.jsonl:1:"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), before);
}
