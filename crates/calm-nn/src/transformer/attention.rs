//! Causal self-attention with grouped key/value heads and rotary positions.

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::{Bool, Tensor};
use calm_kernels::{cached_attention, causal_attention};

use super::TransformerConfig;
use crate::kv_cache::LayerCache;
use crate::{Init, Rope, linear};

/// Self-attention of one layer; four matrices without bias.
#[derive(Module, Debug)]
pub struct SelfAttention {
    /// Queries, `[d, heads * head_dim]`.
    pub q: Linear,
    /// Keys, `[d, kv_heads * head_dim]`.
    pub k: Linear,
    /// Values, `[d, kv_heads * head_dim]`.
    pub v: Linear,
    /// Output, `[heads * head_dim, d]`.
    pub o: Linear,
    heads: usize,
    kv_heads: usize,
}

/// What a query may see beside the causal rule: `true` hides a key. `[batch, 1, queries, keys]`.
pub type AttentionMask = Tensor<4, Bool>;

impl SelfAttention {
    /// A layer of the size in `config`.
    pub fn new(config: &TransformerConfig, init: &mut Init<'_>) -> Self {
        let d = config.hidden_size;
        let kv = config.kv_heads * config.head_dim();
        Self {
            q: init.linear_no_bias(d, d),
            k: init.linear_no_bias(d, kv),
            v: init.linear_no_bias(d, kv),
            o: init.branch_end(d, d),
            heads: config.heads,
            kv_heads: config.kv_heads,
        }
    }

    /// Query heads.
    pub fn heads(&self) -> usize {
        self.heads
    }

    /// Attends from every position of `x` to itself and all before it.
    ///
    /// # Shapes
    /// - x: `[batch, positions, d]`
    /// - output: `[batch, positions, d]`
    pub(crate) fn forward(&self, x: Tensor<3>, rope: &Rope) -> Tensor<3> {
        let (q, k, v) = self.project(x, rope);
        linear(
            &self.o,
            causal_attention(q, k, v, self.heads, self.kv_heads),
        )
    }

    /// Appends the positions of `x` to the cache and attends from them to all that it holds but
    /// the `fillers[b]` first of sequence b.
    ///
    /// # Shapes
    /// - x: `[batch, new, d]`
    /// - output: `[batch, new, d]`
    pub(crate) fn step(
        &self,
        x: Tensor<3>,
        rope: &Rope,
        fillers: &[usize],
        cache: &mut LayerCache,
    ) -> Tensor<3> {
        let (q, k, v) = self.project(x, rope);
        let first = cache.len() == 0 && fillers.iter().all(|&filler| filler == 0);
        let heads = |x: &Tensor<3>| self.by_kv_heads(x.clone());
        let (all_k, all_v) = cache.append(heads(&k), heads(&v));
        let context = if first && calm_kernels::fused(&q.device()) {
            // Nothing but these positions to see, and they lie as the causal kernel reads them.
            causal_attention(q, k, v, self.heads, self.kv_heads)
        } else {
            cached_attention(q, all_k, all_v, cache.len(), fillers)
        };
        linear(&self.o, context)
    }

    /// Attends from many alternative continuations at once: every query sees the cached keys
    /// that `hidden` leaves and the earlier steps of its own branch, never another branch.
    ///
    /// # Shapes
    /// - x: `[1, queries, d]`
    /// - hidden: `[1, 1, queries, cached]`, `true` hides
    /// - own: earlier steps, each twice `[1, kv_heads, queries, head_dim]`; this step is appended
    /// - output: `[1, queries, d]`
    pub(crate) fn branch(
        &self,
        x: Tensor<3>,
        rope: &Rope,
        hidden: AttentionMask,
        cache: &LayerCache,
        own: &mut Vec<(Tensor<4>, Tensor<4>)>,
    ) -> Tensor<3> {
        let (q, k, v) = self.project(x, rope);
        own.push((self.by_kv_heads(k), self.by_kv_heads(v)));
        self.attend_branches(q, cache.held(), hidden, &*own)
    }

    /// The attention of [`Transformer::branch`](super::Transformer::branch) and the output matrix.
    ///
    /// # Shapes
    /// - q: `[1, queries, heads * head_dim]`
    /// - cached: keys and values `[1, kv_heads, cached, head_dim]`
    /// - hidden: `[1, 1, queries, cached]`, `true` hides
    /// - own: keys and values of each query alone, each `[1, kv_heads, queries, head_dim]`
    /// - output: `[1, queries, d]`
    pub fn attend_branches<'a>(
        &self,
        q: Tensor<3>,
        (keys, values): (Tensor<4>, Tensor<4>),
        hidden: AttentionMask,
        own: impl IntoIterator<Item = &'a (Tensor<4>, Tensor<4>)>,
    ) -> Tensor<3> {
        let q = by_heads(q, self.heads);
        let own: Vec<_> = own.into_iter().collect();
        let cached = keys.dims()[2];
        let scale = 1.0 / (q.dims()[3] as f64).sqrt();
        let prefix = (q.clone().matmul(self.repeat(keys).transpose()) * scale)
            .mask_fill(hidden, f32::NEG_INFINITY);
        // A branch's own keys are one per query, so their scores are row-wise dot products.
        let own_scores = own
            .iter()
            .map(|(k, _)| (q.clone() * self.repeat(k.clone())).sum_dim(3) * scale);
        let scores = Tensor::cat(std::iter::once(prefix).chain(own_scores).collect(), 3);
        let weights = burn::tensor::activation::softmax(scores, 3);
        let mut context = weights
            .clone()
            .narrow(3, 0, cached)
            .matmul(self.repeat(values));
        for (j, (_, v)) in own.iter().enumerate() {
            context = context + weights.clone().narrow(3, cached + j, 1) * self.repeat(v.clone());
        }
        self.merge(context)
    }

    /// Queries, keys and values, rotated where they are queries or keys.
    ///
    /// # Shapes
    /// - x: `[batch, positions, d]`
    /// - output: `[batch, positions, heads * head_dim]`, then twice `[.., kv_heads * head_dim]`
    pub fn project(&self, x: Tensor<3>, rope: &Rope) -> (Tensor<3>, Tensor<3>, Tensor<3>) {
        let q = rope.rotate(linear(&self.q, x.clone()));
        let k = rope.rotate(linear(&self.k, x.clone()));
        (q, k, linear(&self.v, x))
    }

    /// Keys or values by head: `[batch, positions, kv_heads * head_dim]` to
    /// `[batch, kv_heads, positions, head_dim]`.
    pub fn by_kv_heads(&self, x: Tensor<3>) -> Tensor<4> {
        by_heads(x, self.kv_heads)
    }

    /// One key/value head for every query head: `[b, kv_heads, t, w]` to `[b, heads, t, w]`.
    fn repeat(&self, x: Tensor<4>) -> Tensor<4> {
        let groups = self.heads / self.kv_heads;
        if groups == 1 {
            return x;
        }
        let [batch, kv_heads, positions, width] = x.dims();
        x.unsqueeze_dim::<5>(2)
            .expand([batch, kv_heads, groups, positions, width])
            .reshape([batch, self.heads, positions, width])
    }

    fn merge(&self, context: Tensor<4>) -> Tensor<3> {
        let [batch, heads, positions, width] = context.dims();
        let context = context
            .swap_dims(1, 2)
            .reshape([batch, positions, heads * width]);
        linear(&self.o, context)
    }
}

/// `[batch, positions, heads * width]` to `[batch, heads, positions, width]`.
fn by_heads(x: Tensor<3>, heads: usize) -> Tensor<4> {
    let [batch, positions, d] = x.dims();
    x.reshape([batch, positions, heads, d / heads])
        .swap_dims(1, 2)
}
