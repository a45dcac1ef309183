//! Matrix products on CPUs in f32 and through bf16, and the search for a table's entry with the
//! largest product, on plain slices.
//!
//! | operation | files | AVX-512 | AVX2 and FMA | elsewhere |
//! |---|---|---|---|---|
//! | [`gemm()`], [`gemm_serial`] | `product.rs`, `product/` | kernel, bf16 where it has the products | kernel | the `gemm` crate |
//! | the same with at most five rows | `product/few.rs` | reads the right factor once, as it lies | likewise | likewise |
//! | [`Argmax`] | `argmax.rs`, `argmax/` | 8-bit products (VNNI), then exact ones | likewise (`maddubs`) | scores |
//!
//! Right factors and tables ([`Right`]) may be kept in bf16, half the memory and half of what products
//! of few rows read, or in 8 bits with a scale for each block ([`Int8`]), a quarter.
//!
//! What both are written in serves other kernels too: a loop compiled for every instruction set
//! ([`simd!`], [`by_level!`] over [`lanes`]) and a slice that threads share ([`Shared`]).
//! `CALM_ISA=avx2` or `CALM_ISA=base` in the environment holds these kernels to less than the machine
//! has, which is how one machine tests the kernels of others; the `gemm` crate, which `base` leaves
//! the large products to, goes by the machine.
//!
//! ```
//! use calm_gemm::{Mat, MatMut, MatmulPrecision, Update, gemm};
//!
//! let (a, b) = ([1.0, 2.0, 3.0, 4.0], [5.0, 6.0]);
//! let mut c = [0.0; 2];
//! let target = MatMut::new(&mut c, 2, 1);
//! gemm(Mat::new(&a, 2, 2), Mat::new(&b, 2, 1), target, Update::Overwrite, MatmulPrecision::F32);
//! assert_eq!(c, [17.0, 39.0]);
//! ```

mod argmax;
// Not of the interface: a vector's methods are sound only within what `by_level!` makes.
#[doc(hidden)]
pub mod lanes;
mod number;
mod product;
mod shared;
pub mod simd;

pub use argmax::Argmax;
pub use half::bf16;
pub use product::{
    Int8, Mat, MatMut, MatmulPrecision, Right, Update, gemm, gemm_serial, round_to_int8,
};
pub use shared::Shared;
