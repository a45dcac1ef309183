//! One standard job, timed in this process.

use std::time::Instant;

use burn::tensor::Device;
use calm_kernels::with_matmul_precision;
use calm_train::{Precision, matmul_peak};
use serde::{Deserialize, Serialize};

use crate::jobs::Job;

/// The record of one job; `peer/peer.py` prints the same.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Timing {
    /// The job.
    pub name: String,
    /// Tokens of a run over its median time.
    pub tokens_per_s: f64,
    /// Median of a run.
    pub seconds: f64,
    /// Threads computing.
    pub threads: usize,
    /// `f32` or `bf16`: how matrix products round, or in generation what weights are kept in.
    pub dtype: String,
    /// Largest resident memory of the process.
    pub peak_rss_bytes: Option<u64>,
    /// The same before any model was made.
    pub start_rss_bytes: Option<u64>,
    /// FLOP/s of the best matrix product in this process.
    pub matmul_peak: Option<f64>,
    /// FLOPs of the job's matrix products over that.
    pub mfu: Option<f64>,
}

/// Runs `job` for about `seconds`, after two runs that don't count.
pub fn time(job: &Job, device: &Device, precision: Precision, seconds: f64) -> Timing {
    let start_rss_bytes = calm_train::peak_rss_bytes();
    let mut make = job.make(device, precision);
    let mut run = || with_matmul_precision(precision.of_products(), &mut make);
    run();
    run();
    let mut times = Vec::new();
    let begun = Instant::now();
    while times.len() < 3 || begun.elapsed().as_secs_f64() < seconds {
        let before = Instant::now();
        run();
        times.push(before.elapsed().as_secs_f64());
    }
    let seconds = median(&mut times);
    let peak_rss_bytes = calm_train::peak_rss_bytes();
    let tokens_per_s = job.tokens as f64 / seconds;
    let matmul_peak = matmul_peak(device, precision);
    Timing {
        name: job.name.to_owned(),
        tokens_per_s,
        seconds,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        dtype: match job.keeps_weights {
            true => precision.name().to_owned(),
            false => precision.on(device).name().to_owned(),
        },
        peak_rss_bytes,
        start_rss_bytes,
        matmul_peak,
        mfu: job
            .flops_per_token
            .zip(matmul_peak)
            .map(|(flops, peak)| tokens_per_s * flops / peak),
    }
}

/// The middle value.
///
/// # Panics
/// Without a value.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
