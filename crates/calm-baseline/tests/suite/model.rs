//! Sizes, costs, and that the baseline learns.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Tensor};
use calm_baseline::{TokenModelConfig, score_window};
use calm_nn::{CachedModel, Cost, HostDraws, NearTokens, NextToken, TransformerConfig};

use crate::{ids, row, scores, small, with_near_weights};

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

/// Entries of all matrices of a module.
struct Matrices(u64);

impl ModuleVisitor for Matrices {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if D == 2 {
            self.0 += param.val().shape().num_elements() as u64;
        }
    }
}

/// A token meets every matrix once, one multiply-accumulate an entry; the table is looked up, and
/// where it is the output layer too, met once. Attention: each of the T queries of a layer meets T
/// keys and T values of width d, so T tokens cost `2 T^2 d` a layer.
#[test]
fn multiply_accumulates_are_those_of_the_built_model() {
    let device = Device::flex();
    for tied_embeddings in [false, true] {
        let (mut config, _) = small(1, &device);
        config.tied_embeddings = tied_embeddings;
        let model = config.init(1, &device);
        let mut found = Matrices(0);
        model.visit(&mut found);
        let table = (config.vocab_size * config.transformer.hidden_size) as u64;
        let looked_up = if tied_embeddings { 0 } else { table };
        assert_eq!(config.forward_macs(0), found.0 - looked_up);
        let (context, d, layers) = (10, 16, 2);
        let attention = 2 * context * context * d * layers;
        let more = context as u64 * (config.forward_macs(context) - config.forward_macs(0));
        assert_eq!(more, attention as u64);
        assert_eq!(config.train_flops(7), 6.0 * config.forward_macs(7) as f64);
    }
    // Two kv heads of width 4, keys and values, two layers, f32.
    let (config, _) = small(1, &device);
    assert_eq!(config.cache_bytes(), 2 * 4 * 2 * 2 * 4);
}

/// `sqrt(16)` times the table, wherever a token is read: whole windows, cached steps, branches.
#[test]
fn scaled_embeddings_are_those_of_a_larger_table() {
    let device = Device::flex();
    let (mut config, mut larger) = small(1, &device);
    larger.embedding.weight = larger.embedding.weight.map(|table| table * 4.0);
    config.scale_embeddings = true;
    let scaled = with_near_weights(config.init(1, &device), 1);
    let text = ids(12, 13, 2);
    assert_eq!(
        scores(&scaled, &text, &device),
        scores(&larger, &text, &device)
    );
    let [of_scaled, of_larger] = [&scaled, &larger].map(|model| {
        let mut cache = model.cache(1, 16, &device);
        let hidden = model.step(row(&text, &device).unsqueeze_dim(2), &[0], &mut cache);
        let logits = model.logits(hidden.squeeze_dim(0)).into_data();
        let draws = &mut HostDraws::new(1);
        let scored = score_window(model, &text, 1, 2, draws, &device);
        (logits.iter::<f64>().collect::<Vec<_>>(), scored.brier)
    });
    assert_eq!(of_scaled, of_larger);
}

#[test]
fn the_keys_reach_the_layers() {
    let device = Device::flex();
    let (mut config, _) = small(1, &device);
    for zero in [false, true] {
        config.zero_init_residual = zero;
        config.near_tokens = if zero { 3 } else { 0 };
        let model = config.init(1, &device);
        let near = model.near.as_ref().map(NearTokens::count);
        assert_eq!(near, zero.then_some(3));
        for block in &model.transformer.layers {
            for end in [&block.attention.o, &block.mlp.down] {
                let largest = end.weight.val().abs().max().into_scalar::<f32>();
                assert_eq!(largest == 0.0, zero);
            }
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
            scale_embeddings: false,
            zero_init_residual: false,
            near_tokens: 0,
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
