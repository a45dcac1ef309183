//! Temperature, top-k and top-p against values worked out by hand, and properties.

use calm_baseline::{SamplingError, TokenSampler};
use calm_nn::RandomStream;
use proptest::prelude::*;

use crate::chi_square;

fn sampler(temperature: f64, top_k: Option<usize>, top_p: Option<f64>) -> TokenSampler {
    TokenSampler::new(temperature, top_k, top_p).expect("settings inside their range")
}

/// Scores whose probabilities at temperature 1 are 1/2, 1/4, 1/8, 1/8.
fn halves() -> Vec<f32> {
    [0.125f32, 0.5, 0.125, 0.25].map(f32::ln).to_vec()
}

fn close(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() < 1e-6, "{found:?} and {expected:?}");
    }
}

#[test]
fn each_rule_gives_what_it_says() {
    let p = |t, k, share| sampler(t, k, share).distribution(&halves());
    close(&p(1.0, None, None), &[0.125, 0.5, 0.125, 0.25]);
    // P^2, normalised: 1/64, 1/4, 1/64, 1/16.
    close(
        &p(0.5, None, None),
        &[1.0 / 22.0, 16.0 / 22.0, 1.0 / 22.0, 4.0 / 22.0],
    );
    close(&p(1.0, Some(2), None), &[0.0, 2.0 / 3.0, 0.0, 1.0 / 3.0]);
    // A tie at the border: the lower id stays, and exactly three tokens.
    close(
        &p(1.0, Some(3), None),
        &[1.0 / 7.0, 4.0 / 7.0, 0.0, 2.0 / 7.0],
    );
    close(&p(1.0, None, Some(0.5)), &[0.0, 1.0, 0.0, 0.0]);
    close(&p(1.0, None, Some(0.51)), &[0.0, 2.0 / 3.0, 0.0, 1.0 / 3.0]);
    // top-k first: of the two left, the first holds 2/3.
    close(&p(1.0, Some(2), Some(0.6)), &[0.0, 1.0, 0.0, 0.0]);
    close(&p(1.0, Some(99), Some(1.0)), &p(1.0, None, None));
    close(&p(0.0, None, None), &[0.0, 1.0, 0.0, 0.0]);
}

#[test]
fn extreme_scores_stay_finite() {
    let p = sampler(0.01, None, Some(0.9)).distribution(&[-1e4, 3e4, f32::MIN, 3e4]);
    close(&p, &[0.0, 0.5, 0.0, 0.5]);
}

#[test]
fn settings_outside_their_range_are_refused() {
    let refuse = |t, k, p| TokenSampler::new(t, k, p).unwrap_err();
    assert_eq!(refuse(-0.1, None, None), SamplingError::Temperature(-0.1));
    assert!(matches!(
        refuse(f64::NAN, None, None),
        SamplingError::Temperature(t) if t.is_nan()
    ));
    assert_eq!(refuse(1.0, Some(0), None), SamplingError::TopK);
    for p in [0.0, 1.5, f64::NAN] {
        let error = refuse(1.0, None, Some(p));
        assert!(error.to_string().contains("top-p"), "{error}");
    }
}

/// Chi-square at 3 degrees of freedom; 30.7 is passed by chance once in a million.
#[test]
fn draws_follow_the_distribution() {
    let sampler = sampler(0.8, None, None);
    let expected = sampler.distribution(&halves());
    let mut random = RandomStream::new(1);
    let mut counts = [0; 4];
    for _ in 0..20_000 {
        counts[sampler.draw(&halves(), &mut random) as usize] += 1;
    }
    assert!(chi_square(&counts, &expected) < 30.7);
}

proptest! {
    #[test]
    fn what_is_left_is_the_head_of_the_distribution(
        logits in prop::collection::vec(-8.0f32..8.0, 1..40),
        temperature in 0.2f64..3.0,
        k in 1usize..50,
        share in 0.05f64..1.0,
    ) {
        let full = sampler(temperature, None, None).distribution(&logits);
        let cut = sampler(temperature, Some(k), Some(share)).distribution(&logits);
        prop_assert!((cut.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        let kept: Vec<usize> = (0..cut.len()).filter(|&i| cut[i] > 0.0).collect();
        prop_assert!(!kept.is_empty() && kept.len() <= k);
        // No token left out is likelier than one that stays, and ratios are unchanged.
        for i in 0..cut.len() {
            for &j in &kept {
                prop_assert!(cut[i] > 0.0 || full[i] <= full[j]);
                if cut[i] > 0.0 {
                    prop_assert!((cut[i] * full[j] - cut[j] * full[i]).abs() < 1e-9);
                }
            }
        }
    }
}

/// A long tail over several blocks of the kernel: 40,000 draws in rows of 64 against the stated
/// distribution, tokens with less than 10 expected draws taken together. The thresholds are passed
/// by chance once in a million.
#[test]
fn draws_of_a_batch_follow_the_distribution_with_every_rule() {
    let logits: Vec<f32> = (0..900)
        .map(|i| -(1.0 + (i * 7 % 900) as f32).ln() * 1.1)
        .collect();
    for (temperature, top_k, top_p) in [
        (1.0, None, None),
        (0.7, None, Some(0.8)),
        (1.3, Some(40), None),
        (1.0, Some(300), Some(0.95)),
    ] {
        let sampler = sampler(temperature, top_k, top_p);
        let p = sampler.distribution(&logits);
        let mut streams: Vec<RandomStream> = (0..64).map(RandomStream::new).collect();
        let mut counts = vec![0usize; p.len()];
        let draws = 40_000 / 64 * 64;
        for _ in 0..draws / 64 {
            for token in sampler.draw_rows(logits.repeat(64), &mut streams) {
                counts[token as usize] += 1;
            }
        }
        let (mut square, mut cells, mut rare) = (0.0, 0.0, (0.0, 0.0));
        for (&count, &p) in counts.iter().zip(&p) {
            let expected = p * draws as f64;
            if p == 0.0 {
                assert_eq!(count, 0);
            } else if expected < 10.0 {
                rare = (rare.0 + count as f64, rare.1 + expected);
            } else {
                square += (count as f64 - expected).powi(2) / expected;
                cells += 1.0;
            }
        }
        if rare.1 > 0.0 {
            square += (rare.0 - rare.1).powi(2) / rare.1;
            cells += 1.0;
        }
        // Wilson and Hilferty: chi-square / df is near 1 + 4.75 deviations only once in a million.
        let df: f64 = cells - 1.0;
        let bound = df * (1.0 - 2.0 / (9.0 * df) + 4.75 * (2.0 / (9.0 * df)).sqrt()).powi(3);
        assert!(
            square < bound,
            "{temperature} {top_k:?} {top_p:?}: {square} of {bound}"
        );
    }
}

/// Only as many tokens are put in order as top-p needs; what is kept is what a full sort keeps.
#[test]
fn top_p_keeps_what_a_full_sort_keeps() {
    let mut random = RandomStream::new(3);
    for spread in [0.01, 1.0, 6.0] {
        let logits: Vec<f32> = (0..1500).map(|_| spread * random.unit() as f32).collect();
        let all = sampler(1.0, None, None).distribution(&logits);
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| all[b].total_cmp(&all[a]).then(a.cmp(&b)));
        for share in [0.02, 0.3, 0.9, 0.999] {
            let mut sum = 0.0;
            let needed = order.iter().position(|&i| {
                sum += all[i];
                sum >= share
            });
            let needed = needed.unwrap() + 1;
            let found = sampler(1.0, None, Some(share)).distribution(&logits);
            let kept = found.iter().filter(|&&p| p > 0.0).count();
            assert!(
                kept.abs_diff(needed) <= 1,
                "{spread} {share}: {kept} of {needed}"
            );
            assert!(order[..kept].iter().all(|&i| found[i] > 0.0));
        }
    }
}
