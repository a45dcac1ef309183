//! Generation with the nano preset's model, batch 1, in tokens per second.

use calm_benches::{device, lively, nano, tokens};
use calm_likelihood_free::BatchSampler;
use calm_lm::{GenerateOptions, Generator};
use divan::Bencher;
use divan::counter::ItemsCount;

fn main() {
    divan::main();
}

/// 64 tokens of prompt, 64 new ones, at temperature 1/n with a pool of 200.
#[divan::bench(args = [1, 2], sample_count = 10, sample_size = 1)]
fn generate_64(bencher: Bencher, n: u32) {
    let (device, config) = (device(), nano());
    let model = lively(&config, &device);
    let prompts = [tokens(64, config.vocab_size)];
    let sampler = BatchSampler::new(1.0 / f64::from(n), 200).expect("1/n");
    // No id of the vocabulary ends the text early.
    let options = GenerateOptions {
        sampler: sampler.into(),
        max_tokens: 64,
        end_of_text: u32::MAX,
        lead_in: &[],
        seed: 1,
    };
    bencher.counter(ItemsCount::new(64usize)).bench_local(|| {
        Generator::new(&model, &config, &prompts, options, &device)
            .expect("a prompt")
            .run()
    });
}
