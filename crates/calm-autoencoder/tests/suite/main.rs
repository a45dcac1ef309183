//! Golden values and properties of the chunk autoencoder.

mod config;
mod golden;
mod properties;

use burn::tensor::{Device, Int, Tensor};
use calm_autoencoder::{
    AutoencoderConfig, AutoencoderSettings, ChunkAutoencoder, FeedForwardBlock,
};
use calm_fixtures::{Fixture, FixtureError, Weights};
use calm_nn::{Draws, Init, RandomStream};

/// A small configuration in which no two sizes are equal.
fn small() -> AutoencoderConfig {
    AutoencoderConfig {
        vocab_size: 17,
        chunk_size: 3,
        latent_size: 7,
        settings: AutoencoderSettings {
            hidden_size: 8,
            intermediate_size: 12,
            encoder_layers: 4,
            decoder_layers: 2,
            norm_eps: 1e-6,
            token_dropout: 0.15,
            latent_dropout: 0.15,
            kl_weight: 1e-3,
            kl_floor: 0.5,
        },
    }
}

/// `[chunks, K]` random tokens.
fn tokens(config: &AutoencoderConfig, chunks: usize, device: &Device) -> Tensor<2, Int> {
    let mut random = RandomStream::new(99);
    let n = chunks * config.chunk_size;
    let ids: Vec<i64> = (0..n)
        .map(|_| random.below(config.vocab_size) as i64)
        .collect();
    Tensor::<1, Int>::from_ints(ids.as_slice(), device).reshape([chunks, config.chunk_size])
}

/// Notes what is asked for and answers with 0.5 throughout.
#[derive(Default)]
struct Recorder(Vec<(&'static str, usize)>);

impl Draws for Recorder {
    fn normal(&mut self, n: usize, device: &Device) -> Tensor<1> {
        self.0.push(("normal", n));
        Tensor::full([n], 0.5, device)
    }

    fn uniform(&mut self, n: usize, device: &Device) -> Tensor<1> {
        self.0.push(("uniform", n));
        Tensor::full([n], 0.5, device)
    }
}

/// The autoencoder of the fixture; `dropout` of both kinds.
fn reference(f: &Fixture, dropout: f64, device: &Device) -> Result<ChunkAutoencoder, FixtureError> {
    let config = AutoencoderConfig {
        vocab_size: f.whole("config/vocab_size")?,
        chunk_size: f.whole("config/patch_size")?,
        latent_size: f.whole("config/latent_size")?,
        settings: AutoencoderSettings {
            hidden_size: f.whole("config/hidden_size")?,
            intermediate_size: f.whole("config/intermediate_size")?,
            encoder_layers: f.whole("config/num_encoder_layers")?,
            decoder_layers: f.whole("config/num_decoder_layers")?,
            norm_eps: f.number("config/rms_norm_eps")?,
            token_dropout: dropout,
            latent_dropout: dropout,
            kl_weight: f.number("config/kl_weight")?,
            kl_floor: f.number("config/kl_clamp")?,
        },
    };
    config.validate().expect("the fixture's sizes fit together");
    let mut model = config.init(&mut Init::new(0, device));
    let mut w = Weights::new(f, device)?;
    let (encoder, decoder) = (&mut model.encoder, &mut model.decoder);
    w.embedding("encoder.embed_tokens", &mut encoder.embedding)?;
    let stages = encoder
        .token_blocks
        .iter_mut()
        .chain(&mut encoder.chunk_blocks);
    blocks(&mut w, "encoder.encoder_layers", stages)?;
    w.linear("encoder.squeeze_layer", &mut encoder.squeeze)?;
    w.rms_norm("encoder.norm", &mut encoder.norm)?;
    w.linear("encoder.hidden_to_latent", &mut encoder.to_posterior)?;
    w.linear("decoder.latent_to_hidden", &mut decoder.from_latent)?;
    let stages = decoder
        .chunk_blocks
        .iter_mut()
        .chain(&mut decoder.token_blocks);
    blocks(&mut w, "decoder.decoder_layers", stages)?;
    w.linear("decoder.expand_layer", &mut decoder.expand)?;
    w.rms_norm("decoder.norm", &mut decoder.norm)?;
    w.finish()?;
    Ok(model)
}

fn blocks<'a>(
    w: &mut Weights<'_>,
    prefix: &str,
    blocks: impl Iterator<Item = &'a mut FeedForwardBlock>,
) -> Result<(), FixtureError> {
    for (i, block) in blocks.enumerate() {
        w.rms_norm(&format!("{prefix}.{i}.layernorm"), &mut block.norm)?;
        w.linear(&format!("{prefix}.{i}.mlp.gate_proj"), &mut block.mlp.gate)?;
        w.linear(&format!("{prefix}.{i}.mlp.up_proj"), &mut block.mlp.up)?;
        w.linear(&format!("{prefix}.{i}.mlp.down_proj"), &mut block.mlp.down)?;
    }
    Ok(())
}
