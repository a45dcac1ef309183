//! The diagonal Gaussian that the encoder makes of a chunk.

use burn::tensor::Tensor;
use calm_nn::Draws;

/// `N(mean, diag(exp(log_std)^2))`, both `[chunks, l]`.
#[derive(Clone, Debug)]
pub struct Posterior {
    /// Means, `[chunks, l]`.
    pub mean: Tensor<2>,
    /// Logarithms of the standard deviations, `[chunks, l]`.
    pub log_std: Tensor<2>,
}

impl Posterior {
    /// One draw for each chunk: `mean + exp(log_std) * eps`, shape `[chunks, l]`.
    pub fn sample(&self, draws: &mut dyn Draws) -> Tensor<2> {
        let [chunks, l] = self.mean.dims();
        let eps = draws
            .normal(chunks * l, &self.mean.device())
            .reshape([chunks, l]);
        self.mean.clone() + self.log_std.clone().exp() * eps
    }

    /// KL divergence to the standard normal distribution in nats, per dimension:
    /// `0.5 * (mean^2 + std^2 - 1 - 2 log_std)`, shape `[chunks, l]`.
    pub fn kl(&self) -> Tensor<2> {
        let variance = (self.log_std.clone() * 2.0).exp();
        (self.mean.clone().square() + variance - 1.0 - self.log_std.clone() * 2.0) * 0.5
    }
}
