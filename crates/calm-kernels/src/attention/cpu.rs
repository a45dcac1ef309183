//! Attention in tiles on the CPU.

use std::ops::Range;

use rayon::prelude::*;

use calm_gemm::Shared;
use calm_gemm::by_level;
use calm_gemm::lanes::{Lanes, exp};
use calm_gemm::{Mat, MatMut, MatmulPrecision, Update, gemm_serial};

use super::tile::{self, Keys, Part, Seen, Space, Tile, clear, hide, most_scores, scale};

/// Sizes of one attention.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub batch: usize,
    pub positions: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub width: usize,
    /// Tokens that a query sees.
    pub window: usize,
    /// Rows of a sequence's keys in front of those of its tokens.
    pub memories: usize,
    /// Tokens that a memory stands for.
    pub chunk: usize,
    pub precision: MatmulPrecision,
}

impl Sizes {
    /// Keys of a sequence.
    fn keys(&self) -> usize {
        self.memories + self.positions
    }

    /// A sequence's keys in parts, each with its first row.
    fn parts(&self) -> impl Iterator<Item = (Keys, usize)> {
        let memories = Keys::memories(0..self.memories, self.chunk);
        let tokens = Keys::tokens(0..self.positions, self.window);
        [(memories, 0), (tokens, self.memories)]
            .into_iter()
            .filter(|(keys, _)| !keys.held.is_empty())
    }

    /// Rows of query head `h` of sequence `b`, as a matrix.
    fn queries<'a>(&self, x: &'a [f32], b: usize, h: usize, rows: Range<usize>) -> Mat<'a> {
        let first = b * self.positions + rows.start;
        self.rows(x, self.heads, h, first..first + rows.len())
    }

    /// Rows of key/value head `h` of sequence `b`, as a matrix.
    fn key_rows<'a>(&self, x: &'a [f32], b: usize, h: usize, rows: Range<usize>) -> Mat<'a> {
        let first = b * self.keys() + rows.start;
        self.rows(x, self.kv_heads, h, first..first + rows.len())
    }

    fn rows<'a>(&self, x: &'a [f32], heads: usize, h: usize, rows: Range<usize>) -> Mat<'a> {
        let stride = heads * self.width;
        let start = rows.start * stride + h * self.width;
        Mat::strided(&x[start..], [rows.len(), self.width], [stride, 1])
    }
}

/// Writes the context and returns the log sums.
pub(super) fn forward(q: &[f32], k: &[f32], v: &[f32], sizes: Sizes, out: &mut [f32]) -> Vec<f32> {
    let Sizes {
        batch,
        positions,
        heads,
        kv_heads,
        width,
        precision,
        ..
    } = sizes;
    let mut log_sums = vec![0.0; batch * heads * positions];
    let (out, sums) = (Shared::new(out), Shared::new(&mut log_sums));
    let tiles: Vec<_> = (0..batch * heads)
        .flat_map(|bh| tile::queries(0..positions).map(move |rows| (bh, rows)))
        .collect();
    tiles
        .into_par_iter()
        .for_each_init(Space::default, |space, (bh, rows)| {
            let (b, h) = (bh / heads, bh % heads);
            let kv = h / (heads / kv_heads);
            let parts: Vec<_> = sizes
                .parts()
                .map(|(keys, first)| {
                    let rows = first..first + keys.held.len();
                    let of = |x| sizes.key_rows(x, b, kv, rows.clone());
                    let (k, v) = (of(k), of(v));
                    Part { keys, k, v }
                })
                .collect();
            space.attend(&Tile {
                q: sizes.queries(q, b, h, rows.clone()),
                first: rows.start,
                parts: &parts,
                precision,
            });
            let stride = heads * width;
            let start = (b * positions + rows.start) * stride + h * width;
            // SAFETY: the rows of this head and tile are this task's alone.
            unsafe {
                space.write(out, start, stride);
                sums.write(bh * positions + rows.start, &space.log_sums);
            }
        });
    log_sums
}

/// What the backward pass starts from.
pub(super) struct Saved<'a> {
    pub q: &'a [f32],
    pub k: &'a [f32],
    pub v: &'a [f32],
    pub context: &'a [f32],
    pub log_sums: &'a [f32],
    pub grad: &'a [f32],
}

/// Writes the gradients of q, k and v.
pub(super) fn backward(
    saved: &Saved<'_>,
    sizes: Sizes,
    dq: &mut [f32],
    dk: &mut [f32],
    dv: &mut [f32],
) {
    let (dq, dk, dv) = (Shared::new(dq), Shared::new(dk), Shared::new(dv));
    (0..sizes.batch * sizes.kv_heads)
        .into_par_iter()
        .for_each(|group| {
            let (b, kv) = (group / sizes.kv_heads, group % sizes.kv_heads);
            backward_group(saved, sizes, b, kv, [dq, dk, dv]);
        });
}

/// All query heads that share key/value head `kv` of sequence `b`.
fn backward_group(saved: &Saved<'_>, sizes: Sizes, b: usize, kv: usize, out: [Shared<'_>; 3]) {
    let Sizes {
        positions,
        heads,
        kv_heads,
        width,
        ..
    } = sizes;
    let (group, all) = (heads / kv_heads, sizes.keys());
    let (mut dk, mut dv) = (vec![0.0; all * width], vec![0.0; all * width]);
    let mut weights = vec![0.0; most_scores(positions, all)];
    let mut slopes = weights.clone();
    let mut dq = Vec::new();
    for h in kv * group..(kv + 1) * group {
        for rows in tile::queries(0..positions) {
            let n = rows.len();
            let at = |i: usize| (b * positions + rows.start + i) * heads * width + h * width;
            let mut along = vec![0.0; n];
            let part = at(0)..at(n - 1) + width;
            let (grads, contexts) = (&saved.grad[part.clone()], &saved.context[part]);
            dots(grads, contexts, [heads * width, width], &mut along);
            dq.clear();
            dq.resize(n * width, 0.0);
            for (keys, first) in sizes.parts() {
                for (queries, some) in keys.products(rows.clone()) {
                    let held = first + some.start..first + some.end;
                    let some_rows = queries.start - rows.start..queries.end - rows.start;
                    let n = queries.len() * some.len();
                    let product = Product {
                        seen: Seen::new(&keys, queries.start, some),
                        q: sizes.queries(saved.q, b, h, queries.clone()),
                        k: sizes.key_rows(saved.k, b, kv, held.clone()),
                        v: sizes.key_rows(saved.v, b, kv, held.clone()),
                        grad: sizes.queries(saved.grad, b, h, queries.clone()),
                        log_sums: &saved.log_sums[(b * heads + h) * positions..][queries],
                        along: &along[some_rows.clone()],
                        precision: sizes.precision,
                    };
                    let numbers = |rows: Range<usize>| rows.start * width..rows.end * width;
                    product.backward(
                        [&mut weights[..n], &mut slopes[..n]],
                        &mut dq[numbers(some_rows)],
                        &mut dk[numbers(held.clone())],
                        &mut dv[numbers(held)],
                    );
                }
            }
            for (i, dq) in dq.chunks_exact(width).enumerate() {
                // SAFETY: the rows of this head are this task's alone.
                unsafe { out[0].write(at(i), dq) };
            }
        }
    }
    for (i, (dk, dv)) in dk
        .chunks_exact(width)
        .zip(dv.chunks_exact(width))
        .enumerate()
    {
        let at = (b * all + i) * kv_heads * width + kv * width;
        // SAFETY: the rows of this key/value head are this task's alone.
        unsafe {
            out[1].write(at, dk);
            out[2].write(at, dv);
        }
    }
}

/// Some queries and some keys of one head, in the backward pass.
struct Product<'a> {
    seen: Seen<'a>,
    q: Mat<'a>,
    k: Mat<'a>,
    v: Mat<'a>,
    grad: Mat<'a>,
    log_sums: &'a [f32],
    /// The gradient along each query's context.
    along: &'a [f32],
    precision: MatmulPrecision,
}

impl Product<'_> {
    /// Adds what it has of the gradients, in the given space for a number per score.
    fn backward(
        &self,
        [weights, slopes]: [&mut [f32]; 2],
        dq: &mut [f32],
        dk: &mut [f32],
        dv: &mut [f32],
    ) {
        let (n, m, width) = (self.q.rows(), self.k.rows(), self.q.cols());
        let precision = self.precision;
        let target = MatMut::new(weights, n, m);
        gemm_serial(self.q, self.k.t(), target, Update::Overwrite, precision);
        let target = MatMut::new(slopes, n, m);
        gemm_serial(self.grad, self.v.t(), target, Update::Overwrite, precision);
        let rows = (self.log_sums, self.along);
        soften_backward(weights, slopes, &self.seen, scale(width), rows);
        let (weights, slopes) = (Mat::new(weights, n, m), Mat::new(slopes, n, m));
        let (dq, dk) = (MatMut::new(dq, n, width), MatMut::new(dk, m, width));
        let dv = MatMut::new(dv, m, width);
        gemm_serial(weights.t(), self.grad, dv, Update::Add, precision);
        gemm_serial(slopes.t(), self.q, dk, Update::Add, precision);
        gemm_serial(slopes, self.k, dq, Update::Add, precision);
    }
}

by_level! {
    /// Dot products of rows of `width` numbers that lie `stride` apart.
    fn dots(a: &[f32], b: &[f32], stride_width: [usize; 2], out: &mut [f32]) = dots_of_rows[]
}

#[inline(always)]
fn dots_of_rows<V: Lanes>(a: &[f32], b: &[f32], [stride, width]: [usize; 2], out: &mut [f32]) {
    let whole = width / V::N * V::N;
    for (i, out) in out.iter_mut().enumerate() {
        let (a, b) = (&a[i * stride..][..width], &b[i * stride..][..width]);
        let mut sums = V::zero();
        for j in (0..whole).step_by(V::N) {
            sums = sums.add_product(V::load(a, j), V::load(b, j));
        }
        *out = sums.total();
        for (a, b) in a[whole..].iter().zip(&b[whole..]) {
            *out += a * b;
        }
    }
}

by_level! {
    /// Scores become softmax weights, and the gradients of the weights those of the unscaled
    /// scores. `rows` holds each row's log sum and the gradient along its context.
    fn soften_backward(
        weights: &mut [f32],
        slopes: &mut [f32],
        seen: &Seen<'_>,
        scale: f32,
        rows: (&[f32], &[f32]),
    ) = soften_rows_backward[]
}

#[inline(always)]
fn soften_rows_backward<V: Lanes>(
    weights: &mut [f32],
    slopes: &mut [f32],
    seen: &Seen<'_>,
    scale: f32,
    (log_sums, along): (&[f32], &[f32]),
) {
    let rows = weights
        .chunks_exact_mut(seen.keys())
        .zip(slopes.chunks_exact_mut(seen.keys()));
    for (i, (weights, slopes)) in rows.enumerate() {
        let seen = seen.of(i);
        if !seen.is_empty() {
            let part = hide::<V>(weights, &seen);
            let whole = part.start + part.len() / V::N * V::N;
            for j in (part.start..whole).step_by(V::N) {
                backward_at::<V>(weights, slopes, j, scale, log_sums[i], along[i]);
            }
            for j in whole..part.end {
                backward_at::<f32>(weights, slopes, j, scale, log_sums[i], along[i]);
            }
        }
        clear(weights, &seen);
        clear(slopes, &seen);
    }
}

#[inline(always)]
fn backward_at<V: Lanes>(
    weights: &mut [f32],
    slopes: &mut [f32],
    j: usize,
    scale: f32,
    log_sum: f32,
    along: f32,
) {
    let scale = V::splat(scale);
    let weight = exp(V::splat(-log_sum).add_product(V::load(weights, j), scale));
    weight.store(weights, j);
    let slope = V::load(slopes, j).sub(V::splat(along)).mul(scale);
    weight.mul(slope).store(slopes, j);
}
