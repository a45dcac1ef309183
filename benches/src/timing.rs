//! One standard job, timed in this process.

use std::time::Instant;

use burn::tensor::{Device, Tensor};
use calm_kernels::{MatmulPrecision, linear, set_matmul_precision};
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
    /// `f32` or `bf16`: how matrix products round.
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
pub fn time(job: &Job, device: &Device, precision: MatmulPrecision, seconds: f64) -> Timing {
    set_matmul_precision(precision);
    let start_rss_bytes = calm_train::peak_rss_bytes();
    let mut run = job.make(device);
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
        dtype: name(precision).to_owned(),
        peak_rss_bytes,
        start_rss_bytes,
        matmul_peak,
        mfu: job
            .flops_per_token
            .zip(matmul_peak)
            .map(|(flops, peak)| tokens_per_s * flops / peak),
    }
}

/// As on the command line.
pub fn name(precision: MatmulPrecision) -> &'static str {
    match precision {
        MatmulPrecision::F32 => "f32",
        MatmulPrecision::Bf16 => "bf16",
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

/// FLOP/s of the best square product: Burn's and, at the precision in force, ours.
fn matmul_peak(device: &Device, precision: MatmulPrecision) -> Option<f64> {
    const SIZE: usize = 1536;
    let burn = match precision {
        MatmulPrecision::F32 => calm_train::matmul_peak(device),
        MatmulPrecision::Bf16 => None,
    };
    let a = Tensor::<2>::ones([SIZE, SIZE], device);
    let mut best = burn.unwrap_or(0.0);
    for _ in 0..12 {
        let begun = Instant::now();
        let product = linear(a.clone(), a.clone(), None);
        device.sync().ok()?;
        let seconds = begun.elapsed().as_secs_f64();
        drop(product);
        best = best.max(2.0 * (SIZE as f64).powi(3) / seconds);
    }
    Some(best)
}
