//! The diagonal Gaussian that an encoder makes of a chunk, and that a generative head learns.

use burn::tensor::Tensor;

use crate::Draws;

/// `N(mean, diag(exp(log_std)^2))` of every chunk.
#[derive(Clone, Debug)]
pub struct Posterior {
    /// Means, `[chunks, l]`.
    pub mean: Tensor<2>,
    /// Logarithms of the standard deviations, `[chunks, l]`.
    pub log_std: Tensor<2>,
}

impl Posterior {
    /// One draw for each chunk, `[chunks, l]`; asks for `chunks * l` normal values.
    pub fn sample(&self, draws: &mut dyn Draws) -> Tensor<2> {
        self.samples(1, draws).squeeze_dim(0)
    }

    /// `m` draws for each chunk, `mean + exp(log_std) * eps`, `[m, chunks, l]`; asks for
    /// `m * chunks * l` normal values.
    pub fn samples(&self, m: usize, draws: &mut dyn Draws) -> Tensor<3> {
        self.at(self.eps(m, draws))
    }

    /// `m` draws of which every second mirrors the one before, `-eps`; asks for
    /// `ceil(m / 2) * chunks * l` normal values.
    pub fn antithetic_samples(&self, m: usize, draws: &mut dyn Draws) -> Tensor<3> {
        let own = m.div_ceil(2);
        let eps = self.eps(own, draws).unsqueeze_dim::<4>(1);
        let [_, _, chunks, l] = eps.dims();
        let both = Tensor::cat(vec![eps.clone(), -eps], 1).reshape([2 * own, chunks, l]);
        self.at(both.narrow(0, 0, m))
    }

    fn eps(&self, m: usize, draws: &mut dyn Draws) -> Tensor<3> {
        let [chunks, l] = self.mean.dims();
        let values = draws.normal(m * chunks * l, &self.mean.device());
        values.reshape([m, chunks, l])
    }

    fn at(&self, eps: Tensor<3>) -> Tensor<3> {
        eps * self.log_std.clone().exp().unsqueeze_dim(0) + self.mean.clone().unsqueeze_dim(0)
    }

    /// KL divergence to the standard normal distribution in nats, per dimension:
    /// `0.5 * (mean^2 + std^2 - 1 - 2 log_std)`, shape `[chunks, l]` (CALM, section 2).
    pub fn kl(&self) -> Tensor<2> {
        let variance = (self.log_std.clone() * 2.0).exp();
        (self.mean.clone().square() + variance - 1.0 - self.log_std.clone() * 2.0) * 0.5
    }
}
