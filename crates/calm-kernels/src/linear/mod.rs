//! `x w + b`, and the precision of its products.

mod autodiff;
mod flex;

use std::cell::Cell;

use burn::backend::{Backend, Dispatch, backend_extension, tensor::FloatTensor};
use burn::tensor::{DType, Device, Tensor};

use crate::on_flex;
use crate::weights::{Depth, is_int8, linear_int8, wide};
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

/// How products asked for in `precision` are rounded on `device`: in f32 where it has none of bf16.
pub fn precision_on(precision: MatmulPrecision, device: &Device) -> MatmulPrecision {
    match precision {
        MatmulPrecision::F32 => MatmulPrecision::F32,
        wanted if on_flex(device) => wanted.on_this_machine(),
        wanted if device.supports_dtype(DType::BF16) => wanted,
        MatmulPrecision::Bf16 => MatmulPrecision::F32,
    }
}

/// Runs `work` with the matrix products that this thread begins, forward and backward, rounded as
/// `precision` says: those of [`linear`], attention and cross-entropy. Everything else stays in
/// f32, and so do tensors. On GPUs only linear layers are, and there the product itself is rounded
/// too, as the executor gives it.
///
/// ```
/// use burn::tensor::{DType, Device, Tensor};
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

/// A linear layer. Its weight may be kept in bf16 or 8 bits, half the memory or a quarter: it is
/// widened, and everything is computed in f32 (on the CPU block by block; elsewhere the whole weight is
/// widened for the time of the product). Of such a weight there is no gradient.
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
    let on_flex = on_flex(&x.device());
    if !on_flex && !is_int8(&weight) {
        return match precision_on(matmul_precision(), &x.device()) {
            MatmulPrecision::F32 => reference(x, weight, bias),
            MatmulPrecision::Bf16 => reference_bf16(x, weight, bias),
        };
    }
    let mut dims = x.dims();
    let [d_input, d_output] = weight.dims();
    assert_eq!(dims[D - 1], d_input, "a linear layer of {d_input} inputs");
    let rows = dims[..D - 1].iter().product::<usize>();
    let x = x.reshape([rows, d_input]);
    let y = match (is_int8(&weight), bias) {
        (true, None) => linear_int8(x, weight, Depth::Rows),
        (true, Some(bias)) => linear_int8(x, weight, Depth::Rows) + bias.unsqueeze(),
        (false, bias) => {
            let (x, w) = (x.into_dispatch(), weight.into_dispatch());
            Tensor::<2>::from_dispatch(match bias {
                Some(bias) => <Dispatch as LinearOps>::calm_linear_bias(x, w, bias.into_dispatch()),
                None => <Dispatch as LinearOps>::calm_linear(x, w),
            })
        }
    };
    dims[D - 1] = d_output;
    y.reshape(dims)
}

/// `x table^T`, the products of rows with all vectors of a table, whose weight may be kept as that of
/// [`linear`].
///
/// # Shapes
/// - x: `[rows, d]`
/// - table: `[V, d]`
/// - output: `[rows, V]`
pub fn linear_by_table(x: Tensor<2>, table: Tensor<2>) -> Tensor<2> {
    match is_int8(&table) {
        true => linear_int8(x, table, Depth::Columns),
        false => linear(x, table.transpose(), None),
    }
}

/// [`reference()`] with factors and product rounded to bf16, and the gradients' alike; tensors, the
/// bias and its gradient are in f32.
pub fn reference_bf16<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
) -> Tensor<D> {
    // As one matrix: a weight repeated for every batch would have its gradient summed in bf16.
    let mut dims = x.dims();
    let [d_input, d_output] = weight.dims();
    let rows = dims[..D - 1].iter().product::<usize>();
    let x = x.reshape([rows, d_input]);
    let [x, weight] = [x, weight].map(|factor| factor.cast(DType::BF16));
    let y = x.matmul(weight).cast(DType::F32);
    dims[D - 1] = d_output;
    let y = y.reshape(dims);
    match bias {
        Some(bias) => y + bias.unsqueeze(),
        None => y,
    }
}

/// The same in plain tensor operations.
pub fn reference<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
) -> Tensor<D> {
    let y = x.matmul(wide(weight).unsqueeze());
    match bias {
        Some(bias) => y + bias.unsqueeze(),
        None => y,
    }
}
