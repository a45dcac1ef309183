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
fn a_baseline_joins_a_run_and_is_sampled_and_scored() {
    let place = Place::new();
    success(&place.train("run").output().unwrap());
    let join = ["train", "--resume", "--stage", "baseline", "--out", "run"];
    let printed = success(&place.calm(&join).output().unwrap());
    for figure in ["CALM Brier-1", "baseline Brier-1", "baseline perplexity"] {
        assert!(printed.contains(figure), "{figure} in {printed}");
    }

    let base = ["generate", "--run", "run", "--baseline", "--tokens", "12"];
    let generate = |more: &[&str]| place.calm(&[&base[..], more].concat()).output().unwrap();
    let greedy = ["--prompt", "The river", "--temperature", "0"];
    let plain = success(&generate(&greedy));
    assert!(plain.starts_with("The river"), "{plain}");
    let output = generate(&[&greedy[..], &["--draft", "lookup"]].concat());
    assert_eq!(success(&output), plain, "speculation changes no text");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("proposals accepted"), "{told}");
    let checkpoint = "run/checkpoints/baseline/step-000020";
    let drafted = generate(&[&greedy[..], &["--draft", checkpoint]].concat());
    assert_eq!(success(&drafted), plain);
    success(&generate(&[
        "--top-k", "5", "--top-p", "0.9", "--prompt", "a", "--prompt", "b",
    ]));
    let alone = ["generate", "--model", checkpoint, "--tokens", "4"];
    success(&place.calm(&alone).output().unwrap());

    let eval = [
        "eval",
        "--run",
        "run",
        "--baseline",
        "--every",
        "2",
        "--windows",
        "4",
    ];
    let eval = [&eval[..], &["--draws", "4", "--json", "e.json"]].concat();
    let table = success(&place.calm(&eval).output().unwrap());
    assert!(
        table.contains("multiples of 2") && table.contains("perplexity"),
        "{table}"
    );
    let record: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(place.path("e.json")).unwrap()).unwrap();
    assert!(record["aligned"]["positions"].as_u64() < record["positions"].as_u64());

    // What one kind of model can't do.
    let calm = ["generate", "--run", "run", "--top-k", "5"];
    assert!(failure(&place.calm(&calm).output().unwrap()).contains("--baseline"));
    assert!(failure(&generate(&["--pool", "5"])).contains("--pool"));
    assert!(failure(&generate(&["--top-p", "1.5"])).contains("top-p"));
    let two = ["--draft", "lookup", "--prompt", "a", "--prompt", "b"];
    assert!(failure(&generate(&two)).contains("one prompt"));
    let wrong = ["--draft", "run/checkpoints/lm/step-000040"];
    assert!(failure(&generate(&wrong)).contains("holds a CALM, not a token baseline"));
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
