//! The search on the CPU executor.

use std::sync::{Arc, OnceLock};

use burn::backend::{
    Flex,
    tensor::{FloatTensor, IntTensor},
};
use burn::tensor::TensorData;
use burn_flex::FlexTensor;
use calm_gemm::Argmax;

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
        let (x, table) = (Floats::new(x), Floats::new(table));
        let (rows, d) = (x.shape()[0], table.width());
        let best = match table.len().checked_div(d) {
            // All products are the same.
            None => vec![0; rows],
            Some(vocab) => {
                let prepared = prepared.get_or_init(|| Argmax::new(&table, [vocab, d]));
                prepared.search(&x, &table)
            }
        };
        FlexTensor::from_data(TensorData::new(best, [rows]))
    }
}
