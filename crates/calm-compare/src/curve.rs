//! The curve of best qualities over the logarithm of the cost, and what is read off it.

use serde::{Deserialize, Serialize};

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
pub fn saving(frontier: &[Point], point: &Point) -> Option<f64> {
    let highest = frontier.last()?.quality;
    Some(match cost_at(frontier, point.quality) {
        Some(cost) => 1.0 - point.cost / cost,
        None if point.quality > highest => f64::INFINITY,
        None => f64::NEG_INFINITY,
    })
}

/// Cost at which a frontier reaches `quality`; `None` outside of its qualities.
pub fn cost_at(frontier: &[Point], quality: f64) -> Option<f64> {
    between(frontier, quality, |p| p.quality, |p| p.cost.ln()).map(f64::exp)
}

/// Quality of a frontier at `cost`; `None` outside of its costs.
pub fn quality_at(frontier: &[Point], cost: f64) -> Option<f64> {
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

#[cfg(test)]
mod tests {
    use calm_nn::RandomStream;

    use super::*;

    fn point(cost: f64, quality: f64) -> Point {
        Point { cost, quality }
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
}
