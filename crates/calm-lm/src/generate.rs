//! Generation, one chunk a step.

use std::ops::Add;

use burn::tensor::{Device, Tensor};
use calm_autoencoder::GreedyDecoder;
use calm_backbone::Backbone;
use calm_likelihood_free::{
    Attempts, BatchSampler, ExactSampler, GenerativeHead, GrowingSampler, Head, PoolSampler,
};
use calm_nn::{Decoding, HostDraws, Limits, RandomStream, Stop, mix};

use crate::pool::choose;
use crate::rollout::read_tokens;
use crate::{CalmModel, ModelConfig, Result};

/// How a chunk is chosen among draws of the head.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ChunkSampler {
    /// From a pool of fixed size, at T = 1/n: the paper's.
    Batch(BatchSampler),
    /// From a pool that grows as far as it must, with less bias, at T = 1/n.
    Growing(GrowingSampler),
    /// Without bias, at any T. A sampler that fails when its budget is spent is taken as one that
    /// falls back to the batch rule: a text goes on.
    Exact(ExactSampler),
}

impl From<BatchSampler> for ChunkSampler {
    fn from(sampler: BatchSampler) -> Self {
        Self::Batch(sampler)
    }
}

impl From<GrowingSampler> for ChunkSampler {
    fn from(sampler: GrowingSampler) -> Self {
        Self::Growing(sampler)
    }
}

impl From<ExactSampler> for ChunkSampler {
    fn from(sampler: ExactSampler) -> Self {
        Self::Exact(sampler.falling_back())
    }
}

/// How to generate.
#[derive(Clone, Copy, Debug)]
pub struct GenerateOptions<'a> {
    /// The temperature sampler.
    pub sampler: ChunkSampler,
    /// Tokens to generate at most, per prompt.
    pub max_tokens: usize,
    /// The token that ends a text.
    pub end_of_text: u32,
    /// What is read in front of a prompt, [`CheckpointOf::lead_in`](crate::CheckpointOf::lead_in);
    /// empty where it is not known (see [`Decoding::new`]).
    pub lead_in: &'a [u32],
    /// Seed of all draws.
    pub seed: u64,
}

/// Generates texts for a batch of prompts, one chunk of each at a step; see [`Decoding`] for what
/// happens to prompts of unequal length and when the window is full.
#[derive(Debug)]
pub struct Generator<'a> {
    model: &'a CalmModel,
    decoder: GreedyDecoder<'a>,
    decoding: Decoding<'a, Backbone>,
    sampler: ChunkSampler,
    draws: HostDraws,
    choice: RandomStream,
    /// Where tokens are drawn, by what.
    tokens: Option<RandomStream>,
    spent: Spent,
}

/// What the chunks of a [`Generator`] have cost so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Chunks drawn.
    pub chunks: usize,
    /// Draws of the head.
    pub draws: usize,
    /// Positions of chunks decoded, K of a draw that is decoded to its end.
    pub positions: usize,
    /// Chunks that the exact sampler accepted, or that are one draw at T = 1.
    pub exact: usize,
}

impl Add for Spent {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            chunks: self.chunks + other.chunks,
            draws: self.draws + other.draws,
            positions: self.positions + other.positions,
            exact: self.exact + other.exact,
        }
    }
}

impl<'a> Generator<'a> {
    /// Reads the prompts (token ids; an empty one is allowed) and is ready to draw.
    ///
    /// # Errors
    /// A prompt longer than the window, or a token outside the vocabulary.
    pub fn new(
        model: &'a CalmModel,
        config: &ModelConfig,
        prompts: &[Vec<u32>],
        options: GenerateOptions<'_>,
        device: &'a Device,
    ) -> Result<Self> {
        let limits = Limits {
            window: config.window,
            max_tokens: options.max_tokens,
            end_of_text: options.end_of_text,
        };
        let backbone = &model.language_model.backbone;
        Ok(Self {
            model,
            decoder: model.autoencoder.greedy(),
            decoding: Decoding::new(backbone, limits, options.lead_in, prompts, device)?,
            sampler: options.sampler,
            draws: HostDraws::new(mix(options.seed, 1)),
            choice: RandomStream::new(mix(options.seed, 2)),
            tokens: None,
            spent: Spent::default(),
        })
    }

    /// The same, with the tokens of every latent drawn from the decoder's probabilities instead of the
    /// most probable taken: a sample of the mixture that [`log_score`](calm_likelihood_free::log_score)
    /// is the likelihood of. Not the paper's; for heads that are trained by it.
    pub fn drawing_tokens(self, seed: u64) -> Self {
        Self {
            tokens: Some(RandomStream::new(mix(seed, 3))),
            ..self
        }
    }

    /// Whether every sequence has ended.
    pub fn is_done(&self) -> bool {
        self.decoding.is_done()
    }

    /// Autoregressive steps taken so far.
    pub fn steps(&self) -> usize {
        self.decoding.steps()
    }

    /// What they cost.
    pub fn spent(&self) -> Spent {
        self.spent
    }

    /// Why sequence `row` ended, if it has.
    pub fn stop(&self, row: usize) -> Option<Stop> {
        self.decoding.stop(row)
    }

    /// Draws the next chunk of every sequence and returns the new tokens of each: none for those
    /// that have ended, and nothing from end-of-text on.
    pub fn step(&mut self) -> Vec<Vec<u32>> {
        if self.is_done() {
            return vec![Vec::new(); self.decoding.batch()];
        }
        let chunks = self.draw_chunks();
        self.decoding.push(&chunks)
    }

    /// Runs to the end and returns the new tokens of every sequence.
    pub fn run(mut self) -> Vec<Vec<u32>> {
        self.finish()
    }

    /// As [`Generator::run`], of a generator that is asked something afterwards.
    pub fn finish(&mut self) -> Vec<Vec<u32>> {
        let mut texts = vec![Vec::new(); self.decoding.batch()];
        while !self.is_done() {
            for (text, fresh) in texts.iter_mut().zip(self.step()) {
                text.extend(fresh);
            }
        }
        texts
    }

    /// One chunk for every sequence, at the sampler's temperature.
    fn draw_chunks(&mut self) -> Vec<Vec<u32>> {
        match self.sampler {
            ChunkSampler::Exact(sampler) => self.draw_exactly(&sampler.falling_back()),
            ChunkSampler::Batch(sampler) => self.draw_pools(&sampler, sampler.power() == 1),
            ChunkSampler::Growing(sampler) => {
                self.draw_pools(&sampler, sampler.temperature() == 1.0)
            }
        }
    }

    /// The sequences that have not ended, and a chunk for each of the others that nobody reads.
    fn going(&self) -> (Vec<usize>, Vec<Vec<u32>>) {
        let k = self.model.autoencoder.chunk_size();
        let batch = self.decoding.batch();
        let goes = |&row: &usize| self.decoding.stop(row).is_none();
        ((0..batch).filter(goes).collect(), vec![vec![0; k]; batch])
    }

    fn draw_pools<S: PoolSampler>(&mut self, sampler: &S, exact: bool) -> Vec<Vec<u32>> {
        let (going, mut chunks) = self.going();
        let k = self.model.autoencoder.chunk_size();
        let hidden = self.decoding.hidden();
        let (head, draws) = (&self.model.language_model.head, &mut self.draws);
        let draw = |rows: &[usize], n: usize| {
            let rows: Vec<usize> = rows.iter().map(|&row| going[row]).collect();
            draw_latents(head, draws, of_rows(&hidden, &rows), n)
        };
        let (decoder, choice) = (&self.decoder, &mut self.choice);
        let tokens = self.tokens.as_mut();
        let (chosen, spent) = choose(decoder, k, going.len(), sampler, choice, tokens, draw);
        self.spent.chunks += going.len();
        self.spent.draws += spent.draws;
        self.spent.positions += spent.positions;
        self.spent.exact += if exact { going.len() } else { 0 };
        for (row, chunk) in going.into_iter().zip(chosen) {
            chunks[row] = chunk;
        }
        chunks
    }

    /// Rounds of draws for all sequences that go on and whose chunk is not decided: as many as an
    /// attempt looks at, then twice as many a round, since small rounds cost a pass of the head each.
    fn draw_exactly(&mut self, sampler: &ExactSampler) -> Vec<Vec<u32>> {
        let hidden = self.decoding.hidden();
        let k = self.model.autoencoder.chunk_size();
        let (going, mut chunks) = self.going();
        let mut going: Vec<(usize, Attempts<Vec<u32>>)> = going
            .into_iter()
            .map(|row| (row, sampler.begin()))
            .collect();
        self.spent.chunks += going.len();
        let mut round = 1;
        while !going.is_empty() {
            let wanted = going
                .iter()
                .map(|(_, attempts)| attempts.wanted().max(round));
            let least = going.iter().map(|(_, attempts)| attempts.left()).min();
            let n = wanted.max().unwrap_or(1).min(least.unwrap_or(1)).max(1);
            round = (2 * n).min(LARGEST_ROUND);
            let rows: Vec<usize> = going.iter().map(|(row, _)| *row).collect();
            let head = &self.model.language_model.head;
            let latent = draw_latents(head, &mut self.draws, of_rows(&hidden, &rows), n);
            let tokens = match &mut self.tokens {
                Some(random) => {
                    let all: Vec<usize> = (0..latent.dims()[0]).collect();
                    self.decoder.begin(latent).draw(0..k, &all, random)
                }
                None => read_tokens(self.decoder.decode(latent)),
            };
            let mut drawn = tokens.chunks_exact(n * k);
            let (choice, spent) = (&mut self.choice, &mut self.spent);
            going.retain_mut(|(row, attempts)| {
                let pool = drawn.next().expect("draws for every row").chunks_exact(k);
                spent.draws += n;
                spent.positions += n * k;
                let Some(found) = attempts.push(pool.map(<[u32]>::to_vec).collect(), choice) else {
                    return true;
                };
                let found = found.expect("a sampler that falls back");
                spent.exact += usize::from(found.exact);
                chunks[*row] = found.chunk;
                false
            });
        }
        chunks
    }
}

/// Some rows of `[batch, d]`.
fn of_rows(hidden: &Tensor<2>, rows: &[usize]) -> Tensor<2> {
    if rows.len() == hidden.dims()[0] {
        return hidden.clone();
    }
    let rows: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
    let rows = Tensor::from_ints(rows.as_slice(), &hidden.device());
    hidden.clone().select(0, rows)
}

/// `n` latents for every hidden state, `[rows * n, l]`, row after row.
fn draw_latents(head: &Head, draws: &mut HostDraws, hidden: Tensor<2>, n: usize) -> Tensor<2> {
    let latent = head.sample(hidden, n, draws); // [n, rows, l]
    let [_, rows, l] = latent.dims();
    latent.swap_dims(0, 1).reshape([rows * n, l])
}

/// Draws of one sequence in a round at most.
const LARGEST_ROUND: usize = 64;
