//! Causal attention under autodiff.

use burn::backend::autodiff::{
    Autodiff,
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn::backend::{AutodiffBackend, Backend, tensor::FloatTensor};

use super::AttentionOps;

#[derive(Debug)]
struct Attention;

#[derive(Clone, Debug)]
struct State<B: Backend> {
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    context: FloatTensor<B>,
    log_sums: FloatTensor<B>,
    heads: usize,
    kv_heads: usize,
}

impl<B: Backend + AttentionOps> Backward<B, 3> for Attention {
    type State = State<B>;

    fn backward(
        self,
        ops: Ops<Self::State, 3>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let s = ops.state;
        let grad = grads.consume::<B>(&ops.node);
        let (dq, dk, dv) = B::calm_attention_backward(
            s.q, s.k, s.v, s.context, s.log_sums, grad, s.heads, s.kv_heads,
        );
        for (node, grad) in ops.parents.into_iter().zip([dq, dk, dv]) {
            if let Some(node) = node {
                grads.register::<B>(node.id, grad);
            }
        }
    }
}

impl<B: Backend + AttentionOps, C: CheckpointStrategy> AttentionOps for Autodiff<B, C> {
    fn calm_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        heads: usize,
        kv_heads: usize,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let parents = [q.node(), k.node(), v.node()];
        let (q, k, v) = (q.into_primitive(), k.into_primitive(), v.into_primitive());
        let (context, log_sums) =
            B::calm_attention(q.clone(), k.clone(), v.clone(), heads, kv_heads);
        let context = match Attention.prepare::<C>(parents).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let state = State {
                    q,
                    k,
                    v,
                    context: context.clone(),
                    log_sums: log_sums.clone(),
                    heads,
                    kv_heads,
                };
                prep.finish(state, context)
            }
            OpsKind::UnTracked(prep) => prep.finish(context),
        };
        (context, Self::from_inner(log_sums))
    }

    fn calm_attention_backward(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: usize,
        _: usize,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        crate::first_order()
    }
}
