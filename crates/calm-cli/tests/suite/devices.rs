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
