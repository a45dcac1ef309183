//! Whole training steps of the nano preset, in tokens per second: forward, backward, clipping,
//! AdamW.

use burn::module::Module;
use burn::optim::GradientsParams;
use calm_benches::{device, lively, nano, tokens};
use calm_nn::{HostDraws, chunk_tensor};
use calm_train::{adamw, clip_by_global_norm, preset};
use divan::Bencher;
use divan::counter::ItemsCount;

fn main() {
    divan::main();
}

#[divan::bench(args = [2, 8], sample_count = 10, sample_size = 1)]
fn autoencoder(bencher: Bencher, windows: usize) {
    let (device, config) = (device(), nano());
    let optim = preset::resolve("nano", &[]).expect("nano").optim;
    let autodiff = device.clone().autodiff();
    let mut model = Some(lively(&config, &device).autoencoder.train());
    let mut optimizer = adamw(&optim, model.as_ref().expect("a model"));
    let ids = tokens(windows * config.window, config.vocab_size);
    let mut step = 0;
    bencher.counter(ItemsCount::new(ids.len())).bench_local(|| {
        let current = model.take().expect("a model");
        let batch = chunk_tensor(&ids, windows * config.steps(), config.chunk_size, &autodiff);
        step += 1;
        let loss = current
            .loss(batch.squeeze_dim(1), &mut HostDraws::new(step))
            .total;
        let mut grads = GradientsParams::from_grads(loss.backward(), &current);
        clip_by_global_norm(&current, &mut grads, 1.0);
        model = Some(optimizer.step(1e-4, current, grads));
        device.sync().expect("the device");
    });
}

#[divan::bench(args = [2, 8], sample_count = 10, sample_size = 1)]
fn language_model(bencher: Bencher, windows: usize) {
    let (device, config) = (device(), nano());
    let optim = preset::resolve("nano", &[]).expect("nano").optim;
    let autodiff = device.clone().autodiff();
    let whole = lively(&config, &device);
    let mut model = Some(whole.language_model.train());
    let mut optimizer = adamw(&optim, model.as_ref().expect("a model"));
    let ids = tokens(windows * config.window, config.vocab_size);
    let mut step = 0;
    bencher.counter(ItemsCount::new(ids.len())).bench_local(|| {
        let current = model.take().expect("a model");
        let batch = chunk_tensor(&ids, windows, config.chunk_size, &autodiff);
        step += 1;
        let loss = current
            .loss(&whole.autoencoder, batch, &mut HostDraws::new(step))
            .total;
        let mut grads = GradientsParams::from_grads(loss.backward(), &current);
        clip_by_global_norm(&current, &mut grads, 1.0);
        model = Some(optimizer.step(1e-4, current, grads));
        device.sync().expect("the device");
    });
}
