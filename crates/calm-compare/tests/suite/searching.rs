//! A search of settings: what it tries, that it goes on where it stopped, and what it refuses.

use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::Device;
use calm_compare::{Axis, CellKind, Error, Event, Grid, Options, Result, Search, search};

use crate::{Place, read};

fn axis(kind: CellKind, name: &str, values: &[&str]) -> Axis {
    Axis {
        kind,
        name: name.to_owned(),
        values: values.iter().map(|&value| value.to_owned()).collect(),
    }
}

/// A token model and a CALM; a learning rate that no training survives among those to try.
fn place() -> Place {
    let mut place = Place::new();
    place.grid.cells = vec![place.grid.cells[1].clone(), place.grid.cells[2].clone()];
    place.grid.search = vec![
        axis(
            CellKind::Calm,
            "lr",
            &["optim.lr=1e-3", "optim.lr=1e30", "optim.lr=2e-3"],
        ),
        axis(
            CellKind::Calm,
            "batch",
            &["lm.batch_windows=2", "lm.batch_windows=1 lm.steps=8"],
        ),
        axis(
            CellKind::Baseline,
            "lr",
            &["baseline.lr=1e-3", "baseline.lr=3e-3"],
        ),
    ];
    place
}

/// Interrupted after `stop` events, where that is given.
fn run(place: &Place, stop: Option<usize>) -> Result<(Option<Search>, usize)> {
    let (device, interrupt) = (Device::flex(), AtomicBool::new(false));
    let options = Options {
        out: place.out(),
        device: &device,
        device_name: "flex",
        info: Default::default(),
        cache: &place.cache(),
        interrupt: &interrupt,
    };
    let (mut events, mut stepped) = (0, 0);
    let end = search(&place.grid, &options, &mut |event| {
        events += 1;
        if stop.is_some_and(|stop| events >= stop) {
            interrupt.store(true, Ordering::SeqCst);
        }
        if let Event::Train(calm_train::Event::Stepped { .. }) = event {
            stepped += 1;
        }
    })?;
    Ok((end, stepped))
}

#[test]
fn every_cell_gets_the_axes_of_its_kind_and_a_failed_training_is_a_result() {
    let place = place();
    let found = run(&place, None).unwrap().0.unwrap();
    let [token, calm] = found.families.as_slice() else {
        panic!("{:?}", found.families);
    };
    let values = |family: &calm_compare::Family| -> Vec<Vec<usize>> {
        family.trials.iter().map(|t| t.values.clone()).collect()
    };
    assert_eq!(values(token), [[0], [1]]);
    assert_eq!(values(calm)[..3], [[0, 0], [1, 0], [2, 0]]);
    assert_eq!(values(calm).len(), 4);
    assert_eq!(calm.trials[1].results, [None]);
    assert_ne!(calm.trials[calm.best].values[0], 1);
    // Judged by what the model has.
    for (family, likelihood) in [(token, true), (calm, false)] {
        let judged = family.trials[family.best].results[0].unwrap();
        assert_eq!(judged.cross_entropy.is_some(), likelihood);
        assert!(judged.brier_1.is_finite() && judged.brier_1_se > 0.0);
    }
    let of = |trial: usize| {
        token.trials[trial].results[0]
            .unwrap()
            .cross_entropy
            .unwrap()
    };
    assert!(of(token.best) <= of(1 - token.best));
    let kept: Search = serde_json::from_str(&read(&place.out().join("search.json"))).unwrap();
    assert_eq!(kept, found);
    // Nothing is trained again.
    let (again, stepped) = run(&place, None).unwrap();
    assert_eq!((again.unwrap(), stepped), (found, 0));
    // Nor is the failure read as that of another setting in its place.
    let mut place = place;
    place.grid.search[0].values[1] = "optim.lr=5e-4".to_owned();
    let error = run(&place, None).unwrap_err();
    assert!(matches!(error, Error::OtherCell { .. }), "{error}");
}

#[test]
fn an_interrupted_search_goes_on_to_the_same_end() {
    let (whole, place) = (place(), place());
    let (expected, steps) = run(&whole, None).unwrap();
    let (mut stepped, mut rounds) = (0, 0);
    let found = loop {
        rounds += 1;
        assert!(rounds < 100, "it must end");
        let (end, steps) = run(&place, Some(40)).unwrap();
        stepped += steps;
        if let Some(found) = end {
            break found;
        }
    };
    assert!(rounds > 2, "interrupted {rounds} times");
    assert_eq!(found.families, expected.unwrap().families);
    assert_eq!(stepped, steps);
}

#[test]
fn searches_that_can_not_be_made_are_refused_before_the_first_training() {
    let refuse = |change: fn(&mut Grid)| {
        let mut place = place();
        change(&mut place.grid);
        let error = run(&place, None).unwrap_err();
        assert!(!place.out().join("cells").exists());
        error.to_string()
    };
    for (change, word) in [
        (
            (|g| g.search[0].values[2] = "optim.lrr=1".into()) as fn(&mut Grid),
            "optim.lr",
        ),
        (|g| g.search[0].values.clear(), "no values"),
        (|g| g.search[2].name = "a/b".into(), "letters"),
        (
            |g| g.search[0].values[1] = "model.window=32".into(),
            "window of 32",
        ),
        (
            |g| g.cells[0].run = Some("runs/nano".into()),
            "finished run",
        ),
    ] {
        let message = refuse(change);
        assert!(message.contains(word), "{word}: {message}");
        assert_eq!(message.lines().count(), 1, "{message}");
    }
    // Nor is a search a comparison.
    let error = place().compare(None).unwrap_err();
    assert!(matches!(error, Error::BadGrid { .. }), "{error}");
}
