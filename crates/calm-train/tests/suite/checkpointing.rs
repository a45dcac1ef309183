//! Runs with gradient checkpointing.

use calm_lm::NamedDevice;
use calm_records::Stage;
use calm_train::Stages;

use crate::{Place, logged};

/// The computation is the same, and on the CPU so is its order.
#[test]
fn a_run_repeats_the_losses_of_one_without() {
    let mut place = Place::new();
    place.train("plain", Stages::All, None).unwrap();
    place.train("baseline", Stages::Baseline, None).unwrap();
    place.experiment.gradient_checkpointing = true;
    place.train("checkpointed", Stages::All, None).unwrap();
    assert_eq!(
        logged(&place.run("checkpointed")),
        logged(&place.run("plain"))
    );
    place
        .train("parts", Stages::Baseline, Some((Stage::Baseline, 3)))
        .unwrap();
    place.resume("parts", Stages::Baseline, None).unwrap();
    assert_eq!(logged(&place.run("parts")), logged(&place.run("baseline")));
}

/// A part of a step on every device, each checkpointed.
#[test]
fn a_run_on_two_devices_repeats_them_too() {
    let mut place = Place::new();
    place.experiment.autoencoder.accumulate = 2;
    place.train("one", Stages::Autoencoder, None).unwrap();
    place.experiment.gradient_checkpointing = true;
    place.others = vec![NamedDevice::open("flex").unwrap()];
    place.train("two", Stages::Autoencoder, None).unwrap();
    assert_eq!(logged(&place.run("two")), logged(&place.run("one")));
}
