//! Causal attention under autodiff.

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
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let inputs = [q.node(), k.node(), v.node()];
        let [q, k, v] = [q, k, v].map(|x| x.into_primitive());
        let (context, log_sums) =
            B::calm_attention(q.clone(), k.clone(), v.clone(), heads, kv_heads);
        let of_sums = log_sums.clone();
        let context = record::<B, C, _, 3>(
            inputs,
            |keep| {
                let saved = keep.then(|| ([q, k, v, context.clone(), of_sums], [heads, kv_heads]));
                (context, saved)
            },
            |([q, k, v, context, log_sums], [heads, kv_heads]), grad, _| {
                let (dq, dk, dv) =
                    B::calm_attention_backward(q, k, v, context, log_sums, grad, heads, kv_heads);
                [dq, dk, dv].map(Some)
            },
        );
        (context, Self::from_inner(log_sums))
    }

    first_order! {
        calm_attention_backward(
            FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>,
            FloatTensor<Self>, FloatTensor<Self>, usize, usize,
        ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
    }
}
