//! The energy score against draws of a Gaussian that are made where they are needed.

mod autodiff;
mod cpu;
#[cfg(feature = "cube")]
mod cube;
mod flex;

use burn::backend::{Backend, Dispatch, backend_extension, tensor::FloatTensor};
use burn::tensor::{Device, Tensor, TensorData};

use crate::philox::normals;
use crate::{has_kernel, on_flex};

/// Draws of a Gaussian whose standard normal numbers `eps` are those of a key (see [`normals`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyedDraws {
    /// How many, M.
    pub count: usize,
    /// The key.
    pub key: u64,
    /// Whether every second draw mirrors the one before, `-eps`: what is odd in `eps` cancels. Of an
    /// energy score whose Gaussian is narrow beside its distances that is nearly all
    /// of the draws' variance (docs/log.md).
    pub antithetic: bool,
}

impl KeyedDraws {
    /// Draws that share one `eps`, but for its sign.
    fn fold(&self) -> usize {
        if self.antithetic { 2 } else { 1 }
    }

    /// All `eps`, `[count, positions, l]`.
    fn eps(&self, positions: usize, l: usize, device: &Device) -> Tensor<3> {
        let own = self.count.div_ceil(self.fold());
        let eps = TensorData::new(
            normals(self.key, own * positions * l),
            [own, 1, positions * l],
        );
        let eps = Tensor::<3>::from_data(eps, device);
        let all = match self.antithetic {
            true => Tensor::cat(vec![eps.clone(), -eps], 1),
            false => eps,
        };
        let all = all.reshape([own * self.fold(), positions, l]);
        all.narrow(0, 0, self.count)
    }
}

/// Backends with a fused energy score.
#[backend_extension(
    Flex,
    Cube: cfg(feature = "cube"),
    Fusion: cfg(feature = "cube"),
    Autodiff
)]
pub trait EnergyOps: Backend {
    /// `[2, positions]`: attraction, then repulsion.
    #[fusion(dtype = samples, shape = burn::tensor::Shape::from([2, samples[1]]))]
    fn calm_energy(
        samples: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        log_std: FloatTensor<Self>,
        draws: KeyedDraws,
        alpha: f32,
    ) -> FloatTensor<Self>;

    /// Gradient of the samples for `grad` `[2, positions]`.
    #[fusion(dtype = samples, shape = samples)]
    fn calm_energy_backward(
        samples: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        log_std: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        draws: KeyedDraws,
        alpha: f32,
    ) -> FloatTensor<Self>;
}

/// The two expectations of the energy score (CALM, section 3.3.2, Eq. 10), per position: the mean of
/// `||x_n - y_m||^alpha` over all pairs and the mean of `||x_n - x_k||^alpha` over all pairs of
/// different samples.
///
/// `y_m = mean + exp(log_std) * eps_m`: number `(m * positions + p) * l + j` of the key belongs to draw
/// m, position p, dimension j; of antithetic draws m counts pairs. They are made in registers and never
/// stored. Coinciding points have distance 0 and gradient 0.
///
/// # Shapes
/// - samples: `[N, positions, l]`, N >= 2, l a multiple of 4
/// - mean, log_std: `[positions, l]`; no gradient flows to them
/// - output: attraction and repulsion, `[positions]` each
///
/// # Panics
/// Where the shapes disagree or N < 2.
pub fn gaussian_energy(
    samples: Tensor<3>,
    mean: Tensor<2>,
    log_std: Tensor<2>,
    draws: KeyedDraws,
    alpha: f64,
) -> (Tensor<1>, Tensor<1>) {
    let [n, positions, l] = samples.dims();
    assert!(n >= 2, "the energy score compares samples: N is {n}");
    assert_eq!(
        (mean.dims(), log_std.dims()),
        ([positions, l], [positions, l])
    );
    // The kernels of GPUs have room for so many samples, and count draws in 32 bits.
    let fits = on_flex(&samples.device())
        || n <= 32 && u32::try_from(draws.count * positions * (l / 4)).is_ok();
    if !has_kernel(&samples) || !l.is_multiple_of(4) || !fits {
        return gaussian_energy_reference(samples, mean, log_std, draws, alpha);
    }
    let both = <Dispatch as EnergyOps>::calm_energy(
        samples.into_dispatch(),
        mean.into_dispatch(),
        log_std.into_dispatch(),
        draws,
        alpha as f32,
    );
    let both = Tensor::<2>::from_dispatch(both);
    let part = |i| both.clone().narrow(0, i, 1).squeeze_dim::<1>(0);
    (part(0), part(1))
}

/// [`gaussian_energy`] in plain tensor operations: all draws and all differences are made.
pub fn gaussian_energy_reference(
    samples: Tensor<3>,
    mean: Tensor<2>,
    log_std: Tensor<2>,
    draws: KeyedDraws,
    alpha: f64,
) -> (Tensor<1>, Tensor<1>) {
    let [n, positions, l] = samples.dims();
    let eps = draws.eps(positions, l, &samples.device());
    let targets = (eps * log_std.exp().unsqueeze_dim(0) + mean.unsqueeze_dim(0)).detach();
    let mean_distance = |y: Tensor<3>, pairs: usize| {
        let difference = samples.clone().unsqueeze_dim::<4>(1) - y.unsqueeze_dim::<4>(0);
        let squared: Tensor<3> = difference.square().sum_dim(3).squeeze_dim(3);
        let coincide = squared.clone().lower_elem(COINCIDE);
        let safe = squared.mask_fill(coincide.clone(), 1.0);
        let distance = if alpha == 1.0 {
            safe.sqrt()
        } else {
            safe.powf_scalar(alpha / 2.0)
        };
        let distance = distance.mask_fill(coincide, 0.0);
        distance.sum_dims(&[0, 1]).reshape([positions]) / pairs as f64
    };
    (
        mean_distance(targets, n * draws.count),
        mean_distance(samples.clone(), n * (n - 1)),
    )
}

/// Squared distances below this are 0.
const COINCIDE: f32 = 1e-24;
