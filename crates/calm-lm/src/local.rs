//! A backbone over chunks with a local decoder over tokens: next-vector prediction with an exact
//! likelihood. Not CALM's method; see [`calm_local_decoder`].

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use calm_backbone::Backbone;
use calm_kernels::ArgmaxTable;
use calm_local_decoder::{Chunks, LocalBranches, LocalCache, LocalDecoder};
use calm_nn::{
    BranchTokens, Branches, CachedModel, KvCache, NextToken, StepCache, TokenHistory, keep_rows,
};

/// A backbone whose states a local decoder turns into tokens, trained end to end by cross-entropy.
#[derive(Module, Debug)]
pub struct LocalModel {
    /// Chunks to states; the state after chunk i predicts the vector of chunk i + 1.
    pub backbone: Backbone,
    /// Vectors and near tokens to the next token.
    pub decoder: LocalDecoder,
}

impl LocalModel {
    /// Hidden states of whole windows: that of position t holds what is known of token t + 1.
    ///
    /// # Shapes
    /// - tokens: `[batch, positions]`, read from position 0 on, where a chunk begins
    /// - output: `[batch, positions, d]` of the local decoder
    pub fn hidden(&self, tokens: Tensor<2, Int>) -> Tensor<3> {
        let [batch, positions] = tokens.dims();
        let k = self.decoder.chunk_size();
        let whole = positions / k;
        if whole == 0 {
            return self.decoder.forward(tokens, None);
        }
        let chunks = tokens.clone().narrow(1, 0, whole * k);
        let inputs = self
            .backbone
            .compressor
            .forward(chunks.reshape([batch, whole, k]));
        let states = self.backbone.transformer.forward(inputs.clone());
        self.decoder
            .forward(tokens, Some(&Chunks { inputs, states }))
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
        let layer = self.decoder.output_layer();
        layer.loss(hidden.reshape([rows, d]), targets)
    }

    fn cache_with(
        &self,
        batch: usize,
        capacity: usize,
        decoder: LocalCache,
        device: &Device,
    ) -> LocalModelCache {
        let chunks = capacity / self.decoder.chunk_size();
        let width = self.backbone.width();
        LocalModelCache {
            backbone: self.backbone.transformer.cache(batch, chunks, device),
            decoder,
            tokens: TokenHistory::new(batch, capacity, device),
            states: Some(Tensor::zeros([batch, chunks + 1, width], device)),
            conditions: None,
            chunk: self.decoder.chunk_size(),
            capacity,
            len: 0,
        }
    }
}

/// What a [`LocalModel`] keeps of the texts that it has read.
#[derive(Clone, Debug)]
pub struct LocalModelCache {
    /// Of whole chunks.
    backbone: KvCache,
    /// Of the last tokens, and the memory of whole chunks.
    decoder: LocalCache,
    /// A chunk is compressed when its last token is read.
    tokens: TokenHistory,
    /// The state before each chunk, `[batch, chunks + 1, width]`; zeros before a text's first.
    states: Option<Tensor<3>>,
    /// Of the chunk that goes on, which is named: `[batch, K, d]`.
    conditions: Option<(usize, Tensor<3>)>,
    /// K
    chunk: usize,
    capacity: usize,
    len: usize,
}

impl LocalModelCache {
    fn states(&self) -> Tensor<3> {
        self.states.clone().expect("the buffer of states")
    }
}

impl StepCache for LocalModelCache {
    fn len(&self) -> usize {
        self.len
    }

    fn room(&self) -> usize {
        self.capacity - self.len
    }

    fn truncate(&mut self, len: usize) -> usize {
        let len = len.min(self.len);
        self.len = self.decoder.truncate(len, len / self.chunk);
        self.backbone.truncate(self.len / self.chunk);
        self.len
    }
}

impl CachedModel for LocalModel {
    type Cache = LocalModelCache;

    fn chunk_size(&self) -> usize {
        1
    }

    fn alignment(&self) -> usize {
        self.decoder.chunk_size()
    }

    fn vocab_size(&self) -> usize {
        self.decoder.vocab_size()
    }

    fn cache(&self, batch: usize, capacity: usize, device: &Device) -> LocalModelCache {
        let decoder = self.decoder.cache(batch, capacity, device);
        self.cache_with(batch, capacity, decoder, device)
    }

    /// The chunks that the new tokens complete go through the backbone, then all new tokens through
    /// the local decoder.
    fn step(
        &self,
        tokens: Tensor<3, Int>,
        fillers: &[usize],
        cache: &mut LocalModelCache,
    ) -> Tensor<3> {
        let ([batch, new, _], k) = (tokens.dims(), cache.chunk);
        let tokens = tokens.squeeze_dim::<2>(2);
        let (read, begun, within) = (cache.len, cache.len / k, cache.len % k);
        let completed = (read + new) / k - begun;
        cache.tokens.write(read, tokens);

        let mut entries = None;
        if completed > 0 {
            let compressor = &self.backbone.compressor;
            let (embedded, before) = cache.tokens.embedded(
                begun * k,
                completed * k,
                compressor.context(),
                fillers,
                |tokens| compressor.embed(tokens),
            );
            let inputs = compressor.compress(embedded, before);
            let fillers: Vec<usize> = fillers.iter().map(|tokens| tokens / k).collect();
            let states =
                self.backbone
                    .transformer
                    .step(inputs.clone(), &fillers, &mut cache.backbone);
            let known = without_fillers(states.clone(), begun, &fillers);
            let width = known.dims()[2];
            let rows = [0..batch, begun + 1..begun + 1 + completed, 0..width];
            // Taken out of its slot, the buffer has one owner and is written in place.
            let held = cache.states.take().expect("the buffer of states");
            cache.states = Some(held.slice_assign(rows, known));
            entries = self.decoder.memory().entries(&Chunks { inputs, states });
        }
        // Of the chunks that the tokens after the new ones belong to.
        let conditions = match cache.conditions.take() {
            Some((chunk, conditions)) if completed == 0 && chunk == begun => conditions,
            _ => {
                let states = cache.states().narrow(1, begun, completed + 1);
                self.decoder.conditions(states)
            }
        };
        let going_on = conditions.clone().narrow(1, completed * k, k);
        cache.conditions = Some((begun + completed, going_on));
        cache.len += new;
        let conditions = conditions.narrow(1, within + 1, new);
        let reach = self.decoder.near_tokens();
        let embed = |tokens| self.decoder.embed(tokens);
        let (embedded, before) = cache.tokens.embedded(read, new, reach, fillers, embed);
        let inputs = self.decoder.inputs(embedded, before, conditions);
        self.decoder
            .step(inputs, entries, fillers, &mut cache.decoder)
    }
}

/// States after the chunks from `first` on, zero where the next chunk is a text's first.
fn without_fillers(states: Tensor<3>, first: usize, fillers: &[usize]) -> Tensor<3> {
    if fillers.iter().all(|&fillers| fillers <= first) {
        return states;
    }
    let chunks = states.dims()[1];
    let known = fillers
        .iter()
        .flat_map(|&fillers| (first..first + chunks).map(move |i| i >= fillers));
    // Rows of fillers are finite: they are softmax averages like all others.
    keep_rows(states, known)
}

/// What alternative continuations of one cached text keep.
#[derive(Debug, Default)]
pub struct LocalModelBranches {
    backbone: Branches,
    decoder: LocalBranches,
    tokens: BranchTokens,
    /// Of the chunk that goes on, `[queries, K, d]`.
    conditions: Option<Tensor<3>>,
}

impl NextToken for LocalModel {
    type Branches = LocalModelBranches;

    fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        self.decoder.output_layer().logits(hidden)
    }

    fn greedy_table(&self) -> ArgmaxTable {
        self.decoder.output_layer().greedy_table()
    }

    fn whole_cache(&self, capacity: usize, device: &Device) -> LocalModelCache {
        let decoder = self.decoder.whole_cache(capacity, device);
        self.cache_with(1, capacity, decoder, device)
    }

    fn branch(
        &self,
        tokens: Tensor<1, Int>,
        prefix: &[usize],
        cache: &LocalModelCache,
        branches: &mut LocalModelBranches,
    ) -> Tensor<2> {
        let (k, queries, device) = (cache.chunk, prefix.len(), tokens.device());
        let within = prefix.first().map_or(0, |p| p % k);
        assert!(
            prefix.iter().all(|p| p % k == within),
            "branches of one call begin at the same place of a chunk"
        );
        let per_position = |states: Tensor<3>| {
            let conditions = self.decoder.conditions(states);
            let d = conditions.dims()[2];
            conditions.reshape([queries, k, d])
        };
        let conditions = match branches.conditions.take() {
            Some(conditions) => conditions,
            None => {
                let at: Vec<i64> = prefix.iter().map(|p| (p / k) as i64).collect();
                let at = Tensor::from_ints(at.as_slice(), &device);
                per_position(cache.states().select(1, at))
            }
        };
        branches.tokens.push(tokens);
        // The place of the next token in its chunk.
        let next = (within + branches.tokens.len()) % k;
        let mut entries = None;
        let conditions = if next == 0 {
            let compressor = &self.backbone.compressor;
            let context = compressor.context();
            let embed = |tokens| compressor.embed(tokens);
            let embedded = branches
                .tokens
                .embedded(context + k, prefix, &cache.tokens, embed);
            let inputs = compressor.compress(embedded, context).swap_dims(0, 1);
            let whole: Vec<usize> = prefix.iter().map(|p| p / k).collect();
            let states = self.backbone.transformer.branch(
                inputs.clone(),
                &whole,
                &cache.backbone,
                &mut branches.backbone,
            );
            let conditions = per_position(states.clone());
            let chunks = Chunks { inputs, states };
            entries = self.decoder.memory().entries(&chunks);
            conditions
        } else {
            conditions
        };
        let own = conditions.clone().narrow(1, next, 1);
        branches.conditions = Some(conditions);
        let reach = self.decoder.near_tokens();
        let embed = |tokens| self.decoder.embed(tokens);
        let embedded = branches
            .tokens
            .embedded(reach + 1, prefix, &cache.tokens, embed);
        let inputs = self.decoder.inputs(embedded, reach, own);
        self.decoder.branch(
            inputs.squeeze_dim(1),
            entries.map(|entries| entries.squeeze_dim(0)),
            prefix,
            &cache.decoder,
            &mut branches.decoder,
        )
    }

    fn branch_scores(&self, cached: usize) -> usize {
        let keys = cached + cached / self.decoder.chunk_size();
        keys * self.decoder.heads()
    }
}
