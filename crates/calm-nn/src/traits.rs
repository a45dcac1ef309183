//! What every part of a model has: a cost; and how far scores look ahead.

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
