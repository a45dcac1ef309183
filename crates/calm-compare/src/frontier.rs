//! Savings at equal quality, by interpolation, or quality at equal cost where that is all the
//! figures allow. Never extrapolated.

use std::collections::BTreeMap;

use calm_nn::RandomStream;
use serde::{Deserialize, Serialize};

use crate::isotonic::isotonic;

/// A quality at a cost.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// FLOPs, or whatever is paid.
    pub cost: f64,
    /// Quality, higher is better.
    pub quality: f64,
}

impl Point {
    /// Whether it can stand on a curve over the logarithm of the cost.
    fn sound(&self) -> bool {
        self.cost > 0.0 && self.cost.is_finite() && self.quality.is_finite()
    }
}

/// A model's quality at a cost as it was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// Points of one model share this number; their seeds are drawn together.
    pub model: usize,
    /// FLOPs, or whatever is paid.
    pub cost: f64,
    /// Quality of every seed on every window; the windows are those of all other models too.
    pub quality: Vec<Vec<f64>>,
}

impl Measured {
    /// The mean over seeds and windows.
    pub fn point(&self) -> Point {
        let windows = self.quality.first().map_or(0, Vec::len);
        self.drawn(
            &(0..self.quality.len()).collect::<Vec<_>>(),
            &(0..windows).collect::<Vec<_>>(),
        )
    }

    /// Standard error of the mean: that of the windows, and where there are several seeds that of
    /// the seeds, added in squares.
    fn error(&self) -> f64 {
        let variance = |values: &[f64]| {
            let n = values.len() as f64;
            let mean = values.iter().sum::<f64>() / n;
            let square: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
            if n > 1.0 { square / (n - 1.0) / n } else { 0.0 }
        };
        let (seeds, windows) = (self.quality.len(), self.quality.first().map_or(0, Vec::len));
        let of_window = |w: usize| self.quality.iter().map(|q| q[w]).sum::<f64>() / seeds as f64;
        let of_seed = |q: &Vec<f64>| q.iter().sum::<f64>() / windows as f64;
        let text = variance(&(0..windows).map(of_window).collect::<Vec<_>>());
        let between = variance(&self.quality.iter().map(of_seed).collect::<Vec<_>>());
        (text + between).sqrt()
    }

    /// The mean over these seeds and windows.
    fn drawn(&self, seeds: &[usize], windows: &[usize]) -> Point {
        let of_seed = |&seed: &usize| -> f64 {
            let quality = &self.quality[seed];
            windows.iter().map(|&w| quality[w]).sum::<f64>() / windows.len() as f64
        };
        Point {
            cost: self.cost,
            quality: seeds.iter().map(of_seed).sum::<f64>() / seeds.len() as f64,
        }
    }
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
/// the logarithm of the cost between points, without those that another model passes. Each model's points are first made to rise by an
/// isotonic fit weighted by their errors: a running maximum over noisy points would be biased
/// upwards. The maximum over models that is left favours the reference a little where two of them
/// are equally good.
///
/// Intervals come from 2,000 draws (seed 0) of windows, the same for all points, and of each
/// model's seeds, with replacement. A draw whose quality lies beyond the reference's counts at the
/// end where it lies, so that an interval can be open there; where it is open at both ends nothing
/// is stated. Where a model has one seed, how much another would change is not in the interval.
///
/// # Panics
/// Where points were measured on different numbers of windows.
pub fn compare(ours: &Measured, reference: &[Measured]) -> Finding {
    let mut random = RandomStream::new(0);
    let count = ours.quality.first().map_or(0, Vec::len);
    let mut with_replacement =
        |n: usize| -> Vec<usize> { (0..n).map(|_| random.below(n)).collect() };
    let reference = Reference::new(reference);
    let (mut savings, mut differences, mut dominated) = (Vec::new(), Vec::new(), 0);
    for _ in 0..DRAWS {
        let windows = with_replacement(count);
        let mut seeds: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        let mut draw = |measured: &Measured| {
            let drawn = seeds
                .entry(measured.model)
                .or_insert_with(|| with_replacement(measured.quality.len()));
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
struct Reference<'a>(Vec<Vec<(&'a Measured, f64)>>);

impl<'a> Reference<'a> {
    fn new(measured: &'a [Measured]) -> Self {
        let mut models: BTreeMap<usize, Vec<(&Measured, f64)>> = BTreeMap::new();
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
    fn curve(&self, mut quality: impl FnMut(&Measured) -> Point) -> Vec<Point> {
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

/// The points of all models that no other model passes, by itself or on the straight line between two
/// sizes or lengths of training, and the best quality again at the highest cost: more work than for
/// the best point does not make it worse.
///
/// A point that is passed would hold the curve down on the way to the next better one, and a
/// reference must not lose by a worse model beside it. Lines between points of one model don't
/// count against its own points: what bends its learning curve may be noise.
pub fn frontier(models: &[Vec<Point>]) -> Vec<Point> {
    let mut points = Vec::new();
    for (own, model) in models.iter().enumerate() {
        let others = models.iter().enumerate().filter(|(i, _)| *i != own);
        let others = hull(others.flat_map(|(_, points)| points).copied().collect());
        let kept = model.iter().filter(|point| {
            let best = match others.last() {
                Some(last) if last.cost < point.cost => Some(last.quality),
                _ => quality_at(&others, point.cost),
            };
            best.is_none_or(|best| point.quality >= best)
        });
        points.extend(kept.copied());
    }
    let highest = models
        .iter()
        .flatten()
        .filter(|p| p.sound())
        .map(|p| p.cost);
    let highest = highest.fold(0.0, f64::max);
    let mut points = rising(points);
    if let Some(&best) = points.last()
        && highest > best.cost
    {
        points.push(Point {
            cost: highest,
            ..best
        });
    }
    points
}

/// The points by cost that are no worse than a cheaper one. Equals stay: of one model they are a
/// stretch on which it did not get better.
fn rising(mut points: Vec<Point>) -> Vec<Point> {
    points.retain(Point::sound);
    points.sort_by(|a, b| {
        a.cost
            .total_cmp(&b.cost)
            .then(b.quality.total_cmp(&a.quality))
    });
    let mut best = f64::NEG_INFINITY;
    points.retain(|point| {
        let better = point.quality >= best;
        best = best.max(point.quality);
        better
    });
    points.dedup_by_key(|point| point.cost);
    points
}

/// The corners of the lowest curve above all points that rises less and less with the logarithm of
/// the cost.
fn hull(points: Vec<Point>) -> Vec<Point> {
    let mut corners: Vec<Point> = Vec::new();
    for point in rising(points) {
        while let [.., a, b] = corners[..] {
            let slope = |from: Point, to: Point| {
                (to.quality - from.quality) / (to.cost.ln() - from.cost.ln())
            };
            if slope(a, b) > slope(b, point) {
                break;
            }
            corners.pop();
        }
        corners.push(point);
    }
    corners
}

/// What a point saves to reach its quality, `1 - cost / cost on the frontier`; infinite where its
/// quality lies above (saves) or below (wastes) all of the frontier's, `None` without a frontier.
fn saving(frontier: &[Point], point: &Point) -> Option<f64> {
    let highest = frontier.last()?.quality;
    Some(match cost_at(frontier, point.quality) {
        Some(cost) => 1.0 - point.cost / cost,
        None if point.quality > highest => f64::INFINITY,
        None => f64::NEG_INFINITY,
    })
}

/// Cost at which a frontier reaches `quality`; `None` outside of its qualities.
fn cost_at(frontier: &[Point], quality: f64) -> Option<f64> {
    between(frontier, quality, |p| p.quality, |p| p.cost.ln()).map(f64::exp)
}

/// Quality of a frontier at `cost`; `None` outside of its costs.
fn quality_at(frontier: &[Point], cost: f64) -> Option<f64> {
    between(frontier, cost.ln(), |p| p.cost.ln(), |p| p.quality)
}

fn between(
    points: &[Point],
    x: f64,
    abscissa: impl Fn(&Point) -> f64,
    ordinate: impl Fn(&Point) -> f64,
) -> Option<f64> {
    if let [only] = points {
        return (abscissa(only) == x).then(|| ordinate(only));
    }
    points.windows(2).find_map(|pair| {
        let (x0, x1) = (abscissa(&pair[0]), abscissa(&pair[1]));
        (x0 <= x && x <= x1).then(|| {
            let share = if x1 > x0 { (x - x0) / (x1 - x0) } else { 0.0 };
            ordinate(&pair[0]) + share * (ordinate(&pair[1]) - ordinate(&pair[0]))
        })
    })
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

    fn point(cost: f64, quality: f64) -> Point {
        Point { cost, quality }
    }

    /// Without spread: the same on both of two windows.
    fn sure(model: usize, cost: f64, quality: f64) -> Measured {
        Measured {
            model,
            cost,
            quality: vec![vec![quality; 2]],
        }
    }

    fn reference() -> Vec<Measured> {
        vec![sure(1, 1e3, 0.1), sure(1, 1e5, 0.3)]
    }

    #[test]
    fn the_frontier_is_what_no_other_model_passes() {
        let alone = |points: &[(f64, f64)]| -> Vec<Vec<Point>> {
            points.iter().map(|&(c, q)| vec![point(c, q)]).collect()
        };
        // (3, 0.15) lies below a cheaper one, (4, 0.21) below the line from (2, 0.2) to (8, 0.3).
        let points = [
            (8.0, 0.3),
            (1.0, 0.1),
            (2.0, 0.2),
            (3.0, 0.15),
            (4.0, 0.21),
            (2.0, 0.05),
        ];
        let expected = [(1.0, 0.1), (2.0, 0.2), (8.0, 0.3)];
        assert_eq!(
            frontier(&alone(&points)),
            expected.map(|(c, q)| point(c, q))
        );
        let falling = frontier(&alone(&[(1.0, 0.1), (3.0, 0.3), (5.0, 0.2)]));
        assert_eq!(falling.last(), Some(&point(5.0, 0.3)));
        assert_eq!(quality_at(&falling, 4.0), Some(0.3));
        approx::assert_relative_eq!(cost_at(&falling, 0.3).unwrap(), 3.0, max_relative = 1e-12);
        // One model's learning curve may bend; nothing of it is passed by itself.
        let bent = [(1.0, 0.1), (2.0, 0.11), (4.0, 0.3)].map(|(c, q)| point(c, q));
        assert_eq!(frontier(&[bent.to_vec()]), bent);
        assert_eq!(frontier(&[]), []);
    }

    /// A token model more never makes the reference worse, at any cost.
    #[test]
    fn another_model_does_not_lower_the_frontier() {
        let mut random = RandomStream::new(3);
        for _ in 0..200 {
            let mut models: Vec<Vec<Point>> = Vec::new();
            let mut before: Vec<Point> = Vec::new();
            for _ in 0..6 {
                models.push(vec![point(1.0 + 9.0 * random.unit(), random.unit())]);
                let now = frontier(&models);
                for i in 0..=20 {
                    let cost = 1.0 + 0.45 * f64::from(i);
                    if let Some(was) = quality_at(&before, cost) {
                        let is = quality_at(&now, cost).expect("it covers no less");
                        assert!(is >= was - 1e-12, "{is} after {was}");
                    }
                }
                before = now;
            }
        }
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
            quality: vec![vec![0.0, 0.4]],
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
            quality: vec![
                (0..windows)
                    .map(|w| if w % 2 == 0 { 0.1 } else { 0.48 })
                    .collect(),
            ],
            ..sure(0, 1e4, 0.0)
        };
        let reference = [(1e3, 0.1), (1e5, 0.3)].map(|(cost, quality)| Measured {
            quality: vec![vec![quality; windows]],
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
            let curve: Vec<Measured> = (0..points)
                .map(|i| {
                    // The mean of 16 uniform numbers has the error of one over 4.
                    let spread = error * 4.0 * 12f64.sqrt();
                    let mut window = |_| truth(i) + spread * (random.unit() - 0.5);
                    Measured {
                        model: 1,
                        cost: 2f64.powi(i as i32),
                        quality: vec![(0..windows).map(&mut window).collect()],
                    }
                })
                .collect();
            let middle = 2f64.powf(6.0);
            let of = |curve: &[Point]| quality_at(curve, middle).unwrap() - truth(6);
            ours += of(&Reference::new(&curve).curve(Measured::point));
            let raw = |m: &Measured| vec![m.point()];
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
            quality: vec![text.iter().map(|t| quality + t).collect()],
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
            quality: vec![vec![quality; windows]],
            ..sure(1, cost, 0.0)
        });
        // Half of the windows 0.1 above the mean, half below: a deviation of 0.1 / sqrt(100).
        let ours = Measured {
            quality: vec![
                (0..windows)
                    .map(|w| if w % 2 == 0 { 0.2 } else { 0.4 })
                    .collect(),
            ],
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
                quality,
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
}
