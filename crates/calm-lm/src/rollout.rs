//! Drawing the next tokens at every start of a window, for BrierLM.

use burn::tensor::{Device, Int, Tensor, TensorData};
use calm_autoencoder::GreedyDecoder;
use calm_likelihood_free::{GenerativeHead, MAX_N, Rollout, Start};
use calm_nn::{CachedModel, Draws, TextBranches, TextCache, chunk_tensor};

use crate::CalmModel;

/// [`Rollout`] of a [`CalmModel`] without autodiff.
#[derive(Debug)]
pub struct CalmRollout<'a> {
    model: &'a CalmModel,
    decoder: GreedyDecoder<'a>,
    device: &'a Device,
    every: usize,
}

impl<'a> CalmRollout<'a> {
    /// Rolls out `model`, which lives on `device`; good for many windows.
    pub fn new(model: &'a CalmModel, device: &'a Device) -> Self {
        let every = model.autoencoder.chunk_size();
        Self {
            model,
            decoder: model.autoencoder.greedy(),
            device,
            every,
        }
    }

    /// Scores only the positions that are multiples of `every` tokens: models of different K can
    /// so be compared on the same positions.
    ///
    /// # Panics
    /// Where `every` is no multiple of K.
    pub fn every(mut self, every: usize) -> Self {
        let k = self.model.autoencoder.chunk_size();
        assert!(
            every > 0 && every.is_multiple_of(k),
            "a chunk of {k} tokens begins at no multiple of {every}"
        );
        self.every = every;
        self
    }
}

/// Token ids of an integer tensor, row-major.
pub(crate) fn read_tokens<const D: usize>(tokens: Tensor<D, Int>) -> Vec<u32> {
    tokens
        .into_data()
        .iter::<i64>()
        .map(|token| token as u32)
        .collect()
}

/// A draw that still can agree with something: which start, which draw.
#[derive(Clone, Copy, PartialEq)]
struct Alive {
    start: usize,
    draw: usize,
}

impl Rollout for CalmRollout<'_> {
    fn roll_out(&mut self, window: &[u32], draws: usize, random: &mut dyn Draws) -> Vec<Start> {
        let k = self.model.autoencoder.chunk_size();
        let last = window.len().saturating_sub(MAX_N) / self.every * (self.every / k);
        if last == 0 {
            return Vec::new();
        }
        // Chunks that each start has seen.
        let prefixes: Vec<usize> = (1..=last)
            .filter(|chunks| (chunks * k).is_multiple_of(self.every))
            .collect();
        let starts = prefixes.len();
        let language_model = &self.model.language_model;
        let seen = &window[..last * k];
        let mut cache = language_model.backbone.cache(1, last, self.device);
        let tokens = chunk_tensor(seen, 1, k, self.device);
        let hidden = language_model
            .backbone
            .step(tokens, &[0], &mut cache)
            .squeeze_dim::<2>(0);
        let rows: Vec<i64> = prefixes.iter().map(|&chunks| chunks as i64 - 1).collect();
        let rows = Tensor::<1, Int>::from_ints(rows.as_slice(), self.device);
        let hidden = hidden.select(0, rows);
        let latent = language_model.head.sample(hidden, draws, random); // [draws, starts, l]
        let l = latent.dims()[2];
        let mut result: Vec<Start> = prefixes
            .iter()
            .map(|chunks| Start {
                target: std::array::from_fn(|j| window[chunks * k + j]),
                draws: vec![Vec::with_capacity(MAX_N); draws],
            })
            .collect();
        let all: Vec<Alive> = (0..starts)
            .flat_map(|start| (0..draws).map(move |draw| Alive { start, draw }))
            .collect();
        let latent = latent.swap_dims(0, 1).reshape([starts * draws, l]);
        self.decode(&mut result, &all, latent);

        if k < MAX_N {
            // Attention scores of a block of starts, should all of their draws go on.
            let per_start = draws * last * language_model.backbone.transformer.heads();
            let block = (SCORES_AT_ONCE / per_start).max(1);
            for first in (0..starts).step_by(block) {
                let block = first..starts.min(first + block);
                self.go_on(&mut result[block.clone()], &prefixes[block], &cache, random);
            }
        }
        result
    }
}

/// Attention scores that a rollout makes at once: 64 MiB of f32.
const SCORES_AT_ONCE: usize = 1 << 24;

impl CalmRollout<'_> {
    /// Appends the tokens of the latents `[alive.len(), l]` to their draws, position by position:
    /// a draw that stands alone is decoded no further, and none beyond the longest n-gram.
    fn decode(&self, starts: &mut [Start], alive: &[Alive], latent: Tensor<2>) {
        let Some(first) = alive.first() else { return };
        let length = starts[first.start].draws[first.draw].len();
        let begun = self.decoder.begin(latent);
        let k = self.model.autoencoder.chunk_size();
        let mut going = alive.to_vec();
        for position in 0..k.min(MAX_N - length) {
            if position > 0 {
                going = agreeing(starts, length + position);
            }
            if going.is_empty() {
                break;
            }
            let tokens = begun.tokens(position..position + 1, &rows_of(&going, alive));
            for (a, token) in going.iter().zip(read_tokens(tokens)) {
                starts[a.start].draws[a.draw].push(token);
            }
        }
    }

    /// Chunks shorter than an n-gram: goes on along every draw that is not yet alone. Start i has
    /// seen the first `prefixes[i]` chunks of the cached window.
    fn go_on(
        &self,
        starts: &mut [Start],
        prefixes: &[usize],
        cache: &TextCache,
        random: &mut dyn Draws,
    ) {
        let k = self.model.autoencoder.chunk_size();
        let language_model = &self.model.language_model;
        let mut branches = TextBranches::default();
        let mut previous: Option<Vec<Alive>> = None;
        for length in (k..MAX_N).step_by(k) {
            let alive: Vec<Alive> = agreeing(starts, length);
            if alive.is_empty() {
                break;
            }
            if let Some(previous) = &previous {
                branches.select(&rows_of(&alive, previous), self.device);
            }
            let last: Vec<i32> = alive
                .iter()
                .flat_map(|a| &starts[a.start].draws[a.draw][length - k..])
                .map(|&token| token as i32)
                .collect();
            let tokens = Tensor::from_data(TensorData::new(last, [alive.len(), k]), self.device);
            let prefix: Vec<usize> = alive.iter().map(|a| prefixes[a.start]).collect();
            let hidden = language_model
                .backbone
                .branch(tokens, &prefix, cache, &mut branches);
            let latent = language_model
                .head
                .sample(hidden, 1, random)
                .squeeze_dim::<2>(0);
            self.decode(starts, &alive, latent);
            previous = Some(alive);
        }
    }
}

/// Where the draws `some` stand among `all`: both in order, and draws only ever drop out.
fn rows_of(some: &[Alive], all: &[Alive]) -> Vec<usize> {
    let mut row = 0;
    some.iter()
        .map(|a| {
            while all[row] != *a {
                row += 1;
            }
            row
        })
        .collect()
}

/// Draws of full `length` that agree so far with their target or with another draw.
fn agreeing(starts: &[Start], length: usize) -> Vec<Alive> {
    let mut alive = Vec::new();
    for (start, at) in starts.iter().enumerate() {
        let whole = |i: usize| at.draws[i].get(..length);
        for (draw, tokens) in at.draws.iter().enumerate() {
            let Some(tokens) = tokens.get(..length) else {
                continue;
            };
            let met = tokens == &at.target[..length]
                || (0..at.draws.len()).any(|i| i != draw && whole(i) == Some(tokens));
            if met {
                alive.push(Alive { start, draw });
            }
        }
    }
    alive
}
