//! `calm conform`: whether a device computes what the CPU does.

use std::path::PathBuf;

use calm_conform::{CaseResult, Status, Suite};
use calm_lm::{DEVICE_FORMS, NamedDevice};

use crate::error::{CliError, Result};
use crate::output::{print, tell};

#[derive(clap::Args)]
pub struct Args {
    /// The device.
    #[arg(long, default_value = "flex", help = format!("The device: {DEVICE_FORMS}"))]
    device: String,
    /// Cases whose names hold this word.
    #[arg(long, value_name = "WORD")]
    only: Option<String>,
    /// Cases of a file of your own instead of the built-in ones.
    #[arg(long, value_name = "FILE")]
    cases: Option<PathBuf>,
    /// Write the results as JSON, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write what the CPU gives to a file instead: the record that devices are held against.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["device", "json", "only", "cases"])]
    record: Option<PathBuf>,
}

pub fn run(args: Args) -> Result<()> {
    let mut suite = match &args.cases {
        Some(path) => Suite::from_file(path)?,
        None => Suite::built_in()?,
    };
    if let Some(word) = &args.only {
        suite = suite.only(word);
    }
    let io = |path: &PathBuf| {
        let path = path.clone();
        move |source| CliError::Io { path, source }
    };
    if let Some(path) = &args.record {
        return std::fs::write(path, suite.record()?).map_err(io(path));
    }
    if suite.cases().is_empty() {
        return Err(CliError::Usage("no case has such a name".to_owned()));
    }
    let device = NamedDevice::open(&args.device)?;
    let names = suite.cases().iter().map(|case| case.name.chars().count());
    let width = names.max().unwrap_or_default();
    print(&format!(
        "{:width$}  largest difference  tolerance  seconds\n",
        args.device
    ))?;
    // What a case panics with is its result.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let mut unread = None;
    let results = suite.run(&device, &mut |result| {
        unread = unread.take().or(print(&line(result, width)).err());
    });
    std::panic::set_hook(hook);
    unread.map_or(Ok(()), Err)?;
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&results).expect("numbers and names") + "\n";
        std::fs::write(path, text).map_err(io(path))?;
    }
    let failed = results
        .iter()
        .filter(|r| r.status == Status::Failed)
        .count();
    let seconds: f64 = results.iter().map(|result| result.seconds).sum();
    tell(&format!(
        "{} cases, {failed} failed, {seconds:.1} s",
        results.len()
    ));
    match failed {
        0 => Ok(()),
        _ => Err(CliError::Usage(format!(
            "{failed} of {} cases don't pass on {}",
            results.len(),
            args.device
        ))),
    }
}

fn line(result: &CaseResult, width: usize) -> String {
    let apart = result
        .apart
        .map_or("-".to_owned(), |apart| format!("{apart:.1e}"));
    let failed = match result.status {
        Status::Passed => String::new(),
        Status::Failed => format!("  FAILED: {}", result.detail),
    };
    format!(
        "{:width$}  {apart:>18}  {:>9.0e}  {:>7.2}{failed}\n",
        result.name, result.tolerance, result.seconds
    )
}
