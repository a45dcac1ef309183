//! Speculative decoding: a drafter proposes, the target verifies all proposals in one pass.
//!
//! Leviathan, Kalman, Matias (arXiv 2211.17192), Chen and others (arXiv 2302.01318). The text has
//! exactly the distribution of plain sampling from the target, whatever the drafter.

use burn::tensor::Device;
use calm_kernels::ArgmaxTable;
use calm_nn::{Limits, NextToken, PromptError, RandomStream, StepCache, Stop, chunk_tensor};

use crate::TokenSampler;
use crate::draft::{Drafter, Proposal};
use crate::generate::{best_tokens, read_rows};
use crate::sampler::draw_from;

/// What speculation cost and brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpeculationStats {
    /// Forward passes of the target after the prompt's.
    pub target_passes: usize,
    /// Forward passes of the draft model, its reading of the prompt included.
    pub draft_passes: usize,
    /// Tokens proposed.
    pub proposed: usize,
    /// Proposals accepted.
    pub accepted: usize,
    /// Tokens generated, up to the stop.
    pub tokens: usize,
}

impl SpeculationStats {
    /// Share of the proposals that was accepted; 0 where there were none.
    pub fn acceptance(&self) -> f64 {
        self.accepted as f64 / self.proposed.max(1) as f64
    }

    /// Target passes per generated token: below 1 where speculation pays in steps.
    pub fn steps_per_token(&self) -> f64 {
        self.target_passes as f64 / self.tokens.max(1) as f64
    }
}

/// Generates one text with speculation.
#[derive(Debug)]
pub struct SpeculativeGenerator<'a, M: NextToken, D> {
    model: &'a M,
    drafter: D,
    sampler: TokenSampler,
    /// At temperature 0.
    greedy: Option<ArgmaxTable>,
    limits: Limits,
    /// Tokens proposed per pass.
    lookahead: usize,
    device: &'a Device,
    random: RandomStream,
    cache: M::Cache,
    /// The context; all of it but the last token is cached.
    context: Vec<u32>,
    stats: SpeculationStats,
    stop: Option<Stop>,
}

impl<'a, M: NextToken, D: Drafter> SpeculativeGenerator<'a, M, D> {
    /// Reads the prompt (token ids; an empty one becomes end-of-text). `lookahead` tokens are
    /// proposed before each pass of the target.
    ///
    /// # Errors
    /// A prompt longer than the window, or a token outside the vocabulary.
    #[allow(clippy::too_many_arguments)] // Each is a decision of its own.
    pub fn new(
        model: &'a M,
        drafter: D,
        lookahead: usize,
        sampler: TokenSampler,
        limits: Limits,
        prompt: &[u32],
        seed: u64,
        device: &'a Device,
    ) -> Result<Self, PromptError> {
        PromptError::check(prompt, limits.window, model.vocab_size())?;
        let context = match prompt {
            [] => vec![limits.end_of_text],
            prompt => prompt.to_vec(),
        };
        let mut generator = Self {
            model,
            drafter,
            sampler,
            greedy: sampler.is_greedy().then(|| model.greedy_table()),
            limits,
            lookahead,
            device,
            random: RandomStream::new(seed),
            cache: model.cache(1, limits.window, device),
            context,
            stats: SpeculationStats::default(),
            stop: None,
        };
        generator.read_all_but_last();
        Ok(generator)
    }

    /// One pass of the target: the tokens that it settles, at least one, up to the text's end.
    pub fn step(&mut self) -> Vec<u32> {
        if self.stop.is_some() {
            return Vec::new();
        }
        if self.context.len() > self.limits.window {
            // The window is full: go on from its last half, as plain decoding does.
            let keep = (self.limits.window / 2).max(1);
            self.context.drain(..self.context.len() - keep);
            self.read_all_but_last();
        }
        let room = self.limits.window - self.context.len();
        let left = self.limits.max_tokens.saturating_sub(self.stats.tokens);
        // The pass itself settles one token beside the proposals.
        let n = self.lookahead.min(room).min(left.saturating_sub(1));
        let mut proposals = match n {
            0 => Vec::new(),
            n => self.drafter.draft(&self.context, n, &mut self.random),
        };
        proposals.truncate(n);
        self.stats.draft_passes = self.drafter.passes();
        let (accepted, next) = self.verify(&proposals);
        self.stats.target_passes += 1;
        self.stats.proposed += proposals.len();
        self.stats.accepted += accepted;
        let settled = proposals[..accepted].iter().map(|p| p.token).chain([next]);
        let fresh = self.accept(settled.collect());
        // What was read of the rejected proposals is forgotten.
        self.cache.truncate(self.context.len().saturating_sub(1));
        fresh
    }

    /// What it cost so far.
    pub fn stats(&self) -> SpeculationStats {
        self.stats
    }

    /// Why the text ended, if it has.
    pub fn stop(&self) -> Option<Stop> {
        self.stop
    }

    /// Runs to the end: the new tokens and what they cost.
    pub fn run(mut self) -> (Vec<u32>, SpeculationStats) {
        let mut text = Vec::new();
        while self.stop.is_none() {
            text.extend(self.step());
        }
        (text, self.stats)
    }

    /// How many of the proposals stand, and the token after them.
    ///
    /// Proposal x drawn from q stands with probability `min(1, p(x) / q(x))`, p the target's
    /// distribution; the first that falls is replaced by a draw from `max(p - q, 0)`.
    fn verify(&mut self, proposals: &[Proposal]) -> (usize, u32) {
        let last = *self.context.last().expect("a context is never empty");
        let read: Vec<u32> = std::iter::once(last)
            .chain(proposals.iter().map(|p| p.token))
            .collect();
        let tokens = chunk_tensor(&read, 1, 1, self.device);
        let hidden = self.model.step(tokens, &[0], &mut self.cache);
        let hidden = hidden.squeeze_dim::<2>(0);
        if let Some(table) = &self.greedy {
            let best = best_tokens(table, hidden);
            let stand = proposals
                .iter()
                .zip(&best)
                .take_while(|(p, best)| p.token == **best);
            let stand = stand.count();
            return (stand, best[stand]);
        }
        let rows = read_rows(self.model.logits(hidden));
        for (i, (proposal, row)) in proposals.iter().zip(&rows).enumerate() {
            let mut p = self.sampler.distribution(row);
            let x = proposal.token as usize;
            let q = proposal.distribution.as_ref().map_or(1.0, |q| q[x]);
            if self.random.unit() * q < p[x] {
                continue;
            }
            let rest: Vec<f64> = match &proposal.distribution {
                Some(q) => p.iter().zip(q).map(|(p, q)| (p - q).max(0.0)).collect(),
                None => {
                    p[x] = 0.0;
                    p.clone()
                }
            };
            // Rounding can leave nothing where p and q are the same distribution.
            let rest = if rest.iter().all(|&r| r == 0.0) {
                p
            } else {
                rest
            };
            return (i, draw_from(&rest, &mut self.random));
        }
        let p = self.sampler.distribution(&rows[proposals.len()]);
        (proposals.len(), draw_from(&p, &mut self.random))
    }

    /// Appends settled tokens up to the text's end and returns those that belong to it.
    fn accept(&mut self, mut settled: Vec<u32>) -> Vec<u32> {
        let end = settled.iter().position(|&t| t == self.limits.end_of_text);
        if let Some(end) = end {
            settled.truncate(end);
            self.stop = Some(Stop::EndOfText);
        }
        let left = self.limits.max_tokens.saturating_sub(self.stats.tokens);
        if settled.len() >= left {
            settled.truncate(left);
            self.stop = Some(Stop::Limit);
        }
        self.stats.tokens += settled.len();
        self.context.extend_from_slice(&settled);
        settled
    }

    fn read_all_but_last(&mut self) {
        self.cache.clear();
        let (_, before) = self.context.split_last().expect("a context is never empty");
        if !before.is_empty() {
            let tokens = chunk_tensor(before, 1, 1, self.device);
            self.model.step(tokens, &[0], &mut self.cache);
        }
    }
}
