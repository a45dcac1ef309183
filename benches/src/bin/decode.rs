//! Low temperature: the paper's batch rule beside growing pools, in cost and in distance from the
//! exact distribution.
//!
//! `cargo xtask bench decode` starts this program.

#![allow(clippy::print_stdout, clippy::print_stderr)] // It is a program.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use calm_benches::cold::{POOL, Subject, Way, counts, diversity, shape};
use calm_benches::variation::{Enumerable, Variation};
use calm_benches::{device, tokens};
use calm_data::CacheDir;
use calm_likelihood_free::{BatchSampler, GrowingSampler};
use calm_lm::NamedDevice;
use calm_records::{RunDir, RunInfo};
use calm_train::{Event, Options, RunEnd, Stages, preset};
use serde::Serialize;

const USAGE: &str = "usage: decode [--run DIR] [--pools N] [--json FILE]
  --run DIR   a run whose CALM is measured; otherwise preset nano is trained and kept in target/
  --pools N   pools drawn of every enumerable distribution [default: 60000]";

/// Of an enumerable distribution: outcomes and Zipf's exponent.
const ZIPF: [(usize, f64); 7] = [
    (100, 1.0),
    (100, 2.0),
    (1_000, 1.0),
    (1_000, 1.5),
    (10_000, 1.2),
    (100_000, 1.0),
    (100_000, 1.5),
];

/// One model, sampler and temperature.
#[derive(Serialize)]
struct Row {
    /// `nano` (whatever run is given), `calm-m` or an enumerable distribution.
    model: String,
    /// `batch`: the paper's rule, all draws decoded to their ends by the scores of all tokens. `cheap`:
    /// growing pools.
    sampler: &'static str,
    temperature: f64,
    /// Draws for a chunk at most.
    pool: usize,
    ms_per_token: f64,
    flops_per_token: f64,
    draws_per_chunk: f64,
    tv_to_exact: Option<f64>,
    tv_standard_error: Option<f64>,
}

fn main() -> ExitCode {
    // Inside the pool, as the calm program.
    match rayon::scope(|_| run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error + Send + Sync>> {
    let (mut from, mut pools, mut json) = (None, 60_000, None);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value\n{USAGE}"));
        match arg.as_str() {
            "--run" => from = Some(PathBuf::from(value()?)),
            "--pools" => {
                let text = value()?;
                let number = text.parse().ok().filter(|&n: &usize| n >= 1000);
                pools = number.ok_or(format!("--pools takes 1000 or more, not '{text}'"))?;
            }
            "--json" => json = Some(PathBuf::from(value()?)),
            "--help" | "-h" => {
                println!("{USAGE}");
                return Ok(());
            }
            _ => return Err(format!("unknown option {arg}\n{USAGE}").into()),
        }
    }
    let device = device();
    let mut rows = enumerable(pools);

    let name = std::env::var("CALM_BENCH_DEVICE").unwrap_or_else(|_| "flex".to_owned());
    let trained = match from {
        Some(run) => run,
        None => nano(&device, &name)?,
    };
    let subject = of_run(&trained, &device)?;
    let (distinct, equal) = diversity(&subject.pools(8, POOL, &device));
    println!(
        "\n{}: a pool of {POOL} holds {distinct:.0} distinct chunks, {:.1} % of pairs are equal",
        trained.display(),
        100.0 * equal
    );
    real("nano", &subject, &device, &mut rows);
    of_pools(&subject, pools, &device);
    drop(subject);

    let large = large(distinct, &device)?;
    real("calm-m", &large, &device, &mut rows);
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&rows)? + "\n";
        calm_records::write_atomic(&path, text.as_bytes())?;
    }
    Ok(())
}

fn temperature(power: u32) -> f64 {
    1.0 / f64::from(power)
}

/// Both samplers on distributions whose outcomes can be enumerated.
fn enumerable(pools: usize) -> Vec<Row> {
    let mut rows = Vec::new();
    println!("distribution      entropy  equal pairs  T     sampler  draws  total variation");
    for (outcomes, exponent) in ZIPF {
        let model = format!("zipf-{outcomes}-{exponent:.1}");
        let law = Enumerable::zipf(outcomes, exponent);
        for power in 1..=3 {
            for (sampler, found) in variations(&law, power, pools) {
                println!(
                    "{model:<17} {:>6.2}  {:>9.2} %  1/{power}   {sampler:<7} {:>6.1}  {:.4} ± {:.4}",
                    law.entropy(),
                    100.0 * law.collision(),
                    found.draws,
                    found.total,
                    found.error
                );
                rows.push(Row {
                    model: model.clone(),
                    sampler,
                    temperature: temperature(power),
                    pool: if power == 1 { 1 } else { POOL },
                    ms_per_token: 1e3 * found.seconds,
                    // No products of matrices.
                    flops_per_token: 0.0,
                    draws_per_chunk: found.draws,
                    tv_to_exact: Some(found.total.max(0.0)),
                    tv_standard_error: Some(found.error),
                });
            }
        }
    }
    rows
}

fn variations(law: &Enumerable, power: u32, pools: usize) -> [(&'static str, Variation); 2] {
    if power == 1 {
        // A pool of one draw is a draw.
        let one = law.variation(&BatchSampler::new(1.0, 1).expect("1/1"), 1, pools, 1);
        let exact = Variation {
            total: 0.0,
            error: 0.0,
            ..one
        };
        return [("batch", exact), ("cheap", exact)];
    }
    let batch = BatchSampler::new(temperature(power), POOL).expect("1/n");
    let growing = GrowingSampler::new(temperature(power), POOL).expect("1/n");
    [
        ("batch", law.variation(&batch, power as i32, pools, 1)),
        ("cheap", law.variation(&growing, power as i32, pools, 2)),
    ]
}

/// Cost on a model.
fn real(name: &str, subject: &Subject, device: &Device, rows: &mut Vec<Row>) {
    println!(
        "model    T     sampler            ms/token   MFLOP/token  draws/chunk  of draws, KiB"
    );
    for power in 1..=3 {
        let ways = [
            (Way::Batch, "batch", true),
            (Way::Searched, "batch, searched", false),
            (Way::CutShort, "batch, cut", false),
            (Way::Cheap, "cheap", true),
        ];
        let costs = subject.costs(&ways.map(|(way, _, _)| way), power, device);
        for ((_, sampler, kept), cost) in ways.into_iter().zip(&costs) {
            println!(
                "{name:<8} 1/{power}   {sampler:<15} {:>10.3} {:>12.1} {:>11.1} {:>13.0}    {:.1} x time, {:.1} x FLOPs",
                cost.ms_per_token,
                cost.flops_per_token / 1e6,
                cost.draws_per_chunk,
                cost.bytes / 1024.0,
                costs[0].ms_per_token / cost.ms_per_token,
                costs[0].flops_per_token / cost.flops_per_token,
            );
            if kept {
                rows.push(Row {
                    model: name.to_owned(),
                    sampler,
                    temperature: temperature(power),
                    pool: if power == 1 { 1 } else { POOL },
                    ms_per_token: cost.ms_per_token,
                    flops_per_token: cost.flops_per_token,
                    draws_per_chunk: cost.draws_per_chunk,
                    tv_to_exact: None,
                    tv_standard_error: None,
                });
            }
        }
    }
}

/// Both samplers on the model's own distributions over chunks, as 20,000 draws give them.
fn of_pools(subject: &Subject, pools: usize, device: &Device) {
    println!(
        "after     distinct of 20,000  equal pairs  T    batch: total variation, draws   cheap"
    );
    for (i, pool) in subject.pools(6, 20_000, device).iter().enumerate() {
        let law = Enumerable::new(counts(pool));
        for power in 2..=3 {
            let [(_, batch), (_, cheap)] = variations(&law, power, pools);
            println!(
                "prompt {i}  {:>18} {:>10.2} %  1/{power}  {:.4} ± {:.4}, {:>5.1}   {:.4} ± {:.4}, {:>5.1}",
                diversity(std::slice::from_ref(pool)).0,
                100.0 * law.collision(),
                batch.total,
                batch.error,
                batch.draws,
                cheap.total,
                cheap.error,
                cheap.draws,
            );
        }
    }
}

/// A trained `nano`, made once.
fn nano(device: &Device, name: &str) -> Result<PathBuf, Box<dyn Error + Send + Sync>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    let root = root.ok_or("the benches have no folder around them")?;
    let out = root.join("target/bench-decode/nano");
    let wanted = preset::resolve("nano", &[])?;
    if out.join("summary.json").is_file() {
        let found = std::fs::read_to_string(RunDir::open(&out)?.config())?;
        return match preset::same(&found, &preset::to_toml(&wanted)?) {
            true => Ok(out),
            false => Err(format!(
                "{} was trained by another preset: remove it, or give it with --run",
                out.display()
            )
            .into()),
        };
    }
    eprintln!("training preset nano in {}", out.display());
    let cache = CacheDir::default_location()?;
    let interrupt = AtomicBool::new(false);
    let device = NamedDevice {
        name: name.to_owned(),
        device: device.clone(),
    };
    let options = Options {
        out: out.clone(),
        stages: Stages::All,
        device: &device,
        others: &[],
        device_timeout: calm_train::DEVICE_TIMEOUT,
        all_reduce: false,
        cache: &cache,
        interrupt: &interrupt,
    };
    let mut observe = |event: Event<'_>| {
        if let Event::Stepped { stage, step, .. } = event
            && step % 100 == 0
        {
            eprintln!("{} {step}", stage.name());
        }
    };
    let (info, observe) = (RunInfo::default(), &mut observe);
    let end = match RunDir::open(&out) {
        Ok(_) => calm_train::resume(&options, observe)?,
        Err(_) => calm_train::train(wanted, info, &options, observe)?,
    };
    match end {
        RunEnd::Complete => Ok(out),
        RunEnd::Interrupted => Err("interrupted".into()),
    }
}

/// The CALM of a run, with prompts of 64 tokens from its test text.
fn of_run(run: &Path, device: &Device) -> Result<Subject, Box<dyn Error + Send + Sync>> {
    let run = RunDir::open(run)?;
    let checkpoint = calm_train::language_model_checkpoint(&run)?.checkpoint;
    let data = preset::load(&run.config())?.data;
    let split = checkpoint.split().ok_or("the checkpoint names no split")?;
    let cache = CacheDir::default_location()?;
    let tokenizer = checkpoint.tokenizer()?;
    let store = calm_train::data::token_store(&data, split, tokenizer, &cache, &mut |_| ())?;
    let test = store.test();
    let prompts = 24;
    let stride = test.len() / prompts;
    if stride < 64 {
        return Err("too little test text".into());
    }
    Ok(Subject {
        model: checkpoint.load(device)?,
        config: checkpoint.config().clone(),
        prompts: (0..prompts)
            .map(|i| test[i * stride..][..64].to_vec())
            .collect(),
        chunks: 16,
    })
}

/// A model of the size of CALM-M with random weights, whose pools are as diverse as those of the trained
/// one.
fn large(distinct: f64, device: &Device) -> Result<Subject, Box<dyn Error + Send + Sync>> {
    let config = preset::resolve("calm-m", &[])?.model;
    let prompts = 4;
    let text = tokens(prompts * 64, config.vocab_size);
    let mut subject = Subject {
        model: config.init(1, device),
        prompts: text.chunks_exact(64).map(<[u32]>::to_vec).collect(),
        config,
        chunks: 4,
    };
    // More weight, more of them, between limits that are far apart.
    let (mut low, mut high) = (1e-3f64, 10.0f64);
    let mut std = 0.0;
    for _ in 0..7 {
        std = (low * high).sqrt();
        shape(&mut subject.model, &subject.config, std, device);
        match diversity(&subject.pools(2, POOL, device)).0 < distinct {
            true => low = std,
            false => high = std,
        }
    }
    let (found, equal) = diversity(&subject.pools(prompts, POOL, device));
    println!(
        "\ncalm-m: random weights, last layer of the head of std {std:.4} and a bias of std 1; a pool of \
         {POOL} holds {found:.0} distinct chunks, {:.1} % of pairs are equal",
        100.0 * equal
    );
    Ok(subject)
}
