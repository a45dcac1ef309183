//! The standard jobs, each in a process of its own, alone or beside PyTorch.
//!
//! `cargo xtask bench steps` and `cargo xtask bench peer` start this program.

#![allow(clippy::print_stdout, clippy::print_stderr)] // It is a program.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use calm_benches::timing::{Timing, median, time};
use calm_benches::{device, growth, jobs};
use calm_train::Precision;
use serde::Serialize;

const USAGE: &str = "usage: steps|peer [JOB...] [--dtype f32|bf16] [--seconds S] [--json FILE]
       peer also takes [--rounds N] [--python PROGRAM]
       growth [--rounds N] [--seconds S] [--json FILE] [--svg DIRECTORY]";

fn main() -> ExitCode {
    let result = Options::read(std::env::args().skip(1)).and_then(|options| {
        match options.command.as_str() {
            // One job in this process, inside the pool as the calm program.
            "one" => rayon::scope(|_| one(&options)),
            "steps" => steps(&options),
            "peer" => peer(&options),
            "growth" => rayon::scope(|_| grow(&options)),
            "--help" | "-h" => {
                println!("{USAGE}\nJOB is one of {}", jobs::names().join(", "));
                Ok(())
            }
            other => Err(format!("no command '{other}'\n{USAGE}")),
        }
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

struct Options {
    command: String,
    jobs: Vec<String>,
    precisions: Vec<Precision>,
    seconds: f64,
    rounds: usize,
    json: Option<PathBuf>,
    svg: Option<PathBuf>,
    python: String,
}

impl Options {
    fn read(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            command: args.next().ok_or(USAGE)?,
            jobs: Vec::new(),
            precisions: Vec::new(),
            seconds: 5.0,
            rounds: 3,
            json: None,
            svg: None,
            python: "python3".to_owned(),
        };
        let known = jobs::names();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            match arg.as_str() {
                "--seconds" => options.seconds = number(&arg, &value()?)?,
                "--rounds" => options.rounds = number(&arg, &value()?)?,
                "--json" => options.json = Some(value()?.into()),
                "--svg" => options.svg = Some(value()?.into()),
                "--python" => options.python = value()?,
                "--dtype" => options.precisions.push(match value()?.as_str() {
                    "f32" => Precision::F32,
                    "bf16" => Precision::Bf16,
                    other => return Err(format!("--dtype '{other}' is neither f32 nor bf16")),
                }),
                job if known.contains(&job) => options.jobs.push(arg),
                "--help" | "-h" => options.command = arg,
                _ => {
                    let known = known.join(", ");
                    return Err(format!("no job '{arg}'; the jobs are {known}\n{USAGE}"));
                }
            }
        }
        if options.jobs.is_empty() {
            options.jobs = known.into_iter().map(str::to_owned).collect();
        }
        if options.precisions.is_empty() {
            options.precisions = vec![Precision::F32];
            // Without the instructions ours would be f32 again, and the peer emulates them, at minutes
            // a job: only where it is asked for.
            if Precision::Bf16.on(&device()) == Precision::Bf16 {
                options.precisions.push(Precision::Bf16);
            } else {
                eprintln!("no bf16 products on this device: f32 alone, unless --dtype bf16");
            }
        }
        if options.rounds == 0 {
            return Err("--rounds is at least 1".to_owned());
        }
        Ok(options)
    }

    /// All jobs at all precisions.
    fn work(&self) -> impl Iterator<Item = (&str, Precision)> {
        let all = |job| {
            self.precisions
                .iter()
                .map(move |&precision| (job, precision))
        };
        self.jobs.iter().map(String::as_str).flat_map(all)
    }
}

fn number<T: std::str::FromStr>(flag: &str, text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|_| format!("{flag} takes a number, not '{text}'"))
}

fn one(options: &Options) -> Result<(), String> {
    for (wanted, precision) in options.work() {
        let all = jobs::all();
        let job = all.iter().find(|job| job.name == wanted);
        let job = job.ok_or("no such job")?;
        let timing = time(job, &device(), precision, options.seconds);
        let line = serde_json::to_string(&timing).map_err(|error| error.to_string())?;
        println!("{line}");
    }
    Ok(())
}

/// One job in a process of its own, ours or (with the interpreter) the peer's.
fn in_a_process(
    options: &Options,
    job: &str,
    precision: Precision,
    python: Option<&str>,
) -> Result<Timing, String> {
    let ours = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = match python {
        Some(python) => {
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peer/peer.py");
            let mut command = Command::new(python);
            command.arg(script).arg(job);
            command
        }
        None => {
            let mut command = Command::new(ours);
            command.args(["one", job]);
            command
        }
    };
    command.args(["--dtype", precision.name()]);
    command.args(["--seconds", &options.seconds.to_string()]);
    let hint = "; the peer needs `pip install -r benches/peer/requirements.txt`, and --python \
                PROGRAM where that is not python3";
    let hint = if python.is_some() { hint } else { "" };
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cannot start {command:?}: {error}{hint}"))?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}{hint}", output.status));
    }
    serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("{command:?} printed no record: {error}"))
}

fn steps(options: &Options) -> Result<(), String> {
    println!("job              dtype  tokens/s       s/run    mfu  peak memory");
    let mut all: Vec<Timing> = Vec::new();
    for (job, precision) in options.work() {
        // bf16 is f32 again where the processor lacks it.
        let dtype = precision.on(&device()).name();
        if all
            .iter()
            .any(|done| done.name == job && done.dtype == dtype)
        {
            continue;
        }
        let timing = in_a_process(options, job, precision, None)?;
        println!(
            "{:<16} {:<5} {:>9.0} {:>11.4}  {:>5}  {:>7} MiB",
            timing.name,
            timing.dtype,
            timing.tokens_per_s,
            timing.seconds,
            timing.mfu.map_or("-".to_owned(), |mfu| format!("{mfu:.3}")),
            timing.peak_rss_bytes.unwrap_or(0) >> 20,
        );
        all.push(timing);
        save(options, &all)?;
    }
    Ok(())
}

/// Both programs on one job: medians over the rounds.
#[derive(Serialize)]
struct Pair {
    ours: Timing,
    peer: Timing,
    /// Ours over the peer's, in tokens per second: the median of the rounds' ratios.
    ratio: f64,
    /// The smallest and the largest of them.
    ratio_range: [f64; 2],
    rounds: usize,
    /// The smallest and the largest FLOP/s of the best matrix product, measured beside every run of
    /// either: what the machine gave. Where neighbours share its cores it is not one machine.
    matmul_peak_range: Option<[f64; 2]>,
}

fn peer(options: &Options) -> Result<(), String> {
    println!(
        "job              dtype         ours      peer  ratio (range)         ours, peer above start  \
         matmul GFLOP/s"
    );
    let mut all = Vec::new();
    for (job, precision) in options.work() {
        let (mut ours, mut peers) = (Vec::new(), Vec::new());
        for round in 0..options.rounds {
            // Who goes first changes from round to round.
            for turn in [round % 2, 1 - round % 2] {
                let python = (turn == 1).then_some(options.python.as_str());
                let timing = in_a_process(options, job, precision, python)?;
                if turn == 1 { &mut peers } else { &mut ours }.push(timing);
            }
        }
        let mut ratios: Vec<f64> = ours
            .iter()
            .zip(&peers)
            .map(|(ours, peer)| ours.tokens_per_s / peer.tokens_per_s)
            .collect();
        let ratio = median(&mut ratios);
        let mut peaks: Vec<f64> = [&ours, &peers]
            .into_iter()
            .flatten()
            .filter_map(|timing| timing.matmul_peak)
            .collect();
        peaks.sort_by(f64::total_cmp);
        let matmul_peak_range = peaks.first().zip(peaks.last()).map(|(&a, &b)| [a, b]);
        let pair = Pair {
            ours: middle(ours),
            peer: middle(peers),
            ratio,
            ratio_range: [ratios[0], ratios[ratios.len() - 1]],
            rounds: options.rounds,
            matmul_peak_range,
        };
        // Where the processor lacks products of bf16, ours are in f32 while the peer emulates them.
        let dtypes = match (&pair.ours.dtype, &pair.peer.dtype) {
            (ours, peer) if ours == peer => ours.clone(),
            (ours, peer) => format!("{ours}/{peer}"),
        };
        println!(
            "{:<16} {:<8} {:>9.0} {:>9.0}  {:.2} ({:.2} to {:.2})    {} MiB, {} MiB    {}",
            job,
            dtypes,
            pair.ours.tokens_per_s,
            pair.peer.tokens_per_s,
            pair.ratio,
            pair.ratio_range[0],
            pair.ratio_range[1],
            above_start(&pair.ours),
            above_start(&pair.peer),
            pair.matmul_peak_range
                .map_or("-".to_owned(), |[low, high]| {
                    format!("{:.0} to {:.0}", low / 1e9, high / 1e9)
                }),
        );
        all.push(pair);
        save(options, &all)?;
    }
    Ok(())
}

/// How the time of a CALM training step grows.
fn grow(options: &Options) -> Result<(), String> {
    let rounds = options.rounds;
    let told = |round| eprintln!("round {} of {rounds} done", round + 1);
    let all = growth::measure(&device(), rounds, options.seconds, told);
    println!("axis     value  µs/token  of the first  FLOPs of the first");
    for (axis, label) in growth::AXES {
        let some: Vec<_> = all.iter().filter(|growth| growth.axis == axis).collect();
        for growth in &some {
            println!(
                "{:<7} {:>6}  {:>8.1}  {:>12.2}  {:>18.2}",
                growth.axis,
                growth.value,
                growth.us_per_token,
                growth.us_per_token / some[0].us_per_token,
                growth.flops_per_token / some[0].flops_per_token,
            );
        }
        if let Some(directory) = &options.svg {
            let path = directory.join(format!("growth-{axis}.svg"));
            let text = growth::chart(axis, label, &all).to_svg();
            calm_records::write_atomic(&path, text.as_bytes()).map_err(|e| e.to_string())?;
        }
    }
    save(options, &all)
}

/// The timing in the middle, by tokens per second.
fn middle(mut timings: Vec<Timing>) -> Timing {
    timings.sort_by(|a, b| a.tokens_per_s.total_cmp(&b.tokens_per_s));
    timings.swap_remove(timings.len() / 2)
}

/// MiB of peak memory above what the process took before it made a model.
fn above_start(timing: &Timing) -> u64 {
    let peak = timing.peak_rss_bytes.unwrap_or(0);
    peak.saturating_sub(timing.start_rss_bytes.unwrap_or(0)) >> 20
}

/// Writes what has been measured so far.
fn save(options: &Options, records: &impl Serialize) -> Result<(), String> {
    let Some(path) = &options.json else {
        return Ok(());
    };
    let mut text = serde_json::to_string_pretty(records).map_err(|error| error.to_string())?;
    text.push('\n');
    calm_records::write_atomic(path, text.as_bytes()).map_err(|error| error.to_string())
}
