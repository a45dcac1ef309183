//! The diffusion head: noise taken off step by step.

use std::f64::consts::{LN_2, PI};

use burn::module::Module;
use burn::tensor::{Int, Tensor};
use calm_nn::{ConfigError, Draws, Init, Posterior};
use serde::{Deserialize, Serialize};

use crate::denoiser::{Denoiser, DenoiserConfig, parts};
use crate::{GenerativeHead, HeadLoss};

/// Steps of the process that is trained.
pub const DIFFUSION_TIMES: usize = 1000;

/// What a [`DiffusionHead`] minimises beside the squared error of the noise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiffusionLoss {
    /// The variational term in nats, weighted by 0.001 (arXiv 2102.09672, Eq. 16), its last step
    /// the density of the latent.
    #[default]
    Clean,
    /// As the released code has it: the term in bits at its full weight, and at the last step the
    /// probability of a latent taken as the pixel of an image, of 256 values between -1 and 1.
    Released,
}

/// Weight of the variational term of [`DiffusionLoss::Clean`].
const VARIATIONAL_WEIGHT: f64 = 1e-3;

/// Sizes of a [`DiffusionHead`], its loss and its sampler.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DiffusionHeadConfig {
    /// Width d, the backbone's.
    pub hidden_size: usize,
    /// Latent width l, the autoencoder's.
    pub latent_size: usize,
    /// Residual blocks.
    pub blocks: usize,
    /// Copies of every position in the loss, each with a draw of the posterior, a time and noise of
    /// its own.
    pub copies: usize,
    /// The loss.
    pub loss: DiffusionLoss,
    /// Steps of the sampler, 2 to [`DIFFUSION_TIMES`].
    pub steps: usize,
    /// Bound on the entries of the latents that the sampler predicts on its way; 0 for none, as in the
    /// released code. At the first steps almost nothing of a latent is left, and a small error of the
    /// named noise makes a large one of the latent.
    pub clip: f64,
}

impl DiffusionHeadConfig {
    /// The network that names noise and variances.
    pub fn denoiser(&self) -> DenoiserConfig {
        DenoiserConfig {
            hidden_size: self.hidden_size,
            latent_size: self.latent_size,
            blocks: self.blocks,
            outputs: 2,
        }
    }

    /// Checks the sizes.
    ///
    /// # Errors
    /// Names the field and what it must be.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.denoiser().validate()?;
        ConfigError::positive("samples", self.copies)?;
        let inside = (2..=DIFFUSION_TIMES).contains(&self.steps);
        ConfigError::range("diffusion_steps", self.steps as f64, inside, "2 to 1000")?;
        ConfigError::range("diffusion_clip", self.clip, self.clip >= 0.0, "0 or more")
    }

    /// The head with fresh weights.
    pub fn init(&self, init: &mut Init<'_>) -> DiffusionHead {
        DiffusionHead {
            net: self.denoiser().init(init),
            copies: self.copies,
            loss: self.loss,
            steps: self.steps,
            clip: self.clip,
        }
    }
}

/// The tables of a noising process, one entry a step (arXiv 2006.11239; in f64).
#[derive(Clone, Debug)]
struct Schedule {
    /// Step of the trained process that each step is, which the network is told.
    times: Vec<usize>,
    /// Share of the latent's variance that is left after the step, alpha-bar.
    kept: Vec<f64>,
    /// Logarithm of the step's noise variance, beta.
    log_beta: Vec<f64>,
    /// Of the variance of `x_(t-1)` given x_t and x_0; the first, which is 0, is the second.
    log_variance: Vec<f64>,
    /// The mean of it: weights of x_0 and x_t.
    of_latent: Vec<f64>,
    of_noisy: Vec<f64>,
}

impl Schedule {
    /// The process that is trained: cosine schedule (arXiv 2102.09672), beta at most 0.999.
    fn trained() -> Self {
        let share = |t: f64| ((t + 0.008) / 1.008 * PI / 2.0).cos().powi(2);
        let step = |i: usize| i as f64 / DIFFUSION_TIMES as f64;
        let mut left = 1.0;
        let kept = (0..DIFFUSION_TIMES)
            .map(|i| {
                let beta = (1.0 - share(step(i + 1)) / share(step(i))).min(0.999);
                left *= 1.0 - beta;
                left
            })
            .collect();
        Self::of((0..DIFFUSION_TIMES).collect(), kept)
    }

    /// `steps` of the trained process, evenly spaced, its first and last among them.
    fn respaced(steps: usize) -> Self {
        let kept = Self::trained().kept;
        let last = (DIFFUSION_TIMES - 1) as f64;
        let times: Vec<usize> = (0..steps)
            .map(|i| (i as f64 * last / (steps - 1) as f64).round() as usize)
            .collect();
        let kept = times.iter().map(|&t| kept[t]).collect();
        Self::of(times, kept)
    }

    fn of(times: Vec<usize>, kept: Vec<f64>) -> Self {
        let steps = times.len();
        let before: Vec<f64> = std::iter::once(1.0).chain(kept.iter().copied()).collect();
        let beta: Vec<f64> = (0..steps).map(|i| 1.0 - kept[i] / before[i]).collect();
        let table = |f: &dyn Fn(usize) -> f64| -> Vec<f64> { (0..steps).map(f).collect() };
        let variance = |i: usize| beta[i] * (1.0 - before[i]) / (1.0 - kept[i]);
        Self {
            log_beta: table(&|i| beta[i].ln()),
            log_variance: table(&|i| variance(i.max(1)).ln()),
            of_latent: table(&|i| beta[i] * before[i].sqrt() / (1.0 - kept[i])),
            of_noisy: table(&|i| (1.0 - before[i]) * (1.0 - beta[i]).sqrt() / (1.0 - kept[i])),
            times,
            kept,
        }
    }
}

/// Denoising diffusion with learned variances (arXiv 2102.09672; one of CALM's alternatives to
/// the energy head): 1,000 steps, cosine schedule, the network names the noise and where between beta
/// and the posterior's variance that of the reverse step lies.
#[derive(Module, Debug)]
pub struct DiffusionHead {
    /// Noise and variances.
    pub net: Denoiser,
    copies: usize,
    #[module(skip)]
    loss: DiffusionLoss,
    steps: usize,
    clip: f64,
}

/// What a diffusion loss is made of.
#[derive(Clone, Debug)]
pub struct DiffusionDraws {
    /// Latents x_0, `[copies, positions, l]`.
    pub targets: Tensor<3>,
    /// Steps of the trained process, 0 to 999, `[copies, positions]`.
    pub times: Tensor<2, Int>,
    /// Standard normal, `[copies, positions, l]`.
    pub noise: Tensor<3>,
}

/// The two terms of a diffusion loss, `[copies, positions]` each, means over l.
#[derive(Clone, Debug)]
pub struct DiffusionTerms {
    /// Squared error of the noise.
    pub squared: Tensor<2>,
    /// The variational term: bits in the released form, else nats.
    pub variational: Tensor<2>,
}

impl DiffusionHead {
    /// The terms of the loss, in the form `of`. Gradients of the variational term reach the
    /// variances alone.
    pub fn terms(
        &self,
        hidden: Tensor<2>,
        draws: DiffusionDraws,
        of: DiffusionLoss,
    ) -> DiffusionTerms {
        let DiffusionDraws {
            targets,
            times,
            noise,
        } = draws;
        let schedule = Schedule::trained();
        let at = |f: &dyn Fn(usize) -> f64| look_up(&times, f);
        let kept = |i: usize| schedule.kept[i];
        let noisy = targets.clone() * at(&|i| kept(i).sqrt())
            + noise.clone() * at(&|i| (1.0 - kept(i)).sqrt());
        let condition = self.net.condition(hidden);
        let named = self
            .net
            .forward(condition, noisy.clone(), times.clone().float());
        let [named_noise, share] = parts(named);
        let squared = (noise.clone() - named_noise.clone()).square().mean_dim(2);

        let log_variance = log_variance(
            share,
            at(&|i| schedule.log_beta[i]),
            at(&|i| schedule.log_variance[i]),
        );
        // Latent and named latent differ by their noises alone, and so do the means of the step before:
        // taken so, small differences lose no digits.
        let wrong = named_noise.detach() - noise;
        let apart = wrong * at(&|i| (1.0 / kept(i) - 1.0).sqrt() * schedule.of_latent[i]);
        let squares = apart.clone().square() / log_variance.clone().exp();
        let ratio = at(&|i| schedule.log_variance[i]) - log_variance.clone();
        let between = (ratio.clone().exp() + squares.clone() - ratio - 1.0) * 0.5;
        // At time 0 the mean of the step before is the named latent.
        let last = match of {
            DiffusionLoss::Released => -pixel_log_probability(targets, apart, log_variance),
            DiffusionLoss::Clean => (squares + log_variance + (2.0 * PI).ln()) * 0.5,
        };
        let is_last = times.equal_elem(0).unsqueeze_dim::<3>(2);
        let is_last = is_last.expand(between.dims());
        let variational = between.mask_where(is_last, last).mean_dim(2);
        DiffusionTerms {
            squared: squared.squeeze_dim(2),
            variational: match of {
                DiffusionLoss::Released => variational.squeeze_dim(2) / LN_2,
                DiffusionLoss::Clean => variational.squeeze_dim(2),
            },
        }
    }

    /// Latents from given noise, by `steps` steps from the last time to the first.
    ///
    /// # Shapes
    /// - hidden: `[positions, d]`
    /// - start, output: `[n, positions, l]`
    /// - noise: of every step but that at time 0, in the order of the steps, `[n, positions, l]`
    ///
    /// # Panics
    /// Unless there are 2 to [`DIFFUSION_TIMES`] steps.
    pub fn denoise(
        &self,
        hidden: Tensor<2>,
        start: Tensor<3>,
        steps: usize,
        mut noise: impl FnMut() -> Tensor<3>,
    ) -> Tensor<3> {
        assert!(
            (2..=DIFFUSION_TIMES).contains(&steps),
            "{steps} steps of a sampler"
        );
        let (schedule, device) = (Schedule::respaced(steps), start.device());
        let condition = self.net.condition(hidden);
        (0..steps).rev().fold(start, |x, i| {
            let time = Tensor::from_floats([[schedule.times[i] as f32]], &device);
            let named = self.net.forward(condition.clone(), x.clone(), time);
            let [named_noise, share] = parts(named);
            let scalar = |value: f64| Tensor::<1>::from_floats([value as f32], &device).unsqueeze();
            let latent = latent(&x, named_noise, scalar(schedule.kept[i]));
            let latent = match self.clip > 0.0 {
                true => latent.clamp(-self.clip, self.clip),
                false => latent,
            };
            let mean = latent * schedule.of_latent[i] + x * schedule.of_noisy[i];
            if i == 0 {
                return mean;
            }
            let bounds = [schedule.log_beta[i], schedule.log_variance[i]].map(scalar);
            let [log_beta, log_least] = bounds;
            mean + (log_variance(share, log_beta, log_least) * 0.5).exp() * noise()
        })
    }
}

/// The entries of a table at the times, `[copies, positions, 1]`.
fn look_up(times: &Tensor<2, Int>, entry: &dyn Fn(usize) -> f64) -> Tensor<3> {
    let [copies, positions] = times.dims();
    let table: Vec<f32> = (0..DIFFUSION_TIMES).map(|i| entry(i) as f32).collect();
    let table = Tensor::<1>::from_floats(table.as_slice(), &times.device());
    let rows = times.clone().reshape([copies * positions]);
    table.select(0, rows).reshape([copies, positions, 1])
}

/// The latent that is left when the named noise is taken off.
fn latent(noisy: &Tensor<3>, noise: Tensor<3>, kept: Tensor<3>) -> Tensor<3> {
    let unscale = kept.clone().sqrt().recip();
    let scale = (kept.recip() - 1.0).sqrt();
    noisy.clone() * unscale - noise * scale
}

/// Between the two bounds, at the share that the network names: -1 the lower, 1 the upper.
fn log_variance(share: Tensor<3>, upper: Tensor<3>, lower: Tensor<3>) -> Tensor<3> {
    let share = (share + 1.0) * 0.5;
    share.clone() * upper + (share * -1.0 + 1.0) * lower
}

/// Logarithm of the probability that a Gaussian falls into the bin of a pixel, 2/255 wide and open
/// at -1 and 1, with tanh for the error function: the released code's, whose function of the
/// distribution is `(1 + tanh(u)) / 2 = sigmoid(2 u)`. The difference of two such is taken as
/// `sigmoid(2 u) sigmoid(-2 v) (1 - e^(-2 (u - v)))`, which loses no digits in the tails.
///
/// `centred` is the pixel less the Gaussian's mean.
fn pixel_log_probability(
    pixel: Tensor<3>,
    centred: Tensor<3>,
    log_variance: Tensor<3>,
) -> Tensor<3> {
    let (half, least) = (1.0 / 255.0, 1e-12);
    let scale = (2.0 / PI).sqrt();
    let precision = (log_variance * -0.5).exp();
    let bound = |offset: f64| (centred.clone() + offset) * precision.clone();
    let squashed = |x: &Tensor<3>| (x.clone() + x.clone().powi_scalar(3) * 0.044715) * scale;
    let (upper, lower) = (bound(half), bound(-half));
    let [below_upper, above_lower] =
        [squashed(&upper), -squashed(&lower)].map(|u| burn::tensor::activation::sigmoid(u * 2.0));
    // u - v without the difference of cubes.
    let squares = upper.clone().square() + upper.clone() * lower.clone() + lower.square();
    let apart = precision * (2.0 * half) * (squares * 0.044715 + 1.0) * scale;
    let between = apart.tanh();
    let between = between.clone() * 2.0 / (between + 1.0);
    let log = |p: Tensor<3>| p.clamp_min(least).log();
    let inside = log(below_upper.clone() * above_lower.clone() * between);
    inside
        .mask_where(pixel.clone().greater_elem(0.999), log(above_lower))
        .mask_where(pixel.lower_elem(-0.999), log(below_upper))
}

impl GenerativeHead for DiffusionHead {
    /// Asks for the draws of the posterior (`copies * positions * l` normal values), the times
    /// (`copies * positions` uniform ones), and as many normal values as the first for the noise.
    fn loss(&self, hidden: Tensor<2>, target: &Posterior, draws: &mut dyn Draws) -> HeadLoss {
        let device = hidden.device();
        let targets = target.samples(self.copies, draws);
        let [copies, positions, l] = targets.dims();
        let times = draws.uniform(copies * positions, &device) * DIFFUSION_TIMES as f64;
        let noise = draws.normal(copies * positions * l, &device);
        let drawn = DiffusionDraws {
            targets,
            times: times.floor().int().reshape([copies, positions]),
            noise: noise.reshape([copies, positions, l]),
        };
        let terms = self.terms(hidden, drawn, self.loss);
        let (squared, variational) = (terms.squared.mean(), terms.variational.mean());
        let weight = match self.loss {
            DiffusionLoss::Released => 1.0,
            DiffusionLoss::Clean => VARIATIONAL_WEIGHT,
        };
        HeadLoss {
            total: squared.clone() + variational.clone() * weight,
            parts: vec![("squared", squared), ("variational", variational)],
        }
    }

    /// Asks for `n * positions * l` normal values for every step: the start, then the noise of each
    /// but the last.
    fn sample(&self, hidden: Tensor<2>, n: usize, draws: &mut dyn Draws) -> Tensor<3> {
        let ([positions, _], l) = (hidden.dims(), self.net.latent_size());
        let device = hidden.device();
        let mut noise = || {
            let values = draws.normal(n * positions * l, &device);
            values.reshape([n, positions, l])
        };
        let start = noise();
        self.denoise(hidden, start, self.steps, noise)
    }
}
