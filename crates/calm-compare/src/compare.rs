//! The whole comparison: every cell, then what they say together.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use calm_data::CacheDir;
use calm_report::RunInfo;

use crate::cell::run_cell;
use crate::grid::{CellKind, Grid};
use crate::record::CellRecord;
use crate::report::write;
use crate::scaling::{Fit, FitError, Sample, fit};
use crate::techniques::{Technique, techniques};
use crate::{Event, Result};

/// Where and on what to compare.
#[derive(Debug)]
pub struct Options<'a> {
    /// The directory of the comparison.
    pub out: PathBuf,
    /// The device, without autodiff.
    pub device: &'a Device,
    /// Its string, for the records.
    pub device_name: &'a str,
    /// Machine and program, for the records of the runs.
    pub info: RunInfo,
    /// Where corpora and token streams are kept.
    pub cache: &'a CacheDir,
    /// Set to true to finish the step, save and stop.
    pub interrupt: &'a AtomicBool,
}

/// Everything that a comparison found.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The grid.
    pub grid: Grid,
    /// A record for every cell, in the grid's order.
    pub cells: Vec<CellRecord>,
    /// The ways to be efficient, measured.
    pub techniques: Vec<Technique>,
    /// The scaling law over the learning curves of the CALMs; why not, where there is none.
    pub scaling: std::result::Result<Fit, FitError>,
}

/// Laws drawn for the intervals of the scaling law.
const BOOTSTRAP: usize = 200;

/// The learning curves of the CALMs as points of a scaling law.
fn samples(cells: &[CellRecord]) -> Vec<Sample> {
    let calms = cells
        .iter()
        .enumerate()
        .filter(|(_, c)| c.kind == CellKind::Calm);
    calms
        .flat_map(|(run, cell)| {
            cell.curve.iter().map(move |point| Sample {
                run,
                parameters: cell.parameters as f64,
                tokens: point.tokens as f64,
                chunk_size: cell.chunk_size as f64,
                brier_1: point.brier_1,
                brier_1_se: point.brier_1_se,
            })
        })
        .collect()
}

/// Makes the cells that are not there yet, measures the techniques, and writes `cells.csv`,
/// `comparison.json`, the charts and `compare.html` into the directory. `None` where it was
/// interrupted: called again, it goes on and repeats no finished cell.
///
/// # Errors
/// A grid that can't be compared, a directory that holds cells of another grid, and whatever goes
/// wrong in training.
pub fn compare(
    grid: &Grid,
    options: &Options<'_>,
    observe: &mut dyn FnMut(Event<'_>),
) -> Result<Option<Comparison>> {
    let cells = grid.cells()?;
    let of = cells.len();
    let mut records = Vec::with_capacity(of);
    for (index, cell) in cells.iter().enumerate() {
        let directory = options.out.join("cells").join(cell.name());
        observe(Event::CellStarted {
            name: &cell.name(),
            index,
            of,
        });
        let Some(record) = run_cell(cell, grid, &directory, options, observe)? else {
            return Ok(None);
        };
        observe(Event::CellDone(&record));
        records.push(record);
    }
    let comparison = Comparison {
        grid: grid.clone(),
        scaling: fit(&samples(&records), BOOTSTRAP, grid.protocol.seed),
        techniques: techniques(grid, &cells, &records, options)?,
        cells: records,
    };
    write(&comparison, &options.out)?;
    Ok(Some(comparison))
}
