//! Screening by 8-bit products: which entries of a table can have the largest product at all.
//!
//! With x and w rounded to x' and w', Cauchy and Schwarz bound the error of a product:
//! `|x w - x' w'| <= |x| |w - w'| + |x - x'| |w'|`. An entry whose product may reach no further
//! up than another's surely does is out.

use std::ops::Range;

use rayon::prelude::*;

use super::products::{Line, MOST_ROWS, PANEL, Products, SHIFT, WORD};
use super::rounding::{Rounded, Rows, round};
use crate::{Right, simd};

/// Rows that a task goes over for each panel: their numbers stay in the second-level cache.
const ROWS: usize = 240;
/// Parts of the table where rows alone don't occupy a machine.
const PARTS: usize = 4;
/// Multiply-adds below which one thread does all.
const PARALLEL_FROM: usize = 1 << 18;

/// Per entry of the table.
#[derive(Debug, Default)]
struct Columns {
    /// The step of the rounding.
    scale: Vec<f32>,
    /// `|w'|`
    size: Vec<f32>,
    /// `|w - w'|`
    rest: Vec<f32>,
}

/// A rounded table.
#[derive(Debug)]
pub(super) struct Screen {
    products: Products,
    /// Panel by panel, word by word: the rounded numbers plus [`SHIFT`].
    panels: Vec<Line>,
    columns: Columns,
    vocab: usize,
    d: usize,
}

/// An entry that may be the largest of its row.
#[derive(Clone, Copy)]
struct Candidate {
    row: u32,
    column: u32,
    /// What its product is at most, in the row's steps.
    upper: f32,
}

impl Screen {
    /// Rounds a table `[V, d]`; none where the machine lacks the instructions or a number is too
    /// large or none.
    pub(super) fn new<B: Right>(table: B) -> Option<Self> {
        Self::through(Products::best()?, table)
    }

    /// [`Screen::new`] by given instructions.
    pub(super) fn through<B: Right>(products: Products, table: B) -> Option<Self> {
        let [vocab, d] = table.dims();
        // Norms of longer vectors, summed in f32, may be off by more than the slack.
        if d == 0 || d > 1 << 13 {
            return None;
        }
        let words = d.div_ceil(WORD);
        let panels = vocab.div_ceil(PANEL);
        let mut lines = vec![Line([SHIFT as u8; 64]); panels * words * 2];
        let per_column: Vec<[f32; 3]> = lines
            .par_chunks_mut(words * 2)
            .enumerate()
            .flat_map_iter(|(panel, lines)| {
                let mut rounded = vec![0i8; d];
                let mut found = [[0.0; 3]; PANEL];
                for (j, i) in (panel * PANEL..vocab).take(PANEL).enumerate() {
                    let Rounded { scale, size, rest } = round(&table.row(i), i8::MAX, &mut rounded);
                    found[j] = [scale, scale * size, scale * rest];
                    let (half, lane) = (j / 16, j % 16);
                    for (k, &q) in rounded.iter().enumerate() {
                        let line = &mut lines[k / WORD * 2 + half];
                        line.0[lane * WORD + k % WORD] = (i32::from(q) + SHIFT) as u8;
                    }
                }
                found
            })
            .collect();
        let pick = |i: usize| per_column.iter().map(|column| column[i]).collect();
        let columns = Columns {
            scale: pick(0),
            size: pick(1),
            rest: pick(2),
        };
        // Far enough from where bounds overflow; false for NaN.
        let small = |of: &[f32]| of.iter().all(|&x| x < 1e25);
        let usable = small(&columns.scale) && small(&columns.size) && small(&columns.rest);
        usable.then_some(Self {
            products,
            panels: lines,
            columns,
            vocab,
            d,
        })
    }

    /// For each row of x the first entry of the table with the largest product.
    pub(super) fn search<B: Right>(&self, x: &[f32], table: B) -> Vec<i32> {
        let count = x.len() / self.d;
        let rows = Rows::new(x, self.d, self.products.row_limit());
        let parallel = x.len() * self.vocab >= PARALLEL_FROM;
        let blocks: Vec<Range<usize>> = (0..count)
            .step_by(ROWS)
            .map(|first| first..count.min(first + ROWS))
            .collect();
        let share = if parallel && blocks.len() < PARTS {
            self.vocab.div_ceil(PARTS).next_multiple_of(PANEL)
        } else {
            self.vocab.next_multiple_of(PANEL)
        };
        let tasks: Vec<(Range<usize>, usize)> = blocks
            .iter()
            .flat_map(|block| {
                (0..self.vocab)
                    .step_by(share)
                    .map(|first| (block.clone(), first))
            })
            .collect();
        let screen =
            |(block, first): &(Range<usize>, usize)| self.screen(&rows, block, *first, share);
        let found: Vec<(Vec<f32>, Vec<Candidate>)> = if parallel {
            tasks.par_iter().map(screen).collect()
        } else {
            tasks.iter().map(screen).collect()
        };

        let mut surely = vec![f32::NEG_INFINITY; count];
        for ((block, _), (lower, _)) in tasks.iter().zip(&found) {
            for (surely, &lower) in surely[block.clone()].iter_mut().zip(lower) {
                *surely = surely.max(lower);
            }
        }
        let mut left: Vec<Vec<u32>> = vec![Vec::new(); count];
        for candidate in found.iter().flat_map(|(_, candidates)| candidates) {
            let row = candidate.row as usize;
            if candidate.upper >= surely[row] {
                left[row].push(candidate.column);
            }
        }
        let best = |(x, left): (&[f32], &Vec<u32>)| self.largest(x, left, table);
        if parallel {
            x.par_chunks_exact(self.d).zip(&left).map(best).collect()
        } else {
            x.chunks_exact(self.d).zip(&left).map(best).collect()
        }
    }

    /// What the products of a block of rows surely reach among `share` entries, and which may be
    /// the largest there.
    fn screen(
        &self,
        rows: &Rows,
        block: &Range<usize>,
        first: usize,
        share: usize,
    ) -> (Vec<f32>, Vec<Candidate>) {
        let words = self.d.div_ceil(WORD);
        let mut surely = vec![f32::NEG_INFINITY; block.len()];
        let mut candidates = Vec::new();
        let mut sums = [[0; PANEL]; MOST_ROWS];
        for first in (first..self.vocab.min(first + share)).step_by(PANEL) {
            let panel = &self.panels[first / PANEL * words * 2..][..words * 2];
            for start in block.clone().step_by(self.products.rows()) {
                let some = start..block.end.min(start + self.products.rows());
                let x = &rows.numbers[some.start * words * WORD..some.end * words * WORD];
                let sums = &mut sums[..some.len()];
                self.products.multiply(x, words, panel, sums);
                for (row, sums) in some.zip(sums) {
                    let surely = &mut surely[row - block.start];
                    self.judge(rows, row, first, sums, surely, &mut candidates);
                }
            }
        }
        (surely, candidates)
    }

    /// Raises `surely` to what a row's products reach in the panel from entry `first` on at least,
    /// and lists the entries that may be the largest so far.
    fn judge(
        &self,
        rows: &Rows,
        row: usize,
        first: usize,
        sums: &[i32; PANEL],
        surely: &mut f32,
        candidates: &mut Vec<Candidate>,
    ) {
        let (mut score, mut error) = ([0.0; PANEL], [0.0; PANEL]);
        let columns = first..first + PANEL;
        let reached = bounds(
            sums,
            rows.offset[row],
            &self.columns.scale[columns.clone()],
            [rows.of_rest[row], rows.of_size[row]],
            [
                &self.columns.rest[columns.clone()],
                &self.columns.size[columns],
            ],
            *surely,
            &mut score,
            &mut error,
        );
        if !reached {
            return;
        }
        // Without the zeros that fill up the last panel.
        let there = 0..PANEL.min(self.vocab - first);
        for lane in there.clone() {
            *surely = surely.max(score[lane] - error[lane]);
        }
        candidates.extend(there.filter_map(|lane| {
            let upper = score[lane] + error[lane];
            let (row, column) = (row as u32, (first + lane) as u32);
            (upper >= *surely).then_some(Candidate { row, column, upper })
        }));
    }

    /// The first entry with the largest product among the candidates, which come in order; among
    /// all where there are none, because x is not finite.
    fn largest<B: Right>(&self, x: &[f32], candidates: &[u32], table: B) -> i32 {
        let of = |column: usize| product(x, &table.row(column));
        let first_largest = |columns: &mut dyn Iterator<Item = usize>| {
            let mut best = (0, f64::NEG_INFINITY);
            for column in columns {
                let product = of(column);
                if product > best.1 {
                    best = (column, product);
                }
            }
            best.0 as i32
        };
        match candidates {
            [] => first_largest(&mut (0..self.vocab)),
            [only] => *only as i32,
            several => first_largest(&mut several.iter().map(|&column| column as usize)),
        }
    }
}

simd! {
    // Scores of one row in a panel, in the row's steps, and how far each may be off: the product
    // of `factors` and `columns`. Whether one may reach `surely`.
    fn bounds(
        sums: &[i32; PANEL],
        offset: i32,
        scale: &[f32],
        factors: [f32; 2],
        columns: [&[f32]; 2],
        surely: f32,
        score: &mut [f32; PANEL],
        error: &mut [f32; PANEL],
    ) -> bool {
        let [first, second] = columns.map(|column| &column[..PANEL]);
        let scale = &scale[..PANEL];
        let mut reached = 0;
        for i in 0..PANEL {
            score[i] = (sums[i] - offset) as f32 * scale[i];
            error[i] = factors[0] * first[i] + factors[1] * second[i];
            reached |= u32::from(score[i] + error[i] >= surely);
        }
        reached != 0
    }
}

simd! {
    // In f64, so that rounding decides between near equals as seldom as may be.
    fn product(x: &[f32], w: &[f32]) -> f64 {
        let mut lanes = [0.0f64; 16];
        for (x, w) in x.chunks(16).zip(w.chunks(16)) {
            for ((&x, &w), lane) in x.iter().zip(w).zip(&mut lanes) {
                *lane += f64::from(x) * f64::from(w);
            }
        }
        lanes.iter().sum()
    }
}
