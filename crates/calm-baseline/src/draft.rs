//! What proposes tokens for speculative decoding.

use burn::tensor::Device;
use calm_nn::{NextToken, RandomStream, StepCache, chunk_tensor};

use crate::TokenSampler;
use crate::generate::read_rows;
use crate::sampler::draw_from;

/// A proposed token and the distribution that it was drawn from.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    /// The token.
    pub token: u32,
    /// Its distribution over the vocabulary; `None` where the token was not drawn but looked up,
    /// which is a distribution with all its mass on the token.
    pub distribution: Option<Vec<f64>>,
}

/// Proposes how a text may go on.
pub trait Drafter {
    /// Up to `n` tokens that may follow `context`; fewer, or none, where nothing is known.
    fn draft(&mut self, context: &[u32], n: usize, random: &mut RandomStream) -> Vec<Proposal>;

    /// Forward passes of a draft model so far.
    fn passes(&self) -> usize {
        0
    }
}

impl<D: Drafter + ?Sized> Drafter for Box<D> {
    fn draft(&mut self, context: &[u32], n: usize, random: &mut RandomStream) -> Vec<Proposal> {
        (**self).draft(context, n, random)
    }

    fn passes(&self) -> usize {
        (**self).passes()
    }
}

/// Proposes what followed the last occurrence of the context's last tokens: no model, no cost.
#[derive(Clone, Copy, Debug)]
pub struct PromptLookup {
    longest: usize,
}

impl PromptLookup {
    /// Looks for the last `longest` tokens first, then for fewer.
    pub fn new(longest: usize) -> Self {
        Self { longest }
    }
}

impl Drafter for PromptLookup {
    fn draft(&mut self, context: &[u32], n: usize, _random: &mut RandomStream) -> Vec<Proposal> {
        for length in (1..=self.longest.min(context.len().saturating_sub(1))).rev() {
            let (earlier, tail) = context.split_at(context.len() - length);
            // The newest occurrence that ends before the context does.
            let found = (0..earlier.len())
                .rev()
                .find(|&start| &context[start..start + length] == tail);
            if let Some(start) = found {
                return context[start + length..]
                    .iter()
                    .take(n)
                    .map(|&token| Proposal {
                        token,
                        distribution: None,
                    })
                    .collect();
            }
        }
        Vec::new()
    }
}

/// A cheaper model that draws its proposals one by one and knows their probabilities.
#[derive(Debug)]
pub struct ModelDrafter<'a, M: NextToken> {
    model: &'a M,
    sampler: TokenSampler,
    device: &'a Device,
    cache: M::Cache,
    /// The tokens that the cache holds.
    cached: Vec<u32>,
    passes: usize,
}

impl<'a, M: NextToken> ModelDrafter<'a, M> {
    /// A drafter over `model`, for contexts of up to `window` tokens. The nearer `sampler` is to
    /// the target's, the more is accepted; the outcome's distribution does not depend on it.
    pub fn new(model: &'a M, sampler: TokenSampler, window: usize, device: &'a Device) -> Self {
        Self {
            model,
            sampler,
            device,
            cache: model.cache(1, window, device),
            cached: Vec::new(),
            passes: 0,
        }
    }

    /// Scores of the token after `context`, reading only what the cache does not hold.
    fn next_scores(&mut self, context: &[u32]) -> Vec<f32> {
        let same = self
            .cached
            .iter()
            .zip(context)
            .take_while(|(a, b)| a == b)
            .count()
            .min(context.len() - 1);
        // A cache may have forgotten what is needed to go on from there.
        let same = self.cache.truncate(same);
        self.cached.truncate(same);
        let fresh = &context[same..];
        let tokens = chunk_tensor(fresh, 1, 1, self.device);
        let hidden = self.model.step(tokens, &[0], &mut self.cache);
        self.cached.extend_from_slice(fresh);
        self.passes += 1;
        let last = hidden.narrow(1, fresh.len() - 1, 1).squeeze_dim::<2>(1);
        read_rows(self.model.logits(last)).remove(0)
    }
}

impl<M: NextToken> Drafter for ModelDrafter<'_, M> {
    fn draft(&mut self, context: &[u32], n: usize, random: &mut RandomStream) -> Vec<Proposal> {
        let mut text = context.to_vec();
        let mut proposals = Vec::with_capacity(n);
        for _ in 0..n {
            let scores = self.next_scores(&text);
            let distribution = self.sampler.distribution(&scores);
            let token = draw_from(&distribution, random);
            text.push(token);
            proposals.push(Proposal {
                token,
                distribution: Some(distribution),
            });
        }
        proposals
    }

    fn passes(&self) -> usize {
        self.passes
    }
}
