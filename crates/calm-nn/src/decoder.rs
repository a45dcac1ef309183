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

    /// The most likely token at each position.
    ///
    /// # Shapes
    /// - latent: `[chunks, l]`
    /// - output: `[chunks, K]`
    fn decode(&self, latent: Tensor<2>) -> Tensor<2, Int>;
}
