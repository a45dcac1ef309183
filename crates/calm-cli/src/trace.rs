//! `calm trace`: one forward pass from given inputs, every draw among them.

use std::path::PathBuf;

use calm_lm::{DEVICE_FORMS, Solver, TraceInputs, open_device, trace};
use calm_weights::{TensorFiles, write_safetensors};

use crate::error::Result;
use crate::model::ModelArgs;
use crate::output::{print, tell};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Inputs: input_ids, latent, posterior_noise, head_condition, target, target_mask, head_noise, t,
    /// x0, noise, sample_noise; what they allow is computed.
    #[arg(long, value_name = "FILE.safetensors")]
    inputs: PathBuf,
    /// Where the outputs are written.
    #[arg(long, value_name = "FILE.safetensors")]
    out: PathBuf,
    /// Flow head: sample by 10 midpoint steps or 20 of Euler's [default: as configured].
    #[arg(long, value_enum)]
    solver: Option<SolverName>,
    #[arg(long, default_value = "flex", help = format!("The device: {DEVICE_FORMS}"))]
    device: String,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum SolverName {
    Midpoint,
    Euler,
}

pub fn run(args: Args) -> Result<()> {
    let device = open_device(&args.device)?;
    let (checkpoint, _) = args.model.open()?;
    let files = TensorFiles::open(&args.inputs).map_err(calm_lm::Error::from)?;
    let model = checkpoint.load(&device)?;
    let inputs = TraceInputs::new(&files, &device);
    let solver = args.solver.map(|solver| match solver {
        SolverName::Midpoint => Solver::Midpoint,
        SolverName::Euler => Solver::Euler,
    });
    let outputs = trace(&model, &inputs, solver)?;
    for name in inputs.unused() {
        tell(&format!("{name}: nothing asks for this input"));
    }
    let lines: String = outputs
        .iter()
        .map(|output| format!("{output:?}\n"))
        .collect();
    write_safetensors(&args.out, &[], outputs).map_err(calm_lm::Error::from)?;
    print(&lines)
}
