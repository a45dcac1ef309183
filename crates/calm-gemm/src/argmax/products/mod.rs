//! Products of a few rounded rows with a panel of a rounded table, by what the machine has.

mod avx2;
mod vnni;

/// Columns of a panel.
pub(super) const PANEL: usize = 32;
/// Steps of depth in a word: what an instruction sums up in a lane.
pub(super) const WORD: usize = 4;
/// What is added to the numbers of a table, so that they have no sign.
pub(super) const SHIFT: i32 = 128;
/// Rows at a time, by any of them.
pub(super) const MOST_ROWS: usize = vnni::ROWS;

/// One word of each of 16 columns, on a cache line of their own. A panel has two for each word.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct Line(pub(super) [u8; 64]);

/// An instruction set with products of 8-bit numbers.
#[derive(Clone, Copy, Debug)]
pub(super) enum Products {
    Vnni,
    Avx2,
}

impl Products {
    /// The best that this machine has.
    pub(super) fn best() -> Option<Self> {
        Self::all().next()
    }

    /// All that this machine has.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let vnni = vnni::available().then_some(Self::Vnni);
        vnni.into_iter()
            .chain(avx2::available().then_some(Self::Avx2))
    }

    /// What the numbers of a row are rounded to at most.
    pub(super) fn row_limit(self) -> i8 {
        match self {
            Self::Vnni => 127,
            // Sums of two products of a column's 255 stay below 2^15.
            Self::Avx2 => 64,
        }
    }

    /// Rows at a time.
    pub(super) fn rows(self) -> usize {
        match self {
            Self::Vnni => vnni::ROWS,
            Self::Avx2 => avx2::ROWS,
        }
    }

    /// The products of the rows x `[sums.len(), words, WORD]` with a panel.
    ///
    /// # Panics
    /// Where the machine lacks the instructions, there are more than [`Products::rows`], or x or
    /// the panel is not `words` long.
    pub(super) fn multiply(
        self,
        x: &[i8],
        words: usize,
        panel: &[Line],
        sums: &mut [[i32; PANEL]],
    ) {
        assert!(x.len() == sums.len() * words * WORD && panel.len() == 2 * words);
        macro_rules! tile {
            ($set:ident: $($rows:literal)*) => {
                match sums.len() {
                    0 => {}
                    // SAFETY: the instructions are there, rows and panel as long as said.
                    $($rows => unsafe {
                        let sums = sums.try_into().expect("as many rows");
                        $set::tile::<$rows>(x, words, panel, sums);
                    },)*
                    n => unreachable!("{n} rows at a time"),
                }
            };
        }
        match self {
            Self::Vnni => {
                assert!(vnni::available());
                tile!(vnni: 1 2 3 4 5 6 7 8 9 10 11 12);
            }
            Self::Avx2 => {
                assert!(avx2::available());
                tile!(avx2: 1 2 3 4);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With the largest numbers, where sums would be cut off first.
    #[test]
    fn all_products_are_exact() {
        for products in Products::all() {
            let most = products.row_limit();
            for (n, words) in (1..=products.rows()).flat_map(|n| [1, 2, 7, 64].map(|w| (n, w))) {
                let number = |i: usize| (i * 7919 % 251) as u8;
                let x: Vec<i8> = (0..n * words * WORD)
                    .map(|i| match number(i) {
                        u if u % 3 == 0 => most,
                        u if u % 3 == 1 => -most,
                        u => (u as i8) % most,
                    })
                    .collect();
                let mut panel = vec![Line([255; 64]); 2 * words];
                for (i, line) in panel.iter_mut().enumerate().skip(1) {
                    line.0 = std::array::from_fn(|k| number(64 * i + k));
                }
                let mut sums = vec![[-1; PANEL]; n];
                products.multiply(&x, words, &panel, &mut sums);
                for (x, sums) in x.chunks_exact(words * WORD).zip(&sums) {
                    for (column, &sum) in sums.iter().enumerate() {
                        let of = |k: usize| {
                            let line = &panel[k / WORD * 2 + column / 16];
                            i32::from(line.0[column % 16 * WORD + k % WORD])
                        };
                        let expected: i32 = (0..x.len()).map(|k| i32::from(x[k]) * of(k)).sum();
                        assert_eq!(
                            sum, expected,
                            "{products:?}, {n} rows, {words} words, {column}"
                        );
                    }
                }
            }
        }
    }
}
