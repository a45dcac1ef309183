//! The energy score: a strictly proper scoring rule that needs only samples.

use burn::tensor::{Bool, Tensor};

/// The two expectations of the energy score, per position.
#[derive(Clone, Debug)]
pub struct EnergyScore {
    /// Mean distance between model samples and target draws, `[positions]`.
    pub attraction: Tensor<1>,
    /// Mean distance between different model samples, `[positions]`.
    pub repulsion: Tensor<1>,
}

impl EnergyScore {
    /// `2 * attraction - repulsion`, `[positions]`; at exponent 1 it is never negative. It is a
    /// loss, not a measure of quality: its scale is that of the latent space.
    pub fn loss(&self) -> Tensor<1> {
        self.attraction.clone() * 2.0 - self.repulsion.clone()
    }

    /// Mean of [`EnergyScore::loss`] over the positions that count; the others get no gradient, as
    /// long as their numbers are finite.
    ///
    /// # Shapes
    /// - counts: `[positions]`
    /// - output: `[1]`; 0 where no position counts
    ///
    /// # Panics
    /// Where the positions are others than the score's.
    pub fn masked_loss(&self, counts: Tensor<1, Bool>) -> Tensor<1> {
        assert_eq!(
            counts.dims(),
            self.attraction.dims(),
            "one entry a position"
        );
        let others = counts.clone().bool_not();
        let number = counts.float().sum().clamp_min(1.0);
        self.loss().mask_fill(others, 0.0).sum() / number
    }
}

/// Energy score of N model samples against M draws of the target, with distances
/// `||x - y||^alpha` (CALM, section 3.3.2, Eq. 10):
/// `2/(N M) sum ||z_m - x_n||^alpha - 1/(N (N-1)) sum_{n != k} ||x_n - x_k||^alpha`.
///
/// Nothing of size `[N, M, positions, l]` is made. Between samples and targets the squared
/// distances come from the Gram matrix, after moving the origin to the targets' mean, which
/// removes the cancellation that a common offset causes. Between samples, which coincide exactly
/// while the head's last layer is zero, differences are taken directly. Coinciding points have
/// distance 0 and gradient 0.
///
/// # Shapes
/// - samples: `[N, positions, l]`, N >= 2
/// - targets: `[M, positions, l]`, no gradient flows to them
///
/// # Panics
/// Where N < 2 or the shapes disagree.
pub fn energy_score(samples: Tensor<3>, targets: Tensor<3>, alpha: f64) -> EnergyScore {
    let [n, positions, l] = samples.dims();
    let [m, _, _] = targets.dims();
    assert!(
        n >= 2,
        "the energy score compares samples with each other: N is {n}, at least 2"
    );
    assert_eq!(
        targets.dims(),
        [m, positions, l],
        "targets are [M, positions, l]"
    );
    let targets = targets.detach();
    let origin = targets.clone().mean_dim(0);
    let samples = (samples - origin.clone()).swap_dims(0, 1); // [P, N, l]
    let targets = (targets - origin).swap_dims(0, 1); // [P, M, l]

    let attraction = distances(squared_by_gram(samples.clone(), targets), alpha);
    let apart = distances(squared_directly(samples), alpha);
    EnergyScore {
        attraction: attraction.sum_dims(&[1, 2]).reshape([positions]) / (n * m) as f64,
        repulsion: apart.sum_dims(&[1, 2]).reshape([positions]) / (n * (n - 1)) as f64,
    }
}

/// `||x||^2 + ||y||^2 - 2 x.y`, shape `[P, N, M]`.
fn squared_by_gram(x: Tensor<3>, y: Tensor<3>) -> Tensor<3> {
    let x_norms = x.clone().square().sum_dim(2); // [P, N, 1]
    let y_norms = y.clone().square().sum_dim(2).swap_dims(1, 2); // [P, 1, M]
    let scale = x_norms + y_norms;
    let squared = scale.clone() - x.matmul(y.swap_dims(1, 2)) * 2.0;
    // Below this the difference of f32 numbers of size `scale` is rounding: no smaller distance
    // is believed, so that its reciprocal in the gradient stays bounded.
    let rounding = (scale.detach() * 4e-7).clamp_min(1e-30);
    squared.max_pair(rounding)
}

/// All pairs of samples by their differences, shape `[P, N, N]`.
fn squared_directly(x: Tensor<3>) -> Tensor<3> {
    let difference = x.clone().unsqueeze_dim::<4>(2) - x.unsqueeze_dim::<4>(1);
    difference.square().sum_dim(3).squeeze_dim(3)
}

/// `squared^(alpha / 2)`, with value and gradient 0 where the points coincide.
fn distances(squared: Tensor<3>, alpha: f64) -> Tensor<3> {
    let coincide = squared.clone().lower_elem(1e-24);
    let safe = squared.mask_fill(coincide.clone(), 1.0);
    let distance = if alpha == 1.0 {
        safe.sqrt()
    } else {
        safe.powf_scalar(alpha / 2.0)
    };
    distance.mask_fill(coincide, 0.0)
}
