//! Plain cached decoding: one forward pass per token.

use burn::tensor::{Device, Tensor};
use calm_kernels::ArgmaxTable;
use calm_nn::{Decoding, Limits, NextToken, PromptError, RandomStream, Stop, mix};

use crate::TokenSampler;

/// Generates texts for a batch of prompts of any lengths, one token of each at a step.
#[derive(Debug)]
pub struct TokenGenerator<'a, M: NextToken> {
    model: &'a M,
    decoding: Decoding<'a, M>,
    sampler: TokenSampler,
    /// At temperature 0.
    greedy: Option<ArgmaxTable>,
    /// One stream per text, so that a text does not depend on its neighbours.
    random: Vec<RandomStream>,
}

impl<'a, M: NextToken> TokenGenerator<'a, M> {
    /// Reads the prompts (token ids; an empty one is allowed) and is ready to draw. A model that
    /// reads chunks somewhere wants a `lead_in`, see [`Decoding::new`].
    ///
    /// # Errors
    /// A prompt longer than the window, or a token outside the vocabulary.
    pub fn new(
        model: &'a M,
        sampler: TokenSampler,
        limits: Limits,
        lead_in: &[u32],
        prompts: &[Vec<u32>],
        seed: u64,
        device: &'a Device,
    ) -> Result<Self, PromptError> {
        Ok(Self {
            model,
            decoding: Decoding::new(model, limits, lead_in, prompts, device)?,
            sampler,
            greedy: sampler.is_greedy().then(|| model.greedy_table()),
            random: (0..prompts.len())
                .map(|row| RandomStream::new(mix(seed, row as u64)))
                .collect(),
        })
    }

    /// The same, with the draws of texts `first`, `first + 1`, .. of a batch, of which this is a part.
    pub fn as_rows_from(mut self, first: usize, seed: u64) -> Self {
        let rows = first..first + self.random.len();
        self.random = rows
            .map(|row| RandomStream::new(mix(seed, row as u64)))
            .collect();
        self
    }

    /// Draws the next token of every text and returns what belongs to each: nothing for those
    /// that have ended.
    pub fn step(&mut self) -> Vec<Vec<u32>> {
        let hidden = self.decoding.hidden();
        let drawn = match &self.greedy {
            Some(table) => best_tokens(table, hidden),
            None => {
                let logits = read(self.model.logits(hidden));
                self.sampler.draw_rows(logits, &mut self.random)
            }
        };
        let drawn: Vec<Vec<u32>> = drawn.into_iter().map(|token| vec![token]).collect();
        self.decoding.push(&drawn)
    }

    /// Whether every text has ended.
    pub fn is_done(&self) -> bool {
        self.decoding.is_done()
    }

    /// Tokens drawn per text so far, one a step.
    pub fn steps(&self) -> usize {
        self.decoding.steps()
    }

    /// Why text `row` ended, if it has.
    pub fn stop(&self, row: usize) -> Option<Stop> {
        self.decoding.stop(row)
    }

    /// Runs to the end and returns the new tokens of every text.
    pub fn run(mut self) -> Vec<Vec<u32>> {
        let mut texts = vec![Vec::new(); self.decoding.batch()];
        while !self.is_done() {
            for (text, fresh) in texts.iter_mut().zip(self.step()) {
                text.extend(fresh);
            }
        }
        texts
    }
}

/// The most likely token after each hidden state `[rows, d]`.
pub(crate) fn best_tokens(table: &ArgmaxTable, hidden: Tensor<2>) -> Vec<u32> {
    table.search(hidden).into_data().iter::<u32>().collect()
}

/// A matrix on the host.
fn read(matrix: Tensor<2>) -> Vec<f32> {
    let values = matrix.into_data().convert::<f32>();
    values
        .try_into_vec()
        .expect("what was converted to f32 is f32")
}

/// A matrix on the host, row by row.
pub(crate) fn read_rows(matrix: Tensor<2>) -> Vec<Vec<f32>> {
    let [_, width] = matrix.dims();
    read(matrix)
        .chunks_exact(width)
        .map(<[f32]>::to_vec)
        .collect()
}
