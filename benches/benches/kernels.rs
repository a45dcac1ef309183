//! Every kernel of calm-kernels beside its plain version, forward and (where it has one) backward,
//! at the sizes of the standard jobs; and the random numbers they are fed with.

use burn::tensor::{Device, Int, Tensor, TensorData};
use calm_benches::{device, tokens};
use calm_kernels::{
    AdamW, ArgmaxTable, Band, KeyedDraws, LocalKeys, Projection, normals, reference,
};
use divan::Bencher;

/// Inside the pool, as the calm program works.
fn main() {
    rayon::scope(|_| divan::main());
}

/// Which version.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Version {
    Kernel,
    Plain,
}
use Version::{Kernel, Plain};

fn random<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    let data = TensorData::new(normals(1, shape.iter().product()), shape);
    Tensor::from_data(data, device)
}

fn leaf<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    random(shape, device).require_grad()
}

/// Times `pass` and the backward pass of its sum, without the making of its inputs.
fn both_ways<I, const D: usize>(
    bencher: Bencher,
    inputs: impl Fn(&Device) -> I,
    pass: impl Fn(I) -> Tensor<D>,
) {
    let device = device().autodiff();
    bencher
        .with_inputs(|| inputs(&device))
        .bench_local_values(|inputs| {
            let gradients = pass(inputs).sum().backward();
            device.sync().expect("the device");
            gradients
        });
}

/// Times `pass` alone, without the making of its inputs.
fn forward<I, O>(bencher: Bencher, inputs: impl Fn(&Device) -> I, pass: impl Fn(I) -> O) {
    let device = device();
    bencher
        .with_inputs(|| inputs(&device))
        .bench_local_values(|inputs| {
            let output = pass(inputs);
            device.sync().expect("the device");
            output
        });
}

#[divan::bench(args = [Kernel, Plain], sample_count = 20, sample_size = 1)]
fn linear_4096_256_688(bencher: Bencher, version: Version) {
    let inputs = |d: &Device| (leaf([4096, 256], d), leaf([256, 688], d));
    both_ways(bencher, inputs, |(x, w)| match version {
        Kernel => calm_kernels::linear(x, w, None),
        Plain => reference::linear(x, w, None),
    });
}

#[divan::bench(args = [Kernel, Plain], sample_count = 20, sample_size = 1)]
fn rms_norm_4096_256(bencher: Bencher, version: Version) {
    let inputs = |d: &Device| (leaf([4096, 256], d), leaf([256], d));
    both_ways(bencher, inputs, |(x, w)| match version {
        Kernel => calm_kernels::rms_norm(x, w, 1e-6),
        Plain => reference::rms_norm(x, w, 1e-6),
    });
}

#[divan::bench(args = [Kernel, Plain], sample_count = 20, sample_size = 1)]
fn layer_norm_8192_256(bencher: Bencher, version: Version) {
    let inputs = |d: &Device| (leaf([8192, 256], d), leaf([256], d), leaf([256], d));
    both_ways(bencher, inputs, |(x, w, b)| match version {
        Kernel => calm_kernels::layer_norm(x, w, b, 1e-6),
        Plain => reference::layer_norm(x, w, b, 1e-6),
    });
}

#[divan::bench(args = [Kernel, Plain], sample_count = 20, sample_size = 1)]
fn silu_8192_256(bencher: Bencher, version: Version) {
    let inputs = |d: &Device| leaf([8192, 256], d);
    both_ways(bencher, inputs, |x| match version {
        Kernel => calm_kernels::silu(x),
        Plain => burn::tensor::activation::silu(x),
    });
}

#[divan::bench(args = [Kernel, Plain], sample_count = 20, sample_size = 1)]
fn silu_gate_4096_688(bencher: Bencher, version: Version) {
    let inputs = |d: &Device| (leaf([4096, 688], d), leaf([4096, 688], d));
    both_ways(bencher, inputs, |(gate, up)| match version {
        Kernel => calm_kernels::silu_gate(gate, up),
        Plain => reference::silu_gate(gate, up),
    });
}

#[divan::bench(args = [Kernel, Plain], sample_count = 20, sample_size = 1)]
fn silu_gate_packed_4096_1376(bencher: Bencher, version: Version) {
    let inputs = |d: &Device| leaf([4096, 1376], d);
    both_ways(bencher, inputs, |both| match version {
        Kernel => calm_kernels::silu_gate_packed(both),
        Plain => reference::silu_gate_packed(both),
    });
}

/// The head's N = 8 samples of a position share what comes from its hidden state.
#[divan::bench(args = [Kernel, Plain], sample_count = 20, sample_size = 1)]
fn silu_add_8_1024_256(bencher: Bencher, version: Version) {
    let inputs = |d: &Device| (leaf([8, 1024, 256], d), leaf([1024, 256], d));
    both_ways(bencher, inputs, |(x, shared)| match version {
        Kernel => calm_kernels::silu_add(x, shared),
        Plain => reference::silu_add(x, shared),
    });
}

#[divan::bench(args = [Kernel, Plain], sample_count = 20, sample_size = 1)]
fn rope_4_1024_8_heads(bencher: Bencher, version: Version) {
    let inputs = |d: &Device| {
        let x = leaf([4, 1024, 256], d);
        (x, random([1024, 16], d), random([1024, 16], d))
    };
    both_ways(bencher, inputs, |(x, cos, sin)| match version {
        Kernel => calm_kernels::rope(x, cos, sin),
        Plain => reference::rope(x, cos, sin),
    });
}

#[divan::bench(args = [Kernel, Plain], sample_count = 5, sample_size = 1)]
fn causal_attention_4_1024_8_heads(bencher: Bencher, version: Version) {
    let inputs = |d: &Device| [(); 3].map(|()| leaf([4, 1024, 256], d));
    both_ways(bencher, inputs, |[q, k, v]| match version {
        Kernel => calm_kernels::causal_attention(q, k, v, 8, 8),
        Plain => reference::causal_attention(q, k, v, 8, 8),
    });
}

#[divan::bench(args = [Kernel, Plain], consts = [8, 16, 32], sample_count = 10, sample_size = 1)]
fn local_attention_4_1024_8_heads<const WINDOW: usize>(bencher: Bencher, version: Version) {
    local_attention(bencher, version, WINDOW, false);
}

/// With the memory of all chunks of four tokens.
#[divan::bench(args = [Kernel, Plain], consts = [8, 16, 32], sample_count = 10, sample_size = 1)]
fn local_attention_4_1024_8_heads_memory<const WINDOW: usize>(bencher: Bencher, version: Version) {
    local_attention(bencher, version, WINDOW, true);
}

fn local_attention(bencher: Bencher, version: Version, window: usize, memory: bool) {
    let inputs = |d: &Device| {
        let memory = memory.then(|| (leaf([4, 256, 256], d), leaf([4, 256, 256], d)));
        ([(); 3].map(|()| leaf([4, 1024, 256], d)), memory)
    };
    let band = Band { window, chunk: 4 };
    both_ways(bencher, inputs, |([q, k, v], memory)| match version {
        Kernel => calm_kernels::local_attention(q, k, v, memory, 8, 8, band),
        Plain => reference::local_attention(q, k, v, memory, 8, 8, band),
    });
}

/// The last of 448 tokens, over the keys of 112 chunks' memories and of 16 tokens: beside
/// `cached_attention_128_8_heads`.
#[divan::bench(args = [Kernel, Plain], sample_count = 50)]
fn cached_local_attention_112_16_8_heads(bencher: Bencher, version: Version) {
    let inputs = |d: &Device| {
        let cache = |n| {
            let [k, v] = [(); 2].map(|()| random([1, 8, n, 32], d));
            (k, v)
        };
        let keys = LocalKeys {
            tokens: cache(32),
            first: 432,
            held: 16,
            memory: Some(cache(256)),
        };
        (random([1, 1, 256], d), keys)
    };
    let band = Band {
        window: 16,
        chunk: 4,
    };
    forward(bencher, inputs, |(q, keys)| match version {
        Kernel => calm_kernels::cached_local_attention(q, &keys, &[0], band),
        Plain => reference::cached_local_attention(q, &keys, &[0], band),
    });
}

#[divan::bench(args = [Kernel, Plain], consts = [1, 5, 128], sample_count = 50)]
fn cached_attention_1024_8_heads<const NEW: usize>(bencher: Bencher, version: Version) {
    cached_attention(bencher, version, NEW, 1024);
}

#[divan::bench(args = [Kernel, Plain], consts = [1, 5], sample_count = 50)]
fn cached_attention_128_8_heads<const NEW: usize>(bencher: Bencher, version: Version) {
    cached_attention(bencher, version, NEW, 128);
}

/// The last of so many positions of a cache: one as decoding has it, five as the verification of
/// a draft has it, more where a text goes on.
fn cached_attention(bencher: Bencher, version: Version, new: usize, held: usize) {
    let inputs = |d: &Device| {
        let [k, v] = [(); 2].map(|()| random([1, 8, 1024, 32], d));
        (random([1, new, 256], d), k, v)
    };
    forward(bencher, inputs, |(q, k, v)| match version {
        Kernel => calm_kernels::cached_attention(q, k, v, held, &[0]),
        Plain => reference::cached_attention(q, k, v, held, &[0]),
    });
}

#[divan::bench(args = [Kernel, Plain], sample_count = 5, sample_size = 1)]
fn cross_entropy_2048_256_8192(bencher: Bencher, version: Version) {
    let ids: Vec<i32> = tokens(2048, 8192).iter().map(|&id| id as i32).collect();
    let inputs = |d: &Device| {
        let targets = Tensor::<1, Int>::from_data(TensorData::new(ids.clone(), [2048]), d);
        (leaf([2048, 256], d), leaf([256, 8192], d), targets)
    };
    both_ways(bencher, inputs, |(x, w, targets)| match version {
        Kernel => calm_kernels::cross_entropy(x, Projection::Output(w), targets),
        Plain => reference::cross_entropy(x, Projection::Output(w), targets),
    });
}

/// M = 100.
const DRAWS: KeyedDraws = KeyedDraws {
    count: 100,
    key: 1,
    antithetic: false,
};

/// N = 8, M = 100, l = 128.
#[divan::bench(args = [Kernel, Plain], sample_count = 5, sample_size = 1)]
fn energy_score_256_positions(bencher: Bencher, version: Version) {
    let inputs = |d: &Device| {
        let [mean, log_std] = [(); 2].map(|()| Tensor::zeros([256, 128], d));
        (leaf([8, 256, 128], d), mean, log_std)
    };
    both_ways(bencher, inputs, |(x, mean, log_std)| {
        let (attraction, repulsion) = match version {
            Kernel => calm_kernels::gaussian_energy(x, mean, log_std, DRAWS, 1.0),
            Plain => reference::gaussian_energy(x, mean, log_std, DRAWS, 1.0),
        };
        attraction * 2.0 - repulsion
    });
}

/// The vocabulary's table of a token model.
#[divan::bench(args = [Kernel, Plain], sample_count = 20, sample_size = 1)]
fn adamw_8192_256(bencher: Bencher, version: Version) {
    let step = AdamW {
        lr: 1e-3,
        weight_decay: 0.1,
        beta1: 0.9,
        beta2: 0.95,
        epsilon: 1e-8,
        time: 10,
    };
    let inputs = |d: &Device| {
        let [parameter, gradient, first, second] = [(); 4].map(|()| random([8192, 256], d));
        // A second moment is no less than zero.
        (parameter, gradient, first, second.abs())
    };
    forward(
        bencher,
        inputs,
        |(parameter, gradient, first, second)| match version {
            Kernel => step.step(parameter, gradient, first, second),
            Plain => step.step_reference(parameter, gradient, first, second),
        },
    );
}

/// For the gradient's norm.
#[divan::bench(args = [Kernel, Plain], sample_count = 20, sample_size = 1)]
fn sum_of_squares_8192_256(bencher: Bencher, version: Version) {
    let inputs = |d: &Device| random([8192, 256], d);
    forward(bencher, inputs, |x| match version {
        Kernel => calm_kernels::sum_of_squares(x),
        Plain => x.square().sum(),
    });
}

/// The most likely of 8,192 tokens for the K = 4 positions of a chunk, and for 200 draws.
#[divan::bench(args = [(Kernel, 4), (Plain, 4), (Kernel, 200), (Plain, 200)], sample_count = 10, sample_size = 1)]
fn argmax_8192_512(bencher: Bencher, (version, rows): (Version, usize)) {
    let entries = random([8192, 512], &device());
    let table = ArgmaxTable::new(entries.clone());
    // What is made once.
    table.search(random([1, 512], &device()));
    let inputs = |d: &Device| random([rows, 512], d);
    forward(bencher, inputs, |x| match version {
        Kernel => table.search(x),
        Plain => reference::argmax(x, entries.clone()),
    });
}

/// Counter-based normal numbers on the host.
#[divan::bench(sample_count = 20)]
fn normal_numbers_1m(bencher: Bencher) {
    bencher.bench_local(|| normals(1, 1 << 20));
}
