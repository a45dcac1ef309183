//! From hidden states to the vocabulary.

use burn::nn::{Embedding, Linear};
use burn::tensor::{Int, Tensor};
use calm_kernels::{ArgmaxTable, Projection, cross_entropy};

use crate::linear;

/// The last layer of a model with probabilities: a matrix of its own, or the embedding table.
#[derive(Clone, Copy, Debug)]
pub enum OutputLayer<'a> {
    /// `[d, V]`, without bias.
    Own(&'a Linear),
    /// The token table `[V, d]`, transposed.
    Tied(&'a Embedding),
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
