//! Attention of new positions to a cache, as decoding has it.

use std::ops::Range;

use burn::backend::{Backend, Dispatch, Flex, backend_extension, tensor::FloatTensor};
use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Tensor, TensorData};
use rayon::prelude::*;

use super::tile::{self, Space, Tile};
use crate::cpu::tensor::{Floats, filled, tensor};
use crate::linear::matmul_precision;
use crate::on_flex;
use calm_gemm::Mat;
use calm_gemm::Shared;

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

/// Products of a query's numbers with those of keys from which on heads are shared out.
const PARALLEL_FROM: usize = 1 << 18;

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
    if !on_flex(&q.device()) || q.is_autodiff() {
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
        let (batch, new, d, width) = (q.shape()[0], q.shape()[1], q.width(), k.width());
        let (kv_heads, capacity) = (k.shape()[1], k.shape()[2]);
        let (heads, group) = (d / width, d / width / kv_heads);
        let precision = matmul_precision();
        // Queries that are fillers themselves come first, and see nothing.
        let first = |b: usize| (fillers[b] + new).saturating_sub(held).min(new);
        let tiles: Vec<_> = (0..batch * heads)
            .flat_map(|bh| {
                let first = first(bh / heads);
                tile::queries(new - first)
                    .map(move |rows| (bh, first + rows.start..first + rows.end))
            })
            .collect();
        let out = filled(q.len(), |out| {
            for (b, out) in out.chunks_exact_mut((new * d).max(1)).enumerate() {
                out[..first(b) * d].fill(0.0);
            }
            let out = Shared::new(out);
            let attend = |space: &mut Space, (bh, rows): (usize, Range<usize>)| {
                let (b, h) = (bh / heads, bh % heads);
                let first = (b * new + rows.start) * d + h * width;
                let seen = fillers[b]..held - new + rows.end;
                let start = (b * kv_heads + h / group) * capacity + seen.start;
                let part = start * width..(start + seen.len()) * width;
                space.attend(&Tile {
                    q: Mat::strided(&q[first..], [rows.len(), width], [d, 1]),
                    k: Mat::new(&k[part.clone()], seen.len(), width),
                    v: Mat::new(&v[part], seen.len(), width),
                    precision,
                });
                // SAFETY: the rows of this head and tile are this task's alone.
                unsafe { space.write(out, first, d) };
            };
            if q.len() * held < PARALLEL_FROM {
                let mut space = Space::default();
                tiles.into_iter().for_each(|tile| attend(&mut space, tile));
            } else {
                tiles.into_par_iter().for_each_init(Space::default, attend);
            }
        });
        tensor(out, q.shape().clone())
    }
}
