//! The `[model]` table and its costs.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};
use calm_nn::{ConfigError, Cost};

use crate::config;

#[test]
fn parameters_are_those_of_the_real_model() {
    for k in [1, 2, 4] {
        let config = config(k);
        let model = config.init(1, &Device::flex());
        let counted = config.language_model_parameters();
        assert_eq!(counted, model.language_model.num_params() as u64);
        assert_eq!(
            config.autoencoder().parameters(),
            model.autoencoder.num_params() as u64
        );
    }
}

#[test]
fn a_window_that_is_no_multiple_of_k_is_refused() {
    let mut c = config(4);
    c.window = 30;
    let expected = ConfigError::NotMultiple {
        field: "model.window",
        value: 30,
        of: "model.chunk_size",
        divisor: 4,
    };
    assert_eq!(c.validate(), Err(expected));
}

#[test]
fn a_window_of_one_chunk_predicts_nothing_and_is_refused() {
    let mut c = config(4);
    c.window = 4;
    assert!(matches!(
        c.validate(),
        Err(ConfigError::Range {
            field: "model.window",
            ..
        })
    ));
}

#[test]
fn chunks_that_reach_back_over_a_window_are_refused() {
    let mut c = config(4);
    c.chunk_context = c.window - 1;
    assert_eq!(c.validate(), Ok(()));
    c.chunk_context = c.window;
    assert!(matches!(
        c.validate(),
        Err(ConfigError::Range {
            field: "model.chunk_context",
            ..
        })
    ));
}

#[test]
fn unknown_keys_are_refused() {
    let mut value = serde_json::to_value(config(2)).unwrap();
    value["windw"] = 3.into();
    let error = serde_json::from_value::<calm_lm::ModelConfig>(value).unwrap_err();
    assert!(error.to_string().contains("windw"), "{error}");
}

#[test]
fn the_language_model_of_a_seed_is_the_one_inside_the_whole_model() {
    let config = config(2);
    let device = Device::flex();
    let bits = |m: calm_lm::LanguageModel| -> Vec<f32> {
        m.backbone
            .compressor
            .widen
            .weight
            .val()
            .into_data()
            .iter::<f32>()
            .collect()
    };
    let whole = config.init(5, &device).language_model;
    assert_eq!(
        bits(whole.clone()),
        bits(config.init_language_model(5, &device))
    );
    assert_ne!(bits(whole), bits(config.init_language_model(6, &device)));
}

/// The published table by the counting rule (2.91e8 and 4.56e8 FLOPs a token at T = 1;
/// the paper prints 2.9 and 4.6, and 3.7e20 and 7.7e20 for training where the rule gives 3.56e20
/// and 7.50e20).
#[test]
fn published_sizes_cost_what_is_published() {
    let mut c = config(4);
    c.vocab_size = 128_257;
    c.latent_size = 128;
    c.autoencoder.hidden_size = 512;
    c.autoencoder.intermediate_size = 1280;
    c.head.blocks = 4;
    c.head.noise_size = 64;
    c.head.samples = 8;
    let mut at = |d: usize, ff: usize| {
        c.backbone.layers = 16;
        c.backbone.hidden_size = d;
        c.backbone.intermediate_size = ff;
        c.backbone.heads = 16;
        c.backbone.kv_heads = 16;
        (
            c.language_model_parameters() as f64,
            c.inference_flops(2048),
            c.language_model_train_flops(2048) * 5e11 + c.autoencoder_train_flops() * 15e9,
        )
    };
    let (parameters, infer, train) = at(1024, 2752);
    assert!((parameters / 371e6 - 1.0).abs() < 0.01, "{parameters}");
    assert!((infer / 2.91e8 - 1.0).abs() < 0.01, "{infer}");
    assert!((train / 3.56e20 - 1.0).abs() < 0.01, "{train}");
    let (parameters, infer, train) = at(1536, 4096);
    assert!((parameters / 735e6 - 1.0).abs() < 0.01, "{parameters}");
    assert!((infer / 4.56e8 - 1.0).abs() < 0.01, "{infer}");
    assert!((train / 7.50e20 - 1.0).abs() < 0.01, "{train}");
}

/// Entries of all matrices of a module.
struct Matrices(u64);

impl ModuleVisitor for Matrices {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if D == 2 {
            self.0 += param.val().shape().num_elements() as u64;
        }
    }
}

fn matrices(module: &impl Module) -> u64 {
    let mut found = Matrices(0);
    module.visit(&mut found);
    found.0
}

/// A step of one sample meets every matrix of backbone and head once; the token table is looked up.
/// The autoencoder's per-token half runs K times a chunk, its tied table K times as output layer.
#[test]
fn multiply_accumulates_are_those_of_the_built_model() {
    let device = Device::flex();
    for k in [1, 2, 4] {
        let config = config(k);
        let model = config.init(1, &device);
        let table = (config.vocab_size * config.backbone.hidden_size) as u64;
        let counted = config.backbone().forward_macs(0) + config.head().forward_macs(0);
        assert_eq!(counted, matrices(&model.language_model) - table, "K = {k}");

        let a = &config.autoencoder;
        let table = (config.vocab_size * a.hidden_size) as u64;
        let block = 3 * (a.hidden_size * a.intermediate_size) as u64;
        // Two blocks a side, one of them per token: K times instead of once.
        let per_token = 2 * (k as u64 - 1) * block;
        let expected = matrices(&model.autoencoder) - table + per_token + k as u64 * table;
        assert_eq!(config.autoencoder().forward_macs(0), expected, "K = {k}");
    }
}
