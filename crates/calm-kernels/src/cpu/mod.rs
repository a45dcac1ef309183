//! The kernels of the CPU, on plain slices.

pub(crate) mod gemm;
pub(crate) mod lanes;
pub(crate) mod rows;
pub(crate) mod shared;
pub(crate) mod simd;
pub(crate) mod tensor;
