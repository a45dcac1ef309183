//! `calm compare --devices`: the same steps on several devices, or in several precisions.

use std::path::{Path, PathBuf};
use std::process::Command;

use calm_compare::{DeviceRow, device_rows};
use calm_lm::open_device;
use calm_records::{RunDir, Summary};
use calm_report::{Table, format};

use crate::error::{CliError, Result};
use crate::output::{print, tell};

/// What is compared, and by which steps.
pub struct Devices<'a> {
    pub devices: &'a [String],
    pub precisions: &'a [String],
    pub preset: &'a str,
    pub steps: u64,
    pub set: &'a [String],
    pub out: &'a Path,
}

/// Trains each in a process of its own, so that memory is one's own, and sets them side by side.
pub fn run(what: &Devices<'_>) -> Result<()> {
    // All of them, before the first has trained for nothing.
    for device in what.devices {
        open_device(device)?;
    }
    let request = serde_json::json!({
        "preset": what.preset,
        "steps": what.steps,
        "set": what.set,
    })
    .to_string();
    let place = what.out.join("request.json");
    match std::fs::read_to_string(&place) {
        Ok(before) if before != request => {
            return Err(CliError::Usage(format!(
                "{} holds runs of other steps or settings: give another --out, or remove it",
                what.out.display()
            )));
        }
        Ok(_) => {}
        Err(_) => write(&place, &request)?,
    }
    let mut runs = Vec::new();
    for device in what.devices {
        for precision in what.precisions {
            let name = format!("{device} {precision}");
            let folder = name.replace([':', '/', '@', ' '], "-");
            let directory = what.out.join(format!("{}-{folder}", runs.len()));
            let summary = Summary::load(&directory.join("summary.json"));
            if !summary.is_ok_and(|summary| summary.baseline.is_some()) {
                tell(&format!("training on {name}"));
                train(what, device, precision, &directory)?;
            }
            runs.push((name, RunDir::open(&directory)?));
        }
    }
    let rows = device_rows(&runs)?;
    let path = what.out.join("devices.json");
    let text = serde_json::to_string_pretty(&rows).expect("numbers and names") + "\n";
    write(&path, &text)?;
    print(&format!("{}{}\n", table(&rows), path.display()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    let io = |source| CliError::Io {
        path: path.to_owned(),
        source,
    };
    std::fs::create_dir_all(path.parent().unwrap_or(path)).map_err(io)?;
    std::fs::write(path, text).map_err(io)
}

/// `calm train` of this program: the stages of a CALM, then the token model.
fn train(what: &Devices<'_>, device: &str, precision: &str, out: &Path) -> Result<()> {
    let program = std::env::current_exe().map_err(|source| CliError::Io {
        path: PathBuf::from("this program"),
        source,
    })?;
    let steps = what.steps;
    let mut set = vec![
        format!("precision={precision}"),
        "samples.prompts=[]".to_owned(),
        "eval.windows=2".to_owned(),
        "progress_eval.windows=2".to_owned(),
    ];
    for stage in ["autoencoder", "lm", "baseline.training"] {
        for key in ["steps", "checkpoint_every", "eval_every"] {
            set.push(format!("{stage}.{key}={steps}"));
        }
        set.push(format!("{stage}.log_every=1"));
        // A schedule that fits into a few steps.
        set.push(format!("{stage}.warmup_steps={}", steps / 4));
        set.push(format!("{stage}.decay_steps={}", steps / 4));
    }
    set.extend(what.set.iter().cloned());
    // Where an earlier call was cut short it goes on.
    let begun = out.join("config.toml").is_file();
    let first: &[&str] = if begun {
        &["--resume"]
    } else {
        &["--preset", what.preset]
    };
    let calls: [&[&str]; 2] = [first, &["--resume", "--stage", "baseline"]];
    for (i, call) in calls.into_iter().enumerate() {
        let mut command = Command::new(&program);
        command.arg("train").args(call).args(["--device", device]);
        command.arg("--out").arg(out);
        if i == 0 && !begun {
            command.arg("--set").args(&set);
        }
        let output = command.output().map_err(|source| CliError::Io {
            path: program.clone(),
            source,
        })?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let last = said.lines().last().unwrap_or("no reason given");
            let why = last.strip_prefix("error: ").unwrap_or(last);
            return Err(CliError::Usage(format!("{device} {precision}: {why}")));
        }
    }
    Ok(())
}

fn table(rows: &[DeviceRow]) -> String {
    let mut table = Table::new([
        "device",
        "stage",
        "steps",
        "tokens/s",
        "speed",
        "memory",
        "last loss",
        "drift",
        "largest",
    ]);
    for row in rows {
        table.row([
            row.run.clone(),
            row.stage.name().to_owned(),
            row.steps.to_string(),
            format!("{:.0}", row.tokens_per_s),
            format!("{:.2}", row.speed),
            row.peak_rss_bytes.map_or(String::new(), format::bytes),
            format!("{:.5}", row.loss),
            format!("{:.1e}", row.drift),
            format!("{:.1e}", row.largest_drift),
        ]);
    }
    table.to_text()
}
