//! The stages: the autoencoder, the language model in its latent space or with a local decoder, the
//! token baseline.

use std::path::Path;

use burn::tensor::{Device, Int, Tensor};
use calm_autoencoder::ChunkAutoencoder;
use calm_baseline::{TokenModel, TokenModelConfig};
use calm_data::Tokenizer;
use calm_eval::{BrierReport, TokenScoring, evaluate, evaluate_tokens, heed, reconstruct, spread};
use calm_lm::{CalmModel, CheckpointWriter, LanguageModel, LocalModel, ModelConfig};
use calm_nn::{Draws, NextToken};
use calm_records::{EvalPoint, Protocol, Stage, TextPart, WindowBrier};

use crate::Result;
use crate::step_loop::{Judge, StageTask, StepLoss};

pub(crate) struct AutoencoderTask<'a> {
    pub model: &'a ModelConfig,
    pub judge: Judge<'a>,
}

impl StageTask for AutoencoderTask<'_> {
    type Model = ChunkAutoencoder;

    fn stage(&self) -> Stage {
        Stage::Autoencoder
    }

    fn flops_per_token(&self) -> f64 {
        self.model.autoencoder_train_flops()
    }

    fn loss(
        &self,
        model: &ChunkAutoencoder,
        tokens: Tensor<3, Int>,
        draws: &mut dyn Draws,
    ) -> StepLoss {
        let [batch, steps, k] = tokens.dims();
        let loss = model.loss(tokens.reshape([batch * steps, k]), draws);
        let parts = vec![("kl", loss.kl), ("reconstruction", loss.cross_entropy)];
        StepLoss {
            total: loss.total,
            parts,
        }
    }

    fn evaluate(&self, model: &ChunkAutoencoder, point: EvalPoint) -> Result<EvalPoint> {
        let judge = &self.judge;
        let windows = spread(judge.validation, self.model.window, judge.config.windows)?;
        let result = reconstruct(model, &windows, judge.config.seed, judge.device);
        Ok(EvalPoint {
            token_accuracy: Some(result.token_accuracy),
            noisy_token_accuracy: Some(result.noisy_token_accuracy),
            ..point
        })
    }

    fn checkpoint(
        &self,
        model: &ChunkAutoencoder,
        path: &Path,
        tokenizer: &Tokenizer,
    ) -> Result<CheckpointWriter> {
        let writer = CheckpointWriter::new(path, self.model, tokenizer)?;
        writer.write_autoencoder(model.clone())?;
        Ok(writer)
    }
}

pub(crate) struct LanguageModelTask<'a> {
    pub model: &'a ModelConfig,
    /// Frozen, without autodiff.
    pub autoencoder: &'a ChunkAutoencoder,
    /// The same on the other devices of the run.
    pub copies: Vec<(Device, ChunkAutoencoder)>,
    pub judge: Judge<'a>,
}

impl StageTask for LanguageModelTask<'_> {
    type Model = LanguageModel;

    fn stage(&self) -> Stage {
        Stage::Lm
    }

    fn flops_per_token(&self) -> f64 {
        self.model.language_model_train_flops(self.model.steps())
    }

    fn loss(
        &self,
        model: &LanguageModel,
        tokens: Tensor<3, Int>,
        draws: &mut dyn Draws,
    ) -> StepLoss {
        let device = tokens.device();
        let copy = self.copies.iter().find(|(other, _)| *other == device);
        let autoencoder = match device == *self.judge.device {
            true => self.autoencoder,
            false => copy.map_or(self.autoencoder, |(_, copy)| copy),
        };
        let loss = model.loss(autoencoder, tokens, draws);
        StepLoss {
            total: loss.total,
            parts: loss.parts,
        }
    }

    fn evaluate(&self, model: &LanguageModel, point: EvalPoint) -> Result<EvalPoint> {
        let judge = &self.judge;
        let calm = CalmModel {
            autoencoder: self.autoencoder.clone(),
            language_model: model.clone().without_auxiliary(),
        };
        let windows = spread(judge.validation, self.model.window, judge.config.windows)?;
        let heed = heed(&calm, &windows, judge.config.seed, judge.device);
        let point = EvalPoint {
            permuted_loss_ratio: Some(heed.permuted_loss_ratio),
            noiseless_token_accuracy: Some(heed.noiseless_token_accuracy),
            ..point
        };
        let report = evaluate(
            &calm,
            judge.validation,
            self.model.window,
            judge.unigram,
            judge.config,
            judge.device,
            &mut |_| true,
        )?
        .expect("an evaluation that is never stopped is complete");
        Ok(with_scores(point, &report, judge, self.model.window))
    }

    fn checkpoint(
        &self,
        model: &LanguageModel,
        path: &Path,
        tokenizer: &Tokenizer,
    ) -> Result<CheckpointWriter> {
        let writer = CheckpointWriter::new(path, self.model, tokenizer)?;
        writer.write_autoencoder(self.autoencoder.clone())?;
        writer.write_language_model(model.clone())?;
        Ok(writer)
    }
}

pub(crate) struct LocalTask<'a> {
    pub model: &'a ModelConfig,
    pub judge: Judge<'a>,
}

impl StageTask for LocalTask<'_> {
    type Model = LocalModel;

    fn stage(&self) -> Stage {
        Stage::Lm
    }

    fn flops_per_token(&self) -> f64 {
        self.model.language_model_train_flops(self.model.steps())
    }

    fn loss(&self, model: &LocalModel, tokens: Tensor<3, Int>, _: &mut dyn Draws) -> StepLoss {
        StepLoss {
            total: model.loss(whole_windows(tokens)),
            parts: Vec::new(),
        }
    }

    fn evaluate(&self, model: &LocalModel, point: EvalPoint) -> Result<EvalPoint> {
        let (window, chunk_size) = (self.model.window, self.model.chunk_size);
        with_likelihood(model, window, chunk_size, &self.judge, point)
    }

    fn checkpoint(
        &self,
        model: &LocalModel,
        path: &Path,
        tokenizer: &Tokenizer,
    ) -> Result<CheckpointWriter> {
        let writer = CheckpointWriter::new(path, self.model, tokenizer)?;
        writer.write_local_model(model.clone())?;
        Ok(writer)
    }
}

pub(crate) struct BaselineTask<'a> {
    pub config: &'a TokenModelConfig,
    /// Tokens per chunk of the CALM: its positions are scored.
    pub chunk_size: usize,
    pub judge: Judge<'a>,
}

impl StageTask for BaselineTask<'_> {
    type Model = TokenModel;

    fn stage(&self) -> Stage {
        Stage::Baseline
    }

    fn flops_per_token(&self) -> f64 {
        self.config.train_flops(self.config.window)
    }

    fn loss(&self, model: &TokenModel, tokens: Tensor<3, Int>, _: &mut dyn Draws) -> StepLoss {
        StepLoss {
            total: model.loss(whole_windows(tokens)),
            parts: Vec::new(),
        }
    }

    fn evaluate(&self, model: &TokenModel, point: EvalPoint) -> Result<EvalPoint> {
        with_likelihood(
            model,
            self.config.window,
            self.chunk_size,
            &self.judge,
            point,
        )
    }

    fn checkpoint(
        &self,
        model: &TokenModel,
        path: &Path,
        tokenizer: &Tokenizer,
    ) -> Result<CheckpointWriter> {
        let writer = CheckpointWriter::new(path, self.config, tokenizer)?;
        writer.write_token_model(model.clone())?;
        Ok(writer)
    }
}

/// `[batch, steps, K]` to `[batch, steps * K]`.
fn whole_windows(tokens: Tensor<3, Int>) -> Tensor<2, Int> {
    let [batch, steps, k] = tokens.dims();
    tokens.reshape([batch, steps * k])
}

/// `point` with the scores of a model that has a likelihood, at the starts of chunks.
fn with_likelihood<M: NextToken + Clone + Send>(
    model: &M,
    window: usize,
    chunk_size: usize,
    judge: &Judge<'_>,
    point: EvalPoint,
) -> Result<EvalPoint> {
    let scoring = TokenScoring {
        tokens: judge.validation,
        window,
        chunk_size,
        everywhere: false,
        unigram_counts: judge.unigram,
        config: judge.config,
    };
    let report = evaluate_tokens(model, judge.device, &scoring, &mut |_| true)?
        .expect("an evaluation that is never stopped is complete");
    let point = EvalPoint {
        cross_entropy: Some(report.cross_entropy),
        window_cross_entropy: Some(report.window_cross_entropy),
        ..point
    };
    Ok(with_scores(point, &report.aligned, judge, window))
}

/// `point` with the Brier scores of a report.
fn with_scores(
    point: EvalPoint,
    report: &BrierReport,
    judge: &Judge<'_>,
    window: usize,
) -> EvalPoint {
    let estimate = &report.estimate;
    EvalPoint {
        brier: Some(estimate.brier),
        brier_se: Some(estimate.brier_se),
        brier_lm: Some(estimate.brier_lm),
        brier_lm_se: estimate.brier_lm_se,
        window_brier: Some(WindowBrier::All(report.window_brier.clone())),
        protocol: Some(Protocol {
            window_tokens: window,
            positions: estimate.positions,
            draws: judge.config.draws,
            seed: judge.config.seed,
            part: TextPart::Validation,
        }),
        ..point
    }
}
