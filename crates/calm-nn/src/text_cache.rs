//! Token ids that cached decoding keeps, for models whose inputs are made from several tokens.

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::{Branches, KvCache, StepCache};

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

    /// Embeddings of tokens `first..first + count` behind those of up to `reach` tokens before them,
    /// and how many of these there are. What stands before a text is no part of it: the rows of the
    /// first `fillers[b]` tokens of text b are zero.
    ///
    /// # Shapes
    /// - output: `[batch, before + count, d]`
    pub fn embedded(
        &self,
        first: usize,
        count: usize,
        reach: usize,
        fillers: &[usize],
        embed: impl FnOnce(Tensor<2, Int>) -> Tensor<3>,
    ) -> (Tensor<3>, usize) {
        let before = reach.min(first);
        let start = first - before;
        let x = embed(self.all().narrow(1, start, before + count));
        if reach == 0 || fillers.iter().all(|&fillers| fillers <= start) {
            return (x, before);
        }
        let own = fillers
            .iter()
            .flat_map(|&fillers| (start..first + count).map(move |t| t >= fillers));
        (keep_rows(x, own), before)
    }

    /// The token at each place of `at` of the only text, `[places]`.
    fn at(&self, at: impl Iterator<Item = usize>) -> Tensor<1, Int> {
        let at: Vec<i64> = at.map(|i| i as i64).collect();
        let all = self.all();
        let at = Tensor::from_ints(at.as_slice(), &all.device());
        all.select(1, at).squeeze_dim(0)
    }

    fn all(&self) -> Tensor<2, Int> {
        self.tokens.clone().expect("the buffer of tokens")
    }
}

/// The own tokens of alternative continuations of one text, each `[queries]`.
#[derive(Clone, Debug, Default)]
pub struct BranchTokens(Vec<Tensor<1, Int>>);

impl BranchTokens {
    /// Appends the next token of every query.
    pub fn push(&mut self, tokens: Tensor<1, Int>) {
        self.0.push(tokens);
    }

    /// Own tokens of each.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none was read yet.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Embeddings of the last `count` tokens of every query: where its own don't reach, of the text
    /// before them, of which query q has read `prefix[q]` tokens. Zero before the text.
    ///
    /// # Shapes
    /// - output: `[queries, count, d]`
    pub fn embedded(
        &self,
        count: usize,
        prefix: &[usize],
        history: &TokenHistory,
        embed: impl FnOnce(Tensor<2, Int>) -> Tensor<3>,
    ) -> Tensor<3> {
        let taken = self.len();
        let own = taken.min(count);
        let columns = (1..=count - own)
            .rev()
            .map(|back| history.at(prefix.iter().map(move |p| p.saturating_sub(back))))
            .chain(self.0[taken - own..].iter().cloned())
            .map(|column| column.unsqueeze_dim::<2>(1));
        let x = embed(Tensor::cat(columns.collect(), 1));
        if prefix.iter().all(|p| p + taken >= count) {
            return x;
        }
        let within = prefix
            .iter()
            .flat_map(|&p| (0..count).map(move |i| p + taken + i >= count));
        keep_rows(x, within)
    }
}

/// What a transformer keeps whose inputs are made from the tokens of a step and some before it.
#[derive(Clone, Debug)]
pub struct TextCache {
    /// Keys and values of the steps.
    pub keys: KvCache,
    /// Where inputs reach back.
    tokens: Option<TokenHistory>,
    chunk: usize,
    reach: usize,
}

impl TextCache {
    /// Of empty `keys` for `batch` texts, with `chunk` tokens a step and inputs that are made of
    /// `reach` tokens more.
    pub fn new(keys: KvCache, batch: usize, chunk: usize, reach: usize, device: &Device) -> Self {
        let capacity = keys.room() * chunk;
        Self {
            keys,
            tokens: (reach > 0).then(|| TokenHistory::new(batch, capacity, device)),
            chunk,
            reach,
        }
    }

    /// Embeddings of the tokens of the next steps behind those that inputs reach back to, and how
    /// many of these there are. The caller then appends the steps to `keys`.
    ///
    /// # Shapes
    /// - tokens: `[batch, new * chunk]`
    /// - fillers: in steps
    /// - output: `[batch, before + new * chunk, d]`
    pub fn read(
        &mut self,
        tokens: Tensor<2, Int>,
        fillers: &[usize],
        embed: impl FnOnce(Tensor<2, Int>) -> Tensor<3>,
    ) -> (Tensor<3>, usize) {
        let Some(history) = &mut self.tokens else {
            return (embed(tokens), 0);
        };
        let (new, read) = (tokens.dims()[1], self.keys.len() * self.chunk);
        history.write(read, tokens);
        let fillers: Vec<usize> = fillers.iter().map(|steps| steps * self.chunk).collect();
        history.embedded(read, new, self.reach, &fillers, embed)
    }
}

impl StepCache for TextCache {
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

/// What alternative continuations of a [`TextCache`] keep.
#[derive(Clone, Debug, Default)]
pub struct TextBranches {
    /// Keys and values of their own steps.
    pub keys: Branches,
    tokens: BranchTokens,
}

impl TextBranches {
    /// Embeddings of the tokens of every query's next step behind those that inputs reach back to,
    /// and how many of these there are. Query q has read `prefix[q]` steps of the cached text.
    ///
    /// # Shapes
    /// - tokens: `[queries, chunk]`
    /// - output: `[queries, reach + chunk, d]`
    pub fn read(
        &mut self,
        tokens: Tensor<2, Int>,
        prefix: &[usize],
        cache: &TextCache,
        embed: impl FnOnce(Tensor<2, Int>) -> Tensor<3>,
    ) -> (Tensor<3>, usize) {
        let Some(history) = &cache.tokens else {
            return (embed(tokens), 0);
        };
        for place in 0..cache.chunk {
            let column = tokens.clone().narrow(1, place, 1).squeeze_dim(1);
            self.tokens.push(column);
        }
        let prefix: Vec<usize> = prefix.iter().map(|steps| steps * cache.chunk).collect();
        let count = cache.reach + cache.chunk;
        let x = self.tokens.embedded(count, &prefix, history, embed);
        (x, cache.reach)
    }

    /// Keeps only the branches at `rows`, in that order.
    pub fn select(&mut self, rows: &[usize], device: &Device) {
        self.keys.select(rows, device);
        let rows: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
        let rows = Tensor::<1, Int>::from_ints(rows.as_slice(), device);
        for tokens in &mut self.tokens.0 {
            *tokens = tokens.clone().select(0, rows.clone());
        }
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
