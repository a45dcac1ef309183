//! Savings at equal quality, by interpolation, or quality at equal cost where that is all the
//! figures allow. Never extrapolated.

use std::collections::BTreeMap;

use calm_nn::RandomStream;
use serde::{Deserialize, Serialize};

/// A quality at a cost.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// FLOPs, or whatever is paid.
    pub cost: f64,
    /// Quality, higher is better.
    pub quality: f64,
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
        /// Ends of the 95 % interval.
        interval: [f64; 2],
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
/// Share of the draws in which an interpolation must be possible for it to be stated.
const INSIDE: f64 = 0.95;

/// Compares `ours` with the curve through `reference`.
///
/// The curve is the best quality that the reference reached at up to a cost, linear in the
/// logarithm of the cost between points: the frontier of its points. Intervals come from 2,000
/// draws (seed 0) of windows, the same for all points, and of each model's seeds, with
/// replacement; a statement is made only where 95 % of the draws allow it. Where a model has one
/// seed, how much another would change is not in the interval.
///
/// # Panics
/// Where points were measured on different numbers of windows.
pub fn compare(ours: &Measured, reference: &[Measured]) -> Finding {
    let mut random = RandomStream::new(0);
    let count = ours.quality.first().map_or(0, Vec::len);
    let mut with_replacement =
        |n: usize| -> Vec<usize> { (0..n).map(|_| random.below(n)).collect() };
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
        let curve = frontier(reference.iter().map(&mut draw).collect());
        let better = |p: &Point| p.cost <= point.cost && p.quality >= point.quality;
        dominated += usize::from(curve.iter().any(better));
        savings.extend(cost_at(&curve, point.quality).map(|cost| 1.0 - point.cost / cost));
        differences.extend(quality_at(&curve, point.cost).map(|q| point.quality - q));
    }
    let ours = ours.point();
    let curve = frontier(reference.iter().map(Measured::point).collect());
    let enough = |draws: &[f64]| draws.len() as f64 >= INSIDE * DRAWS as f64;
    if let Some(cost) = cost_at(&curve, ours.quality).filter(|_| enough(&savings)) {
        return Finding::EqualQuality {
            saving: 1.0 - ours.cost / cost,
            interval: middle(savings),
        };
    }
    if let Some(quality) = quality_at(&curve, ours.cost).filter(|_| enough(&differences)) {
        return Finding::EqualCost {
            difference: ours.quality - quality,
            interval: middle(differences),
        };
    }
    if dominated as f64 >= INSIDE * DRAWS as f64 {
        return Finding::Dominated;
    }
    Finding::Apart
}

/// The points, by cost, that no cheaper one equals in quality, and at the end the best quality at
/// the largest cost: more work than for the best point does not make it worse.
pub fn frontier(mut points: Vec<Point>) -> Vec<Point> {
    points.retain(|p| p.cost > 0.0 && p.cost.is_finite() && p.quality.is_finite());
    points.sort_by(|a, b| {
        a.cost
            .total_cmp(&b.cost)
            .then(b.quality.total_cmp(&a.quality))
    });
    let mut best: Vec<Point> = Vec::new();
    let largest = points.last().map_or(0.0, |p| p.cost);
    for point in points {
        if best.last().is_none_or(|last| point.quality > last.quality) {
            best.push(point);
        }
    }
    if let Some(&last) = best.last().filter(|last| last.cost < largest) {
        best.push(Point {
            cost: largest,
            ..last
        });
    }
    best
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
            let share = (x - x0) / (x1 - x0);
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
    fn the_frontier_is_what_no_cheaper_point_reaches() {
        let points = vec![
            point(4.0, 0.3),
            point(1.0, 0.1),
            point(2.0, 0.2),
            point(3.0, 0.15),
            point(2.0, 0.05),
        ];
        let costs: Vec<f64> = frontier(points).iter().map(|p| p.cost).collect();
        assert_eq!(costs, [1.0, 2.0, 4.0]);
        let falling = frontier(vec![point(1.0, 0.1), point(3.0, 0.3), point(5.0, 0.2)]);
        assert_eq!(falling.last(), Some(&point(5.0, 0.3)));
        assert_eq!(quality_at(&falling, 4.0), Some(0.3));
        approx::assert_relative_eq!(cost_at(&falling, 0.3).unwrap(), 3.0, max_relative = 1e-12);
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
        approx::assert_relative_eq!(saving, 0.5, max_relative = 1e-9);
        approx::assert_relative_eq!(interval[0], interval[1], max_relative = 1e-9);
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
        // On the border only part of the draws fall inside: not stated.
        let shaky = Measured {
            quality: vec![vec![0.0, 0.2]],
            ..sure(0, 1e2, 0.1)
        };
        assert_eq!(compare(&shaky, &reference()), Finding::Apart);
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
        approx::assert_relative_eq!(saving, 0.5, max_relative = 1e-9);
        assert!(interval[1] - interval[0] < 1e-9, "{interval:?}");
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
        approx::assert_abs_diff_eq!(interval[0], expected(-1.96), epsilon = 0.06);
        approx::assert_abs_diff_eq!(interval[1], expected(1.96), epsilon = 0.04);
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
                Finding::EqualQuality { interval, .. } => interval[1] - interval[0],
                other => panic!("{other:?}"),
            }
        };
        assert!(of(vec![vec![0.2; 2]]) < 1e-9);
        assert!(of(vec![vec![0.18; 2], vec![0.22; 2], vec![0.2; 2]]) > 0.1);
    }
}
