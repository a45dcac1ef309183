//! The batch sampler against exact distributions.
//!
//! Chi-square limits are the 1 - 1e-6 quantiles (27.7, 30.7, 33.4 at 2, 3, 4 degrees of freedom),
//! so a correct sampler fails with probability below 1e-5 over all tests here; seeds are fixed.

use std::collections::HashMap;

use calm_fixtures::{Fixture, FixtureError};
use calm_likelihood_free::{BatchSampler, ChunkSource, PoolSampler, SamplerError};
use calm_nn::RandomStream;
use proptest::prelude::*;

use crate::{chi_square, draw};

const LIMITS: [f64; 5] = [0.0, 24.0, 27.7, 30.7, 33.4];

/// A sampler at temperature 1/n.
fn sampler(n: usize, pool: usize) -> BatchSampler {
    BatchSampler::new(1.0 / n as f64, pool).expect("1/n, and a pool that is large enough")
}

fn pool(case: &Fixture) -> Result<Vec<Vec<u32>>, FixtureError> {
    let letters = case.texts("draws")?;
    Ok(letters
        .iter()
        .map(|l| l.bytes().map(u32::from).collect())
        .collect())
}

#[test]
fn probabilities_of_given_pools_are_those_of_the_reference() -> Result<(), FixtureError> {
    let cases = Fixture::load("batch_sampler")?.list("pools")?;
    assert!(cases.len() >= 20);
    for case in cases {
        let draws = pool(&case)?;
        let found: HashMap<u32, f64> = sampler(case.whole("n")?, draws.len())
            .probabilities(&draws)
            .into_iter()
            .map(|(index, p)| (draws[index][0], p))
            .collect();
        let outcomes = case.texts("outcomes")?;
        for (letter, expected) in outcomes.iter().zip(case.golden("probabilities")?.values) {
            let p = found
                .get(&u32::from(letter.as_bytes()[0]))
                .copied()
                .unwrap_or(0.0);
            approx::assert_abs_diff_eq!(p, expected, epsilon = 1e-12);
        }
    }
    Ok(())
}

#[test]
fn choices_from_given_pools_follow_the_reference() -> Result<(), FixtureError> {
    let mut random = RandomStream::new(4);
    let mut checked = 0;
    for case in Fixture::load("batch_sampler")?.list("pools")? {
        let (draws, outcomes) = (pool(&case)?, case.texts("outcomes")?);
        let expected = case.golden("probabilities")?.values;
        let freedom = expected.iter().filter(|&&p| p > 0.0).count() - 1;
        if freedom >= LIMITS.len() {
            continue;
        }
        let sampler = sampler(case.whole("n")?, draws.len());
        let mut counts = vec![0; outcomes.len()];
        for _ in 0..3000 {
            let chosen = draws[sampler.choose(&draws, &mut random)][0];
            let at = outcomes
                .iter()
                .position(|l| u32::from(l.as_bytes()[0]) == chosen);
            counts[at.expect("a known outcome")] += 1;
        }
        let statistic = chi_square(&counts, &expected);
        assert!(
            statistic <= LIMITS[freedom],
            "{}: {statistic}",
            case.text("name")?
        );
        checked += 1;
    }
    assert!(checked >= 10);
    Ok(())
}

/// Draws single-token chunks with given probabilities.
struct Enumerable {
    probabilities: Vec<f64>,
    random: RandomStream,
    drawn: usize,
}

impl Enumerable {
    fn new(probabilities: Vec<f64>, seed: u64) -> Self {
        Self {
            probabilities,
            random: RandomStream::new(seed),
            drawn: 0,
        }
    }
}

impl ChunkSource for Enumerable {
    type Chunk = usize;

    fn draw(&mut self, n: usize) -> Vec<usize> {
        self.drawn += n;
        (0..n)
            .map(|_| draw(&self.probabilities, &mut self.random))
            .collect()
    }
}

/// Counts of 20,000 whole samples.
fn counts(case: &Fixture) -> Result<Vec<usize>, FixtureError> {
    let mut source = Enumerable::new(case.golden("probabilities")?.values, 11);
    let sampler = sampler(case.whole("n")?, case.whole("pool_size")?);
    let mut random = RandomStream::new(12);
    let mut counts = vec![0; source.probabilities.len()];
    for _ in 0..20_000 {
        let (chunk, draws) = sampler.sample(&mut source, &mut random);
        assert_eq!(draws, sampler.pool());
        counts[chunk] += 1;
    }
    assert_eq!(source.drawn, 20_000 * sampler.pool());
    Ok(counts)
}

#[test]
fn samples_follow_the_exact_distribution_over_all_pools() -> Result<(), FixtureError> {
    for case in Fixture::load("batch_sampler")?.list("enumerated")? {
        let expected = case.golden("output")?.values;
        let statistic = chi_square(&counts(&case)?, &expected);
        let limit = LIMITS[expected.len() - 1];
        assert!(
            statistic <= limit,
            "{} n = {}: {statistic}",
            case.text("name")?,
            case.whole("n")?
        );
    }
    Ok(())
}

/// The same statistic tells a small pool's distribution from the one it tends to, so the test
/// above can fail.
#[test]
fn a_small_pool_is_told_from_its_limit() -> Result<(), FixtureError> {
    let mut told = 0;
    for case in Fixture::load("batch_sampler")?.list("enumerated")? {
        let (output, limit) = (case.golden("output")?.values, case.golden("limit")?.values);
        let apart = output.iter().zip(&limit).any(|(a, b)| (a - b).abs() > 0.02);
        if apart {
            assert!(
                chi_square(&counts(&case)?, &limit) > 100.0,
                "{}",
                case.text("name")?
            );
            told += 1;
        }
    }
    assert!(told >= 3);
    Ok(())
}

#[test]
fn one_over_n_is_understood_and_temperature_1_draws_once() {
    let power = |t| BatchSampler::new(t, 200).map(|s| (s.power(), s.pool()));
    assert_eq!(power(1.0), Ok((1, 1)));
    assert_eq!(power(0.5), Ok((2, 200)));
    assert_eq!(power(1.0 / 3.0), Ok((3, 200)));
    assert_eq!(power(0.333), Ok((3, 200)));
    assert_eq!(power(0.33), Ok((3, 200)));
    assert_eq!(power(0.25), Ok((4, 200)));
    assert_eq!(power(0.1), Ok((10, 200)));
    assert_eq!(BatchSampler::new(1.0, 0).map(|s| s.pool()), Ok(1));
}

#[test]
fn other_temperatures_are_refused_and_the_nearest_is_named() {
    for (bad, nearest) in [
        (0.7, 1),
        (0.4, 3),
        (0.6, 2),
        (2.0, 1),
        (0.0, 1),
        (-0.5, 1),
        (1e-9, 1_000_000),
    ] {
        let error = BatchSampler::new(bad, 200).unwrap_err();
        assert_eq!(
            error,
            SamplerError::NotReciprocal {
                temperature: bad,
                nearest
            }
        );
    }
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let error = BatchSampler::new(bad, 200).unwrap_err();
        assert!(matches!(error, SamplerError::NotReciprocal { .. }), "{bad}");
    }
    let message = BatchSampler::new(0.4, 200).unwrap_err().to_string();
    assert!(
        message.contains("0.4 is not 1/n") && message.contains("1/3 = 0.3333"),
        "{message}"
    );
}

#[test]
fn a_pool_smaller_than_n_is_refused() {
    assert_eq!(
        BatchSampler::new(0.25, 3),
        Err(SamplerError::SmallPool { pool: 3, power: 4 })
    );
    assert!(BatchSampler::new(0.25, 4).is_ok());
}

#[test]
fn the_same_random_numbers_choose_the_same_chunk() {
    let pool: Vec<[u32; 1]> = (0..50).map(|i| [i % 7]).collect();
    let run = |seed| {
        let mut random = RandomStream::new(seed);
        (0..40)
            .map(|_| sampler(2, 50).choose(&pool, &mut random))
            .collect::<Vec<_>>()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

/// binomial(2100, 1000) has 630 digits, f64 ends at 308.
#[test]
fn large_counts_do_not_overflow() {
    let mut pool = vec![[1u32]; 2100];
    pool.extend(vec![[2u32]; 2099]);
    let found = sampler(1000, pool.len()).probabilities(&pool);
    // binomial(2099, 1000) / binomial(2100, 1000) = 1100 / 2100.
    let ratio = 1100.0 / 2100.0;
    assert_eq!(found.len(), 2);
    approx::assert_abs_diff_eq!(found[0].1, 1.0 / (1.0 + ratio), epsilon = 1e-9);
    approx::assert_abs_diff_eq!(found[1].1, ratio / (1.0 + ratio), epsilon = 1e-9);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    /// Algorithm 2 written out: the number of ways to find m copies of a chunk in the pool, for
    /// the largest m <= n for which there is any.
    #[test]
    fn probabilities_count_equal_subsets(
        pool in prop::collection::vec(0..4u32, 4..12),
        n in 1..=4usize,
    ) {
        let chunks: Vec<[u32; 1]> = pool.iter().map(|&x| [x]).collect();
        // Subsets of the pool as bit masks.
        let subsets = |m: u32, x: u32| {
            let equal = |s: &u32| (0..pool.len()).all(|i| s >> i & 1 == 0 || pool[i] == x);
            (0..1u32 << pool.len()).filter(|s| s.count_ones() == m).filter(equal).count() as f64
        };
        let m = (1..=n as u32).rev().find(|&m| (0..4).any(|x| subsets(m, x) > 0.0)).unwrap();
        let total: f64 = (0..4).map(|x| subsets(m, x)).sum();
        let found = sampler(n, pool.len()).probabilities(&chunks);
        for x in 0..4 {
            let p = found.iter().find(|(i, _)| pool[*i] == x).map_or(0.0, |f| f.1);
            prop_assert!((p - subsets(m, x) / total).abs() < 1e-12, "{x}: {p}");
        }
    }
}
