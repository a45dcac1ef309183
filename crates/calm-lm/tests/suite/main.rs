//! Tests of the composed model.

mod checkpoint;
mod checkpointing;
mod config;
mod generate;
mod local;
mod local_golden;
mod loss;
mod released;
mod released_refusals;
mod rollout;

use burn::tensor::Device;
use calm_lm::{
    AutoencoderSettings, CalmModel, CompressorKind, DecoderKind, HeadSettings,
    LocalDecoderSettings, ModelConfig, Objective,
};
use calm_nn::{Init, RandomStream, TransformerConfig};

/// A small model of chunk size `k`.
pub(crate) fn config(k: usize) -> ModelConfig {
    ModelConfig {
        vocab_size: 13,
        chunk_size: k,
        chunk_context: 1,
        compressor: CompressorKind::Mlp,
        decoder: DecoderKind::Autoencoder,
        latent_size: 6,
        window: 8 * k,
        init_std: 0.02,
        zero_init_residual: false,
        aux_weight: 0.0,
        objective: Objective::default(),
        autoencoder: AutoencoderSettings {
            hidden_size: 16,
            intermediate_size: 20,
            encoder_layers: 2,
            decoder_layers: 2,
            norm_eps: 1e-6,
            token_dropout: 0.15,
            latent_dropout: 0.15,
            kl_weight: 1e-3,
            kl_floor: 0.5,
        },
        backbone: TransformerConfig {
            layers: 2,
            hidden_size: 16,
            intermediate_size: 24,
            heads: 4,
            kv_heads: 2,
            rope_theta: 10_000.0,
            norm_eps: 1e-6,
        },
        head: HeadSettings {
            blocks: 1,
            noise_size: 5,
            samples: 4,
            posterior_samples: 6,
            alpha: 1.0,
            ..HeadSettings::default()
        },
        local: LocalDecoderSettings::default(),
    }
}

/// The model of [`config`] with a lively last layer: at the usual zero start all samples
/// coincide and generation is a sham.
pub(crate) fn lively(k: usize, device: &Device) -> (ModelConfig, CalmModel) {
    let config = config(k);
    let mut model = config.init(7, device);
    let out = model.language_model.head.output_mut();
    *out = Init::new(3, device).linear(16, 6);
    out.weight = out.weight.clone().map(|w| w * 200.0);
    (config, model)
}

/// Makes the energy head deaf to its noise: all its samples are equal.
pub(crate) fn without_noise(model: &mut CalmModel) {
    let head = model.language_model.head.energy_mut();
    let weight = &mut head.expect("an energy head").noise_in.weight;
    *weight = weight.clone().map(|w| w * 0.0);
}

/// `n` token ids, none of them the last one, which the tests take for end-of-text.
pub(crate) fn tokens(n: usize, seed: u64) -> Vec<u32> {
    let mut stream = RandomStream::new(seed);
    (0..n).map(|_| stream.below(12) as u32).collect()
}
