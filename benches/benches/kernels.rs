//! Every kernel of calm-kernels beside its plain version, forward and backward, at the sizes of
//! the standard jobs; and the random numbers they are fed with.

use burn::tensor::{Device, Int, Tensor, TensorData};
use calm_benches::{device, tokens};
use calm_kernels::{Projection, normals, reference};
use divan::Bencher;

fn main() {
    divan::main();
}

/// Which version.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Version {
    Kernel,
    Plain,
}
use Version::{Kernel, Plain};

fn leaf<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    let data = TensorData::new(normals(1, shape.iter().product()), shape);
    Tensor::<D>::from_data(data, device).require_grad()
}

/// Runs `pass` and the backward pass of its sum.
fn both_ways<const D: usize>(bencher: Bencher, pass: impl Fn(&Device) -> Tensor<D>) {
    let device = device().autodiff();
    bencher.bench_local(|| {
        let gradients = pass(&device).sum().backward();
        device.sync().expect("the device");
        gradients
    });
}

#[divan::bench(args = [Kernel, Plain], sample_count = 20, sample_size = 1)]
fn linear_4096_256_688(bencher: Bencher, version: Version) {
    both_ways(bencher, |d| {
        let (x, w) = (leaf([4096, 256], d), leaf([256, 688], d));
        match version {
            Kernel => calm_kernels::linear(x, w, None),
            Plain => reference::linear(x, w, None),
        }
    });
}

#[divan::bench(args = [Kernel, Plain], sample_count = 20, sample_size = 1)]
fn rms_norm_4096_256(bencher: Bencher, version: Version) {
    both_ways(bencher, |d| {
        let (x, w) = (leaf([4096, 256], d), leaf([256], d));
        match version {
            Kernel => calm_kernels::rms_norm(x, w, 1e-6),
            Plain => reference::rms_norm(x, w, 1e-6),
        }
    });
}

#[divan::bench(args = [Kernel, Plain], sample_count = 20, sample_size = 1)]
fn silu_gate_4096_688(bencher: Bencher, version: Version) {
    both_ways(bencher, |d| {
        let (gate, up) = (leaf([4096, 688], d), leaf([4096, 688], d));
        match version {
            Kernel => calm_kernels::silu_gate(gate, up),
            Plain => reference::silu_gate(gate, up),
        }
    });
}

#[divan::bench(args = [Kernel, Plain], sample_count = 5, sample_size = 1)]
fn causal_attention_4_1024_8_heads(bencher: Bencher, version: Version) {
    both_ways(bencher, |d| {
        let [q, k, v] = [(); 3].map(|()| leaf([4, 1024, 256], d));
        match version {
            Kernel => calm_kernels::causal_attention(q, k, v, 8, 8),
            Plain => reference::causal_attention(q, k, v, 8, 8),
        }
    });
}

#[divan::bench(args = [Kernel, Plain], sample_count = 5, sample_size = 1)]
fn cross_entropy_2048_256_8192(bencher: Bencher, version: Version) {
    let ids: Vec<i32> = tokens(2048, 8192).iter().map(|&id| id as i32).collect();
    both_ways(bencher, |d| {
        let targets = Tensor::<1, Int>::from_data(TensorData::new(ids.clone(), [2048]), d);
        let (x, w) = (leaf([2048, 256], d), leaf([256, 8192], d));
        match version {
            Kernel => calm_kernels::cross_entropy(x, Projection::Output(w), targets),
            Plain => reference::cross_entropy(x, Projection::Output(w), targets),
        }
    });
}

/// N = 8, M = 100, l = 128.
#[divan::bench(args = [Kernel, Plain], sample_count = 5, sample_size = 1)]
fn energy_score_256_positions(bencher: Bencher, version: Version) {
    both_ways(bencher, |d| {
        let x = leaf([8, 256, 128], d);
        let (mean, log_std) = (Tensor::zeros([256, 128], d), Tensor::zeros([256, 128], d));
        let (attraction, repulsion) = match version {
            Kernel => calm_kernels::gaussian_energy(x, mean, log_std, 100, 1, 1.0),
            Plain => reference::gaussian_energy(x, mean, log_std, 100, 1, 1.0),
        };
        attraction * 2.0 - repulsion
    });
}

/// Counter-based normal numbers on the host.
#[divan::bench(sample_count = 20)]
fn normal_numbers_1m(bencher: Bencher) {
    bencher.bench_local(|| normals(1, 1 << 20));
}
