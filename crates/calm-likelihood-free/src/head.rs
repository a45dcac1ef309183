//! What every generative head can do.

use burn::tensor::Tensor;
use calm_nn::Draws;

/// The target of one prediction: the autoencoder's posterior of the next chunk.
#[derive(Clone, Debug)]
pub struct LatentTarget {
    /// Means, `[positions, l]`.
    pub mean: Tensor<2>,
    /// Log standard deviations, `[positions, l]`.
    pub log_std: Tensor<2>,
}

impl LatentTarget {
    /// `m` draws, `[m, positions, l]`; asks for `m * positions * l` normal values.
    pub fn sample(&self, m: usize, draws: &mut dyn Draws) -> Tensor<3> {
        let [positions, l] = self.mean.dims();
        let device = self.mean.device();
        let eps = draws
            .normal(m * positions * l, &device)
            .reshape([m, positions, l]);
        eps * self.log_std.clone().exp().unsqueeze_dim(0) + self.mean.clone().unsqueeze_dim(0)
    }
}

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
    fn loss(&self, hidden: Tensor<2>, target: &LatentTarget, draws: &mut dyn Draws) -> HeadLoss;

    /// `n` independent latent vectors for each position.
    ///
    /// # Shapes
    /// - hidden: `[positions, d]`
    /// - output: `[n, positions, l]`
    fn sample(&self, hidden: Tensor<2>, n: usize, draws: &mut dyn Draws) -> Tensor<3>;
}
