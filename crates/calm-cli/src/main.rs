//! The `calm` command; one file per subcommand. Errors go to stderr in one line, and the exit
//! status is 0 only where everything asked for was done.

mod bound;
mod compare;
mod compare_devices;
mod conform;
mod cost;
mod data;
mod devices;
mod error;
mod eval;
mod export;
mod generate;
mod import;
mod interrupt;
mod model;
mod output;
mod plan;
mod progress;
mod report;
mod serve_device;
mod trace;
mod train;
mod watchdog;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use error::CliError;
use output::tell;

#[global_allocator]
static ALLOCATOR: calm_alloc::Allocator = calm_alloc::ALLOCATOR;

/// Trains, evaluates and samples next-vector language models (CALM).
#[derive(Parser)]
#[command(version, about, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Train an autoencoder and a CALM on a corpus, evaluate them, write a report.
    Train(train::Args),
    /// Score a model by BrierLM and reconstruction on held-out text.
    Eval(eval::Args),
    /// Continue a prompt.
    Generate(generate::Args),
    /// Train and score CALMs and token models on equal work, and write the frontier.
    Compare(compare::Args),
    /// Whether a device computes what the CPU does: kernels, models, training, checkpoints.
    Conform(conform::Args),
    /// Count parameters, FLOPs and cache bytes: the published table, or a preset.
    Cost(cost::Args),
    /// Recommend size, data and K for a training budget, by a comparison's scaling law.
    Plan(plan::Args),
    /// Work on corpora.
    Data(data::Args),
    /// Write report.html of a run again.
    Report(report::Args),
    /// Turn a checkpoint of CALM's released code, or a LLaMA token model, into one of ours.
    Import(import::Args),
    /// Write a model in the form of the released code.
    Export(export::Args),
    /// Compute one forward pass from given inputs and draws, for porting and debugging.
    Trace(trace::Args),
    /// Serve this machine's devices to trainers elsewhere, by Burn's compute server.
    ServeDevice(serve_device::Args),
}

fn main() -> ExitCode {
    calm_alloc::keep_pages();
    let command = Cli::parse().command;
    // Inside the pool: from outside, every shared-out product would wake its threads anew.
    rayon::scope(|_| execute(command))
}

fn execute(command: Command) -> ExitCode {
    let result = match command {
        Command::Train(args) => train::run(args),
        Command::Eval(args) => eval::run(args),
        Command::Generate(args) => generate::run(args),
        Command::Compare(args) => compare::run(args),
        Command::Conform(args) => conform::run(args),
        Command::Cost(args) => cost::run(args),
        Command::Plan(args) => plan::run(args),
        Command::Data(args) => data::run(args),
        Command::Report(args) => report::run(args),
        Command::Import(args) => import::run(args),
        Command::Export(args) => export::run(args),
        Command::Trace(args) => trace::run(args),
        Command::ServeDevice(args) => serve_device::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // As a program has it that the system ends at a broken pipe: 128 + SIGPIPE.
        Err(CliError::NobodyReads) => ExitCode::from(141),
        Err(CliError::Interrupted(message)) => {
            tell(&message);
            ExitCode::from(130)
        }
        Err(error) => {
            tell(&format!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}
