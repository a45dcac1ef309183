//! What crates that don't know each other speak through.

use burn::tensor::{Int, Tensor};

/// Longest n-gram that a Brier score is taken of: BrierLM has n = 1 to 4.
pub const MAX_N: usize = 4;

/// What a part of a model costs; implemented by configurations, so that nothing has to be built.
///
/// One FLOP count is `2 * MACs`. Norms, activations and softmax are left out, as everywhere in
/// the field. Checked against the real parameter counts in tests.
pub trait Cost {
    /// Trainable parameters.
    fn parameters(&self) -> u64;

    /// Multiply-accumulates of the forward pass for one position with `context` positions of
    /// attention.
    fn forward_macs(&self, context: usize) -> u64;

    /// Bytes of the key/value cache per position (f32); 0 where there is no cache.
    fn cache_bytes(&self) -> u64 {
        0
    }
}

/// An autoencoder as losses and samplers see it: turns latent vectors into the tokens of their chunks.
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
