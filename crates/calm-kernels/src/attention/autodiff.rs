//! Attention under autodiff.

use burn::backend::autodiff::{Autodiff, checkpoint::strategy::CheckpointStrategy};
use burn::backend::{AutodiffBackend, Backend, tensor::FloatTensor};

use super::AttentionOps;
use crate::autodiff::{first_order, record};

impl<B: Backend + AttentionOps, C: CheckpointStrategy> AttentionOps for Autodiff<B, C> {
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
        let inputs = [q.node(), k.node(), v.node()];
        let [q, k, v] = [q, k, v].map(|x| x.into_primitive());
        let (context, log_sums) = B::calm_attention(
            q.clone(),
            k.clone(),
            v.clone(),
            heads,
            kv_heads,
            window,
            memories,
            chunk,
        );
        let of_sums = log_sums.clone();
        let context = record::<B, C, _, 3>(
            inputs,
            |keep| {
                let tensors = || [q, k, v, context.clone(), of_sums];
                let saved = keep.then(|| (tensors(), [heads, kv_heads, window, memories, chunk]));
                (context, saved)
            },
            |([q, k, v, context, log_sums], sizes), grad, _| {
                let [heads, kv_heads, window, memories, chunk] = sizes;
                let (dq, dk, dv) = B::calm_attention_backward(
                    q, k, v, context, log_sums, grad, heads, kv_heads, window, memories, chunk,
                );
                [dq, dk, dv].map(Some)
            },
        );
        (context, Self::from_inner(log_sums))
    }

    first_order! {
        calm_attention_backward(
            FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>,
            FloatTensor<Self>, FloatTensor<Self>, usize, usize, usize, usize, usize,
        ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
    }
}
