//! Comparison on equal work: CALM at several K, token models, and the other ways to be efficient,
//! on the same text under one protocol, with what they cost and how fast they are.
//!
//! ```no_run
//! use std::sync::atomic::AtomicBool;
//! use burn::tensor::Device;
//! use calm_compare::{Grid, Options, compare};
//! use calm_data::CacheDir;
//!
//! let grid = Grid::resolve("debug")?;
//! let device = Device::flex();
//! let options = Options {
//!     out: "runs/compare-debug".into(), device: &device, device_name: "flex",
//!     info: Default::default(), cache: &CacheDir::default_location()?,
//!     interrupt: &AtomicBool::new(false),
//! };
//! let comparison = compare(&grid, &options, &mut |event| println!("{event:?}"))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod attention;
mod cell;
mod compare;
mod curve;
mod decoding;
mod devices;
mod error;
mod event;
pub mod frontier;
mod grid;
mod isotonic;
mod least_squares;
mod loaded;
mod memory;
mod models;
mod plan;
mod record;
mod report;
pub mod scaling;
mod search;
mod setting;
mod spec;
mod speed;
mod tables;
mod techniques;
mod verdict;

pub use compare::{analyse, compare};
pub use devices::{DeviceRow, device_rows};
pub use error::{Error, Result};
pub use event::Event;
pub use grid::{CellConfig, GRIDS, Grid};
pub use plan::{Choice, Plan, Scaling, plan};
pub use record::{CellRecord, CurvePoint, MadeWith, Scores, SpeedRow, Technique, to_csv};
pub use report::Comparison;
pub use search::{Family, Judged, Search, Trial, search};
pub use setting::Options;
pub use spec::{Axis, Cell, CellKind, Loaded, ProtocolConfig, SpeedConfig};
