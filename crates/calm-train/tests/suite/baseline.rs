//! The token baseline as a stage: alone, beside a CALM, interrupted and resumed.

use calm_records::{RunDir, Stage, Summary};
use calm_train::{RunEnd, Stages, baseline_checkpoint};

use crate::{Place, logged};

fn summary(place: &Place, name: &str) -> Summary {
    Summary::load(&RunDir::open(place.run(name)).unwrap().summary()).unwrap()
}

#[test]
fn interrupted_its_losses_are_those_of_an_uninterrupted_run() {
    let place = Place::new();
    assert_eq!(
        place.train("whole", Stages::Baseline, None).unwrap(),
        RunEnd::Complete
    );
    let whole = logged(&place.run("whole"));
    assert_eq!(whole.len(), 6);
    let stop = Some((Stage::Baseline, 3));
    assert_eq!(
        place.train("parts", Stages::Baseline, stop).unwrap(),
        RunEnd::Interrupted
    );
    assert_eq!(
        place.resume("parts", Stages::Baseline, None).unwrap(),
        RunEnd::Complete
    );
    assert_eq!(logged(&place.run("parts")), whole);
    assert_eq!(
        summary(&place, "whole").baseline,
        summary(&place, "parts").baseline
    );
}

/// Baseline and CALM in one directory, in either order and with an interruption of one while the
/// other is complete: neither touches the other's records, checkpoints or figures.
#[test]
fn beside_a_calm_each_keeps_what_the_other_did() {
    let place = Place::new();
    place.train("calm", Stages::All, None).unwrap();
    place.train("token", Stages::Baseline, None).unwrap();
    let (calm, token) = (logged(&place.run("calm")), logged(&place.run("token")));

    place
        .train("both", Stages::All, Some((Stage::Lm, 3)))
        .unwrap();
    let stop = Some((Stage::Baseline, 3));
    place.resume("both", Stages::Baseline, stop).unwrap();
    place.resume("both", Stages::Baseline, None).unwrap();
    let so_far = summary(&place, "both");
    assert!(so_far.baseline.is_some() && so_far.calm.is_none());
    place.resume("both", Stages::All, None).unwrap();

    let only = |stages: &[Stage]| {
        let mut rows = logged(&place.run("both"));
        rows.retain(|(stage, ..)| stages.contains(stage));
        rows
    };
    assert_eq!(only(&[Stage::Autoencoder, Stage::Lm]), calm);
    assert_eq!(only(&[Stage::Baseline]), token);

    let both = summary(&place, "both");
    let (calm, token) = (summary(&place, "calm"), summary(&place, "token"));
    assert_eq!(both.calm, calm.calm);
    assert_eq!(both.baseline, token.baseline);
    assert_eq!(both.tokens_seen, calm.tokens_seen + token.tokens_seen);
    assert_eq!(both.protocol, calm.protocol, "the same positions");

    let run = RunDir::open(place.run("both")).unwrap();
    let checkpoint = baseline_checkpoint(&run).unwrap().checkpoint;
    assert_eq!(checkpoint.config(), &place_config(&run));
}

fn place_config(run: &RunDir) -> calm_baseline::TokenModelConfig {
    calm_train::preset::load(&run.config())
        .unwrap()
        .token_model()
}

#[test]
fn a_run_without_a_baseline_says_so() {
    let place = Place::new();
    place.train("calm", Stages::Autoencoder, None).unwrap();
    let run = RunDir::open(place.run("calm")).unwrap();
    let error = baseline_checkpoint(&run).unwrap_err().to_string();
    assert!(error.contains("checkpoints/baseline/latest"), "{error}");
}
