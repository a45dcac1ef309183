//! What a run leaves behind: the layout of its directory, typed records in JSON and JSON lines, and
//! TensorBoard events.
//!
//! This crate fixes the format of a run directory and knows neither tensors nor pages, so that it
//! compiles in seconds and any tool can read a run through it.
//!
//! ```
//! use calm_records::{JsonlWriter, MetricRow, RunDir, read_jsonl};
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
//! assert_eq!(rows[0].loss, 7.9);
//! # Ok(())
//! # }
//! ```

mod error;
#[doc(hidden)]
pub mod examples;
mod file;
mod finite;
mod jsonl;
mod metrics;
mod run;
mod rundir;
mod samples;
mod summary;
mod tensorboard;
mod time;

pub use error::{Error, Result};
pub use file::write_atomic;
pub use jsonl::{JsonlWriter, read_jsonl, read_jsonl_lenient, truncate_after};
pub use metrics::{EvalPoint, MetricRow, Stage, WindowBrier};
pub use run::{Host, RunInfo};
pub use rundir::RunDir;
pub use samples::{SampleText, load_samples};
pub use summary::{AutoencoderSummary, ModelSummary, Protocol, SCHEMA, Summary, TextPart};
pub use tensorboard::EventWriter;
pub use time::{utc_from_unix, utc_now};
