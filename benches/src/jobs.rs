//! The standard jobs: the same work as `peer/peer.py`, so that figures can be set side by side.
//!
//! Random weights, vocabulary 8,192. The autoencoder: K = 4, d = 512, l = 128. The CALM: 6 layers,
//! d = 256, 8 heads, 2 head blocks, N = 8, M = 100. The token model: the same transformer.

use burn::module::Module;
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Int, Tensor};
use calm_autoencoder::ChunkAutoencoder;
use calm_baseline::{TokenGenerator, TokenModelConfig, TokenSampler};
use calm_likelihood_free::{BatchSampler, Rollout, brier_at};
use calm_lm::{
    AnyModel, AutoencoderSettings, CalmModel, CalmRollout, CompressorKind, DecoderKind,
    GenerateOptions, Generator, HeadSettings, LocalDecoderSettings, ModelConfig, Objective,
    WeightNumbers,
};
use calm_nn::{HostDraws, Limits, TransformerConfig, chunk_tensor};
use calm_train::{OptimConfig, Precision, adamw, clip_by_global_norm};

use crate::{lively, tokens};

const VOCAB: usize = 8192;
const PROMPT: usize = 64;
const NEW: usize = 256;
/// Draws that the temperature sampler chooses among.
const POOL: u32 = 200;

/// One standard job.
pub struct Job {
    /// Its name, the same as the peer's.
    pub name: &'static str,
    /// Tokens of one run of it.
    pub tokens: usize,
    /// Matrix-product FLOPs per token: forward, three times for what is trained; attention at half
    /// the square; `None` where the work per token depends on what is drawn.
    pub flops_per_token: Option<f64>,
    /// Whether bf16 is what its weights are kept in, on any machine, instead of how its products round.
    pub keeps_weights: bool,
    make: fn(&Device, Precision) -> Box<dyn FnMut() + Send>,
}

impl Job {
    /// Builds the job's model on `device`; each call of the result is one run.
    pub fn make(&self, device: &Device, precision: Precision) -> Box<dyn FnMut() + Send> {
        (self.make)(device, precision)
    }
}

/// Their names.
pub fn names() -> Vec<&'static str> {
    all().iter().map(|job| job.name).collect()
}

/// All of them.
pub fn all() -> Vec<Job> {
    let calm = calm_config(1024);
    let ae = calm.autoencoder_train_flops();
    let job = |name, tokens, flops_per_token, make| Job {
        name,
        tokens,
        flops_per_token,
        keeps_weights: str::contains(name, "gen"),
        make,
    };
    let token = |window: usize| Some(token_config(window).train_flops(window / 2));
    vec![
        job("ae-train-2048", 2048, Some(ae), |d, _| autoencoder(d, 512)),
        job("ae-train-8192", 8192, Some(ae), |d, _| autoencoder(d, 2048)),
        job(
            "calm-train",
            4096,
            Some(calm.language_model_train_flops(calm.steps() / 2)),
            |d, _| language_model(&calm_config(1024), d, 4),
        ),
        job("ar-train-4x1024", 4096, token(1024), |d, _| {
            token_model(d, 4, 1024)
        }),
        job("ar-train-16x256", 4096, token(256), |d, _| {
            token_model(d, 16, 256)
        }),
        job(
            "calm-gen",
            NEW,
            Some(calm.inference_flops((PROMPT + NEW / 2) / 4)),
            |d, p| generation(d, 1, p),
        ),
        job("calm-gen-cold", NEW, None, |d, p| generation(d, 2, p)),
        job(
            "ar-gen",
            NEW,
            Some(token_config(1024).inference_flops(PROMPT + NEW / 2)),
            token_generation,
        ),
        // Draws that agree with nothing are decoded no further.
        job("eval", 1024, None, |d, _| evaluation(d)),
    ]
}

fn transformer() -> TransformerConfig {
    TransformerConfig {
        layers: 6,
        hidden_size: 256,
        intermediate_size: 688,
        heads: 8,
        kv_heads: 8,
        rope_theta: 10_000.0,
        norm_eps: 1e-6,
    }
}

pub(crate) fn calm_config(window: usize) -> ModelConfig {
    ModelConfig {
        vocab_size: VOCAB,
        chunk_size: 4,
        chunk_context: 0,
        compressor: CompressorKind::Mlp,
        decoder: DecoderKind::Autoencoder,
        latent_size: 128,
        window,
        init_std: 0.02,
        zero_init_residual: false,
        aux_weight: 0.0,
        objective: Objective::default(),
        autoencoder: AutoencoderSettings {
            hidden_size: 512,
            intermediate_size: 1280,
            encoder_layers: 2,
            decoder_layers: 2,
            norm_eps: 1e-6,
            token_dropout: 0.15,
            latent_dropout: 0.15,
            kl_weight: 1e-3,
            kl_floor: 0.5,
        },
        backbone: transformer(),
        head: HeadSettings {
            blocks: 2,
            noise_size: 64,
            samples: 8,
            posterior_samples: 100,
            alpha: 1.0,
            ..HeadSettings::default()
        },
        local: LocalDecoderSettings::default(),
    }
}

fn token_config(window: usize) -> TokenModelConfig {
    TokenModelConfig {
        vocab_size: VOCAB,
        window,
        init_std: 0.02,
        tied_embeddings: false,
        scale_embeddings: false,
        zero_init_residual: false,
        near_tokens: 0,
        transformer: transformer(),
    }
}

/// A step: forward, backward, clipping, AdamW.
fn training<M: Module + 'static>(
    model: M,
    device: &Device,
    loss: impl Fn(&M, u64) -> Tensor<1> + Send + 'static,
) -> Box<dyn FnMut() + Send> {
    let optim = OptimConfig {
        lr: 1e-4,
        autoencoder_lr: 1e-4,
        beta1: 0.9,
        beta2: 0.95,
        epsilon: 1e-8,
        weight_decay: 0.1,
        clip_norm: 1.0,
    };
    let model = model.train();
    let mut optimizer: ModuleOptimizer = adamw(&optim, &model);
    let mut model = Some(model);
    let (device, mut step) = (device.clone(), 0);
    Box::new(move || {
        step += 1;
        let current = model.take().expect("a model");
        let loss = loss(&current, step);
        let mut grads = GradientsParams::from_grads(loss.backward(), &current);
        clip_by_global_norm(&current, &mut grads, optim.clip_norm);
        model = Some(optimizer.step(optim.lr, current, grads));
        device.sync().expect("the device");
    })
}

fn autoencoder(device: &Device, chunks: usize) -> Box<dyn FnMut() + Send> {
    let config = calm_config(1024);
    let ids = tokens(chunks * 4, VOCAB);
    let batch: Tensor<2, Int> =
        chunk_tensor(&ids, chunks, 4, &device.clone().autodiff()).squeeze_dim(1);
    let model = config.init(1, device).autoencoder;
    training(model, device, move |model: &ChunkAutoencoder, step| {
        model.loss(batch.clone(), &mut HostDraws::new(step)).total
    })
}

/// A step of the language model over `windows` texts.
pub(crate) fn language_model(
    config: &ModelConfig,
    device: &Device,
    windows: usize,
) -> Box<dyn FnMut() + Send> {
    let ids = tokens(windows * config.window, VOCAB);
    let device = device.clone();
    let batch = chunk_tensor(&ids, windows, config.chunk_size, &device.clone().autodiff());
    let whole = lively(config, &device);
    let autoencoder = whole.autoencoder;
    training(
        whole.language_model,
        &device,
        move |model: &calm_lm::LanguageModel, step| {
            model
                .loss(&autoencoder, batch.clone(), &mut HostDraws::new(step))
                .total
        },
    )
}

fn token_model(device: &Device, windows: usize, window: usize) -> Box<dyn FnMut() + Send> {
    let ids = tokens(windows * window, VOCAB);
    let batch: Tensor<2, Int> =
        chunk_tensor(&ids, windows, 1, &device.clone().autodiff()).squeeze_dim(2);
    let model = token_config(window).init(1, device);
    training(
        model,
        device,
        move |model: &calm_baseline::TokenModel, _| model.loss(batch.clone()),
    )
}

/// What weights are kept in where products are in this precision.
fn weights(precision: Precision) -> WeightNumbers {
    match precision {
        Precision::F32 => WeightNumbers::F32,
        Precision::Bf16 => WeightNumbers::Bf16,
    }
}

/// 256 tokens after a prompt of 64 at temperature 1/n.
fn generation(device: &Device, n: u32, precision: Precision) -> Box<dyn FnMut() + Send> {
    let (config, device) = (calm_config(1024), device.clone());
    let model = AnyModel::Calm(config, lively(&calm_config(1024), &device));
    let AnyModel::Calm(config, model) = model.with_weights(weights(precision)) else {
        unreachable!("a CALM stays one");
    };
    let prompts = [tokens(PROMPT, VOCAB)];
    let sampler = BatchSampler::new(1.0 / f64::from(n), POOL as usize).expect("1/n");
    // No id of the vocabulary ends the text early.
    let options = GenerateOptions {
        sampler: sampler.into(),
        max_tokens: NEW,
        end_of_text: u32::MAX,
        lead_in: &[],
        seed: 1,
    };
    Box::new(move || {
        let texts = Generator::new(&model, &config, &prompts, options, &device)
            .expect("a prompt")
            .run();
        assert_eq!(texts[0].len(), NEW);
    })
}

fn token_generation(device: &Device, precision: Precision) -> Box<dyn FnMut() + Send> {
    let (config, device) = (token_config(1024), device.clone());
    let model = AnyModel::TokenModel(token_config(1024), config.init(1, &device));
    let AnyModel::TokenModel(config, model) = model.with_weights(weights(precision)) else {
        unreachable!("a token model stays one");
    };
    let prompts = [tokens(PROMPT, VOCAB)];
    let sampler = TokenSampler::new(1.0, None, None).expect("temperature 1");
    let limits = Limits {
        window: config.window,
        max_tokens: NEW,
        end_of_text: u32::MAX,
    };
    Box::new(move || {
        let texts = TokenGenerator::new(&model, sampler, limits, &[], &prompts, 1, &device)
            .expect("a prompt")
            .run();
        assert_eq!(texts[0].len(), NEW);
    })
}

/// BrierLM from two draws at every chunk of one window.
fn evaluation(device: &Device) -> Box<dyn FnMut() + Send> {
    let (config, device) = (calm_config(1024), device.clone());
    // Borrowed until the process ends, as the closure keeps what is prepared of it.
    let model: &'static CalmModel = Box::leak(Box::new(lively(&config, &device)));
    let device: &'static Device = Box::leak(Box::new(device));
    let text = tokens(1024, VOCAB);
    let mut rollout = CalmRollout::new(model, device);
    Box::new(move || {
        let starts = rollout.roll_out(&text, 2, &mut HostDraws::new(1));
        let scores: Vec<_> = starts.iter().map(brier_at).collect();
        assert_eq!(scores.len(), 255);
    })
}
