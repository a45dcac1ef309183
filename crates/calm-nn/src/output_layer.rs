//! From hidden states to the vocabulary.

use burn::nn::{Embedding, Linear};
use burn::tensor::{Int, Tensor};
use calm_kernels::{ArgmaxTable, Projection, cross_entropy};

use crate::{PartMemory, f32_bytes, linear};

/// The last layer of a model with probabilities: a matrix of its own, or the embedding table.
#[derive(Clone, Copy, Debug)]
pub enum OutputLayer<'a> {
    /// `[d, V]`, without bias.
    Own(&'a Linear),
    /// The token table `[V, d]`, transposed.
    Tied(&'a Embedding),
}

/// What training holds of a cross-entropy of `rows` rows over a vocabulary and of its matrix, which counts
/// here where it is the embedding table too.
///
/// The kernel makes both gradients in the forward pass and keeps them; of scores it holds 16 MiB at most,
/// on GPUs 256 MiB (calm_kernels::cross_entropy).
pub fn cross_entropy_memory(rows: usize, d: usize, vocab: usize) -> PartMemory {
    /// Numbers that the kernel of the CPU executor makes at once.
    const SCORES: usize = 1 << 22;
    let table = f32_bytes(vocab * d);
    let scores = vocab * (SCORES / vocab).clamp(1, rows.max(1)).min(rows);
    PartMemory {
        parameters: table,
        largest: table,
        kept: f32_bytes(rows * d) + table,
        forward: f32_bytes(rows * d + scores),
        // Both, times the gradient of the loss.
        backward: f32_bytes(rows * d) + table,
    }
}

impl<'a> OutputLayer<'a> {
    /// `output`, or where it is missing `embedding`.
    pub fn new(output: Option<&'a Linear>, embedding: &'a Embedding) -> Self {
        output.map_or(Self::Tied(embedding), Self::Own)
    }

    /// Scores of the tokens.
    ///
    /// # Shapes
    /// - hidden: `[rows, d]`
    /// - output: `[rows, V]`
    pub fn logits(self, hidden: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Own(output) => linear(output, hidden),
            Self::Tied(table) => calm_kernels::linear_by_table(hidden, table.weight.val()),
        }
    }

    /// Mean cross-entropy, in nats, of predicting `targets` from `hidden`.
    ///
    /// # Shapes
    /// - hidden: `[rows, d]`
    /// - targets: `[rows]`
    /// - output: `[1]`
    pub fn loss(self, hidden: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
        let projection = match self {
            Self::Own(output) => Projection::Output(output.weight.val()),
            Self::Tied(table) => Projection::Embedding(table.weight.val()),
        };
        cross_entropy(hidden, projection, targets)
    }

    /// Prepared for the search of the most likely token, which makes no scores.
    pub fn greedy_table(self) -> ArgmaxTable {
        match self {
            Self::Own(output) => ArgmaxTable::of_output(output.weight.val()),
            Self::Tied(table) => ArgmaxTable::new(table.weight.val()),
        }
    }
}
