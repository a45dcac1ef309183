//! Tensor operations that Burn lacks or does slowly: each a kernel with its own backward pass, and
//! beside it a plain tensor version that every other backend runs and every test compares with.
//!
//! ```
//! use burn::tensor::Device;
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
mod cpu;
mod cross_entropy;
mod energy;
mod linear;
mod norm;
mod philox;
mod rope;

pub use activation::{silu, silu_add, silu_gate, silu_gate_packed};
pub use adamw::{AdamW, sum_of_squares};
pub use argmax::ArgmaxTable;
pub use attention::{cached_attention, causal_attention};
pub use cross_entropy::{Projection, cross_entropy};
pub use energy::gaussian_energy;
pub use linear::{MatmulPrecision, linear, with_matmul_precision};
pub use norm::{layer_norm, rms_norm};
pub use philox::normals;
pub use rope::rope;

/// Plain tensor versions of all operations.
pub mod reference {
    pub use crate::activation::{
        silu_add_reference as silu_add, silu_gate_packed_reference as silu_gate_packed,
        silu_gate_reference as silu_gate,
    };
    pub use crate::argmax::argmax_reference as argmax;
    pub use crate::attention::{
        cached_attention_reference as cached_attention,
        causal_attention_reference as causal_attention,
    };
    pub use crate::cross_entropy::cross_entropy_reference as cross_entropy;
    pub use crate::energy::gaussian_energy_reference as gaussian_energy;
    pub use crate::linear::reference as linear;
    pub use crate::norm::{layer_norm_reference as layer_norm, rms_norm_reference as rms_norm};
    pub use crate::rope::rope_reference as rope;
}

use burn::tensor::Device;

/// Whether this crate's kernels run on `device`; elsewhere the plain versions do.
pub fn fused(device: &Device) -> bool {
    *device == Device::flex()
}

/// Kernels' backward passes have none of their own.
fn first_order() -> ! {
    panic!("the kernels have first derivatives only")
}
