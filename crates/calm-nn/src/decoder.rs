//! The trait through which losses and samplers see an autoencoder.

use burn::tensor::{Int, Tensor};

/// Turns latent vectors into the tokens of their chunks.
pub trait ChunkDecoder {
    /// Tokens per chunk, K.
    fn chunk_size(&self) -> usize;

    /// Scores of all tokens at all K positions of each chunk.
    ///
    /// # Shapes
    /// - latent: `[chunks, l]`
    /// - output: `[chunks, K, V]`
    fn logits(&self, latent: Tensor<2>) -> Tensor<3>;

    /// Tokens in the vocabulary, V.
    fn vocab_size(&self) -> usize;

    /// The most likely token at each position, made in slices so that the scores of a large pool
    /// never stand in memory at once.
    ///
    /// # Shapes
    /// - latent: `[chunks, l]`
    /// - output: `[chunks, K]`
    fn decode(&self, latent: Tensor<2>) -> Tensor<2, Int> {
        let [chunks, _] = latent.dims();
        let rows = (SCORES_AT_ONCE / (self.chunk_size() * self.vocab_size())).max(1);
        let best = |z: Tensor<2>| self.logits(z).argmax(2).squeeze_dim::<2>(2);
        if chunks <= rows {
            return best(latent);
        }
        Tensor::cat(latent.split(rows, 0).into_iter().map(best).collect(), 0)
    }
}

/// Scores that [`ChunkDecoder::decode`] makes at once: 64 MiB of f32.
const SCORES_AT_ONCE: usize = 1 << 24;
