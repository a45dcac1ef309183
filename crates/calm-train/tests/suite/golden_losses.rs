//! The loss curve of a tiny run, held against the one in the repository: a change of computation
//! must touch `fixtures/losses/tiny-flex.txt` in the same commit.

use std::fmt::Write;
use std::path::Path;

use calm_records::{MetricRow, RunDir, read_jsonl};
use calm_train::Stages;

use crate::Place;

/// Other processors sum in another order; a changed computation moves the losses by more.
const RELATIVE: f64 = 2e-3;

/// Set `CALM_WRITE_GOLDEN=1` to write the file anew.
#[test]
fn the_losses_of_a_tiny_run_are_those_on_record() {
    let place = Place::new();
    place.train("run", Stages::All, None).unwrap();
    let rows: Vec<MetricRow> =
        read_jsonl(&RunDir::open(place.run("run")).unwrap().metrics()).unwrap();
    let mut text = String::new();
    for row in &rows {
        writeln!(text, "{} {} {:.6}", row.stage, row.step, row.loss).unwrap();
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/losses/tiny-flex.txt");
    if std::env::var_os("CALM_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    assert_eq!(golden.lines().count(), rows.len());
    for (expected, row) in golden.lines().zip(&rows) {
        let mut parts = expected.split(' ');
        assert_eq!(parts.next(), Some(row.stage.name()));
        assert_eq!(parts.next(), Some(row.step.to_string().as_str()));
        let loss: f64 = parts.next().unwrap().parse().unwrap();
        let off = (row.loss / loss - 1.0).abs();
        assert!(off < RELATIVE, "{expected}: this run has {:.6}", row.loss);
    }
}
