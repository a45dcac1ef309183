//! generate, eval, report and data on a finished run.

use std::io::Read;
use std::process::Stdio;

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
    assert!(
        temperature.contains("1/n") && temperature.contains("--exact"),
        "{temperature}"
    );
    let exact = generate(&["--temperature", "0.7", "--exact"]);
    let told = String::from_utf8_lossy(&exact.stderr).into_owned();
    success(&exact);
    assert!(told.contains("draws a chunk"), "{told}");
    let hot = failure(&generate(&["--temperature", "1.5", "--exact"]));
    assert!(hot.contains("outside (0, 1]"), "{hot}");
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

    let bound = |draws: &str| {
        let args = [&eval[..], &["--bound", draws]].concat();
        place.calm(&args).output().unwrap()
    };
    let table = success(&bound("3"));
    assert!(table.contains("nats a token, at most"), "{table}");
    let record: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(place.path("e.json")).unwrap()).unwrap();
    assert_eq!(record["bound"]["bounds"].as_array().unwrap().len(), 3);
    assert!(failure(&bound("1")).contains("two draws"));

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
    let all = ["report", "--all", "."];
    success(&place.calm(&all).output().unwrap());
    let index = std::fs::read_to_string(place.path("index.html")).unwrap();
    assert!(index.contains("run/report.html") && index.contains("Runs: 1"));
    let nowhere = place.calm(&["report", "--all"]).output().unwrap();
    assert!(failure(&nowhere).contains("runs"));

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
        "data.validation_fraction=0.15",
        "data.test_fraction=0.15",
        "--tokenizer",
        "run/tokenizer.json",
    ];
    let text = std::fs::read_to_string(place.path("text.txt")).unwrap();
    std::fs::write(place.path("other.txt"), text.replace("river", "mountain")).unwrap();
    success(&place.calm(&other).output().unwrap());
    assert!(failure(&generate(&[])).contains("tokenizer"));
    std::fs::copy(
        place.path(checkpoint).join("tokenizer.json"),
        place.path("run/tokenizer.json"),
    )
    .unwrap();
    success(&generate(&[]));
    let weights = place.path(checkpoint).join("language_model.bpk");
    let bytes = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &bytes[..1000]).unwrap();
    let output = generate(&[]);
    success(&output);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let told: Vec<&str> = told.lines().collect();
    assert!(
        matches!(told.as_slice(), [line, rate, "10.0 draws a chunk"] if rate.contains("8 tokens: ") && line.contains("language_model.bpk") && line.contains("step-000036")),
        "{told:?}"
    );
    let alone = place.calm(&alone).output().unwrap();
    assert!(failure(&alone).contains("language_model.bpk"));
}

/// `calm generate .. | head -c 1`, and the same with standard error.
#[test]
fn a_reader_that_leaves_ends_the_program_quietly() {
    let place = Place::new();
    success(&place.train("run").output().unwrap());
    let long = [
        "generate", "--run", "run", "--tokens", "3000", "--pool", "4",
    ];
    let mut child = place
        .calm(&long)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut first).unwrap();
    drop(stdout);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(141));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");

    let mut child = place
        .train("again")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stderr.take());
    assert!(child.wait().unwrap().success());
}

/// The arrow key up, and `--resume`.
#[test]
fn options_beside_resume_must_agree_with_the_run() {
    let place = Place::new();
    success(&place.train("run").output().unwrap());
    let again = |more: &[&str]| {
        let mut command = place.train("run");
        command.args(more).arg("--resume");
        command.output().unwrap()
    };
    success(&again(&[]));
    let only = |options: &[&str]| {
        let resume = ["train", "--resume", "--out", "run"];
        place.calm(&[&resume, options].concat()).output().unwrap()
    };
    success(&only(&["--set", "lm.steps=40"]));
    success(&only(&["--preset", "debug"]));
    let config = "run/config.toml";
    success(&only(&["--preset", config, "--set", "lm.steps=40"]));
    // What agrees with the run need not suit the default preset, whose 256 columns are no 3 heads.
    let odd = ["hidden_size=18", "heads=3", "kv_heads=3"].map(|v| format!("model.backbone.{v}"));
    let short = ["autoencoder.steps=4", "lm.steps=4"];
    success(&place.train("odd").args(&odd).args(short).output().unwrap());
    let resume = ["train", "--resume", "--out", "odd", "--set"];
    success(
        &place
            .calm(&[&resume, &[odd[1].as_str()][..]].concat())
            .output()
            .unwrap(),
    );

    for (options, key, run, given) in [
        (&["--set", "lm.steps=50"][..], "lm.steps", "40", "50"),
        (&["--preset", "nano"], "preset", "debug", "nano"),
        (
            &["--corpus", "other.txt"],
            "data.corpus",
            "text.txt",
            "other.txt",
        ),
        (&["--preset", config, "--set", "seed=9"], "seed", "1", "9"),
    ] {
        let message = failure(&only(options));
        for part in [key, run, given] {
            assert!(message.contains(part), "{options:?}: {message}");
        }
    }
    assert!(failure(&only(&["--set", "lm.stepz=40"])).contains("did you mean 'lm.steps'"));
}

/// A checkpoint knows what was held out; nothing else is scored as if it had been.
#[test]
fn a_checkpoint_is_scored_on_what_it_held_out_or_not_at_all() {
    let place = Place::new();
    success(&place.train("run").output().unwrap());
    let checkpoint = "run/checkpoints/lm/step-000040";
    let eval = |place_args: &[&str]| {
        let protocol = ["--windows", "4", "--draws", "4", "--json", "e.json"];
        let args = [&["eval"], place_args, &protocol].concat();
        place.calm(&args).output().unwrap()
    };
    let record = || -> serde_json::Value {
        serde_json::from_str(&std::fs::read_to_string(place.path("e.json")).unwrap()).unwrap()
    };
    success(&eval(&["--run", "run"]));
    let of_run = record();
    assert_eq!(of_run["part"], "test");
    assert_eq!(of_run["of_training_text"], true);
    assert_eq!(of_run["split"]["test_fraction"], 0.15);
    // The same text and the same scores, without the run.
    let alone = ["--model", checkpoint, "--corpus", "text.txt"];
    success(&eval(&alone));
    assert_eq!(record(), of_run);

    // A larger part would hold text that was trained on, a smaller one doesn't.
    let with = |more: &[&str]| eval(&[&alone[..], more].concat());
    for flag in ["--test-fraction", "--heldout-fraction"] {
        let message = failure(&with(&[flag, "0.3"]));
        assert!(message.contains("0.3 is more than the 0.15"), "{message}");
    }
    let printed = success(&with(&["--test-fraction", "0.1"]));
    let expected = "10.0 % of text.txt, held out in training";
    assert!(printed.contains(expected), "{printed}");

    // Of half of the text the last part was trained on: no figure goes by as held out.
    let text = std::fs::read_to_string(place.path("text.txt")).unwrap();
    std::fs::write(place.path("half.txt"), &text[..text.len() / 2]).unwrap();
    let printed = success(&eval(&["--model", checkpoint, "--corpus", "half.txt"]));
    assert!(printed.contains("not the text of training"), "{printed}");
    assert_eq!(record()["of_training_text"], false);
    // A copy is the same text.
    std::fs::write(place.path("copy.txt"), &text).unwrap();
    success(&eval(&["--model", checkpoint, "--corpus", "copy.txt"]));
    assert_eq!(record()["of_training_text"], true);

    // A text of the user's own is scored whole, on the user's word.
    let printed = success(&with(&["--unseen"]));
    assert!(
        printed.contains("all of text.txt, given as unseen"),
        "{printed}"
    );
    assert_eq!(record()["part"], "whole_unseen");
    assert!(record()["split"].is_null());

    // An unknown split holds out nothing that anyone could know of.
    let manifest = place.path(checkpoint).join("manifest.json");
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::remove_file(manifest.with_extension("sha256")).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    json["split"]["rule"] = "another-1".into();
    std::fs::write(&manifest, json.to_string()).unwrap();
    assert!(failure(&with(&[])).contains("rule `another-1`"));
    json.as_object_mut().unwrap().remove("split");
    std::fs::write(&manifest, json.to_string()).unwrap();
    let message = failure(&with(&[]));
    assert!(message.contains("--unseen"), "{message}");
    success(&with(&["--unseen"]));
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
    assert!(failure(&generate(&wrong)).contains("knows its own probabilities"));
}

#[test]
fn a_local_decoder_is_trained_sampled_scored_and_drafts_without_loss() {
    let place = Place::new();
    let local = [
        "model.decoder=local",
        "model.local.hidden_size=16",
        "model.local.intermediate_size=24",
    ];
    let printed = success(&place.train("run").args(local).output().unwrap());
    assert!(printed.contains("CALM perplexity"), "{printed}");
    let join = ["train", "--resume", "--stage", "baseline", "--out", "run"];
    success(&place.calm(&join).output().unwrap());

    let say = |more: &[&str]| {
        let base = ["generate", "--run", "run", "--prompt", "The river"];
        let all = [&base[..], &["--tokens", "12"], more].concat();
        place.calm(&all).output().unwrap()
    };
    let text = success(&say(&["--temperature", "0.7", "--top-p", "0.9"]));
    assert!(text.starts_with("The river"), "{text}");
    assert!(failure(&say(&["--pool", "5"])).contains("--pool"));

    // Its proposals leave the token model's text as it is.
    let greedy = ["--baseline", "--temperature", "0"];
    let plain = success(&say(&greedy));
    let drafted = say(&[&greedy[..], &["--draft", "run/checkpoints/lm/step-000040"]].concat());
    assert_eq!(success(&drafted), plain);
    let told = String::from_utf8_lossy(&drafted.stderr).into_owned();
    assert!(told.contains("proposals accepted"), "{told}");

    // A stride need not be named, of either model.
    for more in [&[][..], &["--baseline"]] {
        let base = ["eval", "--run", "run", "--windows", "4", "--draws", "2"];
        let table = success(&place.calm(&[&base[..], more].concat()).output().unwrap());
        assert!(table.contains("perplexity"), "{table}");
    }
    success(&place.calm(&["report", "--run", "run"]).output().unwrap());
    let page = std::fs::read_to_string(place.path("run/report.html")).unwrap();
    assert!(page.contains("CALM with a local decoder"), "it is named");
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
