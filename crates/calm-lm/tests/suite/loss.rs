//! The language model's training loss.

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::activation::{log_softmax, silu};
use burn::tensor::{Device, Tensor};
use calm_likelihood_free::GenerativeHead;
use calm_lm::LanguageModel;
use calm_nn::{Cost, HostDraws, chunk_tensor};

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

#[test]
fn auxiliary_heads_add_their_weighted_cross_entropy() {
    let device = Device::flex();
    let (mut config, model) = lively(2, &device);
    let plain_flops = config.language_model_train_flops(8);
    config.aux_weight = 0.5;
    config.init_std = 0.3;
    let with = config.init_language_model(3, &device);
    let without = with.clone().without_auxiliary();
    let auxiliary = config.auxiliary().unwrap();
    let count = (with.num_params() - without.num_params()) as u64;
    assert_eq!(auxiliary.parameters(), count);
    let macs = 2 * 16 * 16 + 2 * 16 * 16 + 2 * 13 * 16;
    assert_eq!(auxiliary.forward_macs(8), macs);
    let flops = config.language_model_train_flops(8) - plain_flops;
    approx::assert_relative_eq!(flops, 6.0 * macs as f64 / 2.0, max_relative = 1e-9);

    let batch = chunk_tensor(&tokens(12, 1), 1, 2, &device);
    let loss = |lm: &LanguageModel| -> f32 {
        let mut draws = HostDraws::new(5);
        let loss = lm.loss(&model.autoencoder, batch.clone(), &mut draws);
        loss.total.into_scalar()
    };
    // The heads' formula, position by position, from plain operations.
    let heads = with.auxiliary.as_ref().unwrap();
    let seen = batch.clone().narrow(1, 0, 5);
    let hidden = with.backbone.forward(seen).squeeze_dim::<2>(0);
    let inner = silu(heads.up.forward(heads.norm.forward(hidden.clone())));
    let each = heads.expand.forward(hidden + heads.down.forward(inner));
    let log_p = log_softmax(heads.output.forward(each.reshape([10, 16])), 1);
    let next = batch.clone().narrow(1, 1, 5).reshape([10, 1]);
    let named: f32 = (-log_p.gather(1, next)).mean().into_scalar();
    approx::assert_relative_eq!(
        loss(&with) - loss(&without),
        0.5 * named,
        max_relative = 1e-3
    );
}
