//! Attention on the CPU executor.

use burn::backend::{Flex, tensor::FloatTensor};

use super::{AttentionOps, cpu};
use crate::cpu::tensor::{Floats, filled, tensor};
use crate::linear::matmul_precision;

fn sizes(q: &Floats, [heads, kv_heads, window, memories, chunk]: [usize; 5]) -> cpu::Sizes {
    cpu::Sizes {
        batch: q.shape()[0],
        positions: q.shape()[1],
        heads,
        kv_heads,
        width: q.width() / heads,
        window,
        memories,
        chunk,
        precision: matmul_precision(),
    }
}

impl AttentionOps for Flex {
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
        let (q, k, v) = (Floats::new(q), Floats::new(k), Floats::new(v));
        let sizes = sizes(&q, [heads, kv_heads, window, memories, chunk]);
        let mut log_sums = Vec::new();
        let out = filled(q.len(), |out| {
            log_sums = cpu::forward(&q, &k, &v, sizes, out)
        });
        (
            tensor(out, q.shape().clone()),
            tensor(log_sums, [sizes.batch, heads, sizes.positions]),
        )
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
        let [q, k, v, context, log_sums, grad] =
            [q, k, v, context, log_sums, grad].map(Floats::new);
        let sizes = sizes(&q, [heads, kv_heads, window, memories, chunk]);
        let saved = cpu::Saved {
            q: &q,
            k: &k,
            v: &v,
            context: &context,
            log_sums: &log_sums,
            grad: &grad,
        };
        let (mut dk, mut dv) = (vec![0.0; k.len()], vec![0.0; v.len()]);
        let dq = filled(q.len(), |dq| {
            cpu::backward(&saved, sizes, dq, &mut dk, &mut dv);
        });
        (
            tensor(dq, q.shape().clone()),
            tensor(dk, k.shape().clone()),
            tensor(dv, v.shape().clone()),
        )
    }
}
