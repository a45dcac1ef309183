//! `calm cost`: parameters, FLOPs, memory and cache bytes, without training anything.

mod memory;

use std::path::PathBuf;

use calm_baseline::TokenModelConfig;
use calm_lm::ModelConfig;
use calm_nn::Cost;
use calm_records::write_atomic;
use calm_report::{Table, format};
use calm_train::{Experiment, preset};
use serde::Serialize;

use crate::error::Result;
use crate::output::print;

#[derive(clap::Args)]
pub struct Args {
    /// A preset or a complete .toml file: its CALM and its baseline [default: the published table].
    #[arg(long)]
    preset: Option<String>,
    /// Override a value of the preset's configuration, for example model.chunk_size=4.
    #[arg(long, num_args = 1.., value_name = "KEY=VALUE", requires = "preset")]
    set: Vec<String>,
    /// Memory of the device to train on, such as 24GiB, 512MiB, 16GB or a number of bytes: says how many
    /// windows a forward pass can have.
    #[arg(long, value_name = "SIZE", value_parser = memory::parse, requires = "preset")]
    device_memory: Option<u64>,
    /// CALM: head samples a chunk in the column for low temperatures.
    #[arg(long, default_value_t = 200, value_name = "N")]
    samples: u64,
    /// Also write the rows to this file, as a JSON array.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Figures of the paper (CALM, table 1 and the table of chunk sizes).
#[derive(Clone, Debug, Default, Serialize)]
struct Published {
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<f64>,
    train_flops: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    infer_flops_per_token: Option<f64>,
}

/// One model's costs.
#[derive(Clone, Debug, Serialize)]
struct Row {
    model: String,
    /// Tokens per step, K; 1 for a token model.
    chunk_size: usize,
    /// Without the autoencoder's.
    parameters: u64,
    /// Parameters of the autoencoder; absent for a token model.
    #[serde(skip_serializing_if = "Option::is_none")]
    autoencoder_parameters: Option<u64>,
    /// Training tokens of the language model.
    train_tokens: f64,
    /// Training, the autoencoder's share and its own training included.
    train_flops: f64,
    /// The same without anything of the autoencoder.
    train_flops_without_autoencoder: f64,
    /// One sample at T = 1, the autoencoder's decoder included.
    infer_flops_per_token: f64,
    /// The same without the decoder.
    infer_flops_per_token_without_autoencoder: f64,
    /// With `samples` draws a chunk, all decoded to their ends; equal to the former for a token model.
    low_temperature_flops_per_token: f64,
    samples: u64,
    /// Key/value cache, f32.
    cache_bytes_per_token: f64,
    /// Positions of attention that were counted.
    context: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    published: Option<Published>,
    /// Of the stages that train it, in bytes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    memory: Vec<memory::Row>,
}

/// Training tokens of the published runs: language models, autoencoder.
const PUBLISHED_TOKENS: (f64, f64) = (5e11, 15e9);
/// Positions of attention in the published counts, for every model.
const PUBLISHED_CONTEXT: usize = 2048;

/// Preset, parameters, training in 1e20 FLOPs, inference in 1e8 FLOPs a token.
const PUBLISHED: [(&str, f64, f64, f64); 6] = [
    ("transformer-s", 281e6, 6.6, 4.4),
    ("transformer-m", 465e6, 11.9, 7.9),
    ("transformer-l", 849e6, 22.5, 15.0),
    ("calm-m", 371e6, 3.7, 2.9),
    ("calm-l", 735e6, 7.7, 4.6),
    ("calm-xl", 1.82e9, 19.5, 9.4),
];
/// CALM-L at other chunk sizes: K, training in 1e20 FLOPs.
const PUBLISHED_CHUNK_SIZES: [(usize, f64); 3] = [(1, 30.4), (2, 15.4), (8, 4.2)];

pub fn run(args: Args) -> Result<()> {
    let samples = args.samples.max(1);
    let rows = match &args.preset {
        Some(preset) => own_rows(
            &preset::resolve(preset, &args.set)?,
            samples,
            args.device_memory,
        ),
        None => published_rows(samples)?,
    };
    let note = if args.preset.is_some() {
        "Attention over the whole window."
    } else {
        "Training on 5e11 tokens, of the autoencoder on 1.5e10; attention over 2,048 positions. In \
         brackets: the paper's figure, and how far ours is from it."
    };
    print(&format!(
        "{}{note}\nRule: a multiply-accumulate is 2 FLOPs, training 3 times the forward pass; \
         attention counts 2 context d multiply-accumulates a layer and step, not halved for \
         causality; the half of the energy head that all samples of a position share counts once. \
         Norms, activations, softmax and the distances of the energy score (N (M + N/2) l a position: \
         0.7 % of nano's training, 0.02 % of CALM-M's) are left out.\n",
        table(&rows, samples)
    ))?;
    let memory: Vec<_> = rows.iter().flat_map(|row| row.memory.clone()).collect();
    if !memory.is_empty() {
        print(&format!("\n{}", memory::text(&memory, args.device_memory)))?;
    }
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&rows).expect("numbers have a JSON form");
        write_atomic(path, (text + "\n").as_bytes())?;
    }
    Ok(())
}

fn published_rows(samples: u64) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let counted = |train: f64, infer: Option<f64>, parameters| Published {
        parameters,
        train_flops: train * 1e20,
        infer_flops_per_token: infer.map(|infer| infer * 1e8),
    };
    let calm = |config: &ModelConfig, name: &str| {
        calm_row(name, config, PUBLISHED_TOKENS, PUBLISHED_CONTEXT, samples)
    };
    for (name, parameters, train, infer) in PUBLISHED {
        let experiment = preset::resolve(name, &[])?;
        let mut row = if name.starts_with("calm") {
            calm(&experiment.model, name)
        } else {
            let model = experiment.token_model();
            token_row(name, &model, PUBLISHED_TOKENS.0, PUBLISHED_CONTEXT)
        };
        row.published = Some(counted(train, Some(infer), Some(parameters)));
        rows.push(row);
    }
    for (k, train) in PUBLISHED_CHUNK_SIZES {
        let sizes = [
            format!("model.chunk_size={k}"),
            format!("model.latent_size={}", 32 * k),
            format!("model.window={}", k * PUBLISHED_CONTEXT),
        ];
        let mut row = calm(&preset::resolve("calm-l", &sizes)?.model, "calm-l");
        row.published = Some(counted(train, None, None));
        rows.push(row);
    }
    Ok(rows)
}

/// The two models of an experiment, trained as it says.
fn own_rows(experiment: &Experiment, samples: u64, device: Option<u64>) -> Vec<Row> {
    let window = experiment.model.window;
    let tokens = |stage: &calm_train::StageConfig| stage.total_tokens(window) as f64;
    let (of_baseline, of_calm) = memory::rows(experiment, device)
        .into_iter()
        .partition(memory::Row::is_baseline);
    let mut calm = calm_row(
        &format!("{} CALM", experiment.preset),
        &experiment.model,
        (tokens(&experiment.lm), tokens(&experiment.autoencoder)),
        experiment.model.steps(),
        samples,
    );
    let mut baseline = token_row(
        &format!("{} baseline", experiment.preset),
        &experiment.token_model(),
        tokens(&experiment.baseline.training),
        window,
    );
    (calm.memory, baseline.memory) = (of_calm, of_baseline);
    vec![calm, baseline]
}

fn calm_row(
    name: &str,
    config: &ModelConfig,
    (tokens, autoencoder_tokens): (f64, f64),
    context: usize,
    samples: u64,
) -> Row {
    let train = config.language_model_train_flops(context) * tokens;
    let infer = config.inference_flops(context);
    Row {
        model: name.to_owned(),
        chunk_size: config.chunk_size,
        parameters: config.language_model_parameters(),
        autoencoder_parameters: (!config.is_local()).then(|| config.autoencoder().parameters()),
        train_tokens: tokens,
        train_flops: train + config.autoencoder_train_flops() * autoencoder_tokens,
        train_flops_without_autoencoder: train - config.encoder_flops() * tokens,
        infer_flops_per_token: infer,
        infer_flops_per_token_without_autoencoder: infer - config.decoder_flops(),
        low_temperature_flops_per_token: config.sampling_flops(context, samples),
        samples,
        cache_bytes_per_token: config.cache_bytes_per_token(),
        context,
        published: None,
        memory: Vec::new(),
    }
}

fn token_row(name: &str, config: &TokenModelConfig, tokens: f64, context: usize) -> Row {
    let (train, infer) = (
        config.train_flops(context) * tokens,
        config.inference_flops(context),
    );
    Row {
        model: name.to_owned(),
        chunk_size: 1,
        parameters: config.parameters(),
        autoencoder_parameters: None,
        train_tokens: tokens,
        train_flops: train,
        train_flops_without_autoencoder: train,
        infer_flops_per_token: infer,
        infer_flops_per_token_without_autoencoder: infer,
        low_temperature_flops_per_token: infer,
        samples: 1,
        cache_bytes_per_token: config.cache_bytes() as f64,
        context,
        published: None,
        memory: Vec::new(),
    }
}

fn table(rows: &[Row], samples: u64) -> String {
    let mut table = Table::new([
        "model".to_owned(),
        "K".to_owned(),
        "parameters".to_owned(),
        "training FLOP".to_owned(),
        "FLOP a token".to_owned(),
        format!("with {samples} samples a chunk"),
        "cache bytes a token".to_owned(),
    ]);
    let beside = |ours: f64, text: String, published: Option<f64>, show: &dyn Fn(f64) -> String| {
        match published {
            Some(theirs) => format!(
                "{text} ({}, {:+.1} %)",
                show(theirs),
                100.0 * (ours / theirs - 1.0)
            ),
            None => text,
        }
    };
    let scientific = |x: f64| format::scientific(x, 2);
    for row in rows {
        let published = row.published.clone();
        let of = |get: fn(&Published) -> Option<f64>| published.as_ref().and_then(get);
        let parameters = row.parameters as f64;
        table.row([
            row.model.clone(),
            row.chunk_size.to_string(),
            beside(
                parameters,
                format::count(parameters),
                of(|p| p.parameters),
                &format::count,
            ),
            beside(
                row.train_flops,
                scientific(row.train_flops),
                of(|p| Some(p.train_flops)),
                &scientific,
            ),
            beside(
                row.infer_flops_per_token,
                scientific(row.infer_flops_per_token),
                of(|p| p.infer_flops_per_token),
                &scientific,
            ),
            scientific(row.low_temperature_flops_per_token),
            format::grouped(row.cache_bytes_per_token.round() as u64),
        ]);
    }
    table.to_text()
}
