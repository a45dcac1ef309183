//! Brier scores against the independent reference.

use calm_fixtures::{Fixture, FixtureError, Golden};
use calm_likelihood_free::{
    BrierAccumulator, BrierEstimate, MAX_N, Start, brier_at, unigram_brier_at,
};
use calm_nn::RandomStream;

use crate::draw;

fn targets(f: &Fixture) -> Result<Vec<[u32; MAX_N]>, FixtureError> {
    let values = f.golden("inputs/targets")?.values;
    Ok(values
        .chunks(MAX_N)
        .map(|t| std::array::from_fn(|i| t[i] as u32))
        .collect())
}

/// The starts of a case, one for each position.
fn starts(f: &Fixture, case: &Fixture) -> Result<Vec<Start>, FixtureError> {
    let Golden { shape, values } = case.golden("draws")?;
    let per_start: Vec<Vec<Vec<u32>>> = values
        .chunks(shape[1] * MAX_N)
        .map(|d| {
            d.chunks(MAX_N)
                .map(|x| x.iter().map(|&t| t as u32).collect())
                .collect()
        })
        .collect();
    let pairs = targets(f)?.into_iter().zip(per_start);
    Ok(pairs
        .map(|(target, draws)| Start { target, draws })
        .collect())
}

/// Every value a window of its own, which is what the reference's standard errors assume.
fn estimate(values: &[[f64; MAX_N]]) -> BrierEstimate {
    let mut accumulator = BrierAccumulator::default();
    values.iter().for_each(|&v| accumulator.add_window([v]));
    accumulator.estimate().expect("two windows or more")
}

fn assert_all(found: &[f64], expected: &Golden) {
    assert_eq!(found.len(), expected.values.len());
    for (a, b) in found.iter().zip(&expected.values) {
        approx::assert_abs_diff_eq!(*a, *b, epsilon = 1e-9);
    }
}

fn assert_estimate(values: &[[f64; MAX_N]], case: &Fixture) -> Result<(), FixtureError> {
    assert_all(values.as_flattened(), &case.golden("per_position")?);
    let found = estimate(values);
    assert_eq!(found.positions, values.len() as u64);
    assert_all(&found.brier, &case.golden("mean")?);
    assert_all(&found.brier_se, &case.golden("standard_error")?);
    approx::assert_abs_diff_eq!(found.brier_lm, case.number("brier_lm")?, epsilon = 1e-7);
    // The reference has one wherever BrierLM is positive, the crate where no figure is within its
    // own error of 0.
    let near = (0..MAX_N).any(|n| found.brier[n] < found.brier_se[n]);
    let expected = case
        .optional_number("brier_lm_standard_error")?
        .filter(|_| !near);
    match (found.brier_lm_se, expected) {
        (Some(se), Some(expected)) => approx::assert_abs_diff_eq!(se, expected, epsilon = 1e-7),
        (found, expected) => assert_eq!(found, expected),
    }
    Ok(())
}

#[test]
fn estimates_from_all_pairs_of_draws_are_those_of_the_reference() -> Result<(), FixtureError> {
    let f = Fixture::load("brier")?;
    let cases = f.list("outputs/estimated")?;
    assert_eq!(cases.len(), 4);
    for case in cases {
        let values: Vec<_> = starts(&f, &case)?.iter().map(brier_at).collect();
        assert_estimate(&values, &case)?;
    }
    Ok(())
}

#[test]
fn unigram_scores_are_those_of_the_reference() -> Result<(), FixtureError> {
    let f = Fixture::load("brier")?;
    let probabilities = f.golden("inputs/unigram")?.values;
    let values: Vec<_> = targets(&f)?
        .iter()
        .map(|target| unigram_brier_at(target, &probabilities))
        .collect();
    assert_estimate(&values, &f.part("outputs/unigram")?)
}

#[test]
fn exact_scores_combine_to_the_reference() -> Result<(), FixtureError> {
    let exact = Fixture::load("brier")?.part("outputs/exact")?;
    let values = exact.golden("per_position")?.values;
    let values: Vec<[f64; MAX_N]> = values
        .chunks(MAX_N)
        .map(|v| std::array::from_fn(|i| v[i]))
        .collect();
    assert_estimate(&values, &exact)
}

/// Also with an even number of negative factors BrierLM is 0.
#[test]
fn brier_lm_is_the_geometric_mean_or_zero() -> Result<(), FixtureError> {
    let cases = Fixture::load("brier")?.list("outputs/combined")?;
    assert!(cases.len() >= 5);
    for case in cases {
        let means = case.golden("means")?.values;
        let found = estimate(&[std::array::from_fn(|i| means[i]); 2]);
        approx::assert_abs_diff_eq!(found.brier_lm, case.number("brier_lm")?, epsilon = 1e-9);
        let error = (found.brier_lm > 0.0).then_some(0.0);
        assert_eq!(found.brier_lm_se, error, "equal windows");
    }
    Ok(())
}

/// 3 draws a start, 4,000 times: each of the 48 means lies within 5 standard errors of the exact
/// score. Error rate over all of them below 3e-5; the seed is fixed.
#[test]
fn estimates_from_draws_are_unbiased() -> Result<(), FixtureError> {
    let f = Fixture::load("brier")?;
    let joint = f.golden("inputs/joint")?.values;
    let exact = f.golden("outputs/exact/per_position")?.values;
    let mut random = RandomStream::new(2026);
    const ROUNDS: usize = 4000;
    for (p, target) in targets(&f)?.into_iter().enumerate() {
        let probabilities = &joint[p * 81..(p + 1) * 81];
        let (mut sum, mut squares) = ([0.0; MAX_N], [0.0; MAX_N]);
        for _ in 0..ROUNDS {
            let draws = (0..3).map(|_| {
                let index = draw(probabilities, &mut random) as u32;
                vec![index / 27, index / 9 % 3, index / 3 % 3, index % 3]
            });
            let value = brier_at(&Start {
                target,
                draws: draws.collect(),
            });
            for i in 0..MAX_N {
                sum[i] += value[i];
                squares[i] += value[i] * value[i];
            }
        }
        for i in 0..MAX_N {
            let n = ROUNDS as f64;
            let mean = sum[i] / n;
            let se = ((squares[i] / n - mean * mean) / n).sqrt();
            let off = (mean - exact[p * MAX_N + i]).abs();
            assert!(
                off <= 5.0 * se,
                "position {p}, Brier-{}: {off} > 5 * {se}",
                i + 1
            );
        }
    }
    Ok(())
}
