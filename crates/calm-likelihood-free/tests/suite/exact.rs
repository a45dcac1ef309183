//! The exact sampler against `P(x)^(1/T) / Z`.
//!
//! Chi-square limits are the 1 - 1e-6 quantiles, limits on mean draws five standard errors, so a
//! correct sampler fails with probability below 1e-4 over all tests here; seeds are fixed.

use std::cell::Cell;

use calm_likelihood_free::{
    Attempts, BatchSampler, ExactSampler, Otherwise, PoolSampler, Sampled, SamplerError,
};
use calm_nn::RandomStream;

use crate::{chi_square, draw};

const TEMPERATURES: [f64; 7] = [1.0, 0.9, 0.7, 0.5, 0.4, 1.0 / 3.0, 0.25];

/// Distributions, each with the chi-square limit of its outcomes.
const DISTRIBUTIONS: [(&[f64], f64); 4] = [
    (&[0.75, 0.25], 24.0),
    (&[0.5, 0.3, 0.2], 27.7),
    (&[0.25; 4], 30.7),
    (&[0.6, 0.1, 0.1, 0.1, 0.1], 33.4),
];

fn unlimited(temperature: f64) -> ExactSampler {
    ExactSampler::new(temperature, usize::MAX, Otherwise::Fail).unwrap()
}

/// `P^(1/T) / Z`, and Z.
fn sharpened(probabilities: &[f64], temperature: f64) -> (Vec<f64>, f64) {
    let powers: Vec<f64> = probabilities
        .iter()
        .map(|p| p.powf(1.0 / temperature))
        .collect();
    let z = powers.iter().sum();
    (powers.iter().map(|p| p / z).collect(), z)
}

/// Draws indices, and counts what it is asked for.
fn source<'a>(probabilities: &'a [f64], seed: u64) -> impl FnMut(usize) -> Vec<usize> + 'a {
    let mut random = RandomStream::new(seed);
    move |n| (0..n).map(|_| draw(probabilities, &mut random)).collect()
}

#[test]
fn samples_follow_the_sharpened_distribution() {
    for (i, (probabilities, limit)) in DISTRIBUTIONS.iter().enumerate() {
        for (j, temperature) in TEMPERATURES.into_iter().enumerate() {
            let mut source = source(probabilities, (10 * i + j) as u64);
            let mut random = RandomStream::new(7);
            let mut counts = vec![0; probabilities.len()];
            for _ in 0..20_000 {
                let found = unlimited(temperature)
                    .sample(&mut source, &mut random)
                    .unwrap();
                assert!(found.exact);
                counts[found.chunk] += 1;
            }
            let statistic = chi_square(&counts, &sharpened(probabilities, temperature).0);
            assert!(
                statistic <= *limit,
                "{probabilities:?} at {temperature}: {statistic}"
            );
        }
    }
}

/// The statistic tells neighbouring temperatures apart, so the test above can fail.
#[test]
fn neighbouring_temperatures_are_told_apart() {
    let (probabilities, _) = DISTRIBUTIONS[3];
    for pair in TEMPERATURES.windows(2) {
        let mut source = source(probabilities, 3);
        let mut random = RandomStream::new(4);
        let mut counts = vec![0; probabilities.len()];
        for _ in 0..20_000 {
            counts[unlimited(pair[0])
                .sample(&mut source, &mut random)
                .unwrap()
                .chunk] += 1;
        }
        let statistic = chi_square(&counts, &sharpened(probabilities, pair[1]).0);
        assert!(statistic > 60.0, "{pair:?}: {statistic}");
    }
}

/// Draws looked at: `(1 + sum_{j < n} sum_x P^j + 1{a > 0} sum_x P^(1/T - 1)) / Z`. CALM's count,
/// `(n + ..) / Z`, is of attempts that draw all n before they compare.
#[test]
fn it_takes_as_many_draws_as_the_formula_says() {
    for (probabilities, _) in DISTRIBUTIONS {
        for temperature in TEMPERATURES {
            let power = 1.0 / temperature;
            let whole = (power + 1e-9).floor();
            let z = sharpened(probabilities, temperature).1;
            let sum = |exponent: f64| probabilities.iter().map(|p| p.powf(exponent)).sum::<f64>();
            let equal: f64 = (1..whole as i32).map(|j| sum(f64::from(j))).sum();
            let factory = if power - whole > 1e-9 {
                sum(power - 1.0)
            } else {
                0.0
            };
            let expected = (1.0 + equal + factory) / z;

            let mut one = source(probabilities, 5);
            let mut random = RandomStream::new(6);
            let trials = 4_000;
            let draws: Vec<f64> = (0..trials)
                .map(|_| {
                    // Fed one by one, so that none is drawn in vain.
                    let mut attempts: Attempts<usize> = unlimited(temperature).begin();
                    loop {
                        if let Some(found) = attempts.push(one(1), &mut random) {
                            break found.unwrap().draws as f64;
                        }
                    }
                })
                .collect();
            let mean = draws.iter().sum::<f64>() / trials as f64;
            let variance = draws.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / trials as f64;
            let error = (variance / trials as f64).sqrt();
            assert!(
                (mean - expected).abs() <= 5.0 * error + 1e-12,
                "{probabilities:?} at {temperature}: {mean} of {expected}"
            );
            assert!(expected <= (whole + factory) / z + 1e-12);
        }
    }
}

/// Draws in vain are kept for the next attempts: in blocks of any size the same draws give the same
/// outcome.
#[test]
fn blocks_of_any_size_give_the_same_outcome() {
    let (probabilities, _) = DISTRIBUTIONS[1];
    for temperature in TEMPERATURES {
        let run = |block: usize| -> Vec<usize> {
            (0..50)
                .map(|seed| {
                    let mut source = source(probabilities, seed);
                    let mut random = RandomStream::new(seed + 100);
                    let mut attempts: Attempts<usize> = unlimited(temperature).begin();
                    loop {
                        if let Some(found) = attempts.push(source(block), &mut random) {
                            break found.unwrap().chunk;
                        }
                    }
                })
                .collect()
        };
        let one = run(1);
        assert_eq!(one, run(7));
        assert_eq!(one, run(200));
    }
}

#[test]
fn a_budget_that_runs_out_is_told() {
    // No two draws agree.
    let next = Cell::new(0);
    let mut distinct =
        |n: usize| -> Vec<usize> { (0..n).map(|_| next.replace(next.get() + 1)).collect() };
    let mut random = RandomStream::new(1);
    let sampler = |otherwise| ExactSampler::new(0.4, 21, otherwise).unwrap();
    assert_eq!(
        sampler(Otherwise::Fail).sample(&mut distinct, &mut random),
        Err(SamplerError::BudgetSpent { draws: 21 })
    );
    let first = next.get();
    let Sampled {
        chunk,
        draws,
        exact,
    } = sampler(Otherwise::Batch)
        .sample(&mut distinct, &mut random)
        .unwrap();
    assert!((first..first + 21).contains(&chunk));
    assert_eq!((draws, exact), (21, false));
}

/// At T = 1/n the budget decides how often a chunk is accepted, not which.
#[test]
fn what_a_small_budget_accepts_is_without_bias() {
    let (probabilities, limit) = DISTRIBUTIONS[3];
    for (n, budget) in [(2, 3), (2, 10), (3, 7)] {
        let temperature = 1.0 / f64::from(n);
        let sampler = ExactSampler::new(temperature, budget, Otherwise::Fail).unwrap();
        let mut source = source(probabilities, 40);
        let mut random = RandomStream::new(7);
        let (mut counts, mut failed) = (vec![0; probabilities.len()], 0);
        for _ in 0..20_000 {
            match sampler.sample(&mut source, &mut random) {
                Ok(found) => counts[found.chunk] += 1,
                Err(_) => failed += 1,
            }
        }
        assert!(failed > 100, "{failed}");
        let statistic = chi_square(&counts, &sharpened(probabilities, temperature).0);
        assert!(statistic <= limit, "n = {n}, {budget}: {statistic}");
    }
}

/// Draws A, B, A at 1/T = 1 + a: with probability a the factory's first round fails, the second A
/// begins another attempt, and the budget is spent. Of that pool n = 1 takes B once in three times, n = 2
/// never; so B comes out with probability a (1 - a) / 3, within five standard errors.
#[test]
fn between_two_temperatures_both_rules_are_taken() {
    let sampler = ExactSampler::new(0.7, 3, Otherwise::Batch).unwrap();
    let a = 1.0 / 0.7 - 1.0;
    let mut random = RandomStream::new(9);
    let (trials, mut spent, mut b) = (20_000, 0, 0);
    for _ in 0..trials {
        let mut attempts: Attempts<char> = sampler.begin();
        let found = attempts.push(vec!['A', 'B', 'A'], &mut random);
        let found = found.expect("an outcome of three draws").unwrap();
        spent += usize::from(!found.exact);
        b += usize::from(found.chunk == 'B');
    }
    for (count, p) in [(spent, a), (b, a * (1.0 - a) / 3.0)] {
        let n = f64::from(trials);
        let off = (count as f64 / n - p).abs();
        assert!(
            off < 5.0 * (p * (1.0 - p) / n).sqrt(),
            "{count} of {trials}, {p}"
        );
    }
}

/// With the batch rule behind it: where the budget is spent, it chooses as the rule does from the
/// same draws.
#[test]
fn otherwise_it_is_the_batch_rule() {
    let probabilities = [0.02; 50];
    let mut checked = 0;
    for seed in 0..40 {
        let sampler = ExactSampler::new(1.0 / 3.0, 30, Otherwise::Batch).unwrap();
        let found = sampler
            .sample(
                &mut source(&probabilities, seed),
                &mut RandomStream::new(seed),
            )
            .unwrap();
        if !found.exact {
            let pool = source(&probabilities, seed)(30);
            let rule = BatchSampler::new(1.0 / 3.0, 30).unwrap();
            let chosen = pool[rule.choose(&pool, &mut RandomStream::new(seed))];
            assert_eq!(found.chunk, chosen);
            checked += 1;
        }
    }
    assert!(checked > 20);
}

#[test]
fn what_can_not_be_served_is_refused() {
    let cold = ExactSampler::new(1e-12, 1000, Otherwise::Fail).unwrap_err();
    assert!(matches!(cold, SamplerError::SmallBudget { .. }), "{cold}");
    for temperature in [0.0, -1.0, 1.1, f64::NAN, f64::INFINITY] {
        let error = ExactSampler::new(temperature, 100, Otherwise::Fail).unwrap_err();
        assert!(
            matches!(error, SamplerError::OutsideUnit { .. }),
            "{temperature}: {error}"
        );
    }
    // n = 2 and the factory's first.
    let error = ExactSampler::new(0.4, 2, Otherwise::Batch).unwrap_err();
    assert_eq!(
        error,
        SamplerError::SmallBudget {
            budget: 2,
            needed: 3,
            temperature: 0.4
        }
    );
    assert!(ExactSampler::new(0.4, 3, Otherwise::Batch).is_ok());
    assert!(ExactSampler::new(1.0, 1, Otherwise::Fail).is_ok());
    approx::assert_abs_diff_eq!(unlimited(0.7).temperature(), 0.7, epsilon = 1e-12);
}
