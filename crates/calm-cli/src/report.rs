//! `calm report`: renders a run again.

use std::path::PathBuf;

use calm_report::{RunDir, write_report};

use crate::error::Result;
use crate::output::print;

#[derive(clap::Args)]
pub struct Args {
    /// The run directory.
    #[arg(long, value_name = "DIR")]
    run: PathBuf,
}

pub fn run(args: Args) -> Result<()> {
    let path = write_report(&RunDir::open(args.run)?)?;
    print(&format!("report: {}\n", path.display()))
}
