//! Drawing the next tokens for BrierLM.

use std::collections::HashMap;

use burn::tensor::Device;
use calm_likelihood_free::{BatchSampler, Rollout};
use calm_lm::{CalmRollout, GenerateOptions, Generator};
use calm_nn::HostDraws;

use crate::{lively, tokens, without_noise};

#[test]
fn starts_are_chunk_starts_with_four_tokens_left() {
    let device = Device::flex();
    for k in [1, 2, 3, 4, 5] {
        let (config, model) = lively(k, &device);
        let window = tokens(config.window, 8);
        let mut draws = HostDraws::new(1);
        let starts = CalmRollout::new(&model, &device).roll_out(&window, 3, &mut draws);
        assert_eq!(starts.len(), (config.window - 4) / k);
        for (i, start) in starts.iter().enumerate() {
            let at = (i + 1) * k;
            assert_eq!(start.target, window[at..at + 4]);
            assert_eq!(start.draws.len(), 3);
        }
    }
}

/// A draw goes on exactly as long as it agrees with the target or with another draw.
#[test]
fn only_draws_that_can_still_count_go_on() {
    let device = Device::flex();
    for k in [1, 2] {
        let (config, model) = lively(k, &device);
        let window = tokens(config.window, 9);
        let mut draws = HostDraws::new(2);
        let starts = CalmRollout::new(&model, &device).roll_out(&window, 80, &mut draws);
        let (mut whole, mut short) = (0, 0);
        for start in &starts {
            for (i, draw) in start.draws.iter().enumerate() {
                let agrees = |length: usize| {
                    draw[..length] == start.target[..length]
                        || (0..start.draws.len()).any(|j| {
                            j != i && start.draws[j].get(..length) == Some(&draw[..length])
                        })
                };
                if draw.len() < 4 {
                    short += 1;
                    assert!(!agrees(draw.len()), "a draw that agrees was dropped");
                } else {
                    whole += 1;
                    assert!(agrees(4 - k), "a draw that stands alone went on");
                }
            }
        }
        assert!(
            whole > 0 && short > 0,
            "k = {k}: {whole} whole, {short} short draws"
        );
    }
}

/// The two-chunk distribution of the rollout against that of generation from the same prefix.
/// Two samples of 4,000; the chi-square statistic over joint outcomes seen at least 40 times has
/// a mean of its degrees of freedom: 5 standard deviations above it happens less than 1 in 1e5.
#[test]
fn rolled_out_pairs_are_distributed_as_generated_ones() {
    let device = Device::flex();
    let (config, model) = lively(2, &device);
    let prefix = tokens(4, 3);
    let n = 4000;
    // The target agrees with nothing on purpose; all draws of the one start share a context.
    let mut window = prefix.clone();
    window.extend([12, 12, 12, 12]);
    let mut draws = HostDraws::new(4);
    let starts = CalmRollout::new(&model, &device).roll_out(&window, n, &mut draws);
    let mut counts: HashMap<Vec<u32>, [f64; 2]> = HashMap::new();
    for draw in &starts[1].draws {
        let key = if draw.len() == 4 {
            draw.clone()
        } else {
            vec![]
        };
        counts.entry(key).or_default()[0] += 1.0;
    }
    let prompts = vec![prefix; n];
    let sampler = BatchSampler::new(1.0, 1).unwrap();
    let options = GenerateOptions {
        sampler: sampler.into(),
        max_tokens: 4,
        end_of_text: 99,
        lead_in: &[],
        seed: 6,
    };
    for text in Generator::new(&model, &config, &prompts, options, &device)
        .unwrap()
        .run()
    {
        counts.entry(text).or_default()[1] += 1.0;
    }
    let (mut chi, mut degrees) = (0.0, -1.0);
    for (_, [a, b]) in counts
        .iter()
        .filter(|(key, c)| !key.is_empty() && c[0] + c[1] >= 40.0)
    {
        chi += (a - b) * (a - b) / (a + b);
        degrees += 1.0;
    }
    assert!(degrees >= 5.0, "too few outcomes to compare: {degrees}");
    assert!(
        chi < degrees + 5.0 * (2.0f64 * degrees).sqrt(),
        "chi-square {chi} at {degrees}"
    );
}

/// The draws of a start don't depend on how the starts are cut into blocks: with a head that
/// ignores its noise all draws coincide, so all go on, and every branch repeats the same tokens.
#[test]
fn equal_draws_all_go_on_and_stay_equal() {
    let device = Device::flex();
    let (config, mut model) = lively(2, &device);
    without_noise(&mut model);
    let window = tokens(config.window, 5);
    let mut draws = HostDraws::new(1);
    let starts = CalmRollout::new(&model, &device).roll_out(&window, 5, &mut draws);
    for start in &starts {
        assert!(
            start
                .draws
                .iter()
                .all(|draw| draw.len() == 4 && draw == &start.draws[0])
        );
    }
}

/// Without noise a draw is a function of the hidden state, so a stride must pick exactly the starts
/// that the full scoring has at these positions, targets and draws alike.
#[test]
fn a_stride_picks_starts() {
    let device = Device::flex();
    for k in [1, 2, 4] {
        let (_, mut model) = lively(k, &device);
        without_noise(&mut model);
        let window = tokens(8 * k, 5);
        let roll = |every: usize| {
            let mut draws = HostDraws::new(1);
            CalmRollout::new(&model, &device)
                .every(every)
                .roll_out(&window, 3, &mut draws)
        };
        let all = roll(k);
        for factor in [2, 3] {
            let some = roll(factor * k);
            // Start i of the full scoring is at position (i + 1) k.
            let expected: Vec<_> = (all.iter().enumerate())
                .filter(|(i, _)| (i + 1) % factor == 0)
                .map(|(_, start)| start.clone())
                .collect();
            assert!(!expected.is_empty());
            assert_eq!(some, expected, "K = {k}, every {factor} chunks");
        }
        assert_eq!(roll(16 * k), [], "no multiple lies in the window");
    }
}

#[test]
#[should_panic(expected = "begins at no multiple")]
fn a_stride_must_be_a_multiple_of_k() {
    let device = Device::flex();
    let (_, model) = lively(2, &device);
    let _ = CalmRollout::new(&model, &device).every(3);
}
