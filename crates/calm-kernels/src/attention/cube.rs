//! Causal attention in CubeCL: queries in blocks, whose scores alone are in memory; the products
//! are the executor's own, what lies between them is one kernel forward and one backward.
//!
//! Query heads that share a key/value head stand one below the other, so that keys and values are
//! not repeated: tensors are `[batch * kv_heads, heads / kv_heads * positions, width]`.

use burn::backend::{ops::FloatTensorOps, tensor::FloatTensor};
use burn::tensor::Slice;
use burn_cubecl::{CubeBackend, tensor::CubeTensor};
use cubecl::prelude::*;

use super::AttentionOps;
use crate::cube::{empty, floats, largest, len, per_entry, per_row, scratch, sum, width, zeros};

/// Scores of a block, about: 64 MiB.
const SCORES: usize = 1 << 24;

/// Scores become softmax weights, in place, and hidden ones 0; a cube for each row. Row r of a
/// matrix belongs to position `first + r % block`, and `log_sums` has the logarithm of its sum of
/// exponentials.
#[cube(launch)]
fn soften(scores: &mut [f32], log_sums: &mut [f32], keys: u32, block: u32, first: u32, scale: f32) {
    let mut scratch = scratch();
    let keys = keys as usize;
    if CUBE_POS < log_sums.len() {
        let start = CUBE_POS * keys;
        let seen = min(keys, first as usize + CUBE_POS % block as usize + 1);
        let mut top = f32::min_value();
        let mut j = UNIT_POS as usize;
        while j < seen {
            top = max(top, scores[start + j] * scale);
            j += CUBE_DIM as usize;
        }
        let top = largest(top, &mut scratch);
        let mut part = 0.0f32.runtime();
        let mut j = UNIT_POS as usize;
        while j < seen {
            let e = (scores[start + j] * scale - top).exp();
            scores[start + j] = e;
            part += e;
            j += CUBE_DIM as usize;
        }
        let total = sum(part, &mut scratch);
        let mut j = UNIT_POS as usize;
        while j < keys {
            if j < seen {
                scores[start + j] = scores[start + j] / total;
            } else {
                scores[start + j] = 0.0f32;
            }
            j += CUBE_DIM as usize;
        }
        if UNIT_POS == 0 {
            log_sums[CUBE_POS] = top + total.ln();
        }
    }
}

/// Scores become weights again, and the gradient of the weights that of the unscaled scores, both
/// in place; a unit for each entry. `along` is the product of gradient and context of a row.
#[cube(launch)]
fn soften_backward(
    scores: &mut [f32],
    slopes: &mut [f32],
    log_sums: &[f32],
    along: &[f32],
    keys: u32,
    block: u32,
    first: u32,
    scale: f32,
) {
    if ABSOLUTE_POS < scores.len() {
        let row = ABSOLUTE_POS / keys as usize;
        let key = ABSOLUTE_POS % keys as usize;
        let mut weight = 0.0f32.runtime();
        let mut slope = 0.0f32.runtime();
        if key <= first as usize + row % block as usize {
            weight = (scores[ABSOLUTE_POS] * scale - log_sums[row]).exp();
            slope = weight * (slopes[ABSOLUTE_POS] - along[row]) * scale;
        }
        scores[ABSOLUTE_POS] = weight;
        slopes[ABSOLUTE_POS] = slope;
    }
}

#[derive(Clone, Copy)]
struct Sizes {
    batch: usize,
    positions: usize,
    kv_heads: usize,
    /// Query heads to a key/value head.
    group: usize,
    width: usize,
    /// Positions of a block.
    block: usize,
}

impl Sizes {
    fn new(q: &CubeTensor, heads: usize, kv_heads: usize) -> Self {
        let (batch, positions) = (q.meta.shape()[0], q.meta.shape()[1]);
        // A quarter of many positions at most, so that most of the upper triangle is not made.
        let fitting = SCORES / (batch * heads * positions).max(1);
        let block = fitting.clamp(1, positions.div_ceil(4).max(256));
        Self {
            batch,
            positions,
            kv_heads,
            group: heads / kv_heads,
            width: width(q) / heads,
            block,
        }
    }

    fn scale(self) -> f32 {
        1.0 / (self.width as f32).sqrt()
    }

    /// `[batch, positions, kv_heads * own * width]` to `[batch * kv_heads, own, positions, width]`.
    fn split(self, x: CubeTensor, own: usize) -> CubeTensor {
        let Self {
            batch,
            positions,
            kv_heads,
            width,
            ..
        } = self;
        let x = CubeBackend::float_reshape(x, [batch, positions, kv_heads, own, width].into());
        let x = CubeBackend::float_permute(x, &[0, 2, 3, 1, 4]);
        CubeBackend::float_reshape(x, [batch * kv_heads, own, positions, width].into())
    }

    /// The way back.
    fn join(self, x: CubeTensor, own: usize) -> CubeTensor {
        let Self {
            batch,
            positions,
            kv_heads,
            width,
            ..
        } = self;
        let x = CubeBackend::float_reshape(x, [batch, kv_heads, own, positions, width].into());
        let x = CubeBackend::float_permute(x, &[0, 3, 1, 2, 4]);
        floats(CubeBackend::float_reshape(
            x,
            [batch, positions, kv_heads * own * width].into(),
        ))
    }

    /// Positions `from .. to` of `[batch * kv_heads, own, positions, last]`, the heads one below
    /// the other: `[batch * kv_heads, own * (to - from), last]`.
    fn part(self, x: &CubeTensor, own: usize, from: usize, to: usize) -> CubeTensor {
        let all = self.batch * self.kv_heads;
        let last = width(x);
        let slices = [0..all, 0..own, from..to, 0..last].map(|r| Slice::from(r));
        let x = CubeBackend::float_slice(x.clone(), &slices);
        floats(CubeBackend::float_reshape(
            x,
            [all, own * (to - from), last].into(),
        ))
    }

    fn blocks(self) -> impl Iterator<Item = (usize, usize)> {
        let (positions, block) = (self.positions, self.block);
        (0..positions)
            .step_by(block)
            .map(move |from| (from, positions.min(from + block)))
    }

    /// Blocks of `[batch * kv_heads, group * n, last]` along the positions, as
    /// `[batch * kv_heads, group, positions, last]`.
    fn stack(self, parts: Vec<CubeTensor>) -> CubeTensor {
        let all = self.batch * self.kv_heads;
        let parts = parts.into_iter().map(|x| {
            let (rows, last) = (x.meta.shape()[1], width(&x));
            CubeBackend::float_reshape(x, [all, self.group, rows / self.group, last].into())
        });
        CubeBackend::float_cat(parts.collect(), 2)
    }
}

/// `a b^T` of the last two dimensions.
fn times_transposed(a: &CubeTensor, b: &CubeTensor) -> CubeTensor {
    let b = CubeBackend::float_swap_dims(b.clone(), 1, 2);
    floats(CubeBackend::float_matmul(a.clone(), b))
}

/// `a^T b` of the last two dimensions.
fn transposed_times(a: &CubeTensor, b: &CubeTensor) -> CubeTensor {
    let a = CubeBackend::float_swap_dims(a.clone(), 1, 2);
    CubeBackend::float_matmul(a, b.clone())
}

/// `total[:, ..n, :] += part` for a part of n rows.
fn add_to_first(total: CubeTensor, part: CubeTensor) -> CubeTensor {
    let shape = part.meta.shape();
    let slices = [0..shape[0], 0..shape[1], 0..shape[2]].map(|r| Slice::from(r));
    let old = CubeBackend::float_slice(total.clone(), &slices);
    let sum = CubeBackend::float_add(old, part);
    CubeBackend::float_slice_assign(total, &slices, sum)
}

impl AttentionOps for CubeBackend {
    fn calm_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        heads: usize,
        kv_heads: usize,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let sizes = Sizes::new(&q, heads, kv_heads);
        let (batch, positions) = (sizes.batch, sizes.positions);
        if len(&q) == 0 {
            let log_sums = empty(&q, [batch, heads, positions]);
            return (floats(q), log_sums);
        }
        let [q, k, v] = [q, k, v].map(floats);
        let (q, k, v) = (
            sizes.split(q, sizes.group),
            sizes.split(k, 1),
            sizes.split(v, 1),
        );
        let (mut contexts, mut log_sums) = (Vec::new(), Vec::new());
        for (from, to) in sizes.blocks() {
            let q = sizes.part(&q, sizes.group, from, to);
            let (k, v) = (sizes.part(&k, 1, 0, to), sizes.part(&v, 1, 0, to));
            let scores = times_transposed(&q, &k);
            let rows = len(&scores) / to;
            let sums = empty(&q, [batch * kv_heads, rows / (batch * kv_heads), 1]);
            let (count, dim) = per_row(&q.client, rows);
            soften::launch(
                &q.client,
                count,
                dim,
                scores.clone().into_buffer_arg(),
                sums.clone().into_buffer_arg(),
                to as u32,
                (to - from) as u32,
                from as u32,
                sizes.scale(),
            );
            contexts.push(Self::float_matmul(scores, v));
            log_sums.push(sums);
        }
        let context = sizes.join(sizes.stack(contexts), sizes.group);
        let log_sums = sizes.stack(log_sums);
        let log_sums = Self::float_reshape(log_sums, [batch, heads, positions].into());
        (context, log_sums)
    }

    fn calm_attention_backward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        context: FloatTensor<Self>,
        log_sums: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        heads: usize,
        kv_heads: usize,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let sizes = Sizes::new(&q, heads, kv_heads);
        let (all, group) = (sizes.batch * kv_heads, sizes.group);
        if len(&q) == 0 {
            return (floats(q), floats(k), floats(v));
        }
        let [q, k, v, context, log_sums, grad] = [q, k, v, context, log_sums, grad].map(floats);
        let (q, k, v) = (sizes.split(q, group), sizes.split(k, 1), sizes.split(v, 1));
        let (context, grad) = (sizes.split(context, group), sizes.split(grad, group));
        let log_sums = Self::float_reshape(log_sums, [all, group, sizes.positions, 1].into());
        let along = Self::float_sum_dim(Self::float_mul(grad.clone(), context), 3);
        let mut dk = zeros(&q, [all, sizes.positions, sizes.width]);
        let mut dv = zeros(&q, [all, sizes.positions, sizes.width]);
        let mut dq = Vec::new();
        for (from, to) in sizes.blocks() {
            let of_queries = |x| sizes.part(x, group, from, to);
            let (q, grad) = (of_queries(&q), of_queries(&grad));
            let (log_sums, along) = (of_queries(&log_sums), of_queries(&along));
            let (k, v) = (sizes.part(&k, 1, 0, to), sizes.part(&v, 1, 0, to));
            let weights = times_transposed(&q, &k);
            let slopes = times_transposed(&grad, &v);
            let (count, dim) = per_entry(&q.client, len(&weights));
            soften_backward::launch(
                &q.client,
                count,
                dim,
                weights.clone().into_buffer_arg(),
                slopes.clone().into_buffer_arg(),
                log_sums.into_buffer_arg(),
                along.into_buffer_arg(),
                to as u32,
                (to - from) as u32,
                from as u32,
                sizes.scale(),
            );
            dv = add_to_first(dv, transposed_times(&weights, &grad));
            dk = add_to_first(dk, transposed_times(&slopes, &q));
            dq.push(Self::float_matmul(slopes, k));
        }
        let dq = sizes.join(sizes.stack(dq), group);
        (dq, sizes.join(dk, 1), sizes.join(dv, 1))
    }
}
