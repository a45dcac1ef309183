//! Timed decoding at batch 1, each way once.

use std::time::Instant;

use burn::tensor::Device;
use calm_baseline::{
    Drafter, SpeculationStats, SpeculativeGenerator, TokenGenerator, TokenModel, TokenSampler,
};
use calm_likelihood_free::BatchSampler;
use calm_lm::{CalmModel, GenerateOptions, Generator, ModelConfig};
use calm_nn::{Limits, NextToken, RandomStream, chunk_tensor};

use crate::spec::SpeedConfig;
use crate::speed::NEVER;

/// What a timed decoding gave.
pub(crate) struct Run {
    pub seconds: f64,
    pub tokens: f64,
    pub steps: f64,
    pub draft_steps: Option<f64>,
    pub acceptance: Option<f64>,
}

/// What every timed decoding shares.
pub(crate) struct Bench<'a> {
    pub speed: &'a SpeedConfig,
    pub device: &'a Device,
    pub text: &'a [u32],
    pub window: usize,
    pub sampler: TokenSampler,
}

impl Run {
    fn without_draft(begun: Instant, tokens: usize, steps: usize) -> Self {
        Self {
            seconds: begun.elapsed().as_secs_f64(),
            tokens: tokens as f64,
            steps: steps as f64,
            draft_steps: None,
            acceptance: None,
        }
    }
}

impl Bench<'_> {
    pub(crate) fn prompt(&self, round: usize) -> Vec<u32> {
        let length = self.speed.prompt_tokens;
        let start = round * 977 * length % (self.text.len() - length + 1);
        self.text[start..start + length].to_vec()
    }

    fn limits(&self) -> Limits {
        Limits {
            window: self.window,
            max_tokens: self.speed.tokens,
            end_of_text: NEVER,
        }
    }

    pub(crate) fn uncached(&self, model: &TokenModel, prompt: &[u32], seed: u64) -> Run {
        let begun = Instant::now();
        let mut random = RandomStream::new(seed);
        let mut text = prompt.to_vec();
        for _ in 0..self.speed.tokens {
            let seen = &text[text.len().saturating_sub(self.window)..];
            let tokens = chunk_tensor(seen, 1, 1, self.device).squeeze_dim::<2>(2);
            let hidden = model.hidden(tokens);
            let last = hidden.narrow(1, seen.len() - 1, 1).squeeze_dim::<2>(1);
            let logits: Vec<f32> = model.logits(last).into_data().iter::<f32>().collect();
            text.push(self.sampler.draw(&logits, &mut random));
        }
        Run::without_draft(begun, self.speed.tokens, self.speed.tokens)
    }

    /// Plain decoding with a cache, of a model with probabilities.
    pub(crate) fn cached<M: NextToken>(&self, model: &M, prompt: &[u32], seed: u64) -> Run {
        let begun = Instant::now();
        let prompts = [prompt.to_vec()];
        let (limits, device) = (self.limits(), self.device);
        let mut generator =
            TokenGenerator::new(model, self.sampler, limits, &[], &prompts, seed, device)
                .expect("the prompt fits the window");
        let mut tokens = 0;
        while !generator.is_done() {
            tokens += generator.step()[0].len();
        }
        Run::without_draft(begun, tokens, generator.steps())
    }

    pub(crate) fn speculative(
        &self,
        model: &TokenModel,
        drafter: impl Drafter,
        prompt: &[u32],
        seed: u64,
    ) -> Run {
        let begun = Instant::now();
        let (limits, device) = (self.limits(), self.device);
        let generator = SpeculativeGenerator::new(
            model,
            drafter,
            4,
            self.sampler,
            limits,
            prompt,
            seed,
            device,
        )
        .expect("the prompt fits the window");
        let (text, stats): (Vec<u32>, SpeculationStats) = generator.run();
        Run {
            seconds: begun.elapsed().as_secs_f64(),
            tokens: text.len() as f64,
            steps: stats.target_passes as f64,
            draft_steps: (stats.draft_passes > 0).then_some(stats.draft_passes as f64),
            acceptance: Some(stats.acceptance()),
        }
    }

    pub(crate) fn calm(
        &self,
        model: &CalmModel,
        config: &ModelConfig,
        prompt: &[u32],
        seed: u64,
    ) -> Run {
        let begun = Instant::now();
        let options = GenerateOptions {
            sampler: BatchSampler::new(1.0, 1)
                .expect("a temperature of 1 needs no pool")
                .into(),
            max_tokens: self.speed.tokens,
            end_of_text: NEVER,
            lead_in: &[],
            seed,
        };
        let prompts = [prompt.to_vec()];
        let mut generator = Generator::new(model, config, &prompts, options, self.device)
            .expect("the prompt fits the window");
        let mut tokens = 0;
        while !generator.is_done() {
            tokens += generator.step()[0].len();
        }
        Run::without_draft(begun, tokens, generator.steps())
    }
}
