//! Savings at equal quality, by interpolation, or quality at equal cost where that is all the
//! figures allow. Never extrapolated.

use calm_nn::RandomStream;
use serde::{Deserialize, Serialize};

/// A model's quality at a cost.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// FLOPs, or whatever is paid.
    pub cost: f64,
    /// Quality, higher is better.
    pub quality: f64,
    /// Its standard error.
    pub error: f64,
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

/// Draws of the parametric bootstrap.
const DRAWS: usize = 2000;
/// Share of the draws in which an interpolation must be possible for it to be stated.
const INSIDE: f64 = 0.95;

/// Compares `ours` with the curve through `reference`.
///
/// The curve is the best quality that the reference reached at up to a cost, linear in the
/// logarithm of the cost between points: the frontier of its points. Intervals come from 2,000
/// draws of all qualities from normal distributions with their standard errors, seed 0; a
/// statement is made only where 95 % of the draws allow it.
pub fn compare(ours: Point, reference: &[Point]) -> Finding {
    let mut random = RandomStream::new(0);
    let mut shaken = |p: &Point| Point {
        quality: p.quality + p.error * normal(&mut random),
        ..*p
    };
    let (mut savings, mut differences, mut dominated) = (Vec::new(), Vec::new(), 0);
    for _ in 0..DRAWS {
        let point = shaken(&ours);
        let curve = frontier(reference.iter().map(&mut shaken).collect());
        let better = |p: &Point| p.cost <= point.cost && p.quality >= point.quality;
        dominated += usize::from(curve.iter().any(better));
        savings.extend(cost_at(&curve, point.quality).map(|cost| 1.0 - point.cost / cost));
        differences.extend(quality_at(&curve, point.cost).map(|q| point.quality - q));
    }
    let curve = frontier(reference.to_vec());
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

/// One draw from the standard normal distribution (Box and Muller).
fn normal(random: &mut RandomStream) -> f64 {
    let radius = (-2.0 * (1.0 - random.unit()).ln()).sqrt();
    radius * (std::f64::consts::TAU * random.unit()).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(cost: f64, quality: f64) -> Point {
        Point {
            cost,
            quality,
            error: 0.0,
        }
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
        let reference = [point(1e3, 0.1), point(1e5, 0.3)];
        assert_eq!(compare(point(1e6, 0.05), &reference), Finding::Dominated);
        // Within the costs the difference is stated instead.
        assert!(matches!(
            compare(point(1e4, 0.05), &reference),
            Finding::EqualCost { .. }
        ));
    }

    #[test]
    fn savings_are_interpolated_in_the_logarithm_of_cost() {
        let reference = [point(1e3, 0.1), point(1e5, 0.3)];
        // Half way in quality is half way in the logarithm: 1e4.
        let Finding::EqualQuality { saving, interval } = compare(point(5e3, 0.2), &reference)
        else {
            panic!("within the reference's qualities");
        };
        approx::assert_relative_eq!(saving, 0.5, max_relative = 1e-9);
        assert_eq!(interval, [saving; 2], "without error there is no interval");
        let Finding::EqualQuality { saving, .. } = compare(point(4e4, 0.2), &reference) else {
            panic!("within the reference's qualities");
        };
        approx::assert_relative_eq!(saving, -3.0, max_relative = 1e-9);
    }

    #[test]
    fn nothing_is_extrapolated() {
        let reference = [point(1e3, 0.1), point(1e5, 0.3)];
        assert!(matches!(
            compare(point(1e4, 0.05), &reference),
            Finding::EqualCost { difference, .. } if (difference + 0.15).abs() < 1e-9
        ));
        assert!(matches!(
            compare(point(1e4, 0.4), &reference),
            Finding::EqualCost { difference, .. } if (difference - 0.2).abs() < 1e-9
        ));
        assert_eq!(compare(point(1e2, 0.05), &reference), Finding::Apart);
        assert_eq!(compare(point(1e6, 0.35), &reference), Finding::Apart);
        assert_eq!(compare(point(1e4, 0.2), &[]), Finding::Apart);
        // On the border only part of the draws fall inside: not stated.
        let shaky = Point {
            error: 0.05,
            ..point(1e2, 0.1)
        };
        assert_eq!(compare(shaky, &reference), Finding::Apart);
    }

    /// A slope of 0.1 per decade: an error of 0.01 in quality is 0.1 decades of cost.
    #[test]
    fn the_interval_is_that_of_the_errors() {
        let reference = [point(1e2, 0.0), point(1e8, 0.6)];
        let ours = Point {
            error: 0.01,
            ..point(1e5, 0.3)
        };
        let Finding::EqualQuality { saving, interval } = compare(ours, &reference) else {
            panic!("within the reference's qualities");
        };
        approx::assert_abs_diff_eq!(saving, 0.0, epsilon = 1e-9);
        let expected = |z: f64| 1.0 - 10f64.powf(-0.1 * z);
        approx::assert_abs_diff_eq!(interval[0], expected(-1.96), epsilon = 0.06);
        approx::assert_abs_diff_eq!(interval[1], expected(1.96), epsilon = 0.04);
    }
}
