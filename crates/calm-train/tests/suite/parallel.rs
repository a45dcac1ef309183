//! Steps whose parts are on several devices.

use burn::tensor::Device;
use calm_lm::NamedDevice;
use calm_records::{RunDir, RunInfo};
use calm_train::{RunEnd, Stages};

use super::{Place, logged};

fn cpu(name: &str) -> NamedDevice {
    let (name, device) = (name.to_owned(), Device::flex());
    NamedDevice { name, device }
}

/// Parts are summed in the order in which one device sums them, so on devices of one kind nothing
/// changes, not by a bit; nor by a change of their number amid a run.
#[test]
fn a_run_is_the_same_on_any_number_of_devices() {
    let mut place = Place::new();
    place.experiment.autoencoder.accumulate = 4;
    place.experiment.lm.accumulate = 3;
    place.experiment.baseline.training.accumulate = 4;
    place.train("one", Stages::All, None).unwrap();
    place.resume("one", Stages::Baseline, None).unwrap();
    place.others = vec![cpu("second"), cpu("third")];
    let stop = Some((calm_records::Stage::Lm, 3));
    place.train("three", Stages::All, stop).unwrap();
    let info = RunInfo::load(&RunDir::open(place.run("three")).unwrap().run()).unwrap();
    assert_eq!(info.device, "flex,second,third");
    place.others.truncate(1);
    place.resume("three", Stages::All, None).unwrap();
    place.resume("three", Stages::Baseline, None).unwrap();
    assert_eq!(logged(&place.run("three")), logged(&place.run("one")));
}

#[test]
fn more_devices_than_parts_are_refused_before_a_step() {
    let mut place = Place::new();
    place.others = vec![cpu("second")];
    // Two parts in the autoencoder, one in the language model.
    let error = place
        .train("run", Stages::All, None)
        .unwrap_err()
        .to_string();
    assert!(error.contains("raise lm.accumulate to 2"), "{error}");
    assert!(!place.run("run").exists(), "nothing was begun");
    place.others.clear();
    let stop = Some((calm_records::Stage::Lm, 3));
    place.train("run", Stages::All, stop).unwrap();
    place.others = vec![cpu("second")];
    let error = place.resume("run", Stages::All, None).unwrap_err();
    assert!(error.to_string().contains("raise lm.accumulate to 2"));
    place.others.clear();
    assert_eq!(
        place.resume("run", Stages::All, None).unwrap(),
        RunEnd::Complete
    );
}
