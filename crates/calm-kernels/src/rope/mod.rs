//! Rotary positions in the half-rotation layout.

mod autodiff;
#[cfg(feature = "cube")]
mod cube;
mod flex;

use burn::backend::{Backend, Dispatch, backend_extension, tensor::FloatTensor};
use burn::tensor::Tensor;

use crate::has_kernel;

/// Backends with a fused rotation.
#[backend_extension(
    Flex,
    Cube: cfg(feature = "cube"),
    Fusion: cfg(feature = "cube"),
    Autodiff
)]
pub trait RopeOps: Backend {
    /// Rotates the pairs `(j, j + half)` of every head; `direction` -1 turns back.
    ///
    /// x `[batch, positions, heads * 2 half]`, cos and sin `[positions, half]`.
    #[fusion(dtype = x, shape = x)]
    fn calm_rope(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        direction: f32,
    ) -> FloatTensor<Self>;
}

/// Rotates, in every head, the pair `(x[j], x[j + half])` by the angle of its position.
///
/// # Shapes
/// - x: `[batch, positions, heads * 2 half]`
/// - cos, sin: `[positions, half]`, no gradient flows to them
pub fn rope(x: Tensor<3>, cos: Tensor<2>, sin: Tensor<2>) -> Tensor<3> {
    let ([_, positions, width], [rows, half]) = (x.dims(), cos.dims());
    assert_eq!(positions, rows, "one angle per position");
    assert!(
        width.is_multiple_of(2 * half),
        "{width} columns are no heads of {}",
        2 * half
    );
    if !has_kernel(&x) {
        return rope_reference(x, cos, sin);
    }
    let y = <Dispatch as RopeOps>::calm_rope(
        x.into_dispatch(),
        cos.into_dispatch(),
        sin.into_dispatch(),
        1.0,
    );
    Tensor::from_dispatch(y)
}

/// [`rope`] in plain tensor operations.
pub fn rope_reference(x: Tensor<3>, cos: Tensor<2>, sin: Tensor<2>) -> Tensor<3> {
    let ([batch, positions, width], [_, half]) = (x.dims(), cos.dims());
    let x = x.reshape([batch, positions, width / (2 * half), 2 * half]);
    let widen = |y: Tensor<2>| y.reshape([1, positions, 1, half]);
    let (cos, sin) = (widen(cos), widen(sin));
    let (a, b) = (x.clone().narrow(3, 0, half), x.narrow(3, half, half));
    let first = a.clone() * cos.clone() - b.clone() * sin.clone();
    let second = b * cos + a * sin;
    Tensor::cat(vec![first, second], 3).reshape([batch, positions, width])
}
