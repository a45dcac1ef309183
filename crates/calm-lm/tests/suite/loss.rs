//! The language model's training loss.

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::activation::{log_softmax, silu};
use burn::tensor::{Device, Tensor};
use calm_likelihood_free::GenerativeHead;
use calm_lm::{DecoderKind, HeadKind, HeadSettings, LanguageModel, Objective};
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

/// Energy, log and Brier parts by their weights, of the same draws; the auxiliary heads aside.
#[test]
fn objectives_add_their_weighted_parts_of_the_same_draws() {
    let device = Device::flex();
    let (mut config, model) = lively(2, &device);
    let plain = &model.language_model;
    let (plain_flops, sizes) = (config.language_model_train_flops(8), config.clone());
    config.objective = Objective {
        energy: 0.5,
        log: 2.0,
        brier: 3.0,
        draws: 3,
    };
    config.validate().unwrap();
    // The decoder forward and backward to its inputs; of the overlaps both factors have gradients.
    let extra = 2 * 3 * sizes.autoencoder().decoder_macs() + 3 * 9 * 2 * 13;
    let flops = config.language_model_train_flops(8) - plain_flops;
    approx::assert_relative_eq!(flops, 2.0 * extra as f64 / 2.0, max_relative = 1e-9);
    let mut lm = config.init_language_model(1, &device);
    lm.backbone = plain.backbone.clone();
    lm.head = plain.head.clone();

    let batch = chunk_tensor(&tokens(12, 1), 1, 2, &device);
    let found = lm.loss(&model.autoencoder, batch.clone(), &mut HostDraws::new(5));
    let energy = plain.loss(&model.autoencoder, batch.clone(), &mut HostDraws::new(5));

    // From plain operations: the first three of the eight draws that the energy score has.
    let hidden = plain.backbone.forward(batch.clone().narrow(1, 0, 5));
    let drawn = plain
        .head
        .sample(hidden.squeeze_dim::<2>(0), 8, &mut HostDraws::new(5));
    let next = batch.narrow(1, 1, 5).reshape([10, 1]);
    let p: Vec<Tensor<3>> = (0..3)
        .map(|n| {
            let latent = drawn.clone().narrow(0, n, 1).squeeze_dim::<2>(0);
            log_softmax(model.autoencoder.logits(latent), 2) // [5, 2, 13]
        })
        .collect();
    let of_truth = |n: usize| -> Vec<f64> {
        let logs = p[n].clone().reshape([10, 13]).gather(1, next.clone());
        logs.into_data().iter().collect()
    };
    let (mut log, mut brier) = (0.0, 0.0);
    for at in 0..5 {
        let chunk = |n: usize| [of_truth(n)[2 * at], of_truth(n)[2 * at + 1]];
        let mean = (0..3)
            .map(|n| (chunk(n)[0] + chunk(n)[1]).exp())
            .sum::<f64>()
            / 3.0;
        log -= mean.ln() / 5.0;
        let overlap = |n: usize, m: usize, k: usize| -> f64 {
            let row = |n: usize| p[n].clone().slice([at..at + 1, k..k + 1, 0..13]).exp();
            f64::from((row(n) * row(m)).sum().into_scalar::<f32>())
        };
        for j in 1..=2 {
            let hit = |n: usize| chunk(n)[..j].iter().sum::<f64>().exp();
            let hits = (0..3).map(hit).sum::<f64>() / 3.0;
            let pairs = [(0, 1), (0, 2), (1, 2)];
            let meet = |&(n, m): &(usize, usize)| (0..j).map(|k| overlap(n, m, k)).product::<f64>();
            let meets = pairs.iter().map(meet).sum::<f64>() / 3.0;
            brier -= (2.0 * hits - meets) / 10.0;
        }
    }
    let part = |name: &str| -> f64 {
        let (_, value) = found.parts.iter().find(|(part, _)| *part == name).unwrap();
        f64::from(value.clone().into_scalar::<f32>())
    };
    approx::assert_relative_eq!(part("log_score"), log, max_relative = 1e-5);
    approx::assert_relative_eq!(part("brier_loss"), brier, max_relative = 1e-4);
    let energy = f64::from(energy.total.into_scalar::<f32>());
    let total = f64::from(found.total.into_scalar::<f32>());
    let expected = 0.5 * energy + 2.0 * log + 3.0 * brier;
    approx::assert_relative_eq!(total, expected, max_relative = 1e-5);
}

/// Without the energy score too, through a decoder that is itself no part of the graph.
#[test]
fn by_probabilities_alone_every_parameter_learns() {
    let device = Device::flex();
    let (mut config, model) = lively(2, &device);
    config.objective = Objective {
        energy: 0.0,
        log: 1.0,
        brier: 1.0,
        draws: 2,
    };
    let mut lm = config.init_language_model(1, &device);
    lm.backbone = model.language_model.backbone.clone();
    lm.head = model.language_model.head.clone();
    let lm = lm.train();
    let batch = chunk_tensor(&tokens(24, 2), 1, 2, &device.clone().autodiff());
    let loss = lm.loss(&model.autoencoder, batch, &mut HostDraws::new(1));
    let names: Vec<&str> = loss.parts.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["log_score", "brier_loss"]);
    let grads = GradientsParams::from_grads(loss.total.backward(), &lm);
    let parameters = burn::module::list_param_ids(&lm).len();
    assert_eq!(grads.len(), parameters, "a parameter without a gradient");
}

#[test]
fn objectives_that_no_head_can_be_trained_by_are_refused() {
    let (config, _) = lively(2, &Device::flex());
    let head = &config.head;
    let refused = |objective: Objective, head: &HeadSettings| {
        let error = objective
            .validate(head, DecoderKind::Autoencoder)
            .expect_err("refused");
        error.to_string()
    };
    let usual = Objective::default();
    let of = |energy, log, brier, draws| Objective {
        energy,
        log,
        brier,
        draws,
    };
    let valid = |objective: Objective, head: &HeadSettings| {
        objective.validate(head, DecoderKind::Autoencoder).is_ok()
    };
    assert!(valid(usual, head));
    assert!(refused(of(-1.0, 0.0, 0.0, 4), head).contains("model.objective.energy"));
    assert!(refused(of(0.0, f64::NAN, 0.0, 4), head).contains("model.objective.log"));
    assert!(refused(of(0.0, 0.0, 0.0, 4), head).contains("one part at least"));
    assert!(refused(of(0.0, 0.0, 1.0, 1), head).contains("draws"));
    assert!(refused(of(0.0, 1.0, 0.0, 0), head).contains("draws"));
    assert!(refused(of(1.0, 1.0, 0.0, 9), head).contains("samples"));
    assert!(valid(of(0.0, 1.0, 0.0, 9), head));
    let flow = HeadSettings {
        kind: HeadKind::Flow,
        ..head.clone()
    };
    assert!(refused(of(1.0, 1.0, 0.0, 4), &flow).contains("kind"));
    assert!(valid(usual, &flow));
    let local = of(1.0, 1.0, 0.0, 4).validate(head, DecoderKind::Local);
    assert!(local.expect_err("refused").to_string().contains("local"));
    assert!(usual.validate(head, DecoderKind::Local).is_ok());
}
