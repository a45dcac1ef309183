//! The entry of a table with the largest product.

#[cfg(target_arch = "x86_64")]
mod products;
#[cfg(target_arch = "x86_64")]
mod rounding;
#[cfg(target_arch = "x86_64")]
mod screen;

use rayon::prelude::*;

use crate::product::Right;
use crate::{Mat, MatMut, MatmulPrecision, Update, gemm};

/// A table of vectors `[V, d]`, prepared once to be searched often for the one with the largest
/// product.
///
/// Where the machine has AVX2 or AVX-512 VNNI, products of roundings to 8 bits come first, with a
/// bound on how far each can be off; only what may be the largest by that bound (a few entries of
/// thousands) is multiplied in f64. The answer is that of the unrounded numbers; elsewhere, of scores
/// in f32. What is no number is never the largest.
#[derive(Debug)]
pub struct Argmax {
    dims: [usize; 2],
    #[cfg(target_arch = "x86_64")]
    screen: Option<screen::Screen>,
}

impl Argmax {
    /// Prepares a table, which takes as long as a few dozen rows.
    ///
    /// # Panics
    /// Where V or d is 0.
    pub fn new<B: Right>(table: B) -> Self {
        let dims = table.dims();
        assert!(!dims.contains(&0), "a table without entries");
        Self {
            dims,
            #[cfg(target_arch = "x86_64")]
            screen: screen::Screen::new(table),
        }
    }

    /// For each row of x `[rows, d]` the first entry of the table with the largest product; `table`
    /// is the one that was prepared.
    ///
    /// # Panics
    /// Where x or the table is not of the prepared sizes.
    pub fn search<B: Right>(&self, x: &[f32], table: B) -> Vec<i32> {
        assert!(table.dims() == self.dims && x.len().is_multiple_of(self.dims[1]));
        #[cfg(target_arch = "x86_64")]
        if let Some(screen) = &self.screen {
            return screen.search(x, table);
        }
        by_scores(x, table)
    }
}

/// Scores that are made at once: 1 MiB.
const SCORES: usize = 1 << 18;

/// Makes the scores of a few rows at a time.
fn by_scores<B: Right>(x: &[f32], table: B) -> Vec<i32> {
    let [vocab, d] = table.dims();
    let rows = x.len() / d;
    let block = (SCORES / vocab).clamp(1, rows.max(1));
    let mut scores = vec![0.0; block * vocab];
    let mut best = Vec::with_capacity(rows);
    for x in x.chunks(block * d) {
        let n = x.len() / d;
        let scores = &mut scores[..n * vocab];
        gemm(
            Mat::new(x, n, d),
            table.t(),
            MatMut::new(scores, n, vocab),
            Update::Overwrite,
            MatmulPrecision::F32,
        );
        best.par_extend(scores.par_chunks(vocab).map(first_largest));
    }
    best
}

fn first_largest(row: &[f32]) -> i32 {
    let mut best = (0, f32::NEG_INFINITY);
    for (i, &score) in row.iter().enumerate() {
        if score > best.1 {
            best = (i, score);
        }
    }
    best.0 as i32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::product::tests::numbers;

    #[test]
    fn what_is_no_number_is_passed_over() {
        assert_eq!(first_largest(&[f32::NAN, 1.0, 3.0, 3.0]), 2);
        assert_eq!(first_largest(&[f32::NAN]), 0);
    }

    /// All ways that the machine has, on the same numbers.
    #[test]
    fn the_screen_finds_what_the_scores_find() {
        let [rows, vocab, d] = [57, 333, 70];
        let (x, numbers) = (numbers(rows * d, 1), numbers(vocab * d, 2));
        let table = Mat::new(&numbers, vocab, d);
        let expected = by_scores(&x, table);
        assert_eq!(Argmax::new(table).search(&x, table), expected);
        #[cfg(target_arch = "x86_64")]
        for products in products::Products::all() {
            let screen = screen::Screen::through(products, table);
            let found = screen.expect("a finite table").search(&x, table);
            assert_eq!(found, expected, "{products:?}");
        }
        // The same of a table that is kept in bf16, and of one that was rounded so.
        let short: Vec<_> = numbers.iter().map(|&x| half::bf16::from_f32(x)).collect();
        let rounded: Vec<_> = short.iter().map(|x| x.to_f32()).collect();
        let short = Mat::new(&short, vocab, d);
        let expected = by_scores(&x, Mat::new(&rounded, vocab, d));
        assert_eq!(by_scores(&x, short), expected);
        assert_eq!(Argmax::new(short).search(&x, short), expected);
        // And of one in 8 bits.
        let (whole, scales) = crate::round_to_int8(&numbers, [vocab, d], [1, 14]);
        let short = crate::Int8::new(&whole, &scales, [vocab, d], [1, 14]);
        let rounded: Vec<_> = (0..vocab).flat_map(|i| short.row(i).into_owned()).collect();
        let expected = by_scores(&x, Mat::new(&rounded, vocab, d));
        assert_eq!(by_scores(&x, short), expected);
        assert_eq!(Argmax::new(short).search(&x, short), expected);
    }
}
