//! Made-up records for tests, here and in crates that show records.

use crate::{
    AutoencoderSummary, MetricRow, ModelSummary, Protocol, SCHEMA, SampleText, Stage, Summary,
    TextPart,
};

/// A row with recognisable numbers.
pub fn row(stage: Stage, step: u64) -> MetricRow {
    MetricRow {
        stage,
        step,
        tokens: step * 512,
        flops: 1.5e9 * step as f64,
        seconds: 0.25 * step as f64,
        loss: 8.0 / step.max(1) as f64,
        tokens_per_s: 2048.0,
        mfu: None,
        grad_norm: 0.5,
        lr: 3e-4,
        kl: None,
        reconstruction: None,
        token_accuracy: None,
        attraction: None,
        repulsion: None,
        auxiliary: None,
        log_score: None,
        brier_loss: None,
    }
}

/// Scores of a CALM.
pub fn model() -> ModelSummary {
    ModelSummary {
        brier_lm: 0.5,
        brier_lm_se: Some(0.03),
        brier: [0.0130, 2.1e-3, 4.0e-4, 5.7e-5],
        brier_se: [0.0004, 1.0e-4, 4.0e-5, 1.9e-5],
        unigram_brier: [0.011, 9.0e-4, 6.0e-5, 5.0e-6],
        over_unigram_se: [0.0004, 1.0e-4, 4.0e-5, 1.9e-5],
        chunk_size: 2,
        parameters: 12_345_678,
        train_flops: 3.7e14,
        infer_flops_per_token: 2.5e7,
        perplexity: None,
    }
}

/// A CALM and a token model beside it.
pub fn summary() -> Summary {
    Summary {
        schema: SCHEMA,
        preset: "nano".into(),
        device: "flex".into(),
        tokens_seen: 2_100_000,
        wall_seconds: 731.5,
        peak_rss_bytes: Some(1 << 31),
        autoencoder: Some(AutoencoderSummary {
            token_accuracy: 0.9934,
            noisy_token_accuracy: 0.9871,
            heldout_tokens: 65_536,
        }),
        calm: Some(model()),
        baseline: Some(ModelSummary {
            chunk_size: 1,
            perplexity: Some(91.5),
            ..model()
        }),
        protocol: Some(Protocol {
            window_tokens: 256,
            positions: 8192,
            draws: 8,
            seed: 7,
            part: TextPart::Test,
        }),
    }
}

/// A generated text.
pub fn sample(temperature: f64, text: &str) -> SampleText {
    SampleText {
        temperature,
        sampler: None,
        prompt: "In the".into(),
        text: text.into(),
        tokens: 12,
        seed: 3,
        seconds: Some(0.5),
    }
}
