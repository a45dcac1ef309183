//! Commands about devices: the conformance suite, the same steps side by side.

use crate::{Place, failure, success};

#[test]
fn the_cpu_conforms_and_a_failing_case_fails_the_command() {
    let place = Place::new();
    let args = ["conform", "--only", "rms_norm", "--json", "results.json"];
    let printed = success(&place.calm(&args).output().unwrap());
    assert!(printed.contains("rms_norm 33x100"), "{printed}");
    let results = std::fs::read(place.path("results.json")).unwrap();
    let results: serde_json::Value = serde_json::from_slice(&results).unwrap();
    assert_eq!(results[0]["status"], "passed");
    assert!(results[0]["apart"].as_f64().unwrap() < 1e-4);

    let none = place.calm(&["conform", "--only", "no such case"]).output();
    assert!(failure(&none.unwrap()).contains("no case has such a name"));
    // A tolerance that no difference is below.
    let case = "[[case]]\nname = \"too much\"\ntolerance = -1.0\n\
                kernel = { operation = \"silu\", sizes = { rows = 2, width = 3 } }\n";
    std::fs::write(place.path("cases.toml"), case).unwrap();
    let output = place
        .calm(&["conform", "--cases", "cases.toml"])
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(printed.contains("FAILED"), "{printed}");
    assert!(failure(&output).contains("1 of 1 cases"));
}

#[test]
fn the_same_steps_are_set_side_by_side() {
    let place = Place::new();
    let args = [
        "compare",
        "--devices",
        "flex",
        "--precisions",
        "f32,bf16",
        "--steps",
        "4",
        "--out",
        "beside",
        "--set",
        "data.corpus=[\"text.txt\"]",
        "model.vocab_size=300",
        "model.window=16",
        "data.validation_fraction=0.15",
        "data.test_fraction=0.15",
    ];
    let printed = success(&place.calm(&args).output().unwrap());
    for words in ["flex f32", "flex bf16", "baseline", "drift"] {
        assert!(printed.contains(words), "{words}: {printed}");
    }
    let rows = std::fs::read(place.path("beside/devices.json")).unwrap();
    let rows: Vec<serde_json::Value> = serde_json::from_slice(&rows).unwrap();
    assert_eq!(rows.len(), 6);
    for row in &rows {
        assert_eq!(row["steps"], 4);
        let drift = row["largest_drift"].as_f64().unwrap();
        assert!(drift < 0.02, "{row}");
        assert!(row["run"] != "flex f32" || drift == 0.0, "{row}");
    }
    // What is there is not trained again; what a device lacks is said with its name.
    let again = place.calm(&args).output().unwrap();
    assert!(!String::from_utf8_lossy(&again.stderr).contains("training on"));
    let mut others = args.to_vec();
    let steps = others.iter().position(|word| *word == "4").unwrap();
    others[steps] = "5";
    let said = failure(&place.calm(&others).output().unwrap());
    assert!(said.contains("other steps or settings"), "{said}");
    let bad = place
        .calm(&["compare", "--devices", "flex,gpu"])
        .output()
        .unwrap();
    assert!(failure(&bad).contains("unknown device 'gpu'"));
    let bad = [
        "compare",
        "--devices",
        "flex",
        "--precisions",
        "f8",
        "--out",
        "other",
    ];
    let said = failure(&place.calm(&bad).output().unwrap());
    assert!(said.contains("flex f8"), "{said}");
}

/// Streamed text too: the scores say which part of it they are of.
#[test]
fn devices_share_the_windows_of_an_evaluation_and_the_prompts_of_a_batch() {
    let place = Place::new();
    let mut train = place.train("run");
    train.args(["data.stream.enabled=true", "data.stream.sample_tokens=900"]);
    success(&train.output().unwrap());
    let join = ["train", "--resume", "--stage", "baseline", "--out", "run"];
    success(&place.calm(&join).output().unwrap());
    for model in [&[][..], &["--baseline"]] {
        let scores = |name: &str, devices: &[&str]| {
            let mut args = vec!["eval", "--run", "run", "--windows", "7", "--json", name];
            args.extend(model.iter().chain(devices));
            let printed = success(&place.calm(&args).output().unwrap());
            assert!(
                printed.contains("the first 900 tokens of the test part"),
                "{printed}"
            );
            std::fs::read_to_string(place.path(name)).unwrap()
        };
        let one = scores("one.json", &["--device", "flex"]);
        assert!(one.contains("\"first_tokens\": 900"), "{one}");
        assert_eq!(one, scores("three.json", &["--devices", "flex,flex,flex"]));
        let texts = |devices: &[&str]| {
            let mut args = vec![
                "generate",
                "--run",
                "run",
                "--tokens",
                "8",
                "--temperature",
                "1",
            ];
            args.extend([
                "--prompt", "The", "--prompt", "A stone", "--prompt", "river",
            ]);
            args.extend(model.iter().chain(devices));
            success(&place.calm(&args).output().unwrap())
        };
        let (one, two) = (
            texts(&["--device", "flex"]),
            texts(&["--devices", "flex,flex"]),
        );
        match model {
            // Every text of a token model has draws of its own.
            ["--baseline"] => assert_eq!(one, two),
            // The first device's share is a batch of the same seed.
            _ => assert_eq!(one.lines().next(), two.lines().next()),
        }
        assert!(two.contains("A stone") && two.contains("river"), "{two}");
    }
    let alone = [
        "generate",
        "--run",
        "run",
        "--prompt",
        "The",
        "--devices",
        "flex,flex",
    ];
    let said = failure(&place.calm(&alone).output().unwrap());
    assert!(said.contains("give --prompt several times"), "{said}");
}
