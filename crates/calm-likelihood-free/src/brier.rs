//! BrierLM: the quality of a language model from samples alone.
//!
//! Positions that are not to be scored are left out by whoever adds starts to a [`BrierAccumulator`].

use calm_nn::{Draws, MAX_N, RandomStream};

/// One scored start: the true next tokens and what the model drew instead.
#[derive(Clone, Debug, PartialEq)]
pub struct Start {
    /// The next [`MAX_N`] tokens of the text.
    pub target: [u32; MAX_N],
    /// Independent draws of the next tokens. A draw may be shorter than [`MAX_N`] where it is
    /// known that its continuation can agree with neither the target nor another draw.
    pub draws: Vec<Vec<u32>>,
}

/// Draws the next tokens at every scored start of a window.
///
/// With K >= 4 tokens per chunk one chunk is enough. With smaller chunks several are rolled out,
/// each along its own draw, and a draw may stop as soon as it stands alone.
pub trait Rollout {
    /// The starts of `window` (token ids), each with `draws` independent draws.
    fn roll_out(&mut self, window: &[u32], draws: usize, random: &mut dyn Draws) -> Vec<Start>;
}

/// The estimates of Brier-1..4 at one start from all pairs of draws.
///
/// `Brier(P, y) = 2 P(y) - sum_x P(x)^2` is strictly proper, and
/// `1{a = y} + 1{b = y} - 1{a = b}` is unbiased for it with two independent draws (CALM,
/// section 4.2, Eq. 12 to 15); the mean over all pairs is the U-statistic with the least variance.
///
/// # Panics
/// With fewer than two draws.
pub fn brier_at(start: &Start) -> [f64; MAX_N] {
    let d = start.draws.len();
    assert!(
        d >= 2,
        "the Brier estimate needs two draws or more, got {d}"
    );
    let mut estimate = [0.0; MAX_N];
    for (i, value) in estimate.iter_mut().enumerate() {
        let n = i + 1;
        let prefix = |draw: usize| start.draws[draw].get(..n);
        let hits = (0..d)
            .filter(|&a| prefix(a) == Some(&start.target[..n]))
            .count();
        let mut collisions = 0usize;
        for a in 0..d {
            for b in 0..a {
                collisions += usize::from(prefix(a).is_some() && prefix(a) == prefix(b));
            }
        }
        let pairs = (d * (d - 1) / 2) as f64;
        *value = 2.0 * hits as f64 / d as f64 - collisions as f64 / pairs;
    }
    estimate
}

/// A continuation drawn from a model that knows the probabilities of its next token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DrawnPrefix {
    /// Probability of each of its tokens but the last, after those before.
    pub chances: [f64; MAX_N - 1],
    /// `sum_v P(v | its first n - 1 tokens)^2` for n = 1..4.
    pub collisions: [f64; MAX_N],
}

/// Brier-1..4 at a start of a model that knows the probabilities of its next token.
///
/// `P(y)` is exact. `sum_x P(x)^2` over n tokens is the expectation, over drawn prefixes, of
/// `P(x_1..x_{n-1}) sum_v P(v | x_1..x_{n-1})^2`, so it is exact for n = 1 and unbiased from one prefix
/// on, with less variance than [`brier_at`]: the probability of a coincidence stands in for it.
/// (calm-baseline does the same for whole windows on a device.)
///
/// `target` holds the probability of each of the text's next tokens after those before.
///
/// # Panics
/// Without a prefix.
pub fn brier_of_probabilities(target: &[f64; MAX_N], prefixes: &[DrawnPrefix]) -> [f64; MAX_N] {
    assert!(!prefixes.is_empty(), "at least one drawn prefix is needed");
    let mut hit = 1.0;
    std::array::from_fn(|i| {
        hit *= target[i];
        let coincidence = |prefix: &DrawnPrefix| {
            prefix.chances[..i].iter().product::<f64>() * prefix.collisions[i]
        };
        2.0 * hit - prefixes.iter().map(coincidence).sum::<f64>() / prefixes.len() as f64
    })
}

/// Brier-n at `target` of a model that draws tokens independently from `probabilities`.
pub fn unigram_brier_at(target: &[u32; MAX_N], probabilities: &[f64]) -> [f64; MAX_N] {
    let collision: f64 = probabilities.iter().map(|p| p * p).sum();
    let (mut hit, mut both) = (1.0, 1.0);
    std::array::from_fn(|i| {
        hit *= probabilities[target[i] as usize];
        both *= collision;
        2.0 * hit - both
    })
}

/// Brier-1..4 and BrierLM with standard errors.
#[derive(Clone, Debug, PartialEq)]
pub struct BrierEstimate {
    /// Brier-1..4, means over starts.
    pub brier: [f64; MAX_N],
    /// Their standard errors.
    pub brier_se: [f64; MAX_N],
    /// The covariances of the four estimates.
    pub covariance: [[f64; MAX_N]; MAX_N],
    /// [`brier_lm`] of them.
    pub brier_lm: f64,
    /// Its standard error, where it has one.
    pub brier_lm_se: Option<f64>,
    /// Starts scored.
    pub positions: u64,
}

/// Collects per-start values window by window.
///
/// Starts of one window share their text, so the standard errors treat a window as the unit that
/// is drawn (cluster-robust): `Cov = G/(G-1) * sum_g r_g r_g' / P^2` with G windows, P starts and
/// `r_g` the window's sum of deviations. With one start per window that is the usual `s^2 / P`.
#[derive(Clone, Debug, Default)]
pub struct BrierAccumulator {
    windows: Vec<([f64; MAX_N], f64)>,
}

impl BrierAccumulator {
    /// Adds the starts of one window, those that count; a window without any adds nothing.
    pub fn add_window(&mut self, values: impl IntoIterator<Item = [f64; MAX_N]>) {
        let mut sums = [0.0; MAX_N];
        let mut count = 0.0;
        for value in values {
            for (sum, v) in sums.iter_mut().zip(value) {
                *sum += v;
            }
            count += 1.0;
        }
        if count > 0.0 {
            self.windows.push((sums, count));
        }
    }

    /// Confidence limits of BrierLM, by the percentiles of `rounds` bootstrap samples of windows (Efron,
    /// 1979); `None` with fewer than two windows.
    ///
    /// For what is drawn as a whole, windows or documents, each added as one. They cover what is true
    /// with a probability of about `level`, somewhat less where windows are few. There are limits where
    /// [`BrierEstimate::brier_lm_se`] is undefined; both are 0 where every sample is cut off there.
    ///
    /// # Panics
    /// Where the level is not inside (0, 1), or there are no rounds.
    pub fn interval(
        &self,
        level: f64,
        rounds: usize,
        random: &mut RandomStream,
    ) -> Option<[f64; 2]> {
        assert!(
            level > 0.0 && level < 1.0 && rounds > 0,
            "a level and rounds"
        );
        let windows = &self.windows;
        if windows.len() < 2 {
            return None;
        }
        let no_covariance = [[0.0; MAX_N]; MAX_N];
        let mut values: Vec<f64> = (0..rounds)
            .map(|_| {
                let (mut sums, mut positions) = ([0.0; MAX_N], 0.0);
                for _ in windows {
                    let (of_window, count) = &windows[random.below(windows.len())];
                    positions += count;
                    sums.iter_mut()
                        .zip(of_window)
                        .for_each(|(sum, x)| *sum += x);
                }
                brier_lm(&sums.map(|sum| sum / positions), &no_covariance).0
            })
            .collect();
        values.sort_by(f64::total_cmp);
        let at = |share: f64| values[((rounds - 1) as f64 * share).round() as usize];
        let outside = (1.0 - level) / 2.0;
        Some([at(outside), at(1.0 - outside)])
    }

    /// Means of every window that was added, in order.
    pub fn window_means(&self) -> Vec<[f64; MAX_N]> {
        self.windows
            .iter()
            .map(|(sums, count)| sums.map(|sum| sum / count))
            .collect()
    }

    /// The estimate over all that was added; `None` with fewer than two windows, where there is
    /// no standard error.
    pub fn estimate(&self) -> Option<BrierEstimate> {
        let groups = self.windows.len() as f64;
        if groups < 2.0 {
            return None;
        }
        let positions: f64 = self.windows.iter().map(|(_, count)| count).sum();
        let brier: [f64; MAX_N] = std::array::from_fn(|i| {
            self.windows.iter().map(|(sums, _)| sums[i]).sum::<f64>() / positions
        });
        let mut covariance = [[0.0; MAX_N]; MAX_N];
        for (sums, count) in &self.windows {
            let rest: [f64; MAX_N] = std::array::from_fn(|i| sums[i] - brier[i] * count);
            for (i, row) in covariance.iter_mut().enumerate() {
                for (j, cell) in row.iter_mut().enumerate() {
                    *cell += rest[i] * rest[j];
                }
            }
        }
        let scale = groups / (groups - 1.0) / (positions * positions);
        covariance
            .iter_mut()
            .flatten()
            .for_each(|cell| *cell *= scale);
        let (brier_lm, brier_lm_se) = brier_lm(&brier, &covariance);
        Some(BrierEstimate {
            brier,
            brier_se: std::array::from_fn(|i| covariance[i][i].sqrt()),
            covariance,
            brier_lm,
            brier_lm_se,
            positions: positions as u64,
        })
    }
}

/// BrierLM, `100 * (Brier-1 * .. * Brier-4)^(1/4)` (CALM, section 4.2, Eq. 12 to 15), from the four figures and the covariances of
/// their estimates, and its standard error by the delta method.
///
/// It is 0 where any figure is not positive, and estimates of several trainings are averaged before
/// it is taken, not after: the mean of values cut off at 0 is biased upwards. The standard error is
/// undefined, `None`, unless every figure is at least one of its own standard errors above 0: nearer
/// to it the root is no straight line.
pub fn brier_lm(brier: &[f64; MAX_N], covariance: &[[f64; MAX_N]; MAX_N]) -> (f64, Option<f64>) {
    if brier.iter().any(|&b| b <= 0.0) {
        return (0.0, None);
    }
    let value = 100.0 * brier.iter().product::<f64>().powf(1.0 / MAX_N as f64);
    if (0..MAX_N).any(|i| brier[i].powi(2) < covariance[i][i]) {
        return (value, None);
    }
    let gradient: [f64; MAX_N] = std::array::from_fn(|i| value / (MAX_N as f64 * brier[i]));
    let mut variance = 0.0;
    for i in 0..MAX_N {
        for j in 0..MAX_N {
            variance += gradient[i] * covariance[i][j] * gradient[j];
        }
    }
    (value, Some(variance.max(0.0).sqrt()))
}
