//! Cached decoding of a batch of texts: what the CALM and the token model have in common.

use std::collections::VecDeque;

use burn::tensor::{Device, Int, Tensor, TensorData};
use calm_kernels::ArgmaxTable;
use thiserror::Error;

/// What a [`CachedModel`] has kept of the steps that it has read.
pub trait StepCache: std::fmt::Debug {
    /// Steps held.
    fn len(&self) -> usize;

    /// Whether no step is held.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Steps that can still be appended.
    fn room(&self) -> usize;

    /// Forgets everything from step `len` on, and more where what is left would not be enough to go
    /// on from; returns how many steps are left. The memory is kept.
    fn truncate(&mut self, len: usize) -> usize;

    /// Forgets everything and keeps the memory.
    fn clear(&mut self) {
        self.truncate(0);
    }
}

/// A causal model that reads tokens through a cache, K of them at a step.
pub trait CachedModel {
    /// What it keeps.
    type Cache: StepCache;

    /// Tokens per step, K; 1 for a model that draws token by token.
    fn chunk_size(&self) -> usize;

    /// What the length of a text that is read before the first draw must be a multiple of, in tokens:
    /// the chunk of whatever reads chunks. A multiple of [`CachedModel::chunk_size`].
    fn alignment(&self) -> usize {
        self.chunk_size()
    }

    /// Tokens in the vocabulary, V.
    fn vocab_size(&self) -> usize;

    /// An empty cache for `batch` sequences of up to `capacity` steps.
    fn cache(&self, batch: usize, capacity: usize, device: &Device) -> Self::Cache;

    /// Hidden states of the next steps; the first `fillers[b]` cached steps of sequence b are
    /// hidden (see [`Transformer::step`](crate::Transformer::step)); they are whole units of
    /// [`CachedModel::alignment`].
    ///
    /// # Shapes
    /// - tokens: `[batch, new, K]`
    /// - output: `[batch, new, d]`
    fn step(&self, tokens: Tensor<3, Int>, fillers: &[usize], cache: &mut Self::Cache)
    -> Tensor<3>;
}

/// A model that reads one token a step and has a distribution over the next one: its likelihood is
/// exact, and temperatures, speculation and Brier scores are made from its probabilities.
pub trait NextToken: CachedModel {
    /// What alternative continuations keep.
    type Branches: Default;

    /// Scores of the next token, the logarithms of its probabilities up to a constant.
    ///
    /// # Shapes
    /// - hidden: `[rows, d]`
    /// - output: `[rows, V]`
    fn logits(&self, hidden: Tensor<2>) -> Tensor<2>;

    /// The output layer prepared for the search of the most likely token, which makes no scores.
    fn greedy_table(&self) -> ArgmaxTable;

    /// An empty cache for one sequence of up to `capacity` steps, from any of which
    /// [`NextToken::branch`] can start; [`CachedModel::cache`] may forget what decoding needs no more.
    fn whole_cache(&self, capacity: usize, device: &Device) -> Self::Cache {
        self.cache(1, capacity, device)
    }

    /// Continues one cached sequence in many ways at once: query q reads its next token after the
    /// first `prefix[q]` tokens of the sequence and the steps that it has taken before, and sees
    /// these only. `branches` starts as the default and collects the steps.
    ///
    /// The prefixes are equal modulo [`CachedModel::alignment`].
    ///
    /// # Shapes
    /// - tokens: `[queries]`
    /// - output: `[queries, d]`
    fn branch(
        &self,
        tokens: Tensor<1, Int>,
        prefix: &[usize],
        cache: &Self::Cache,
        branches: &mut Self::Branches,
    ) -> Tensor<2>;

    /// Attention scores that one query of a branch makes over `cached` tokens, in a layer: what
    /// callers bound their memory by.
    fn branch_scores(&self, cached: usize) -> usize;
}

/// Token ids as `[batch, steps, K]`.
///
/// # Panics
/// Where the tokens don't divide into `batch * K`.
pub fn chunk_tensor(tokens: &[u32], batch: usize, k: usize, device: &Device) -> Tensor<3, Int> {
    let steps = tokens.len() / (batch * k);
    let ids: Vec<i32> = tokens.iter().map(|&token| token as i32).collect();
    Tensor::from_data(TensorData::new(ids, [batch, steps, k]), device)
}

/// A prompt that can't be read.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum PromptError {
    /// A prompt longer than the window.
    #[error("the prompt has {tokens} tokens, more than the model's window of {window}; shorten it")]
    TooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// The window in tokens.
        window: usize,
    },
    /// A token that the model doesn't know.
    #[error("token id {token} is outside the vocabulary of {vocab_size}")]
    UnknownToken {
        /// The id.
        token: u32,
        /// Tokens in the vocabulary.
        vocab_size: usize,
    },
}

impl PromptError {
    /// Checks a prompt's length and ids.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn check(prompt: &[u32], window: usize, vocab_size: usize) -> Result<(), Self> {
        if prompt.len() > window {
            let tokens = prompt.len();
            return Err(Self::TooLong { tokens, window });
        }
        let outside = |&&token: &&u32| token as usize >= vocab_size;
        match prompt.iter().find(outside) {
            Some(&token) => Err(Self::UnknownToken { token, vocab_size }),
            None => Ok(()),
        }
    }
}

/// Why a text ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The model drew end-of-text.
    EndOfText,
    /// The limit of tokens was reached.
    Limit,
}

/// What bounds a decoding.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Tokens of context, a multiple of K.
    pub window: usize,
    /// Tokens to generate at most, per prompt.
    pub max_tokens: usize,
    /// The token that ends a text.
    pub end_of_text: u32,
}

impl Limits {
    /// What is read in front of a prompt of `length` tokens, so that both together are whole chunks.
    ///
    /// With a `lead_in` that is its last tokens, at least one: a prompt is then the beginning of a
    /// text after the end of another, whatever its length, as the model has seen it in training.
    /// (A prompt that fills the window has no room for more than what completes a chunk.) Without
    /// one, where nothing is known of the training text, end-of-text is repeated as often as is
    /// needed. A token model reads a prompt as it is, and end-of-text where it is empty.
    fn front(&self, length: usize, k: usize, lead_in: &[u32]) -> Vec<u32> {
        let needed = length.next_multiple_of(k) - length;
        let whole = if needed == 0 { k } else { needed };
        if k > 1 && lead_in.len() >= k && length + whole <= self.window {
            return lead_in[lead_in.len() - whole..].to_vec();
        }
        let count = if length == 0 { k } else { needed };
        match lead_in.len() {
            known if known >= count => lead_in[known - count..].to_vec(),
            _ => vec![self.end_of_text; count],
        }
    }
}

/// The contexts of a batch of texts and the cache over them.
///
/// The caller draws the next chunk of every text from [`Decoding::hidden`] and hands it to
/// [`Decoding::push`]. A prompt is filled at the *front* until it ends on a chunk boundary, with the
/// end of another text (the lead-in) as in training, where documents begin anywhere in a chunk.
/// Shorter prompts of a batch get whole filler chunks in front, which are masked. When the window is
/// full, the context is rebuilt from its last half.
#[derive(Debug)]
pub struct Decoding<'a, M: CachedModel> {
    model: &'a M,
    device: &'a Device,
    limits: Limits,
    cache: M::Cache,
    fillers: Vec<usize>,
    hidden: Tensor<2>,
    /// Chunks that were pushed and not read yet.
    unread: Option<Vec<Vec<u32>>>,
    rows: Vec<Row>,
    steps: usize,
}

#[derive(Debug)]
struct Row {
    /// The chunks of the context, oldest first.
    context: VecDeque<Vec<u32>>,
    generated: usize,
    stop: Option<Stop>,
}

impl<'a, M: CachedModel> Decoding<'a, M> {
    /// Reads the prompts (token ids; an empty one is allowed) and is ready for the first draw.
    /// `lead_in` is how a text of the training stream ended, end-of-text included, at least K tokens;
    /// empty where that is not known: end-of-text is then repeated, which no training has shown.
    ///
    /// # Errors
    /// A prompt longer than the window, or a token outside the vocabulary.
    ///
    /// # Panics
    /// Without a prompt.
    pub fn new(
        model: &'a M,
        limits: Limits,
        lead_in: &[u32],
        prompts: &[Vec<u32>],
        device: &'a Device,
    ) -> Result<Self, PromptError> {
        assert!(!prompts.is_empty(), "a decoding needs at least one prompt");
        let k = model.chunk_size();
        let mut rows = Vec::with_capacity(prompts.len());
        for prompt in prompts {
            PromptError::check(prompt, limits.window, model.vocab_size())?;
            let front = limits.front(prompt.len(), model.alignment(), lead_in);
            let filled = [&front[..], prompt].concat();
            rows.push(Row {
                context: filled.chunks_exact(k).map(<[u32]>::to_vec).collect(),
                generated: 0,
                stop: None,
            });
        }
        let mut cache = model.cache(rows.len(), limits.window / k, device);
        let (fillers, hidden) = prefill(model, limits, &mut rows, &mut cache, device);
        Ok(Self {
            model,
            device,
            limits,
            cache,
            fillers,
            hidden,
            unread: None,
            rows,
            steps: 0,
        })
    }

    /// Hidden state from which the next chunk of every text is drawn, `[batch, d]`. Reads what was
    /// pushed last, so that nothing is read that no draw needs.
    pub fn hidden(&mut self) -> Tensor<2> {
        if let Some(chunks) = self.unread.take() {
            self.advance(&chunks);
        }
        self.hidden.clone()
    }

    /// Appends one chunk to every text and returns the tokens that belong to each: none for those
    /// that have ended, and nothing from end-of-text on.
    ///
    /// # Panics
    /// Where no draw was made since the last call: [`Decoding::hidden`] must come between.
    pub fn push(&mut self, chunks: &[Vec<u32>]) -> Vec<Vec<u32>> {
        assert!(self.unread.is_none(), "two chunks without a draw between");
        self.steps += 1;
        let limits = self.limits;
        let fresh = self
            .rows
            .iter_mut()
            .zip(chunks)
            .map(|(row, chunk)| row.accept(chunk, &limits))
            .collect();
        self.unread = Some(chunks.to_vec());
        fresh
    }

    /// Whether every text has ended.
    pub fn is_done(&self) -> bool {
        self.rows.iter().all(|row| row.stop.is_some())
    }

    /// Autoregressive steps taken so far.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Why text `row` ended, if it has.
    pub fn stop(&self, row: usize) -> Option<Stop> {
        self.rows[row].stop
    }

    /// Texts in the batch.
    pub fn batch(&self) -> usize {
        self.rows.len()
    }

    fn advance(&mut self, chunks: &[Vec<u32>]) {
        for (row, chunk) in self.rows.iter_mut().zip(chunks) {
            row.context.push_back(chunk.clone());
        }
        if self.cache.room() == 0 {
            let (rows, cache) = (&mut self.rows, &mut self.cache);
            (self.fillers, self.hidden) =
                prefill(self.model, self.limits, rows, cache, self.device);
            return;
        }
        let k = self.model.chunk_size();
        let tokens = chunk_tensor(&chunks.concat(), self.rows.len(), k, self.device);
        self.hidden = last(self.model.step(tokens, &self.fillers, &mut self.cache));
    }
}

/// Builds the cache from the contexts, cut to their last half when the window is full. Returns
/// the filler chunks of every row and the hidden states of the last chunks.
fn prefill<M: CachedModel>(
    model: &M,
    limits: Limits,
    rows: &mut [Row],
    cache: &mut M::Cache,
    device: &Device,
) -> (Vec<usize>, Tensor<2>) {
    cache.clear();
    let capacity = cache.room();
    let longest = |rows: &[Row]| rows.iter().map(|row| row.context.len()).max().unwrap_or(0);
    if longest(rows) > capacity {
        let aligned = model.alignment() / model.chunk_size();
        let keep = kept(capacity, longest(rows), aligned);
        for row in &mut *rows {
            let surplus = row.context.len().saturating_sub(keep);
            row.context.drain(..surplus);
        }
    }
    let (longest, k) = (longest(rows), model.chunk_size());
    let fillers: Vec<usize> = rows.iter().map(|row| longest - row.context.len()).collect();
    let mut tokens = Vec::with_capacity(rows.len() * longest * k);
    for (row, &fillers) in rows.iter().zip(&fillers) {
        tokens.extend(std::iter::repeat_n(limits.end_of_text, fillers * k));
        tokens.extend(row.context.iter().flatten());
    }
    let tokens = chunk_tensor(&tokens, rows.len(), k, device);
    let hidden = last(model.step(tokens, &fillers, cache));
    (fillers, hidden)
}

/// Steps that are left of the `longest` context where `capacity` are too few for it: half of these,
/// less so many that whole units of `aligned` steps go, which moves no row's chunks.
fn kept(capacity: usize, longest: usize, aligned: usize) -> usize {
    let half = (capacity / 2).max(1);
    let beyond = (half + aligned - longest % aligned) % aligned;
    half - beyond.min(half - 1)
}

/// `[batch, steps, d]` to the last step's `[batch, d]`.
fn last(hidden: Tensor<3>) -> Tensor<2> {
    let [_, steps, _] = hidden.dims();
    hidden.narrow(1, steps - 1, 1).squeeze_dim(1)
}

impl Row {
    /// The tokens of `chunk` that belong to the text.
    fn accept(&mut self, chunk: &[u32], limits: &Limits) -> Vec<u32> {
        if self.stop.is_some() {
            return Vec::new();
        }
        let mut fresh = chunk.to_vec();
        if let Some(end) = fresh.iter().position(|&token| token == limits.end_of_text) {
            fresh.truncate(end);
            self.stop = Some(Stop::EndOfText);
        }
        let room = limits.max_tokens - self.generated;
        if fresh.len() >= room {
            fresh.truncate(room);
            self.stop = Some(Stop::Limit);
        }
        self.generated += fresh.len();
        fresh
    }
}
