//! What every generative head can do.

use burn::tensor::Tensor;
use calm_nn::{Draws, Posterior};

/// A loss and the parts that are worth logging.
#[derive(Clone, Debug)]
pub struct HeadLoss {
    /// What is minimised, mean over positions, `[1]`.
    pub total: Tensor<1>,
    /// Named parts, each `[1]`.
    pub parts: Vec<(&'static str, Tensor<1>)>,
}

/// A generative head: from a hidden state to a random latent vector, in two verbs.
pub trait GenerativeHead {
    /// Loss of predicting `target` from `hidden`.
    ///
    /// # Shapes
    /// - hidden: `[positions, d]`
    fn loss(&self, hidden: Tensor<2>, target: &Posterior, draws: &mut dyn Draws) -> HeadLoss;

    /// `n` independent latent vectors for each position.
    ///
    /// # Shapes
    /// - hidden: `[positions, d]`
    /// - output: `[n, positions, l]`
    fn sample(&self, hidden: Tensor<2>, n: usize, draws: &mut dyn Draws) -> Tensor<3>;
}
