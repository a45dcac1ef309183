//! Savings at equal quality, by interpolation, or quality at equal cost where that is all the
//! figures allow. Never extrapolated.

use std::collections::BTreeMap;

use calm_nn::RandomStream;
use serde::{Deserialize, Serialize};

use crate::curve::{frontier, quality_at, saving};
use crate::isotonic::isotonic;

pub use crate::curve::Point;

/// A model's quality at a cost as it was measured: a function of the means of `N` figures.
#[derive(Clone, Debug)]
pub struct Measured<const N: usize> {
    /// Points of one model share this number; their seeds are drawn together.
    pub model: usize,
    /// FLOPs, or whatever is paid.
    pub cost: f64,
    /// Figures of every seed on every window; the windows are those of all other models too.
    pub figures: Vec<Vec<[f64; N]>>,
    /// The quality, higher is better, of their means over seeds and windows.
    pub quality: fn(&[f64; N]) -> f64,
}

impl<const N: usize> Measured<N> {
    /// The quality over all seeds and windows.
    pub fn point(&self) -> Point {
        let all = |n: usize| (0..n).collect::<Vec<_>>();
        self.drawn(&all(self.figures.len()), &all(self.windows()))
    }

    fn windows(&self) -> usize {
        self.figures.first().map_or(0, Vec::len)
    }

    /// Standard error of the quality: that of the windows, by leaving out one after the other, and
    /// where there are several seeds that of the seeds, added in squares.
    fn error(&self) -> f64 {
        let seeds: Vec<[f64; N]> = self.figures.iter().map(|f| mean(f.iter())).collect();
        let windows = self.windows() as f64;
        let whole = mean(seeds.iter());
        let without = |w: usize| {
            let left_out = mean(self.figures.iter().map(|f| &f[w]));
            let rest = |n: usize| (whole[n] * windows - left_out[n]) / (windows - 1.0);
            (self.quality)(&std::array::from_fn(rest))
        };
        let text = match self.windows() {
            0 | 1 => 0.0,
            n => (windows - 1.0).powi(2) * variance_of_mean((0..n).map(without)),
        };
        let between = variance_of_mean(seeds.iter().map(self.quality));
        (text + between).sqrt()
    }

    /// The quality over these seeds and windows.
    fn drawn(&self, seeds: &[usize], windows: &[usize]) -> Point {
        let of_seed = |&seed: &usize| {
            let figures = &self.figures[seed];
            mean(windows.iter().map(|&w| &figures[w]))
        };
        let of_seeds: Vec<[f64; N]> = seeds.iter().map(of_seed).collect();
        Point {
            cost: self.cost,
            quality: (self.quality)(&mean(of_seeds.iter())),
        }
    }
}

fn mean<'a, const N: usize>(figures: impl ExactSizeIterator<Item = &'a [f64; N]>) -> [f64; N] {
    let count = figures.len() as f64;
    let add = |sum: [f64; N], f: &[f64; N]| std::array::from_fn(|n| sum[n] + f[n]);
    figures.fold([0.0; N], add).map(|sum| sum / count)
}

/// The variance of the mean of independent values, 0 where one alone can't tell.
fn variance_of_mean(values: impl Iterator<Item = f64>) -> f64 {
    let values: Vec<f64> = values.collect();
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let square: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    if n > 1.0 { square / (n - 1.0) / n } else { 0.0 }
}

/// What a point says against a reference curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// The reference reaches the same quality at `1 / (1 - saving)` of the cost. Negative: the
    /// reference is cheaper.
    EqualQuality {
        /// `1 - cost / reference cost`.
        saving: f64,
        /// Ends of the 95 % interval; `None` where more than 2.5 % of the draws lie beyond what the
        /// reference covers, so that the interval is open at that end.
        interval: [Option<f64>; 2],
    },
    /// The qualities don't overlap, the costs do: quality minus the reference's at this cost.
    EqualCost {
        /// The difference.
        difference: f64,
        /// Ends of the 95 % interval.
        interval: [f64; 2],
    },
    /// The reference reaches more for less: some point of it is cheaper and better in at least
    /// 95 % of the draws.
    Dominated,
    /// Nothing of the kind: the point lies outside the reference's qualities and costs, or so near
    /// to their ends that its error decides.
    Apart,
}

/// Draws of the bootstrap.
const DRAWS: usize = 2000;
/// Share of the draws in which a statement without an interval must hold.
const SURE: f64 = 0.95;

/// Compares `ours` with the curve through `reference`.
///
/// The curve is the best quality that models of the reference reached at up to a cost, linear in
/// the logarithm of the cost between points, without those that other models pass. Each model's
/// points are first made to rise by an isotonic fit weighted by their errors: a running maximum over
/// noisy points would be biased upwards. The maximum over models that is left, and over lines between
/// two of them, favours the reference a little where several are equally good.
///
/// Intervals come from 2,000 draws (seed 0) of windows, the same for all points, and of each
/// model's seeds, with replacement. A draw whose quality lies beyond the reference's counts at the
/// end where it lies, so that an interval can be open there; where it is open at both ends nothing
/// is stated. Where a model has one seed, how much another would change is not in the interval.
///
/// # Panics
/// Where points were measured on different numbers of windows.
pub fn compare<const N: usize>(ours: &Measured<N>, reference: &[Measured<N>]) -> Finding {
    let mut random = RandomStream::new(0);
    let count = ours.windows();
    let mut with_replacement =
        |n: usize| -> Vec<usize> { (0..n).map(|_| random.below(n)).collect() };
    let reference = Reference::new(reference);
    let (mut savings, mut differences, mut dominated) = (Vec::new(), Vec::new(), 0);
    for _ in 0..DRAWS {
        let windows = with_replacement(count);
        let mut seeds: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        let mut draw = |measured: &Measured<N>| {
            let drawn = seeds
                .entry(measured.model)
                .or_insert_with(|| with_replacement(measured.figures.len()));
            measured.drawn(drawn, &windows)
        };
        let point = draw(ours);
        let curve = reference.curve(&mut draw);
        let better = |p: &Point| p.cost <= point.cost && p.quality >= point.quality;
        dominated += usize::from(curve.iter().any(better));
        savings.extend(saving(&curve, &point));
        differences.extend(quality_at(&curve, point.cost).map(|q| point.quality - q));
    }
    let ours = ours.point();
    let curve = reference.curve(Measured::point);
    if let Some(saving) = saving(&curve, &ours).filter(|saving| saving.is_finite()) {
        let interval = middle(savings).map(|end| Some(end).filter(|end| end.is_finite()));
        if interval != [None; 2] {
            return Finding::EqualQuality { saving, interval };
        }
    }
    if let Some(quality) = quality_at(&curve, ours.cost) {
        return Finding::EqualCost {
            difference: ours.quality - quality,
            interval: middle(differences),
        };
    }
    if dominated as f64 >= SURE * DRAWS as f64 {
        return Finding::Dominated;
    }
    Finding::Apart
}

/// The models that are compared with, each with its points by cost and their weights.
struct Reference<'a, const N: usize>(Vec<Vec<(&'a Measured<N>, f64)>>);

impl<'a, const N: usize> Reference<'a, N> {
    fn new(measured: &'a [Measured<N>]) -> Self {
        let mut models: BTreeMap<usize, Vec<(&Measured<N>, f64)>> = BTreeMap::new();
        for point in measured
            .iter()
            .filter(|m| m.cost > 0.0 && m.cost.is_finite())
        {
            // Points without any spread weigh alike.
            let weight = 1.0 / (point.error().powi(2) + 1e-12);
            models.entry(point.model).or_default().push((point, weight));
        }
        let mut models: Vec<_> = models.into_values().collect();
        for model in &mut models {
            model.sort_by(|a, b| a.0.cost.total_cmp(&b.0.cost));
        }
        Self(models)
    }

    /// The frontier of the models' rising curves, with the quality that `quality` gives each point.
    fn curve(&self, mut quality: impl FnMut(&Measured<N>) -> Point) -> Vec<Point> {
        let mut models = Vec::new();
        for model in &self.0 {
            let points: Vec<Point> = model
                .iter()
                .map(|(measured, _)| quality(measured))
                .collect();
            let weighted: Vec<(f64, f64)> = points
                .iter()
                .zip(model)
                .map(|(point, (_, weight))| (point.quality, *weight))
                .collect();
            let rising = isotonic(&weighted).into_iter().zip(points);
            models.push(
                rising
                    .map(|(quality, point)| Point { quality, ..point })
                    .collect(),
            );
        }
        frontier(&models)
    }
}

/// The 2.5 % and 97.5 % quantiles.
fn middle(mut draws: Vec<f64>) -> [f64; 2] {
    draws.sort_by(f64::total_cmp);
    let at = |share: f64| draws[((draws.len() - 1) as f64 * share).round() as usize];
    [at(0.025), at(0.975)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without spread: the same on both of two windows.
    fn sure(model: usize, cost: f64, quality: f64) -> Measured<1> {
        Measured {
            model,
            cost,
            figures: single(vec![vec![quality; 2]]),
            quality: |[quality]| *quality,
        }
    }

    /// Of every seed and window.
    fn single(quality: Vec<Vec<f64>>) -> Vec<Vec<[f64; 1]>> {
        let of_seed = |seed: Vec<f64>| seed.into_iter().map(|q| [q]).collect();
        quality.into_iter().map(of_seed).collect()
    }

    fn reference() -> Vec<Measured<1>> {
        vec![sure(1, 1e3, 0.1), sure(1, 1e5, 0.3)]
    }

    #[test]
    fn a_point_that_is_dearer_and_worse_is_called_that() {
        let found = compare(&sure(0, 1e6, 0.05), &reference());
        assert_eq!(found, Finding::Dominated);
        // Within the costs the difference is stated instead.
        let found = compare(&sure(0, 1e4, 0.05), &reference());
        assert!(matches!(found, Finding::EqualCost { .. }));
    }

    #[test]
    fn savings_are_interpolated_in_the_logarithm_of_cost() {
        // Half way in quality is half way in the logarithm: 1e4.
        let found = compare(&sure(0, 5e3, 0.2), &reference());
        let Finding::EqualQuality { saving, interval } = found else {
            panic!("within the reference's qualities");
        };
        let [low, high] = interval.map(Option::unwrap);
        approx::assert_relative_eq!(saving, 0.5, max_relative = 1e-9);
        approx::assert_relative_eq!(low, high, max_relative = 1e-9);
        let Finding::EqualQuality { saving, .. } = compare(&sure(0, 4e4, 0.2), &reference()) else {
            panic!("within the reference's qualities");
        };
        approx::assert_relative_eq!(saving, -3.0, max_relative = 1e-9);
    }

    #[test]
    fn nothing_is_extrapolated() {
        assert!(matches!(
            compare(&sure(0, 1e4, 0.4), &reference()),
            Finding::EqualCost { difference, .. } if (difference - 0.2).abs() < 1e-9
        ));
        assert_eq!(compare(&sure(0, 1e2, 0.05), &reference()), Finding::Apart);
        assert_eq!(compare(&sure(0, 1e6, 0.35), &reference()), Finding::Apart);
        assert_eq!(compare(&sure(0, 1e4, 0.2), &[]), Finding::Apart);
        // So shaky that it lies beyond both ends in a quarter of the draws: not stated.
        let shaky = Measured {
            figures: single(vec![vec![0.0, 0.4]]),
            ..sure(0, 1e2, 0.2)
        };
        assert_eq!(compare(&shaky, &reference()), Finding::Apart);
    }

    /// A quality just below the reference's best: in a share of the draws it lies above, where no
    /// cost is known. Left out, they would close the interval at a cost that was never measured.
    #[test]
    fn draws_beyond_the_reference_leave_the_interval_open_there() {
        // A mean of 0.29 with a standard error of 0.03.
        let windows = 40;
        let near_the_top = Measured {
            figures: single(vec![
                (0..windows)
                    .map(|w| if w % 2 == 0 { 0.1 } else { 0.48 })
                    .collect(),
            ]),
            ..sure(0, 1e4, 0.0)
        };
        let reference = [(1e3, 0.1), (1e5, 0.3)].map(|(cost, quality)| Measured {
            figures: single(vec![vec![quality; windows]]),
            ..sure(1, cost, 0.0)
        });
        let Finding::EqualQuality { saving, interval } = compare(&near_the_top, &reference) else {
            panic!("its mean is within the reference's qualities");
        };
        let cost = 10f64.powf(3.0 + 2.0 * (0.29 - 0.1) / 0.2);
        approx::assert_relative_eq!(saving, 1.0 - 1e4 / cost, max_relative = 1e-9);
        assert!(
            matches!(interval, [Some(low), None] if low < saving),
            "{interval:?}"
        );
    }

    /// A learning curve that rises by half an error a point, measured 400 times (seed 1): the mean
    /// of its interpolation in the middle is the truth within 0.25 errors, 4 standard errors of this
    /// simulation and more. A running maximum lies above by more than that.
    #[test]
    fn noise_on_one_learning_curve_does_not_lift_it() {
        let (error, windows, points) = (0.01, 16, 12);
        let mut random = RandomStream::new(1);
        let truth = |i: usize| 0.1 + 0.5 * error * i as f64;
        let (mut ours, mut running) = (0.0, 0.0);
        let repetitions = 400;
        for _ in 0..repetitions {
            let curve: Vec<Measured<1>> = (0..points)
                .map(|i| {
                    // The mean of 16 uniform numbers has the error of one over 4.
                    let spread = error * 4.0 * 12f64.sqrt();
                    let mut window = |_| truth(i) + spread * (random.unit() - 0.5);
                    Measured {
                        figures: single(vec![(0..windows).map(&mut window).collect()]),
                        ..sure(1, 2f64.powi(i as i32), 0.0)
                    }
                })
                .collect();
            let middle = 2f64.powf(6.0);
            let of = |curve: &[Point]| quality_at(curve, middle).unwrap() - truth(6);
            ours += of(&Reference::new(&curve).curve(Measured::point));
            let raw = |m: &Measured<1>| vec![m.point()];
            running += of(&frontier(&curve.iter().map(raw).collect::<Vec<_>>()));
        }
        let (ours, running) = (
            ours / f64::from(repetitions),
            running / f64::from(repetitions),
        );
        assert!(ours.abs() < 0.25 * error, "{ours}");
        assert!(running > 0.4 * error, "{running}");
    }

    /// Windows that are easy or hard for all models alike move all of them together: the interval
    /// of the saving is that of what differs, not of the text.
    #[test]
    fn what_the_text_does_to_all_drops_out() {
        let mut random = RandomStream::new(4);
        let text: Vec<f64> = (0..40).map(|_| random.unit()).collect();
        let on_text = |model, cost, quality: f64| Measured {
            figures: single(vec![text.iter().map(|t| quality + t).collect()]),
            ..sure(model, cost, 0.0)
        };
        let reference = [on_text(1, 1e3, 0.1), on_text(1, 1e5, 0.3)];
        let Finding::EqualQuality { saving, interval } = compare(&on_text(0, 5e3, 0.2), &reference)
        else {
            panic!("within the reference's qualities in every draw");
        };
        let [low, high] = interval.map(Option::unwrap);
        approx::assert_relative_eq!(saving, 0.5, max_relative = 1e-9);
        assert!(high - low < 1e-9, "{interval:?}");
    }

    /// A slope of 0.1 per decade, and a quality whose standard error is 0.01: 1.96 standard errors
    /// are 0.196 decades of cost.
    #[test]
    fn the_interval_is_that_of_the_errors() {
        let windows = 100;
        let reference = [(1e2, 0.0), (1e8, 0.6)].map(|(cost, quality)| Measured {
            figures: single(vec![vec![quality; windows]]),
            ..sure(1, cost, 0.0)
        });
        // Half of the windows 0.1 above the mean, half below: a deviation of 0.1 / sqrt(100).
        let ours = Measured {
            figures: single(vec![
                (0..windows)
                    .map(|w| if w % 2 == 0 { 0.2 } else { 0.4 })
                    .collect(),
            ]),
            ..sure(0, 1e5, 0.0)
        };
        let Finding::EqualQuality { saving, interval } = compare(&ours, &reference) else {
            panic!("within the reference's qualities");
        };
        approx::assert_abs_diff_eq!(saving, 0.0, epsilon = 1e-9);
        let expected = |z: f64| 1.0 - 10f64.powf(-0.1 * z);
        let [low, high] = interval.map(Option::unwrap);
        approx::assert_abs_diff_eq!(low, expected(-1.96), epsilon = 0.06);
        approx::assert_abs_diff_eq!(high, expected(1.96), epsilon = 0.04);
    }

    /// Seeds that differ widen the interval; one seed alone can't.
    #[test]
    fn the_seeds_are_drawn_too() {
        let of = |quality: Vec<Vec<f64>>| {
            let ours = Measured {
                figures: single(quality),
                ..sure(0, 1e4, 0.0)
            };
            match compare(&ours, &reference()) {
                Finding::EqualQuality {
                    interval: [Some(low), Some(high)],
                    ..
                } => high - low,
                other => panic!("{other:?}"),
            }
        };
        assert!(of(vec![vec![0.2; 2]]) < 1e-9);
        assert!(of(vec![vec![0.18; 2], vec![0.22; 2], vec![0.2; 2]]) > 0.1);
    }

    /// A geometric mean of two figures: its saving is read at the root of their means' product, and
    /// its error is that of the delta method.
    #[test]
    fn a_quality_may_be_made_of_several_figures() {
        let root = |cost, [a, b]: [f64; 2], spread: f64| Measured::<2> {
            model: usize::from(spread == 0.0),
            cost,
            figures: vec![
                (0..100)
                    .map(|w| if w % 2 == 0 { spread } else { -spread })
                    .map(|off| [a + off, b + off])
                    .collect(),
            ],
            quality: |[a, b]| (a * b).sqrt(),
        };
        let ours = root(5e3, [0.1, 0.4], 0.05);
        approx::assert_relative_eq!(ours.point().quality, 0.2, max_relative = 1e-12);
        // d sqrt(a b) = (b + a) / (2 sqrt(a b)) of the same step in both.
        let step = 0.05 / 99f64.sqrt();
        approx::assert_relative_eq!(ours.error(), 1.25 * step, max_relative = 1e-3);
        let reference = [root(1e3, [0.05, 0.2], 0.0), root(1e5, [0.3, 0.3], 0.0)];
        let Finding::EqualQuality { saving, .. } = compare(&ours, &reference) else {
            panic!("within the reference's qualities");
        };
        approx::assert_relative_eq!(saving, 0.5, max_relative = 1e-9);
    }
}
