//! Sizes, costs, and that the baseline learns.

use burn::module::Module;
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::Device;
use calm_baseline::TokenModelConfig;
use calm_nn::{Cost, TransformerConfig};

use crate::{ids, row, small};

#[test]
fn parameters_are_those_of_the_built_model() {
    let device = Device::flex();
    for tied_embeddings in [false, true] {
        for kv_heads in [1, 2, 4] {
            let (mut config, _) = small(1, &device);
            config.tied_embeddings = tied_embeddings;
            config.transformer.kv_heads = kv_heads;
            let model = config.init(1, &device);
            assert_eq!(config.parameters(), model.num_params() as u64);
        }
    }
}

/// The published sizes: 281, 465 and 849 M parameters (CALM, table 1).
#[test]
fn published_sizes_have_the_published_parameters() {
    let published = [
        (12, 768, 2048, 281e6),
        (16, 1024, 2752, 465e6),
        (16, 1536, 4096, 849e6),
    ];
    for (layers, hidden_size, intermediate_size, parameters) in published {
        let config = TokenModelConfig {
            vocab_size: 128_256,
            window: 2048,
            init_std: 0.02,
            tied_embeddings: false,
            transformer: TransformerConfig {
                layers,
                hidden_size,
                intermediate_size,
                heads: 16,
                kv_heads: 16,
                rope_theta: 10_000.0,
                norm_eps: 1e-6,
            },
        };
        let off = config.parameters() as f64 / parameters - 1.0;
        assert!(off.abs() < 0.01, "{hidden_size}: off by {off:.3}");
    }
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let (config, _) = small(1, &Device::flex());
    assert!(config.validate().is_ok());
    let refused = |change: fn(&mut TokenModelConfig)| {
        let mut config = config.clone();
        change(&mut config);
        config.validate().unwrap_err().to_string()
    };
    assert!(refused(|c| c.window = 1).contains("window"));
    assert!(refused(|c| c.init_std = 0.0).contains("init_std"));
    assert!(refused(|c| c.vocab_size = 0).contains("vocab_size"));
    assert!(refused(|c| c.transformer.kv_heads = 3).contains("kv_heads"));
}

#[test]
fn training_lowers_the_loss() {
    let device = Device::flex().autodiff();
    let (config, _) = small(1, &Device::flex());
    let mut model = config.init(1, &device);
    let mut optimizer = ModuleOptimizer::from(AdamWConfig::new().build());
    let text: Vec<u32> = ids(6, 13, 2).repeat(3);
    let loss = |model: &calm_baseline::TokenModel| model.loss(row(&text, &device));
    let before: f32 = loss(&model).into_scalar();
    for _ in 0..40 {
        let gradients = GradientsParams::from_grads(loss(&model).backward(), &model);
        model = optimizer.step(1e-2, model, gradients);
    }
    let after: f32 = loss(&model).into_scalar();
    assert!(after < 0.3 * before, "{before} to {after}");
}
