//! The best-scoring entry of a table, without making the scores.

mod flex;

use std::sync::Arc;

use burn::backend::{
    Backend, Dispatch, backend_extension,
    tensor::{FloatTensor, IntTensor},
};
use burn::tensor::{Int, Tensor};

use crate::on_flex;
use crate::weights::{Int8Ops, is_int8, transposed, wide};
pub use flex::Prepared;
pub(crate) use flex::indices;

/// Backends with a search of their own; never differentiated.
#[backend_extension(Flex)]
pub trait ArgmaxOps: Backend {
    /// For each row of x `[rows, d]` the row of table `[V, d]` with the largest product.
    fn calm_argmax(
        x: FloatTensor<Self>,
        table: FloatTensor<Self>,
        prepared: Arc<Prepared>,
    ) -> IntTensor<Self>;
}

/// A table of vectors, ready to be searched for the one with the largest product: greedy decoding
/// through an output layer.
///
/// On the CPU, where the machine has AVX2 or AVX-512 VNNI, products of roundings to 8 bits come
/// first, with a bound on how far each can be off. Only what may be the largest by that bound (a
/// few entries of thousands) is multiplied exactly. The answer is that of the unrounded numbers.
#[derive(Clone, Debug)]
pub struct ArgmaxTable {
    table: Tensor<2>,
    prepared: Option<Arc<Prepared>>,
}

impl ArgmaxTable {
    /// The first search prepares `table`, which takes as long as a few dozen rows. It may be kept in
    /// bf16 or 8 bits.
    ///
    /// # Shapes
    /// - table: `[V, d]`
    ///
    /// # Panics
    /// Where V is 0.
    pub fn new(table: Tensor<2>) -> Self {
        assert!(table.dims()[0] > 0, "a table without entries");
        let table = if table.is_autodiff() {
            table.inner()
        } else {
            table
        };
        let prepared = on_flex(&table.device()).then(Arc::default);
        Self { table, prepared }
    }

    /// [`ArgmaxTable::new`] of the weight of an output layer.
    ///
    /// # Shapes
    /// - weight: `[d, V]`
    ///
    /// # Panics
    /// Where V is 0.
    pub fn of_output(weight: Tensor<2>) -> Self {
        Self::new(transposed(weight))
    }

    /// Entries, V.
    pub fn len(&self) -> usize {
        self.table.dims()[0]
    }

    /// Never.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The index of the entry with the largest product with each row; of equals the first. What a
    /// row with a number that is not finite gives means nothing.
    ///
    /// # Shapes
    /// - x: `[rows, d]`
    /// - output: `[rows]`
    ///
    /// # Panics
    /// Where the widths differ.
    pub fn search(&self, x: Tensor<2>) -> Tensor<1, Int> {
        assert_eq!(
            x.dims()[1],
            self.table.dims()[1],
            "rows of the table's width"
        );
        let x = if x.is_autodiff() { x.inner() } else { x };
        let Some(prepared) = &self.prepared else {
            return argmax_reference(x, self.table.clone());
        };
        let search = match is_int8(&self.table) {
            true => <Dispatch as Int8Ops>::calm_argmax_int8,
            false => <Dispatch as ArgmaxOps>::calm_argmax,
        };
        let (x, table) = (x.into_dispatch(), self.table.clone().into_dispatch());
        Tensor::from_dispatch(search(x, table, prepared.clone()))
    }
}

/// Scores that [`argmax_reference`] makes at once: 64 MiB of f32.
const SCORES_AT_ONCE: usize = 1 << 24;

/// [`ArgmaxTable::search`] in plain tensor operations, in slices so that the scores of many rows
/// never stand in memory at once.
pub fn argmax_reference(x: Tensor<2>, table: Tensor<2>) -> Tensor<1, Int> {
    let ([rows, _], [vocab, _]) = (x.dims(), table.dims());
    let table = wide(table);
    let block = (SCORES_AT_ONCE / vocab).max(1);
    let best = |x: Tensor<2>| {
        let scores = x.matmul(table.clone().transpose());
        scores.argmax(1).squeeze_dim::<1>(1)
    };
    if rows <= block {
        return best(x);
    }
    Tensor::cat(x.split(block, 0).into_iter().map(best).collect(), 0)
}
