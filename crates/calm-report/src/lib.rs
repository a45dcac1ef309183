//! How runs and comparisons are shown: tables, charts, and self-contained HTML pages.
//!
//! ```
//! use calm_records::RunDir;
//! use calm_report::{LineChart, Series, write_report};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! let curve = Series::new("lm", vec![(512.0, 7.9), (1024.0, 7.2)]);
//! let svg = LineChart::new("Loss", "tokens", "energy score").series(curve).to_svg();
//! assert!(svg.starts_with("<svg"));
//! let run = RunDir::create(dir.path().join("runs/first"))?;
//! let page = write_report(&run)?; // names what the run lacks
//! assert!(std::fs::read_to_string(page)?.contains("summary.json"));
//! # Ok(())
//! # }
//! ```

mod chart;
mod findings;
pub mod format;
mod page;
mod show;
mod table;

pub use chart::{LineChart, Scale, Series, legend_of};
pub use page::{html_page, render, write_index, write_report};
pub use table::Table;
