//! SiLU alone, behind a sum, and as a gate.

mod autodiff;
mod cpu;
mod flex;

use burn::backend::{Backend, Dispatch, backend_extension, tensor::FloatTensor};
use burn::tensor::{Tensor, activation};

use crate::fused;

/// Backends with fused activations.
#[backend_extension(Flex, Autodiff)]
pub trait ActivationOps: Backend {
    /// `silu(x)`
    fn calm_silu(x: FloatTensor<Self>) -> FloatTensor<Self>;

    /// Gradient of [`ActivationOps::calm_silu`].
    fn calm_silu_backward(x: FloatTensor<Self>, grad: FloatTensor<Self>) -> FloatTensor<Self>;

    /// `silu(x + shared)`, x `[n, rows, d]`, shared `[rows, d]`.
    fn calm_silu_add(x: FloatTensor<Self>, shared: FloatTensor<Self>) -> FloatTensor<Self>;

    /// Gradients of [`ActivationOps::calm_silu_add`].
    fn calm_silu_add_backward(
        x: FloatTensor<Self>,
        shared: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// `silu(gate) * up`
    fn calm_silu_gate(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self>;

    /// Gradients of [`ActivationOps::calm_silu_gate`].
    fn calm_silu_gate_backward(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// [`ActivationOps::calm_silu_gate`] of the halves of the last dimension.
    fn calm_silu_gate_packed(both: FloatTensor<Self>) -> FloatTensor<Self>;

    /// Gradient of [`ActivationOps::calm_silu_gate_packed`].
    fn calm_silu_gate_packed_backward(
        both: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
}

/// `x / (1 + e^-x)`
pub fn silu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if !fused(&x.device()) {
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
    if !fused(&x.device()) {
        return silu_add_reference(x, shared);
    }
    let (x, shared) = (x.into_dispatch(), shared.into_dispatch());
    Tensor::from_dispatch(<Dispatch as ActivationOps>::calm_silu_add(x, shared))
}

/// `silu(gate) * up`, entry by entry.
pub fn silu_gate<const D: usize>(gate: Tensor<D>, up: Tensor<D>) -> Tensor<D> {
    assert_eq!(gate.dims(), up.dims(), "gate and what it gates differ");
    if !fused(&gate.device()) {
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
    if !fused(&both.device()) {
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
