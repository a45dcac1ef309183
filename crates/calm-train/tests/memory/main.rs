//! What a training step holds in memory, counted by an allocator, beside what configurations say; in a
//! program of its own, which counts for nothing else.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicI64, Ordering};

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use calm_kernels::with_gradient_checkpointing;
use calm_nn::{HostDraws, RandomStream, chunk_tensor};
use calm_records::Stage;
use calm_train::{Experiment, StageMemory, adamw, preset};

/// Counts the bytes that are taken, and the most at one time.
struct Counting;

static LIVE: AtomicI64 = AtomicI64::new(0);
static MOST: AtomicI64 = AtomicI64::new(0);

// SAFETY: everything is handed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let size = layout.size() as i64;
        let live = LIVE.fetch_add(size, Ordering::Relaxed) + size;
        MOST.fetch_max(live, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let more = size as i64 - layout.size() as i64;
        let live = LIVE.fetch_add(more, Ordering::Relaxed) + more;
        MOST.fetch_max(live, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes that the forward pass leaves behind, and the most of a whole step, both beside the parameters and
/// the optimizer's moments.
fn counted<M: Module>(
    experiment: &Experiment,
    model: M,
    checkpointing: bool,
    loss: impl Fn(&M) -> Tensor<1>,
) -> [f64; 2] {
    let mut model = model.train();
    let mut optimizer = adamw(&experiment.optim, &model);
    let mut counted = [0.0; 2];
    // Weights are made when they are first read, moments in the first step.
    for _ in 0..2 {
        let before = LIVE.load(Ordering::Relaxed);
        MOST.store(before, Ordering::Relaxed);
        let loss = with_gradient_checkpointing(checkpointing, || loss(&model));
        counted[0] = (LIVE.load(Ordering::Relaxed) - before) as f64;
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        model = optimizer.step(1e-3, model, gradients);
        counted[1] = (MOST.load(Ordering::Relaxed) - before) as f64;
    }
    counted
}

fn counted_of(experiment: &Experiment, stage: Stage, checkpointing: bool) -> [f64; 2] {
    const WINDOWS: usize = 3;
    let (device, config) = (Device::flex(), &experiment.model);
    let autodiff = device.clone().autodiff();
    let (k, window) = (config.chunk_size, config.window);
    let mut stream = RandomStream::new(1);
    let tokens: Vec<u32> = (0..WINDOWS * window)
        .map(|_| stream.below(config.vocab_size) as u32)
        .collect();
    let batch = chunk_tensor(&tokens, WINDOWS, k, &autodiff);
    let whole = batch.clone().reshape([WINDOWS, window]);
    match stage {
        Stage::Autoencoder => {
            let model = config.init(1, &device).autoencoder;
            let chunks = batch.reshape([WINDOWS * window / k, k]);
            counted(experiment, model, checkpointing, |model| {
                model.loss(chunks.clone(), &mut HostDraws::new(1)).total
            })
        }
        Stage::Lm if config.is_local() => {
            let model = config.init_local(1, &device);
            counted(experiment, model, checkpointing, |model| {
                model.loss(whole.clone())
            })
        }
        Stage::Lm => {
            let model = config.init(1, &device);
            let (autoencoder, model) = (model.autoencoder, model.language_model);
            counted(experiment, model, checkpointing, |model| {
                model
                    .loss(&autoencoder, batch.clone(), &mut HostDraws::new(1))
                    .total
            })
        }
        Stage::Baseline => {
            let model = experiment.token_model().init(1, &device);
            counted(experiment, model, checkpointing, |model| {
                model.loss(whole.clone())
            })
        }
    }
}

/// One or two settings changed at a time; sizes at which tensors are much larger than what autodiff
/// writes down about them.
fn cases() -> Vec<(&'static str, Stage, Experiment)> {
    let calm = |set: &[&str]| of("nano", set);
    let local = |set: &[&str]| of("nano-local", set);
    let lm = Stage::Lm;
    vec![
        ("autoencoder", Stage::Autoencoder, calm(&[])),
        (
            "autoencoder of 8 tokens, deeper",
            Stage::Autoencoder,
            calm(&[
                "model.chunk_size=8",
                "model.latent_size=160",
                "model.autoencoder.encoder_layers=4",
                "model.autoencoder.decoder_layers=6",
                "model.vocab_size=600",
            ]),
        ),
        (
            "autoencoder without dropout",
            Stage::Autoencoder,
            calm(&[
                "model.autoencoder.token_dropout=0",
                "model.autoencoder.latent_dropout=0",
                "model.latent_size=256",
            ]),
        ),
        ("energy head", lm, calm(&[])),
        (
            "energy head of more blocks and samples",
            lm,
            calm(&[
                "model.head.blocks=3",
                "model.head.samples=5",
                "model.head.noise_size=192",
                "model.latent_size=192",
                "model.aux_weight=0",
            ]),
        ),
        (
            "linear compressor, context, 4 tokens, wider gates",
            lm,
            calm(&[
                "model.compressor=linear",
                "model.chunk_context=3",
                "model.chunk_size=4",
                "model.backbone.intermediate_size=900",
                "model.backbone.kv_heads=2",
                "model.head.samples=2",
                "model.backbone.layers=5",
            ]),
        ),
        ("flow head", lm, calm(&["model.head.kind=flow"])),
        (
            "flow head of more blocks",
            lm,
            calm(&[
                "model.head.kind=flow",
                "model.head.blocks=4",
                "model.latent_size=256",
                "model.aux_weight=0",
            ]),
        ),
        (
            "diffusion head of wider latents",
            lm,
            calm(&["model.head.kind=diffusion", "model.latent_size=256"]),
        ),
        (
            "token model of few tokens",
            Stage::Baseline,
            calm(&["model.vocab_size=300", "baseline.near_tokens=0"]),
        ),
        (
            "energy head of few tokens",
            lm,
            calm(&["model.vocab_size=300", "model.backbone.layers=1"]),
        ),
        (
            "diffusion head",
            lm,
            calm(&["model.head.kind=diffusion", "model.head.blocks=2"]),
        ),
        (
            "log score",
            lm,
            calm(&["model.objective.log=1", "model.objective.energy=0"]),
        ),
        ("Brier loss", lm, calm(&["model.objective.brier=1"])),
        ("local decoder", lm, local(&[])),
        (
            "local decoder without memory",
            lm,
            local(&["model.local.memory=none"]),
        ),
        (
            "local decoder, memory of states, near tokens",
            lm,
            local(&[
                "model.local.memory=states",
                "model.local.near_tokens=3",
                "model.local.layers=3",
                "model.chunk_size=2",
            ]),
        ),
        (
            "local decoder, memory of inputs, tied",
            lm,
            local(&[
                "model.local.memory=inputs",
                "model.local.tied_embeddings=true",
                "model.local.vector_size=64",
                "model.local.near_tokens=0",
            ]),
        ),
        ("token model", Stage::Baseline, calm(&[])),
        (
            "token model, tied, near tokens",
            Stage::Baseline,
            calm(&[
                "baseline.tied_embeddings=true",
                "baseline.near_tokens=2",
                "baseline.scale_embeddings=true",
                "baseline.transformer.kv_heads=2",
            ]),
        ),
    ]
}

fn of(preset: &str, set: &[&str]) -> Experiment {
    let set: Vec<String> = set.iter().map(|s| (*s).to_owned()).collect();
    preset::resolve(preset, &set).unwrap()
}

#[test]
fn configurations_say_what_an_allocator_counts() {
    // Buffers that threads make once.
    counted_of(&of("nano", &[]), Stage::Autoencoder, false);
    let mut wrong = String::new();
    for (name, stage, experiment) in cases() {
        for checkpointing in [false, true] {
            let told = StageMemory::new(&experiment, stage, 3, checkpointing).unwrap();
            let [kept, most] = counted_of(&experiment, stage, checkpointing);
            let step = told.activations as f64;
            let peak = (told.total - told.parameters - told.frozen - told.optimizer) as f64;
            let off = |told: f64, counted: f64| 100.0 * (told / counted - 1.0);
            let (kept_off, peak_off) = (off(step, kept), off(peak, most));
            let line = format!(
                "{name:50} {checkpointing:5} kept {:8.2} MiB, told {:8.2} ({kept_off:+5.1} %); \
                 most {:8.2}, told {:8.2} ({peak_off:+5.1} %)\n",
                kept / 1048576.0,
                step / 1048576.0,
                most / 1048576.0,
                peak / 1048576.0,
            );
            eprint!("{line}");
            if kept_off.abs() > 2.0 || peak_off.abs() > 8.0 {
                wrong += &line;
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}
