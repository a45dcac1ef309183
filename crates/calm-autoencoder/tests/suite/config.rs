//! What configurations accept, and what they say about size.

use burn::module::Module;
use burn::tensor::Device;
use calm_autoencoder::{AutoencoderConfig, AutoencoderSettings};
use calm_nn::{ConfigError, Cost, Init};

use crate::small;

fn refused(change: impl FnOnce(&mut AutoencoderConfig)) -> ConfigError {
    let mut config = small();
    change(&mut config);
    config.validate().expect_err("a refusal")
}

#[test]
fn zero_sizes_are_refused_by_name() {
    let zero = |field| ConfigError::Zero { field };
    assert_eq!(refused(|c| c.vocab_size = 0), zero("vocab_size"));
    assert_eq!(refused(|c| c.chunk_size = 0), zero("chunk_size"));
    assert_eq!(refused(|c| c.latent_size = 0), zero("latent_size"));
    assert_eq!(refused(|c| c.settings.hidden_size = 0), zero("hidden_size"));
    assert_eq!(
        refused(|c| c.settings.intermediate_size = 0),
        zero("intermediate_size")
    );
    assert_eq!(
        refused(|c| c.settings.encoder_layers = 0),
        zero("encoder_layers")
    );
    assert_eq!(
        refused(|c| c.settings.decoder_layers = 0),
        zero("decoder_layers")
    );
}

#[test]
fn odd_layer_counts_are_refused() {
    let field = |error| match error {
        ConfigError::NotMultiple {
            field, divisor: 2, ..
        } => field,
        other => panic!("{other}"),
    };
    assert_eq!(
        field(refused(|c| c.settings.encoder_layers = 3)),
        "encoder_layers"
    );
    assert_eq!(
        field(refused(|c| c.settings.decoder_layers = 1)),
        "decoder_layers"
    );
}

#[test]
fn rates_and_weights_outside_their_range_are_refused() {
    let field = |error| match error {
        ConfigError::Range { field, .. } => field,
        other => panic!("{other}"),
    };
    for bad in [1.0, -0.1, f64::NAN, f64::INFINITY] {
        assert_eq!(
            field(refused(|c| c.settings.token_dropout = bad)),
            "token_dropout"
        );
        assert_eq!(
            field(refused(|c| c.settings.latent_dropout = bad)),
            "latent_dropout"
        );
    }
    for bad in [-1e-9, f64::NAN, f64::INFINITY] {
        assert_eq!(field(refused(|c| c.settings.kl_weight = bad)), "kl_weight");
        assert_eq!(field(refused(|c| c.settings.kl_floor = bad)), "kl_floor");
        assert_eq!(field(refused(|c| c.settings.norm_eps = bad)), "norm_eps");
    }
    let mut config = small();
    (
        config.settings.token_dropout,
        config.settings.latent_dropout,
        config.settings.kl_weight,
    ) = (0.0, 0.0, 0.0);
    assert_eq!(config.validate(), Ok(()));
}

#[test]
fn a_configuration_survives_json_and_unknown_keys_do_not() {
    let text = serde_json::to_string(&small()).unwrap();
    assert_eq!(
        serde_json::from_str::<AutoencoderConfig>(&text).unwrap(),
        small()
    );
    let unknown = text.replacen('{', "{\"beta\":1,", 1);
    let error = serde_json::from_str::<AutoencoderConfig>(&unknown).unwrap_err();
    assert!(error.to_string().contains("beta"), "{error}");
}

#[test]
fn counted_parameters_are_those_of_the_module() {
    let base = small();
    let configs = [
        base.clone(),
        AutoencoderConfig {
            settings: AutoencoderSettings {
                encoder_layers: 2,
                decoder_layers: 6,
                ..base.settings.clone()
            },
            ..base.clone()
        },
        AutoencoderConfig {
            chunk_size: 1,
            latent_size: 1,
            ..base.clone()
        },
        AutoencoderConfig {
            vocab_size: 5,
            settings: AutoencoderSettings {
                hidden_size: 10,
                intermediate_size: 6,
                ..base.settings.clone()
            },
            ..base
        },
    ];
    for config in configs {
        let model = config.init(&mut Init::new(1, &Device::flex()));
        assert_eq!(config.parameters(), model.num_params() as u64, "{config:?}");
    }
}

/// Every matrix that is applied once per chunk counts once, once per token K times.
#[test]
fn counted_work_is_that_of_the_matrices() {
    let config = small();
    let model = config.init(&mut Init::new(1, &Device::flex()));
    let k = config.chunk_size;
    let size = |layer: &burn::nn::Linear| layer.weight.val().dims().iter().product::<usize>();
    let stage = |blocks: &[calm_autoencoder::FeedForwardBlock]| -> usize {
        blocks
            .iter()
            .map(|b| size(&b.mlp.gate) + size(&b.mlp.up) + size(&b.mlp.down))
            .sum()
    };
    let e = &model.encoder;
    let encoder = k * stage(&e.token_blocks)
        + size(&e.squeeze)
        + stage(&e.chunk_blocks)
        + size(&e.to_posterior);
    assert_eq!(config.encoder_macs(), encoder as u64);
    let d = &model.decoder;
    let logits = k * config.vocab_size * config.settings.hidden_size;
    let decoder = size(&d.from_latent)
        + stage(&d.chunk_blocks)
        + size(&d.expand)
        + k * stage(&d.token_blocks);
    assert_eq!(config.decoder_macs(), (decoder + logits) as u64);
    assert_eq!(config.forward_macs(0), (encoder + decoder + logits) as u64);
}

/// CALM, section 2: the released autoencoder at K = 4 has 75 million parameters.
#[test]
fn the_published_autoencoder_has_the_published_size() {
    let config = AutoencoderConfig {
        vocab_size: 128_257,
        chunk_size: 4,
        latent_size: 128,
        settings: AutoencoderSettings {
            hidden_size: 512,
            intermediate_size: 1280,
            encoder_layers: 2,
            decoder_layers: 2,
            ..small().settings
        },
    };
    let millions = config.parameters() as f64 / 1e6;
    assert!((75.0..76.0).contains(&millions), "{millions} M");
}
