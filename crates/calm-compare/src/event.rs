//! What a comparison tells whoever watches.

use crate::record::CellRecord;

/// One thing that happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// A cell's turn has come; a finished one is only read.
    CellStarted {
        /// Its name.
        name: &'a str,
        /// Its place, from 0.
        index: usize,
        /// Cells in all.
        of: usize,
    },
    /// Something happened in a cell's training or scoring.
    Train(calm_train::Event<'a>),
    /// All cells are complete; the ways to be efficient are timed.
    MeasuringTechniques,
    /// A cell is complete.
    CellDone(&'a CellRecord),
}
