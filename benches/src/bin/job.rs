//! Times one standard job in a process of its own, so that its peak memory is its own.
//!
//! `job NAME [--seconds S] [--dtype f32|bf16]` prints one JSON object; `job --list` the names.

use std::process::ExitCode;
use std::time::Instant;

use calm_benches::jobs;
use serde::Serialize;

/// The record of one job; `peer/peer.py` prints the same.
#[derive(Serialize)]
struct Timing {
    name: &'static str,
    tokens_per_s: f64,
    /// Median of a run.
    seconds: f64,
    threads: usize,
    dtype: &'static str,
    peak_rss_bytes: Option<u64>,
    /// Before any model was made.
    start_rss_bytes: Option<u64>,
    /// FLOP/s of the best matrix product in this process.
    matmul_peak: Option<f64>,
    mfu: Option<f64>,
}

fn main() -> ExitCode {
    // Inside the pool, as the calm program.
    match rayon::scope(|_| run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let jobs = jobs::all();
    let names: Vec<&str> = jobs.iter().map(|job| job.name).collect();
    let (mut wanted, mut seconds) = (None, 10.0);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        match arg.as_str() {
            "--list" => {
                println!("{}", names.join("\n"));
                return Ok(());
            }
            "--seconds" => {
                seconds = value()?
                    .parse()
                    .map_err(|_| "--seconds takes a number".to_owned())?;
            }
            "--dtype" => {
                let given = value()?;
                if given != "f32" {
                    return Err(format!("dtype '{given}' is not f32"));
                }
            }
            name => wanted = Some(name.to_owned()),
        }
    }
    let job = jobs
        .iter()
        .find(|job| Some(job.name) == wanted.as_deref())
        .ok_or(format!("name one job of {}", names.join(", ")))?;

    let start_rss_bytes = calm_train::peak_rss_bytes();
    let device = calm_benches::device();
    let mut run = job.make(&device);
    run();
    run();
    let mut times = Vec::new();
    let begun = Instant::now();
    while times.len() < 3 || begun.elapsed().as_secs_f64() < seconds {
        let before = Instant::now();
        run();
        times.push(before.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    let median = times[times.len() / 2];
    let peak_rss_bytes = calm_train::peak_rss_bytes();
    let tokens_per_s = job.tokens as f64 / median;
    let matmul_peak = calm_train::matmul_peak(&device);
    let timing = Timing {
        name: job.name,
        tokens_per_s,
        seconds: median,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        dtype: "f32",
        peak_rss_bytes,
        start_rss_bytes,
        matmul_peak,
        mfu: job
            .flops_per_token
            .zip(matmul_peak)
            .map(|(flops, peak)| tokens_per_s * flops / peak),
    };
    println!(
        "{}",
        serde_json::to_string(&timing).map_err(|error| error.to_string())?
    );
    Ok(())
}
