//! The mixture's scores against enumeration.

use calm_likelihood_free::{Start, brier_at, log_score, mixture_brier};
use calm_nn::RandomStream;

use crate::draw;

const V: usize = 3;
const K: usize = 2;

/// Four components of equal weight; of each the distributions of both tokens.
const COMPONENTS: [[[f64; V]; K]; 4] = [
    [[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]],
    [[0.1, 0.1, 0.8], [0.5, 0.25, 0.25]],
    [[0.3, 0.3, 0.4], [0.2, 0.2, 0.6]],
    [[0.9, 0.05, 0.05], [0.05, 0.05, 0.9]],
];

/// Probability of a prefix under the mixture.
fn mixture(prefix: &[usize]) -> f64 {
    let of = |c: &[[f64; V]; K]| -> f64 { prefix.iter().zip(c).map(|(&x, p)| p[x]).product() };
    COMPONENTS.iter().map(of).sum::<f64>() / 4.0
}

fn overlap(a: &[f64; V], b: &[f64; V]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The components of `n` draws.
fn drawn(n: usize, random: &mut RandomStream) -> Vec<&'static [[f64; V]; K]> {
    (0..n).map(|_| &COMPONENTS[random.below(4)]).collect()
}

fn estimate(draws: &[&[[f64; V]; K]], truth: [usize; K]) -> Vec<f64> {
    let hits: Vec<Vec<f64>> = draws
        .iter()
        .map(|c| (0..K).map(|k| c[k][truth[k]]).collect())
        .collect();
    let overlaps: Vec<Vec<f64>> = (0..K)
        .map(|k| {
            let row = |a: &&[[f64; V]; K]| {
                draws
                    .iter()
                    .map(|b| overlap(&a[k], &b[k]))
                    .collect::<Vec<_>>()
            };
            draws.iter().flat_map(row).collect()
        })
        .collect();
    mixture_brier(&hits, &overlaps)
}

/// Mean and its standard error.
fn mean(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean, (variance / n).sqrt())
}

/// Within five standard errors of the exact Brier scores, and with less variance than counting draws
/// that are equal. A false alarm has a probability below 1e-5; seeds are fixed.
#[test]
fn brier_scores_are_unbiased_and_less_scattered_than_counts() {
    let truth = [2, 1];
    let mut random = RandomStream::new(3);
    let (mut found, mut counted) = (vec![Vec::new(); K], vec![Vec::new(); K]);
    for _ in 0..20_000 {
        let draws = drawn(5, &mut random);
        for (all, value) in found.iter_mut().zip(estimate(&draws, truth)) {
            all.push(value);
        }
        let tokens = |c: &&[[f64; V]; K]| c.iter().map(|p| draw(p, &mut random) as u32).collect();
        let start = Start {
            target: [2, 1, 9, 9],
            draws: draws.iter().map(tokens).collect(),
        };
        for (all, value) in counted.iter_mut().zip(brier_at(&start)) {
            all.push(value);
        }
    }
    for j in 1..=K {
        let collisions: f64 = match j {
            1 => (0..V).map(|a| mixture(&[a]).powi(2)).sum(),
            _ => (0..V * V).map(|x| mixture(&[x / V, x % V]).powi(2)).sum(),
        };
        let exact = 2.0 * mixture(&truth[..j]) - collisions;
        let (value, error) = mean(&found[j - 1]);
        assert!(
            (value - exact).abs() < 5.0 * error,
            "Brier-{j}: {value} of {exact}"
        );
        let (count, count_error) = mean(&counted[j - 1]);
        assert!(
            (count - exact).abs() < 5.0 * count_error,
            "Brier-{j}: {count} of {exact}"
        );
        assert!(
            error < 0.8 * count_error,
            "Brier-{j}: {error}, counted {count_error}"
        );
    }
}

#[test]
fn the_bound_falls_to_the_negative_log_likelihood() {
    let truth = [2, 1];
    let exact = -mixture(&truth).ln();
    let mut random = RandomStream::new(4);
    let mut before = f64::INFINITY;
    for (group, gap) in [(1, 0.8), (4, 0.2), (64, 1e-2)] {
        let values: Vec<f64> = (0..4_000)
            .map(|_| {
                let draws = drawn(64, &mut random);
                let logs = |c: &&[[f64; V]; K]| (0..K).map(|k| c[k][truth[k]].ln()).sum();
                log_score(&draws.iter().map(logs).collect::<Vec<f64>>(), group)
            })
            .collect();
        let (bound, error) = mean(&values);
        assert!(
            bound > exact - 5.0 * error,
            "{group}: {bound} below {exact}"
        );
        assert!(
            bound < before - 5.0 * error,
            "{group}: {bound} after {before}"
        );
        assert!(bound - exact < gap, "{group}: {bound} above {exact}");
        before = bound;
    }
}

/// The log score in expectation over texts is least for the mixture that makes them: it is proper.
#[test]
fn no_other_mixture_scores_better_on_its_own_texts() {
    let pairs: Vec<[usize; 2]> = (0..V * V).map(|x| [x / V, x % V]).collect();
    let log = |weights: [f64; 4]| -> f64 {
        let of = |x: &[usize; 2]| -> f64 {
            let p = |(c, w): (&[[f64; V]; K], f64)| w * c[0][x[0]] * c[1][x[1]];
            COMPONENTS.iter().zip(weights).map(p).sum()
        };
        pairs.iter().map(|x| -mixture(x) * of(x).ln()).sum()
    };
    let own = log([0.25; 4]);
    for other in [
        [0.4, 0.2, 0.2, 0.2],
        [0.25, 0.25, 0.4, 0.1],
        [1.0, 0.0, 0.0, 0.0],
    ] {
        assert!(log(other) > own + 1e-3);
    }
    // By exhaustive groups, log_score is the same number.
    let weighted: f64 = pairs
        .iter()
        .map(|x| {
            let logs: Vec<f64> = COMPONENTS
                .iter()
                .map(|c| (c[0][x[0]] * c[1][x[1]]).ln())
                .collect();
            mixture(x) * log_score(&logs, 4)
        })
        .sum();
    approx::assert_abs_diff_eq!(weighted, own, epsilon = 1e-12);
}

#[test]
fn what_no_draw_allows_is_infinitely_unlikely() {
    assert_eq!(log_score(&[f64::NEG_INFINITY; 4], 2), f64::INFINITY);
    let value = log_score(&[f64::NEG_INFINITY, 0.0], 2);
    approx::assert_abs_diff_eq!(value, 2f64.ln(), epsilon = 1e-12);
    // Far below what exp can hold.
    approx::assert_abs_diff_eq!(log_score(&[-5000.0; 8], 8), 5000.0, epsilon = 1e-9);
}
