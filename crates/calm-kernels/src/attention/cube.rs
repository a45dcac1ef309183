//! Attention in CubeCL: queries in blocks, whose scores with the keys that a block sees alone are in
//! memory; the products are the executor's own, what lies between them is one kernel forward and one
//! backward.
//!
//! Query heads that share a key/value head stand one below the other, so that keys and values are
//! not repeated: tensors are `[batch * kv_heads, heads / kv_heads * positions, width]`.

use std::ops::Range;

use burn::backend::{ops::FloatTensorOps, tensor::FloatTensor};
use burn::tensor::Slice;
use burn_cubecl::{CubeBackend, tensor::CubeTensor};
use cubecl::prelude::*;

use super::AttentionOps;
use crate::cube::{empty, floats, largest, len, per_entry, per_row, scratch, sum, width, zeros};

/// Scores of a block, about: 64 MiB.
const SCORES: usize = 1 << 24;

/// Positions that are worth a block of their own.
const LEAST_BLOCK: usize = 256;

/// Whether the query at `position` sees a key of its block: the first `memories` stand for chunks of
/// `chunk` tokens, the others are tokens from position `token` on.
#[cube]
fn sees(position: u32, key: u32, memories: u32, chunk: u32, token: u32, window: u32) -> bool {
    let end = position + 1;
    let mut seen = key < end / chunk;
    if key >= memories {
        let other = token + key - memories;
        seen = other < end && other + window >= end;
    }
    seen
}

/// Scores become softmax weights, in place, and hidden ones 0; a cube for each row. Row r of a
/// matrix belongs to position `first + r % block`, its columns to the keys of [`sees`]; `log_sums`
/// has the logarithm of its sum of exponentials.
#[cube(launch)]
fn soften(
    scores: &mut [f32],
    log_sums: &mut [f32],
    keys: u32,
    block: u32,
    first: u32,
    memories: u32,
    chunk: u32,
    token: u32,
    window: u32,
    scale: f32,
) {
    let mut scratch = scratch();
    let width = keys as usize;
    if CUBE_POS < log_sums.len() {
        let start = CUBE_POS * width;
        let position = first + (CUBE_POS % block as usize) as u32;
        let mut top = f32::min_value();
        let mut j = UNIT_POS;
        while j < keys {
            if sees(position, j, memories, chunk, token, window) {
                top = max(top, scores[start + j as usize] * scale);
            }
            j += CUBE_DIM;
        }
        let top = largest(top, &mut scratch);
        let mut part = 0.0f32.runtime();
        let mut j = UNIT_POS;
        while j < keys {
            let mut e = 0.0f32.runtime();
            if sees(position, j, memories, chunk, token, window) {
                e = (scores[start + j as usize] * scale - top).exp();
            }
            scores[start + j as usize] = e;
            part += e;
            j += CUBE_DIM;
        }
        let total = sum(part, &mut scratch);
        let mut j = UNIT_POS as usize;
        while j < width {
            scores[start + j] = scores[start + j] / total;
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
    memories: u32,
    chunk: u32,
    token: u32,
    window: u32,
    scale: f32,
) {
    if ABSOLUTE_POS < scores.len() {
        let row = ABSOLUTE_POS / keys as usize;
        let key = (ABSOLUTE_POS % keys as usize) as u32;
        let position = first + (row % block as usize) as u32;
        let mut weight = 0.0f32.runtime();
        let mut slope = 0.0f32.runtime();
        if sees(position, key, memories, chunk, token, window) {
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
    window: usize,
    /// Keys in front of the tokens'.
    memories: usize,
    chunk: usize,
    /// Positions of a block.
    block: usize,
}

impl Sizes {
    fn new(q: &CubeTensor, [heads, kv_heads, window, memories, chunk]: [usize; 5]) -> Self {
        let (batch, positions) = (q.meta.shape()[0], q.meta.shape()[1]);
        // A quarter of many positions at most, and no more than a band is wide, so that most of what
        // is hidden is not made.
        let fitting = SCORES / (batch * heads * (memories + positions)).max(1);
        let most = positions.div_ceil(4).min(window).max(LEAST_BLOCK);
        Self {
            batch,
            positions,
            kv_heads,
            group: heads / kv_heads,
            width: width(q) / heads,
            window,
            memories,
            chunk,
            block: fitting.clamp(1, most),
        }
    }

    fn scale(self) -> f32 {
        1.0 / (self.width as f32).sqrt()
    }

    /// `[batch, positions, kv_heads * own * width]` to `[batch * kv_heads, own, positions, width]`;
    /// positions are all keys for keys.
    fn split(self, x: CubeTensor, own: usize) -> CubeTensor {
        let Self {
            batch,
            kv_heads,
            width,
            ..
        } = self;
        let positions = x.meta.shape()[1];
        let x = CubeBackend::float_reshape(x, [batch, positions, kv_heads, own, width].into());
        let x = CubeBackend::float_permute(x, &[0, 2, 3, 1, 4]);
        CubeBackend::float_reshape(x, [batch * kv_heads, own, positions, width].into())
    }

    /// The way back, from `positions` rows.
    fn join(self, x: CubeTensor, own: usize, positions: usize) -> CubeTensor {
        let Self {
            batch,
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

    fn blocks(self) -> impl Iterator<Item = Block> {
        let (positions, block) = (self.positions, self.block);
        (0..positions).step_by(block).map(move |from| {
            let to = positions.min(from + block);
            Block {
                from,
                to,
                token: (from + 1).saturating_sub(self.window),
                memories: self.memories.min(to / self.chunk),
            }
        })
    }

    /// The keys, or values, that a block sees: `[batch * kv_heads, keys, width]`.
    fn seen(self, x: &CubeTensor, block: &Block) -> CubeTensor {
        let tokens = self.part(x, 1, self.memories + block.token, self.memories + block.to);
        if block.memories == 0 {
            return tokens;
        }
        let memories = self.part(x, 1, 0, block.memories);
        floats(CubeBackend::float_cat(vec![memories, tokens], 1))
    }

    /// Adds the gradients of the keys that a block sees to those of all.
    fn add_seen(self, total: CubeTensor, part: &CubeTensor, block: &Block) -> CubeTensor {
        let (memories, keys) = (block.memories, block.keys());
        let total = add_rows(total, self.memories + block.token, part, memories..keys);
        if memories == 0 {
            return total;
        }
        add_rows(total, 0, part, 0..memories)
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

/// Queries `from .. to` and what they see: so many memories, and tokens from `token` on.
struct Block {
    from: usize,
    to: usize,
    token: usize,
    memories: usize,
}

impl Block {
    fn keys(&self) -> usize {
        self.memories + self.to - self.token
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

/// `total[:, at .., :] += part[:, rows, :]`
fn add_rows(total: CubeTensor, at: usize, part: &CubeTensor, rows: Range<usize>) -> CubeTensor {
    let shape = part.meta.shape();
    let slices = |rows| [0..shape[0], rows, 0..shape[2]].map(|r| Slice::from(r));
    let target = slices(at..at + rows.len());
    let part = CubeBackend::float_slice(part.clone(), &slices(rows));
    let old = CubeBackend::float_slice(total.clone(), &target);
    CubeBackend::float_slice_assign(total, &target, CubeBackend::float_add(old, part))
}

impl AttentionOps for CubeBackend {
    fn calm_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        heads: usize,
        kv_heads: usize,
        window: usize,
        memories: usize,
        chunk: usize,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let sizes = Sizes::new(&q, [heads, kv_heads, window, memories, chunk]);
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
        for block in sizes.blocks() {
            let q = sizes.part(&q, sizes.group, block.from, block.to);
            let (k, v) = (sizes.seen(&k, &block), sizes.seen(&v, &block));
            let scores = times_transposed(&q, &k);
            let rows = len(&scores) / block.keys();
            let sums = empty(&q, [batch * kv_heads, rows / (batch * kv_heads), 1]);
            let (count, dim) = per_row(&q.client, rows);
            soften::launch(
                &q.client,
                count,
                dim,
                scores.clone().into_buffer_arg(),
                sums.clone().into_buffer_arg(),
                block.keys() as u32,
                (block.to - block.from) as u32,
                block.from as u32,
                block.memories as u32,
                chunk as u32,
                block.token as u32,
                window as u32,
                sizes.scale(),
            );
            contexts.push(Self::float_matmul(scores, v));
            log_sums.push(sums);
        }
        let context = sizes.join(sizes.stack(contexts), sizes.group, positions);
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
        window: usize,
        memories: usize,
        chunk: usize,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let sizes = Sizes::new(&q, [heads, kv_heads, window, memories, chunk]);
        let (all, group) = (sizes.batch * kv_heads, sizes.group);
        if len(&q) == 0 {
            let [dk, dv] = [k, v].map(|x| zeros(&x, x.meta.shape().clone()));
            return (floats(q), dk, dv);
        }
        let [q, k, v, context, log_sums, grad] = [q, k, v, context, log_sums, grad].map(floats);
        let (q, k, v) = (sizes.split(q, group), sizes.split(k, 1), sizes.split(v, 1));
        let (context, grad) = (sizes.split(context, group), sizes.split(grad, group));
        let log_sums = Self::float_reshape(log_sums, [all, group, sizes.positions, 1].into());
        let along = Self::float_sum_dim(Self::float_mul(grad.clone(), context), 3);
        let keys = memories + sizes.positions;
        let mut dk = zeros(&q, [all, keys, sizes.width]);
        let mut dv = zeros(&q, [all, keys, sizes.width]);
        let mut dq = Vec::new();
        for block in sizes.blocks() {
            let of_queries = |x| sizes.part(x, group, block.from, block.to);
            let (q, grad) = (of_queries(&q), of_queries(&grad));
            let (log_sums, along) = (of_queries(&log_sums), of_queries(&along));
            let (k, v) = (sizes.seen(&k, &block), sizes.seen(&v, &block));
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
                block.keys() as u32,
                (block.to - block.from) as u32,
                block.from as u32,
                block.memories as u32,
                chunk as u32,
                block.token as u32,
                window as u32,
                sizes.scale(),
            );
            dv = sizes.add_seen(dv, &transposed_times(&weights, &grad), &block);
            dk = sizes.add_seen(dk, &transposed_times(&slopes, &q), &block);
            dq.push(Self::float_matmul(slopes, k));
        }
        let dq = sizes.join(sizes.stack(dq), group, sizes.positions);
        (dq, sizes.join(dk, 1, keys), sizes.join(dv, 1, keys))
    }
}
