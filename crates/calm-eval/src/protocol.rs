//! What was evaluated: printed with every score.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The evaluation protocol. Scores are comparable only where all of it is equal: the window
/// alone moves BrierLM by about 30 %.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalConfig {
    /// Windows of the text to score, evenly spread over it.
    pub windows: usize,
    /// Independent draws per start; all pairs are used.
    pub draws: usize,
    /// Positions scored: the multiples of this many tokens; 0 for the multiples of K.
    pub every: usize,
    /// Seed of the draws.
    pub seed: u64,
}

impl EvalConfig {
    /// The stride between scored positions for a chunk size of `k`.
    pub fn stride(&self, k: usize) -> usize {
        if self.every == 0 { k } else { self.every }
    }

    /// Draws to compare with each other.
    pub(crate) fn check_pairs(&self) -> Result<(), EvalError> {
        match self.draws {
            0 | 1 => Err(EvalError::TooFewDraws { draws: self.draws }),
            _ => Ok(()),
        }
    }
}

/// Why nothing was evaluated.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum EvalError {
    /// Pairs need two draws.
    #[error("eval.draws is {draws}; the Brier estimate compares draws with each other: at least 2")]
    TooFewDraws {
        /// What was asked for.
        draws: usize,
    },
    /// A position must begin a chunk.
    #[error(
        "positions that are multiples of {every} tokens don't all begin a chunk of {chunk_size}; score multiples of K"
    )]
    Unaligned {
        /// The stride.
        every: usize,
        /// K.
        chunk_size: usize,
    },
    /// A standard error needs two windows.
    #[error(
        "{available} windows of {window} tokens in the part to score, of which {asked} were asked for; a standard error needs at least 2: use more text, or a larger share (data.validation_fraction, data.test_fraction)"
    )]
    TooFewWindows {
        /// What the text has.
        available: usize,
        /// Tokens per window.
        window: usize,
        /// What was asked for.
        asked: usize,
    },
    /// One of several devices broke off.
    #[error("device '{device}' is lost: {detail}")]
    DeviceLost {
        /// Its string.
        device: String,
        /// What it said.
        detail: String,
    },
    /// No n-gram of four tokens fits behind a chunk.
    #[error("a window of {window} tokens has no start with four tokens to score; use a longer one")]
    WindowTooShort {
        /// Tokens per window.
        window: usize,
    },
}

/// `count` windows of `window` tokens, evenly spread over `tokens`, without overlap.
///
/// # Errors
/// [`EvalError::TooFewWindows`] with fewer than two.
pub fn spread(tokens: &[u32], window: usize, count: usize) -> Result<Vec<&[u32]>, EvalError> {
    let available = tokens.len() / window;
    let taken = count.min(available);
    if taken < 2 {
        return Err(EvalError::TooFewWindows {
            available,
            window,
            asked: count,
        });
    }
    Ok((0..taken)
        .map(|i| {
            let start = i * available / taken * window;
            &tokens[start..start + window]
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_spread_and_disjoint() {
        let tokens: Vec<u32> = (0..105).collect();
        let windows = spread(&tokens, 10, 4).unwrap();
        let starts: Vec<u32> = windows.iter().map(|w| w[0]).collect();
        assert_eq!(starts, [0, 20, 50, 70]);
        assert_eq!(spread(&tokens, 10, 99).unwrap().len(), 10);
    }

    #[test]
    fn one_window_is_refused() {
        let error = spread(&[0; 19], 10, 5).unwrap_err();
        assert_eq!(
            error,
            EvalError::TooFewWindows {
                available: 1,
                window: 10,
                asked: 5
            }
        );
    }
}
