//! An autoencoder taken from another run.

use calm_records::{RunDir, Stage, Summary};
use calm_train::{Error, RunEnd, Stages};

use crate::{Place, logged};

fn summary(place: &Place, name: &str) -> Summary {
    Summary::load(&RunDir::open(place.run(name)).unwrap().summary()).unwrap()
}

/// The language model on it is that of the run that trained it, bit for bit, and so is what it
/// cost; also after an interruption, and from a checkpoint instead of a run.
#[test]
fn the_language_model_on_it_is_the_same() {
    let mut place = Place::new();
    place.train("whole", Stages::All, None).unwrap();
    let whole = logged(&place.run("whole"));
    let run = RunDir::open(place.run("whole")).unwrap();
    let stage_of = |name: &str, stage| {
        let rows = logged(&place.run(name)).into_iter();
        rows.filter(|row| row.0 == stage).collect::<Vec<_>>()
    };
    let expected = stage_of("whole", Stage::Lm);
    assert!(whole.len() > expected.len());
    for (name, from, stop) in [
        ("taken", run.root.clone(), None),
        ("stopped", run.root.clone(), Some((Stage::Lm, 3))),
        ("checkpoint", run.checkpoint(Stage::Autoencoder, 7), None),
    ] {
        place.experiment.autoencoder_from = from.display().to_string();
        let mut end = place.train(name, Stages::All, stop).unwrap();
        if end == RunEnd::Interrupted {
            end = place.resume(name, Stages::All, None).unwrap();
        }
        assert_eq!(end, RunEnd::Complete);
        assert_eq!(
            logged(&place.run(name)),
            expected,
            "{name}: and no other rows"
        );
        let (found, whole) = (summary(&place, name), summary(&place, "whole"));
        assert_eq!(found.calm, whole.calm, "{name}");
        assert_eq!(found.autoencoder, whole.autoencoder, "{name}");
        assert_eq!(found.tokens_seen, whole.tokens_seen, "{name}");
    }
}

#[test]
fn one_that_does_not_fit_is_refused_before_anything_is_written() {
    let mut place = Place::new();
    place
        .train("half", Stages::All, Some((Stage::Autoencoder, 3)))
        .unwrap();
    place.train("whole", Stages::All, None).unwrap();
    let whole = RunDir::open(place.run("whole")).unwrap();
    let half = place.run("half");
    let experiment = place.experiment.clone();
    let mut refuse =
        |from: &std::path::Path, change: &dyn Fn(&mut calm_train::Experiment), word: &str| {
            place.experiment = experiment.clone();
            place.experiment.autoencoder_from = from.display().to_string();
            change(&mut place.experiment);
            let error = place.train("other", Stages::All, None).unwrap_err();
            let message = error.to_string();
            assert!(
                message.contains(word) && !message.contains('\n'),
                "{message}"
            );
            assert!(!place.run("other").exists(), "{message}");
            error
        };
    let none = |_: &mut calm_train::Experiment| ();
    refuse(&half, &none, "not finished (3 of 7 steps)");
    refuse(&whole.checkpoint(Stage::Lm, 6), &none, "language model");
    refuse(&half.with_file_name("nowhere"), &none, "nowhere");
    refuse(&whole.root, &|e| e.model.latent_size = 8, "latent_size is");
    let error = refuse(&whole.root, &|e| e.data.test_fraction = 0.2, "another text");
    assert!(matches!(error, Error::BadAutoencoder { .. }), "{error}");
}
