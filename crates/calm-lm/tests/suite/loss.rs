//! The language model's training loss.

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use calm_likelihood_free::GenerativeHead;
use calm_nn::HostDraws;
use calm_nn::chunk_tensor;

use crate::{lively, tokens};

/// Chunk by chunk: the loss is that of predicting chunk i + 1 from the hidden state after
/// chunks 0..=i, over all windows of the batch.
#[test]
fn every_chunk_but_the_last_predicts_the_next() {
    let device = Device::flex();
    let (_, model) = lively(2, &device);
    let lm = &model.language_model;
    let text = tokens(2 * 6 * 2, 1);
    let batch = chunk_tensor(&text, 2, 2, &device);
    let loss = lm.loss(&model.autoencoder, batch.clone(), &mut HostDraws::new(5));

    let hidden = lm.backbone.forward(batch.clone()); // [2, 6, 16]
    let (mut h, mut mean, mut log_std) = (vec![], vec![], vec![]);
    for b in 0..2 {
        for i in 0..5 {
            h.push(
                hidden
                    .clone()
                    .slice([b..b + 1, i..i + 1, 0..16])
                    .reshape([1, 16]),
            );
            let next = batch
                .clone()
                .slice([b..b + 1, i + 1..i + 2, 0..2])
                .reshape([1, 2]);
            let posterior = model.autoencoder.encode(next);
            mean.push(posterior.mean);
            log_std.push(posterior.log_std);
        }
    }
    let target = calm_nn::Posterior {
        mean: Tensor::cat(mean, 0),
        log_std: Tensor::cat(log_std, 0),
    };
    let expected = lm
        .head
        .loss(Tensor::cat(h, 0), &target, &mut HostDraws::new(5));
    let (a, b): (f32, f32) = (loss.total.into_scalar(), expected.total.into_scalar());
    approx::assert_relative_eq!(a, b, max_relative = 1e-5);
}

#[test]
fn every_parameter_learns_and_the_autoencoder_does_not() {
    let device = Device::flex();
    let (_, model) = lively(2, &device);
    let lm = model.language_model.clone().train();
    let batch = chunk_tensor(&tokens(24, 2), 1, 2, &device.clone().autodiff());
    let loss = lm
        .loss(&model.autoencoder, batch, &mut HostDraws::new(1))
        .total;
    let grads = GradientsParams::from_grads(loss.backward(), &lm);
    let parameters = burn::module::list_param_ids(&lm).len();
    assert_eq!(grads.len(), parameters, "a parameter without a gradient");
}

#[test]
fn the_value_is_the_same_with_and_without_autodiff() {
    let device = Device::flex();
    let (_, model) = lively(4, &device);
    let text = tokens(32, 3);
    let value = |lm: &calm_lm::LanguageModel, device: &Device| -> f32 {
        let batch = chunk_tensor(&text, 1, 4, device);
        lm.loss(&model.autoencoder, batch, &mut HostDraws::new(9))
            .total
            .into_scalar()
    };
    let plain = value(&model.language_model, &device);
    let tracked = value(
        &model.language_model.clone().train(),
        &device.clone().autodiff(),
    );
    approx::assert_relative_eq!(plain, tracked, max_relative = 1e-5);
}
