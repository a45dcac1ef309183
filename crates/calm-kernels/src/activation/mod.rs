//! SiLU alone, behind a sum, and as a gate.

mod autodiff;
mod cpu;
#[cfg(feature = "cube")]
mod cube;
mod flex;

use burn::backend::{Backend, Dispatch, backend_extension, tensor::FloatTensor};
use burn::tensor::{Tensor, activation};

use crate::has_kernel;

/// Backends with fused activations.
#[backend_extension(
    Flex,
    Cube: cfg(feature = "cube"),
    Fusion: cfg(feature = "cube"),
    Autodiff
)]
pub trait ActivationOps: Backend {
    /// `silu(x)`
    #[fusion(dtype = x, shape = x)]
    fn calm_silu(x: FloatTensor<Self>) -> FloatTensor<Self>;

    /// Gradient of [`ActivationOps::calm_silu`].
    #[fusion(dtype = x, shape = x)]
    fn calm_silu_backward(x: FloatTensor<Self>, grad: FloatTensor<Self>) -> FloatTensor<Self>;

    /// `silu(x + shared)`, x `[n, rows, d]`, shared `[rows, d]`.
    #[fusion(dtype = x, shape = x)]
    fn calm_silu_add(x: FloatTensor<Self>, shared: FloatTensor<Self>) -> FloatTensor<Self>;

    /// Gradients of [`ActivationOps::calm_silu_add`].
    #[fusion(meta = |x, shared, _| (x.clone(), shared.clone()))]
    fn calm_silu_add_backward(
        x: FloatTensor<Self>,
        shared: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// `silu(gate) * up`
    #[fusion(dtype = gate, shape = gate)]
    fn calm_silu_gate(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self>;

    /// Gradients of [`ActivationOps::calm_silu_gate`].
    #[fusion(meta = |gate, up, _| (gate.clone(), up.clone()))]
    fn calm_silu_gate_backward(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// [`ActivationOps::calm_silu_gate`] of the halves of the last dimension.
    #[fusion(dtype = both, shape = halved(both))]
    fn calm_silu_gate_packed(both: FloatTensor<Self>) -> FloatTensor<Self>;

    /// Gradient of [`ActivationOps::calm_silu_gate_packed`].
    #[fusion(dtype = both, shape = both)]
    fn calm_silu_gate_packed_backward(
        both: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
}

/// The shape of a gate's output.
#[cfg(feature = "cube")]
fn halved(both: &burn::tensor::Shape) -> burn::tensor::Shape {
    let mut shape = both.clone();
    let last = shape.num_dims() - 1;
    shape[last] /= 2;
    shape
}

/// `x / (1 + e^-x)`
pub fn silu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if !has_kernel(&x) {
        return activation::silu(x);
    }
    Tensor::from_dispatch(<Dispatch as ActivationOps>::calm_silu(x.into_dispatch()))
}

/// `silu(x + shared)`, the same `shared` for every entry of the first dimension.
///
/// # Shapes
/// - x: `[n, rows, d]`
/// - shared: `[rows, d]`
pub fn silu_add(x: Tensor<3>, shared: Tensor<2>) -> Tensor<3> {
    let [_, rows, d] = x.dims();
    assert_eq!([rows, d], shared.dims(), "the summand is [rows, d] of x");
    if !has_kernel(&x) {
        return silu_add_reference(x, shared);
    }
    let (x, shared) = (x.into_dispatch(), shared.into_dispatch());
    Tensor::from_dispatch(<Dispatch as ActivationOps>::calm_silu_add(x, shared))
}

/// `silu(gate) * up`, entry by entry.
pub fn silu_gate<const D: usize>(gate: Tensor<D>, up: Tensor<D>) -> Tensor<D> {
    assert_eq!(gate.dims(), up.dims(), "gate and what it gates differ");
    if !has_kernel(&gate) {
        return silu_gate_reference(gate, up);
    }
    let (gate, up) = (gate.into_dispatch(), up.into_dispatch());
    Tensor::from_dispatch(<Dispatch as ActivationOps>::calm_silu_gate(gate, up))
}

/// `silu(gate) * up` of two halves that lie side by side.
///
/// # Shapes
/// - both: `[.., 2 d]`, gate then up
/// - output: `[.., d]`
pub fn silu_gate_packed<const D: usize>(both: Tensor<D>) -> Tensor<D> {
    let width = both.dims()[D - 1];
    assert!(width.is_multiple_of(2), "{width} columns have no halves");
    if !has_kernel(&both) {
        return silu_gate_packed_reference(both);
    }
    let both = both.into_dispatch();
    Tensor::from_dispatch(<Dispatch as ActivationOps>::calm_silu_gate_packed(both))
}

/// [`silu_add`] in plain tensor operations.
pub fn silu_add_reference(x: Tensor<3>, shared: Tensor<2>) -> Tensor<3> {
    activation::silu(x + shared.unsqueeze_dim(0))
}

/// [`silu_gate`] in plain tensor operations.
pub fn silu_gate_reference<const D: usize>(gate: Tensor<D>, up: Tensor<D>) -> Tensor<D> {
    activation::silu(gate) * up
}

/// [`silu_gate_packed`] in plain tensor operations.
pub fn silu_gate_packed_reference<const D: usize>(both: Tensor<D>) -> Tensor<D> {
    let d = both.dims()[D - 1] / 2;
    silu_gate_reference(both.clone().narrow(D - 1, 0, d), both.narrow(D - 1, d, d))
}
