//! Attention of new positions to a cache, as decoding has it.

use std::ops::Range;

use burn::backend::{Backend, Dispatch, Flex, backend_extension, tensor::FloatTensor};
use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Tensor, TensorData};
use rayon::prelude::*;

use super::tile::{self, Keys, Part, Space, Tile};
use super::{Band, LocalKeys};
use crate::cpu::tensor::{Floats, filled, tensor};
use crate::linear::matmul_precision;
use crate::on_flex;
use calm_gemm::Mat;
use calm_gemm::Shared;

/// Backends that read a cache where it lies; never differentiated.
#[backend_extension(Flex)]
pub trait CachedAttentionOps: Backend {
    /// q `[batch, new, heads * width]`; k, v `[batch, kv_heads, capacity, width]`, of which the
    /// rows are tokens from position `first` on and `held` are filled, the new ones last; the first
    /// `memories` rows of `memory_k`, `memory_v`, shaped alike, stand for chunks of tokens. Who sees
    /// what is [`super::AttentionOps`]'s; the first `fillers[b]` positions are hidden.
    #[allow(clippy::too_many_arguments)]
    fn calm_cached_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        memory_k: FloatTensor<Self>,
        memory_v: FloatTensor<Self>,
        first: usize,
        held: usize,
        window: usize,
        memories: usize,
        chunk: usize,
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
    let keys = LocalKeys {
        tokens: (k, v),
        first: 0,
        held,
        memory: None,
    };
    let band = Band {
        window: held,
        chunk: 1,
    };
    attend(q, keys, 0, fillers, band)
}

/// The kernel, with so many memories.
pub(super) fn attend(
    q: Tensor<3>,
    keys: LocalKeys,
    memories: usize,
    fillers: &[usize],
    band: Band,
) -> Tensor<3> {
    // Of no memory nothing is read.
    let memory = keys.memory.unwrap_or_else(|| keys.tokens.clone());
    let context = <Dispatch as CachedAttentionOps>::calm_cached_attention(
        q.into_dispatch(),
        keys.tokens.0.into_dispatch(),
        keys.tokens.1.into_dispatch(),
        memory.0.into_dispatch(),
        memory.1.into_dispatch(),
        keys.first,
        keys.held,
        band.window,
        memories,
        band.chunk,
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

/// Rows of a head in a buffer `[batch, kv_heads, capacity, width]`, as a matrix.
fn cached_rows(x: &Floats, head: usize, rows: Range<usize>) -> Mat<'_> {
    let (capacity, width) = (x.shape()[2], x.width());
    let first = head * capacity + rows.start;
    let numbers = first * width..(first + rows.len()) * width;
    Mat::new(&x[numbers], rows.len(), width)
}

impl CachedAttentionOps for Flex {
    fn calm_cached_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        memory_k: FloatTensor<Self>,
        memory_v: FloatTensor<Self>,
        first: usize,
        held: usize,
        window: usize,
        memories: usize,
        chunk: usize,
        fillers: Vec<usize>,
    ) -> FloatTensor<Self> {
        let [q, k, v, memory_k, memory_v] = [q, k, v, memory_k, memory_v].map(Floats::new);
        let (batch, new, d, width) = (q.shape()[0], q.shape()[1], q.width(), k.width());
        let kv_heads = k.shape()[1];
        let (heads, group) = (d / width, d / width / kv_heads);
        let precision = matmul_precision();
        let end = first + held;
        let start = end - new;
        // Queries that are fillers themselves come first, and see nothing.
        let seeing = |b: usize| fillers[b].clamp(start, end);
        let tiles: Vec<_> = (0..batch * heads)
            .flat_map(|bh| tile::queries(seeing(bh / heads)..end).map(move |rows| (bh, rows)))
            .collect();
        let out = filled(q.len(), |out| {
            for (b, out) in out.chunks_exact_mut((new * d).max(1)).enumerate() {
                out[..(seeing(b) - start) * d].fill(0.0);
            }
            let out = Shared::new(out);
            let attend = |space: &mut Space, (bh, rows): (usize, Range<usize>)| {
                let (b, h) = (bh / heads, bh % heads);
                let part = |keys: Keys, k, v, from: usize| {
                    let head = b * kv_heads + h / group;
                    let rows = keys.held.start - from..keys.held.end - from;
                    Part {
                        k: cached_rows(k, head, rows.clone()),
                        v: cached_rows(v, head, rows),
                        keys,
                    }
                };
                let hidden = (fillers[b] / chunk).min(memories);
                let chunks = Keys::memories(hidden..memories, chunk);
                let tokens = Keys::tokens(fillers[b].max(first)..end, window);
                let parts = [
                    part(chunks, &memory_k, &memory_v, 0),
                    part(tokens, &k, &v, first),
                ];
                let row = (b * new + rows.start - start) * d + h * width;
                space.attend(&Tile {
                    q: Mat::strided(&q[row..], [rows.len(), width], [d, 1]),
                    first: rows.start,
                    parts: &parts,
                    precision,
                });
                // SAFETY: the rows of this head and tile are this task's alone.
                unsafe { space.write(out, row, d) };
            };
            let seen = memories + held.min(window + new);
            if q.len() * seen < PARALLEL_FROM {
                let mut space = Space::default();
                tiles.into_iter().for_each(|tile| attend(&mut space, tile));
            } else {
                tiles.into_par_iter().for_each_init(Space::default, attend);
            }
        });
        tensor(out, q.shape().clone())
    }
}
