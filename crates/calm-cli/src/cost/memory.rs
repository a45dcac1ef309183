//! What training needs in memory, and the largest micro-batch that a device holds.

use calm_records::Stage;
use calm_report::{Table, format};
use calm_train::{Experiment, StageMemory, preset};
use serde::Serialize;

/// A stage's memory, with or without gradient checkpointing.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// At the preset's windows per forward pass.
    #[serde(flatten)]
    memory: StageMemory,
    /// Most windows per forward pass that the device given holds; 0 where it does not hold one.
    #[serde(skip_serializing_if = "Option::is_none")]
    largest_batch_windows: Option<usize>,
}

impl Row {
    /// Whether it is of the token baseline's stage.
    pub fn is_baseline(&self) -> bool {
        self.memory.stage == Stage::Baseline
    }
}

/// The stages that the preset trains, each without and with gradient checkpointing, beside a device of
/// `device` bytes where one is given.
pub fn rows(experiment: &Experiment, device: Option<u64>) -> Vec<Row> {
    let stages: &[Stage] = match preset::is_token_model(&experiment.preset) {
        true => &[Stage::Baseline],
        false => &[Stage::Autoencoder, Stage::Lm, Stage::Baseline],
    };
    let both = |&stage: &Stage| [(stage, false), (stage, true)];
    let row = |(stage, checkpointing): (Stage, bool)| {
        let windows = experiment.stage(stage).batch_windows;
        let memory = StageMemory::new(experiment, stage, windows, checkpointing)?;
        let largest = |bytes| StageMemory::largest(experiment, stage, bytes, checkpointing);
        Some(Row {
            memory,
            largest_batch_windows: device
                .map(|bytes| largest(bytes).map_or(0, |largest| largest.batch_windows)),
        })
    };
    stages.iter().flat_map(both).filter_map(row).collect()
}

/// The table and what it means, with a line's end.
pub fn text(rows: &[Row], device: Option<u64>) -> String {
    let mut head: Vec<String> = [
        "memory of training",
        "checkpointing",
        "windows",
        "parameters",
        "frozen",
        "gradients",
        "optimizer",
        "activations a window",
        "activations",
        "transient",
        "most at once",
        "resident",
    ]
    .map(str::to_owned)
    .into();
    head.extend(device.map(|bytes| format!("windows in {}", format::bytes(bytes))));
    let mut table = Table::new(head);
    for Row {
        memory,
        largest_batch_windows,
    } in rows
    {
        let mut cells = vec![
            memory.stage.to_string(),
            if memory.gradient_checkpointing {
                "yes"
            } else {
                "no"
            }
            .to_owned(),
            memory.batch_windows.to_string(),
        ];
        cells.extend(
            [
                memory.parameters,
                memory.frozen,
                memory.gradients,
                memory.optimizer,
                memory.activations_per_window,
                memory.activations,
                memory.transient,
                memory.total,
                memory.resident,
            ]
            .map(format::bytes),
        );
        cells.extend(largest_batch_windows.map(|windows| match windows {
            0 => "none".to_owned(),
            windows => format::grouped(windows as u64),
        }));
        table.row(cells);
    }
    format!(
        "{}Memory of a training step in f32 on one device. Gradients come as activations go, so the most at \
         once is less than the sum; accumulate adds windows and no activations. Resident: of a process on the \
         CPU, what its allocator and streamed text add included, measured within 11 % (docs/log.md){}. GPUs are calculated alike and \
         were not measured.\n",
        table.to_text(),
        device.map_or("", |_| "; it is what a device has to hold")
    )
}

/// Bytes of `24GiB`, `512 MiB`, `16GB`, `500 MB` or a plain number of bytes.
pub fn parse(given: &str) -> Result<u64, String> {
    const UNITS: [(&str, f64); 9] = [
        ("kib", 1024.0),
        ("mib", 1048576.0),
        ("gib", 1073741824.0),
        ("tib", 1099511627776.0),
        ("kb", 1e3),
        ("mb", 1e6),
        ("gb", 1e9),
        ("tb", 1e12),
        ("b", 1.0),
    ];
    let lower = given.trim().to_lowercase();
    let (number, unit) = (UNITS.iter())
        .find_map(|&(name, unit)| Some((lower.strip_suffix(name)?, unit)))
        .unwrap_or((&lower, 1.0));
    let number: f64 = number.trim().parse().unwrap_or(f64::NAN);
    let bytes = number * unit;
    // Anything else is a slip: no device holds less, or as much.
    if (1.0..1e18).contains(&bytes) {
        return Ok(bytes as u64);
    }
    Err("give a size such as 24GiB, 512MiB, 16GB, 500MB, or a number of bytes".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_either_kind_of_unit() {
        assert_eq!(parse("24GiB"), Ok(24 << 30));
        assert_eq!(parse(" 1.5 mib "), Ok(3 << 19));
        assert_eq!(parse("16GB"), Ok(16_000_000_000));
        assert_eq!(parse("500 MB"), Ok(500_000_000));
        assert_eq!(parse("4096"), Ok(4096));
        for bad in [
            "", "GiB", "-1GiB", "0", "24 G", "nan", "inf", "1e30", "24GiBs", "1,5GiB",
        ] {
            assert!(parse(bad).unwrap_err().contains("24GiB"), "{bad}");
        }
    }
}
