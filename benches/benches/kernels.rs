//! Single operations at the sizes of the nano preset: energy score, cross-entropy, random draws.

use burn::tensor::{Distribution, Tensor};
use calm_benches::{device, nano, tokens};
use calm_likelihood_free::energy_score;
use calm_nn::{RandomStream, chunk_tensor, cross_entropy};
use divan::Bencher;
use divan::counter::ItemsCount;

fn main() {
    divan::main();
}

/// Forward and backward at 256 positions, N = 8, M = 100.
#[divan::bench(sample_count = 20, sample_size = 1)]
fn energy_score_256_positions(bencher: Bencher) {
    let (device, config) = (device().autodiff(), nano());
    let draw = |n: usize| {
        let shape = [n, 256, config.latent_size];
        Tensor::<3>::random(shape, Distribution::Normal(0.0, 1.0), &device)
    };
    let (samples, targets) = (draw(8).require_grad(), draw(100));
    bencher.bench_local(|| {
        let loss = energy_score(samples.clone(), targets.clone(), 1.0)
            .loss()
            .mean();
        let gradient = samples.grad(&loss.backward());
        device.sync().expect("the device");
        gradient
    });
}

/// Forward and backward over 2,048 rows.
#[divan::bench(sample_count = 20, sample_size = 1)]
fn cross_entropy_2048_rows(bencher: Bencher) {
    let (device, config) = (device().autodiff(), nano());
    let shape = [2048, config.vocab_size];
    let logits = Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), &device).require_grad();
    let ids = tokens(2048, config.vocab_size);
    let targets = chunk_tensor(&ids, 1, 1, &device).reshape([2048]);
    bencher.counter(ItemsCount::new(2048usize)).bench_local(|| {
        let loss = cross_entropy(logits.clone(), targets.clone());
        let gradient = logits.grad(&loss.backward());
        device.sync().expect("the device");
        gradient
    });
}

/// Normal numbers on the host.
#[divan::bench(sample_count = 20)]
fn normal_draws_1m(bencher: Bencher) {
    let mut stream = RandomStream::new(1);
    bencher
        .counter(ItemsCount::new(1usize << 20))
        .bench_local(|| stream.normal(1 << 20));
}
