//! The held-out split: by document, decided by the document's text alone.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// Which documents are held out from training.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Split {
    /// Expected share of the documents that is held out, strictly between 0 and 1.
    pub heldout_fraction: f64,
    /// Another seed holds out other documents.
    pub seed: u64,
}

impl Split {
    /// Checks the fraction.
    ///
    /// # Errors
    /// [`Error::BadSplit`] unless it is strictly between 0 and 1.
    pub fn validate(&self) -> Result<()> {
        if self.heldout_fraction > 0.0 && self.heldout_fraction < 1.0 {
            Ok(())
        } else {
            Err(Error::BadSplit {
                fraction: self.heldout_fraction,
            })
        }
    }

    /// Whether a document with this text is held out: a hash of seed and text, as a fraction of
    /// its range, is below `heldout_fraction`.
    ///
    /// The document's place plays no part: two identical documents are always on the same side,
    /// and a document stays on its side when others are added before it.
    pub fn is_heldout(&self, text: &str) -> bool {
        let digest = Sha256::new()
            .chain_update(self.seed.to_le_bytes())
            .chain_update(text)
            .finalize();
        let top = digest
            .iter()
            .take(8)
            .fold(0_u64, |hash, &byte| hash << 8 | u64::from(byte));
        // 53 bits are exact in an f64.
        ((top >> 11) as f64) / ((1_u64 << 53) as f64) < self.heldout_fraction
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_the_fraction_and_the_seed_matters() {
        let heldout = |seed| {
            let split = Split {
                heldout_fraction: 0.1,
                seed,
            };
            (0..4000)
                .filter(|i| split.is_heldout(&format!("doc {i}")))
                .collect::<Vec<_>>()
        };
        let (a, b) = (heldout(1), heldout(2));
        // Binomial(4000, 0.1) has a standard deviation of 19.
        assert!((310..490).contains(&a.len()) && (310..490).contains(&b.len()));
        assert_ne!(a, b);
        assert_eq!(a, heldout(1));
    }

    #[test]
    fn the_decision_is_pinned() {
        // Changing the hash would move documents between the halves of existing runs.
        let split = Split {
            heldout_fraction: 0.5,
            seed: 7,
        };
        let sides: Vec<_> = "abcdefgh"
            .chars()
            .map(|c| split.is_heldout(&c.to_string()))
            .collect();
        assert_eq!(sides, PINNED);
    }

    const PINNED: [bool; 8] = [false, true, true, false, true, true, true, true];

    #[test]
    fn fractions_outside_the_open_interval_are_errors() {
        for fraction in [0.0, 1.0, -0.1, 1.5, f64::NAN] {
            let split = Split {
                heldout_fraction: fraction,
                seed: 0,
            };
            assert!(
                matches!(split.validate(), Err(Error::BadSplit { .. })),
                "{fraction}"
            );
        }
        assert!(
            Split {
                heldout_fraction: 0.01,
                seed: 0
            }
            .validate()
            .is_ok()
        );
    }
}
