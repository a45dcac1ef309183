//! Against the values of the independent reference.

use burn::module::Param;
use burn::tensor::{Device, Int, Tensor};
use calm_backbone::{BackboneConfig, CompressorKind};
use calm_fixtures::{Fixture, FixtureError, Golden, assert_close};
use calm_nn::{CachedModel, Init};

use crate::{reference, reference_config};

const TOLERANCE: f64 = 1e-5;

fn load(device: &Device) -> Result<(Fixture, Tensor<3, Int>), FixtureError> {
    let f = Fixture::load("backbone")?;
    // Two windows of ten tokens are two windows of five chunks of K = 2.
    let tokens = f
        .int_tensor::<2>("inputs/tokens", device)?
        .reshape([2, 5, 2]);
    Ok((f, tokens))
}

#[test]
fn compressed_chunks_are_those_of_the_reference() -> Result<(), FixtureError> {
    let device = Device::flex();
    let (f, tokens) = load(&device)?;
    let compressed = reference(&f, &device)?.compressor.forward(tokens);
    assert_close(compressed, &f.golden("outputs/embed_proj")?, TOLERANCE);
    Ok(())
}

#[test]
fn chunks_with_the_tokens_before_them_are_those_of_the_reference() -> Result<(), FixtureError> {
    let device = Device::flex();
    let (f, tokens) = load(&device)?;
    let given = reference(&f, &device)?.compressor;
    let config = BackboneConfig {
        chunk_context: f.whole("inputs/context")?,
        ..reference_config(&f)?
    };
    let mut compressor = config.init(&mut Init::new(0, &device)).compressor;
    // A matrix of the reference is [out, in].
    let widen = f.tensor::<2>("inputs/context_widen", &device)?.transpose();
    compressor.widen.weight = Param::from_tensor(widen);
    compressor.widen.bias = given.widen.bias;
    compressor.embedding = given.embedding;
    compressor.narrow = given.narrow;
    compressor.norm = given.norm;
    assert_close(
        compressor.forward(tokens),
        &f.golden("outputs/embed_proj_with_context")?,
        TOLERANCE,
    );
    Ok(())
}

#[test]
fn chunks_of_one_layer_are_those_of_the_reference() -> Result<(), FixtureError> {
    let device = Device::flex();
    let (f, tokens) = load(&device)?;
    let given = reference(&f, &device)?.compressor;
    let config = BackboneConfig {
        compressor: CompressorKind::Linear,
        ..reference_config(&f)?
    };
    let mut compressor = config.init(&mut Init::new(0, &device)).compressor;
    let weight = f.tensor::<2>("inputs/linear", &device)?.transpose();
    compressor.widen.weight = Param::from_tensor(weight);
    let bias = f.tensor::<1>("inputs/linear_bias", &device)?;
    compressor.widen.bias = Some(Param::from_tensor(bias));
    compressor.embedding = given.embedding;
    compressor.norm = given.norm;
    assert_close(
        compressor.forward(tokens),
        &f.golden("outputs/embed_proj_linear")?,
        TOLERANCE,
    );
    Ok(())
}

/// The final norm with weight 1 stands after the only layer left; it is applied here in f64.
#[test]
fn the_first_layer_is_that_of_the_reference() -> Result<(), FixtureError> {
    let device = Device::flex();
    let (f, tokens) = load(&device)?;
    let mut model = reference(&f, &device)?;
    model.transformer.layers.truncate(1);
    model.transformer.norm.gamma = Param::from_tensor(Tensor::ones([16], &device));
    let Golden { shape, values } = f.golden("outputs/after_first_layer")?;
    let normed = values.chunks(16).flat_map(|row| {
        let square = row.iter().map(|x| x * x).sum::<f64>() / 16.0;
        row.iter().map(move |x| x / (square + 1e-6).sqrt())
    });
    let expected = Golden {
        shape,
        values: normed.collect(),
    };
    assert_close(model.forward(tokens), &expected, TOLERANCE);
    Ok(())
}

#[test]
fn hidden_states_are_those_of_the_reference() -> Result<(), FixtureError> {
    let expected = Fixture::load("backbone")?.golden("outputs/hidden_states")?;
    for device in [Device::flex(), Device::flex().autodiff()] {
        let (f, tokens) = load(&device)?;
        assert_close(
            reference(&f, &device)?.forward(tokens),
            &expected,
            TOLERANCE,
        );
    }
    Ok(())
}

#[test]
fn cached_hidden_states_are_those_of_the_reference() -> Result<(), FixtureError> {
    let device = Device::flex();
    let (f, tokens) = load(&device)?;
    let model = reference(&f, &device)?;
    let mut cache = model.cache(2, 5, &device);
    let prefill = model.step(tokens.clone().narrow(1, 0, 3), &[0, 0], &mut cache);
    let fourth = model.step(tokens.clone().narrow(1, 3, 1), &[0, 0], &mut cache);
    let fifth = model.step(tokens.narrow(1, 4, 1), &[0, 0], &mut cache);
    let all = Tensor::cat(vec![prefill, fourth, fifth], 1);
    assert_close(all, &f.golden("outputs/hidden_states")?, TOLERANCE);
    Ok(())
}
