//! Gradient checkpointing changes what a step keeps, and neither its loss nor its gradients.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Int, Tensor};
use calm_kernels::with_gradient_checkpointing;
use calm_lm::{DecoderKind, HeadKind, Memory, ModelConfig, Objective};
use calm_nn::{HostDraws, chunk_tensor};

use crate::{config, lively, tokens};

struct Flat<'a>(&'a GradientsParams, Vec<(usize, Vec<f32>)>);

impl ModuleVisitor for Flat<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = self.0.get::<D>(param.id) {
            self.1.push((D, grad.into_data().iter::<f32>().collect()));
        }
    }
}

/// Loss and the gradients of all parameters that have one.
fn step<M: Module>(
    model: &M,
    on: bool,
    loss: impl FnOnce(&M) -> Tensor<1>,
) -> (f32, Vec<(usize, Vec<f32>)>) {
    let loss = with_gradient_checkpointing(on, || loss(model));
    let value = loss.clone().into_scalar();
    let gradients = GradientsParams::from_grads(loss.backward(), model);
    let mut flat = Flat(&gradients, Vec::new());
    model.visit(&mut flat);
    (value, flat.1)
}

fn same<M: Module>(what: &str, model: &M, loss: impl Fn(&M) -> Tensor<1>) {
    let ((plain, expected), (value, found)) = (step(model, false, &loss), step(model, true, &loss));
    assert_eq!(plain, value, "{what}");
    assert_eq!(expected.len(), found.len(), "{what}: a gradient is missing");
    assert!(!found.is_empty(), "{what}");
    for (i, (expected, found)) in expected.iter().zip(&found).enumerate() {
        let largest = expected.1.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        for (a, b) in expected.1.iter().zip(&found.1) {
            assert!(
                (a - b).abs() <= 1e-5 * largest,
                "{what}, parameter {i}: {a} and {b}"
            );
        }
    }
}

fn batch(config: &ModelConfig) -> Tensor<3, Int> {
    let text = tokens(2 * config.window, 3);
    chunk_tensor(&text, 2, config.chunk_size, &Device::flex().autodiff())
}

#[test]
fn an_autoencoder_learns_the_same() {
    let (config, model) = lively(2, &Device::flex());
    let chunks = batch(&config).reshape([2 * config.steps(), 2]);
    same("the autoencoder", &model.autoencoder.train(), |model| {
        model.loss(chunks.clone(), &mut HostDraws::new(4)).total
    });
}

#[test]
fn a_language_model_learns_the_same_with_every_head_and_objective() {
    let brier = Objective {
        brier: 0.5,
        log: 0.5,
        ..Objective::default()
    };
    for (kind, objective) in [
        (HeadKind::Energy, Objective::default()),
        (HeadKind::Energy, brier),
        (HeadKind::Flow, Objective::default()),
        (HeadKind::Diffusion, Objective::default()),
    ] {
        let mut config = config(2);
        config.head.kind = kind;
        config.head.blocks = 2;
        config.objective = objective;
        config.aux_weight = 0.7;
        config.init_std = 0.3;
        let mut model = config.init(7, &Device::flex());
        // At its zero start nothing behind the last layer has a gradient.
        let out = model.language_model.head.output_mut();
        out.weight = out.weight.clone().map(|w| w + 0.3);
        let (autoencoder, model) = (model.autoencoder, model.language_model.train());
        same(&format!("{kind:?}, {objective:?}"), &model, |model| {
            model
                .loss(&autoencoder, batch(&config), &mut HostDraws::new(5))
                .total
        });
    }
}

#[test]
fn a_local_decoder_learns_the_same_with_every_memory() {
    for memory in [Memory::None, Memory::States, Memory::Inputs, Memory::Both] {
        let mut config = config(4);
        config.decoder = DecoderKind::Local;
        config.init_std = 0.3;
        config.local.hidden_size = 12;
        config.local.intermediate_size = 20;
        config.local.heads = 2;
        config.local.kv_heads = 1;
        config.local.layers = 2;
        config.local.vector_size = 5;
        config.local.near_tokens = 2;
        config.local.memory = memory;
        config.validate().unwrap();
        let model = config.init_local(7, &Device::flex()).train();
        let tokens = batch(&config).reshape([2, config.window]);
        same(&format!("{memory:?}"), &model, |model| {
            model.loss(tokens.clone())
        });
    }
}

/// Frozen parts get no gradient, and a part of which nothing is wanted is computed as ever.
#[test]
fn what_is_frozen_stays_frozen() {
    let (config, model) = lively(2, &Device::flex());
    let mut model = model.autoencoder.train();
    model.encoder = model.encoder.no_grad();
    let chunks = batch(&config).reshape([2 * config.steps(), 2]);
    same("a frozen encoder", &model, |model| {
        model.loss(chunks.clone(), &mut HostDraws::new(4)).total
    });
}
