//! Attention of a few new positions to a cache, as decoding has it.

use burn::backend::{Backend, Dispatch, Flex, backend_extension, tensor::FloatTensor};
use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Tensor, TensorData};
use rayon::prelude::*;

use crate::cpu::simd::{exp, simd, sum};
use crate::cpu::tensor::{Floats, filled, tensor};
use crate::on_flex;

/// Backends that read a cache where it lies; never differentiated.
#[backend_extension(Flex)]
pub trait CachedAttentionOps: Backend {
    /// q `[batch, new, heads * width]`; k, v `[batch, kv_heads, capacity, width]`, of which the
    /// first `held` positions are filled, the new ones last; the first `fillers[b]` are hidden.
    fn calm_cached_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        held: usize,
        fillers: Vec<usize>,
    ) -> FloatTensor<Self>;
}

/// New positions up to which the cache is read in place; more are a matter for matrix products.
const FEW: usize = 8;

/// Causal attention of the last positions of a cache to all that it holds.
///
/// # Shapes
/// - q: `[batch, new, heads * width]`
/// - k, v: `[batch, kv_heads, capacity, width]`, filled up to `held`, the new positions last
/// - fillers: positions at the front of each sequence that are hidden from all others; where a
///   query is one of them itself, its row means nothing
/// - output: `[batch, new, heads * width]`
///
/// # Panics
/// Where the shapes disagree.
pub fn cached_attention(
    q: Tensor<3>,
    k: Tensor<4>,
    v: Tensor<4>,
    held: usize,
    fillers: &[usize],
) -> Tensor<3> {
    let ([batch, new, d], [b, kv_heads, capacity, width]) = (q.dims(), k.dims());
    assert!(
        b == batch && k.dims() == v.dims() && d.is_multiple_of(width * kv_heads),
        "queries {:?}, keys {:?}, values {:?}",
        q.dims(),
        k.dims(),
        v.dims()
    );
    assert!(
        new <= held && held <= capacity,
        "{new} of {held} of {capacity}"
    );
    assert_eq!(fillers.len(), batch, "one filler count per sequence");
    if !on_flex(&q.device()) || q.is_autodiff() || new > FEW {
        return cached_attention_reference(q, k, v, held, fillers);
    }
    let context = <Dispatch as CachedAttentionOps>::calm_cached_attention(
        q.into_dispatch(),
        k.into_dispatch(),
        v.into_dispatch(),
        held,
        fillers.to_vec(),
    );
    Tensor::from_dispatch(context)
}

/// [`cached_attention`] through Burn's attention.
pub fn cached_attention_reference(
    q: Tensor<3>,
    k: Tensor<4>,
    v: Tensor<4>,
    held: usize,
    fillers: &[usize],
) -> Tensor<3> {
    let ([batch, new, d], [_, kv_heads, _, width]) = (q.dims(), k.dims());
    let heads = d / width;
    let device = q.device();
    let q = q.reshape([batch, new, heads, width]).swap_dims(1, 2);
    let filled = |x: Tensor<4>| {
        let x = x.narrow(2, 0, held);
        if heads == kv_heads {
            return x;
        }
        x.unsqueeze_dim::<5>(2)
            .expand([batch, kv_heads, heads / kv_heads, held, width])
            .reshape([batch, heads, held, width])
    };
    let mask = fillers.iter().any(|&filler| filler > 0).then(|| {
        let hidden: Vec<bool> = fillers
            .iter()
            .flat_map(|&filler| (0..new).flat_map(move |_| (0..held).map(move |key| key < filler)))
            .collect();
        Tensor::from_bool(TensorData::new(hidden, [batch, 1, new, held]), &device)
    });
    let options = AttentionModuleOptions {
        is_causal: true,
        ..Default::default()
    };
    attention(q, filled(k), filled(v), mask, None, options)
        .swap_dims(1, 2)
        .reshape([batch, new, d])
}

impl CachedAttentionOps for Flex {
    fn calm_cached_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        held: usize,
        fillers: Vec<usize>,
    ) -> FloatTensor<Self> {
        let [q, k, v] = [q, k, v].map(Floats::new);
        let (new, d, width) = (q.shape()[1], q.width(), k.width());
        let (kv_heads, capacity) = (k.shape()[1], k.shape()[2]);
        let (heads, group) = (d / width, d / width / kv_heads);
        let row = |b: usize, i: usize, h: usize, out: &mut [f32]| {
            let seen = fillers[b]..held - new + i + 1;
            if seen.is_empty() {
                return out.fill(0.0);
            }
            let at = (b * kv_heads + h / group) * capacity;
            let part = (at + seen.start) * width..(at + seen.end) * width;
            let q = &q[(b * new + i) * d + h * width..][..width];
            attend(q, &k[part.clone()], &v[part], out);
        };
        let out = filled(q.len(), |out| {
            let work = out.len() * held;
            let each = |(at, out): (usize, &mut [f32])| {
                row(at / (new * heads), at / heads % new, at % heads, out);
            };
            if work < 1 << 18 {
                out.chunks_exact_mut(width).enumerate().for_each(each);
            } else {
                out.par_chunks_exact_mut(width).enumerate().for_each(each);
            }
        });
        tensor(out, q.shape().clone())
    }
}

simd! {
    // One query and head: keys and values of all positions that it sees, side by side.
    fn attend(q: &[f32], k: &[f32], v: &[f32], out: &mut [f32]) {
        let width = q.len();
        let scale = 1.0 / (width as f32).sqrt();
        let mut scores: Vec<f32> = Vec::with_capacity(k.len() / width);
        let mut top = f32::NEG_INFINITY;
        for k in k.chunks_exact(width) {
            let score = sum(width, |j| q[j] * k[j]) * scale;
            top = if score > top { score } else { top };
            scores.push(score);
        }
        for score in scores.iter_mut() {
            *score = exp(*score - top);
        }
        let weight = 1.0 / sum(scores.len(), |j| scores[j]);
        out.fill(0.0);
        for (v, score) in v.chunks_exact(width).zip(&scores) {
            for (out, v) in out.iter_mut().zip(v) {
                *out += score * v;
            }
        }
        for out in out.iter_mut() {
            *out *= weight;
        }
    }
}
