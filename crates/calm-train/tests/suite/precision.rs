//! Training with matrix products rounded to bf16.

use calm_records::{MetricRow, RunDir, RunInfo, Stage, read_jsonl};
use calm_train::{Precision, Stages};

use crate::{Place, logged};

/// Whether this processor multiplies in bf16.
fn has_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx512bf16");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

/// bf16 keeps 8 bits of the mantissa: the losses move, but by little.
#[test]
fn the_losses_stay_near_those_of_f32() {
    let mut place = Place::new();
    place.train("f32", Stages::All, None).unwrap();
    place.experiment.precision = Precision::Bf16;
    place.train("bf16", Stages::All, None).unwrap();
    let rows = |name| -> Vec<MetricRow> {
        read_jsonl(&RunDir::open(place.run(name)).unwrap().metrics()).unwrap()
    };
    let (exact, rounded) = (rows("f32"), rows("bf16"));
    assert_eq!(exact.len(), rounded.len());
    for (exact, rounded) in exact.iter().zip(&rounded) {
        let off = (rounded.loss / exact.loss - 1.0).abs();
        assert!(off < 0.02, "{exact:?} and {rounded:?}");
    }
    if has_bf16() {
        assert_ne!(exact[0].loss, rounded[0].loss, "nothing was rounded");
    }
    // The record names what ran.
    let info = RunInfo::load(&RunDir::open(place.run("bf16")).unwrap().run()).unwrap();
    assert_eq!(info.precision, if has_bf16() { "bf16" } else { "f32" });
}

#[test]
fn a_resume_goes_on_in_the_same_precision() {
    let mut place = Place::new();
    place.experiment.precision = Precision::Bf16;
    place.train("whole", Stages::All, None).unwrap();
    place
        .train("parts", Stages::All, Some((Stage::Lm, 3)))
        .unwrap();
    place.resume("parts", Stages::All, None).unwrap();
    assert_eq!(logged(&place.run("parts")), logged(&place.run("whole")));
}

#[test]
fn a_record_names_all_precisions_that_trained() {
    let place = Place::new();
    place
        .train("moved", Stages::All, Some((Stage::Lm, 3)))
        .unwrap();
    let run = RunDir::open(place.run("moved")).unwrap();
    let mut info = RunInfo::load(&run.run()).unwrap();
    info.precision = "bf16".to_owned();
    info.save(&run.run()).unwrap();
    let precision = || RunInfo::load(&run.run()).unwrap().precision;
    place.resume("moved", Stages::All, None).unwrap();
    assert_eq!(precision(), "bf16, then f32");

    // A trained run is only scored again.
    info.save(&run.run()).unwrap();
    place.resume("moved", Stages::All, None).unwrap();
    assert_eq!(precision(), "bf16");
}
