//! Golden values and properties of the backbone.

mod branches;
mod cache;
mod config;
mod golden;

use burn::tensor::{Device, Int, Tensor};
use calm_backbone::{Backbone, BackboneConfig, CompressorKind};
use calm_fixtures::{Fixture, FixtureError, Weights, values};
use calm_nn::{Init, RandomStream, TransformerConfig};

/// A small configuration in which no two sizes are equal.
fn small(kv_heads: usize) -> BackboneConfig {
    let transformer = TransformerConfig {
        layers: 2,
        hidden_size: 16,
        intermediate_size: 20,
        heads: 4,
        kv_heads,
        rope_theta: 10_000.0,
        norm_eps: 1e-6,
    };
    BackboneConfig {
        vocab_size: 23,
        chunk_size: 3,
        chunk_context: 4,
        compressor: CompressorKind::Mlp,
        transformer,
    }
}

/// A backbone whose weights are large enough for attention to matter.
fn lively(config: &BackboneConfig, device: &Device) -> Backbone {
    let mut model = config.init(&mut Init::new(7, device));
    for block in &mut model.transformer.layers {
        let attention = &mut block.attention;
        for linear in [
            &mut attention.q,
            &mut attention.k,
            &mut attention.v,
            &mut attention.o,
        ] {
            linear.weight = linear.weight.clone().map(|w| (w * 20.0).detach());
        }
    }
    model
}

/// `[batch, steps, K]` random tokens.
fn tokens(config: &BackboneConfig, batch: usize, steps: usize, seed: u64) -> Tensor<3, Int> {
    let mut random = RandomStream::new(seed);
    let n = batch * steps * config.chunk_size;
    let ids: Vec<i64> = (0..n)
        .map(|_| random.below(config.vocab_size) as i64)
        .collect();
    let ids = Tensor::<1, Int>::from_ints(ids.as_slice(), &Device::flex());
    ids.reshape([batch, steps, config.chunk_size])
}

/// Largest absolute difference of two tensors of one shape.
fn distance<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> f64 {
    assert_eq!(a.dims(), b.dims());
    let pairs = values(a).into_iter().zip(values(b));
    pairs
        .map(|(x, y)| (x - y).abs())
        .fold(0.0, |worst: f64, d| {
            assert!(d.is_finite(), "a value that is not finite");
            worst.max(d)
        })
}

/// The sizes of the fixture's backbone.
fn reference_config(f: &Fixture) -> Result<BackboneConfig, FixtureError> {
    Ok(BackboneConfig {
        vocab_size: f.whole("config/vocab_size")?,
        chunk_size: f.whole("config/patch_size")?,
        chunk_context: 0,
        compressor: CompressorKind::Mlp,
        transformer: TransformerConfig {
            layers: f.whole("config/num_hidden_layers")?,
            hidden_size: f.whole("config/hidden_size")?,
            intermediate_size: f.whole("config/intermediate_size")?,
            heads: f.whole("config/num_attention_heads")?,
            kv_heads: f.whole("config/num_key_value_heads")?,
            rope_theta: f.number("config/rope_theta")?,
            norm_eps: f.number("config/rms_norm_eps")?,
        },
    })
}

/// The backbone of the fixture.
fn reference(f: &Fixture, device: &Device) -> Result<Backbone, FixtureError> {
    let config = reference_config(f)?;
    config.validate().expect("the fixture's sizes fit together");
    let mut model = config.init(&mut Init::new(0, device));
    let mut w = Weights::new(f, device)?;
    let compressor = &mut model.compressor;
    w.embedding("transformer.embed_tokens", &mut compressor.embedding)?;
    w.linear("embed_proj.0", &mut compressor.widen)?;
    let narrow = compressor.narrow.as_mut().expect("an MLP");
    w.linear("embed_proj.2", narrow)?;
    w.layer_norm("embed_proj.3", &mut compressor.norm)?;
    for (i, block) in model.transformer.layers.iter_mut().enumerate() {
        let (attention, mlp) = (&mut block.attention, &mut block.mlp);
        w.decoder_layer(
            &format!("transformer.layers.{i}"),
            [
                &mut attention.q,
                &mut attention.k,
                &mut attention.v,
                &mut attention.o,
            ],
            [&mut mlp.gate, &mut mlp.up, &mut mlp.down],
            [&mut block.input_norm, &mut block.post_attention_norm],
        )?;
    }
    w.rms_norm("transformer.norm", &mut model.transformer.norm)?;
    w.finish()?;
    Ok(model)
}
