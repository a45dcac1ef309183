//! Embeddings that know the tokens before them.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use crate::{Init, PartMemory, f32_bytes, id_bytes};

/// What training holds of the embeddings of some tokens, with those of `near` tokens before each added; a
/// `tied` table counts where it is the output layer ([`crate::cross_entropy_memory`]).
pub fn embedding_memory(
    tokens: usize,
    vocab: usize,
    d: usize,
    near: usize,
    tied: bool,
) -> PartMemory {
    let table = f32_bytes(vocab * d);
    let of = |width: usize| f32_bytes(tokens * width);
    PartMemory {
        parameters: f32_bytes(near * d) + if tied { 0 } else { table },
        largest: table,
        // Shifted windows are views of one padded tensor.
        kept: id_bytes(tokens) + of(if near > 0 { d } else { 0 }),
        forward: of(if near > 0 { 3 * d } else { d }),
        backward: of(if near > 0 { 3 * d } else { d }) + table,
    }
}

/// Adds to each token's embedding those of the `n` tokens before it, each times a weight per channel:
/// `x_t = e_t + sum_{j = 1..n} w_j * e_{t-j}`, a causal depthwise convolution over embeddings.
///
/// The weights begin at zero. With it a single layer of attention can look for what followed the
/// last few tokens earlier in the text, which otherwise takes two. (Relatives: the depthwise
/// convolutions of Primer, arXiv 2109.08668; the token shift of RWKV, arXiv 2305.13048.) It has
/// `n * d` weights and as many multiply-adds a token, and what it needs of a text that goes on are
/// token ids alone.
#[derive(Module, Debug)]
pub struct NearTokens {
    /// Weights `[n, d]`, those of the token just before first.
    pub weights: Param<Tensor<2>>,
}

impl NearTokens {
    /// Of `n` tokens and embeddings `d` wide; none where `n` is 0.
    pub fn new(n: usize, d: usize, init: &Init<'_>) -> Option<Self> {
        (n > 0).then(|| Self {
            weights: Param::from_tensor(Tensor::zeros([n, d], init.device())),
        })
    }

    /// Tokens before each that are added to it, n.
    pub fn count(&self) -> usize {
        self.weights.dims()[0]
    }

    /// The embeddings of all but the first `before` tokens, which are only added to those after
    /// them. A text begins where the tokens do, or after tokens whose embeddings are zero.
    ///
    /// # Shapes
    /// - embedded: `[batch, before + positions, d]`
    /// - output: `[batch, positions, d]`
    pub fn forward(&self, embedded: Tensor<3>, before: usize) -> Tensor<3> {
        let [batch, given, d] = embedded.dims();
        let (n, positions) = (self.count(), given - before);
        let weights = self.weights.val();
        // Every shift is a window of one padded tensor.
        let missing = n.saturating_sub(before);
        let padded = match missing {
            0 => embedded,
            _ => {
                let nothing = Tensor::zeros([batch, missing, d], &embedded.device());
                Tensor::cat(vec![nothing, embedded], 1)
            }
        };
        let own = missing + before;
        let shifted = |j: usize| padded.clone().narrow(1, own - j, positions);
        (1..=n).fold(shifted(0), |sum, j| {
            let weight = weights.clone().narrow(0, j - 1, 1).unsqueeze_dim::<3>(0);
            sum + shifted(j) * weight
        })
    }
}
