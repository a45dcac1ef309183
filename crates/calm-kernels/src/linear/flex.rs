//! Linear layers on the CPU executor.

use burn::backend::{Flex, tensor::FloatTensor};

use super::{LinearOps, matmul_precision};
use crate::cpu::rows::{column_sums, for_rows};
use crate::cpu::tensor::{Floats, Matrix, filled, tensor};
use calm_gemm::{Mat, MatMut, Update, gemm};

impl LinearOps for Flex {
    fn calm_linear(x: FloatTensor<Self>, w: FloatTensor<Self>) -> FloatTensor<Self> {
        product(Matrix::new(x).mat(), Matrix::new(w).mat())
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
            let out = MatMut::new(out, rows, n);
            gemm(x.mat(), w.mat(), out, Update::Add, matmul_precision());
        });
        tensor(out, [rows, n])
    }

    fn calm_linear_grad_x(grad: FloatTensor<Self>, w: FloatTensor<Self>) -> FloatTensor<Self> {
        product(Matrix::new(grad).mat(), Matrix::new(w).mat().t())
    }

    fn calm_linear_grad_w(x: FloatTensor<Self>, grad: FloatTensor<Self>) -> FloatTensor<Self> {
        product(Matrix::new(x).mat().t(), Matrix::new(grad).mat())
    }

    fn calm_linear_grad_b(grad: FloatTensor<Self>) -> FloatTensor<Self> {
        let grad = Floats::new(grad);
        let width = grad.width();
        tensor(column_sums(&grad, width), [width])
    }
}

fn product(a: Mat<'_>, b: Mat<'_>) -> FloatTensor<Flex> {
    let (rows, cols) = (a.rows(), b.cols());
    let out = filled(rows * cols, |out| {
        let out = MatMut::new(out, rows, cols);
        gemm(a, b, out, Update::Overwrite, matmul_precision());
    });
    tensor(out, [rows, cols])
}
