//! The search on the CPU executor.

use std::sync::{Arc, OnceLock};

use burn::backend::{
    Flex,
    tensor::{FloatTensor, IntTensor},
};
use burn::tensor::{DType, Element, TensorData};
use burn_flex::FlexTensor;
use bytemuck::Pod;
use calm_gemm::{Argmax, Mat, Right, bf16};

use super::ArgmaxOps;
use crate::cpu::tensor::Floats;

/// What is made of a table once, at the first search.
#[derive(Debug, Default)]
pub struct Prepared {
    argmax: OnceLock<Argmax>,
    /// A table in row order where the one that is given lies otherwise.
    in_order: OnceLock<FlexTensor>,
}

impl Prepared {
    /// The search in a table of `[V, d]`, the same at each call.
    pub(crate) fn search<B: Right>(&self, x: &Floats, table: B) -> Vec<i32> {
        if table.dims()[1] == 0 {
            // All products are the same.
            return vec![0; x.shape()[0]];
        }
        let prepared = self.argmax.get_or_init(|| Argmax::new(table));
        prepared.search(x, table)
    }
}

impl ArgmaxOps for Flex {
    fn calm_argmax(
        x: FloatTensor<Self>,
        table: FloatTensor<Self>,
        prepared: Arc<Prepared>,
    ) -> IntTensor<Self> {
        let x = Floats::new(x);
        indices(match table.dtype() {
            DType::BF16 => search::<bf16>(&x, &table, &prepared),
            _ => search::<f32>(&x, &table, &prepared),
        })
    }
}

/// A tensor of what a search found.
pub(crate) fn indices(found: Vec<i32>) -> FlexTensor {
    let rows = found.len();
    FlexTensor::from_data(TensorData::new(found, [rows]))
}

fn search<T: Element + Pod>(x: &Floats, table: &FlexTensor, prepared: &Prepared) -> Vec<i32>
where
    for<'a> Mat<'a, T>: Right,
{
    let shape = table.layout().shape();
    let (vocab, d) = (shape[0], shape[1]);
    let numbers = table.as_slice::<T>().unwrap_or_else(|| {
        let table = prepared.in_order.get_or_init(|| table.to_contiguous());
        table.as_slice::<T>().expect("it lies side by side")
    });
    prepared.search(x, Mat::new(numbers, vocab, d))
}
