//! import, export, trace, and training what was imported.

use std::path::Path;

use crate::{Place, failure, success};

fn case(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/released");
    root.join(name).display().to_string()
}

#[test]
fn what_others_released_is_imported_and_traced() {
    let place = Place::new();
    let run = |args: &[&str]| place.calm(args).output().unwrap();
    let source = case("energy-k4");
    let import = ["import", &source, "--out", "im"];
    let printed = success(&run(&import));
    assert!(
        printed.contains("K = 4") && printed.contains("--tokenizer"),
        "{printed}"
    );
    let again = failure(&run(&import));
    assert!(again.contains("im: something is there already"), "{again}");

    let inputs = case("energy-k4/inputs.safetensors");
    let trace = [
        "trace",
        "--model",
        "im",
        "--inputs",
        &inputs,
        "--out",
        "out.safetensors",
    ];
    let printed = success(&run(&trace));
    for name in [
        "ae.logits F32 [2, 20, 40]",
        "head.per_position F32 [6]",
        "brier F32 [4]",
    ] {
        assert!(printed.contains(name), "{printed}");
    }
    assert!(place.path("out.safetensors").is_file());

    let text = failure(&run(&["generate", "--model", "im", "--prompt", "a"]));
    assert!(text.contains("--tokenizer"), "{text}");
    // Bytes alone are 257 tokens, and the model has 40.
    std::fs::create_dir(place.path("small")).unwrap();
    let place_of = |name: &str| place.path(name).display().to_string();
    let tokenizer = calm_data::Tokenizer::train(["abc".to_owned()].into_iter(), 257).unwrap();
    tokenizer.save(&place.path("small/tokenizer.json")).unwrap();
    let small = place_of("small");
    let message = failure(&run(&["generate", "--model", "im", "--tokenizer", &small]));
    assert!(message.contains("another model's"), "{message}");

    success(&run(&["export", "--model", "im", "--out", "ex"]));
    for name in [
        "ex/model.safetensors",
        "ex/config.json",
        "ex/autoencoder/model.safetensors",
    ] {
        assert!(place.path(name).is_file(), "{name}");
    }
    // The ids that the source named, which the model itself does without.
    let config = std::fs::read_to_string(place.path("ex/config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    for (key, id) in [
        ("bos_token_id", 37),
        ("eos_token_id", 38),
        ("pad_token_id", 39),
    ] {
        assert_eq!(config[key], id, "{key}");
    }
    success(&run(&["import", "ex", "--out", "again"]));
    let weights = |of: &str| {
        std::fs::read(place.path(of).join("language_model.bpk"))
            .unwrap()
            .len()
    };
    assert_eq!(weights("im"), weights("again"));

    let alone = case("autoencoder-k4");
    success(&run(&["import", &alone, "--out", "alone"]));
    let other = case("autoencoder-k2");
    let no_text = failure(&run(&["generate", "--model", "alone"]));
    assert!(no_text.contains("no language model"), "{no_text}");

    for (args, part) in [
        (vec!["import", "nowhere", "--out", "x"], "nowhere"),
        (
            vec!["import", "hf:owner/name", "--out", "x"],
            "--features hub",
        ),
        (
            vec!["import", &source, "--autoencoder", &other, "--out", "x"],
            "don't belong together",
        ),
        (
            vec![
                "trace", "--model", "im", "--inputs", "text.txt", "--out", "x",
            ],
            "text.txt",
        ),
    ] {
        let message = failure(&run(&args));
        assert!(message.contains(part), "{message}");
        assert!(!place.path("x").exists(), "{args:?}");
    }
}

/// A run goes out in the released form, comes back, generates in bf16 and is trained further.
#[test]
fn a_run_goes_out_and_comes_back() {
    let place = Place::new();
    let run = |args: &[&str]| place.calm(args).output().unwrap();
    success(&place.train("run").output().unwrap());
    success(&run(&["export", "--run", "run", "--out", "ex"]));
    assert!(place.path("ex/tokenizer_config.json").is_file());
    // In bf16, as large models are.
    let weights = calm_weights::TensorFiles::open(&place.path("ex")).unwrap();
    let short = weights.iter().map(|(name, tensor)| {
        let floats = tensor.floats().unwrap();
        // Upper halves: rounded towards zero.
        let bytes = floats.iter().flat_map(|x| x.to_le_bytes()[2..].to_vec());
        let bytes: Vec<u8> = bytes.collect();
        let (dtype, shape) = (calm_weights::Dtype::Bf16, tensor.shape().to_vec());
        calm_weights::TensorToWrite::new(name, dtype, shape, move || bytes.clone())
    });
    let format = [("format", "pt")];
    let file = place.path("ex/model.safetensors");
    calm_weights::write_safetensors(&file, &format, short.collect()).unwrap();
    success(&run(&["import", "ex", "--out", "im"]));
    let generate = |weights: &str| {
        let args = [
            "generate",
            "--model",
            "im",
            "--prompt",
            "The river",
            "--tokens",
            "8",
            "--weights",
            weights,
        ];
        success(&run(&args))
    };
    assert_eq!(generate("stored"), generate("f32"));
    assert!(generate("bf16").starts_with("The river"));

    let mut further = place.calm(&["train", "--preset", "debug", "--corpus", "text.txt"]);
    further.args([
        "--init",
        "im",
        "--out",
        "further",
        "--set",
        "lm.steps=3",
        "lm.log_every=1",
    ]);
    let text = [
        "data.validation_fraction=0.15",
        "data.test_fraction=0.15",
        "samples.tokens=6",
    ];
    further.args(text);
    let printed = success(&further.output().unwrap());
    assert!(printed.contains("report.html"), "{printed}");
    let resumed = run(&["train", "--init", "im", "--out", "further", "--resume"]);
    success(&resumed);
    let other = failure(&run(&[
        "train", "--init", "run", "--out", "further", "--resume",
    ]));
    assert!(other.contains("init_from"), "{other}");
}
