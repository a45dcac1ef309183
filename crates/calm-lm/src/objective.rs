//! What the head of a CALM is trained by: the energy score, and two scores that need probabilities.

use burn::module::Module;
use burn::tensor::{Int, Tensor, activation};
use calm_autoencoder::ChunkAutoencoder;
use calm_likelihood_free::{HeadKind, HeadSettings, brier_loss, log_score_loss};
use calm_nn::ConfigError;
use serde::{Deserialize, Serialize};

use crate::DecoderKind;

/// Weights of the parts of a CALM's loss. The published one is the energy score alone; the others are
/// ours, and take the head's draws through the frozen decoder ([`DecodedDraws`]) to the tokens.
///
/// A head that is trained by the log score draws vectors that stand for several chunks at once: the
/// mixture has a far better likelihood, and the most probable tokens of a draw, which BrierLM takes, and
/// generation unless it is told to draw tokens, are worse than the energy score's (docs/log.md).
///
/// Those keep about four f32 tensors of `draws * positions * K * V` numbers for the backward pass: 64 MiB
/// in all for a step of `nano` with four draws, tens of gigabytes at the published sizes (by count).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Objective {
    /// Of the head's own loss, for the energy head the energy score.
    pub energy: f64,
    /// Of the log score of the next chunk, in nats a chunk.
    pub log: f64,
    /// Of the Brier loss, mean over the prefixes of the next chunk.
    pub brier: f64,
    /// Draws of the head that the decoder reads at every position.
    pub draws: usize,
}

impl Default for Objective {
    /// The published one.
    fn default() -> Self {
        Self {
            energy: 1.0,
            log: 0.0,
            brier: 0.0,
            draws: 4,
        }
    }
}

impl Objective {
    /// Whether it needs the decoder's probabilities.
    pub fn reads_decoder(&self) -> bool {
        self.log > 0.0 || self.brier > 0.0
    }

    /// Draws of an energy head that the loss needs at a position.
    pub(crate) fn samples(&self, head: usize) -> usize {
        match self.energy > 0.0 {
            true => head,
            false => self.draws,
        }
    }

    /// Checks the weights, and that the head can be trained by them.
    ///
    /// # Errors
    /// Names the key and what it must be.
    pub fn validate(&self, head: &HeadSettings, decoder: DecoderKind) -> Result<(), ConfigError> {
        for (key, weight) in [
            ("model.objective.energy", self.energy),
            ("model.objective.log", self.log),
            ("model.objective.brier", self.brier),
        ] {
            let inside = weight >= 0.0 && weight.is_finite();
            ConfigError::range(key, weight, inside, "0 or more")?;
        }
        let sum = self.energy + self.log + self.brier;
        let some = "greater than 0 for one part at least";
        ConfigError::range("model.objective", sum, sum > 0.0, some)?;
        if !self.reads_decoder() {
            return Ok(());
        }
        let (key, draws) = ("model.objective.draws", self.draws as f64);
        let (least, range) = match self.brier > 0.0 {
            true => (2.0, "2 or more where brier is above 0"),
            false => (1.0, "1 or more"),
        };
        ConfigError::range(key, draws, draws >= least, range)?;
        let enough = self.energy == 0.0 || self.draws <= head.samples;
        let range = "at most model.head.samples where energy is above 0";
        ConfigError::range(key, draws, enough, range)?;
        // The draws of the others come out of a solver of many steps.
        let weight = self.log + self.brier;
        let direct = head.kind == HeadKind::Energy;
        let only = "0 for log and brier where model.head.kind is not energy";
        ConfigError::range("model.objective", weight, direct, only)?;
        let has_head = decoder == DecoderKind::Autoencoder;
        let only = "0 for log and brier where model.decoder is local";
        ConfigError::range("model.objective", weight, has_head, only)
    }

    /// The parts that need the decoder, by name and weight, of draws of the head.
    ///
    /// # Shapes
    /// - draws: `[draws, positions, l]`
    /// - next: `[positions, K]`
    /// - parts: `[1]`
    pub(crate) fn decoded(
        &self,
        autoencoder: &ChunkAutoencoder,
        draws: Tensor<3>,
        next: Tensor<2, Int>,
    ) -> Vec<(&'static str, f64, Tensor<1>)> {
        // As constants of the graph: the decoder is frozen.
        let lifted = draws
            .is_autodiff()
            .then(|| autoencoder.clone().train().no_grad());
        let autoencoder = lifted.as_ref().unwrap_or(autoencoder);
        let [_, k] = next.dims();
        let scored = if self.brier > 0.0 { k } else { 0 };
        let decoded = DecodedDraws::new(autoencoder, draws.swap_dims(0, 1), next, scored);
        let mut parts = Vec::new();
        if self.log > 0.0 {
            let of_chunks = decoded.log_probabilities.clone().sum_dim(2).squeeze_dim(2);
            parts.push(("log_score", self.log, log_score_loss(of_chunks).mean()));
        }
        if let Some(overlaps) = decoded.overlaps {
            let hits = decoded.log_probabilities.exp();
            parts.push(("brier_loss", self.brier, brier_loss(hits, overlaps).mean()));
        }
        parts
    }
}

/// What the decoder says of draws of a head, each a distribution over chunks.
#[derive(Clone, Debug)]
pub struct DecodedDraws {
    /// `ln p(y_k | z_n)` of the tokens that came, `[positions, N, K]`.
    pub log_probabilities: Tensor<3>,
    /// `<p_nk, p_mk>` of the first `scored` tokens, `[positions, scored, N, N]`; none where that is 0.
    pub overlaps: Option<Tensor<4>>,
}

impl DecodedDraws {
    /// Reads draws by the decoder, for the tokens `next` that came.
    ///
    /// # Shapes
    /// - draws: `[positions, N, l]`
    /// - next: `[positions, K]`
    pub fn new(
        autoencoder: &ChunkAutoencoder,
        draws: Tensor<3>,
        next: Tensor<2, Int>,
        scored: usize,
    ) -> Self {
        let ([positions, n, l], [_, k]) = (draws.dims(), next.dims());
        let logits = autoencoder.logits(draws.reshape([positions * n, l]));
        let [_, _, vocabulary] = logits.dims();
        let logs = activation::log_softmax(logits, 2).reshape([positions, n, k, vocabulary]);
        let truth = next
            .reshape([positions, 1, k, 1])
            .expand([positions, n, k, 1]);
        Self {
            log_probabilities: logs.clone().gather(3, truth).squeeze_dim(3),
            overlaps: (scored > 0).then(|| {
                let probabilities = logs.narrow(2, 0, scored).exp().swap_dims(1, 2);
                probabilities.clone().matmul(probabilities.transpose())
            }),
        }
    }
}
