//! Attention in tiles on the CPU.

use rayon::prelude::*;

use crate::cpu::gemm::{Into, Mat, MatMut, MatmulPrecision, gemm_serial};
use crate::cpu::shared::Shared;
use crate::cpu::simd::{exp, simd, sum};

/// Queries of a tile.
const QUERIES: usize = 128;
/// Keys of a tile.
const KEYS: usize = 256;

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

    fn scale(&self) -> f32 {
        1.0 / (self.width as f32).sqrt()
    }

    fn blocks(&self, size: usize) -> impl Iterator<Item = std::ops::Range<usize>> + use<> {
        let positions = self.positions;
        (0..positions)
            .step_by(size)
            .map(move |first| first..positions.min(first + size))
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
        .flat_map(|bh| sizes.blocks(QUERIES).map(move |rows| (bh, rows)))
        .collect();
    tiles.into_par_iter().for_each(|(bh, rows)| {
        let (b, h) = (bh / heads, bh % heads);
        let kv = h / (heads / kv_heads);
        let n = rows.len();
        let q = sizes.rows(q, heads, b, h, rows.clone());
        let mut scores = vec![0.0; n * KEYS];
        let mut context = vec![0.0; n * width];
        let (mut top, mut total) = (vec![f32::NEG_INFINITY; n], vec![0.0; n]);
        for keys in sizes.blocks(KEYS).take_while(|keys| keys.start < rows.end) {
            let m = keys.len();
            let k = sizes.rows(k, kv_heads, b, kv, keys.clone());
            let tile = MatMut::new(&mut scores[..n * m], n, m);
            gemm_serial(q, k.t(), tile, Into::Overwrite, precision);
            for (i, row) in scores[..n * m].chunks_exact_mut(m).enumerate() {
                let seen = (rows.start + i + 1).saturating_sub(keys.start).min(m);
                let context = &mut context[i * width..][..width];
                soften(
                    row,
                    seen,
                    sizes.scale(),
                    &mut top[i],
                    &mut total[i],
                    context,
                );
            }
            let v = sizes.rows(v, kv_heads, b, kv, keys);
            let target = MatMut::new(&mut context, n, width);
            gemm_serial(
                Mat::new(&scores[..n * m], n, m),
                v,
                target,
                Into::Add,
                precision,
            );
        }
        for i in 0..n {
            let context = &mut context[i * width..][..width];
            for x in context.iter_mut() {
                *x /= total[i];
            }
            top[i] += total[i].ln();
            let at = (b * positions + rows.start + i) * heads * width + h * width;
            // SAFETY: the rows of this head and tile are this task's alone.
            unsafe { out.write(at, context) };
        }
        // SAFETY: as above.
        unsafe { sums.write(bh * positions + rows.start, &top) };
    });
    log_sums
}

simd! {
    // One row of a tile: scores become exponentials above the running maximum, which the sums
    // and the context so far are moved to. Keys from `seen` on are hidden.
    fn soften(row: &mut [f32], seen: usize, scale: f32, top: &mut f32, total: &mut f32, context: &mut [f32]) {
        row[seen..].fill(0.0);
        let row = &mut row[..seen];
        if row.is_empty() {
            return;
        }
        let mut lanes = [f32::NEG_INFINITY; 16];
        for part in row.chunks(16) {
            for (lane, &x) in lanes.iter_mut().zip(part) {
                *lane = if x > *lane { x } else { *lane };
            }
        }
        let highest = lanes.into_iter().fold(*top, |a, b| a.max(b * scale));
        let moved = exp(*top - highest);
        if highest > *top {
            for x in context.iter_mut() {
                *x *= moved;
            }
        }
        for x in row.iter_mut() {
            *x = exp(*x * scale - highest);
        }
        *total = *total * moved + sum(row.len(), |j| row[j]);
        *top = highest;
    }
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
fn backward_group(saved: &Saved<'_>, sizes: Sizes, b: usize, kv: usize, out: [Shared; 3]) {
    let Sizes {
        positions,
        heads,
        kv_heads,
        width,
        precision,
        ..
    } = sizes;
    let scale = sizes.scale();
    let group = heads / kv_heads;
    let (mut dk, mut dv) = (vec![0.0; positions * width], vec![0.0; positions * width]);
    let mut weights = vec![0.0; QUERIES * KEYS];
    let mut slopes = vec![0.0; QUERIES * KEYS];
    let mut dq = vec![0.0; QUERIES * width];
    for h in kv * group..(kv + 1) * group {
        for rows in sizes.blocks(QUERIES) {
            let n = rows.len();
            let of = |x| sizes.rows(x, heads, b, h, rows.clone());
            let (q, grad) = (of(saved.q), of(saved.grad));
            let at = |i: usize| (b * positions + rows.start + i) * heads * width + h * width;
            let along: Vec<f32> = (0..n)
                .map(|i| {
                    dot(
                        &saved.grad[at(i)..][..width],
                        &saved.context[at(i)..][..width],
                    )
                })
                .collect();
            let log_sums = &saved.log_sums[(b * heads + h) * positions + rows.start..][..n];
            dq[..n * width].fill(0.0);
            for keys in sizes.blocks(KEYS).take_while(|keys| keys.start < rows.end) {
                let m = keys.len();
                let of = |x| sizes.rows(x, kv_heads, b, kv, keys.clone());
                let (k, v) = (of(saved.k), of(saved.v));
                let (weights, slopes) = (&mut weights[..n * m], &mut slopes[..n * m]);
                let overwrite = Into::Overwrite;
                gemm_serial(q, k.t(), MatMut::new(weights, n, m), overwrite, precision);
                gemm_serial(grad, v.t(), MatMut::new(slopes, n, m), overwrite, precision);
                for i in 0..n {
                    let seen = (rows.start + i + 1).saturating_sub(keys.start).min(m);
                    let (w, s) = (&mut weights[i * m..][..m], &mut slopes[i * m..][..m]);
                    row_backward(w, s, seen, scale, log_sums[i], along[i]);
                }
                let part = keys.start * width..keys.end * width;
                let (weights, slopes) = (Mat::new(weights, n, m), Mat::new(slopes, n, m));
                let target = |x| MatMut::new(x, m, width);
                gemm_serial(
                    weights.t(),
                    grad,
                    target(&mut dv[part.clone()]),
                    Into::Add,
                    precision,
                );
                gemm_serial(slopes.t(), q, target(&mut dk[part]), Into::Add, precision);
                let target = MatMut::new(&mut dq[..n * width], n, width);
                gemm_serial(slopes, k, target, Into::Add, precision);
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

simd! {
    fn dot(a: &[f32], b: &[f32]) -> f32 {
        let b = &b[..a.len()];
        sum(a.len(), |j| a[j] * b[j])
    }
}

simd! {
    // Scores become softmax weights, and the gradient of the weights that of the unscaled scores.
    fn row_backward(weights: &mut [f32], slopes: &mut [f32], seen: usize, scale: f32, log_sum: f32, along: f32) {
        weights[seen..].fill(0.0);
        slopes[seen..].fill(0.0);
        for (w, s) in weights[..seen].iter_mut().zip(&mut slopes[..seen]) {
            *w = exp(*w * scale - log_sum);
            *s = *w * (*s - along) * scale;
        }
    }
}
