//! `calm cost` against the published table.

use serde_json::Value;

use crate::{Place, failure, success};

fn rows(place: &Place, more: &[&str]) -> Vec<Value> {
    let args = [&["cost", "--json", "cost.json"][..], more].concat();
    success(&place.calm(&args).output().unwrap());
    let text = std::fs::read_to_string(place.path("cost.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// All twelve FLOPs of the main table within 5 %, parameters within 1 %; of the table of chunk
/// sizes, where the rule is known to come out low, within 8 %.
#[test]
fn the_published_table_is_met() {
    let rows = rows(&Place::new(), &[]);
    let mut flops = 0;
    for row in &rows {
        let off = |key: &str| {
            let theirs = row["published"][key].as_f64()?;
            Some((row[key].as_f64().unwrap() / theirs - 1.0).abs())
        };
        let main = off("parameters").is_some();
        for key in ["train_flops", "infer_flops_per_token"] {
            if let Some(off) = off(key) {
                assert!(off < if main { 0.05 } else { 0.08 }, "{row}: {off:.3}");
                flops += usize::from(main);
            }
        }
        if let Some(off) = off("parameters") {
            assert!(off < 0.01, "{row}: {off:.3}");
        }
    }
    assert_eq!(flops, 12);
    let sizes: Vec<_> = rows
        .iter()
        .filter(|row| row["model"] == "calm-l")
        .map(|row| row["chunk_size"].as_u64().unwrap())
        .collect();
    assert_eq!(sizes, [4, 1, 2, 8]);
}

/// The preset that one would train is the model of the published row.
#[test]
fn the_published_presets_are_the_published_models() {
    let place = Place::new();
    let published = rows(&place, &[]);
    for (preset, own) in [("transformer-s", 1), ("transformer-l", 1), ("calm-m", 0)] {
        let row = &rows(&place, &["--preset", preset])[own];
        let theirs = published.iter().find(|row| row["model"] == preset).unwrap();
        for key in [
            "parameters",
            "infer_flops_per_token",
            "cache_bytes_per_token",
            "context",
        ] {
            assert_eq!(row[key], theirs[key], "{preset}: {key}");
        }
        // 250,000 steps of 2 M tokens: 5e11 within 5 %.
        let tokens = row["train_tokens"].as_f64().unwrap();
        assert!((tokens / 5e11 - 1.0).abs() < 0.05, "{preset}: {tokens:e}");
    }
}

#[test]
fn a_preset_is_counted_as_it_would_be_trained() {
    let place = Place::new();
    let found = rows(&place, &["--preset", "debug", "--samples", "1"]);
    assert_eq!(found.len(), 2);
    let (calm, baseline) = (&found[0], &found[1]);
    assert_eq!(calm["train_tokens"], 60.0 * 2.0 * 64.0);
    assert_eq!(
        calm["infer_flops_per_token"],
        calm["low_temperature_flops_per_token"]
    );
    assert!(calm["train_flops"].as_f64() > calm["train_flops_without_autoencoder"].as_f64());
    // Equal layers: K times fewer cached positions.
    assert_eq!(
        calm["cache_bytes_per_token"].as_f64().unwrap() * 2.0,
        baseline["cache_bytes_per_token"].as_f64().unwrap()
    );
    let wider = rows(
        &place,
        &["--preset", "debug", "--set", "model.chunk_size=4"],
    );
    assert!(wider[0]["infer_flops_per_token"].as_f64() < calm["infer_flops_per_token"].as_f64());
    let unknown = place
        .calm(&["cost", "--preset", "calm-n"])
        .output()
        .unwrap();
    assert!(failure(&unknown).contains("calm-m"));
}

/// More memory holds more windows, gradient checkpointing more still; each row is what its windows take.
#[test]
fn the_largest_micro_batch_is_what_the_device_holds() {
    let place = Place::new();
    let memory = |device: &str| -> Vec<Value> {
        let more = ["--preset", "nano", "--device-memory", device];
        let rows = rows(&place, &more);
        let of = |row: &Value| row["memory"].as_array().unwrap().clone();
        rows.iter().flat_map(of).collect()
    };
    let (small, large) = (memory("512MiB"), memory("2GiB"));
    let stages: Vec<_> = small.iter().map(|row| row["stage"].clone()).collect();
    assert_eq!(
        stages,
        [
            "autoencoder",
            "autoencoder",
            "lm",
            "lm",
            "baseline",
            "baseline"
        ]
    );
    let windows = |row: &Value| row["largest_batch_windows"].as_u64().unwrap();
    for (small, large) in small.iter().zip(&large) {
        assert!(windows(large) > 3 * windows(small), "{small}, {large}");
        assert_eq!(
            small["total"], large["total"],
            "of the preset's own windows"
        );
    }
    for of_stage in small.chunks(2) {
        assert!(
            windows(&of_stage[1]) > windows(&of_stage[0]),
            "{of_stage:?}"
        );
    }
    // One window more than the most does not fit, and the most does.
    let most = windows(&small[2]);
    for (windows, fits) in [(most, true), (most + 1, false)] {
        let set = format!("lm.batch_windows={windows}");
        let row = &rows(&place, &["--preset", "nano", "--set", &set])[0]["memory"][1 + 1];
        assert_eq!(row["stage"], "lm");
        assert_eq!(
            row["resident"].as_u64().unwrap() <= 512 << 20,
            fits,
            "{row}"
        );
    }
    assert_eq!(windows(&memory("100MiB")[0]), 0);
}

#[test]
fn a_size_of_memory_that_is_none_is_refused() {
    let place = Place::new();
    let args = ["cost", "--preset", "nano", "--device-memory", "much"];
    // The parser of arguments says so, with status 2.
    let said = |args: &[&str]| {
        let output = place.calm(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    let of_much = said(&args);
    assert!(of_much.contains("give a size such as 24GiB"), "{of_much}");
    let alone = said(&["cost", "--device-memory", "24GiB"]);
    assert!(alone.contains("--preset"), "{alone}");
}
