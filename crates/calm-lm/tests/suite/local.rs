//! The model with a local decoder: one forward pass, cached steps, branches and the loss agree.

use burn::optim::GradientsParams;
use burn::tensor::{Device, Int, Tensor, TensorData};
use calm_baseline::{TokenGenerator, TokenSampler, score_window};
use calm_lm::{CompressorKind, DecoderKind, LocalDecoderSettings, LocalModel, Memory, ModelConfig};
use calm_nn::{
    CachedModel, Cost, HostDraws, Limits, NextToken, RandomStream, StepCache, chunk_tensor,
};

/// A small model; weights are large enough that everything it sees matters.
fn local_config(k: usize, window: usize, memory: Memory, layers: usize) -> ModelConfig {
    let mut config = super::config(k);
    config.decoder = DecoderKind::Local;
    config.init_std = 0.3;
    if memory == Memory::Inputs {
        config.compressor = CompressorKind::Linear;
    }
    config.window = 32;
    config.backbone.layers = layers;
    config.local = LocalDecoderSettings {
        layers: 2,
        hidden_size: 12,
        intermediate_size: 20,
        heads: 2,
        kv_heads: 1,
        near_tokens: k % 3,
        window,
        vector_size: if k == 2 { 16 } else { 5 },
        memory,
        tied_embeddings: k == 4,
        ..LocalDecoderSettings::default()
    };
    config.validate().unwrap();
    config
}

/// With weights of near tokens, which begin at zero, that matter.
fn model(config: &ModelConfig, seed: u64, device: &Device) -> LocalModel {
    let mut model = config.init_local(seed, device);
    if let Some(near) = &mut model.decoder.near {
        near.weights = near.weights.clone().map(|weights| {
            let values = RandomStream::new(seed).normal(weights.shape().num_elements());
            let data = TensorData::new(values, weights.shape());
            Tensor::from_data(data, &weights.device()) * 0.5
        });
    }
    model
}

fn cases() -> impl Iterator<Item = ModelConfig> {
    [
        (1, 3, Memory::Both, 1),
        (2, 4, Memory::States, 2),
        (3, 1, Memory::Inputs, 1),
        (4, 8, Memory::Both, 2),
        (4, 5, Memory::None, 1),
        (8, 40, Memory::Both, 0),
    ]
    .into_iter()
    .map(|(k, window, memory, layers)| {
        let mut config = local_config(if k == 3 { 4 } else { k }, window, memory, layers);
        if k == 3 {
            config.chunk_size = 3;
            config.window = 30;
        }
        config
    })
}

#[test]
fn the_key_reaches_backbone_and_local_layers() {
    let device = Device::flex();
    for zero in [false, true] {
        let mut config = local_config(4, 8, Memory::Both, 2);
        config.zero_init_residual = zero;
        let model = model(&config, 1, &device);
        let local = model.decoder.layers.iter().map(|layer| &layer.block);
        for block in local.chain(&model.backbone.transformer.layers) {
            for end in [&block.attention.o, &block.mlp.down] {
                let largest = end.weight.val().abs().max().into_scalar::<f32>();
                assert_eq!(largest == 0.0, zero);
            }
        }
    }
}

fn ids(n: usize, seed: u64) -> Vec<u32> {
    let mut stream = RandomStream::new(seed);
    (0..n).map(|_| stream.below(13) as u32).collect()
}

fn hidden(model: &LocalModel, tokens: &[u32], device: &Device) -> Tensor<3> {
    let tokens = chunk_tensor(tokens, 1, 1, device).squeeze_dim::<2>(2);
    model.hidden(tokens)
}

fn assert_close<const D: usize>(what: &str, a: Tensor<D>, b: Tensor<D>) {
    let largest = (a - b).abs().max().into_scalar::<f32>();
    assert!(largest < 2e-4, "{what}: differs by {largest}");
}

#[test]
fn no_position_sees_what_comes_after_it() {
    let device = Device::flex();
    for config in cases() {
        let model = model(&config, 1, &device);
        let (window, k) = (config.window, config.chunk_size);
        let text = ids(window, 2);
        let whole = hidden(&model, &text, &device);
        for changed in [1, k, k + 1, window / 2, window - 1] {
            let mut other = text.clone();
            other[changed] = (other[changed] + 1) % 13;
            let other = hidden(&model, &other, &device);
            let before = whole.clone().narrow(1, 0, changed);
            let same = before.into_data() == other.clone().narrow(1, 0, changed).into_data();
            assert!(same, "K = {k}: token {changed} reaches back");
            let at = |x: &Tensor<3>| x.clone().narrow(1, changed, 1).into_data();
            assert!(
                at(&whole) != at(&other),
                "K = {k}: token {changed} is not read"
            );
        }
    }
}

#[test]
fn far_tokens_are_seen_through_the_chunks_alone() {
    let device = Device::flex();
    let reach = |memory, layers| {
        // One layer of the decoder and a band of two tokens.
        let mut config = local_config(4, 2, memory, layers);
        config.local.layers = 1;
        let model = model(&config, 1, &device);
        let text = ids(32, 2);
        let mut other = text.clone();
        other[1] = (other[1] + 1) % 13;
        let (a, b) = (
            hidden(&model, &text, &device),
            hidden(&model, &other, &device),
        );
        let change = (a - b).abs().narrow(1, 20, 1).max();
        change.into_scalar::<f32>() > 0.0
    };
    assert!(
        reach(Memory::None, 1),
        "the state of the chunk before hands it on"
    );
    assert!(!reach(Memory::None, 0), "nothing does");
    assert!(reach(Memory::Inputs, 0), "the memory does");
    assert!(reach(Memory::States, 1));
}

#[test]
fn cached_steps_of_any_length_equal_one_pass() {
    let device = Device::flex();
    for config in cases() {
        let model = model(&config, 3, &device);
        let text = ids(config.window, 4);
        let whole = hidden(&model, &text, &device);
        for pieces in [&[1, 1, 2, 5, 1, 3, 17][..], &[7, 1, 1, 20], &[30]] {
            let mut cache = model.cache(1, config.window, &device);
            let mut read = 0;
            for &new in pieces {
                let new = new.min(config.window - read);
                if new == 0 {
                    continue;
                }
                let tokens = chunk_tensor(&text[read..read + new], 1, 1, &device);
                let found = model.step(tokens, &[0], &mut cache);
                let expected = whole.clone().narrow(1, read, new);
                assert_close(
                    &format!("K = {}, {pieces:?}", config.chunk_size),
                    found,
                    expected,
                );
                read += new;
                assert_eq!((cache.len(), cache.room()), (read, config.window - read));
            }
        }
    }
}

/// A text longer than the cache's rows of tokens: these move, and what was taken back is read anew.
#[test]
fn a_cache_that_moves_its_rows_forgets_and_goes_back() {
    let device = Device::flex();
    for memory in [Memory::Both, Memory::None] {
        let mut config = local_config(4, 3, memory, 1);
        config.window = 400;
        let model = model(&config, 3, &device);
        let text = ids(400, 4);
        let whole = hidden(&model, &text, &device);
        let mut cache = model.cache(1, 400, &device);
        let mut random = RandomStream::new(5);
        let mut read = 0;
        while read < 400 {
            let new = (1 + random.below(9)).min(400 - read);
            let tokens = chunk_tensor(&text[read..read + new], 1, 1, &device);
            let found = model.step(tokens, &[0], &mut cache);
            assert_close("a moving cache", found, whole.clone().narrow(1, read, new));
            read += new;
            let back = random.below(6);
            if random.below(3) == 0 {
                read = cache.truncate(read - back.min(read));
            }
        }
        // So far back that the band before is gone: nothing is left, and it says so.
        assert_eq!(cache.truncate(100), 0);
        let found = model.step(chunk_tensor(&text[..50], 1, 1, &device), &[0], &mut cache);
        assert_close("from the start", found, whole.clone().narrow(1, 0, 50));
        // A long prompt, which fills more rows than there are at once.
        let mut cache = model.cache(1, 400, &device);
        let mut read = 0;
        for new in [250, 1, 40, 100] {
            let tokens = chunk_tensor(&text[read..read + new], 1, 1, &device);
            let found = model.step(tokens, &[0], &mut cache);
            assert_close("a long step", found, whole.clone().narrow(1, read, new));
            read += new;
        }
    }
}

#[test]
fn fillers_change_nothing() {
    let device = Device::flex();
    for config in cases() {
        let model = model(&config, 3, &device);
        let k = config.chunk_size;
        let (long, short) = (ids(3 * k + 1, 5), ids(k + 1, 6));
        let fillers = [0, 2 * k];
        let filled = [vec![9; 2 * k], short.clone()].concat();
        let mut cache = model.cache(2, config.window, &device);
        let tokens = chunk_tensor(&[long.clone(), filled].concat(), 2, 1, &device);
        let together = model.step(tokens, &fillers, &mut cache);
        let next = chunk_tensor(&[3, 3], 2, 1, &device);
        let after = model.step(next, &fillers, &mut cache);
        for (row, text) in [long, short].into_iter().enumerate() {
            let alone = hidden(&model, &[text.clone(), vec![3]].concat(), &device);
            let (n, own) = (text.len(), together.dims()[1]);
            let found = together.clone().narrow(0, row, 1).narrow(1, own - n, n);
            assert_close("a row of a batch", found, alone.clone().narrow(1, 0, n));
            let found = after.clone().narrow(0, row, 1);
            assert_close("the step after", found, alone.narrow(1, n, 1));
        }
    }
}

#[test]
fn branches_equal_the_texts_that_they_are() {
    let device = Device::flex();
    for config in cases() {
        let model = model(&config, 7, &device);
        let (window, k) = (config.window, config.chunk_size);
        let text = ids(window, 8);
        let mut cache = model.whole_cache(window, &device);
        model.step(chunk_tensor(&text, 1, 1, &device), &[0], &mut cache);
        for within in 0..k.min(4) {
            let prefix: Vec<usize> = (0..3).map(|i| within + k * (i % 3)).collect();
            let prefix: Vec<usize> = prefix.into_iter().map(|p| p.max(within)).collect();
            let own = ids(3 * 4, 9);
            let mut branches = Default::default();
            for step in 0..4 {
                let tokens: Vec<i64> = (0..3).map(|q| own[q * 4 + step].into()).collect();
                let tokens = Tensor::<1, Int>::from_ints(tokens.as_slice(), &device);
                let found = model.branch(tokens, &prefix, &cache, &mut branches);
                for (q, &prefix) in prefix.iter().enumerate() {
                    let read = [&text[..prefix], &own[q * 4..q * 4 + step + 1]].concat();
                    let alone = hidden(&model, &read, &device);
                    let last = alone.narrow(1, read.len() - 1, 1).squeeze_dim::<2>(0);
                    let what = format!("K = {k}, prefix {prefix}, step {step}");
                    assert_close(&what, found.clone().narrow(0, q, 1), last);
                }
            }
        }
    }
}

#[test]
fn the_loss_is_the_mean_surprisal_and_its_gradients_reach_every_weight() {
    let device = Device::flex();
    for config in cases() {
        let model = model(&config, 5, &device);
        let text = ids(config.window, 6);
        let windows = chunk_tensor(&text, 1, 1, &device).squeeze_dim::<2>(2);
        let loss: f32 = model.loss(windows.clone()).into_scalar();
        let mut draws = HostDraws::new(1);
        let scores = score_window(&model, &text, config.chunk_size, 2, &mut draws, &device);
        let mean = scores.surprisal.iter().sum::<f64>() / scores.surprisal.len() as f64;
        approx::assert_relative_eq!(f64::from(loss), mean, max_relative = 1e-5);

        let model = burn::module::Module::train(model);
        let windows = chunk_tensor(&text, 1, 1, &device.clone().autodiff());
        let gradients = model.loss(windows.squeeze_dim::<2>(2)).backward();
        let gradients = GradientsParams::from_grads(gradients, &model);
        let count = gradients.len();
        let expected = Counted::of(&model);
        assert_eq!(
            count, expected,
            "K = {}: every tensor has one",
            config.chunk_size
        );
    }
}

/// Counts the tensors of a model.
struct Counted(usize);

impl Counted {
    fn of(model: &LocalModel) -> usize {
        let mut counted = Self(0);
        burn::module::Module::visit(model, &mut counted);
        counted.0
    }
}

impl burn::module::ModuleVisitor for Counted {
    fn visit_float<const D: usize>(&mut self, _: &burn::module::Param<Tensor<D>>) {
        self.0 += 1;
    }
}

/// Central differences of a few entries of every matrix, in f32: 2 % of the gradient's size.
#[test]
fn gradients_are_the_differences_of_the_loss() {
    let device = Device::flex();
    let config = local_config(2, 4, Memory::Both, 1);
    let model = model(&config, 5, &device);
    let text = ids(32, 6);
    let loss = |model: &LocalModel| -> f64 {
        let windows = chunk_tensor(&text, 1, 1, &device).squeeze_dim::<2>(2);
        model.loss(windows).into_scalar::<f32>().into()
    };
    let trained = burn::module::Module::train(model.clone());
    let windows = chunk_tensor(&text, 1, 1, &device.clone().autodiff());
    let gradients = trained.loss(windows.squeeze_dim::<2>(2)).backward();
    let step = 2e-2f32;
    type Place = fn(&mut LocalModel) -> &mut burn::module::Param<Tensor<2>>;
    let places: [(&str, Place); 6] = [
        ("expand", |m| &mut m.decoder.expand.weight),
        ("memory", |m| {
            &mut m.decoder.layers[0].memory.as_mut().unwrap().k.weight
        }),
        ("widen", |m| &mut m.backbone.compressor.widen.weight),
        ("query", |m| {
            &mut m.decoder.layers[1].block.attention.q.weight
        }),
        ("embedding", |m| &mut m.decoder.embedding.weight),
        ("near tokens", |m| {
            &mut m.decoder.near.as_mut().unwrap().weights
        }),
    ];
    for (name, place) in places {
        let mut trained = trained.clone();
        let gradient = place(&mut trained).val().grad(&gradients).unwrap();
        let [rows, columns] = gradient.dims();
        let values: Vec<f32> = gradient.into_data().iter::<f32>().collect();
        let size = values.iter().fold(0.0f32, |a, b| a.max(b.abs()));
        assert!(size > 1e-4, "{name} has no gradient");
        for entry in [0, 7, values.len() / 2, values.len() - 1] {
            let moved = |by: f32| {
                let mut model = model.clone();
                let param = place(&mut model);
                let mut data: Vec<f32> = param.val().into_data().iter::<f32>().collect();
                data[entry] += by;
                let data = TensorData::new(data, [rows, columns]);
                *param = param
                    .clone()
                    .map(|_| Tensor::from_data(data.clone(), &device));
                loss(&model)
            };
            let slope = (moved(step) - moved(-step)) / f64::from(2.0 * step);
            let off = (slope - f64::from(values[entry])).abs();
            assert!(
                off < 0.02 * f64::from(size) + 2e-4,
                "{name}[{entry}]: {slope} by differences, {} by the backward pass",
                values[entry]
            );
        }
    }
}

#[test]
fn a_text_of_a_batch_is_that_of_its_prompt_alone() {
    let device = Device::flex();
    let config = local_config(4, 6, Memory::Both, 1);
    let model = model(&config, 3, &device);
    let greedy = TokenSampler::greedy();
    let lead_in = [1, 2, 3, 12];
    let run = |prompts: &[Vec<u32>], max_tokens: usize| {
        let limits = Limits {
            window: config.window,
            max_tokens,
            end_of_text: 12,
        };
        TokenGenerator::new(&model, greedy, limits, &lead_in, prompts, 0, &device)
            .unwrap()
            .run()
    };
    let prompts = [ids(2, 1), ids(9, 2), vec![], ids(16, 3)];
    // The longest has 20 tokens with what is read in front of it, and the window 32.
    let together = run(&prompts, 12);
    for (prompt, text) in prompts.iter().zip(&together) {
        assert_eq!(&run(std::slice::from_ref(prompt), 12)[0], text);
    }
    // Past the window all contexts are cut to their last half, more than once.
    // Past the window contexts are cut to their last half, more than once.
    assert!(run(&prompts, 70).iter().any(|text| text.len() == 70));
}

#[test]
fn the_configuration_counts_what_there_is() {
    let device = Device::flex();
    for config in cases() {
        let model = model(&config, 1, &device);
        let count = burn::module::Module::num_params(&model) as u64;
        assert_eq!(config.language_model_parameters(), count);
        assert_eq!(
            config.local().parameters() + config.backbone().parameters(),
            count
        );
    }
    // Widths of 12 and 16, K = 4, V = 13, l = 5, one key/value head of 6 columns, W = 8, two layers,
    // a memory of 32 columns and 10 chunks, one near token.
    let config = local_config(4, 8, Memory::Both, 2).local();
    let chunk = 16 * 5 + 5 * 4 * 12 + 2 * 32 * 6 * 2;
    let layers = 2 * (2 * 12 * 12 + 2 * 12 * 6 + 3 * 12 * 20) + 2 * (8 + 10) * 12 * 2;
    assert_eq!(config.forward_macs(10), chunk / 4 + layers + 12 * 13 + 12);
}

#[test]
fn sizes_that_do_not_fit_are_named() {
    for (change, named) in [
        (
            (|c: &mut ModelConfig| c.local.window = 0) as fn(&mut ModelConfig),
            "model.local.window",
        ),
        (|c| c.local.layers = 0, "model.local.layers"),
        (|c| c.local.vector_size = 0, "model.local.vector_size"),
        (|c| c.local.heads = 5, "heads"),
        (|c| c.local.near_tokens = 32, "model.local.near_tokens"),
    ] {
        let mut config = local_config(4, 8, Memory::Both, 1);
        change(&mut config);
        let error = config.validate().unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
}
