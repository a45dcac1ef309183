//! The energy score: reference values, invariants, and points that (nearly) coincide.

use burn::tensor::{Device, Tensor};
use calm_fixtures::{Fixture, FixtureError, assert_close, values};
use calm_likelihood_free::energy_score;
use calm_nn::RandomStream;

const N: usize = 4;
const M: usize = 6;
const S: usize = 3;

/// What f32 allows in a case of the fixture: for values, and for gradient entries.
///
/// Between samples and targets a squared distance below 4e-7 times the points' squared norms
/// (about the targets' mean) is taken for that bound, since Gram products in f32 can't tell it
/// from 0. One pair that (nearly) coincides is therefore counted as up to that far apart, with
/// weight 2 / (N M). Its own pull, at most 2 alpha / (N M) divided by the positions, is left out
/// of the gradient; a pair that coincides exactly has none to lose.
fn tolerances(case: &Fixture, alpha: f64) -> Result<(f64, f64), FixtureError> {
    const ELSEWHERE: f64 = 1e-5;
    let name = case.text("name")?;
    let near = name.starts_with("near_coincident");
    if !near && name != "coincident_sample_and_target" {
        return Ok((ELSEWHERE, ELSEWHERE));
    }
    let device = Device::flex();
    let targets = case.tensor::<3>("inputs/targets", &device)?;
    let origin = targets.clone().mean_dim(0);
    let largest = |points: Tensor<3>| {
        let squares = (points - origin.clone()).square().sum_dim(2);
        f64::from(squares.max().into_scalar::<f32>())
    };
    let scale = largest(case.tensor::<3>("inputs/samples", &device)?) + largest(targets);
    let weight = 2.0 / (N * M) as f64;
    let value = weight * (4e-7 * scale).powf(alpha / 2.0) + ELSEWHERE;
    assert!(value < 4e-4, "the bound itself must stay small");
    Ok((
        value,
        if near {
            weight * alpha / S as f64 + ELSEWHERE
        } else {
            ELSEWHERE
        },
    ))
}

/// Loss per position and gradient of its mean with respect to the samples.
fn evaluate(samples: Tensor<3>, targets: Tensor<3>, alpha: f64) -> (Tensor<1>, Tensor<3>) {
    let samples = samples.require_grad();
    let loss = energy_score(samples.clone(), targets, alpha).loss();
    let gradients = loss.clone().mean().backward();
    (loss, samples.grad(&gradients).expect("a gradient"))
}

#[test]
fn losses_and_gradients_are_those_of_the_reference() -> Result<(), FixtureError> {
    let device = Device::flex().autodiff();
    let cases = Fixture::load("energy_score")?.list("cases")?;
    assert_eq!(cases.len(), 8);
    for case in cases {
        let name = case.text("name")?;
        let samples = case.tensor::<3>("inputs/samples", &device)?;
        let targets = case.tensor::<3>("inputs/targets", &device)?;
        let alpha = case.number("alpha")?;
        let (loss, gradient) = evaluate(samples, targets, alpha);
        let (value, entry) = tolerances(&case, alpha)?;
        let worst = |found: Vec<f64>, path: &str| -> Result<f64, FixtureError> {
            let expected = case.golden(path)?.values;
            assert_eq!(found.len(), expected.len());
            assert!(found.iter().all(|x| x.is_finite()), "{name}: not finite");
            let differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
            Ok(differences.fold(0.0, f64::max))
        };
        let off = worst(values(loss), "outputs/loss_per_position")?;
        assert!(off <= value, "{name}: loss off by {off:.2e}");
        let off = worst(values(gradient), "outputs/grad_samples")?;
        assert!(off <= entry, "{name}: gradient off by {off:.2e}");
    }
    Ok(())
}

/// Only the pair of a sample and a target 1e-4 apart is below what f32 can tell: the samples that
/// have no such partner get the reference's gradient, also the two that nearly coincide.
#[test]
fn only_the_sample_beside_a_target_loses_a_pull() -> Result<(), FixtureError> {
    let device = Device::flex().autodiff();
    for case in Fixture::load("energy_score")?.list("cases")? {
        if !case.text("name")?.starts_with("near_coincident") {
            continue;
        }
        let samples = case.tensor::<3>("inputs/samples", &device)?;
        let targets = case.tensor::<3>("inputs/targets", &device)?;
        let (_, gradient) = evaluate(samples, targets, case.number("alpha")?);
        let expected = case.golden("outputs/grad_samples")?.values;
        let width = expected.len() / N;
        for (n, (found, expected)) in values(gradient)
            .chunks(width)
            .zip(expected.chunks(width))
            .enumerate()
        {
            let off = found
                .iter()
                .zip(expected)
                .map(|(a, b)| (a - b).abs())
                .fold(0.0, f64::max);
            // Sample 2 stands beside target 3.
            assert!(n == 2 || off < 2e-4, "sample {n}: off by {off:.2e}");
        }
    }
    Ok(())
}

fn points(n: usize, positions: usize, random: &mut RandomStream, device: &Device) -> Tensor<3> {
    let values = random.normal(n * positions * 5);
    Tensor::<1>::from_floats(values.as_slice(), device).reshape([n, positions, 5])
}

/// At exponent 1 the triangle inequality bounds the loss below by 0 and a sample's gradient by
/// `2/N + 2/N`; neither may break where points come closer than f32 can tell.
#[test]
fn close_points_keep_the_loss_above_zero_and_the_gradient_bounded() {
    let device = Device::flex().autodiff();
    let mut random = RandomStream::new(17);
    for (n, m, offset) in [(2, 1, 0.0), (2, 8, 10.0), (4, 6, 0.0), (8, 3, 100.0)] {
        for exponent in 0..10 {
            let gap = 10f32.powi(-exponent);
            // All samples within `gap` of each other and of the first target, at 8 positions.
            let targets = points(m, 8, &mut random, &device) + offset;
            let center = targets.clone().narrow(0, 0, 1).expand([n, 8, 5]);
            let samples = center + points(n, 8, &mut random, &device) * gap;
            let (loss, gradient) = evaluate(samples, targets, 1.0);
            for value in values(loss) {
                assert!(value >= -1e-5, "gap {gap:e}: loss {value}");
            }
            // The mean over 8 positions divides the gradient by 8. Up to a third more where a
            // rounded distance is smaller than the true one.
            let bound = 4.0 / n as f64 / 8.0 * 1.33;
            for row in values(gradient).chunks(5) {
                let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
                assert!(norm <= bound, "n {n}, m {m}, gap {gap:e}: {norm} > {bound}");
            }
        }
    }
}

/// Samples beside one of two targets that lie far from their mean, where the Gram product rounds
/// most. The far target pulls with 1. The close one pulls with at most 1, a third more by
/// rounding, and not (to 1 %) where f32 can't tell the direction.
#[test]
fn rounding_does_not_pull_towards_a_close_target() {
    let device = Device::flex().autodiff();
    let mut random = RandomStream::new(31);
    // The published latent width: the longer the sum, the more it rounds.
    let mut wide = |n: usize| {
        let values = random.normal(n * 256 * 128);
        Tensor::<1>::from_floats(values.as_slice(), &device).reshape([n, 256, 128])
    };
    let far = wide(1);
    let targets = Tensor::cat(vec![far.clone(), -far.clone()], 0);
    for (gap, excess) in [
        (1e-2, 1.33),
        (1e-3, 1.33),
        (1e-4, 1e-2),
        (1e-6, 1e-2),
        (0.0, 1e-2),
    ] {
        let samples = far.clone().expand([2, 256, 128]) + wide(2) * gap;
        let samples = samples.require_grad();
        let attraction = energy_score(samples.clone(), targets.clone(), 1.0).attraction;
        let gradients = attraction.sum().backward();
        let gradient = samples.grad(&gradients).expect("a gradient") * 4.0; // undo 1 / (N M)
        for row in values(gradient).chunks(128) {
            let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
            assert!(norm <= 1.0 + excess, "gap {gap:e}: a pull of {norm}");
        }
    }
}

#[test]
fn the_loss_is_never_negative_at_exponent_1() {
    let device = Device::flex();
    let mut random = RandomStream::new(23);
    for round in 0..100 {
        let (n, m) = (2 + random.below(6), 1 + random.below(8));
        let spread = [0.0, 1e-3, 1.0, 30.0][round % 4];
        let samples = points(n, 4, &mut random, &device) * spread;
        let targets = points(m, 4, &mut random, &device);
        for value in values(energy_score(samples, targets, 1.0).loss()) {
            assert!(
                value >= -1e-5,
                "{value} with N = {n}, M = {m}, spread {spread}"
            );
        }
    }
}

#[test]
fn moving_everything_together_changes_nothing() {
    let device = Device::flex();
    let mut random = RandomStream::new(5);
    let (x, y) = (
        points(N, S, &mut random, &device),
        points(M, S, &mut random, &device),
    );
    let by = points(1, S, &mut random, &device) * 8.0;
    for alpha in [0.5, 1.0, 1.5] {
        let here = values(energy_score(x.clone(), y.clone(), alpha).loss());
        let there = energy_score(x.clone() + by.clone(), y.clone() + by.clone(), alpha).loss();
        for (a, b) in here.iter().zip(values(there)) {
            approx::assert_abs_diff_eq!(*a, b, epsilon = 2e-5);
        }
    }
}

#[test]
fn the_order_of_samples_and_of_targets_does_not_matter() {
    let device = Device::flex().autodiff();
    let mut random = RandomStream::new(6);
    let (x, y) = (
        points(N, S, &mut random, &device),
        points(M, S, &mut random, &device),
    );
    let (loss, gradient) = evaluate(x.clone(), y.clone(), 1.0);
    let (flipped_loss, flipped) = evaluate(x.flip([0]), y.flip([0]), 1.0);
    let close = |a: Vec<f64>, b: Vec<f64>| {
        for (a, b) in a.iter().zip(b) {
            approx::assert_abs_diff_eq!(*a, b, epsilon = 2e-6);
        }
    };
    close(values(loss), values(flipped_loss));
    close(values(gradient), values(flipped.flip([0])));
}

#[test]
fn scaling_the_space_scales_the_loss_by_the_exponent() {
    let device = Device::flex();
    let mut random = RandomStream::new(7);
    let (x, y) = (
        points(N, S, &mut random, &device),
        points(M, S, &mut random, &device),
    );
    for alpha in [0.5, 1.0, 1.5] {
        let one = values(energy_score(x.clone(), y.clone(), alpha).loss());
        let four = values(energy_score(x.clone() * 4.0, y.clone() * 4.0, alpha).loss());
        for (a, b) in one.iter().zip(four) {
            approx::assert_relative_eq!(a * 4f64.powf(alpha), b, max_relative = 1e-4);
        }
    }
}

#[test]
fn attraction_and_repulsion_are_mean_distances() {
    let device = Device::flex();
    // On a line at one position: samples 0, 3, 4 and targets 1, 2.
    let at = |points: &[f32]| Tensor::<1>::from_floats(points, &device).reshape([-1, 1, 1]);
    let score = energy_score(at(&[0.0, 3.0, 4.0]), at(&[1.0, 2.0]), 1.0);
    // |0-1| + |0-2| + |3-1| + |3-2| + |4-1| + |4-2| = 11 over 6; (3 + 4 + 1) over 3 pairs.
    approx::assert_abs_diff_eq!(
        values(score.attraction.clone())[0],
        11.0 / 6.0,
        epsilon = 1e-6
    );
    approx::assert_abs_diff_eq!(
        values(score.repulsion.clone())[0],
        8.0 / 3.0,
        epsilon = 1e-6
    );
    assert_close(score.loss(), &golden(&[2.0 * 11.0 / 6.0 - 8.0 / 3.0]), 1e-6);
}

fn golden(values: &[f64]) -> calm_fixtures::Golden {
    calm_fixtures::Golden {
        shape: vec![values.len()],
        values: values.to_vec(),
    }
}

#[test]
fn targets_get_no_gradient() {
    let device = Device::flex().autodiff();
    let mut random = RandomStream::new(9);
    let x = points(N, S, &mut random, &device).require_grad();
    let y = points(M, S, &mut random, &device).require_grad();
    let gradients = energy_score(x.clone(), y.clone(), 1.0)
        .loss()
        .sum()
        .backward();
    assert!(y.grad(&gradients).is_none());
    assert!(x.grad(&gradients).is_some());
}

#[test]
#[should_panic(expected = "N is 1, at least 2")]
fn a_single_sample_is_refused() {
    let device = Device::flex();
    energy_score(
        Tensor::zeros([1, 2, 3], &device),
        Tensor::zeros([4, 2, 3], &device),
        1.0,
    );
}

/// A target on three points of a line, and models that put weight w on the first.
const POINTS: [f32; 3] = [0.0, 1.0, 3.0];
const TARGET: [f64; 3] = [0.3, 0.5, 0.2];

fn with_first(w: f64) -> [f64; 3] {
    let others = (1.0 - w) / 0.7;
    [w, 0.5 * others, 0.2 * others]
}

/// `2 E||x - y||^alpha - E||x - x'||^alpha`, enumerated.
fn expected(model: &[f64; 3], alpha: f64) -> f64 {
    let mut score = 0.0;
    for i in 0..3 {
        for j in 0..3 {
            let distance = f64::from((POINTS[i] - POINTS[j]).abs()).powf(alpha);
            score += (2.0 * model[i] * TARGET[j] - model[i] * model[j]) * distance;
        }
    }
    score
}

/// The score of drawn samples is unbiased for the enumerated one, and lower for the target than for
/// other models (five standard errors: a false alarm has a probability below 1e-5; seeds are fixed).
#[test]
fn the_score_is_strictly_proper() {
    let device = Device::flex();
    let positions = 20_000;
    let mut random = RandomStream::new(11);
    let mut points = |weights: &[f64; 3], n: usize| {
        let drawn: Vec<f32> = (0..n * positions)
            .map(|_| POINTS[crate::draw(weights, &mut random)])
            .collect();
        let data = burn::tensor::TensorData::new(drawn, [n, positions, 1]);
        Tensor::<3>::from_data(data, &device)
    };
    for alpha in [1.0, 1.5] {
        let mut of_target = f64::NAN;
        for w in [0.3, 0.1, 0.25, 0.35, 0.6] {
            let model = with_first(w);
            let exact = expected(&model, alpha);
            let score = energy_score(points(&model, 3), points(&TARGET, 2), alpha).loss();
            let values: Vec<f64> = score.into_data().iter().collect();
            let n = values.len() as f64;
            let mean = values.iter().sum::<f64>() / n;
            let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0);
            let error = (variance / n).sqrt();
            // Gram products in f32 can't tell a squared distance of 0 from one of 4e-7 times the
            // points' squares.
            let rounding = 2.0 * (4e-7f64 * 18.0).powf(alpha / 2.0);
            assert!(
                (mean - exact).abs() < 5.0 * error + rounding,
                "alpha {alpha}, w {w}: {mean} of {exact}"
            );
            match w {
                0.3 => of_target = mean,
                0.1 | 0.6 => assert!(mean > of_target + 5.0 * error, "alpha {alpha}, w {w}"),
                _ => {}
            }
        }
    }
}

#[test]
fn positions_that_do_not_count_change_nothing() {
    let device = Device::flex();
    let autodiff = device.clone().autodiff();
    let mut random = RandomStream::new(5);
    let samples = points(N, 4, &mut random, &device).into_data();
    let targets = points(M, 4, &mut random, &device);
    let leaf = Tensor::<3>::from_data(samples, &autodiff).require_grad();
    let score = energy_score(leaf.clone(), Tensor::from_inner(targets), 1.0);
    let counts = Tensor::<1, burn::tensor::Bool>::from_data([true, false, true, false], &autodiff);
    let loss = score.masked_loss(counts);
    let each: Vec<f32> = score.loss().into_data().iter().collect();
    let gradients = loss.clone().backward();
    approx::assert_relative_eq!(
        loss.into_scalar::<f32>(),
        (each[0] + each[2]) / 2.0,
        max_relative = 1e-6
    );
    let gradient = leaf.grad(&gradients).unwrap().square().sum_dims(&[0, 2]);
    let gradient: Vec<f32> = gradient.into_data().iter().collect();
    assert!(gradient[0] > 0.0 && gradient[2] > 0.0, "{gradient:?}");
    assert_eq!((gradient[1], gradient[3]), (0.0, 0.0));
    let none = Tensor::<1, burn::tensor::Bool>::from_data([false; 4], &autodiff);
    assert_eq!(score.masked_loss(none).into_scalar::<f32>(), 0.0);
}
