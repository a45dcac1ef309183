//! Decoding to the most likely tokens, as evaluation and generation do all the time, or to drawn ones.

use std::ops::Range;

use burn::tensor::{Int, Tensor};
use calm_kernels::{ArgmaxTable, draw_softmax};
use calm_nn::{OutputLayer, RandomStream};

use super::ChunkAutoencoder;

/// The decoder of a [`ChunkAutoencoder`] with its embedding table prepared for the search: make it
/// once and use it as long as the weights stay.
#[derive(Debug)]
pub struct GreedyDecoder<'a> {
    autoencoder: &'a ChunkAutoencoder,
    table: ArgmaxTable,
}

impl<'a> GreedyDecoder<'a> {
    pub(crate) fn new(autoencoder: &'a ChunkAutoencoder) -> Self {
        let table = ArgmaxTable::new(autoencoder.encoder.embedding.weight.val());
        Self { autoencoder, table }
    }

    /// The most likely token at each position of each chunk; the scores never stand in memory.
    ///
    /// # Shapes
    /// - latent: `[chunks, l]`
    /// - output: `[chunks, K]`
    pub fn decode(&self, latent: Tensor<2>) -> Tensor<2, Int> {
        let [chunks, _] = latent.dims();
        let best = self.table.search(self.autoencoder.decoder.hidden(latent));
        best.reshape([chunks, self.autoencoder.chunk_size()])
    }

    /// Begins to decode, for callers that may not want every position of every chunk.
    ///
    /// # Shapes
    /// - latent: `[chunks, l]`
    pub fn begin(&self, latent: Tensor<2>) -> BegunChunks<'_> {
        BegunChunks {
            decoder: self,
            expanded: self.autoencoder.decoder.expanded(latent),
        }
    }
}

/// Scores that drawing makes at once: 64 MiB of f32.
const SCORES_AT_ONCE: usize = 1 << 24;

/// Chunks whose positions can be decoded one by one: a position is most of the work, and no
/// position sees another.
#[derive(Debug)]
pub struct BegunChunks<'a> {
    decoder: &'a GreedyDecoder<'a>,
    /// `[chunks, K, d]`
    expanded: Tensor<3>,
}

impl BegunChunks<'_> {
    /// Begins others, which follow those that are there.
    ///
    /// # Shapes
    /// - latent: `[chunks, l]`
    pub fn extend(&mut self, latent: Tensor<2>) {
        let more = self.decoder.autoencoder.decoder.expanded(latent);
        self.expanded = Tensor::cat(vec![self.expanded.clone(), more], 0);
    }

    /// The most likely tokens at some positions of some chunks, which are named in increasing order.
    ///
    /// # Shapes
    /// - output: `[chunks.len(), positions.len()]`
    ///
    /// # Panics
    /// Where a position or a chunk does not exist.
    pub fn tokens(&self, positions: Range<usize>, chunks: &[usize]) -> Tensor<2, Int> {
        let count = positions.len();
        let best = self.decoder.table.search(self.hidden(positions, chunks));
        best.reshape([chunks.len(), count])
    }

    /// Tokens drawn from the decoder's probabilities instead, each by a number of its own; those of a
    /// chunk side by side.
    ///
    /// # Panics
    /// Where a position or a chunk does not exist.
    pub fn draw(
        &self,
        positions: Range<usize>,
        chunks: &[usize],
        random: &mut RandomStream,
    ) -> Vec<u32> {
        let hidden = self.hidden(positions, chunks);
        let output = OutputLayer::Tied(&self.decoder.autoencoder.encoder.embedding);
        let some = (SCORES_AT_ONCE / self.decoder.table.len()).max(1);
        let drawn = hidden.split(some, 0).into_iter().flat_map(|hidden| {
            let scores = output.logits(hidden);
            let uniforms: Vec<f64> = (0..scores.dims()[0]).map(|_| random.unit()).collect();
            let mut scores: Vec<f32> = scores.into_data().iter().collect();
            draw_softmax(&mut scores, 1.0, &uniforms)
        });
        drawn.collect()
    }

    /// What scores are made from, `[chunks.len() * positions.len(), d]`.
    fn hidden(&self, positions: Range<usize>, chunks: &[usize]) -> Tensor<2> {
        let [all, _, d] = self.expanded.dims();
        let x = self.expanded.clone();
        let x = x.narrow(1, positions.start, positions.len());
        let x = if chunks.len() == all {
            x
        } else {
            let rows: Vec<i32> = chunks.iter().map(|&chunk| chunk as i32).collect();
            let rows = Tensor::from_ints(rows.as_slice(), &x.device());
            x.select(0, rows)
        };
        let x = x.reshape([chunks.len() * positions.len(), d]);
        self.decoder.autoencoder.decoder.per_token(x)
    }
}
