//! What configurations accept, and what they say about size.

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::Device;
use calm_backbone::{BackboneConfig, CompressorKind};
use calm_nn::{ConfigError, Cost, Init, TransformerConfig};

use crate::small;

fn refused(change: impl FnOnce(&mut BackboneConfig)) -> ConfigError {
    let mut config = small(2);
    change(&mut config);
    config.validate().expect_err("a refusal")
}

#[test]
fn zero_sizes_are_refused_by_name() {
    let zero = |field| ConfigError::Zero { field };
    assert_eq!(refused(|c| c.vocab_size = 0), zero("vocab_size"));
    assert_eq!(refused(|c| c.chunk_size = 0), zero("chunk_size"));
    assert_eq!(
        refused(|c| c.transformer.hidden_size = 0),
        zero("hidden_size")
    );
    assert_eq!(
        refused(|c| c.transformer.intermediate_size = 0),
        zero("intermediate_size")
    );
    assert_eq!(refused(|c| c.transformer.heads = 0), zero("heads"));
    assert_eq!(refused(|c| c.transformer.kv_heads = 0), zero("kv_heads"));
}

#[test]
fn heads_that_do_not_divide_are_refused() {
    let field = |error| match error {
        ConfigError::NotMultiple {
            field,
            value,
            of,
            divisor,
        } => (field, value, of, divisor),
        other => panic!("{other}"),
    };
    // Heads of width 3 can't be rotated in pairs.
    let odd = refused(|c| c.transformer.hidden_size = 12);
    assert_eq!(field(odd), ("hidden_size", 12, "2 * heads", 8));
    let ragged = refused(|c| c.transformer.kv_heads = 3);
    assert_eq!(field(ragged), ("heads", 4, "kv_heads", 3));
    let more = refused(|c| c.transformer.kv_heads = 8);
    assert_eq!(field(more), ("heads", 4, "kv_heads", 8));
}

#[test]
fn frequencies_and_epsilons_that_give_nan_are_refused() {
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let error = refused(|c| c.transformer.rope_theta = bad);
        assert!(
            matches!(
                error,
                ConfigError::Range {
                    field: "rope_theta",
                    ..
                }
            ),
            "{error}"
        );
    }
    for bad in [-1e-6, f64::NAN, f64::INFINITY] {
        let error = refused(|c| c.transformer.norm_eps = bad);
        assert!(
            matches!(
                error,
                ConfigError::Range {
                    field: "norm_eps",
                    ..
                }
            ),
            "{error}"
        );
    }
}

#[test]
fn counted_parameters_are_those_of_the_module() {
    let wide = TransformerConfig {
        layers: 3,
        hidden_size: 24,
        heads: 3,
        ..small(3).transformer
    };
    let configs = [
        small(1),
        small(2),
        small(4),
        BackboneConfig {
            chunk_size: 1,
            chunk_context: 0,
            ..small(2)
        },
        BackboneConfig {
            compressor: CompressorKind::Linear,
            ..small(2)
        },
        BackboneConfig {
            transformer: wide,
            ..small(2)
        },
    ];
    for config in configs {
        assert_eq!(config.validate(), Ok(()));
        let model = config.init(&mut Init::new(1, &Device::flex()));
        assert_eq!(config.parameters(), model.num_params() as u64, "{config:?}");
    }
}

#[test]
fn counted_work_is_that_of_the_matrices_and_of_attention() {
    for compressor in [CompressorKind::Mlp, CompressorKind::Linear] {
        let config = BackboneConfig {
            compressor,
            ..small(2)
        };
        counts_its_matrices(&config);
    }
}

fn counts_its_matrices(config: &BackboneConfig) {
    let model = config.init(&mut Init::new(1, &Device::flex()));
    let size = |layer: &Linear| layer.weight.val().dims().iter().product::<usize>();
    let blocks: usize = model
        .transformer
        .layers
        .iter()
        .map(|b| {
            let a = &b.attention;
            let attention = size(&a.q) + size(&a.k) + size(&a.v) + size(&a.o);
            attention + size(&b.mlp.gate) + size(&b.mlp.up) + size(&b.mlp.down)
        })
        .sum();
    let matrices =
        size(&model.compressor.widen) + model.compressor.narrow.as_ref().map_or(0, size) + blocks;
    assert_eq!(config.forward_macs(0), matrices as u64);
    // Scores and weighted sum: 2 d per visible position and layer.
    assert_eq!(
        config.forward_macs(100) - config.forward_macs(0),
        2 * 100 * 16 * 2
    );
    // Keys and values of 2 heads of width 4 in 2 layers, f32.
    assert_eq!(config.cache_bytes(), 2 * 2 * 4 * 2 * 4);
}

#[test]
fn a_configuration_survives_json_and_unknown_keys_do_not() {
    let text = serde_json::to_string(&small(2)).unwrap();
    assert_eq!(
        serde_json::from_str::<BackboneConfig>(&text).unwrap(),
        small(2)
    );
    let unknown = text.replacen("\"layers\"", "\"head_dim\":4,\"layers\"", 1);
    let error = serde_json::from_str::<BackboneConfig>(&unknown).unwrap_err();
    assert!(error.to_string().contains("head_dim"), "{error}");
}
