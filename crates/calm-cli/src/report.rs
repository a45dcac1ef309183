//! `calm report`: renders a run again, or sets all runs side by side.

use std::path::PathBuf;

use calm_records::RunDir;
use calm_report::{write_index, write_report};

use crate::error::Result;
use crate::output::print;

#[derive(clap::Args)]
#[group(required = true, multiple = false)]
pub struct Args {
    /// A run directory, whose report.html is written again.
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
    /// All runs below a directory side by side: scores, learning curves, differences of
    /// configuration, a text of each, in its index.html [default: runs].
    #[arg(long, value_name = "DIR", num_args = 0..=1, default_missing_value = "runs")]
    all: Option<PathBuf>,
}

pub fn run(args: Args) -> Result<()> {
    let path = match (args.run, args.all) {
        (Some(run), _) => write_report(&RunDir::open(run)?)?,
        (None, Some(directory)) => write_index(&directory)?,
        (None, None) => unreachable!("clap requires one of them"),
    };
    print(&format!("report: {}\n", path.display()))
}
