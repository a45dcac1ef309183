//! The mixture's scores against enumeration.

use burn::tensor::{Device, Tensor, TensorData};
use calm_likelihood_free::{Start, brier_at, brier_loss, log_score, log_score_loss, mixture_brier};
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

const POSITIONS: usize = 3;
const N: usize = 4;

/// Probabilities of draws at some positions, `[POSITIONS, N, K, V]`, from free scores.
fn distributions(scores: Tensor<4>) -> Tensor<4> {
    burn::tensor::activation::softmax(scores, 3)
}

fn scores(seed: u64) -> TensorData {
    let values = RandomStream::new(seed).normal(POSITIONS * N * K * V);
    TensorData::new(values, [POSITIONS, N, K, V])
}

/// What the losses take, the second token of the vocabulary being the true one everywhere.
fn hits_and_overlaps(p: Tensor<4>) -> (Tensor<3>, Tensor<4>) {
    let hits = p.clone().narrow(3, 1, 1).squeeze_dim(3);
    let by_token = p.swap_dims(1, 2);
    (hits, by_token.clone().matmul(by_token.transpose()))
}

fn losses(p: Tensor<4>) -> (Tensor<1>, Tensor<2>) {
    let (hits, overlaps) = hits_and_overlaps(p);
    let logs = hits.clone().log().sum_dim(2).squeeze_dim(2);
    (log_score_loss(logs), brier_loss(hits, overlaps))
}

fn host(tensor: Tensor<3>) -> Vec<f64> {
    tensor.into_data().iter::<f64>().collect()
}

#[test]
fn the_losses_are_the_scores_of_given_draws() {
    let device = Device::flex();
    let p = distributions(Tensor::from_data(scores(1), &device));
    let (log, brier) = losses(p.clone());
    let (hits, overlaps) = hits_and_overlaps(p);
    for at in 0..POSITIONS {
        let rows: Vec<Vec<f64>> = host(hits.clone().narrow(0, at, 1))
            .chunks_exact(K)
            .map(<[f64]>::to_vec)
            .collect();
        let pairs: Vec<Vec<f64>> = host(overlaps.clone().narrow(0, at, 1).squeeze_dim(0))
            .chunks_exact(N * N)
            .map(<[f64]>::to_vec)
            .collect();
        let logs: Vec<f64> = rows
            .iter()
            .map(|row| row.iter().map(|p| p.ln()).sum())
            .collect();
        let found = log.clone().narrow(0, at, 1).into_scalar::<f32>();
        approx::assert_relative_eq!(f64::from(found), log_score(&logs, N), max_relative = 1e-5);
        let found = brier.clone().narrow(0, at, 1).into_data();
        for (found, expected) in found.iter::<f64>().zip(mixture_brier(&rows, &pairs)) {
            approx::assert_abs_diff_eq!(found, -expected, epsilon = 1e-6);
        }
    }
}

/// Central differences, of f32 sums with steps of 1e-2.
#[test]
fn gradients_of_the_losses_are_the_differences() {
    let device = Device::flex();
    let total = |data: TensorData, device: &Device| {
        let leaf = Tensor::<4>::from_data(data, device);
        let leaf = if device.is_autodiff() {
            leaf.require_grad()
        } else {
            leaf
        };
        let (log, brier) = losses(distributions(leaf.clone()));
        (leaf, log.sum() + brier.sum() * 3.0)
    };
    let (leaf, loss) = total(scores(2), &device.clone().autodiff());
    let gradients = loss.backward();
    let gradient: Vec<f64> = leaf.grad(&gradients).unwrap().into_data().iter().collect();
    let values: Vec<f32> = scores(2).iter::<f32>().collect();
    for (i, &expected) in gradient.iter().enumerate() {
        let at = |step: f32| -> f64 {
            let mut moved = values.clone();
            moved[i] += step;
            let data = TensorData::new(moved, [POSITIONS, N, K, V]);
            f64::from(total(data, &device).1.into_scalar::<f32>())
        };
        let difference = (at(1e-2) - at(-1e-2)) / 2e-2;
        approx::assert_abs_diff_eq!(difference, expected, epsilon = 2e-3);
    }
}

/// Of two draws that are certain, of which one is right, the log score is ln 2; far from any draw it
/// stays finite, and so does its gradient.
#[test]
fn the_log_loss_bears_draws_that_are_far_off() {
    let device = Device::flex().autodiff();
    let logs =
        Tensor::<2>::from_floats([[0.0, -3000.0], [-900.0, -1000.0]], &device).require_grad();
    let loss = log_score_loss(logs.clone());
    let gradients = loss.clone().sum().backward();
    let values: Vec<f64> = loss.into_data().iter().collect();
    approx::assert_abs_diff_eq!(values[0], 2f64.ln(), epsilon = 1e-6);
    approx::assert_abs_diff_eq!(values[1], 900.0 + 2f64.ln(), epsilon = 1e-3);
    let gradient: Vec<f64> = logs.grad(&gradients).unwrap().into_data().iter().collect();
    for (gradient, expected) in gradient.iter().zip([-1.0, 0.0, -1.0, 0.0]) {
        approx::assert_abs_diff_eq!(*gradient, expected, epsilon = 1e-12);
    }
}
