//! `calm compare` and `calm plan`.

use crate::{Place, failure, success};

/// The debug grid on this test's text, with little work in every cell.
fn grid(place: &Place) {
    std::fs::write(
        place.path("grid.toml"),
        r#"
name = "test"
preset = "debug"
set = [
    "data.corpus=text.txt", "data.validation_fraction=0.15", "data.test_fraction=0.15", "model.vocab_size=300",
    "model.window=16", "model.autoencoder.hidden_size=16", "model.backbone.hidden_size=16",
    "baseline.transformer.hidden_size=16", "autoencoder.steps=4", "lm.steps=4",
    "lm.eval_every=2", "baseline.training.steps=4", "baseline.training.eval_every=2",
    "progress_eval.windows=2",
]

[protocol]
windows = 3
every = 2
draws = 4
token_draws = 2
seed = 1

[speed]
batches = [1, 2]
prompt_tokens = 4
tokens = 4
repetitions = 1

[[cell]]
name = "token"
kind = "baseline"
set = []
seeds = [1]

[[cell]]
name = "calm"
kind = "calm"
set = []
seeds = [1]
"#,
    )
    .unwrap();
}

#[test]
fn a_grid_is_compared_and_gone_on_with() {
    let place = Place::new();
    grid(&place);
    let args = ["compare", "--grid", "grid.toml", "--out", "out"];
    let output = place.calm(&args).output().unwrap();
    let printed = success(&output);
    assert!(
        printed.contains("token seed 1") && printed.contains("compare.html"),
        "{printed}"
    );
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("cell 2 of 2: calm-seed1"), "{told}");
    let again = place.calm(&args).output().unwrap();
    assert_eq!(success(&again), printed, "nothing is made again");
    let told = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(!told.contains("steps"), "{told}");

    // The same records by the same program: the same conclusions.
    let analyse = ["compare", "--analyse", "out", "--out", "again"];
    success(&place.calm(&analyse).output().unwrap());
    for file in ["comparison.json", "cells.csv", "compare.html"] {
        let text = |out: &str| std::fs::read_to_string(place.path(out).join(file)).unwrap();
        assert_eq!(text("out"), text("again"), "{file}");
    }
    let nowhere = ["compare", "--analyse", "nowhere", "--out", "never"];
    let message = failure(&place.calm(&nowhere).output().unwrap());
    assert!(
        message.contains("nowhere") && !place.path("never").exists(),
        "{message}"
    );

    // Two runs are no scaling law.
    let plan = ["plan", "--flops", "1e15", "--from", "out"];
    let message = failure(&place.calm(&plan).output().unwrap());
    assert!(message.contains("--grid scaling"), "{message}");
}

/// A run of `calm train` is scored beside the others, not trained again; one made elsewhere is not.
#[test]
fn a_run_is_loaded_into_a_grid() {
    let place = Place::new();
    grid(&place);
    success(&place.train("run").output().unwrap());
    let path = place.path("grid.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let calm = text.find("[[cell]]\nname = \"calm\"").unwrap();
    let cell = "[[cell]]\nname = \"long\"\nkind = \"calm\"\nrun = \"run\"\n";
    std::fs::write(&path, format!("{}{cell}", &text[..calm])).unwrap();
    let args = ["compare", "--grid", "grid.toml", "--out", "out"];
    let printed = success(&place.calm(&args).output().unwrap());
    assert!(printed.contains("long seed 1"), "{printed}");
    let page = std::fs::read_to_string(place.path("out/compare.html")).unwrap();
    assert!(page.contains("long seed 1 from run;"));
    assert!(!place.path("out/cells/long-seed1/config.toml").exists());

    let record = place.path("run/run.json");
    let elsewhere = std::fs::read_to_string(&record).unwrap();
    let elsewhere = elsewhere.replace("\"arch\": \"", "\"arch\": \"another-");
    std::fs::write(&record, elsewhere).unwrap();
    let args = ["compare", "--grid", "grid.toml", "--out", "other"];
    let message = failure(&place.calm(&args).output().unwrap());
    assert!(message.contains("another-"), "{message}");
}

#[test]
fn a_plan_follows_from_a_law() {
    let place = Place::new();
    std::fs::create_dir(place.path("fit")).unwrap();
    let law = r#"{"floor": 1.0, "parameter_gain": 1.0, "parameter_exponent": 0.3,
        "token_gain": 1.0, "token_exponent": 0.3, "chunk_exponent": 0.0,
        "parameter_unit": 1e6, "token_unit": 1e6}"#;
    let fit = format!(
        r#"{{"scaling": {{"preset": "nano", "set": [],
        "autoencoder_tokens": {{"1": 4e5, "2": 6e5, "4": 1e6}},
        "fit": {{"law": {law}, "bootstrap": [{law}], "runs": 9, "points": 30,
        "brier_1_residual": 0.01, "brier_1_heldout": 0.02, "brier_1_heldout_of_mean": 0.05,
        "range": [[1e6, 1e7], [1e5, 1e7], [1.0, 4.0]]}}}}}}"#
    );
    std::fs::write(place.path("fit/comparison.json"), &fit).unwrap();
    let plan = |flops: &str| {
        let args = ["plan", "--flops", flops, "--from", "fit"];
        place.calm(&args).output().unwrap()
    };
    let printed = success(&plan("1e16"));
    // A larger chunk is free by this law, so the largest is best, and 1e16 is far outside.
    assert!(
        printed.contains("K = 4") && printed.contains("this is a guess"),
        "{printed}"
    );
    assert!(failure(&plan("1e3")).contains("do not pay"));
    assert!(failure(&plan("0")).contains("no budget"));
    // A second law of the bootstrap, of which nothing is known of parameters.
    let open = law.replacen("0.3", "17.0", 1);
    let open = fit.replacen(&format!("[{law}]"), &format!("[{law}, {open}]"), 1);
    std::fs::write(place.path("fit/comparison.json"), open).unwrap();
    let message = failure(&plan("1e16"));
    assert!(
        message.contains("parameters (0.30 to 17.00; add runs of other widths"),
        "{message}"
    );
    let old = fit.replace("brier_1_residual", "residual");
    std::fs::write(place.path("fit/comparison.json"), old).unwrap();
    assert!(failure(&plan("1e16")).contains("--analyse fit"));
    let nowhere = ["plan", "--flops", "1e15", "--from", "nowhere"];
    assert!(failure(&place.calm(&nowhere).output().unwrap()).contains("nowhere"));
    let unknown = ["compare", "--grid", "nnao"];
    assert!(failure(&place.calm(&unknown).output().unwrap()).contains("nano"));
}
