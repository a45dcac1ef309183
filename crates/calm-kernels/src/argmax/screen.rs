//! Screening by 8-bit products: which entries of a table can have the largest product at all.
//!
//! With x and w rounded to x' and w', Cauchy and Schwarz bound the error of a product:
//! `|x w - x' w'| <= |x| |w - w'| + |x - x'| |w'|`. An entry whose product may reach no further
//! up than another's surely does is out.

use std::ops::Range;

use rayon::prelude::*;

use super::vnni;
use crate::cpu::simd::simd;

/// Columns of a panel: two registers of 16 words.
pub(super) const PANEL: usize = 32;
/// Steps of depth in a word.
pub(super) const WORD: usize = 4;
/// Rows that a task goes over for each panel: their numbers stay in the second-level cache.
const ROWS: usize = 240;
/// Parts of the table where rows alone don't occupy a machine.
const PARTS: usize = 4;
/// Multiply-adds below which one thread does all.
const PARALLEL_FROM: usize = 1 << 18;
/// Relative slack for the f32 arithmetic of bounds and scores.
const SLACK: f32 = 1e-5;

/// The 16 words of one register, on a cache line of their own.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct Line(pub(super) [u8; 64]);

/// Per entry of the table.
#[derive(Debug, Default)]
pub(super) struct Columns {
    /// The step of the rounding.
    pub(super) scale: Vec<f32>,
    /// `|w'|`
    pub(super) size: Vec<f32>,
    /// `|w - w'|`
    pub(super) rest: Vec<f32>,
}

/// A rounded table.
#[derive(Debug)]
pub(super) struct Screen {
    /// Panel by panel, step by step of [`WORD`] numbers, two registers each: the rounded numbers
    /// plus 128.
    panels: Vec<Line>,
    columns: Columns,
    vocab: usize,
    d: usize,
}

/// Rows rounded each by its own step.
pub(super) struct Rows {
    /// `[rows, words, WORD]`
    pub(super) numbers: Vec<i8>,
    /// Per row, 128 times the sum of its numbers: what the table's 128 adds to all products.
    pub(super) offset: Vec<i32>,
    /// Per row, `|x|` and `|x - x'|` in steps: what the bound takes of an entry's rest and size.
    pub(super) of_rest: Vec<f32>,
    pub(super) of_size: Vec<f32>,
}

/// An entry that may be the largest of its row.
#[derive(Clone, Copy)]
pub(super) struct Candidate {
    pub(super) row: u32,
    pub(super) column: u32,
    /// What its product is at most, in the row's steps.
    pub(super) upper: f32,
}

/// One panel on its way to a task.
pub(super) struct Panel<'a> {
    pub(super) lines: &'a [Line],
    pub(super) columns: &'a Columns,
    /// Its first entry, and how many there are.
    pub(super) first: usize,
    pub(super) count: usize,
}

impl Screen {
    /// Rounds a table `[V, d]`; none where the machine lacks the instructions or a number is not
    /// finite.
    pub(super) fn new(table: &[f32], [vocab, d]: [usize; 2]) -> Option<Self> {
        // Sums of d products of 8 bits stay below 2^31.
        if !vnni::available() || d == 0 || d > 1 << 15 {
            return None;
        }
        let words = d.div_ceil(WORD);
        let panels = vocab.div_ceil(PANEL);
        let mut lines = vec![Line([128; 64]); panels * words * 2];
        let per_column: Vec<[f32; 3]> = lines
            .par_chunks_mut(words * 2)
            .zip(table.par_chunks(PANEL * d))
            .flat_map_iter(|(lines, table)| {
                let mut rounded = vec![0i8; d];
                let mut found = [[0.0; 3]; PANEL];
                for (j, w) in table.chunks_exact(d).enumerate() {
                    let Rounded { scale, size, rest } = round(w, &mut rounded);
                    found[j] = [scale, scale * size, scale * rest];
                    let (half, lane) = (j / 16, j % 16);
                    for (k, &q) in rounded.iter().enumerate() {
                        let line = &mut lines[k / WORD * 2 + half];
                        line.0[lane * WORD + k % WORD] = (i16::from(q) + 128) as u8;
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
        let finite = |of: &[f32]| of.iter().all(|x| x.is_finite());
        let usable = finite(&columns.scale) && finite(&columns.size) && finite(&columns.rest);
        usable.then_some(Self {
            panels: lines,
            columns,
            vocab,
            d,
        })
    }

    /// For each row of x the first entry of the table with the largest product.
    pub(super) fn search(&self, x: &[f32], table: &[f32]) -> Vec<i32> {
        let count = x.len() / self.d;
        let rows = Rows::new(x, self.d);
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
        for first in (first..self.vocab.min(first + share)).step_by(PANEL) {
            let at = first / PANEL * words * 2;
            let panel = Panel {
                lines: &self.panels[at..at + words * 2],
                columns: &self.columns,
                first,
                count: PANEL.min(self.vocab - first),
            };
            vnni::screen(
                rows,
                block.clone(),
                words,
                &panel,
                &mut surely,
                &mut candidates,
            );
        }
        (surely, candidates)
    }

    /// The first entry with the largest product among the candidates, which come in order; among
    /// all where there are none, because x is not finite.
    fn largest(&self, x: &[f32], candidates: &[u32], table: &[f32]) -> i32 {
        let of = |column: usize| product(x, &table[column * self.d..][..self.d]);
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

impl Rows {
    fn new(x: &[f32], d: usize) -> Self {
        let words = d.div_ceil(WORD);
        let count = x.len() / d;
        let mut rows = Self {
            numbers: vec![0; count * words * WORD],
            offset: Vec::with_capacity(count),
            of_rest: Vec::with_capacity(count),
            of_size: Vec::with_capacity(count),
        };
        for (x, numbers) in x
            .chunks_exact(d)
            .zip(rows.numbers.chunks_exact_mut(words * WORD))
        {
            let Rounded { size, rest, .. } = round(x, &mut numbers[..d]);
            let total: i32 = numbers.iter().map(|&q| i32::from(q)).sum();
            rows.offset.push(128 * total);
            // |x| <= |x'| + |x - x'|
            let whole = size + rest;
            rows.of_rest.push(whole * (1.0 + SLACK));
            rows.of_size.push(rest * (1.0 + SLACK) + whole * SLACK);
        }
        rows
    }
}

/// A vector rounded to multiples of `scale`, with norms in multiples of `scale` too.
struct Rounded {
    scale: f32,
    /// Of the rounded vector.
    size: f32,
    /// Of the difference.
    rest: f32,
}

fn round(x: &[f32], to: &mut [i8]) -> Rounded {
    // The smallest normal number, so that its reciprocal is finite.
    let scale = (largest(x) / 127.0).max(f32::MIN_POSITIVE);
    let [size, rest] = quantize(x, 1.0 / scale, to);
    Rounded {
        scale,
        size: size.sqrt(),
        rest: rest.sqrt(),
    }
}

simd! {
    fn largest(x: &[f32]) -> f32 {
        let mut lanes = [0.0f32; 32];
        for part in x.chunks(32) {
            for (lane, &x) in lanes.iter_mut().zip(part) {
                let size = x.abs();
                *lane = if size > *lane { size } else { *lane };
            }
        }
        lanes.into_iter().fold(0.0, f32::max)
    }
}

simd! {
    // `steps * x` rounded, and the squared norms of that and of what it lacks.
    fn quantize(x: &[f32], steps: f32, to: &mut [i8]) -> [f32; 2] {
        const MAGIC: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer.
        let (mut sizes, mut rests) = ([0.0f32; 32], [0.0f32; 32]);
        for (x, to) in x.chunks(32).zip(to.chunks_mut(32)) {
            let lanes = sizes.iter_mut().zip(&mut rests);
            for ((&x, to), (size, rest)) in x.iter().zip(to).zip(lanes) {
                let scaled = x * steps;
                let shifted = scaled + MAGIC;
                let rounded = shifted - MAGIC;
                *to = shifted.to_bits() as i8;
                *size += rounded * rounded;
                *rest += (scaled - rounded) * (scaled - rounded);
            }
        }
        [sizes.iter().sum(), rests.iter().sum()]
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
