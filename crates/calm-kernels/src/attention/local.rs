//! Attention of tokens to the last tokens before them and to a memory of whole chunks.

use std::ops::Range;

use burn::tensor::{Bool, Device, Tensor, TensorData, activation::softmax};

use super::{attend, cached, check};
use crate::{has_kernel, on_flex};

/// What a query sees: the last tokens, itself included, and one memory for every chunk that ends
/// where its own next token, the one it predicts, begins or before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Band {
    /// Tokens that a query sees, W; as many as there are positions or more make plain causal
    /// attention.
    pub window: usize,
    /// Tokens that a memory stands for, K.
    pub chunk: usize,
}

impl Band {
    /// The first token that position `t` sees.
    pub fn first_token(self, t: usize) -> usize {
        (t + 1).saturating_sub(self.window)
    }

    /// How many memories position `t` sees: those of chunks that end at t or before.
    pub fn memories(self, t: usize) -> usize {
        (t + 1) / self.chunk
    }

    fn check(self) {
        assert!(self.window > 0 && self.chunk > 0, "{self:?} is empty");
    }
}

/// Attention within a band of tokens and to the memory of earlier chunks, under one softmax.
///
/// Position t sees tokens `t + 1 - W ..= t` and memories `0 .. (t + 1) / K`, as many of both as
/// there are. Keys that no query of a tile sees cost nothing, and scores are never stored, as in
/// [`super::causal_attention`], which this is where the window holds all positions.
///
/// # Shapes
/// - q: `[batch, positions, heads * width]`
/// - k, v: `[batch, positions, kv_heads * width]`
/// - memory: keys and values `[batch, memories, kv_heads * width]`
/// - output: that of q
///
/// # Panics
/// Where the shapes disagree, or the band is empty.
pub fn local_attention(
    q: Tensor<3>,
    k: Tensor<3>,
    v: Tensor<3>,
    memory: Option<(Tensor<3>, Tensor<3>)>,
    heads: usize,
    kv_heads: usize,
    band: Band,
) -> Tensor<3> {
    check(&q, [&k, &v], heads, kv_heads);
    band.check();
    if let Some((mk, mv)) = &memory {
        let [batch, _, width] = k.dims();
        let expected = [batch, mk.dims()[1], width];
        assert_eq!([mk.dims(), mv.dims()], [expected; 2], "memory");
    }
    if !has_kernel(&q) {
        return local_attention_reference(q, k, v, memory, heads, kv_heads, band);
    }
    let (memories, k, v) = join(k, v, memory);
    attend(q, k, v, [heads, kv_heads], band, memories)
}

/// How many memories there are, and keys and values with those of the memories in front.
fn join(
    k: Tensor<3>,
    v: Tensor<3>,
    memory: Option<(Tensor<3>, Tensor<3>)>,
) -> (usize, Tensor<3>, Tensor<3>) {
    match memory {
        Some((mk, mv)) => (
            mk.dims()[1],
            Tensor::cat(vec![mk, k], 1),
            Tensor::cat(vec![mv, v], 1),
        ),
        None => (0, k, v),
    }
}

/// [`local_attention`] in plain tensor operations; stores all scores, those outside the band too.
pub fn local_attention_reference(
    q: Tensor<3>,
    k: Tensor<3>,
    v: Tensor<3>,
    memory: Option<(Tensor<3>, Tensor<3>)>,
    heads: usize,
    kv_heads: usize,
    band: Band,
) -> Tensor<3> {
    let ([batch, positions, d], device) = (q.dims(), q.device());
    let width = d / heads;
    let (memories, k, v) = join(k, v, memory);
    let split = |x: Tensor<3>| {
        let keys = x.dims()[1];
        x.reshape([batch, keys, kv_heads, width])
            .swap_dims(1, 2)
            .unsqueeze_dim::<5>(2)
            .expand([batch, kv_heads, heads / kv_heads, keys, width])
            .reshape([batch, heads, keys, width])
    };
    let hidden = hidden(0..positions, memories, 0..positions, &[0], band, &device).expand([
        batch,
        heads,
        positions,
        memories + positions,
    ]);
    let q = q.reshape([batch, positions, heads, width]).swap_dims(1, 2);
    let scores = q.matmul(split(k).transpose()) / (width as f64).sqrt();
    softmax(scores.mask_fill(hidden, f32::NEG_INFINITY), 3)
        .matmul(split(v))
        .swap_dims(1, 2)
        .reshape([batch, positions, d])
}

/// What is cached of a stack of local attention's layer.
#[derive(Clone, Debug)]
pub struct LocalKeys {
    /// Keys and values of the last tokens, `[batch, kv_heads, capacity, width]` each.
    pub tokens: (Tensor<4>, Tensor<4>),
    /// The position of the token in the first row.
    pub first: usize,
    /// Rows that are filled, the new positions last.
    pub held: usize,
    /// Keys and values of the chunks from the text's first on, `[batch, kv_heads, capacity, width]`
    /// each, filled as far as any query sees.
    pub memory: Option<(Tensor<4>, Tensor<4>)>,
}

impl LocalKeys {
    /// Whether queries can be asked; how many memories they see.
    fn check(&self, [batch, d]: [usize; 2], new: usize, fillers: &[usize], band: Band) -> usize {
        let (k, v) = &self.tokens;
        let [b, kv_heads, capacity, width] = k.dims();
        assert!(
            b == batch && k.dims() == v.dims() && d.is_multiple_of(width * kv_heads),
            "queries [{batch}, {new}, {d}], keys {:?}, values {:?}",
            k.dims(),
            v.dims()
        );
        let held = self.held;
        assert!(
            new <= held && held <= capacity,
            "{new} of {held} of {capacity}"
        );
        assert_eq!(fillers.len(), batch, "one filler count per sequence");
        let (first, end) = (self.first, self.first + held);
        let seen = band.first_token(end - new);
        assert!(
            new == 0 || fillers.iter().all(|&filler| first <= seen.max(filler)),
            "token {seen} is seen, {first} is the first that is held"
        );
        let memories = match &self.memory {
            Some(_) if new > 0 => band.memories(end - 1),
            _ => 0,
        };
        if let Some((k, v)) = &self.memory {
            let [b, heads, rows, w] = k.dims();
            assert!(
                [b, heads, w] == [batch, kv_heads, width] && k.dims() == v.dims(),
                "memory's keys {:?}, values {:?}",
                k.dims(),
                v.dims()
            );
            assert!(memories <= rows, "{memories} memories of {rows}");
        }
        memories
    }
}

/// [`local_attention`] of the last positions to what is cached of those before.
///
/// # Shapes
/// - q: `[batch, new, heads * width]`
/// - fillers: positions at the front of each sequence, whole chunks, that are hidden from all
///   others with their memories; where a query is one of them itself, its row means nothing
/// - output: `[batch, new, heads * width]`
///
/// # Panics
/// Where the shapes disagree, or what the first query sees is held no more.
pub fn cached_local_attention(
    q: Tensor<3>,
    keys: &LocalKeys,
    fillers: &[usize],
    band: Band,
) -> Tensor<3> {
    let [batch, new, d] = q.dims();
    band.check();
    let memories = keys.check([batch, d], new, fillers, band);
    if !on_flex(&q.device()) || q.is_autodiff() {
        return cached_local_attention_reference(q, keys, fillers, band);
    }
    cached::attend(q, keys.clone(), memories, fillers, band)
}

/// [`cached_local_attention`] in plain tensor operations.
pub fn cached_local_attention_reference(
    q: Tensor<3>,
    keys: &LocalKeys,
    fillers: &[usize],
    band: Band,
) -> Tensor<3> {
    let ([batch, new, d], device) = (q.dims(), q.device());
    let [_, kv_heads, _, width] = keys.tokens.0.dims();
    let heads = d / width;
    let end = keys.first + keys.held;
    // Rows before this are seen by none.
    let from = band.first_token(end - new).max(keys.first);
    let memories = match keys.memory {
        Some(_) => band.memories(end - 1),
        None => 0,
    };
    let join = |tokens: &Tensor<4>, memory: Option<&Tensor<4>>| {
        let tokens = tokens.clone().narrow(2, from - keys.first, end - from);
        let all = match memory {
            Some(memory) if memories > 0 => {
                Tensor::cat(vec![memory.clone().narrow(2, 0, memories), tokens], 2)
            }
            _ => tokens,
        };
        let keys = all.dims()[2];
        all.unsqueeze_dim::<5>(2)
            .expand([batch, kv_heads, heads / kv_heads, keys, width])
            .reshape([batch, heads, keys, width])
    };
    let memory = keys.memory.as_ref();
    let k = join(&keys.tokens.0, memory.map(|memory| &memory.0));
    let v = join(&keys.tokens.1, memory.map(|memory| &memory.1));
    let hidden = hidden(end - new..end, memories, from..end, fillers, band, &device).expand([
        batch,
        heads,
        new,
        memories + end - from,
    ]);
    let q = q.reshape([batch, new, heads, width]).swap_dims(1, 2);
    let scores = q.matmul(k.transpose()) / (width as f64).sqrt();
    // A filler sees nothing: a finite number keeps its row one.
    softmax(scores.mask_fill(hidden, -1e30), 3)
        .matmul(v)
        .swap_dims(1, 2)
        .reshape([batch, new, d])
}

/// `true` where a query may not look, `[fillers, 1, queries, memories + tokens]`.
fn hidden(
    queries: Range<usize>,
    memories: usize,
    tokens: Range<usize>,
    fillers: &[usize],
    band: Band,
    device: &Device,
) -> Tensor<4, Bool> {
    let shape = [fillers.len(), 1, queries.len(), memories + tokens.len()];
    let mut values = Vec::with_capacity(shape.iter().product());
    for &filler in fillers {
        for t in queries.clone() {
            let seen = filler / band.chunk..band.memories(t);
            values.extend((0..memories).map(|chunk| !seen.contains(&chunk)));
            let seen = band.first_token(t).max(filler)..t + 1;
            values.extend(tokens.clone().map(|token| !seen.contains(&token)));
        }
    }
    Tensor::from_bool(TensorData::new(values, shape), device)
}
