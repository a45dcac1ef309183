//! Run records (typed JSON and JSON lines), tables, SVG curves, and one self-contained HTML report.
//!
//! This crate fixes the format of a run directory and knows nothing of tensors, so that it compiles
//! in seconds and any tool can read a run through it.
//!
//! ```
//! use calm_report::{JsonlWriter, LineChart, MetricRow, RunDir, Series, read_jsonl, write_report};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! let run = RunDir::create(dir.path().join("runs/first"))?;
//! let row: MetricRow = serde_json::from_str(
//!     r#"{"stage": "lm", "step": 1, "tokens": 512, "flops": 1e9, "seconds": 0.2, "loss": 7.9,
//!         "tokens_per_s": 2560.0, "mfu": null, "grad_norm": 0.4, "lr": 0.001}"#,
//! )?;
//! JsonlWriter::create(&run.metrics())?.write(&row)?;
//! let rows: Vec<MetricRow> = read_jsonl(&run.metrics())?;
//! let curve = Series::new("lm", rows.iter().map(|r| (r.tokens as f64, r.loss)).collect());
//! let svg = LineChart::new("Loss", "tokens", "energy score").series(curve).to_svg();
//! assert!(svg.starts_with("<svg"));
//! let page = write_report(&run)?;
//! assert!(std::fs::read_to_string(page)?.contains("<svg"));
//! # Ok(())
//! # }
//! ```

mod chart;
mod error;
mod file;
mod findings;
mod finite;
pub mod format;
mod jsonl;
mod metrics;
mod page;
mod run;
mod rundir;
mod samples;
mod summary;
mod table;
mod tensorboard;
mod time;

pub use chart::{LineChart, Scale, Series, legend_of};
pub use error::{Error, Result};
pub use file::write_atomic;
pub use jsonl::{JsonlWriter, read_jsonl, read_jsonl_lenient, truncate_after};
pub use metrics::{EvalPoint, MetricRow, Stage};
pub use page::{html_page, render, write_index, write_report};
pub use run::{Host, RunInfo};
pub use rundir::RunDir;
pub use samples::{SampleText, load_samples};
pub use summary::{
    AutoencoderSummary, BaselineSummary, ModelSummary, Protocol, SCHEMA, Summary, TextPart,
};
pub use table::{Align, Table};
pub use tensorboard::EventWriter;
pub use time::{utc_from_unix, utc_now};
