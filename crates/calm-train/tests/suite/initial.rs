//! Training a model further: what it brings stays, and its optimizer starts fresh.

use std::path::Path;

use burn::tensor::Device;
use calm_lm::{AnyModel, Checkpoint, TokenIds};
use calm_records::{MetricRow, RunDir, Stage, read_jsonl};
use calm_train::{Error, RunEnd, Stages, preset};

use crate::{Place, logged};

fn losses(run: &Path, stage: Stage) -> Vec<f64> {
    let rows: Vec<MetricRow> = read_jsonl(&RunDir::open(run).unwrap().metrics()).unwrap();
    let rows = rows.iter().filter(|row| row.stage == stage);
    rows.map(|row| row.loss).collect()
}

fn set() -> Vec<String> {
    [
        "lm.steps=4",
        "lm.log_every=1",
        "lm.checkpoint_every=2",
        "lm.warmup_steps=0",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// The experiment of `place` with the model that stands in `from`.
fn further(place: &Place, from: &Path, more: &[&str]) -> calm_train::Experiment {
    let mut overrides = set();
    let corpus = serde_json::to_string(&place.experiment.data.corpus).unwrap();
    overrides.push(format!("data.corpus={corpus}"));
    let smaller = [
        "data.validation_fraction=0.15",
        "data.test_fraction=0.15",
        "eval.windows=4",
        "progress_eval.windows=2",
        "samples.tokens=6",
        "samples.pool=8",
    ];
    overrides.extend(smaller.iter().chain(more).map(|&more| more.to_owned()));
    preset::resolve_from("debug", Some(&from.display().to_string()), &overrides).unwrap()
}

/// From a run, and from what was exported of it and imported again, without its tokenizer.
#[test]
fn a_model_goes_on_where_it_stood() {
    let mut place = Place::new();
    place.experiment.lm.steps = 40;
    place.train("first", Stages::All, None).unwrap();
    let first = RunDir::open(place.run("first")).unwrap();
    let learned = losses(&first.root, Stage::Lm);

    place.experiment = further(&place, &first.root, &["model.window=32"]);
    assert_eq!(
        place.experiment.model.backbone.hidden_size, 16,
        "its own sizes"
    );
    let end = place
        .train("second", Stages::Lm, Some((Stage::Lm, 3)))
        .unwrap();
    assert_eq!(end, RunEnd::Interrupted);
    place.resume("second", Stages::Lm, None).unwrap();
    place.train("whole", Stages::Lm, None).unwrap();
    let went_on = losses(&place.run("second"), Stage::Lm);
    assert_eq!(
        logged(&place.run("second")),
        logged(&place.run("whole")),
        "resumed bit for bit"
    );
    // Far below where it began, near where it ended.
    let near = (learned[0] + 2.0 * learned[39]) / 3.0;
    assert!(
        went_on[0] < near,
        "{:?} .. {:?}, then {went_on:?}",
        learned[0],
        learned[39]
    );

    let device = Device::flex();
    let last = |run: &str| {
        let run = RunDir::open(place.run(run)).unwrap();
        calm_train::language_model_checkpoint(&run)
            .unwrap()
            .checkpoint
    };
    let (before, after) = (last("first"), last("second"));
    let table = |c: &Checkpoint| {
        let autoencoder = c.load_autoencoder(&device).unwrap();
        autoencoder.encoder.embedding.weight.val().into_data()
    };
    assert_eq!(table(&before), table(&after), "the autoencoder is frozen");
    assert_eq!(
        before.tokenizer().unwrap().fingerprint(),
        after.tokenizer().unwrap().fingerprint()
    );
    assert_eq!(after.config().window, 32);

    // Through the released form, as others have it.
    let (exported, imported) = (place.run("exported"), place.run("imported"));
    let model = AnyModel::Calm(before.config().clone(), before.load(&device).unwrap());
    model.export(None, TokenIds::default(), &exported).unwrap();
    let model = AnyModel::import(&exported, None, &device).unwrap();
    model.writer(&imported, None).unwrap().finish().unwrap();
    place.experiment = further(&place, &imported, &["model.window=32"]);
    let error = place
        .train("third", Stages::Lm, None)
        .unwrap_err()
        .to_string();
    assert!(error.contains("data.tokenizer"), "{error}");
    // What the released form doesn't tell: how many posterior draws there were.
    place.experiment.model.head = before.config().head.clone();
    place.experiment.data.tokenizer = first.tokenizer().display().to_string();
    place.train("third", Stages::Lm, None).unwrap();
    assert_eq!(losses(&place.run("third"), Stage::Lm), went_on);
}

#[test]
fn a_token_model_goes_on_too() {
    let mut place = Place::new();
    place.experiment.baseline.training.steps = 40;
    place.train("first", Stages::Baseline, None).unwrap();
    let first = RunDir::open(place.run("first")).unwrap();
    let learned = losses(&first.root, Stage::Baseline);
    let checkpoint = first.checkpoint(Stage::Baseline, 40);
    let more = [
        "baseline.training.steps=3",
        "baseline.training.log_every=1",
        "baseline.training.warmup_steps=0",
    ];
    place.experiment = further(&place, &checkpoint, &more);
    assert_eq!(place.experiment.baseline.transformer.hidden_size, 16);
    place.train("second", Stages::Baseline, None).unwrap();
    let went_on = losses(&place.run("second"), Stage::Baseline);
    // Of its run the same.
    place.experiment = further(&place, &first.root, &more);
    place.train("third", Stages::Baseline, None).unwrap();
    assert_eq!(losses(&place.run("third"), Stage::Baseline), went_on);
    let near = (learned[0] + 2.0 * learned[39]) / 3.0;
    assert!(went_on[0] < near, "{learned:?}, then {went_on:?}");
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_written() {
    let mut place = Place::new();
    place.train("first", Stages::All, None).unwrap();
    let first = place.run("first");
    let experiment = further(&place, &first, &[]);
    let mut refuse = |stages, change: &dyn Fn(&mut calm_train::Experiment), word: &str| {
        place.experiment = experiment.clone();
        change(&mut place.experiment);
        let error = place.train("other", stages, None).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
        assert!(!place.run("other").exists(), "{error}");
        error
    };
    let error = refuse(Stages::All, &|_| (), "--stage lm");
    assert!(matches!(error, Error::BadInitialModel { .. }), "{error}");
    refuse(
        Stages::Lm,
        &|e| e.model.backbone.layers = 3,
        "its model.backbone.layers is 2",
    );
    refuse(
        Stages::Lm,
        &|e| e.autoencoder_from = "runs/x".into(),
        "autoencoder_from",
    );
    refuse(Stages::Lm, &|e| e.init_from = "nowhere".into(), "nowhere");
    let resolve = preset::resolve_from("debug", Some("nowhere"), &set());
    assert!(resolve.unwrap_err().to_string().contains("nowhere"));
    // What only training needs may change.
    let more = [
        "model.aux_weight=0.5",
        "model.head.samples=4",
        "model.objective.log=0.1",
    ];
    place.experiment = further(&place, &first, &more);
    place.train("other", Stages::Lm, None).unwrap();
}
