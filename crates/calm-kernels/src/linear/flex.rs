//! Linear layers on the CPU executor.

use burn::backend::{Flex, tensor::FloatTensor};

use super::{LinearOps, matmul_precision};
use crate::cpu::rows::{column_sums, for_rows};
use crate::cpu::tensor::{Floats, Matrix, filled, tensor};
use calm_gemm::{Mat, MatMut, Right, Update, bf16, gemm};

impl LinearOps for Flex {
    fn calm_linear(x: FloatTensor<Self>, w: FloatTensor<Self>) -> FloatTensor<Self> {
        product(Matrix::new(x).mat(), &Matrix::new(w), false)
    }

    fn calm_linear_bias(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        b: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let (x, w, b) = (Matrix::new(x), Matrix::new(w), Floats::new(b));
        let ([rows, _], n) = (x.dims(), b.len());
        let out = filled(rows * n, |out| {
            for_rows(out, n, |_, out| {
                for row in out.chunks_exact_mut(n) {
                    row.copy_from_slice(&b);
                }
            });
            multiply(x.mat(), &w, false, MatMut::new(out, rows, n), Update::Add);
        });
        tensor(out, [rows, n])
    }

    fn calm_linear_grad_x(grad: FloatTensor<Self>, w: FloatTensor<Self>) -> FloatTensor<Self> {
        product(Matrix::new(grad).mat(), &Matrix::new(w), true)
    }

    fn calm_linear_grad_w(x: FloatTensor<Self>, grad: FloatTensor<Self>) -> FloatTensor<Self> {
        product(Matrix::new(x).mat().t(), &Matrix::new(grad), false)
    }

    fn calm_linear_grad_b(grad: FloatTensor<Self>) -> FloatTensor<Self> {
        let grad = Floats::new(grad);
        let width = grad.width();
        tensor(column_sums(&grad, width), [width])
    }
}

/// `a b`, of b or what it is transposed.
fn product(a: Mat<'_>, b: &Matrix, transposed: bool) -> FloatTensor<Flex> {
    let [inner, outer] = b.dims();
    let (rows, cols) = (a.rows(), if transposed { inner } else { outer });
    let out = filled(rows * cols, |out| {
        multiply(
            a,
            b,
            transposed,
            MatMut::new(out, rows, cols),
            Update::Overwrite,
        );
    });
    tensor(out, [rows, cols])
}

/// The product, whatever the right factor is kept in.
fn multiply(a: Mat<'_>, b: &Matrix, transposed: bool, out: MatMut<'_>, into: Update) {
    fn of<B: Right>(a: Mat<'_>, b: B, t: bool, out: MatMut<'_>, into: Update) {
        gemm(a, if t { b.t() } else { b }, out, into, matmul_precision());
    }
    match b.is_bf16() {
        true => of(a, b.mat::<bf16>(), transposed, out, into),
        false => of(a, b.mat::<f32>(), transposed, out, into),
    }
}
