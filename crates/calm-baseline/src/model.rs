//! Tokens in, scores of the next token out.

use burn::module::Module;
use burn::nn::{Embedding, Linear};
use burn::tensor::{Device, Int, Tensor};
use calm_kernels::ArgmaxTable;
use calm_nn::{
    Branches, CachedModel, KvCache, NearTokens, NextToken, OutputLayer, StepCache, TokenHistory,
    Transformer, keep_rows,
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

    /// Tokens before each that its embedding is made from.
    fn near_tokens(&self) -> usize {
        self.near.as_ref().map_or(0, NearTokens::count)
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

/// What a [`TokenModel`] keeps of the texts that it has read.
#[derive(Clone, Debug)]
pub struct TokenCache {
    keys: KvCache,
    /// Where embeddings take over from tokens before.
    tokens: Option<TokenHistory>,
}

impl StepCache for TokenCache {
    fn len(&self) -> usize {
        self.keys.len()
    }

    fn room(&self) -> usize {
        self.keys.room()
    }

    fn truncate(&mut self, len: usize) -> usize {
        self.keys.truncate(len)
    }
}

impl CachedModel for TokenModel {
    type Cache = TokenCache;

    fn chunk_size(&self) -> usize {
        1
    }

    fn vocab_size(&self) -> usize {
        self.embedding.weight.dims()[0]
    }

    fn cache(&self, batch: usize, capacity: usize, device: &Device) -> TokenCache {
        let tokens = self.near.as_ref();
        TokenCache {
            keys: self.transformer.cache(batch, capacity, device),
            tokens: tokens.map(|_| TokenHistory::new(batch, capacity, device)),
        }
    }

    fn step(&self, tokens: Tensor<3, Int>, fillers: &[usize], cache: &mut TokenCache) -> Tensor<3> {
        let tokens = tokens.squeeze_dim::<2>(2);
        let ([batch, new], read) = (tokens.dims(), cache.len());
        let x = match &mut cache.tokens {
            None => self.embed(tokens),
            Some(history) => {
                history.write(read, tokens);
                let before = self.near_tokens().min(read);
                let first = read - before;
                let x = self.embed(history.range(first, before + new));
                let x = match fillers.iter().any(|&fillers| fillers > first) {
                    false => x,
                    // What stands before a text is no part of it.
                    true => {
                        let own = (0..batch).flat_map(|text| {
                            let fillers = fillers[text];
                            (first..read + new).map(move |t| t >= fillers)
                        });
                        keep_rows(x, own)
                    }
                };
                self.mix(x, before)
            }
        };
        self.transformer.step(x, fillers, &mut cache.keys)
    }
}

/// What alternative continuations of one cached text keep.
#[derive(Debug, Default)]
pub struct TokenBranches {
    keys: Branches,
    /// Their own tokens, each `[queries]`, where embeddings take over from tokens before.
    tokens: Vec<Tensor<1, Int>>,
}

impl NextToken for TokenModel {
    type Branches = TokenBranches;

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
        cache: &TokenCache,
        branches: &mut TokenBranches,
    ) -> Tensor<2> {
        let x = match &cache.tokens {
            None => self.embed(tokens.unsqueeze_dim(0)),
            Some(history) => {
                branches.tokens.push(tokens);
                let (n, taken) = (self.near_tokens(), branches.tokens.len());
                let fed = taken.min(n + 1);
                // Of the text before the branch, as far as it reaches back.
                let columns = (1..=n + 1 - fed)
                    .rev()
                    .map(|back| history.at(prefix.iter().map(move |p| p.saturating_sub(back))));
                let own = branches.tokens[taken - fed..].iter().cloned();
                let columns = columns.chain(own).map(|ids| ids.unsqueeze_dim::<2>(1));
                let x = self.embed(Tensor::cat(columns.collect(), 1));
                let within = prefix.iter().flat_map(|&p| {
                    let start = (p + taken) as isize - (n + 1) as isize;
                    (0..=n as isize).map(move |i| start + i >= 0)
                });
                self.mix(keep_rows(x, within), n).swap_dims(0, 1)
            }
        };
        self.transformer
            .branch(x, prefix, &cache.keys, &mut branches.keys)
            .squeeze_dim(0)
    }

    fn branch_scores(&self, cached: usize) -> usize {
        cached * self.transformer.heads()
    }
}
