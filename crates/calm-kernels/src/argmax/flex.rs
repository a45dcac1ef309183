//! The search on the CPU executor.

use std::sync::Arc;

use burn::backend::{
    Flex,
    tensor::{FloatTensor, IntTensor},
};
use burn::tensor::TensorData;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::ArgmaxOps;
use crate::cpu::gemm::{Into, Mat, MatMut, MatmulPrecision, gemm};
use crate::cpu::tensor::Floats;

/// What is made of a table once, at the first search.
#[derive(Debug, Default)]
pub struct Prepared {
    #[cfg(target_arch = "x86_64")]
    screen: std::sync::OnceLock<Option<super::screen::Screen>>,
}

impl ArgmaxOps for Flex {
    fn calm_argmax(
        x: FloatTensor<Self>,
        table: FloatTensor<Self>,
        prepared: Arc<Prepared>,
    ) -> IntTensor<Self> {
        let (x, table) = (Floats::new(x), Floats::new(table));
        let (rows, d) = (x.shape()[0], table.width());
        let best = if d == 0 {
            // All products are the same.
            vec![0; rows]
        } else {
            search(&x, &table, d, &prepared)
        };
        FlexTensor::from_data(TensorData::new(best, [rows]))
    }
}

fn search(x: &[f32], table: &[f32], d: usize, prepared: &Prepared) -> Vec<i32> {
    #[cfg(target_arch = "x86_64")]
    {
        use super::screen::Screen;
        let dims = [table.len() / d, d];
        let screen = prepared.screen.get_or_init(|| Screen::new(table, dims));
        if let Some(screen) = screen {
            return screen.search(x, table);
        }
    }
    let _ = prepared;
    by_scores(x, table, d)
}

/// Scores that are made at once: 1 MiB.
const SCORES: usize = 1 << 18;

/// Makes the scores of a few rows at a time.
fn by_scores(x: &[f32], table: &[f32], d: usize) -> Vec<i32> {
    let (rows, vocab) = (x.len() / d, table.len() / d);
    let block = (SCORES / vocab).clamp(1, rows.max(1));
    let mut scores = vec![0.0; block * vocab];
    let mut best = Vec::with_capacity(rows);
    for x in x.chunks(block * d) {
        let n = x.len() / d;
        let scores = &mut scores[..n * vocab];
        gemm(
            Mat::new(x, n, d),
            Mat::new(table, vocab, d).t(),
            MatMut::new(scores, n, vocab),
            Into::Overwrite,
            MatmulPrecision::F32,
        );
        best.par_extend(scores.par_chunks(vocab).map(first_largest));
    }
    best
}

fn first_largest(row: &[f32]) -> i32 {
    let mut best = 0;
    for (i, &score) in row.iter().enumerate() {
        if score > row[best] {
            best = i;
        }
    }
    best as i32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::philox::normals;

    /// All ways that the machine has, on the same numbers.
    #[test]
    fn the_screen_finds_what_the_scores_find() {
        let [rows, vocab, d] = [57, 333, 70];
        let (x, table) = (normals(1, rows * d), normals(2, vocab * d));
        let expected = by_scores(&x, &table, d);
        assert_eq!(search(&x, &table, d, &Prepared::default()), expected);
        #[cfg(target_arch = "x86_64")]
        for products in crate::argmax::products::Products::all() {
            let screen = crate::argmax::screen::Screen::through(products, &table, [vocab, d]);
            let found = screen.expect("a finite table").search(&x, &table);
            assert_eq!(found, expected, "{products:?}");
        }
    }
}
