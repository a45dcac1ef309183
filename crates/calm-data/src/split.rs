//! The split of a text into a part to train on, one to make choices on and one to report on.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// A part of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// What models and tokenizers are trained on.
    Train,
    /// What choices are made on: evaluations while training, and those that compare models.
    Validation,
    /// What final scores are reported on.
    Test,
}

impl Part {
    /// All three, in the order in which they lie in a long text.
    pub const ALL: [Self; 3] = [Self::Train, Self::Validation, Self::Test];

    /// As it is called in records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
        }
    }
}

/// How a text is split. It belongs to whatever was trained on it: only under the same split is
/// the test part of the same text one that was never seen.
///
/// A work (a file of text, a JSONL record, a book) of `whole_below` bytes or more is cut in three
/// stretches: its end is for test, what comes before for validation, the rest for training. A
/// shorter one is in one part as a whole, by a hash of its text; so the same text is never in two
/// parts, and adding text moves no other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Split {
    /// The rule and its version, [`Split::RULE`].
    pub rule: String,
    /// Expected share of the text that is for validation.
    pub validation_fraction: f64,
    /// Expected share of the text that is for test.
    pub test_fraction: f64,
    /// Works of fewer bytes are in one part as a whole.
    pub whole_below: u64,
    /// Another salt puts other short works into the held-out parts.
    pub salt: u64,
}

impl Split {
    /// The rule that this version of the program knows; the number rises with every change that
    /// could move text from one part to another.
    pub const RULE: &'static str = "stretches-1";

    /// A split under [`Split::RULE`], with salt 0.
    pub fn new(validation_fraction: f64, test_fraction: f64, whole_below: u64) -> Self {
        Self {
            rule: Self::RULE.to_owned(),
            validation_fraction,
            test_fraction,
            whole_below,
            salt: 0,
        }
    }

    /// Everything is test: for a text that no model was trained on.
    pub fn all_test() -> Self {
        Self::new(0.0, 1.0, 0)
    }

    /// The same split with a smaller test part, inside the old one; what is over goes to
    /// validation.
    ///
    /// # Errors
    /// [`Error::LargerTestPart`] for a fraction above the split's own, because such a part would
    /// hold text of the others; [`Error::BadSplit`] for one that is not above 0.
    pub fn with_test_fraction(&self, fraction: f64) -> Result<Self> {
        if fraction > self.test_fraction {
            return Err(Error::LargerTestPart {
                asked: fraction,
                own: self.test_fraction,
            });
        }
        let smaller = Self {
            validation_fraction: self.validation_fraction + (self.test_fraction - fraction),
            test_fraction: fraction,
            ..self.clone()
        };
        if fraction > 0.0 {
            return Ok(smaller);
        }
        Err(smaller.bad())
    }

    /// Checks rule and fractions.
    ///
    /// # Errors
    /// [`Error::UnknownSplitRule`], and [`Error::BadSplit`] unless both fractions are between 0
    /// and 1 and leave nothing negative.
    pub fn validate(&self) -> Result<()> {
        if self.rule != Self::RULE {
            return Err(Error::UnknownSplitRule {
                found: self.rule.clone(),
                known: Self::RULE,
            });
        }
        let shares = Part::ALL.map(|part| self.share(part));
        if shares.iter().all(|share| (0.0..=1.0).contains(share)) {
            Ok(())
        } else {
            Err(self.bad())
        }
    }

    fn bad(&self) -> Error {
        Error::BadSplit {
            validation: self.validation_fraction,
            test: self.test_fraction,
        }
    }

    /// Expected share of a part.
    pub fn share(&self, part: Part) -> f64 {
        match part {
            Part::Train => 1.0 - (self.validation_fraction + self.test_fraction),
            Part::Validation => self.validation_fraction,
            Part::Test => self.test_fraction,
        }
    }

    /// Whether a work of `bytes` bytes is in one part as a whole.
    pub(crate) fn is_whole(&self, bytes: u64) -> bool {
        bytes < self.whole_below
    }

    /// The part of position `at` of a long work of `of` bytes, and where that part ends.
    pub(crate) fn stretch(&self, at: u64, of: u64) -> (Part, u64) {
        let border = |held_out: f64| ((1.0 - held_out) * of as f64).round() as u64;
        let validation = border(self.validation_fraction + self.test_fraction);
        let test = border(self.test_fraction);
        if at < validation {
            (Part::Train, validation)
        } else if at < test {
            (Part::Validation, test)
        } else {
            (Part::Test, u64::MAX)
        }
    }

    /// What decides on a short work.
    pub(crate) fn hasher(&self) -> Sha256 {
        Sha256::new().chain_update(self.salt.to_le_bytes())
    }

    /// The part of a short work, by the hash of salt and text as a fraction of its range.
    pub(crate) fn part_of(&self, hasher: Sha256) -> Part {
        let digest = hasher.finalize();
        let top = digest
            .iter()
            .take(8)
            .fold(0_u64, |hash, &byte| hash << 8 | u64::from(byte));
        // 53 bits are exact in an f64.
        let place = ((top >> 11) as f64) / ((1_u64 << 53) as f64);
        if place < self.test_fraction {
            Part::Test
        } else if place < self.test_fraction + self.validation_fraction {
            Part::Validation
        } else {
            Part::Train
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(split: &Split, text: &str) -> Part {
        split.part_of(split.hasher().chain_update(text))
    }

    #[test]
    fn shares_are_the_fractions_and_the_salt_matters() {
        let parts = |salt| {
            let split = Split {
                salt,
                ..Split::new(0.2, 0.1, 1 << 16)
            };
            (0..4000)
                .map(|i| part(&split, &format!("doc {i}")))
                .collect::<Vec<_>>()
        };
        let (a, b) = (parts(1), parts(2));
        for parts in [&a, &b] {
            let count = |wanted| parts.iter().filter(|&&p| p == wanted).count();
            // Binomial(4000, 0.1) has a standard deviation of 19, of 0.2 of 25: six of them, so
            // that a right split fails under about one salt in 10^8.
            assert!((286..514).contains(&count(Part::Test)));
            assert!((650..950).contains(&count(Part::Validation)));
        }
        assert_ne!(a, b);
        assert_eq!(a, parts(1));
    }

    #[test]
    fn the_decision_is_pinned() {
        // Changing it would move text between the parts of existing runs: raise the rule's number.
        let split = Split {
            salt: 7,
            ..Split::new(0.3, 0.3, 1 << 16)
        };
        let parts = ["a", "b", "c", "d", "e", "f"].map(|text| part(&split, text));
        assert_eq!(parts, PINNED);
        assert_eq!(split.stretch(399, 1000), (Part::Train, 400));
        assert_eq!(split.stretch(400, 1000), (Part::Validation, 700));
        assert_eq!(split.stretch(700, 1000), (Part::Test, u64::MAX));
    }

    const PINNED: [Part; 6] = [
        Part::Train,
        Part::Validation,
        Part::Test,
        Part::Train,
        Part::Test,
        Part::Validation,
    ];

    #[test]
    fn a_smaller_test_part_lies_in_the_old_one_and_leaves_training_text_alone() {
        let split = Split::new(0.1, 0.3, 1 << 16);
        let smaller = split.with_test_fraction(0.05).unwrap();
        for i in 0..2000 {
            let text = format!("doc {i}");
            let (old, new) = (part(&split, &text), part(&smaller, &text));
            assert!(new != Part::Test || old == Part::Test);
            assert_eq!(new == Part::Train, old == Part::Train);
            let (old, new) = (split.stretch(i, 2000).0, smaller.stretch(i, 2000).0);
            assert!(new != Part::Test || old == Part::Test);
            assert_eq!(new == Part::Train, old == Part::Train);
        }
        assert!(matches!(
            split.with_test_fraction(0.31),
            Err(Error::LargerTestPart { .. })
        ));
        for fraction in [0.0, -1.0, f64::NAN] {
            let error = split.with_test_fraction(fraction).unwrap_err();
            assert!(matches!(error, Error::BadSplit { .. }), "{fraction}");
        }
    }

    #[test]
    fn bad_fractions_and_foreign_rules_are_errors() {
        for (validation, test) in [(-0.1, 0.1), (0.1, 1.5), (0.6, 0.6), (f64::NAN, 0.1)] {
            let error = Split::new(validation, test, 0).validate().unwrap_err();
            assert!(
                matches!(error, Error::BadSplit { .. }),
                "{validation} {test}"
            );
        }
        Split::new(0.05, 0.05, 0).validate().unwrap();
        Split::all_test().validate().unwrap();
        let foreign = Split {
            rule: "documents-0".into(),
            ..Split::all_test()
        };
        assert!(matches!(
            foreign.validate(),
            Err(Error::UnknownSplitRule { .. })
        ));
    }
}
