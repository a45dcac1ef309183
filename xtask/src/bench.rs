//! Runs the standard jobs and the benches of `benches/benches` through cargo.

use std::ffi::OsString;
use std::path::Path;

use crate::process::Result;
use crate::{device, process, target_dir};

/// The variable that tells the benches their device: divan keeps the command line for itself.
const DEVICE_VARIABLE: &str = "CALM_BENCH_DEVICE";

/// What the standard jobs can be asked for; they are a program of their own.
const JOBS: [&str; 3] = ["steps", "peer", "growth"];

/// Programs of their own: low temperatures, and text from files.
const PROGRAMS: [&str; 2] = ["decode", "stream"];

/// `bench [NAME] [--device D] [ARGS...]`: the standard jobs (`steps`), the same beside PyTorch
/// (`peer`), how a step's time grows with its sizes (`growth`), one bench, or all benches where no
/// name is given; `ARGS` go to the program. An unknown name is cargo's to refuse: it knows them.
pub fn run(root: &Path, args: &[OsString]) -> Result<u8> {
    let (device, args) = device::split(args)?;
    let device = device.unwrap_or_else(|| "flex".to_owned());
    let wanted = device::build(&[&device])?;
    let is_name = |word: &&OsString| !word.to_string_lossy().starts_with('-');
    let name = args.first().filter(is_name);
    let mut command = process::cargo(root);
    let mut rest = &args[usize::from(name.is_some())..];
    match name {
        Some(job) if JOBS.iter().any(|known| job == known) => {
            command.args(program("jobs"));
            rest = &args;
        }
        Some(job) if PROGRAMS.iter().any(|known| job == known) => {
            command.args(program(&job.to_string_lossy()));
        }
        Some(bench) => {
            let package = ["bench", "--package", "calm-benches", "--bench"];
            command.args(package).arg(bench);
        }
        None => {
            command.args(["bench", "--package", "calm-benches"]);
        }
    }
    if let Some(wanted) = &wanted {
        command.args(["--features", &wanted.features]);
    }
    let target = wanted.as_ref().map(|wanted| wanted.target.as_str());
    let target = target_dir(root, target);
    command.arg("--target-dir").arg(target);
    command.env(DEVICE_VARIABLE, &device);
    command
        .arg("--")
        .args(rest.iter().filter(|word| *word != "--"));
    process::status(&mut command)
}

/// Runs a program of the benches.
fn program(name: &str) -> [&str; 6] {
    let package = "calm-benches";
    ["run", "--release", "--package", package, "--bin", name]
}
