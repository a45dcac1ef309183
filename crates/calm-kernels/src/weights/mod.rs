//! What weights may be kept in besides f32: bf16, or 8 bits with a scale for each block.

mod flex;

use std::borrow::Cow;
use std::sync::Arc;

use burn::backend::tensor::{FloatTensor, IntTensor, QuantizedTensor};
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::module::embedding;
use burn::tensor::quantization::{QuantScheme, QuantStore, QuantValue, QuantizedBytes, ScaleDtype};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use calm_gemm::{bf16, round_to_int8};

use crate::argmax::Prepared;
use crate::on_flex;

/// Backends that read weights of 8 bits as they lie; never differentiated.
#[backend_extension(Flex)]
pub trait Int8Ops: Backend {
    /// `x w` or, of a table, `x w^T`.
    fn calm_linear_int8(
        x: FloatTensor<Self>,
        w: QuantizedTensor<Self>,
        table: bool,
    ) -> FloatTensor<Self>;

    /// Rows `[n, d]` of a table.
    fn calm_look_up_int8(table: QuantizedTensor<Self>, rows: IntTensor<Self>) -> FloatTensor<Self>;

    /// See [`ArgmaxTable`](crate::ArgmaxTable).
    fn calm_argmax_int8(
        x: FloatTensor<Self>,
        table: QuantizedTensor<Self>,
        prepared: Arc<Prepared>,
    ) -> IntTensor<Self>;
}

/// Whether products on `device` read weights of fewer bits than f32 as they lie; elsewhere such a weight
/// is widened as a whole first.
pub fn reads_short_weights(device: &Device) -> bool {
    on_flex(device)
}

/// Which dimension of a matrix a product adds up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Down the columns: the weight `[in, out]` of a linear layer.
    Rows,
    /// Along the rows: a table `[V, d]`.
    Columns,
}

/// The most numbers that share a scale: what fits Burn's blocks, in whole vectors.
const BLOCK: usize = 240;

/// Numbers that are rounded at once: 4 MiB of f32.
const ROUNDED: usize = 1 << 20;

/// A matrix of f32 or bf16 in 8 bits, as Burn's quantized tensors are: whole numbers from -127 to 127
/// and an f32 scale for each block in depth, the largest of up to 240 that fill it. It becomes f32 where
/// no block of 8 or more does. Of such a weight there is no gradient.
///
/// # Panics
/// Where the numbers are of another kind, or no matrix.
pub fn to_int8(data: TensorData, depth: Depth, device: &Device) -> Tensor<2> {
    let dims @ [rows, cols] = data.shape().dims();
    let along = match depth {
        Depth::Rows => rows,
        Depth::Columns => cols,
    };
    let fits = |n: &usize| along > 0 && along.is_multiple_of(*n);
    let Some(block) = (8..=BLOCK).rev().find(fits) else {
        // Read now, as the others are: the numbers may still lie in a file.
        let numbers: Vec<f32> = data.iter().collect();
        return Tensor::from_data(TensorData::new(numbers, dims), (device, DType::F32));
    };
    let block = match depth {
        Depth::Rows => [block, 1],
        Depth::Columns => [1, block],
    };
    let blocks = rows * cols / (block[0] * block[1]);
    // With room for the scales, which Burn puts behind and would else double the memory for.
    let mut whole = Vec::with_capacity(rows * cols + blocks * size_of::<f32>());
    let mut scales = Vec::with_capacity(blocks);
    let strip = (ROUNDED / cols.max(1)).max(1).next_multiple_of(block[0]);
    for first in (0..rows).step_by(strip) {
        let some = first..rows.min(first + strip);
        let place = some.start * cols..some.end * cols;
        let numbers = match data.dtype() {
            DType::BF16 => {
                let numbers = &data.as_slice::<bf16>().expect("bf16")[place];
                Cow::Owned(numbers.iter().map(|x| x.to_f32()).collect())
            }
            _ => Cow::Borrowed(&data.as_slice::<f32>().expect("f32 or bf16")[place]),
        };
        let (some_whole, some_scales) = round_to_int8(&numbers, [some.len(), cols], block);
        whole.extend(some_whole);
        scales.extend(some_scales);
    }
    quantized(whole, &scales, dims, block, device)
}

/// Burn's tensor of whole numbers and scales.
fn quantized(
    whole: Vec<i8>,
    scales: &[f32],
    dims: [usize; 2],
    block: [usize; 2],
    device: &Device,
) -> Tensor<2> {
    let scheme = QuantScheme::default()
        .with_value(QuantValue::Q8S)
        .with_store(QuantStore::Native)
        .per_block(block.map(|n| n as u8), ScaleDtype::F32);
    let data = TensorData::quantized(whole, dims, scheme, scales, None);
    Tensor::from_data(data, (device, DType::QFloat(scheme)))
}

/// A weight of 8 bits the other way round.
pub(crate) fn transposed(weight: Tensor<2>) -> Tensor<2> {
    let (device, [rows, columns]) = (weight.device(), weight.dims());
    let DType::QFloat(scheme) = weight.dtype() else {
        return weight.transpose();
    };
    let block = flex::block(&scheme);
    let shape = weight.shape();
    let bytes = weight.into_data().into_bytes();
    let (whole, scales) = QuantizedBytes {
        bytes,
        shape,
        scheme,
    }
    .into_vec_i8();
    fn turned<T: Copy>(from: &[T], [rows, columns]: [usize; 2]) -> Vec<T> {
        let of = |i: usize| from[i % rows * columns + i / rows];
        (0..rows * columns).map(of).collect()
    }
    let whole = turned(&whole, [rows, columns]);
    let scales = turned(&scales.block, [rows / block[0], columns / block[1]]);
    quantized(
        whole,
        &scales,
        [columns, rows],
        [block[1], block[0]],
        &device,
    )
}

/// Whether a weight is of 8 bits.
pub(crate) fn is_int8(weight: &Tensor<2>) -> bool {
    matches!(weight.dtype(), DType::QFloat(_))
}

/// A weight in f32, whatever it is kept in.
pub fn wide(weight: Tensor<2>) -> Tensor<2> {
    match weight.dtype() {
        DType::QFloat(_) => weight.dequantize(),
        DType::BF16 => weight.cast(DType::F32),
        _ => weight,
    }
}

/// `x w` or, of a table, `x w^T` of a weight that is kept in 8 bits.
///
/// # Shapes
/// - x: `[rows, depth]`
pub(crate) fn linear_int8(x: Tensor<2>, w: Tensor<2>, depth: Depth) -> Tensor<2> {
    let table = depth == Depth::Columns;
    if !has_int8_kernel(&x, &w) {
        let w = wide(w);
        return x.matmul(if table { w.transpose() } else { w });
    }
    let (x, w) = (x.into_dispatch(), w.into_dispatch());
    Tensor::from_dispatch(<Dispatch as Int8Ops>::calm_linear_int8(x, w, table))
}

fn has_int8_kernel<const D: usize>(x: &Tensor<D>, w: &Tensor<2>) -> bool {
    on_flex(&x.device()) && !x.is_autodiff() && !w.is_autodiff()
}

/// Rows of a table, which may be kept in bf16 or 8 bits, as f32.
///
/// # Shapes
/// - table: `[n, d]`
/// - rows: `[batch, positions]`
/// - output: `[batch, positions, d]`
pub fn look_up(table: Tensor<2>, rows: Tensor<2, Int>) -> Tensor<3> {
    if is_int8(&table) && has_int8_kernel(&table, &table) {
        let ([batch, positions], [_, d]) = (rows.dims(), table.dims());
        let (table, rows) = (table.into_dispatch(), rows.into_dispatch());
        let entries = <Dispatch as Int8Ops>::calm_look_up_int8(table, rows);
        return Tensor::<2>::from_dispatch(entries).reshape([batch, positions, d]);
    }
    let table = match is_int8(&table) {
        true => wide(table),
        false => table,
    };
    let entries = embedding(table, rows);
    match entries.dtype() {
        DType::BF16 => entries.cast(DType::F32),
        _ => entries,
    }
}
