//! Speculative decoding gives the text of plain decoding: the same tokens where greedy, the same
//! distribution where drawn.

use burn::tensor::Device;
use calm_baseline::{
    Drafter, ModelDrafter, PromptLookup, Proposal, SpeculativeGenerator, TokenGenerator,
    TokenModel, TokenSampler,
};
use calm_nn::{Limits, RandomStream, Stop};

use crate::{chi_square, enumerable, ids, scores, small};

const NEVER: u32 = 99;

fn limits(max_tokens: usize, end_of_text: u32) -> Limits {
    Limits {
        window: 16,
        max_tokens,
        end_of_text,
    }
}

/// Proposes nothing.
struct Silent;

impl Drafter for Silent {
    fn draft(&mut self, _: &[u32], _: usize, _: &mut RandomStream) -> Vec<Proposal> {
        Vec::new()
    }
}

/// Every kind of drafter.
fn drafters<'a>(
    draft: &'a TokenModel,
    sampler: TokenSampler,
    device: &'a Device,
) -> Vec<Box<dyn Drafter + 'a>> {
    vec![
        Box::new(ModelDrafter::new(draft, sampler, 16, device)),
        Box::new(PromptLookup::new(2)),
        Box::new(Silent),
    ]
}

#[test]
fn greedy_text_is_that_of_plain_decoding_token_for_token() {
    let device = Device::flex();
    let greedy = TokenSampler::greedy();
    for seed in 0..6 {
        let (_, model) = small(seed, &device);
        let (_, other) = small(seed + 50, &device);
        // Past the window of 16, so that the context is rebuilt several times.
        let prompt = ids(1 + 3 * seed as usize, 13, seed);
        let plain = TokenGenerator::new(
            &model,
            greedy,
            limits(45, 12),
            &[],
            std::slice::from_ref(&prompt),
            0,
            &device,
        )
        .unwrap()
        .run()
        .remove(0);
        for draft in [&model, &other] {
            for lookahead in [1, 3, 7] {
                for drafter in drafters(draft, greedy, &device) {
                    let (text, stats) = SpeculativeGenerator::new(
                        &model,
                        drafter,
                        lookahead,
                        greedy,
                        limits(45, 12),
                        &prompt,
                        9,
                        &device,
                    )
                    .unwrap()
                    .run();
                    assert_eq!(text, plain, "seed {seed}, lookahead {lookahead}");
                    assert_eq!(stats.tokens, text.len());
                    assert!(stats.accepted <= stats.proposed);
                }
            }
        }
    }
}

#[test]
fn a_drafter_that_is_the_target_has_everything_accepted() {
    let device = Device::flex();
    let (_, model) = small(1, &device);
    let greedy = TokenSampler::greedy();
    let drafter = ModelDrafter::new(&model, greedy, 16, &device);
    let (text, stats) = SpeculativeGenerator::new(
        &model,
        drafter,
        3,
        greedy,
        limits(12, NEVER),
        &ids(4, 13, 1),
        0,
        &device,
    )
    .unwrap()
    .run();
    assert_eq!((text.len(), stats.accepted), (12, stats.proposed));
    assert_eq!(stats.target_passes, 3, "four tokens a pass");
    assert_eq!(stats.steps_per_token(), 0.25);
    assert_eq!(stats.draft_passes, 9);
}

/// All probabilities of the next three tokens, by enumeration.
fn joint(model: &TokenModel, context: &[u32], sampler: TokenSampler, device: &Device) -> Vec<f64> {
    let next = |text: &[u32]| sampler.distribution(&scores(model, text, device).pop().unwrap());
    let mut result = Vec::new();
    for (a, pa) in next(context).into_iter().enumerate() {
        let with_a = [context, &[a as u32]].concat();
        for (b, pb) in next(&with_a).into_iter().enumerate() {
            let with_b = [&with_a[..], &[b as u32]].concat();
            result.extend(next(&with_b).into_iter().map(|pc| pa * pb * pc));
        }
    }
    result
}

/// The joint distribution of three tokens over 125 outcomes, the rare ones lumped together. The
/// bound is the mean plus five standard deviations of the chi-square with one degree of freedom
/// less than cells, its upper tail below 1e-5; six tests with fixed seeds.
#[test]
fn drawn_text_has_the_distribution_of_plain_sampling() {
    let device = Device::flex();
    let target = enumerable(11, &device);
    let draft = enumerable(12, &device);
    let context = [3, 1, 3, 1];
    let runs = 2500;
    for sampler in [
        TokenSampler::new(1.0, None, None).unwrap(),
        TokenSampler::new(0.7, Some(4), Some(0.95)).unwrap(),
    ] {
        let exact = joint(&target, &context, sampler, &device);
        assert!((exact.iter().sum::<f64>() - 1.0).abs() < 1e-6);
        for kind in 0..3 {
            let mut counts = vec![0usize; exact.len()];
            let mut accepted = 0;
            for seed in 0..runs {
                // The draft model proposes hotter than the target draws.
                let hot = TokenSampler::new(1.2, None, None).unwrap();
                let drafter = drafters(&draft, hot, &device).swap_remove(kind);
                let (text, stats) = SpeculativeGenerator::new(
                    &target,
                    drafter,
                    2,
                    sampler,
                    limits(3, NEVER),
                    &context,
                    seed,
                    &device,
                )
                .unwrap()
                .run();
                let index = text.iter().fold(0, |index, &t| 5 * index + t as usize);
                counts[index] += 1;
                accepted += stats.accepted;
            }
            if kind < 2 {
                assert!(accepted > 0, "something must be accepted for this to test");
            }
            let (mut cells, mut p, mut rest) = (vec![], vec![], (0, 0.0));
            for (&count, &q) in counts.iter().zip(&exact) {
                if q == 0.0 {
                    assert_eq!(count, 0, "an impossible text came");
                } else if q * runs as f64 >= 5.0 {
                    cells.push(count);
                    p.push(q);
                } else {
                    rest = (rest.0 + count, rest.1 + q);
                }
            }
            cells.push(rest.0);
            p.push(rest.1);
            let freedom = (cells.len() - 1) as f64;
            let bound = freedom + 5.0 * (2.0 * freedom).sqrt();
            let statistic = chi_square(&cells, &p);
            assert!(
                statistic < bound,
                "kind {kind}: {statistic:.1} at {freedom} degrees of freedom"
            );
        }
    }
}

#[test]
fn a_text_ends_at_end_of_text_inside_accepted_proposals() {
    let device = Device::flex();
    let (_, model) = small(2, &device);
    let greedy = TokenSampler::greedy();
    let prompt = ids(5, 13, 3);
    let free = TokenGenerator::new(
        &model,
        greedy,
        limits(9, NEVER),
        &[],
        std::slice::from_ref(&prompt),
        0,
        &device,
    )
    .unwrap()
    .run()
    .remove(0);
    // The token that comes third is declared end-of-text; proposals reach past it.
    let end = free[2];
    let expected = free.iter().position(|&t| t == end).unwrap();
    let drafter = ModelDrafter::new(&model, greedy, 16, &device);
    let mut generator = SpeculativeGenerator::new(
        &model,
        drafter,
        6,
        greedy,
        limits(9, end),
        &prompt,
        0,
        &device,
    )
    .unwrap();
    let text = generator.step();
    assert_eq!(text, free[..expected]);
    assert_eq!(generator.stop(), Some(Stop::EndOfText));
    assert!(generator.step().is_empty());
}

#[test]
fn lookup_proposes_what_followed_the_newest_occurrence() {
    let mut lookup = PromptLookup::new(3);
    let mut random = RandomStream::new(0);
    let mut tokens = |context: &[u32], n| -> Vec<u32> {
        lookup
            .draft(context, n, &mut random)
            .iter()
            .map(|p| p.token)
            .collect()
    };
    assert_eq!(tokens(&[1, 2, 9, 1, 2, 7, 8, 1, 2], 2), [7, 8]);
    // The longer match wins over the newer one.
    assert_eq!(tokens(&[5, 1, 2, 6, 4, 2, 8, 5, 1, 2], 1), [6]);
    assert_eq!(tokens(&[3, 3], 4), [3]);
    assert!(tokens(&[1, 2, 3], 4).is_empty());
    assert!(tokens(&[1], 4).is_empty());
}
