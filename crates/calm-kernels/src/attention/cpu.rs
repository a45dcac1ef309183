//! Attention in tiles on the CPU.

use rayon::prelude::*;

use calm_gemm::Shared;
use calm_gemm::by_level;
use calm_gemm::lanes::{Lanes, exp};
use calm_gemm::{Mat, MatMut, MatmulPrecision, Update, gemm_serial};

use super::tile::{self, Seen, Space, Tile, hide, largest_tile, scale};

/// Sizes of one attention.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub batch: usize,
    pub positions: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub width: usize,
    pub precision: MatmulPrecision,
}

impl Sizes {
    /// Rows `first ..` of a head of one sequence, as a matrix.
    fn rows<'a>(
        &self,
        x: &'a [f32],
        heads: usize,
        b: usize,
        h: usize,
        rows: std::ops::Range<usize>,
    ) -> Mat<'a> {
        let stride = heads * self.width;
        let start = (b * self.positions + rows.start) * stride + h * self.width;
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
    } = sizes;
    let mut log_sums = vec![0.0; batch * heads * positions];
    let (out, sums) = (Shared::new(out), Shared::new(&mut log_sums));
    let tiles: Vec<_> = (0..batch * heads)
        .flat_map(|bh| tile::queries(positions).map(move |rows| (bh, rows)))
        .collect();
    tiles
        .into_par_iter()
        .for_each_init(Space::default, |space, (bh, rows)| {
            let (b, h) = (bh / heads, bh % heads);
            let kv = h / (heads / kv_heads);
            space.attend(&Tile {
                q: sizes.rows(q, heads, b, h, rows.clone()),
                k: sizes.rows(k, kv_heads, b, kv, 0..rows.end),
                v: sizes.rows(v, kv_heads, b, kv, 0..rows.end),
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
        precision,
        ..
    } = sizes;
    let scale = scale(width);
    let group = heads / kv_heads;
    let (mut dk, mut dv) = (vec![0.0; positions * width], vec![0.0; positions * width]);
    let (most_queries, most_keys) = largest_tile(positions);
    let mut weights = vec![0.0; most_queries * most_keys];
    let mut slopes = weights.clone();
    let mut dq = vec![0.0; most_queries * width];
    for h in kv * group..(kv + 1) * group {
        for rows in tile::queries(positions) {
            let n = rows.len();
            let of = |x| sizes.rows(x, heads, b, h, rows.clone());
            let (q, grad) = (of(saved.q), of(saved.grad));
            let at = |i: usize| (b * positions + rows.start + i) * heads * width + h * width;
            let mut along = vec![0.0; n];
            let part = at(0)..at(n - 1) + width;
            let (grads, contexts) = (&saved.grad[part.clone()], &saved.context[part]);
            dots(grads, contexts, [heads * width, width], &mut along);
            let log_sums = &saved.log_sums[(b * heads + h) * positions + rows.start..][..n];
            dq[..n * width].fill(0.0);
            for keys in tile::keys(rows.end) {
                let m = keys.len();
                let of = |x| sizes.rows(x, kv_heads, b, kv, keys.clone());
                let (k, v) = (of(saved.k), of(saved.v));
                let (weights, slopes) = (&mut weights[..n * m], &mut slopes[..n * m]);
                let overwrite = Update::Overwrite;
                gemm_serial(q, k.t(), MatMut::new(weights, n, m), overwrite, precision);
                gemm_serial(grad, v.t(), MatMut::new(slopes, n, m), overwrite, precision);
                let seen = Seen::new(&rows, &keys);
                soften_backward(weights, slopes, seen, scale, (log_sums, &along));
                let part = keys.start * width..keys.end * width;
                let (weights, slopes) = (Mat::new(weights, n, m), Mat::new(slopes, n, m));
                let target = |x| MatMut::new(x, m, width);
                gemm_serial(
                    weights.t(),
                    grad,
                    target(&mut dv[part.clone()]),
                    Update::Add,
                    precision,
                );
                gemm_serial(slopes.t(), q, target(&mut dk[part]), Update::Add, precision);
                let target = MatMut::new(&mut dq[..n * width], n, width);
                gemm_serial(slopes, k, target, Update::Add, precision);
            }
            for (i, dq) in dq[..n * width].chunks_exact(width).enumerate() {
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
        let at = (b * positions + i) * kv_heads * width + kv * width;
        // SAFETY: the rows of this key/value head are this task's alone.
        unsafe {
            out[1].write(at, dk);
            out[2].write(at, dv);
        }
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
        seen: Seen,
        scale: f32,
        rows: (&[f32], &[f32]),
    ) = soften_rows_backward[]
}

#[inline(always)]
fn soften_rows_backward<V: Lanes>(
    weights: &mut [f32],
    slopes: &mut [f32],
    seen: Seen,
    scale: f32,
    (log_sums, along): (&[f32], &[f32]),
) {
    let rows = weights
        .chunks_exact_mut(seen.keys)
        .zip(slopes.chunks_exact_mut(seen.keys));
    for (i, (weights, slopes)) in rows.enumerate() {
        let count = hide::<V>(weights, seen.of(i));
        let whole = count / V::N * V::N;
        for j in (0..whole).step_by(V::N) {
            backward_at::<V>(weights, slopes, j, scale, log_sums[i], along[i]);
        }
        for j in whole..count {
            backward_at::<f32>(weights, slopes, j, scale, log_sums[i], along[i]);
        }
        weights[seen.of(i)..].fill(0.0);
        slopes[seen.of(i)..].fill(0.0);
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
