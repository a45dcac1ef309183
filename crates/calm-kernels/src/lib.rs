//! Tensor operations that Burn lacks or does slowly: each a kernel with its own backward pass, and
//! beside it a plain tensor version that every other backend runs and every test compares with.
//!
//! | operation | files | CPU | GPUs (feature `cube`) |
//! |---|---|---|---|
//! | [`linear`] | `linear/`, on [`calm_gemm`] | kernel | the executor's own product |
//! | [`causal_attention`], [`local_attention`] | `attention/{cpu,tile}.rs`, `attention/cube.rs` | kernel | kernel |
//! | [`cached_attention`], [`cached_local_attention`] | `attention/{cached,tile}.rs` | kernel | plain version |
//! | [`rms_norm`], [`layer_norm`] | `norm/` | kernel | kernel |
//! | [`silu`], [`silu_add`], [`silu_gate`], [`silu_gate_packed`] | `activation/` | kernel | kernel |
//! | [`rope()`] | `rope/` | kernel | kernel |
//! | [`cross_entropy`] | `cross_entropy/` | kernel | kernel |
//! | [`gaussian_energy`] | `energy/`, draws from `philox.rs` | kernel | kernel |
//! | [`AdamW`] | `adamw/` | kernel | kernel |
//! | [`ArgmaxTable`] | `argmax/`, on [`calm_gemm::Argmax`] | kernel | plain version |
//! | the same and [`linear`] of weights in 8 bits ([`to_int8`]), [`look_up`] | `weights/`, on [`calm_gemm::Int8`] | kernel | in f32 |
//! | [`checkpoint()`] of any part of a model | `checkpoint.rs` | as a whole | as a whole |
//! | [`draw_softmax`] | `sampling.rs`, over numbers on the host | kernel | kernel on the host |
//!
//! In an operation's folder `mod.rs` is its face with the plain version, `autodiff.rs` its backward
//! pass (what these share is `autodiff.rs` of the crate), `flex.rs` the way from the CPU executor's tensor to slices, `cpu.rs` the loops, `cube.rs`
//! the CubeCL source. What the CPU's loops share is in `cpu/` (tensors as slices, rows over threads)
//! and in calm-gemm (matrix products, vectors of every width, the choice of an instruction set).
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//!
//! let x = Tensor::<2>::from_floats([[3.0, 4.0]], &Device::flex());
//! let y = calm_kernels::rms_norm(x, Tensor::ones([2], &Device::flex()), 0.0);
//! // The root of the mean square is sqrt(12.5).
//! let expected = 3.0 / 12.5f32.sqrt();
//! assert!((y.into_data().iter::<f32>().next().unwrap() - expected).abs() < 1e-6);
//! ```

mod activation;
mod adamw;
mod argmax;
mod attention;
mod autodiff;
mod checkpoint;
mod cpu;
mod cross_entropy;
#[cfg(feature = "cube")]
mod cube;
mod energy;
mod linear;
mod norm;
mod philox;
mod rope;
mod sampling;
mod weights;

pub use activation::{silu, silu_add, silu_gate, silu_gate_packed};
pub use adamw::{AdamW, sum_of_squares};
pub use argmax::ArgmaxTable;
pub use attention::{
    Band, LocalKeys, cached_attention, cached_local_attention, causal_attention, local_attention,
};
pub use checkpoint::{can_checkpoint, checkpoint, with_gradient_checkpointing};
pub use cross_entropy::{Projection, cross_entropy};
pub use energy::{KeyedDraws, gaussian_energy};
pub use linear::{MatmulPrecision, linear, linear_by_table, precision_on, with_matmul_precision};
pub use norm::{layer_norm, rms_norm};
pub use philox::normals;
pub use rope::rope;
pub use sampling::{boltzmann_weights, draw_softmax};
pub use weights::{Depth, look_up, reads_short_weights, to_int8, wide};

/// Plain tensor versions of all operations.
pub mod reference {
    pub use crate::activation::{
        silu_add_reference as silu_add, silu_gate_packed_reference as silu_gate_packed,
        silu_gate_reference as silu_gate,
    };
    pub use crate::argmax::argmax_reference as argmax;
    pub use crate::attention::{
        cached_attention_reference as cached_attention,
        cached_local_attention_reference as cached_local_attention,
        causal_attention_reference as causal_attention,
        local_attention_reference as local_attention,
    };
    pub use crate::cross_entropy::cross_entropy_reference as cross_entropy;
    pub use crate::energy::gaussian_energy_reference as gaussian_energy;
    pub use crate::linear::{reference as linear, reference_bf16 as linear_bf16};
    pub use crate::norm::{layer_norm_reference as layer_norm, rms_norm_reference as rms_norm};
    pub use crate::rope::rope_reference as rope;
}

use burn::tensor::{Device, Tensor};

/// Whether this crate's kernels run on `device`: on the CPU executor, and with feature `cube` on
/// CUDA, ROCm, Vulkan, Metal and WebGPU. Elsewhere the plain versions do, and on GPUs those of
/// [`linear`], [`cached_attention`], [`cached_local_attention`] and [`ArgmaxTable`], whose products
/// are the executor's own.
pub fn fused(device: &Device) -> bool {
    on_flex(device) || on_cube(device)
}

fn on_flex(device: &Device) -> bool {
    *device == Device::flex()
}

#[cfg(feature = "cube")]
fn on_cube(device: &Device) -> bool {
    use burn::backend::DispatchDevice;
    let inner = device.clone().without_autodiff();
    matches!(inner.as_dispatch(), DispatchDevice::Cube(_))
}

#[cfg(not(feature = "cube"))]
fn on_cube(_: &Device) -> bool {
    false
}

/// Whether a kernel reads this tensor; those of GPUs read f32 alone.
fn has_kernel<const D: usize>(x: &Tensor<D>) -> bool {
    let device = x.device();
    on_flex(&device) || on_cube(&device) && x.dtype() == burn::tensor::DType::F32
}
