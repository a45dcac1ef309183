//! `calm compare`.

use std::path::{Path, PathBuf};

use calm_compare::{
    CellKind, CellRecord, Comparison, Event, Family, GRIDS, Grid, Options, Search, Trial, analyse,
    compare, search,
};
use calm_data::CacheDir;
use calm_lm::DEVICE_FORMS;
use calm_report::Table;
use calm_report::format::with_error;

use crate::compare_devices::{self, Devices};
use crate::error::{CliError, Result};
use crate::interrupt;
use crate::output::print;
use crate::progress::Progress;
use crate::train::run_info;

#[derive(clap::Args)]
pub struct Args {
    /// The grid.
    #[arg(
        long,
        default_value = "nano",
        help = format!("A grid ({}) or a complete .toml file", GRIDS.map(|(name, _)| name).join(", "))
    )]
    grid: String,
    /// The directory of the comparison [default: runs/compare-NAME]; called again with it, the
    /// comparison goes on and repeats no finished cell.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[arg(long, default_value = "flex", help = format!("The device: {DEVICE_FORMS}"))]
    device: String,
    /// Instead of a grid: the same steps of a preset on these devices of one program, side by side:
    /// speed, memory, and how far the losses drift apart.
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "DEVICE,..",
        conflicts_with_all = ["grid", "device", "analyse"]
    )]
    devices: Vec<String>,
    /// With --devices: precisions, each on every device.
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "f32|bf16,..",
        default_value = "f32",
        requires = "devices"
    )]
    precisions: Vec<String>,
    /// With --devices: the preset.
    #[arg(long, default_value = "debug", requires = "devices")]
    preset: String,
    /// With --devices: steps of every stage.
    #[arg(long, default_value_t = 20, requires = "devices")]
    steps: u64,
    /// With --devices: override a value of the preset.
    #[arg(long, num_args = 1.., value_name = "KEY=VALUE", requires = "devices")]
    set: Vec<String>,
    /// Draw the conclusions of a finished comparison again, from the records in its directory, and
    /// write them into --out; nothing is trained.
    #[arg(long, value_name = "DIR", requires = "out", conflicts_with = "grid")]
    analyse: Option<PathBuf>,
}

pub fn run(args: Args) -> Result<()> {
    if let (Some(from), Some(out)) = (&args.analyse, &args.out) {
        return show(&analyse(from, out)?, out);
    }
    if !args.devices.is_empty() {
        let default = || PathBuf::from("runs/compare-devices");
        return compare_devices::run(&Devices {
            devices: &args.devices,
            precisions: &args.precisions,
            preset: &args.preset,
            steps: args.steps,
            set: &args.set,
            out: &args.out.unwrap_or_else(default),
        });
    }
    let grid = Grid::resolve(&args.grid)?;
    let out = args
        .out
        .unwrap_or_else(|| PathBuf::from("runs").join(format!("compare-{}", grid.name)));
    let device = calm_lm::open_device(&args.device)?;
    let options = Options {
        out: out.clone(),
        device: &device,
        device_name: &args.device,
        info: run_info(&args.device, &device),
        cache: &CacheDir::default_location()?,
        interrupt: interrupt::install(),
    };
    let mut progress = Progress::new();
    let mut observe = |event: Event<'_>| match event {
        Event::CellStarted { name, index, of } => {
            progress.note(&format!("cell {} of {of}: {name}", index + 1));
        }
        Event::Train(event) => {
            if let calm_train::Event::StageStarted { .. } = &event {
                interrupt::save_from_now_on();
            }
            progress.show(event);
        }
        Event::MeasuringTechniques => progress.note("timing the ways to be efficient"),
        Event::CellDone(cell) => progress.note(&summary(cell)),
    };
    let end = match grid.is_search() {
        true => search(&grid, &options, &mut observe).map(|end| end.map(Outcome::Search)),
        false => compare(&grid, &options, &mut observe).map(|end| end.map(Outcome::Comparison)),
    };
    progress.finish_bar();
    match end? {
        Some(Outcome::Comparison(comparison)) => show(&comparison, &out),
        Some(Outcome::Search(search)) => show_search(&search, &out),
        None => Err(CliError::Interrupted(format!(
            "stopped; finished cells are kept: go on with `cargo xtask compare --grid {} --out {}{}`",
            args.grid,
            out.display(),
            match args.device.as_str() {
                "flex" => String::new(),
                device => format!(" --device {device}"),
            }
        ))),
    }
}

#[allow(clippy::large_enum_variant)] // There is one of these.
enum Outcome {
    Comparison(Comparison),
    Search(Search),
}

/// What was tried in every family, the best of it, and where the range was too narrow.
fn show_search(search: &Search, out: &Path) -> Result<()> {
    let mut text = String::new();
    for family in &search.families {
        let mut table = Table::new(["", "settings", "validation, nats", "Brier-1"]);
        for (at, trial) in family.trials.iter().enumerate() {
            let best = if at == family.best { "best" } else { "" };
            let (nats, brier_1) = results(trial);
            table.row([best.to_owned(), settings(family, trial), nats, brier_1]);
        }
        let ends: String = family
            .open_ends()
            .iter()
            .map(|axis| format!("best {axis} at the end of its range: try further\n"))
            .collect();
        text += &format!("{}\n{}{ends}\n", family.name, table.to_text());
    }
    text += &format!("search: {}\n", out.join("search.json").display());
    print(&text)
}

fn settings(family: &Family, trial: &Trial) -> String {
    let values = family.axes.iter().zip(&trial.values);
    let values: Vec<&str> = values.map(|(axis, &i)| axis.values[i].as_str()).collect();
    values.join(" ")
}

/// Means over the seeds.
fn results(trial: &Trial) -> (String, String) {
    let of = trial.results.len() as f64;
    let Some(all) = trial.results.iter().copied().collect::<Option<Vec<_>>>() else {
        let failed = "the loss is no number".to_owned();
        return (failed.clone(), failed);
    };
    let nats: Option<f64> = all.iter().map(|judged| judged.cross_entropy).sum();
    let brier_1: f64 = all.iter().map(|judged| judged.brier_1).sum();
    let variance: f64 = all.iter().map(|judged| judged.brier_1_se.powi(2)).sum();
    (
        nats.map_or("—".to_owned(), |nats| format!("{:.3}", nats / of)),
        with_error(brier_1 / of, variance.sqrt() / of),
    )
}

/// The cells' figures, and where the report is.
fn show(comparison: &Comparison, out: &Path) -> Result<()> {
    let mut table = Table::new(["cell", "K", "Brier-1", "BrierLM", "tokens/s at batch 1"]);
    for cell in &comparison.cells {
        table.row([
            format!("{} seed {}", cell.model, cell.seed),
            cell.chunk_size.to_string(),
            with_error(cell.scores.brier[0], cell.scores.brier_se[0]),
            match cell.scores.brier_lm {
                0.0 => "0".to_owned(),
                value => with_error(value, cell.scores.brier_lm_se.unwrap_or(f64::NAN)),
            },
            cell.speed_at(1)
                .map_or(String::new(), |row| format!("{:.0}", row.tokens_per_s)),
        ]);
    }
    print(&format!(
        "{}report: {}\n",
        table.to_text(),
        out.join("compare.html").display()
    ))
}

fn summary(cell: &CellRecord) -> String {
    let kind = match cell.kind {
        CellKind::Calm | CellKind::Local => {
            format!("{}, K = {}", cell.kind.words(), cell.chunk_size)
        }
        CellKind::Baseline => cell.kind.words().to_owned(),
    };
    format!(
        "{} seed {} ({kind}): Brier-1 {} after {:.1e} FLOP",
        cell.model,
        cell.seed,
        with_error(cell.scores.brier[0], cell.scores.brier_se[0]),
        cell.train_flops,
    )
}
