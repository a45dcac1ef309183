//! What the local decoder keeps of a text: the last tokens and all chunks, in every layer.

use burn::tensor::{Device, Tensor};
use calm_kernels::LocalKeys;

/// Tokens beyond the band that a cache keeps, so that this many can be taken back.
pub(crate) const SLACK: usize = 32;

/// Keys and values of every layer.
#[derive(Clone, Debug)]
pub struct LocalCache {
    pub(crate) layers: Vec<LayerCache>,
    pub(crate) shape: Shape,
    /// Tokens read.
    len: usize,
}

/// Sizes of a cache.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub batch: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    /// Rows of tokens.
    pub tokens: usize,
    /// Tokens that must stay when others go.
    pub kept: usize,
    /// Rows of chunks; 0 without a memory.
    pub chunks: usize,
}

/// Keys and values, `[batch, kv_heads, rows, head_dim]` each.
type Pair = (Tensor<4>, Tensor<4>);

/// One layer.
#[derive(Clone, Debug)]
pub(crate) struct LayerCache {
    tokens: Option<Pair>,
    /// Rows of tokens that are filled.
    held: usize,
    memory: Option<Pair>,
    /// Chunks that are filled.
    chunks: usize,
}

impl LocalCache {
    pub(crate) fn new(layers: usize, shape: Shape, device: &Device) -> Self {
        let pair = |rows: usize| {
            let zeros = Tensor::zeros([shape.batch, shape.kv_heads, rows, shape.head_dim], device);
            (zeros.clone(), zeros)
        };
        let layer = LayerCache {
            tokens: Some(pair(shape.tokens)),
            held: 0,
            memory: (shape.chunks > 0).then(|| pair(shape.chunks)),
            chunks: 0,
        };
        Self {
            layers: vec![layer; layers],
            shape,
            len: 0,
        }
    }

    /// Tokens read.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was read.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whole chunks that the memory holds.
    pub(crate) fn chunks(&self) -> usize {
        self.layers.first().map_or(0, |layer| layer.chunks)
    }

    pub(crate) fn grow(&mut self, new: usize) {
        self.len += new;
    }

    /// Forgets everything from token `len` on, which is within chunk `chunks`. Where the band before
    /// it is not kept any more nothing is left. Returns the tokens left.
    pub fn truncate(&mut self, len: usize, chunks: usize) -> usize {
        let back = self.len.saturating_sub(len);
        let first = self.len - self.layers.first().map_or(0, |layer| layer.held);
        // All of the band before, or of the text.
        let enough = len.saturating_sub(first) >= self.shape.kept.saturating_sub(SLACK).min(len);
        let (len, chunks) = match back {
            0 => (self.len, chunks),
            _ if enough => (len, chunks),
            _ => (0, 0),
        };
        for layer in &mut self.layers {
            layer.held = if len == 0 { 0 } else { layer.held - back };
            layer.chunks = layer.chunks.min(chunks);
        }
        self.len = len;
        len
    }
}

impl LayerCache {
    /// Appends keys and values of new tokens, after `read` others, and of new chunks, and returns
    /// what the new tokens attend to.
    pub(crate) fn append(
        &mut self,
        read: usize,
        tokens: Pair,
        chunks: Option<Pair>,
        shape: Shape,
    ) -> LocalKeys {
        if let Some(fresh) = chunks {
            let new = fresh.0.dims()[2];
            let memory = self.memory.take().expect("the cache of the memory");
            self.memory = Some(write(memory, fresh, self.chunks));
            self.chunks += new;
        }
        let new = tokens.0.dims()[2];
        let held = self.tokens.take().expect("the cache buffer");
        let (seen, count) = if self.held + new <= shape.tokens {
            let all = write(held, tokens, self.held);
            self.held += new;
            self.tokens = Some(all.clone());
            (all, self.held)
        } else {
            // The rows behind the others that must stay go to the front.
            let kept = self.held.min(shape.kept);
            let all = match kept {
                // Of a first step that is longer than the buffer.
                0 => tokens,
                _ => {
                    let tail = rows(&held, self.held - kept, kept);
                    (
                        Tensor::cat(vec![tail.0, tokens.0], 2),
                        Tensor::cat(vec![tail.1, tokens.1], 2),
                    )
                }
            };
            let count = kept + new;
            self.held = count.min(if count <= shape.tokens {
                count
            } else {
                shape.kept
            });
            let last = rows(&all, count - self.held, self.held);
            self.tokens = Some(write(held, last, 0));
            (all, count)
        };
        LocalKeys {
            tokens: seen,
            first: read + new - count,
            held: count,
            memory: self.memory.clone(),
        }
    }

    /// Tokens and chunks that are held: keys and values.
    pub(crate) fn held(&self) -> (Pair, Option<Pair>) {
        let tokens = self.tokens.as_ref().expect("the cache buffer");
        let memory = self.memory.as_ref();
        (
            rows(tokens, 0, self.held),
            memory.map(|memory| rows(memory, 0, self.chunks)),
        )
    }
}

/// Writes `fresh` over the rows from `at` on. A buffer that has one owner is written in place.
fn write((keys, values): Pair, fresh: Pair, at: usize) -> Pair {
    let into = |buffer: Tensor<4>, fresh: Tensor<4>| {
        let [batch, heads, new, width] = fresh.dims();
        buffer.slice_assign([0..batch, 0..heads, at..at + new, 0..width], fresh)
    };
    (into(keys, fresh.0), into(values, fresh.1))
}

fn rows((keys, values): &Pair, first: usize, count: usize) -> Pair {
    (
        keys.clone().narrow(2, first, count),
        values.clone().narrow(2, first, count),
    )
}
