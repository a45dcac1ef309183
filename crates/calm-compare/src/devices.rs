//! The same steps on several devices or in several precisions: speed, memory, and how far losses drift
//! apart.

use calm_records::{MetricRow, RunDir, Stage, Summary, read_jsonl};
use serde::Serialize;

use crate::{Error, Result};

/// A stage of a run beside the same stage of the first run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DeviceRow {
    /// The run's name.
    pub run: String,
    /// Its device.
    pub device: String,
    /// How its products are rounded.
    pub precision: String,
    /// The stage.
    pub stage: Stage,
    /// Steps.
    pub steps: u64,
    /// Tokens a second, the median of its steps without the first.
    pub tokens_per_s: f64,
    /// The first run's tokens a second are 1.
    pub speed: f64,
    /// Largest resident memory of the run, all stages, bytes: the host's, not that of a GPU.
    pub peak_rss_bytes: Option<u64>,
    /// The loss of the last step.
    pub loss: f64,
    /// Its distance to the first run's, in parts of the stage's largest loss there.
    pub drift: f64,
    /// The largest such distance of all steps.
    pub largest_drift: f64,
}

/// Rows of the runs in some directories, each with a name, beside the first.
///
/// # Errors
/// A run without records, and runs that did not log the same steps.
pub fn device_rows(runs: &[(String, RunDir)]) -> Result<Vec<DeviceRow>> {
    let mut rows = Vec::new();
    let mut first: Vec<MetricRow> = Vec::new();
    for (i, (name, run)) in runs.iter().enumerate() {
        let metrics: Vec<MetricRow> = read_jsonl(&run.metrics())?;
        let summary = Summary::load(&run.summary())?;
        let info = calm_records::RunInfo::load(&run.run())?;
        if i == 0 {
            first = metrics.clone();
        }
        for stage in [Stage::Autoencoder, Stage::Lm, Stage::Baseline] {
            let of_stage = |metrics: &[MetricRow]| -> Vec<MetricRow> {
                metrics
                    .iter()
                    .filter(|row| row.stage == stage)
                    .cloned()
                    .collect()
            };
            let (own, reference) = (of_stage(&metrics), of_stage(&first));
            let steps = |rows: &[MetricRow]| -> Vec<u64> { rows.iter().map(|r| r.step).collect() };
            if steps(&own) != steps(&reference) {
                return Err(Error::OtherSteps {
                    run: run.root.clone(),
                    stage,
                });
            }
            let Some(last) = own.last() else {
                continue;
            };
            // Energy losses may be near zero, or below.
            let size = reference
                .iter()
                .map(|row| row.loss.abs())
                .fold(0.0, f64::max);
            let apart = |(a, b): (&MetricRow, &MetricRow)| match (a.loss - b.loss).abs() / size {
                apart if apart.is_nan() => f64::INFINITY,
                apart => apart,
            };
            let pairs = || own.iter().zip(&reference);
            rows.push(DeviceRow {
                run: name.clone(),
                device: info.device.clone(),
                precision: info.precision.clone(),
                stage,
                steps: last.step,
                tokens_per_s: median_speed(&own),
                speed: median_speed(&own) / median_speed(&reference),
                peak_rss_bytes: summary.peak_rss_bytes,
                loss: last.loss,
                drift: pairs().next_back().map_or(0.0, apart),
                largest_drift: pairs().map(apart).fold(0.0, f64::max),
            });
        }
    }
    Ok(rows)
}

/// The first step of a stage compiles and allocates.
fn median_speed(rows: &[MetricRow]) -> f64 {
    let later = &rows[usize::from(rows.len() > 1)..];
    let mut speeds: Vec<f64> = later.iter().map(|row| row.tokens_per_s).collect();
    speeds.sort_by(f64::total_cmp);
    speeds[speeds.len() / 2]
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use calm_records::JsonlWriter;

    use super::*;

    /// A run of two stages whose losses and speeds are given.
    fn run(place: &Path, name: &str, losses: &[f64], speed: f64) -> (String, RunDir) {
        let run = RunDir::create(place.join(name)).unwrap();
        let mut writer = JsonlWriter::open_append(&run.metrics()).unwrap();
        for stage in [Stage::Autoencoder, Stage::Lm] {
            for (i, &loss) in losses.iter().enumerate() {
                let row = serde_json::json!({
                    "stage": stage, "step": i + 1, "tokens": 1, "flops": 1.0, "seconds": 1.0,
                    "loss": loss, "tokens_per_s": if i == 0 { 1.0 } else { speed },
                    "mfu": null, "grad_norm": 1.0, "lr": 1.0, "kl": null, "reconstruction": null,
                    "token_accuracy": null, "attraction": null, "repulsion": null,
                });
                let row: MetricRow = serde_json::from_value(row).unwrap();
                writer.write(&row).unwrap();
            }
        }
        writer.sync().unwrap();
        let summary = serde_json::json!({
            "schema": 1, "preset": "debug", "device": name, "tokens_seen": 1, "wall_seconds": 1.0,
            "peak_rss_bytes": 7, "autoencoder": null, "calm": null, "baseline": null,
            "protocol": null,
        });
        std::fs::write(run.summary(), summary.to_string()).unwrap();
        let info = calm_records::RunInfo {
            device: name.to_owned(),
            ..Default::default()
        };
        info.save(&run.run()).unwrap();
        (name.to_owned(), run)
    }

    #[test]
    fn drift_and_speed_are_relative_to_the_first_run() {
        let place = tempfile::tempdir().unwrap();
        let runs = [
            run(place.path(), "a", &[4.0, 2.0, 1.0], 10.0),
            run(place.path(), "b", &[4.0, 2.2, 1.02], 30.0),
        ];
        let rows = device_rows(&runs).unwrap();
        assert_eq!(rows.len(), 4);
        assert_eq!(
            (rows[0].drift, rows[0].largest_drift, rows[0].speed),
            (0.0, 0.0, 1.0)
        );
        let b = &rows[2];
        assert_eq!(
            (b.run.as_str(), b.stage, b.steps),
            ("b", Stage::Autoencoder, 3)
        );
        assert!((b.drift - 0.005).abs() < 1e-9 && (b.largest_drift - 0.05).abs() < 1e-9);
        assert!((b.speed - 3.0).abs() < 1e-9 && b.peak_rss_bytes == Some(7));
        let other = [runs[0].clone(), run(place.path(), "c", &[4.0, 2.0], 1.0)];
        let error = device_rows(&other).unwrap_err().to_string();
        assert!(error.contains("other steps"), "{error}");
    }
}
