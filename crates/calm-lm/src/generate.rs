//! Generation, one chunk a step.

use burn::tensor::Device;
use calm_autoencoder::GreedyDecoder;
use calm_backbone::Backbone;
use calm_likelihood_free::{BatchSampler, GenerativeHead};
use calm_nn::{Decoding, HostDraws, Limits, RandomStream, Stop, mix};

use crate::pool::choose;
use crate::{CalmModel, ModelConfig, Result};

/// How to generate.
#[derive(Clone, Copy, Debug)]
pub struct GenerateOptions<'a> {
    /// The temperature sampler.
    pub sampler: BatchSampler,
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
    sampler: BatchSampler,
    draws: HostDraws,
    choice: RandomStream,
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
        let (batch, pool) = (self.decoding.batch(), self.sampler.pool());
        let head = &self.model.language_model.head;
        let latent = head.sample(self.decoding.hidden(), pool, &mut self.draws); // [pool, batch, l]
        let l = latent.dims()[2];
        let latent = latent.swap_dims(0, 1).reshape([batch * pool, l]);
        let k = self.model.autoencoder.chunk_size();
        choose(&self.decoder, k, latent, &self.sampler, &mut self.choice)
    }
}
