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

/// Every device sums its own parts: with one part a device that is the order in which one device sums
/// them, so on devices of one kind nothing changes, not by a bit.
#[test]
fn a_run_with_a_part_for_each_device_is_that_of_one_device_bit_for_bit() {
    let mut place = with_parts(3);
    place.train("one", Stages::All, None).unwrap();
    place.resume("one", Stages::Baseline, None).unwrap();
    place.others = vec![cpu("second"), cpu("third")];
    let stop = Some((calm_records::Stage::Lm, 3));
    place.train("three", Stages::All, stop).unwrap();
    let info = RunInfo::load(&RunDir::open(place.run("three")).unwrap().run()).unwrap();
    assert_eq!(info.device, "flex,second,third");
    place.resume("three", Stages::All, None).unwrap();
    place.resume("three", Stages::Baseline, None).unwrap();
    assert_eq!(logged(&place.run("three")), logged(&place.run("one")));
}

/// With more parts the order is another; and it is another number of devices amid the run.
#[test]
fn a_run_is_the_same_up_to_rounding_on_any_number_of_devices() {
    let mut place = with_parts(4);
    place.train("one", Stages::All, None).unwrap();
    place.others = vec![cpu("second"), cpu("third")];
    let stop = Some((calm_records::Stage::Lm, 3));
    place.train("three", Stages::All, stop).unwrap();
    place.others.truncate(1);
    place.resume("three", Stages::All, None).unwrap();
    let [one, three] = ["one", "three"].map(|name| logged(&place.run(name)));
    assert_eq!(one.len(), three.len());
    for (a, b) in one.iter().zip(&three) {
        assert_eq!((a.0, a.1), (b.0, b.1));
        for (a, b) in a.2.iter().zip(&b.2) {
            let (a, b) = (f64::from_bits(*a), f64::from_bits(*b));
            assert!((a - b).abs() <= 1e-4 * a.abs(), "{a} and {b}");
        }
    }
}

#[test]
fn an_all_reduce_is_refused_where_there_is_none() {
    let mut place = with_parts(2);
    place.others = vec![cpu("second")];
    place.all_reduce = true;
    let error = place.train("run", Stages::All, None).unwrap_err();
    assert!(
        error.to_string().starts_with("--all-reduce: flex has none"),
        "{error}"
    );
    assert!(!place.run("run").exists(), "nothing was begun");
}

fn with_parts(parts: usize) -> Place {
    let mut place = Place::new();
    place.experiment.autoencoder.accumulate = parts;
    place.experiment.lm.accumulate = parts;
    place.experiment.baseline.training.accumulate = parts;
    place
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
