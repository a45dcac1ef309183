//! Tokens in, scores of the next token out.

use burn::module::Module;
use burn::nn::{Embedding, Linear};
use burn::tensor::{Device, Int, Tensor};
use calm_kernels::ArgmaxTable;
use calm_nn::{
    CachedModel, NearTokens, NextToken, OutputLayer, TextBranches, TextCache, Transformer,
};

/// A LLaMA-style token language model on the blocks that the CALM backbone uses.
#[derive(Module, Debug)]
pub struct TokenModel {
    /// Token table `[V, d]`.
    pub embedding: Embedding,
    /// What embeddings take over from the tokens before; published baselines have none.
    pub near: Option<NearTokens>,
    /// The decoder stack.
    pub transformer: Transformer,
    /// Output layer `[d, V]`; where it is missing the embedding table serves.
    pub output: Option<Linear>,
    /// Whether embeddings are scaled ([`calm_nn::embed`]).
    #[module(skip)]
    pub scale_embeddings: bool,
}

impl TokenModel {
    /// Hidden states of whole windows.
    ///
    /// # Shapes
    /// - tokens: `[batch, window]`
    /// - output: `[batch, window, d]`; position i sees tokens 0..=i
    pub fn hidden(&self, tokens: Tensor<2, Int>) -> Tensor<3> {
        self.transformer.forward(self.mix(self.embed(tokens), 0))
    }

    fn embed(&self, tokens: Tensor<2, Int>) -> Tensor<3> {
        calm_nn::embed(&self.embedding, tokens, self.scale_embeddings)
    }

    /// [`NearTokens::forward`], where there are near tokens.
    fn mix(&self, embedded: Tensor<3>, before: usize) -> Tensor<3> {
        match &self.near {
            None => embedded,
            Some(near) => near.forward(embedded, before),
        }
    }

    /// The last layer.
    pub fn output_layer(&self) -> OutputLayer<'_> {
        OutputLayer::new(self.output.as_ref(), &self.embedding)
    }

    /// Mean cross-entropy, in nats, of every token of the windows but the first.
    ///
    /// # Shapes
    /// - tokens: `[batch, window]`
    /// - output: `[1]`
    pub fn loss(&self, tokens: Tensor<2, Int>) -> Tensor<1> {
        let [batch, window] = tokens.dims();
        let rows = batch * (window - 1);
        // The last token of a window is a target only.
        let hidden = self.hidden(tokens.clone().narrow(1, 0, window - 1));
        let d = hidden.dims()[2];
        let targets = tokens.narrow(1, 1, window - 1).reshape([rows]);
        self.output_layer().loss(hidden.reshape([rows, d]), targets)
    }
}

impl CachedModel for TokenModel {
    type Cache = TextCache;

    fn chunk_size(&self) -> usize {
        1
    }

    fn vocab_size(&self) -> usize {
        self.embedding.weight.dims()[0]
    }

    fn cache(&self, batch: usize, capacity: usize, device: &Device) -> TextCache {
        let keys = self.transformer.cache(batch, capacity, device);
        let reach = self.near.as_ref().map_or(0, NearTokens::count);
        TextCache::new(keys, batch, 1, reach, device)
    }

    fn step(&self, tokens: Tensor<3, Int>, fillers: &[usize], cache: &mut TextCache) -> Tensor<3> {
        let tokens = tokens.squeeze_dim::<2>(2);
        let (x, before) = cache.read(tokens, fillers, |tokens| self.embed(tokens));
        let x = self.mix(x, before);
        self.transformer.step(x, fillers, &mut cache.keys)
    }
}

impl NextToken for TokenModel {
    type Branches = TextBranches;

    fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        self.output_layer().logits(hidden)
    }

    fn greedy_table(&self) -> ArgmaxTable {
        self.output_layer().greedy_table()
    }

    fn branch(
        &self,
        tokens: Tensor<1, Int>,
        prefix: &[usize],
        cache: &TextCache,
        branches: &mut TextBranches,
    ) -> Tensor<2> {
        let tokens = tokens.unsqueeze_dim(1);
        let (x, before) = branches.read(tokens, prefix, cache, |tokens| self.embed(tokens));
        let x = self.mix(x, before).swap_dims(0, 1);
        self.transformer
            .branch(x, prefix, &cache.keys, &mut branches.keys)
            .squeeze_dim(0)
    }

    fn branch_scores(&self, cached: usize) -> usize {
        cached * self.transformer.heads()
    }
}
