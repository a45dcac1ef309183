//! The same model on another executor: values, gradients and decoding against flex. Compiled
//! with the executor's feature; CI runs it on Vulkan over Mesa's software driver.
#![cfg(any(feature = "vulkan", feature = "webgpu"))]

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Int, Tensor, TensorData, Tolerance};
use calm_baseline::{TokenGenerator, TokenModel, TokenModelConfig, TokenSampler, score_window};
use calm_kernels::{Projection, cross_entropy};
use calm_likelihood_free::{BatchSampler, GenerativeHead, energy_score};
use calm_lm::{
    AnyModel, AutoencoderSettings, BaselineCheckpoint, CalmModel, Checkpoint, CompressorKind,
    DecoderKind, GenerateOptions, Generator, HeadSettings, Kind, LocalDecoderSettings, LocalModel,
    ModelConfig, Objective, TraceInputs, WeightNumbers, checkpoint_kind, open_device, trace,
};
use calm_nn::{HostDraws, Init, Limits, NextToken, RandomStream, TransformerConfig, chunk_tensor};
use calm_weights::{TensorFiles, write_safetensors};

fn config() -> ModelConfig {
    ModelConfig {
        vocab_size: 37,
        chunk_size: 2,
        chunk_context: 1,
        compressor: CompressorKind::Mlp,
        decoder: DecoderKind::Autoencoder,
        latent_size: 6,
        window: 16,
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

fn devices() -> [Device; 2] {
    [
        Device::flex(),
        open_device("vulkan").expect("a Vulkan device; see README"),
    ]
}

fn model(device: &Device) -> CalmModel {
    let mut model = config().init(3, device);
    let out = model.language_model.head.output_mut();
    *out = Init::new(4, device).linear(16, 6);
    out.weight = out.weight.clone().map(|w| w * 100.0);
    model
}

fn tokens(n: usize) -> Vec<u32> {
    let mut stream = RandomStream::new(8);
    (0..n).map(|_| stream.below(36) as u32).collect()
}

fn close(what: &str, [a, b]: [TensorData; 2]) {
    let difference = a
        .iter::<f32>()
        .zip(b.iter::<f32>())
        .map(|(x, y)| (x - y).abs() / (1.0 + x.abs()))
        .fold(0.0f32, f32::max);
    assert!(difference < 2e-4, "{what}: differs by {difference}");
    a.assert_approx_eq::<f32>(&b, Tolerance::absolute(1e-2));
}

#[test]
fn hidden_states_samples_and_scores_agree() {
    let all = devices().map(|device| {
        let model = model(&device);
        let batch = chunk_tensor(&tokens(32), 2, 2, &device);
        let hidden = model.language_model.backbone.forward(batch.clone());
        let flat = hidden.clone().reshape([16, 16]);
        let samples = model
            .language_model
            .head
            .sample(flat, 3, &mut HostDraws::new(1));
        let chunks = batch.reshape([16, 2]);
        let posterior = model.autoencoder.encode(chunks);
        let logits = model.autoencoder.logits(posterior.mean.clone());
        [
            hidden.into_data(),
            samples.into_data(),
            posterior.mean.into_data(),
            posterior.log_std.into_data(),
            logits.into_data(),
        ]
    });
    let [flex, other] = all;
    for (i, pair) in flex.into_iter().zip(other).enumerate() {
        close(&format!("output {i}"), pair.into());
    }
}

struct Gradients<'a>(&'a GradientsParams, Vec<TensorData>);

impl ModuleVisitor for Gradients<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let gradient = self
            .0
            .get::<D>(param.id)
            .expect("a gradient for every parameter");
        self.1.push(gradient.into_data());
    }
}

#[test]
fn training_losses_and_all_gradients_agree() {
    let all = devices().map(|device| {
        let model = model(&device);
        let autodiff = device.clone().autodiff();
        let batch = chunk_tensor(&tokens(32), 2, 2, &autodiff);
        let lm = model.language_model.clone().train();
        let loss = lm
            .loss(&model.autoencoder, batch.clone(), &mut HostDraws::new(2))
            .total;
        let value = loss.to_data();
        let grads = GradientsParams::from_grads(loss.backward(), &lm);
        let mut found = Gradients(&grads, vec![value]);
        lm.visit(&mut found);
        let mut result = found.1;

        let autoencoder = model.autoencoder.clone().train();
        let loss = autoencoder
            .loss(batch.reshape([16, 2]), &mut HostDraws::new(3))
            .total;
        result.push(loss.to_data());
        let grads = GradientsParams::from_grads(loss.backward(), &autoencoder);
        let mut found = Gradients(&grads, result);
        autoencoder.visit(&mut found);
        found.1
    });
    let [flex, other] = all;
    assert_eq!(flex.len(), other.len());
    for (i, pair) in flex.into_iter().zip(other).enumerate() {
        close(&format!("gradient {i}"), pair.into());
    }
}

#[test]
fn the_energy_score_and_cross_entropy_agree_in_values_and_gradients() {
    let all = devices().map(|device| {
        let device = device.autodiff();
        let mut stream = RandomStream::new(5);
        let mut draw = |shape: [usize; 3]| {
            let data = TensorData::new(stream.normal(shape.iter().product()), shape);
            Tensor::<3>::from_data(data, &device)
        };
        let (x, y) = (draw([4, 7, 5]).require_grad(), draw([9, 7, 5]));
        let loss = energy_score(x.clone(), y, 1.0).loss().mean();
        let gradient = x.grad(&loss.backward()).unwrap().into_data();
        let logits = draw([1, 7, 11]).reshape([7, 11]).require_grad();
        let targets = chunk_tensor(&[0, 3, 10, 4, 4, 1, 9], 1, 7, &device).reshape([7]);
        let projection = Projection::Output(draw([1, 11, 13]).reshape([11, 13]));
        let ce = cross_entropy(logits.clone(), projection, targets);
        let ce_gradient = logits.grad(&ce.backward()).unwrap().into_data();
        [loss.into_data(), gradient, ce.into_data(), ce_gradient]
    });
    let [flex, other] = all;
    for (i, pair) in flex.into_iter().zip(other).enumerate() {
        close(&format!("value {i}"), pair.into());
    }
}

#[test]
fn the_same_draws_generate_the_same_text() {
    let [flex, other] = devices().map(|device| {
        let model = model(&device);
        let sampler = BatchSampler::new(0.5, 8).unwrap();
        let options = GenerateOptions {
            sampler: sampler.into(),
            max_tokens: 12,
            end_of_text: 36,
            lead_in: &[],
            seed: 2,
        };
        let prompts = [tokens(3), tokens(8)];
        Generator::new(&model, &config(), &prompts, options, &device)
            .unwrap()
            .run()
    });
    assert_eq!(flex, other);
}

fn token_model(device: &Device) -> TokenModel {
    let config = TokenModelConfig {
        vocab_size: 37,
        window: 16,
        init_std: 0.3,
        tied_embeddings: false,
        scale_embeddings: false,
        zero_init_residual: false,
        near_tokens: 2,
        transformer: config().backbone,
    };
    config.init(5, device)
}

/// The token baseline: loss and gradients, and its scores.
#[test]
fn the_token_baseline_agrees() {
    agree(devices().map(|device| {
        let model = token_model(&device);
        measured(model, TokenModel::loss, &device)
    }));
}

/// The same of a model with a local decoder, and a greedy text of it past its window.
#[test]
fn the_local_decoder_agrees() {
    let config = ModelConfig {
        decoder: DecoderKind::Local,
        init_std: 0.3,
        zero_init_residual: false,
        local: LocalDecoderSettings {
            hidden_size: 16,
            intermediate_size: 24,
            heads: 2,
            kv_heads: 1,
            near_tokens: 2,
            window: 3,
            vector_size: 8,
            ..LocalDecoderSettings::default()
        },
        ..config()
    };
    agree(devices().map(|device| {
        let model = config.init_local(5, &device);
        measured(model, LocalModel::loss, &device)
    }));
    let [flex, other] = devices().map(|device| {
        let model = config.init_local(5, &device);
        let limits = Limits {
            window: 16,
            max_tokens: 24,
            end_of_text: 36,
        };
        let (greedy, prompts) = (TokenSampler::greedy(), [tokens(3), tokens(8)]);
        TokenGenerator::new(&model, greedy, limits, &[1, 36], &prompts, 0, &device)
            .unwrap()
            .run()
    });
    assert_eq!(flex, other);
}

/// Loss, surprisals and gradients of a model with probabilities, and its Brier scores.
fn measured<M: NextToken + Module>(
    model: M,
    loss: impl Fn(&M, Tensor<2, Int>) -> Tensor<1>,
    device: &Device,
) -> (Vec<TensorData>, TensorData) {
    let window = tokens(16);
    let draws = &mut HostDraws::new(6);
    let scores = score_window(&model, &window, 1, 50, draws, device);
    let surprisal = TensorData::new(scores.surprisal, [15]);
    let brier: Vec<f64> = scores.brier.concat();
    let brier = TensorData::new(brier, [scores.positions.len(), 4]);

    let batch = chunk_tensor(&tokens(32), 2, 1, &device.clone().autodiff()).squeeze_dim::<2>(2);
    let model = model.train();
    let loss = loss(&model, batch);
    let value = loss.to_data();
    let grads = GradientsParams::from_grads(loss.backward(), &model);
    let mut found = Gradients(&grads, vec![value, surprisal]);
    model.visit(&mut found);
    (found.1, brier)
}

/// Prefixes are drawn by cumulative sums. A draw near a border may fall on either side of it, so the
/// scores of longer n-grams get the room of a few draws that differ.
fn agree([(flex, flex_brier), (other, other_brier)]: [(Vec<TensorData>, TensorData); 2]) {
    assert_eq!(flex.len(), other.len());
    for (i, pair) in flex.into_iter().zip(other).enumerate() {
        close(&format!("value {i}"), pair.into());
    }
    let rows = |data: TensorData| data.iter::<f64>().collect::<Vec<_>>();
    for (i, (a, b)) in rows(flex_brier)
        .into_iter()
        .zip(rows(other_brier))
        .enumerate()
    {
        let room = if i % 4 == 0 { 1e-4 } else { 0.02 };
        assert!((a - b).abs() < room, "score {i}: {a} and {b}");
    }
}

/// What was released in bf16 and in f32, and models rounded to bf16 and to 8 bits, compute on the device
/// what they compute on the CPU.
#[test]
fn imported_models_trace_alike() {
    let released = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/released");
    for (case, numbers) in [
        ("token-untied", WeightNumbers::Stored),
        ("energy-k4", WeightNumbers::Stored),
        ("energy-k4", WeightNumbers::Bf16),
        ("token-tied", WeightNumbers::Int8),
        ("diffusion-k4", WeightNumbers::Int8),
        ("flow-k4", WeightNumbers::F32),
    ] {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("checkpoint");
        let model = AnyModel::import(&released.join(case), None, &Device::flex()).unwrap();
        model.writer(&directory, None).unwrap().finish().unwrap();
        let inputs = TensorFiles::open(&released.join(case).join("inputs.safetensors")).unwrap();
        let traced = |device: &Device| {
            let model = match checkpoint_kind(&directory).unwrap() {
                Kind::TokenModel => {
                    let c = BaselineCheckpoint::open(&directory)
                        .unwrap()
                        .with_weights(numbers);
                    AnyModel::TokenModel(c.config().clone(), c.load(device).unwrap())
                }
                _ => {
                    let c = Checkpoint::open(&directory).unwrap().with_weights(numbers);
                    AnyModel::Calm(c.config().clone(), c.load(device).unwrap())
                }
            };
            let outputs = trace(&model, &TraceInputs::new(&inputs, device), None).unwrap();
            let path = place.path().join("outputs.safetensors");
            write_safetensors(&path, &[], outputs).unwrap();
            let outputs = TensorFiles::open(&path).unwrap();
            let outputs = outputs
                .iter()
                .map(|(name, tensor)| (name.to_owned(), tensor.floats().unwrap()));
            outputs.collect::<Vec<_>>()
        };
        let [cpu, other] = devices().map(|device| traced(&device));
        for ((name, expected), (_, found)) in cpu.iter().zip(&other) {
            for (found, expected) in found.iter().zip(expected) {
                let error = (found - expected).abs();
                assert!(
                    error <= 1e-4 * expected.abs() + 2e-5,
                    "{case} {name}: {found}, {expected}"
                );
            }
        }
    }
}
