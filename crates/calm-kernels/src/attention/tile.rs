//! A tile of queries on the CPU: its context, from tiles of keys one after the other.

use std::ops::Range;

use calm_gemm::Shared;
use calm_gemm::by_level;
use calm_gemm::lanes::{Lanes, exp, largest, replace_all};
use calm_gemm::{Mat, MatMut, MatmulPrecision, Update, gemm_serial};

/// Queries of a tile.
const QUERIES: usize = 128;
/// Keys of a tile.
const KEYS: usize = 2 * QUERIES;

/// The tiles of some queries.
pub(super) fn queries(n: usize) -> impl Iterator<Item = Range<usize>> {
    blocks(n, QUERIES)
}

/// The tiles of some keys.
pub(super) fn keys(n: usize) -> impl Iterator<Item = Range<usize>> {
    blocks(n, KEYS)
}

/// The most queries and keys of a tile, of so many positions.
pub(super) fn largest_tile(positions: usize) -> (usize, usize) {
    (positions.min(QUERIES), positions.min(KEYS))
}

fn blocks(n: usize, size: usize) -> impl Iterator<Item = Range<usize>> {
    (0..n)
        .step_by(size)
        .map(move |first| first..n.min(first + size))
}

/// Some queries of a head, and the keys and values that the last of them sees.
pub(super) struct Tile<'a> {
    /// `[queries, width]`
    pub q: Mat<'a>,
    /// `[keys, width]`, of which query i sees all but the last `queries - 1 - i`.
    pub k: Mat<'a>,
    /// `[keys, width]`
    pub v: Mat<'a>,
    pub precision: MatmulPrecision,
}

/// The memory that a tile is worked on in, and what came out of the last one.
#[derive(Default)]
pub(super) struct Space {
    scores: Vec<f32>,
    /// `[queries, width]`
    context: Vec<f32>,
    /// The logarithm of every query's sum of exponentials.
    pub log_sums: Vec<f32>,
    totals: Vec<f32>,
}

impl Space {
    /// Attention of the tile's queries.
    pub(super) fn attend(&mut self, tile: &Tile<'_>) {
        let (n, width) = (tile.q.rows(), tile.q.cols());
        let queries = tile.k.rows() - n..tile.k.rows();
        refill(&mut self.context, n * width, 0.0);
        refill(&mut self.log_sums, n, f32::NEG_INFINITY);
        refill(&mut self.totals, n, 0.0);
        for keys in keys(queries.end) {
            let seen = Seen::new(&queries, &keys);
            let m = keys.len();
            if self.scores.len() < n * m {
                self.scores.resize(n * m, 0.0);
            }
            let scores = &mut self.scores[..n * m];
            let k = tile.k.some_rows(keys.clone());
            let target = MatMut::new(scores, n, m);
            gemm_serial(tile.q, k.t(), target, Update::Overwrite, tile.precision);
            let state = (&mut self.log_sums[..], &mut self.totals[..]);
            soften(scores, seen, scale(width), state, &mut self.context);
            let v = tile.v.some_rows(keys);
            let target = MatMut::new(&mut self.context, n, width);
            gemm_serial(
                Mat::new(scores, n, m),
                v,
                target,
                Update::Add,
                tile.precision,
            );
        }
        let rows = self.context.chunks_exact_mut(width);
        for ((context, top), &total) in rows.zip(&mut self.log_sums).zip(&self.totals) {
            for x in context {
                *x /= total;
            }
            *top += total.ln();
        }
    }

    /// Writes the contexts to rows of which the first begins at `start`, `stride` numbers apart.
    ///
    /// # Safety
    /// No other thread reads or writes there meanwhile, and the slice is still borrowed.
    pub(super) unsafe fn write(&self, to: Shared<'_>, start: usize, stride: usize) {
        let width = self.context.len() / self.log_sums.len();
        for (i, context) in self.context.chunks_exact(width).enumerate() {
            // SAFETY: the caller's promise.
            unsafe { to.write(start + i * stride, context) };
        }
    }
}

fn refill(numbers: &mut Vec<f32>, n: usize, value: f32) {
    numbers.clear();
    numbers.resize(n, value);
}

/// What scores are multiplied with.
pub(super) fn scale(width: usize) -> f32 {
    1.0 / (width as f32).sqrt()
}

/// What queries see of a tile of keys: query i the first `before + i + 1`.
#[derive(Clone, Copy)]
pub(super) struct Seen {
    pub keys: usize,
    before: isize,
}

impl Seen {
    /// Of queries and keys that are numbered alike.
    pub(super) fn new(queries: &Range<usize>, keys: &Range<usize>) -> Self {
        Self {
            keys: keys.len(),
            before: queries.start as isize - keys.start as isize,
        }
    }

    /// The keys that query `i` sees.
    pub(super) fn of(&self, i: usize) -> usize {
        let seen = self.before + i as isize + 1;
        self.keys.min(seen.max(0) as usize)
    }
}

by_level! {
    /// Scores of a tile become exponentials above the running maximum of their row, which the sums
    /// and the context so far are moved to. Hidden keys weigh nothing.
    fn soften(
        scores: &mut [f32],
        seen: Seen,
        scale: f32,
        state: (&mut [f32], &mut [f32]),
        context: &mut [f32],
    ) = soften_rows[]
}

#[inline(always)]
fn soften_rows<V: Lanes>(
    scores: &mut [f32],
    seen: Seen,
    scale: f32,
    (tops, totals): (&mut [f32], &mut [f32]),
    context: &mut [f32],
) {
    let width = context.len() / tops.len();
    for (i, row) in scores.chunks_exact_mut(seen.keys).enumerate() {
        let count = hide::<V>(row, seen.of(i));
        let top = tops[i].at_least(largest::<V>(&row[..count]) * scale);
        let moved = exp(tops[i] - top);
        if top > tops[i] {
            for x in &mut context[i * width..][..width] {
                *x *= moved;
            }
        }
        let total = replace_all::<V>(
            &mut row[..count],
            |x| exp(V::splat(-top).add_product(x, V::splat(scale))),
            |x| exp(x * scale - top),
        );
        row[seen.of(i)..].fill(0.0);
        totals[i] = totals[i] * moved + total;
        tops[i] = top;
    }
}

/// Makes the scores from `seen` to the end of their vector those of hidden keys, and returns that
/// end: rows are walked in whole vectors.
#[inline(always)]
pub(super) fn hide<V: Lanes>(row: &mut [f32], seen: usize) -> usize {
    let end = seen.next_multiple_of(V::N).min(row.len());
    row[seen..end].fill(f32::NEG_INFINITY);
    end
}
