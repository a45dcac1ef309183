//! Cached decoding against reading the whole text.

use burn::tensor::Device;
use calm_baseline::{TokenGenerator, TokenSampler};
use calm_nn::NextToken;
use calm_nn::{CachedModel, Decoding, Limits, PromptError, Stop};
use calm_nn::{StepCache, TextBranches};

use crate::{ids, row, scores, small};

const NEVER: u32 = 99;

fn limits(max_tokens: usize, end_of_text: u32) -> Limits {
    Limits {
        window: 16,
        max_tokens,
        end_of_text,
    }
}

#[test]
fn cached_scores_equal_those_of_the_whole_text_for_any_batch() {
    let device = Device::flex();
    let (_, model) = small(3, &device);
    let prompts: Vec<Vec<u32>> = [1, 5, 9, 12]
        .iter()
        .enumerate()
        .map(|(i, &n)| ids(n, 13, i as u64))
        .collect();
    let mut texts = prompts.clone();
    let mut decoding = Decoding::new(&model, limits(4, 12), &[], &prompts, &device).unwrap();
    for step in 0..4 {
        let logits: Vec<f32> = model
            .logits(decoding.hidden())
            .into_data()
            .iter::<f32>()
            .collect();
        for (text, cached) in texts.iter().zip(logits.chunks_exact(13)) {
            let whole = scores(&model, text, &device).pop().unwrap();
            for (a, b) in cached.iter().zip(whole) {
                assert!((a - b).abs() < 1e-4, "step {step}: {a} and {b}");
            }
        }
        let next: Vec<Vec<u32>> = (0..4).map(|i| vec![(3 * i + step) % 12]).collect();
        for (text, token) in texts.iter_mut().zip(&next) {
            text.extend(token);
        }
        decoding.push(&next);
    }
}

#[test]
fn a_text_does_not_depend_on_its_neighbours() {
    let device = Device::flex();
    let (_, model) = small(4, &device);
    let greedy = TokenSampler::greedy();
    let run = |prompts: &[Vec<u32>]| {
        TokenGenerator::new(&model, greedy, limits(10, 12), &[], prompts, 0, &device)
            .unwrap()
            .run()
    };
    let prompts = [ids(2, 13, 1), ids(7, 13, 2), ids(6, 13, 3)];
    let together = run(&prompts);
    for (prompt, text) in prompts.iter().zip(&together) {
        assert_eq!(&run(std::slice::from_ref(prompt))[0], text);
    }
}

#[test]
fn a_text_ends_at_end_of_text_or_at_the_limit() {
    let device = Device::flex();
    let (_, model) = small(5, &device);
    let sampler = TokenSampler::new(1.5, None, None).unwrap();
    let mut ended = 0;
    for seed in 0..20 {
        let prompts = [ids(3, 13, seed)];
        let mut generator =
            TokenGenerator::new(&model, sampler, limits(12, 0), &[], &prompts, seed, &device)
                .unwrap();
        let mut text = Vec::new();
        while !generator.is_done() {
            text.extend(generator.step().remove(0));
        }
        assert!(!text.contains(&0));
        match generator.stop(0).unwrap() {
            Stop::Limit => assert_eq!(text.len(), 12),
            Stop::EndOfText => ended += 1,
        }
    }
    assert!(ended > 0, "some text must end by itself");
}

#[test]
fn decoding_goes_on_past_the_window() {
    let device = Device::flex();
    let (_, model) = small(6, &device);
    let sampler = TokenSampler::new(1.0, None, None).unwrap();
    let prompts = [ids(16, 13, 1)]; // the window is full from the start
    let texts = TokenGenerator::new(
        &model,
        sampler,
        limits(40, NEVER),
        &[],
        &prompts,
        0,
        &device,
    )
    .unwrap()
    .run();
    assert_eq!(texts[0].len(), 40);
}

#[test]
fn an_empty_prompt_is_end_of_text() {
    let device = Device::flex();
    let (_, model) = small(6, &device);
    let run = |prompt: Vec<u32>| {
        TokenGenerator::new(
            &model,
            TokenSampler::greedy(),
            limits(8, 5),
            &[],
            &[prompt],
            0,
            &device,
        )
        .unwrap()
        .run()
    };
    assert_eq!(run(vec![]), run(vec![5]));
}

#[test]
fn bad_prompts_are_refused() {
    let device = Device::flex();
    let (_, model) = small(7, &device);
    let refuse = |prompt: Vec<u32>| {
        Decoding::new(&model, limits(4, 0), &[], &[prompt], &device).unwrap_err()
    };
    let (tokens, window) = (17, 16);
    assert_eq!(
        refuse(ids(17, 13, 1)),
        PromptError::TooLong { tokens, window }
    );
    let (token, vocab_size) = (13, 13);
    assert_eq!(
        refuse(vec![13]),
        PromptError::UnknownToken { token, vocab_size }
    );
}

#[test]
fn a_truncated_cache_is_as_if_the_rest_had_never_been() {
    let device = Device::flex();
    let (_, model) = small(8, &device);
    let text = ids(9, 13, 1);
    let read = |tokens: &[u32]| calm_nn::chunk_tensor(tokens, 1, 1, &device);
    let mut cache = model.cache(1, 16, &device);
    model.step(read(&text[..4]), &[0], &mut cache);
    model.step(read(&[1, 2, 3]), &[0], &mut cache);
    cache.truncate(4);
    assert_eq!(cache.len(), 4);
    let hidden = model.step(read(&text[4..]), &[0], &mut cache);
    let logits = model.logits(hidden.squeeze_dim::<2>(0));
    let whole = scores(&model, &text, &device);
    let cached: Vec<f32> = logits.into_data().iter::<f32>().collect();
    for (row, whole) in cached.chunks_exact(13).zip(&whole[4..]) {
        for (a, b) in row.iter().zip(whole) {
            assert!((a - b).abs() < 1e-4, "{a} and {b}");
        }
    }
}

/// Further than the near tokens reach back, off prefixes shorter than that too.
#[test]
fn branches_are_what_the_whole_texts_would_be() {
    let device = Device::flex();
    let (_, model) = small(6, &device);
    let text = ids(9, 13, 1);
    let mut cache = model.whole_cache(16, &device);
    let read = calm_nn::chunk_tensor(&text, 1, 1, &device);
    model.step(read, &[0], &mut cache);
    let prefix = [1, 2, 5, 9];
    let mut texts = prefix.map(|n| text[..n].to_vec());
    let mut branches = TextBranches::default();
    for step in 0..4 {
        let next: Vec<u32> = (0..4).map(|query| (3 * query + 5 * step) % 13).collect();
        let tokens = row(&next, &device).squeeze_dim::<1>(0);
        let hidden = model.branch(tokens, &prefix, &cache, &mut branches);
        let logits: Vec<f32> = model.logits(hidden).into_data().iter::<f32>().collect();
        for ((text, next), found) in texts.iter_mut().zip(next).zip(logits.chunks_exact(13)) {
            text.push(next);
            let whole = scores(&model, text, &device).pop().unwrap();
            for (a, b) in found.iter().zip(whole) {
                assert!((a - b).abs() < 1e-4, "step {step}: {a} and {b}");
            }
        }
    }
}
