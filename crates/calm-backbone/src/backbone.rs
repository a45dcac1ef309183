//! Chunks in, hidden states out.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use calm_nn::{Branches, CachedModel, KvCache, Transformer};

use crate::ChunkCompressor;

/// Chunk compression and a causal transformer: the hidden state of step i predicts the vector of
/// chunk i + 1.
#[derive(Module, Debug)]
pub struct Backbone {
    /// Tokens of a chunk to one vector.
    pub compressor: ChunkCompressor,
    /// The decoder stack.
    pub transformer: Transformer,
}

impl Backbone {
    /// Hidden states of whole windows.
    ///
    /// # Shapes
    /// - tokens: `[batch, steps, K]`
    /// - output: `[batch, steps, d]`
    pub fn forward(&self, tokens: Tensor<3, Int>) -> Tensor<3> {
        self.transformer.forward(self.compressor.forward(tokens))
    }

    /// Hidden states after many alternative next chunks of one cached sequence (see
    /// [`Transformer::branch`]).
    ///
    /// # Shapes
    /// - tokens: `[queries, K]`, the chunk at step `prefix[q]` plus the steps taken before
    /// - output: `[queries, d]`
    pub fn branch(
        &self,
        tokens: Tensor<2, Int>,
        prefix: &[usize],
        cache: &KvCache,
        branches: &mut Branches,
    ) -> Tensor<2> {
        let x = self.compressor.forward(tokens.unsqueeze_dim(0));
        self.transformer
            .branch(x, prefix, cache, branches)
            .squeeze_dim(0)
    }
}

impl CachedModel for Backbone {
    fn chunk_size(&self) -> usize {
        self.compressor.chunk_size()
    }

    fn vocab_size(&self) -> usize {
        self.compressor.embedding.weight.dims()[0]
    }

    fn cache(&self, batch: usize, capacity: usize, device: &Device) -> KvCache {
        self.transformer.cache(batch, capacity, device)
    }

    fn step(&self, tokens: Tensor<3, Int>, fillers: &[usize], cache: &mut KvCache) -> Tensor<3> {
        self.transformer
            .step(self.compressor.forward(tokens), fillers, cache)
    }
}
