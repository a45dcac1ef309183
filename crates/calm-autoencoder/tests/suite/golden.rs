//! Against the values of the independent reference.

use burn::tensor::{Device, Int, Tensor};
use calm_autoencoder::AutoencoderLoss;
use calm_fixtures::{Fixture, FixtureError, Golden, assert_close};
use calm_nn::Replay;

use crate::reference;

const TOLERANCE: f64 = 1e-5;

fn load(device: &Device) -> Result<(Fixture, Tensor<2, Int>), FixtureError> {
    let f = Fixture::load("autoencoder")?;
    let tokens = f.int_tensor("inputs/tokens", device)?;
    Ok((f, tokens))
}

fn floats(golden: &Golden, map: impl Fn(f64) -> f64) -> Vec<f32> {
    golden.values.iter().map(|&x| map(x) as f32).collect()
}

fn assert_loss(loss: AutoencoderLoss, f: &Fixture, case: &str) -> Result<(), FixtureError> {
    let parts = [
        ("total_loss", loss.total),
        ("cross_entropy", loss.cross_entropy),
        ("kl_loss", loss.kl),
    ];
    for (name, value) in parts {
        let expected = Golden {
            shape: vec![1],
            values: vec![f.number(&format!("outputs/{case}/{name}"))?],
        };
        assert_close(value, &expected, TOLERANCE);
    }
    Ok(())
}

#[test]
fn posterior_is_that_of_the_reference() -> Result<(), FixtureError> {
    let device = Device::flex();
    let (f, tokens) = load(&device)?;
    let posterior = reference(&f, 0.0, &device)?.encode(tokens);
    assert_close(
        posterior.mean.clone(),
        &f.golden("outputs/mean")?,
        TOLERANCE,
    );
    assert_close(
        posterior.log_std.clone(),
        &f.golden("outputs/log_std")?,
        TOLERANCE,
    );
    let kl = f.golden("outputs/sampled/kl_per_dimension")?;
    assert_close(posterior.kl(), &kl, TOLERANCE);
    let eps = floats(&f.golden("inputs/eps")?, |x| x);
    let z = posterior.sample(&mut Replay::new([eps]));
    assert_close(z, &f.golden("outputs/z")?, TOLERANCE);
    Ok(())
}

#[test]
fn scores_and_decoded_tokens_are_those_of_the_reference() -> Result<(), FixtureError> {
    let device = Device::flex();
    let (f, _) = load(&device)?;
    let model = reference(&f, 0.0, &device)?;
    for (latent, logits, tokens) in [
        ("mean", "logits_mean", "argmax_mean"),
        ("z", "logits_z", "argmax_z"),
    ] {
        let latent = f.tensor::<2>(&format!("outputs/{latent}"), &device)?;
        let expected = f.golden(&format!("outputs/{logits}"))?;
        assert_close(model.logits(latent.clone()), &expected, TOLERANCE);
        let expected = f.golden(&format!("outputs/{tokens}"))?;
        assert_close(model.decode(latent).float(), &expected, 0.0);
    }
    Ok(())
}

#[test]
fn loss_without_masks_is_that_of_the_reference() -> Result<(), FixtureError> {
    let device = Device::flex();
    let (f, tokens) = load(&device)?;
    let eps = floats(&f.golden("inputs/eps")?, |x| x);
    let loss = reference(&f, 0.0, &device)?.loss(tokens, &mut Replay::new([eps]));
    assert_loss(loss, &f, "sampled")
}

/// Uniform values just below and just above the rate give exactly the reference's masks.
#[test]
fn loss_with_both_masks_is_that_of_the_reference() -> Result<(), FixtureError> {
    let device = Device::flex();
    let (f, tokens) = load(&device)?;
    let p = f.number("config/ae_dropout")?;
    let side = |masked: bool| if masked { p - 1e-3 } else { p + 1e-3 };
    let mask = floats(&f.golden("inputs/token_mask")?, |masked| {
        side(masked == 1.0)
    });
    let eps = floats(&f.golden("inputs/eps")?, |x| x);
    let keep = floats(&f.golden("inputs/z_keep")?, |kept| side(kept == 0.0));
    let mut draws = Replay::new([mask, eps, keep]);
    let loss = reference(&f, p, &device)?.loss(tokens, &mut draws);
    assert_loss(loss, &f, "training")
}

/// The embedding is tied, so its gradient is the sum of both uses.
#[test]
fn gradients_are_those_of_the_reference() -> Result<(), FixtureError> {
    let device = Device::flex().autodiff();
    let (f, tokens) = load(&device)?;
    let model = reference(&f, 0.0, &device)?;
    let eps = floats(&f.golden("inputs/eps")?, |x| x);
    let loss = model.loss(tokens, &mut Replay::new([eps]));
    let gradients = loss.total.backward();
    let matrix = |weight: Tensor<2>| weight.grad(&gradients).expect("a gradient");
    let check = |name: &str, gradient: Tensor<2>| -> Result<(), FixtureError> {
        assert_close(
            gradient,
            &f.golden(&format!("outputs/grad_{name}"))?,
            TOLERANCE,
        );
        Ok(())
    };
    let (encoder, decoder) = (&model.encoder, &model.decoder);
    check(
        "encoder.embed_tokens.weight",
        matrix(encoder.embedding.weight.val()),
    )?;
    check(
        "encoder.squeeze_layer.weight",
        matrix(encoder.squeeze.weight.val()).transpose(),
    )?;
    let to_posterior = matrix(encoder.to_posterior.weight.val()).transpose();
    check("encoder.hidden_to_latent.weight", to_posterior)?;
    let norm = decoder
        .norm
        .gamma
        .val()
        .grad(&gradients)
        .expect("a gradient");
    assert_close(
        norm,
        &f.golden("outputs/grad_decoder.norm.weight")?,
        TOLERANCE,
    );
    Ok(())
}

/// The path with a graph and the path without compute the same loss.
#[test]
fn the_loss_does_not_depend_on_autodiff() -> Result<(), FixtureError> {
    let device = Device::flex().autodiff();
    let (f, tokens) = load(&device)?;
    let eps = floats(&f.golden("inputs/eps")?, |x| x);
    let loss = reference(&f, 0.0, &device)?.loss(tokens, &mut Replay::new([eps]));
    assert_loss(loss, &f, "sampled")
}
