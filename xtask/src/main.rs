//! Repository tasks: builds and starts `calm`, runs the benches, checks the rules, is what CI runs.
//!
//! Thin on purpose: it spawns cargo with the feature that the device string needs and links no
//! tensor library, so that it builds in seconds.

#![allow(clippy::print_stdout, clippy::print_stderr)] // It is a program.

mod bench;
mod calm;
mod ci;
mod device;
mod faults;
mod process;
mod tidy;
mod vulkan;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use process::{Error, Result};

const HELP: &str = "\
Repository tasks. Usage: cargo xtask COMMAND [ARGS...]

The calm program, built with the feature that --device needs (default flex):
  train     train the autoencoder and the language model, and write a run directory
  eval      score a run or a checkpoint: BrierLM and reconstruction
  generate  write text from a prompt
  compare   train and score CALMs and token models on equal work
  cost      operations, bytes and parameters of a preset, without training it
  plan      what a budget buys, by a comparison's scaling law
  data      prepare a corpus: fetch it, train the tokenizer, tokenize once
  report    write a run's report.html again
  import    turn a checkpoint of CALM's released code, or a LLaMA model, into one of ours
  export    write a model in the form of the released code
  trace     compute one forward pass from given inputs and draws
  conform   whether a device computes what the CPU does
  serve-device  serve this machine's devices to trainers elsewhere
  `cargo xtask COMMAND --help` shows the options of each.

The repository:
  bench     the standard jobs (steps), the same beside PyTorch (peer), how a step's time grows
            with its sizes (growth), what low temperatures cost (decode), how fast text is
            streamed (stream), or the benches of benches/benches:
            bench [NAME] [--device D] [ARGS...]
  faults    kill the trainer, fill its disk, damage its files, and compare what it ends with
  tidy      check the repository's rules; one line for each violation
  ci        run everything that CI runs: ci [--skip STEP,...] [--only STEP,...]
  help      print this text

Devices: flex (CPU), vulkan[:N], webgpu[:N], metal[:N], cuda[:N], rocm[:N], and those of compute
servers, remote:ws://HOST:PORT[/N] and remote:iroh://ID@HOST:PORT[/N]. train takes several:
--devices A,B.
";

/// The repository's own commands.
const OWN: [&str; 5] = ["bench", "faults", "tidy", "ci", "help"];

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    match run(&args) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(if matches!(error, Error::Usage(_)) {
                2
            } else {
                1
            })
        }
    }
}

/// Runs the command in `args` and returns the exit status to pass on.
fn run(args: &[OsString]) -> Result<u8> {
    let root = root()?;
    let Some((command, rest)) = args.split_first() else {
        eprint!("{HELP}");
        return Ok(2);
    };
    match command.to_string_lossy().as_ref() {
        "help" | "--help" | "-h" => {
            print!("{HELP}");
            Ok(0)
        }
        "bench" => bench::run(&root, rest),
        "faults" => faults::run(&root, rest),
        "tidy" => tidy::run(&root, rest),
        "ci" => ci::run(&root, rest),
        name if calm::COMMANDS.contains(&name) => calm::run(&root, name, rest),
        name => Err(unknown(name)),
    }
}

/// What is said of a command that does not exist, before anything is built.
fn unknown(name: &str) -> Error {
    let likeness = |known: &&&str| (1000.0 * strsim::jaro_winkler(name, known)) as u32;
    let nearest = calm::COMMANDS.iter().chain(&OWN).max_by_key(likeness);
    let hint = match nearest.filter(|nearest| likeness(nearest) > 800) {
        Some(nearest) => format!(" (did you mean '{nearest}'?)"),
        None => String::new(),
    };
    Error::Usage(format!(
        "no command '{name}'{hint}; `cargo xtask help` lists them"
    ))
}

/// The root of the repository: the folder above this package, wherever cargo was called from.
fn root() -> Result<PathBuf> {
    let package = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    match package.parent() {
        Some(root) if root.join("Cargo.toml").is_file() => Ok(root.to_path_buf()),
        _ => Err(Error::Usage(format!(
            "no workspace above {}; call this as `cargo xtask` inside the repository",
            package.display()
        ))),
    }
}

/// The target directory of a build with other features: each has its own, because cargo would
/// otherwise build Burn again each time the features change.
fn target_dir(root: &Path, name: Option<&str>) -> PathBuf {
    // A relative CARGO_TARGET_DIR is relative to where the user is, not to the root.
    let base = match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) if !dir.is_empty() => {
            std::path::absolute(&dir).unwrap_or_else(|_| PathBuf::from(&dir))
        }
        _ => root.join("target"),
    };
    match name {
        Some(name) => base.join(name),
        None => base,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is offered works: the commands are those of `calm`, read from its source, and the help
    /// names every one.
    #[test]
    fn the_commands_are_those_that_calm_has() {
        let source = std::fs::read_to_string(root().unwrap().join("crates/calm-cli/src/main.rs"));
        let source = source.unwrap();
        let start = source.find("enum Command {").unwrap();
        let mut of_calm: Vec<String> = source[start..source[start..].find("\n}").unwrap() + start]
            .lines()
            .filter_map(|line| line.trim().split_once('('))
            .map(|(name, _)| {
                // As clap does: ServeDevice is serve-device.
                let mut command = String::new();
                for c in name.chars() {
                    if c.is_uppercase() && !command.is_empty() {
                        command.push('-');
                    }
                    command.extend(c.to_lowercase());
                }
                command
            })
            .collect();
        of_calm.sort();
        let mut offered = calm::COMMANDS;
        offered.sort_unstable();
        assert_eq!(offered.to_vec(), of_calm);
        for name in calm::COMMANDS.iter().chain(&OWN) {
            assert!(HELP.contains(&format!("\n  {name:8}  ")), "{name}");
        }
    }

    #[test]
    fn a_command_that_does_not_exist_is_said_before_anything_is_built() {
        let message = |name: &str| run(&[name.into()]).unwrap_err().to_string();
        assert!(message("trian").contains("did you mean 'train'"));
        for name in ["imports", "serve"] {
            assert!(message(name).starts_with(&format!("no command '{name}'")));
        }
    }
}
