//! Generation: prompts of any length, batches, stopping, the full window.

use std::collections::HashMap;

use burn::tensor::{Device, activation::softmax};
use calm_likelihood_free::{BatchSampler, ExactSampler, GenerativeHead, GrowingSampler, Otherwise};
use calm_lm::{CalmModel, ChunkSampler, Error, GenerateOptions, Generator, ModelConfig, Spent};
use calm_nn::{Decoding, HostDraws, Limits, PromptError, Stop, chunk_tensor};

use crate::{lively, tokens, without_noise};

fn options(temperature: f64, max_tokens: usize, end_of_text: u32) -> GenerateOptions<'static> {
    let sampler = BatchSampler::new(temperature, 12).unwrap();
    GenerateOptions {
        sampler: sampler.into(),
        max_tokens,
        end_of_text,
        lead_in: &[],
        seed: 11,
    }
}

/// Two prompts of which the first ends at once: from then on the other alone is drawn for, and its text
/// is what it would be if the first were not there, but for the random numbers.
#[test]
fn texts_that_have_ended_draw_nothing() {
    let device = Device::flex();
    let (config, mut model) = lively(2, &device);
    without_noise(&mut model);
    let run = |prompts: &[Vec<u32>], end_of_text: u32| {
        let options = GenerateOptions {
            sampler: GrowingSampler::new(0.5, 100).unwrap().into(),
            ..options(1.0, 8, end_of_text)
        };
        let mut generator = Generator::new(&model, &config, prompts, options, &device).unwrap();
        let mut spent = vec![generator.spent()];
        let mut texts = vec![Vec::new(); prompts.len()];
        while !generator.is_done() {
            let step = generator.step();
            texts
                .iter_mut()
                .zip(step)
                .for_each(|(text, new)| text.extend(new));
            spent.push(generator.spent());
        }
        let after = generator.step();
        assert!(after.iter().all(Vec::is_empty), "tokens after the end");
        assert_eq!(generator.spent(), spent[spent.len() - 1]);
        (texts, spent)
    };
    let (prompts, both) = (1..40)
        .map(|seed| [tokens(6, seed), tokens(6, seed + 40)])
        .map(|prompts| (prompts.clone(), run(&prompts, NEVER).0))
        .find(|(_, texts)| !texts[1].contains(&texts[0][0]))
        .expect("a second text without the first token of the first");
    let end = both[0][0];
    let (texts, spent) = run(&prompts, end);
    assert_eq!(texts, [vec![], both[1].clone()]);
    let added: Vec<(usize, usize)> = spent
        .windows(2)
        .map(|pair| {
            (
                pair[1].chunks - pair[0].chunks,
                pair[1].draws - pair[0].draws,
            )
        })
        .collect();
    // Pools without noise agree, so that they don't grow.
    assert_eq!(added, [(2, 48), (1, 24), (1, 24), (1, 24)]);
}

/// No id of the vocabulary: generation then only stops at the limit.
const NEVER: u32 = 99;

#[test]
fn the_limit_is_met_exactly_for_any_prompt_length() {
    let device = Device::flex();
    let (config, model) = lively(4, &device);
    for prompt in [0, 1, 3, 4, 5, 32] {
        for limit in [1, 4, 7] {
            let prompts = [tokens(prompt, 4)];
            let options = options(1.0, limit, 12);
            let generator = Generator::new(&model, &config, &prompts, options, &device).unwrap();
            assert!(generator.run()[0].len() <= limit);
            let options = GenerateOptions {
                end_of_text: 0,
                ..options
            };
            let mut generator =
                Generator::new(&model, &config, &prompts, options, &device).unwrap();
            let mut text = Vec::new();
            while !generator.is_done() {
                text.extend(generator.step().remove(0));
            }
            assert!(!text.contains(&0), "nothing from end-of-text on is kept");
            match generator.stop(0) {
                Some(Stop::Limit) => assert_eq!(text.len(), limit),
                Some(Stop::EndOfText) => assert!(text.len() < limit),
                None => panic!("done without a reason"),
            }
        }
    }
}

#[test]
fn one_step_makes_k_tokens() {
    let device = Device::flex();
    let (config, model) = lively(4, &device);
    // 99 fills nothing here: the prompt ends on a chunk boundary.
    let prompts = [tokens(8, 1)];
    let mut generator =
        Generator::new(&model, &config, &prompts, options(1.0, 12, NEVER), &device).unwrap();
    while !generator.is_done() {
        assert_eq!(generator.step()[0].len(), 4);
    }
    assert_eq!(generator.steps(), 3);
}

/// Whatever a prompt's length, the model reads it as it stands in the training stream: after the end
/// of another text and one end-of-text. The hidden state is that of the stream's own chunks.
#[test]
fn a_prompt_of_any_length_is_read_as_in_the_stream() {
    let device = Device::flex();
    let (config, model) = lively(4, &device);
    let backbone = &model.language_model.backbone;
    let end_of_text = 12;
    let lead_in = [3, 1, 4, end_of_text];
    let limits = Limits {
        window: config.window,
        max_tokens: 4,
        end_of_text,
    };
    for length in 0..=config.window {
        let prompt = tokens(length, 5);
        let prompts = [prompt.clone()];
        let mut decoding = Decoding::new(backbone, limits, &lead_in, &prompts, &device).unwrap();
        let found = decoding.hidden();
        // As much of the lead-in as completes the chunks, at least one token where there is room.
        let front = match 4 - length % 4 {
            4 if length == config.window => 0,
            front => front,
        };
        let stream = [&lead_in[4 - front..], &prompt[..]].concat();
        let read = backbone.forward(chunk_tensor(&stream, 1, 4, &device));
        let [_, steps, d] = read.dims();
        let expected = read.narrow(1, steps - 1, 1).reshape([1, d]);
        let difference: f32 = (found - expected).abs().max().into_scalar();
        assert!(difference < 1e-4, "{length}: {difference}");
        let doubled = stream.windows(2).any(|pair| pair == [end_of_text; 2]);
        assert!(!doubled, "{length}: training never shows this");
    }
}

/// The batch's draws are laid out `[pool, batch]`, so a row sees other draws than alone; the
/// hidden states are compared through a head whose samples are all equal.
#[test]
fn a_batch_of_unequal_prompts_goes_on_as_each_alone() {
    let device = Device::flex();
    let (config, mut model) = lively(2, &device);
    // Without noise the next chunk is a function of the hidden state.
    without_noise(&mut model);
    let prompts = [tokens(1, 1), tokens(6, 2), tokens(11, 3), vec![]];
    let run = |prompts: &[Vec<u32>]| {
        Generator::new(&model, &config, prompts, options(1.0, 8, 12), &device)
            .unwrap()
            .run()
    };
    let together = run(&prompts);
    for (prompt, text) in prompts.iter().zip(&together) {
        assert_eq!(
            &run(std::slice::from_ref(prompt))[0],
            text,
            "prompt {prompt:?}"
        );
    }
    assert!(
        together.iter().any(|text| text != &together[0]),
        "prompts matter"
    );
}

#[test]
fn generation_goes_on_past_the_window() {
    let device = Device::flex();
    let (config, model) = lively(2, &device);
    let prompts = [tokens(16, 1)]; // the window is full from the start
    let text = Generator::new(&model, &config, &prompts, options(0.5, 50, NEVER), &device)
        .unwrap()
        .run();
    assert_eq!(text[0].len(), 50);
}

#[test]
fn a_seed_repeats_and_another_differs() {
    let device = Device::flex();
    let (config, model) = lively(2, &device);
    let run = |seed| {
        let options = GenerateOptions {
            seed,
            ..options(1.0, 20, NEVER)
        };
        Generator::new(&model, &config, &[tokens(4, 1)], options, &device)
            .unwrap()
            .run()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn bad_prompts_are_refused() {
    let device = Device::flex();
    let (config, model) = lively(2, &device);
    let refuse = |prompt: Vec<u32>| {
        Generator::new(&model, &config, &[prompt], options(1.0, 4, 12), &device).unwrap_err()
    };
    let long = refuse(tokens(17, 1));
    assert!(
        matches!(
            long,
            Error::Prompt(PromptError::TooLong {
                tokens: 17,
                window: 16
            })
        ),
        "{long}"
    );
    let foreign = refuse(vec![3, 13]);
    assert!(
        matches!(
            foreign,
            Error::Prompt(PromptError::UnknownToken {
                token: 13,
                vocab_size: 13
            })
        ),
        "{foreign}"
    );
}

fn exactly(temperature: f64, budget: usize, seed: u64) -> GenerateOptions<'static> {
    let sampler = ExactSampler::new(temperature, budget, Otherwise::Fail).unwrap();
    GenerateOptions {
        sampler: sampler.into(),
        seed,
        ..options(1.0, 2, NEVER)
    }
}

/// Shares of the chunks that follow one prompt, and how many were drawn.
fn shares(of: impl Fn(u64) -> GenerateOptions<'static>, runs: u64) -> HashMap<Vec<u32>, f64> {
    let device = Device::flex();
    let (config, mut model) = lively(2, &device);
    // Few enough chunks to count.
    let out = model.language_model.head.output_mut();
    out.weight = out.weight.clone().map(|w| w * 0.3);
    let prompts = vec![tokens(4, 1); 500];
    let mut counts: HashMap<Vec<u32>, f64> = HashMap::new();
    for seed in 0..runs {
        let generator = Generator::new(&model, &config, &prompts, of(seed), &device).unwrap();
        for chunk in generator.run() {
            *counts.entry(chunk).or_default() += 1.0;
        }
    }
    let all = counts.values().sum::<f64>();
    counts.values_mut().for_each(|count| *count /= all);
    counts
}

/// Chunks at T = 0.5 and 0.7 against what is drawn at 1, sharpened: closer in total variation than
/// 500 * 8 draws of either could be apart by chance, and far from what is not sharpened.
#[test]
fn the_exact_sampler_sharpens_what_the_head_draws() {
    let plain = shares(|seed| exactly(1.0, 1, seed), 40);
    for temperature in [0.5, 0.7] {
        let sharp = |p: f64| p.powf(1.0 / temperature);
        let z: f64 = plain.values().map(|&p| sharp(p)).sum();
        let found = shares(|seed| exactly(temperature, 4000, seed + 100), 8);
        let apart = |expected: &dyn Fn(f64) -> f64| {
            let seen: f64 = plain
                .iter()
                .map(|(chunk, &p)| (found.get(chunk).unwrap_or(&0.0) - expected(p)).abs())
                .sum();
            let unseen: f64 = found
                .iter()
                .filter(|(chunk, _)| !plain.contains_key(*chunk))
                .map(|(_, q)| q)
                .sum();
            (seen + unseen) / 2.0
        };
        let (near, far) = (apart(&|p| sharp(p) / z), apart(&|p| p));
        assert!(
            near < 0.05,
            "T = {temperature}: {near}, {} chunks",
            plain.len()
        );
        assert!(far > 0.1, "T = {temperature}: {far}");
    }
}

/// Where all draws are equal, an attempt is enough; where none are, the budget is spent and the batch
/// rule chooses.
#[test]
fn what_exact_chunks_cost_is_told() {
    let device = Device::flex();
    let (config, mut model) = lively(2, &device);
    let prompts = [tokens(4, 1), tokens(4, 2)];
    let spent = |model: &CalmModel, temperature, budget| {
        let options = exactly(temperature, budget, 3);
        let mut generator = Generator::new(model, &config, &prompts, options, &device).unwrap();
        generator.step();
        generator.spent()
    };
    let of_batch = Generator::new(&model, &config, &prompts, options(0.5, 2, NEVER), &device);
    let mut of_batch = of_batch.unwrap();
    of_batch.step();
    let batch = of_batch.spent();
    assert_eq!((batch.chunks, batch.draws, batch.exact), (2, 24, 0));
    // Draws that stand alone are cut short.
    assert!((24..48).contains(&batch.positions), "{batch:?}");
    // Three equal draws and the factory's first can't come of a budget of four where 169 chunks can.
    let flat = spent(&model, 0.3, 4);
    assert_eq!((flat.chunks, flat.draws), (2, 8));
    assert!(flat.exact < 2);
    without_noise(&mut model);
    assert_eq!(
        spent(&model, 1.0 / 3.0, 100),
        Spent {
            chunks: 2,
            draws: 6,
            positions: 12,
            exact: 2
        }
    );
}

/// A model whose head has no noise, a prompt, and the decoder's probabilities of the next chunk's two
/// tokens, `[2, 13]`.
fn without_noise_and_its_decoder(device: &Device) -> (ModelConfig, CalmModel, Vec<u32>, Vec<f64>) {
    let (config, mut model) = lively(2, device);
    without_noise(&mut model);
    // One vector that is not 0, and scores that differ: fresh weights give all tokens the same.
    let bias = &mut model.language_model.head.output_mut().bias;
    *bias = bias.take().map(|bias| bias.map(|b| b + 1.0));
    let table = &mut model.autoencoder.encoder.embedding.weight;
    *table = table.clone().map(|w| w * 20.0);
    let prompt = tokens(4, 1);
    let read = chunk_tensor(&prompt, 1, 2, device);
    let hidden = model.language_model.backbone.forward(read);
    let hidden = hidden.narrow(1, 1, 1).squeeze_dim::<2>(0);
    let head = &model.language_model.head;
    let latent = head.sample(hidden, 1, &mut HostDraws::new(1));
    let logits = model.autoencoder.logits(latent.squeeze_dim::<2>(0));
    let p = softmax(logits, 2).into_data().iter().collect();
    (config, model, prompt, p)
}

/// A chunk's tokens are independent draws from the decoder's softmaxes: 4,000 first chunks against
/// them, at the pairs that are expected 20 times or more. The statistic has a mean of its degrees of
/// freedom; five standard deviations above it come less than once in 1e5.
#[test]
fn drawn_tokens_follow_the_decoder() {
    let device = Device::flex();
    let (config, model, prompt, p) = without_noise_and_its_decoder(&device);
    let n = 4_000;
    let samplers: [ChunkSampler; 2] = [
        BatchSampler::new(1.0, 1).unwrap().into(),
        ExactSampler::new(1.0, 10, Otherwise::Fail).unwrap().into(),
    ];
    for sampler in samplers {
        let options = GenerateOptions {
            sampler,
            ..options(1.0, 2, NEVER)
        };
        let prompts = vec![prompt.clone(); n];
        let generator = Generator::new(&model, &config, &prompts, options, &device).unwrap();
        let texts = generator.drawing_tokens(7).run();
        let (mut chi, mut freedom) = (0.0, 0.0);
        for (a, b) in (0..13).flat_map(|a| (0..13).map(move |b| (a, b))) {
            let expected = n as f64 * p[a] * p[13 + b];
            if expected >= 20.0 {
                let pair = [a as u32, b as u32];
                let found = texts.iter().filter(|text| text[..] == pair).count() as f64;
                chi += (found - expected).powi(2) / expected;
                freedom += 1.0;
            }
        }
        assert!(freedom >= 10.0, "too sure to tell: {freedom}");
        let largest = p[..13].iter().copied().fold(0.0, f64::max);
        assert!(largest > 2.0 / 13.0, "too flat to tell: {largest}");
        let limit = freedom + 5.0 * (2.0f64 * freedom).sqrt();
        assert!(chi < limit, "{sampler:?}: chi-square {chi} at {freedom}");
    }
}

/// Pools whose tokens are drawn are cut short as others are, and choose what is likely.
#[test]
fn drawn_tokens_are_sharpened_by_pools() {
    let device = Device::flex();
    let (config, model, prompt, p) = without_noise_and_its_decoder(&device);
    let prompts = vec![prompt; 400];
    // Mean probability of what is chosen.
    let likely = |temperature: f64| {
        let sampler = GrowingSampler::new(temperature, 200).unwrap();
        let options = GenerateOptions {
            sampler: sampler.into(),
            ..options(1.0, 2, NEVER)
        };
        let generator = Generator::new(&model, &config, &prompts, options, &device).unwrap();
        let mut generator = generator.drawing_tokens(7);
        let texts = generator.finish();
        let spent = generator.spent();
        assert!(spent.positions <= 2 * spent.draws);
        assert_eq!(temperature < 1.0, spent.positions < 2 * spent.draws);
        let of = |text: &Vec<u32>| p[text[0] as usize] * p[13 + text[1] as usize];
        texts.iter().map(of).sum::<f64>() / texts.len() as f64
    };
    let (warm, cold) = (likely(1.0), likely(0.5));
    assert!(cold > 1.15 * warm, "{cold} at 1/2, {warm} at 1");
}
