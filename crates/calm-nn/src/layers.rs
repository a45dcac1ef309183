//! Burn's layers as holders of parameters, run by the fused kernels.

use burn::nn::{LayerNorm, Linear, RmsNorm};
use burn::tensor::Tensor;

/// Epsilon of all LayerNorms (CALM's released code).
pub const LAYER_NORM_EPS: f64 = 1e-6;

/// `x w + b`
///
/// # Shapes
/// - x: `[.., in]`
/// - output: `[.., out]`
pub fn linear<const D: usize>(layer: &Linear, x: Tensor<D>) -> Tensor<D> {
    let bias = layer.bias.as_ref().map(|bias| bias.val());
    calm_kernels::linear(x, layer.weight.val(), bias)
}

/// RMSNorm over the last dimension.
pub fn rms_norm<const D: usize>(norm: &RmsNorm, x: Tensor<D>) -> Tensor<D> {
    calm_kernels::rms_norm(x, norm.gamma.val(), norm.epsilon)
}

/// LayerNorm over the last dimension, with [`LAYER_NORM_EPS`].
///
/// # Panics
/// Where the norm has no bias.
pub fn layer_norm<const D: usize>(norm: &LayerNorm, x: Tensor<D>) -> Tensor<D> {
    let bias = norm.beta.as_ref().expect("a LayerNorm with bias").val();
    calm_kernels::layer_norm(x, norm.gamma.val(), bias, LAYER_NORM_EPS)
}
