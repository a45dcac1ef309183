//! BrierLM: short draws, clusters of starts, and what can't be estimated.

use calm_likelihood_free::{
    BrierAccumulator, BrierEstimate, MAX_N, Start, brier_at, unigram_brier_at,
};
use calm_nn::RandomStream;
use proptest::prelude::*;

fn start(target: [u32; MAX_N], draws: &[&[u32]]) -> Start {
    Start {
        target,
        draws: draws.iter().map(|d| d.to_vec()).collect(),
    }
}

#[test]
fn the_right_answer_every_time_scores_1_and_the_same_wrong_one_minus_1() {
    let right = start([1, 2, 3, 4], &[&[1, 2, 3, 4], &[1, 2, 3, 4]]);
    assert_eq!(brier_at(&right), [1.0; MAX_N]);
    let wrong = start([1, 2, 3, 4], &[&[9, 2, 3, 4], &[9, 2, 3, 4]]);
    assert_eq!(brier_at(&wrong), [-1.0; MAX_N]);
    let apart = start([1, 2, 3, 4], &[&[8, 2, 3, 4], &[9, 2, 3, 4]]);
    assert_eq!(brier_at(&apart), [0.0; MAX_N]);
}

#[test]
fn only_prefixes_count() {
    let draws: [&[u32]; 2] = [&[1, 2, 7, 4], &[1, 5, 3, 4]];
    // Both first tokens hit and collide; one pair of tokens hits; nothing longer does.
    assert_eq!(brier_at(&start([1, 2, 3, 4], &draws)), [1.0, 1.0, 0.0, 0.0]);
}

#[test]
fn a_short_draw_matches_nothing_beyond_its_end() {
    let target = [1, 2, 3, 4];
    // Rolled out no further because each stands alone after two tokens.
    let stopped = brier_at(&start(target, &[&[1, 5], &[1, 2, 3, 4], &[6]]));
    let rolled = brier_at(&start(
        target,
        &[&[1, 5, 0, 0], &[1, 2, 3, 4], &[6, 0, 0, 0]],
    ));
    assert_eq!(stopped, rolled);
    // Two draws that are both too short are no collision.
    assert_eq!(
        brier_at(&start(target, &[&[1, 2], &[1, 2]])),
        [1.0, 1.0, 0.0, 0.0]
    );
}

#[test]
fn the_order_of_draws_does_not_matter() {
    let mut random = RandomStream::new(3);
    for _ in 0..50 {
        let mut token = || random.below(2) as u32;
        let target = std::array::from_fn(|_| token());
        let mut draws: Vec<Vec<u32>> = (0..5).map(|_| (0..4).map(|_| token()).collect()).collect();
        let forward = brier_at(&Start {
            target,
            draws: draws.clone(),
        });
        draws.reverse();
        assert_eq!(forward, brier_at(&Start { target, draws }));
    }
}

#[test]
#[should_panic(expected = "two draws or more, got 1")]
fn a_single_draw_is_refused() {
    brier_at(&start([1, 2, 3, 4], &[&[1, 2, 3, 4]]));
}

#[test]
fn a_uniform_model_scores_one_over_the_vocabulary() {
    let found = unigram_brier_at(&[0, 3, 1, 2], &[0.25; 4]);
    for (n, value) in found.iter().enumerate() {
        approx::assert_abs_diff_eq!(*value, 0.25f64.powi(n as i32 + 1), epsilon = 1e-15);
    }
}

fn random_values(n: usize) -> Vec<[f64; MAX_N]> {
    let mut random = RandomStream::new(8);
    (0..n)
        .map(|_| std::array::from_fn(|_| 0.3 + random.unit()))
        .collect()
}

fn estimate(windows: &[Vec<[f64; MAX_N]>]) -> calm_likelihood_free::BrierEstimate {
    let mut accumulator = BrierAccumulator::default();
    windows
        .iter()
        .for_each(|w| accumulator.add_window(w.iter().copied()));
    accumulator.estimate().expect("two windows or more")
}

/// Repeating every start four times within its window adds no information; taken as independent
/// starts, the repetitions would halve the standard errors.
#[test]
fn repeated_starts_of_a_window_do_not_narrow_the_errors() {
    let values = random_values(30);
    let once = estimate(&values.iter().map(|&v| vec![v]).collect::<Vec<_>>());
    let clustered = estimate(&values.iter().map(|&v| vec![v; 4]).collect::<Vec<_>>());
    let independent: Vec<_> = values
        .iter()
        .flat_map(|&v| [[v]; 4])
        .map(|v| v.to_vec())
        .collect();
    let independent = estimate(&independent);
    assert_eq!(
        (once.positions, clustered.positions, independent.positions),
        (30, 120, 120)
    );
    for i in 0..MAX_N {
        approx::assert_relative_eq!(once.brier[i], clustered.brier[i], max_relative = 1e-12);
        approx::assert_relative_eq!(once.brier_se[i], clustered.brier_se[i], max_relative = 1e-9);
        assert!(independent.brier_se[i] < 0.51 * clustered.brier_se[i]);
    }
    approx::assert_relative_eq!(once.brier_lm, clustered.brier_lm, max_relative = 1e-12);
    let error = |of: &BrierEstimate| of.brier_lm_se.expect("all figures are well above 0");
    approx::assert_relative_eq!(error(&once), error(&clustered), max_relative = 1e-9);
    assert!(error(&independent) < 0.51 * error(&clustered));
}

/// Starts, not windows, are weighted equally: windows of 1 and 3 starts.
#[test]
fn windows_of_unequal_length_count_by_their_starts() {
    let found = estimate(&[vec![[0.8; MAX_N]], vec![[0.4; MAX_N]; 3]]);
    // Mean 0.5; sums of deviations 0.3 and -0.3; 2/1 * 2 * 0.09 / 16.
    for i in 0..MAX_N {
        approx::assert_abs_diff_eq!(found.brier[i], 0.5, epsilon = 1e-12);
        approx::assert_abs_diff_eq!(found.brier_se[i], 0.0225f64.sqrt(), epsilon = 1e-12);
    }
    // All four move together, so BrierLM = 100 b and its error is 100 times theirs.
    approx::assert_abs_diff_eq!(found.brier_lm, 50.0, epsilon = 1e-9);
    approx::assert_abs_diff_eq!(found.brier_lm_se.unwrap(), 15.0, epsilon = 1e-9);
}

/// A figure just above 0 would make an error of any size by the delta method: here of 250.
#[test]
fn a_figure_within_its_error_of_zero_leaves_brier_lm_without_one() {
    let window = |last: f64| vec![[0.5, 0.5, 0.5, last]];
    let found = estimate(&[window(0.1001), window(-0.0999)]);
    assert!(
        found.brier_lm > 0.0 && found.brier_lm_se.is_none(),
        "{found:?}"
    );
    let found = estimate(&[window(0.3), window(0.1)]);
    assert!(found.brier_lm_se.is_some(), "{found:?}");
}

#[test]
fn fewer_than_two_windows_give_no_estimate() {
    let mut accumulator = BrierAccumulator::default();
    assert_eq!(accumulator.estimate(), None);
    accumulator.add_window([[0.5; MAX_N]; 9]);
    accumulator.add_window([]);
    assert_eq!(accumulator.estimate(), None, "an empty window is no window");
    accumulator.add_window([[0.5; MAX_N]]);
    assert!(accumulator.estimate().is_some_and(|e| e.positions == 10));
}

fn tokens(n: usize) -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec(0..2u32, 1..=n)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    /// The mean over all pairs of `1{a = y} + 1{b = y} - 1{a = b}`, written out.
    #[test]
    fn the_estimate_is_the_mean_over_pairs(
        target in prop::array::uniform4(0..2u32),
        draws in prop::collection::vec(tokens(4), 2..7),
    ) {
        let found = brier_at(&Start { target, draws: draws.clone() });
        for n in 1..=MAX_N {
            let prefix = |d: &Vec<u32>| (d.len() >= n).then(|| d[..n].to_vec());
            let hit = |d: &Vec<u32>| f64::from(prefix(d).as_deref() == Some(&target[..n]));
            let (mut sum, mut pairs) = (0.0, 0.0);
            for (i, a) in draws.iter().enumerate() {
                for b in &draws[..i] {
                    let same = prefix(a).is_some() && prefix(a) == prefix(b);
                    sum += hit(a) + hit(b) - f64::from(same);
                    pairs += 1.0;
                }
            }
            prop_assert!((found[n - 1] - sum / pairs).abs() < 1e-12);
        }
    }
}
