//! RMSNorm and LayerNorm over the last dimension.

mod autodiff;
mod cpu;
#[cfg(feature = "cube")]
mod cube;
mod flex;

use burn::backend::{Backend, Dispatch, backend_extension, tensor::FloatTensor};
use burn::tensor::Tensor;

use crate::has_kernel;

/// Backends with fused norms. Gradients are those of input and weight (and bias).
#[backend_extension(
    Flex,
    Cube: cfg(feature = "cube"),
    Fusion: cfg(feature = "cube"),
    Autodiff
)]
pub trait NormOps: Backend {
    /// `w x / sqrt(mean(x^2) + eps)`
    #[fusion(dtype = x, shape = x)]
    fn calm_rms_norm(x: FloatTensor<Self>, w: FloatTensor<Self>, eps: f32) -> FloatTensor<Self>;

    /// Gradients of [`NormOps::calm_rms_norm`].
    #[fusion(meta = |x, w, _, _| (x.clone(), w.clone()))]
    fn calm_rms_norm_backward(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        eps: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// `w (x - mean(x)) / sqrt(var(x) + eps) + b`
    #[fusion(dtype = x, shape = x)]
    fn calm_layer_norm(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        b: FloatTensor<Self>,
        eps: f32,
    ) -> FloatTensor<Self>;

    /// Gradients of [`NormOps::calm_layer_norm`].
    #[fusion(meta = |x, w, _, _| (x.clone(), w.clone(), w.clone()))]
    fn calm_layer_norm_backward(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        eps: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

/// RMSNorm: `weight * x / sqrt(mean(x^2) + eps)`.
///
/// # Shapes
/// - x: `[.., d]`
/// - weight: `[d]`
pub fn rms_norm<const D: usize>(x: Tensor<D>, weight: Tensor<1>, eps: f64) -> Tensor<D> {
    if !has_kernel(&x) {
        return rms_norm_reference(x, weight, eps);
    }
    check(&x, &weight);
    let (x, w) = (x.into_dispatch(), weight.into_dispatch());
    Tensor::from_dispatch(<Dispatch as NormOps>::calm_rms_norm(x, w, eps as f32))
}

/// LayerNorm: `weight * (x - mean(x)) / sqrt(var(x) + eps) + bias`, the variance with divisor d.
///
/// # Shapes
/// - x: `[.., d]`
/// - weight, bias: `[d]`
pub fn layer_norm<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    eps: f64,
) -> Tensor<D> {
    if !has_kernel(&x) {
        return layer_norm_reference(x, weight, bias, eps);
    }
    check(&x, &weight);
    check(&x, &bias);
    let y = <Dispatch as NormOps>::calm_layer_norm(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
        eps as f32,
    );
    Tensor::from_dispatch(y)
}

fn check<const D: usize>(x: &Tensor<D>, weight: &Tensor<1>) {
    let (d, w) = (x.dims()[D - 1], weight.dims()[0]);
    assert_eq!(d, w, "a norm of width {w} was given rows of {d}");
}

/// [`rms_norm`] in plain tensor operations.
pub fn rms_norm_reference<const D: usize>(x: Tensor<D>, weight: Tensor<1>, eps: f64) -> Tensor<D> {
    let root = (x.clone().square().mean_dim(D - 1) + eps).sqrt();
    x / root * weight.unsqueeze()
}

/// [`layer_norm`] in plain tensor operations.
pub fn layer_norm_reference<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    eps: f64,
) -> Tensor<D> {
    let centred = x.clone() - x.mean_dim(D - 1);
    let root = (centred.clone().square().mean_dim(D - 1) + eps).sqrt();
    centred / root * weight.unsqueeze() + bias.unsqueeze()
}
