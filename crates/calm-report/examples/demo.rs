//! Writes a run directory of made-up records and renders its report, to look at the page without
//! training anything: `cargo run -p calm-report --example demo -- DIR`.
//!
//! Every number and every text in it is synthetic.

#![allow(clippy::print_stdout, clippy::print_stderr)] // It is a program.

use std::error::Error;
use std::path::PathBuf;

use calm_records::{
    AutoencoderSummary, EvalPoint, Host, JsonlWriter, MetricRow, ModelSummary, Protocol, RunDir,
    RunInfo, SCHEMA, SampleText, Stage, Summary, TextPart, utc_now, write_atomic,
};
use calm_report::write_report;

const CONFIG: &str = "\
# Synthetic demonstration: no model was trained.
preset = \"demo (synthetic)\"
seed = 7

[model]
chunk_size = 2
latent_width = 64

[optim]
lr = 2e-3
";

/// Repeatable noise in [-0.5, 0.5).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64 - 0.5
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let root = std::env::args_os().nth(1).map_or_else(
        || std::env::temp_dir().join("calm-report-demo"),
        PathBuf::from,
    );
    let run = RunDir::create(&root)?;
    write_atomic(&run.config(), CONFIG.as_bytes())?;
    RunInfo {
        git_revision: None,
        dirty: None,
        rustc: None,
        burn: "none (synthetic)".into(),
        device: "none".into(),
        device_identity: "synthetic figures, no device".into(),
        precision: "none".into(),
        seed: 7,
        argv: std::env::args().collect(),
        started: utc_now(),
        host: Host::detect(),
    }
    .save(&run.run())?;
    let mut noise = Noise(7);
    write_metrics(&run, &mut noise)?;
    write_evaluations(&run, &mut noise)?;
    summary().save(&run.summary())?;
    for (index, temperature) in [1.0 / 3.0, 0.5, 1.0].into_iter().enumerate() {
        sample(temperature).save(&run.samples().join(format!("sample-{index}.json")))?;
    }
    println!("{}", write_report(&run)?.display());
    Ok(())
}

fn write_metrics(run: &RunDir, noise: &mut Noise) -> calm_records::Result<()> {
    let mut writer = JsonlWriter::create(&run.metrics())?;
    for (stage, steps, batch) in [
        (Stage::Autoencoder, 900, 2048),
        (Stage::Lm, 3000, 512),
        (Stage::Baseline, 1500, 1024),
    ] {
        for step in (10..=steps).step_by(10) {
            let progress = step as f64 / steps as f64;
            let jitter = 1.0 + 0.12 * noise.next();
            let decay =
                |start: f64, end: f64, rate: f64| end + (start - end) * (-rate * progress).exp();
            let (loss, accuracy) = match stage {
                Stage::Autoencoder => (
                    decay(16.0, 0.25, 9.0) * jitter,
                    Some(1.0 - decay(0.99, 0.04, 8.0) * jitter),
                ),
                Stage::Lm => (decay(9.4, 7.6, 3.0) * (1.0 + 0.3 * (jitter - 1.0)), None),
                Stage::Baseline => (decay(8.3, 4.6, 4.0) * (1.0 + 0.4 * (jitter - 1.0)), None),
            };
            writer.write(&MetricRow {
                stage,
                step,
                tokens: step * batch,
                flops: 2.4e8 * (step * batch) as f64,
                seconds: 0.11 * step as f64,
                loss,
                tokens_per_s: batch as f64 / 0.11 * (1.0 + 0.05 * noise.next()),
                mfu: None,
                grad_norm: decay(3.0, 0.4, 6.0) * (1.0 + noise.next()),
                lr: 2e-3 * (step as f64 / 100.0).min(1.0),
                kl: (stage == Stage::Autoencoder).then(|| decay(20.0, 48.0, 5.0)),
                reconstruction: (stage == Stage::Autoencoder).then_some(loss - 0.05),
                token_accuracy: accuracy,
                attraction: (stage == Stage::Lm).then_some(loss + 6.9),
                repulsion: (stage == Stage::Lm).then(|| 6.9 + 0.2 * noise.next()),
                auxiliary: None,
                log_score: None,
                brier_loss: None,
            })?;
        }
    }
    Ok(())
}

fn write_evaluations(run: &RunDir, noise: &mut Noise) -> calm_records::Result<()> {
    let mut writer = JsonlWriter::create(&run.eval_history())?;
    let none = EvalPoint {
        stage: Stage::Autoencoder,
        step: 0,
        tokens: 0,
        token_accuracy: None,
        noisy_token_accuracy: None,
        brier: None,
        brier_se: None,
        brier_lm: None,
        brier_lm_se: None,
        cross_entropy: None,
        permuted_loss_ratio: None,
        noiseless_token_accuracy: None,
        window_brier: None,
        window_cross_entropy: None,
        protocol: None,
    };
    for step in (100..=900).step_by(100) {
        let miss = 0.995 * (-(step as f64) / 160.0).exp() + 0.004;
        writer.write(&EvalPoint {
            step,
            tokens: 2048 * step,
            token_accuracy: Some(1.0 - miss),
            noisy_token_accuracy: Some(1.0 - 1.6 * miss.min(0.6)),
            ..none.clone()
        })?;
    }
    let protocol = Some(Protocol {
        window_tokens: 256,
        positions: 2048,
        draws: 8,
        seed: 1,
        part: TextPart::Validation,
    });
    for (stage, steps, batch, best) in [
        (Stage::Lm, 3000, 512, 0.0162),
        (Stage::Baseline, 1500, 1024, 0.041),
    ] {
        for index in 1..=12 {
            let progress = index as f64 / 12.0;
            let brier_1 = best * (1.0 - (-3.0 * progress).exp()) + 0.0012 * noise.next();
            let brier_lm = 30.0 * brier_1 + 0.1 * noise.next();
            writer.write(&EvalPoint {
                stage,
                step: steps * index / 12,
                tokens: batch * steps * index / 12,
                brier: Some([brier_1, 0.11 * brier_1, 0.02 * brier_1, 0.002 * brier_1]),
                brier_se: Some([7e-4, 2e-4, 8e-5, 4e-5]),
                brier_lm: Some(brier_lm),
                brier_lm_se: Some(0.06),
                protocol,
                ..none.clone()
            })?;
        }
    }
    Ok(())
}

fn summary() -> Summary {
    let calm = ModelSummary {
        brier_lm: 0.412,
        brier_lm_se: Some(0.031),
        brier: [0.01554, 1.72e-3, 3.1e-4, 3.5e-5],
        brier_se: [4.2e-4, 1.1e-4, 4.5e-5, 1.9e-5],
        unigram_brier: [0.01103, 6.1e-4, 4.2e-5, 3.4e-6],
        over_unigram_se: [3.9e-4, 1.0e-4, 4.4e-5, 1.9e-5],
        chunk_size: 2,
        parameters: 9_837_568,
        train_flops: 3.71e14,
        infer_flops_per_token: 1.93e7,
        perplexity: None,
    };
    let baseline = ModelSummary {
        brier_lm: 1.31,
        brier_lm_se: Some(0.05),
        brier: [0.0408, 6.9e-3, 1.7e-3, 5.6e-4],
        brier_se: [6.1e-4, 2.6e-4, 1.2e-4, 7.1e-5],
        chunk_size: 1,
        parameters: 8_912_000,
        train_flops: 1.02e14,
        infer_flops_per_token: 2.1e7,
        perplexity: Some(98.4),
        ..calm.clone()
    };
    Summary {
        schema: SCHEMA,
        preset: "demo (synthetic)".into(),
        device: "none".into(),
        tokens_seen: 4_915_200,
        wall_seconds: 594.2,
        peak_rss_bytes: Some(1_834_000_000),
        autoencoder: Some(AutoencoderSummary {
            token_accuracy: 0.9942,
            noisy_token_accuracy: 0.9889,
            heldout_tokens: 65_536,
        }),
        calm: Some(calm),
        baseline: Some(baseline),
        protocol: Some(Protocol {
            window_tokens: 256,
            positions: 16_384,
            draws: 8,
            seed: 1,
            part: TextPart::Test,
        }),
    }
}

fn sample(temperature: f64) -> SampleText {
    SampleText {
        temperature,
        sampler: (temperature < 1.0).then(|| "batch of 64 draws".to_owned()),
        prompt: "This text is synthetic.".into(),
        text: " It was typed by hand to show how a sample looks, and no model wrote it.\n\n\
               A second paragraph keeps its line breaks,\n    and its indentation,\n\
               and <angle brackets> & ampersands are shown as they are.\n"
            .into(),
        tokens: 64,
        seed: 7,
        seconds: Some(1.6),
    }
}
