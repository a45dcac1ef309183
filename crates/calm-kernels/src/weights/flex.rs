//! Weights of 8 bits on the CPU executor.

use std::sync::Arc;

use burn::backend::tensor::{FloatTensor, IntTensor, QuantizedTensor};
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::DType;
use burn::tensor::quantization::QuantScheme;
use burn_flex::FlexQTensor;
use calm_gemm::{Int8, MatMut, Right, Update, gemm};

use super::Int8Ops;
use crate::argmax::{Prepared, indices};
use crate::cpu::tensor::{Floats, Matrix, filled, ids, tensor};
use crate::linear::matmul_precision;

/// Numbers of a matrix's blocks, down and across.
///
/// # Panics
/// Where there is one scale for the whole tensor.
pub(super) fn block(scheme: &QuantScheme) -> [usize; 2] {
    let block = scheme.block_size().expect("weights have blocks");
    block.as_dim::<2>().map(usize::from)
}

/// The matrix in a tensor, which lies in row order, as Burn makes them.
fn matrix(weight: &FlexQTensor) -> Int8<'_> {
    let DType::QFloat(scheme) = weight.dtype() else {
        unreachable!("a quantized tensor");
    };
    let shape = weight.shape();
    let numbers = weight.tensor().as_slice::<i8>().expect("in row order");
    Int8::new(
        numbers,
        weight.scales(),
        [shape[0], shape[1]],
        block(&scheme),
    )
}

impl Int8Ops for Flex {
    fn calm_linear_int8(
        x: FloatTensor<Self>,
        w: QuantizedTensor<Self>,
        table: bool,
    ) -> FloatTensor<Self> {
        let (x, w) = (Matrix::new(x), matrix(&w));
        let w = if table { w.t() } else { w };
        let ([rows, _], [_, cols]) = (x.dims(), w.dims());
        let out = filled(rows * cols, |out| {
            let out = MatMut::new(out, rows, cols);
            gemm(x.mat(), w, out, Update::Overwrite, matmul_precision());
        });
        tensor(out, [rows, cols])
    }

    fn calm_look_up_int8(table: QuantizedTensor<Self>, rows: IntTensor<Self>) -> FloatTensor<Self> {
        let table = matrix(&table);
        let [n, d] = table.dims();
        let rows = ids(rows, n);
        let entries = filled(rows.len() * d, |out| {
            for (&row, out) in rows.iter().zip(out.chunks_exact_mut(d.max(1))) {
                table.widen(row, 0..d, out);
            }
        });
        tensor(entries, [rows.len(), d])
    }

    fn calm_argmax_int8(
        x: FloatTensor<Self>,
        table: QuantizedTensor<Self>,
        prepared: Arc<Prepared>,
    ) -> IntTensor<Self> {
        let x = Floats::new(x);
        indices(prepared.search(&x, matrix(&table)))
    }
}
