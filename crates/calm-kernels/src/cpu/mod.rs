//! What the loops of the CPU share besides calm-gemm's products and vectors.

pub(crate) mod rows;
pub(crate) mod tensor;
