//! Self-attention of whole sequences, causal or within a band, with a backward pass that stores no
//! scores.

mod autodiff;
mod cached;
mod cpu;
#[cfg(feature = "cube")]
mod cube;
mod flex;
mod local;
mod tile;

#[cfg(feature = "cube")]
use burn::backend::fusion::custom::TensorSpec;
use burn::backend::{Backend, Dispatch, backend_extension, tensor::FloatTensor};
use burn::tensor::{Tensor, activation::softmax};

use crate::has_kernel;

/// Backends with fused attention. q is `[batch, positions, heads * width]`, k and v
/// `[batch, memories + positions, kv_heads * width]`: in front of its tokens' keys a sequence may have
/// those of chunks. Position t sees tokens `t + 1 - window ..= t` and memories
/// `0 .. (t + 1) / chunk`, as many of both as there are; the scores are scaled by `1 / sqrt(width)`.
#[backend_extension(
    Flex,
    Cube: cfg(feature = "cube"),
    Fusion: cfg(feature = "cube"),
    Autodiff
)]
pub trait AttentionOps: Backend {
    /// The context, and the logarithm of every row's sum of exponentials,
    /// `[batch, heads, positions]`.
    #[allow(clippy::too_many_arguments)]
    #[fusion(meta = forward_shapes)]
    fn calm_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        heads: usize,
        kv_heads: usize,
        window: usize,
        memories: usize,
        chunk: usize,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// The gradients of q, k and v.
    #[allow(clippy::too_many_arguments)]
    #[fusion(meta = |q, k, v, _, _, _, _, _, _, _, _| (q.clone(), k.clone(), v.clone()))]
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
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

/// Context and log sums.
#[cfg(feature = "cube")]
fn forward_shapes(
    q: &TensorSpec,
    _: &TensorSpec,
    _: &TensorSpec,
    heads: &usize,
    _: &usize,
    _: &usize,
    _: &usize,
    _: &usize,
) -> (TensorSpec, TensorSpec) {
    let log_sums = [q.shape[0], *heads, q.shape[1]];
    (q.clone(), TensorSpec::new(log_sums.into(), q.dtype))
}

pub use cached::{cached_attention, cached_attention_reference};
pub use local::{
    Band, LocalKeys, cached_local_attention, cached_local_attention_reference, local_attention,
    local_attention_reference,
};

/// Causal attention with grouped key/value heads: position i sees positions 0..=i.
///
/// Scores are made in tiles and never stored, in training too; the backward pass makes them again
/// (Dao et al., FlashAttention).
///
/// # Shapes
/// - q: `[batch, positions, heads * width]`
/// - k, v: `[batch, positions, kv_heads * width]`
/// - output: that of q
///
/// # Panics
/// Where the shapes disagree.
pub fn causal_attention(
    q: Tensor<3>,
    k: Tensor<3>,
    v: Tensor<3>,
    heads: usize,
    kv_heads: usize,
) -> Tensor<3> {
    check(&q, [&k, &v], heads, kv_heads);
    if !has_kernel(&q) {
        return causal_attention_reference(q, k, v, heads, kv_heads);
    }
    let band = Band {
        window: q.dims()[1],
        chunk: 1,
    };
    attend(q, k, v, [heads, kv_heads], band, 0)
}

/// Whether the shapes of queries and of their own keys and values agree.
fn check(q: &Tensor<3>, kv: [&Tensor<3>; 2], heads: usize, kv_heads: usize) {
    let [batch, positions, d] = q.dims();
    assert!(
        d.is_multiple_of(heads) && heads.is_multiple_of(kv_heads),
        "{heads} heads of {d} columns share {kv_heads}"
    );
    let expected = [batch, positions, d / heads * kv_heads];
    assert_eq!(kv.map(|x| x.dims()), [expected; 2], "keys and values");
}

/// The kernel, with the keys of so many memories in front of the tokens'.
fn attend(
    q: Tensor<3>,
    k: Tensor<3>,
    v: Tensor<3>,
    [heads, kv_heads]: [usize; 2],
    band: Band,
    memories: usize,
) -> Tensor<3> {
    let positions = q.dims()[1];
    let (context, _) = <Dispatch as AttentionOps>::calm_attention(
        q.into_dispatch(),
        k.into_dispatch(),
        v.into_dispatch(),
        heads,
        kv_heads,
        band.window.min(positions),
        memories,
        band.chunk,
    );
    Tensor::from_dispatch(context)
}

/// [`causal_attention`] in plain tensor operations; stores all scores.
pub fn causal_attention_reference(
    q: Tensor<3>,
    k: Tensor<3>,
    v: Tensor<3>,
    heads: usize,
    kv_heads: usize,
) -> Tensor<3> {
    let [batch, positions, d] = q.dims();
    let width = d / heads;
    let split =
        |x: Tensor<3>, heads: usize| x.reshape([batch, positions, heads, width]).swap_dims(1, 2);
    let repeat = |x: Tensor<3>| {
        split(x, kv_heads)
            .unsqueeze_dim::<5>(2)
            .expand([batch, kv_heads, heads / kv_heads, positions, width])
            .reshape([batch, heads, positions, width])
    };
    let hidden = Tensor::<2>::ones([positions, positions], &q.device())
        .triu(1)
        .greater_scalar(0.5)
        .unsqueeze::<4>()
        .expand([batch, heads, positions, positions]);
    let scores = split(q, heads).matmul(repeat(k).transpose()) / (width as f64).sqrt();
    let weights = softmax(scores.mask_fill(hidden, f32::NEG_INFINITY), 3);
    weights
        .matmul(repeat(v))
        .swap_dims(1, 2)
        .reshape([batch, positions, d])
}
