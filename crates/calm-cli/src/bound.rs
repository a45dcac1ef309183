//! `calm eval --bound`: a bound on a CALM's perplexity, beside that of the run's token model.

use burn::tensor::Device;
use calm_eval::{BoundReport, bound};
use calm_lm::{BaselineCheckpoint, CalmModel};
use calm_nn::chunk_tensor;
use calm_records::RunDir;
use calm_report::Table;
use serde::Serialize;

use crate::error::Result;

/// A CALM's likelihood, bounded.
#[derive(Serialize)]
pub struct BoundRecord {
    #[serde(flatten)]
    report: BoundReport,
    /// Of the run's token model in the same windows.
    #[serde(skip_serializing_if = "Option::is_none")]
    token_model_perplexity: Option<f64>,
}

impl BoundRecord {
    /// Scores `model` by `draws` draws a chunk, and the token model of `run` where there is one.
    pub fn new(
        model: &CalmModel,
        run: Option<&RunDir>,
        windows: &[&[u32]],
        draws: usize,
        seed: u64,
        device: &Device,
        on_window: &mut dyn FnMut(usize),
    ) -> Result<Self> {
        let beside = run.map(token_model_of).transpose()?.flatten();
        let token_model_perplexity = beside
            .map(|checkpoint| -> Result<f64> {
                let model = checkpoint.load(device)?;
                let nats = windows.iter().map(|window| {
                    let tokens = chunk_tensor(window, 1, window.len(), device);
                    f64::from(model.loss(tokens.squeeze_dim(1)).into_scalar::<f32>())
                });
                Ok((nats.sum::<f64>() / windows.len() as f64).exp())
            })
            .transpose()?;
        Ok(Self {
            report: bound(model, windows, draws, seed, device, on_window),
            token_model_perplexity,
        })
    }

    /// How the bound moves with the draws, and what it is beside.
    pub fn table(&self) -> String {
        let mut table = Table::new([
            "draws",
            "nats a token, at most",
            "standard error",
            "perplexity",
        ]);
        for bound in &self.report.bounds {
            table.row([
                bound.draws.to_string(),
                format!("{:.4}", bound.cross_entropy),
                format!("{:.4}", bound.cross_entropy_se),
                format!("{:.2}", bound.perplexity()),
            ]);
        }
        let brier = self
            .report
            .brier
            .iter()
            .zip(&self.report.brier_se)
            .enumerate();
        let brier: Vec<String> = brier
            .map(|(n, (brier, error))| format!("Brier-{} {brier:.5} ± {error:.5}", n + 1))
            .collect();
        let beside = self.token_model_perplexity.map_or(String::new(), |p| {
            format!(
                "; the run's token model has perplexity {p:.2} over every token but a window's first"
            )
        });
        format!(
            "\ntokens drawn from the decoder instead of its most probable ones, over {} chunks{beside}\n{}{}\n\n",
            self.report.chunks,
            table.to_text(),
            brier.join(", ")
        )
    }
}

/// The token model that was trained in the same run, if one was.
fn token_model_of(run: &RunDir) -> Result<Option<BaselineCheckpoint>> {
    match calm_train::baseline_checkpoint(run) {
        Ok(newest) => Ok(Some(newest.checkpoint)),
        Err(calm_train::Error::Model(calm_lm::Error::NoCheckpoint { .. })) => Ok(None),
        Err(e) => Err(e.into()),
    }
}
