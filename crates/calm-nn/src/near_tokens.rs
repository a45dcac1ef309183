//! Embeddings that know the tokens before them, and the token ids that cached decoding keeps for it.

use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::Init;

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

/// All token ids of texts that are being read, `[batch, capacity]`, written in place.
#[derive(Clone, Debug)]
pub struct TokenHistory {
    tokens: Option<Tensor<2, Int>>,
}

impl TokenHistory {
    /// Room for `capacity` tokens of `batch` texts.
    pub fn new(batch: usize, capacity: usize, device: &Device) -> Self {
        Self {
            tokens: Some(Tensor::zeros([batch, capacity], device)),
        }
    }

    /// Writes tokens `[batch, new]` behind the first `len`.
    pub fn write(&mut self, len: usize, tokens: Tensor<2, Int>) {
        let [batch, new] = tokens.dims();
        // Taken out of its slot, the buffer has one owner and is written in place.
        let held = self.tokens.take().expect("the buffer of tokens");
        self.tokens = Some(held.slice_assign([0..batch, len..len + new], tokens));
    }

    /// Tokens `first..first + count` of every text, `[batch, count]`.
    pub fn range(&self, first: usize, count: usize) -> Tensor<2, Int> {
        self.all().narrow(1, first, count)
    }

    /// The token at each place of `at` of the only text, `[places]`.
    pub fn at(&self, at: impl Iterator<Item = usize>) -> Tensor<1, Int> {
        let at: Vec<i64> = at.map(|i| i as i64).collect();
        let all = self.all();
        let at = Tensor::from_ints(at.as_slice(), &all.device());
        all.select(1, at).squeeze_dim(0)
    }

    fn all(&self) -> Tensor<2, Int> {
        self.tokens.clone().expect("the buffer of tokens")
    }
}

/// `x` with zeros in place of the rows that are not kept. They must be finite.
///
/// # Shapes
/// - x: `[batch, positions, d]`
/// - keep: of every row, `batch * positions` in order
pub fn keep_rows(x: Tensor<3>, keep: impl Iterator<Item = bool>) -> Tensor<3> {
    let ([batch, positions, _], device) = (x.dims(), x.device());
    let keep: Vec<f32> = keep.map(f32::from).collect();
    let keep = TensorData::new(keep, [batch, positions, 1]);
    x * Tensor::<3>::from_data(keep, &device)
}
