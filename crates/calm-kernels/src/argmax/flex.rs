//! The search on the CPU executor.

use std::sync::{Arc, OnceLock};

use burn::backend::{
    Flex,
    tensor::{FloatTensor, IntTensor},
};
use burn::tensor::{DType, Element, TensorData};
use burn_flex::FlexTensor;
use bytemuck::Pod;
use calm_gemm::{Argmax, Right, bf16};

use super::ArgmaxOps;
use crate::cpu::tensor::Floats;

/// What is made of a table once, at the first search.
pub type Prepared = OnceLock<Argmax>;

impl ArgmaxOps for Flex {
    fn calm_argmax(
        x: FloatTensor<Self>,
        table: FloatTensor<Self>,
        prepared: Arc<Prepared>,
    ) -> IntTensor<Self> {
        let x = Floats::new(x);
        let rows = x.shape()[0];
        let shape = [table.layout().shape()[0], table.layout().shape()[1]];
        let best = match table.dtype() {
            DType::BF16 => search::<bf16>(&x, table, shape, &prepared),
            _ => search::<f32>(&x, table, shape, &prepared),
        };
        FlexTensor::from_data(TensorData::new(best, [rows]))
    }
}

fn search<T: Right + Element + Pod>(
    x: &Floats,
    table: FlexTensor,
    [vocab, d]: [usize; 2],
    prepared: &Prepared,
) -> Vec<i32> {
    if d == 0 {
        // All products are the same.
        return vec![0; x.shape()[0]];
    }
    let table = match table.as_slice::<T>() {
        Some(_) => table,
        None => table.to_contiguous(),
    };
    let table = table.as_slice::<T>().expect("it lies side by side");
    let prepared = prepared.get_or_init(|| Argmax::new(table, [vocab, d]));
    prepared.search(x, table)
}
