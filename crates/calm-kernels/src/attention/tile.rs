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
pub(super) fn queries(queries: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    blocks(queries, QUERIES)
}

/// The most scores of a product, of so many queries and keys.
pub(super) fn most_scores(queries: usize, keys: usize) -> usize {
    queries.min(QUERIES) * keys.min(KEYS)
}

fn blocks(all: Range<usize>, size: usize) -> impl Iterator<Item = Range<usize>> {
    let end = all.end;
    all.step_by(size)
        .map(move |first| first..end.min(first + size))
}

/// Keys that lie side by side, and which of them a query sees: at position t those from
/// `t + 1 - window` to the one before `(t + 1) / chunk`.
pub(super) struct Keys {
    /// The numbers of those that there are.
    pub held: Range<usize>,
    window: usize,
    /// Positions that a key stands for.
    chunk: usize,
}

impl Keys {
    /// Tokens, of which a query sees the last `window` up to its own.
    pub(super) fn tokens(held: Range<usize>, window: usize) -> Self {
        Self {
            held,
            window,
            chunk: 1,
        }
    }

    /// Memories of whole chunks.
    pub(super) fn memories(held: Range<usize>, chunk: usize) -> Self {
        Self {
            held,
            window: usize::MAX,
            chunk,
        }
    }

    /// The keys that the query at position `t` sees.
    fn of(&self, t: usize) -> Range<usize> {
        let start = (t + 1).saturating_sub(self.window).max(self.held.start);
        let end = ((t + 1) / self.chunk).min(self.held.end);
        start..end.max(start)
    }

    /// The keys that some of the queries see.
    fn of_all(&self, queries: &Range<usize>) -> Range<usize> {
        self.of(queries.start).start..self.of(queries.end - 1).end
    }

    /// Queries and keys to be multiplied for a tile of queries. In a narrow band few queries see
    /// the same keys, so that fewer are taken at a time.
    pub(super) fn products(
        &self,
        queries: Range<usize>,
    ) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
        let some = match self.window {
            ..QUERIES => self.window.next_multiple_of(NARROW).min(QUERIES),
            _ => QUERIES,
        };
        blocks(queries, some).flat_map(|queries| {
            blocks(self.of_all(&queries), KEYS).map(move |keys| (queries.clone(), keys))
        })
    }
}

/// The fewest queries of a product in a narrow band.
const NARROW: usize = 32;

/// Keys and values that lie side by side.
pub(super) struct Part<'a> {
    pub keys: Keys,
    /// `[keys, width]`
    pub k: Mat<'a>,
    /// `[keys, width]`
    pub v: Mat<'a>,
}

/// Some queries of a head, and what they see.
pub(super) struct Tile<'a> {
    /// `[queries, width]`
    pub q: Mat<'a>,
    /// The position of the first query.
    pub first: usize,
    /// Their keys, under one softmax.
    pub parts: &'a [Part<'a>],
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
    /// Attention of the tile's queries, of which each sees a key.
    pub(super) fn attend(&mut self, tile: &Tile<'_>) {
        let (n, width) = (tile.q.rows(), tile.q.cols());
        refill(&mut self.context, n * width, 0.0);
        refill(&mut self.log_sums, n, f32::NEG_INFINITY);
        refill(&mut self.totals, n, 0.0);
        for part in tile.parts {
            for (queries, keys) in part.keys.products(tile.first..tile.first + n) {
                self.add(tile, part, queries, keys);
            }
        }
        let rows = self.context.chunks_exact_mut(width);
        for ((context, top), &total) in rows.zip(&mut self.log_sums).zip(&self.totals) {
            for x in context {
                *x /= total;
            }
            *top += total.ln();
        }
    }

    /// Adds what some queries see of some keys.
    fn add(&mut self, tile: &Tile<'_>, part: &Part<'_>, queries: Range<usize>, keys: Range<usize>) {
        let (n, m, width) = (queries.len(), keys.len(), tile.q.cols());
        let rows = queries.start - tile.first..queries.end - tile.first;
        let q = tile.q.some_rows(rows.clone());
        let held = keys.start - part.keys.held.start..keys.end - part.keys.held.start;
        let (k, v) = (part.k.some_rows(held.clone()), part.v.some_rows(held));
        if self.scores.len() < n * m {
            self.scores.resize(n * m, 0.0);
        }
        let scores = &mut self.scores[..n * m];
        let target = MatMut::new(scores, n, m);
        gemm_serial(q, k.t(), target, Update::Overwrite, tile.precision);
        let state = (
            &mut self.log_sums[rows.clone()],
            &mut self.totals[rows.clone()],
        );
        let context = &mut self.context[rows.start * width..rows.end * width];
        let seen = Seen::new(&part.keys, queries.start, keys);
        soften(scores, &seen, scale(width), state, context);
        let (weights, target) = (Mat::new(scores, n, m), MatMut::new(context, n, width));
        gemm_serial(weights, v, target, Update::Add, tile.precision);
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

/// What queries, the first of which is at position `first`, see of a product's keys.
pub(super) struct Seen<'a> {
    all: &'a Keys,
    first: usize,
    keys: Range<usize>,
}

impl<'a> Seen<'a> {
    pub(super) fn new(all: &'a Keys, first: usize, keys: Range<usize>) -> Self {
        Self { all, first, keys }
    }

    /// How many keys there are.
    pub(super) fn keys(&self) -> usize {
        self.keys.len()
    }

    /// The keys that query `i` sees, numbered from the first.
    #[inline(always)]
    pub(super) fn of(&self, i: usize) -> Range<usize> {
        let Range { start, end } = self.all.of(self.first + i);
        let inside = |key: usize| key.clamp(self.keys.start, self.keys.end) - self.keys.start;
        inside(start)..inside(end)
    }
}

by_level! {
    /// Scores of a product become exponentials above the running maximum of their row, which the
    /// sums and the context so far are moved to. Hidden keys weigh nothing.
    fn soften(
        scores: &mut [f32],
        seen: &Seen<'_>,
        scale: f32,
        state: (&mut [f32], &mut [f32]),
        context: &mut [f32],
    ) = soften_rows[]
}

#[inline(always)]
fn soften_rows<V: Lanes>(
    scores: &mut [f32],
    seen: &Seen<'_>,
    scale: f32,
    (tops, totals): (&mut [f32], &mut [f32]),
    context: &mut [f32],
) {
    let width = context.len() / tops.len();
    for (i, row) in scores.chunks_exact_mut(seen.keys()).enumerate() {
        let seen = seen.of(i);
        if !seen.is_empty() {
            let part = hide::<V>(row, &seen);
            let top = tops[i].at_least(largest::<V>(&row[part.clone()]) * scale);
            let moved = exp(tops[i] - top);
            if top > tops[i] {
                for x in &mut context[i * width..][..width] {
                    *x *= moved;
                }
            }
            let total = replace_all::<V>(
                &mut row[part],
                |x| exp(V::splat(-top).add_product(x, V::splat(scale))),
                |x| exp(x * scale - top),
            );
            totals[i] = totals[i] * moved + total;
            tops[i] = top;
        }
        clear(row, &seen);
    }
}

/// The smallest part of a row in whole vectors, where the row has that many numbers, that holds
/// what is seen; the scores around that in the part become those of hidden keys.
#[inline(always)]
pub(super) fn hide<V: Lanes>(row: &mut [f32], seen: &Range<usize>) -> Range<usize> {
    let len = seen.len().next_multiple_of(V::N).min(row.len());
    let start = seen.start.min(row.len() - len);
    row[start..seen.start].fill(f32::NEG_INFINITY);
    row[seen.end..start + len].fill(f32::NEG_INFINITY);
    start..start + len
}

/// Zeros for what is not seen.
#[inline(always)]
pub(super) fn clear(row: &mut [f32], seen: &Range<usize>) {
    row[..seen.start].fill(0.0);
    row[seen.end..].fill(0.0);
}
