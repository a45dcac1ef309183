//! Generation, one chunk a step.

use std::collections::VecDeque;

use burn::tensor::{Device, Int, Tensor, TensorData};
use calm_likelihood_free::{BatchSampler, GenerativeHead};
use calm_nn::{ChunkDecoder, HostDraws, KvCache, RandomStream, mix};

use crate::rollout::read_tokens;
use crate::{CalmModel, Error, ModelConfig, Result};

/// How to generate.
#[derive(Clone, Copy, Debug)]
pub struct GenerateOptions {
    /// The temperature sampler.
    pub sampler: BatchSampler,
    /// Tokens to generate at most, per prompt.
    pub max_tokens: usize,
    /// The token that ends a text, and that fills the front of a prompt up to a whole chunk.
    pub end_of_text: u32,
    /// Seed of all draws.
    pub seed: u64,
}

/// Why a sequence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The model drew end-of-text.
    EndOfText,
    /// The limit of tokens was reached.
    Limit,
}

/// Generates texts for a batch of prompts, one chunk of each at a step.
///
/// A prompt is filled at the *front* with end-of-text tokens until it ends on a chunk boundary;
/// documents begin anywhere in a chunk in training, so the model has seen this. Shorter prompts
/// of a batch get whole filler chunks in front, which are masked. When the window is full, the
/// context is rebuilt from its last half.
#[derive(Debug)]
pub struct Generator<'a> {
    model: &'a CalmModel,
    device: &'a Device,
    options: GenerateOptions,
    draws: HostDraws,
    choice: RandomStream,
    cache: KvCache,
    fillers: Vec<usize>,
    /// Hidden state of the last chunk, `[batch, d]`.
    hidden: Tensor<2>,
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

/// Token ids as `[batch, steps, K]`.
///
/// # Panics
/// Where the tokens don't divide into `batch * K`.
pub fn chunk_tensor(tokens: &[u32], batch: usize, k: usize, device: &Device) -> Tensor<3, Int> {
    let steps = tokens.len() / (batch * k);
    let ids: Vec<i32> = tokens.iter().map(|&token| token as i32).collect();
    Tensor::from_data(TensorData::new(ids, [batch, steps, k]), device)
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
        options: GenerateOptions,
        device: &'a Device,
    ) -> Result<Self> {
        let k = config.chunk_size;
        let mut rows = Vec::with_capacity(prompts.len());
        for prompt in prompts {
            if prompt.len() > config.window {
                return Err(Error::PromptTooLong {
                    tokens: prompt.len(),
                    window: config.window,
                });
            }
            let vocab_size = config.vocab_size;
            let outside = |&&token: &&u32| token as usize >= vocab_size;
            if let Some(&token) = prompt.iter().find(outside) {
                return Err(Error::UnknownToken { token, vocab_size });
            }
            let front = match prompt.len() % k {
                0 if prompt.is_empty() => k,
                0 => 0,
                rest => k - rest,
            };
            let filled: Vec<u32> = std::iter::repeat_n(options.end_of_text, front)
                .chain(prompt.iter().copied())
                .collect();
            let context = filled.chunks_exact(k).map(<[u32]>::to_vec).collect();
            rows.push(Row {
                context,
                generated: 0,
                stop: None,
            });
        }
        let cache = model
            .language_model
            .backbone
            .cache(rows.len(), config.steps(), device);
        let d = config.backbone.hidden_size;
        let mut generator = Self {
            model,
            device,
            options,
            draws: HostDraws::new(mix(options.seed, 1)),
            choice: RandomStream::new(mix(options.seed, 2)),
            cache,
            fillers: Vec::new(),
            hidden: Tensor::zeros([rows.len(), d], device),
            rows,
            steps: 0,
        };
        generator.prefill();
        Ok(generator)
    }

    /// Whether every sequence has ended.
    pub fn is_done(&self) -> bool {
        self.rows.iter().all(|row| row.stop.is_some())
    }

    /// Autoregressive steps taken so far.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Why sequence `row` ended, if it has.
    pub fn stop(&self, row: usize) -> Option<Stop> {
        self.rows[row].stop
    }

    /// Draws the next chunk of every sequence and returns the new tokens of each: none for those
    /// that have ended, and nothing from end-of-text on.
    pub fn step(&mut self) -> Vec<Vec<u32>> {
        let chunks = self.draw_chunks();
        self.steps += 1;
        let options = self.options;
        let fresh = self
            .rows
            .iter_mut()
            .zip(&chunks)
            .map(|(row, chunk)| row.accept(chunk, &options))
            .collect();
        if !self.is_done() {
            self.advance(&chunks);
        }
        fresh
    }

    /// Runs to the end and returns the new tokens of every sequence.
    pub fn run(mut self) -> Vec<Vec<u32>> {
        let mut texts = vec![Vec::new(); self.rows.len()];
        while !self.is_done() {
            for (text, fresh) in texts.iter_mut().zip(self.step()) {
                text.extend(fresh);
            }
        }
        texts
    }

    /// One chunk for every sequence, at the sampler's temperature.
    fn draw_chunks(&mut self) -> Vec<Vec<u32>> {
        let (batch, pool) = (self.rows.len(), self.options.sampler.pool());
        let head = &self.model.language_model.head;
        let latent = head.sample(self.hidden.clone(), pool, &mut self.draws); // [pool, batch, l]
        let l = latent.dims()[2];
        let autoencoder = &self.model.autoencoder;
        let latent = latent.swap_dims(0, 1).reshape([batch * pool, l]);
        let tokens = read_tokens(autoencoder.decode(latent));
        let chunks: Vec<&[u32]> = tokens.chunks_exact(autoencoder.chunk_size()).collect();
        chunks
            .chunks_exact(pool)
            .map(|pool| pool[self.options.sampler.choose(pool, &mut self.choice)].to_vec())
            .collect()
    }

    /// Feeds the new chunks back.
    fn advance(&mut self, chunks: &[Vec<u32>]) {
        for (row, chunk) in self.rows.iter_mut().zip(chunks) {
            row.context.push_back(chunk.clone());
        }
        if self.cache.room() == 0 {
            return self.prefill();
        }
        let k = self.model.autoencoder.chunk_size();
        let tokens = chunk_tensor(&chunks.concat(), self.rows.len(), k, self.device);
        self.feed(tokens);
    }

    /// Builds the cache from the contexts, cut to their last half when the window is full.
    fn prefill(&mut self) {
        self.cache.clear();
        let capacity = self.cache.room();
        let longest = self
            .rows
            .iter()
            .map(|row| row.context.len())
            .max()
            .unwrap_or(0);
        if longest > capacity {
            let keep = (capacity / 2).max(1);
            for row in &mut self.rows {
                let surplus = row.context.len().saturating_sub(keep);
                row.context.drain(..surplus);
            }
        }
        let longest = self
            .rows
            .iter()
            .map(|row| row.context.len())
            .max()
            .unwrap_or(0);
        let k = self.model.autoencoder.chunk_size();
        self.fillers = self
            .rows
            .iter()
            .map(|row| longest - row.context.len())
            .collect();
        let mut tokens = Vec::with_capacity(self.rows.len() * longest * k);
        for (row, &fillers) in self.rows.iter().zip(&self.fillers) {
            tokens.extend(std::iter::repeat_n(self.options.end_of_text, fillers * k));
            tokens.extend(row.context.iter().flatten());
        }
        let tokens = chunk_tensor(&tokens, self.rows.len(), k, self.device);
        self.feed(tokens);
    }

    fn feed(&mut self, tokens: Tensor<3, Int>) {
        let backbone = &self.model.language_model.backbone;
        let hidden = backbone.step(tokens, &self.fillers, &mut self.cache);
        let [_, steps, _] = hidden.dims();
        self.hidden = hidden.narrow(1, steps - 1, 1).squeeze_dim(1);
    }
}

impl Row {
    /// The tokens of `chunk` that belong to the text.
    fn accept(&mut self, chunk: &[u32], options: &GenerateOptions) -> Vec<u32> {
        if self.stop.is_some() {
            return Vec::new();
        }
        let mut fresh = chunk.to_vec();
        if let Some(end) = fresh.iter().position(|&token| token == options.end_of_text) {
            fresh.truncate(end);
            self.stop = Some(Stop::EndOfText);
        }
        let room = options.max_tokens - self.generated;
        if fresh.len() >= room {
            fresh.truncate(room);
            self.stop = Some(Stop::Limit);
        }
        self.generated += fresh.len();
        fresh
    }
}
