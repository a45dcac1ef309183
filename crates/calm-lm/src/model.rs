//! The composed model and its training loss.

use burn::module::Module;
use burn::tensor::{Int, Tensor};
use calm_autoencoder::ChunkAutoencoder;
use calm_backbone::Backbone;
use calm_likelihood_free::{GenerativeHead, Head, HeadLoss};
use calm_nn::{Draws, Posterior};

use crate::{AuxiliaryHead, Objective};

/// Backbone and head: what the language-model stage trains.
#[derive(Module, Debug)]
pub struct LanguageModel {
    /// Chunks to hidden states.
    pub backbone: Backbone,
    /// Hidden states to random latents.
    pub head: Head,
    /// Hidden states to the next chunk's tokens, in training alone and where it has a weight.
    pub auxiliary: Option<AuxiliaryHead>,
    pub(crate) aux_weight: f64,
    #[module(skip)]
    pub(crate) objective: Objective,
}

/// A language model as a checkpoint holds it, with a head of a known kind: the choice among heads has
/// no place in the names of its tensors.
#[derive(Module, Debug)]
pub(crate) struct Stored<H: Module> {
    pub backbone: Backbone,
    pub head: H,
}

/// A CALM: the frozen autoencoder and the language model in its latent space.
#[derive(Module, Debug)]
pub struct CalmModel {
    /// Chunks to latents and back.
    pub autoencoder: ChunkAutoencoder,
    /// The next-vector predictor.
    pub language_model: LanguageModel,
}

impl LanguageModel {
    /// Loss of predicting, from every chunk of the windows but the last, the next chunk's vector.
    ///
    /// `autoencoder` is frozen: it makes the targets outside the graph, without dropout.
    ///
    /// # Shapes
    /// - tokens: `[batch, steps, K]`
    pub fn loss(
        &self,
        autoencoder: &ChunkAutoencoder,
        tokens: Tensor<3, Int>,
        draws: &mut dyn Draws,
    ) -> HeadLoss {
        let [batch, steps, k] = tokens.dims();
        let predictions = batch * (steps - 1);
        // The last chunk of a window is a target only.
        let seen = tokens.clone().narrow(1, 0, steps - 1);
        let hidden = self.backbone.forward(seen);
        let d = hidden.dims()[2];
        let next = tokens.narrow(1, 1, steps - 1).reshape([predictions, k]);
        let posterior = autoencoder.encode(next.clone().without_autodiff());
        let lift = |x: Tensor<2>| {
            if hidden.is_autodiff() {
                Tensor::from_inner(x)
            } else {
                x
            }
        };
        let target = Posterior {
            mean: lift(posterior.mean),
            log_std: lift(posterior.log_std),
        };
        let hidden = hidden.clone().reshape([predictions, d]);
        let mut loss = self.head_loss(autoencoder, hidden.clone(), &target, next.clone(), draws);
        if let Some(auxiliary) = &self.auxiliary {
            let named = auxiliary.loss(hidden, next);
            loss.total = loss.total + named.clone() * self.aux_weight;
            loss.parts.push(("auxiliary", named));
        }
        loss
    }

    /// The head's part of the loss, by [`Objective`].
    fn head_loss(
        &self,
        autoencoder: &ChunkAutoencoder,
        hidden: Tensor<2>,
        target: &Posterior,
        next: Tensor<2, Int>,
        draws: &mut dyn Draws,
    ) -> HeadLoss {
        let objective = &self.objective;
        let head = match &self.head {
            Head::Energy(head) if objective.reads_decoder() => head,
            head => {
                let loss = head.loss(hidden, target, draws);
                return HeadLoss {
                    total: loss.total * objective.energy,
                    parts: loss.parts,
                };
            }
        };
        let samples = head.sample(hidden, objective.samples(head.samples()), draws);
        let read = samples.clone().narrow(0, 0, objective.draws);
        let (mut total, mut parts) = (Tensor::zeros([1], &samples.device()), Vec::new());
        if objective.energy > 0.0 {
            let energy = head.score(samples, target, draws);
            total = total + energy.total * objective.energy;
            parts.extend(energy.parts);
        }
        for (name, weight, part) in objective.decoded(autoencoder, read, next) {
            total = total + part.clone() * weight;
            parts.push((name, part));
        }
        HeadLoss { total, parts }
    }

    /// Without what only training needs.
    pub fn without_auxiliary(self) -> Self {
        Self {
            auxiliary: None,
            ..self
        }
    }
}
