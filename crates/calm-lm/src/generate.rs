//! Generation, one chunk a step.

use burn::tensor::{Device, Tensor};
use calm_autoencoder::GreedyDecoder;
use calm_backbone::Backbone;
use calm_likelihood_free::{Attempts, BatchSampler, ExactSampler, GenerativeHead};
use calm_nn::{Decoding, HostDraws, Limits, RandomStream, Stop, mix};

use crate::pool::choose;
use crate::rollout::read_tokens;
use crate::{CalmModel, ModelConfig, Result};

/// How a chunk is chosen among draws of the head.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ChunkSampler {
    /// From a pool of fixed size, at T = 1/n.
    Batch(BatchSampler),
    /// Without bias, at any T. A sampler that fails when its budget is spent is taken as one that
    /// falls back to the batch rule: a text goes on.
    Exact(ExactSampler),
}

impl From<BatchSampler> for ChunkSampler {
    fn from(sampler: BatchSampler) -> Self {
        Self::Batch(sampler)
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
    spent: Spent,
}

/// What the chunks of a [`Generator`] have cost so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Chunks drawn; the batch rule draws for texts that have ended too.
    pub chunks: usize,
    /// Draws of the head.
    pub draws: usize,
    /// Chunks that the exact sampler accepted, or that are one draw at T = 1.
    pub exact: usize,
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
            spent: Spent::default(),
        })
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
        let batch = self.decoding.batch();
        match self.sampler {
            ChunkSampler::Exact(sampler) => self.draw_exactly(&sampler.falling_back()),
            ChunkSampler::Batch(sampler) => {
                let pool = sampler.pool();
                self.spent.chunks += batch;
                self.spent.draws += batch * pool;
                self.spent.exact += if pool == 1 { batch } else { 0 };
                let hidden = self.decoding.hidden();
                let latent = self.draw_latents(hidden, pool);
                let k = self.model.autoencoder.chunk_size();
                choose(&self.decoder, k, latent, &sampler, &mut self.choice)
            }
        }
    }

    /// Rounds of draws for all sequences that go on and whose chunk is not decided: as many as an
    /// attempt looks at, then twice as many a round, since small rounds cost a pass of the head each.
    fn draw_exactly(&mut self, sampler: &ExactSampler) -> Vec<Vec<u32>> {
        let hidden = self.decoding.hidden();
        let k = self.model.autoencoder.chunk_size();
        // What stands for a text that has ended is read by nobody.
        let mut chunks = vec![vec![0; k]; hidden.dims()[0]];
        let mut going: Vec<(usize, Attempts<Vec<u32>>)> = (0..chunks.len())
            .filter(|&row| self.decoding.stop(row).is_none())
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
            let rows: Vec<i64> = going.iter().map(|(row, _)| *row as i64).collect();
            let rows = Tensor::from_ints(rows.as_slice(), &hidden.device());
            let latent = self.draw_latents(hidden.clone().select(0, rows), n);
            let tokens = read_tokens(self.decoder.decode(latent));
            let mut drawn = tokens.chunks_exact(n * k);
            let (choice, spent) = (&mut self.choice, &mut self.spent);
            going.retain_mut(|(row, attempts)| {
                let pool = drawn.next().expect("draws for every row").chunks_exact(k);
                spent.draws += n;
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

    /// `n` latents for every hidden state, `[rows * n, l]`, row after row.
    fn draw_latents(&mut self, hidden: Tensor<2>, n: usize) -> Tensor<2> {
        let head = &self.model.language_model.head;
        let latent = head.sample(hidden, n, &mut self.draws); // [n, rows, l]
        let [_, rows, l] = latent.dims();
        latent.swap_dims(0, 1).reshape([rows * n, l])
    }
}

/// Draws of one sequence in a round at most.
const LARGEST_ROUND: usize = 64;
