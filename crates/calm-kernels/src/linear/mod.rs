//! `x w + b`, and the precision of its products.

mod autodiff;
mod flex;

use std::cell::Cell;

use burn::backend::{Backend, Dispatch, backend_extension, tensor::FloatTensor};
use burn::tensor::{Device, Tensor};

use crate::on_flex;
pub use calm_gemm::MatmulPrecision;

/// Backends with a fused linear layer.
#[backend_extension(Flex, Autodiff)]
pub trait LinearOps: Backend {
    /// `x w`, `[rows, in]` times `[in, out]`.
    fn calm_linear(x: FloatTensor<Self>, w: FloatTensor<Self>) -> FloatTensor<Self>;

    /// `x w + b`.
    fn calm_linear_bias(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        b: FloatTensor<Self>,
    ) -> FloatTensor<Self>;

    /// Gradient of x: `grad w^T`.
    fn calm_linear_grad_x(grad: FloatTensor<Self>, w: FloatTensor<Self>) -> FloatTensor<Self>;

    /// Gradient of w: `x^T grad`.
    fn calm_linear_grad_w(x: FloatTensor<Self>, grad: FloatTensor<Self>) -> FloatTensor<Self>;

    /// Gradient of b: the sums of the columns.
    fn calm_linear_grad_b(grad: FloatTensor<Self>) -> FloatTensor<Self>;
}

thread_local! {
    static PRECISION: Cell<MatmulPrecision> = const { Cell::new(MatmulPrecision::F32) };
}

/// Whether products are rounded so on `device`, where its processor can; elsewhere they stay in f32.
pub fn precision_known_on(precision: MatmulPrecision, device: &Device) -> bool {
    precision == MatmulPrecision::F32 || on_flex(device)
}

/// Runs `work` with the matrix products that this thread begins, forward and backward, rounded as
/// `precision` says: those of [`linear`], attention and cross-entropy. Everything else stays in
/// f32, and so do tensors. Only flex knows it so far.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use calm_kernels::{MatmulPrecision, linear, with_matmul_precision};
///
/// let ones = |rows| Tensor::<2>::ones([rows, 8], &Device::flex());
/// let y = with_matmul_precision(MatmulPrecision::Bf16, || linear(ones(2), ones(8), None));
/// assert_eq!(y.dims(), [2, 8]);
/// ```
pub fn with_matmul_precision<R>(precision: MatmulPrecision, work: impl FnOnce() -> R) -> R {
    /// Puts the old value back, after a panic too.
    struct Restore(MatmulPrecision);
    impl Drop for Restore {
        fn drop(&mut self) {
            PRECISION.set(self.0);
        }
    }
    let _restore = Restore(PRECISION.replace(precision));
    work()
}

/// The precision in force on this thread.
pub(crate) fn matmul_precision() -> MatmulPrecision {
    PRECISION.get()
}

/// A linear layer.
///
/// # Shapes
/// - x: `[.., in]`
/// - weight: `[in, out]`
/// - bias: `[out]`
/// - output: `[.., out]`
pub fn linear<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
) -> Tensor<D> {
    if !on_flex(&x.device()) {
        return reference(x, weight, bias);
    }
    let mut dims = x.dims();
    let [d_input, d_output] = weight.dims();
    assert_eq!(dims[D - 1], d_input, "a linear layer of {d_input} inputs");
    let rows = dims[..D - 1].iter().product::<usize>();
    let x = x.reshape([rows, d_input]).into_dispatch();
    let w = weight.into_dispatch();
    let y = match bias {
        Some(bias) => <Dispatch as LinearOps>::calm_linear_bias(x, w, bias.into_dispatch()),
        None => <Dispatch as LinearOps>::calm_linear(x, w),
    };
    dims[D - 1] = d_output;
    Tensor::<2>::from_dispatch(y).reshape(dims)
}

/// The same in plain tensor operations.
pub fn reference<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
) -> Tensor<D> {
    let y = x.matmul(weight.unsqueeze());
    match bias {
        Some(bias) => y + bias.unsqueeze(),
        None => y,
    }
}
