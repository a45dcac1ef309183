//! generate, eval, report and data on a finished run.

use crate::{Place, failure, success};

#[test]
fn a_run_can_be_sampled_scored_and_reported() {
    let place = Place::new();
    let printed = success(&place.train("run").output().unwrap());
    assert!(
        printed.contains("Brier-1") && printed.contains("report.html"),
        "{printed}"
    );

    let generate = |args: &[&str]| {
        let mut all = vec!["generate", "--run", "run", "--tokens", "8", "--pool", "10"];
        all.extend(args);
        place.calm(&all).output().unwrap()
    };
    let text = success(&generate(&["--prompt", "The river", "--temperature", "1"]));
    assert!(text.starts_with("The river"), "{text}");
    assert_eq!(
        text,
        success(&generate(&["--prompt", "The river", "--temperature", "1"]))
    );
    let both = success(&generate(&[
        "--prompt",
        "The",
        "--prompt",
        "A stone of day",
    ]));
    assert!(both.contains("A stone of day"), "{both}");
    success(&generate(&[]));

    let temperature = failure(&generate(&["--temperature", "0.7"]));
    assert!(temperature.contains("1/n"), "{temperature}");
    let long = "river ".repeat(40);
    let message = failure(&generate(&["--prompt", &long]));
    assert!(message.contains("window of 16"), "{message}");

    let eval = [
        "eval",
        "--run",
        "run",
        "--windows",
        "4",
        "--draws",
        "4",
        "--json",
        "e.json",
    ];
    let table = success(&place.calm(&eval).output().unwrap());
    assert!(
        table.contains("BrierLM") && table.contains("4 draws"),
        "{table}"
    );
    let record: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(place.path("e.json")).unwrap()).unwrap();
    assert_eq!(record["draws"], 4);
    assert_eq!(record["brier"].as_array().unwrap().len(), 4);

    // A checkpoint directory is enough by itself.
    let checkpoint = "run/checkpoints/lm/step-000040";
    let alone = [
        "generate",
        "--model",
        checkpoint,
        "--temperature",
        "1",
        "--tokens",
        "4",
    ];
    success(&place.calm(&alone).output().unwrap());
    let no_corpus = place
        .calm(&["eval", "--model", checkpoint])
        .output()
        .unwrap();
    assert!(failure(&no_corpus).contains("--corpus"));

    std::fs::remove_file(place.path("run/report.html")).unwrap();
    success(&place.calm(&["report", "--run", "run"]).output().unwrap());
    assert!(place.path("run/report.html").is_file());

    // Damage, last: the tokenizer of another text, then half a checkpoint.
    let other = [
        "data",
        "prepare",
        "--preset",
        "debug",
        "--corpus",
        "other.txt",
        "--set",
        "model.vocab_size=300",
        "data.heldout_fraction=0.3",
        "--tokenizer",
        "run/tokenizer.json",
    ];
    let text = std::fs::read_to_string(place.path("text.txt")).unwrap();
    std::fs::write(place.path("other.txt"), text.replace("river", "mountain")).unwrap();
    success(&place.calm(&other).output().unwrap());
    assert!(failure(&generate(&[])).contains("tokenizer"));
    let weights = place.path(checkpoint).join("language_model.bpk");
    let bytes = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &bytes[..1000]).unwrap();
    assert!(failure(&generate(&[])).contains("language_model.bpk"));
}

#[test]
fn a_full_disk_is_one_line() {
    let place = Place::new();
    success(&place.train("run").output().unwrap());
    if std::path::Path::new("/dev/full").exists() {
        let output = place
            .calm(&["generate", "--run", "run", "--tokens", "4", "--pool", "4"])
            .stdout(
                std::fs::OpenOptions::new()
                    .write(true)
                    .open("/dev/full")
                    .unwrap(),
            )
            .output()
            .unwrap();
        assert!(failure(&output).contains("standard output"));
    }
}
