//! What holds for any weights.

use burn::module::Param;
use burn::tensor::{Device, Int, Tensor};
use calm_autoencoder::{AutoencoderConfig, AutoencoderSettings, ChunkAutoencoder};
use calm_fixtures::{Fixture, FixtureError, gradient_sizes, values};
use calm_nn::{HostDraws, Init, RandomStream, Replay};

use crate::{Recorder, reference, small, tokens};

fn model(config: &AutoencoderConfig, device: &Device) -> ChunkAutoencoder {
    config.init(&mut Init::new(5, device))
}

fn asked(config: &AutoencoderConfig, chunks: usize) -> Vec<(&'static str, usize)> {
    let device = Device::flex();
    let mut recorder = Recorder::default();
    model(config, &device).loss(tokens(config, chunks, &device), &mut recorder);
    recorder.0
}

#[test]
fn the_loss_asks_for_draws_in_the_documented_order() {
    let both = small(); // K = 3, l = 7
    assert_eq!(
        asked(&both, 4),
        [("uniform", 12), ("normal", 28), ("uniform", 28)]
    );
    let no_tokens = AutoencoderConfig {
        settings: AutoencoderSettings {
            token_dropout: 0.0,
            ..small().settings
        },
        ..small()
    };
    assert_eq!(asked(&no_tokens, 4), [("normal", 28), ("uniform", 28)]);
    let no_latent = AutoencoderConfig {
        settings: AutoencoderSettings {
            latent_dropout: 0.0,
            ..small().settings
        },
        ..small()
    };
    assert_eq!(asked(&no_latent, 4), [("uniform", 12), ("normal", 28)]);
    let neither = AutoencoderConfig {
        settings: AutoencoderSettings {
            token_dropout: 0.0,
            ..no_latent.settings.clone()
        },
        ..no_latent
    };
    assert_eq!(asked(&neither, 4), [("normal", 28)]);
}

#[test]
fn every_parameter_gets_a_gradient() {
    let device = Device::flex().autodiff();
    let config = small();
    let model = model(&config, &device);
    let loss = model.loss(tokens(&config, 16, &device), &mut HostDraws::new(3));
    let sizes = gradient_sizes(&model, &loss.total.backward());
    assert_eq!(
        sizes.len(),
        1 + 4 * 6 + 2 * 2 + 2 * 2 + 2,
        "table, blocks, linears, norms"
    );
    for (path, size) in sizes {
        assert!(
            size.is_some_and(|g| g > 0.0 && g.is_finite()),
            "{path}: {size:?}"
        );
    }
}

#[test]
fn decoding_takes_the_largest_score() -> Result<(), FixtureError> {
    let device = Device::flex();
    let f = Fixture::load("autoencoder")?;
    let model = reference(&f, 0.0, &device)?;
    let mut random = RandomStream::new(8);
    let latent = Tensor::<1>::from_floats(random.normal(50 * 5).as_slice(), &device);
    let latent = latent.reshape([50, 5]);
    let logits = values(model.logits(latent.clone()));
    let decoded = values(model.decode(latent).float());
    assert_eq!(decoded.len(), 150);
    for (row, token) in logits.chunks(13).zip(decoded) {
        let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        assert_eq!(row[token as usize], largest);
    }
    Ok(())
}

#[test]
fn chunks_do_not_see_each_other() -> Result<(), FixtureError> {
    let device = Device::flex();
    let f = Fixture::load("autoencoder")?;
    let model = reference(&f, 0.0, &device)?;
    let before = f.int_tensor::<2>("inputs/tokens", &device)?;
    let other = Tensor::<2, Int>::from_ints([[12, 0, 7]], &device);
    let after = before.clone().slice_assign([2..3, 0..3], other);
    let encoded = |tokens| {
        let posterior = model.encode(tokens);
        (
            values(model.logits(posterior.mean.clone())),
            values(posterior.mean),
        )
    };
    let ((logits_a, mean_a), (logits_b, mean_b)) = (encoded(before), encoded(after));
    let differing = |a: &[f64], b: &[f64], width: usize| -> Vec<usize> {
        let rows = a.chunks(width).zip(b.chunks(width)).enumerate();
        rows.filter(|(_, (x, y))| x != y).map(|(i, _)| i).collect()
    };
    assert_eq!(
        differing(&mean_a, &mean_b, 5),
        [2],
        "bit-equal everywhere but in chunk 2"
    );
    assert_eq!(differing(&logits_a, &logits_b, 3 * 13), [2]);
    Ok(())
}

/// The posterior is exactly N(0, 1) where the last encoder layer is zero.
fn standard_normal_posterior(config: &AutoencoderConfig, device: &Device) -> ChunkAutoencoder {
    let mut model = model(config, device);
    let layer = &mut model.encoder.to_posterior;
    let zeros = Tensor::zeros(layer.weight.val().dims(), device);
    layer.weight = Param::from_tensor(zeros);
    model
}

#[test]
fn at_the_prior_the_kl_is_the_floor_of_every_dimension() {
    let device = Device::flex();
    let config = AutoencoderConfig {
        settings: AutoencoderSettings {
            kl_floor: 0.375,
            kl_weight: 2.0,
            ..small().settings
        },
        ..small()
    };
    let model = standard_normal_posterior(&config, &device);
    let posterior = model.encode(tokens(&config, 4, &device));
    assert!(values(posterior.kl()).iter().all(|&kl| kl == 0.0));
    let loss = model.loss(tokens(&config, 4, &device), &mut HostDraws::new(1));
    let [total, ce, kl] = [loss.total, loss.cross_entropy, loss.kl].map(|x| x.into_scalar::<f32>());
    assert_eq!(kl, 7.0 * 0.375);
    approx::assert_abs_diff_eq!(total, 3.0 * ce + 2.0 * kl, epsilon = 1e-5);
}

#[test]
fn below_the_floor_the_kl_pulls_on_nothing() {
    let device = Device::flex().autodiff();
    let sizes = |kl_weight| {
        let config = AutoencoderConfig {
            settings: AutoencoderSettings {
                kl_weight,
                ..small().settings
            },
            ..small()
        };
        let model = standard_normal_posterior(&config, &device);
        let loss = model.loss(tokens(&config, 4, &device), &mut HostDraws::new(1));
        gradient_sizes(&model, &loss.total.backward())
    };
    assert_eq!(sizes(0.0), sizes(1e3));
}

#[test]
fn the_kl_is_that_of_the_formula() {
    let device = Device::flex();
    let mean = Tensor::<2>::from_floats([[1.0, 0.0, -2.0]], &device);
    let log_std = Tensor::<2>::from_floats([[2f32.ln(), -1.0, 0.0]], &device);
    let kl = values(calm_nn::Posterior { mean, log_std }.kl());
    let expected = [
        0.5 * (1.0 + 4.0 - 1.0 - 2.0 * 2f64.ln()),
        0.5 * ((-2f64).exp() - 1.0 + 2.0),
        0.5 * 4.0,
    ];
    for (value, expected) in kl.iter().zip(expected) {
        approx::assert_abs_diff_eq!(*value, expected, epsilon = 1e-6);
    }
}

/// With every token masked the encoder sees id 0 only, and the targets are still the true tokens.
#[test]
fn masked_tokens_are_hidden_from_the_encoder_only() -> Result<(), FixtureError> {
    let device = Device::flex();
    let f = Fixture::load("autoencoder")?;
    let (masking, plain) = (reference(&f, 0.5, &device)?, reference(&f, 0.0, &device)?);
    let tokens = f.int_tensor::<2>("inputs/tokens", &device)?;
    let draws = |masked: f32| Replay::new([vec![masked; 12], vec![0.0; 20], vec![0.9; 20]]);
    let kl = |loss: calm_autoencoder::AutoencoderLoss| loss.kl.into_scalar::<f32>();
    let zeros = plain.loss(tokens.zeros_like(), &mut Replay::new([vec![0.0; 20]]));
    let all = masking.loss(tokens.clone(), &mut draws(0.0));
    let targets_are_true = all.cross_entropy.clone().into_scalar::<f32>()
        != zeros.cross_entropy.clone().into_scalar::<f32>();
    assert!(targets_are_true);
    assert_eq!(kl(all), kl(zeros));
    let none = masking.loss(tokens.clone(), &mut draws(0.9));
    assert_eq!(
        kl(none),
        kl(plain.loss(tokens, &mut Replay::new([vec![0.0; 20]])))
    );
    Ok(())
}
