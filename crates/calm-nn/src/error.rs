//! Errors of configurations.

use thiserror::Error;

/// Sizes of a model that don't fit together.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum ConfigError {
    /// A size that must be at least 1 is 0.
    #[error("{field} is 0, it must be at least 1")]
    Zero {
        /// The field.
        field: &'static str,
    },
    /// A size that must be a multiple of another is not.
    #[error("{field} = {value} is no multiple of {of} = {divisor}")]
    NotMultiple {
        /// The field.
        field: &'static str,
        /// Its value.
        value: usize,
        /// What it must be a multiple of.
        of: &'static str,
        /// The value of that.
        divisor: usize,
    },
    /// Two parts of a model disagree about a size.
    #[error("{field} is {left} in the {left_of} and {right} in the {right_of}; they must agree")]
    Mismatch {
        /// The field.
        field: &'static str,
        /// First value.
        left: usize,
        /// Where the first stands.
        left_of: &'static str,
        /// Second value.
        right: usize,
        /// Where the second stands.
        right_of: &'static str,
    },
    /// A value outside its range.
    #[error("{field} = {value} is outside {range}")]
    Range {
        /// The field.
        field: &'static str,
        /// Its value.
        value: f64,
        /// The allowed range, in words.
        range: &'static str,
    },
}

impl ConfigError {
    /// Refuses 0.
    ///
    /// # Errors
    /// [`ConfigError::Zero`].
    pub fn positive(field: &'static str, value: usize) -> Result<(), Self> {
        if value == 0 {
            Err(Self::Zero { field })
        } else {
            Ok(())
        }
    }

    /// Refuses a value that `divisor` does not divide.
    ///
    /// # Errors
    /// [`ConfigError::NotMultiple`].
    pub fn multiple(
        field: &'static str,
        value: usize,
        of: &'static str,
        divisor: usize,
    ) -> Result<(), Self> {
        if divisor == 0 || !value.is_multiple_of(divisor) {
            return Err(Self::NotMultiple {
                field,
                value,
                of,
                divisor,
            });
        }
        Ok(())
    }

    /// Refuses a value for which `inside` is false (so NaN is refused by any comparison).
    ///
    /// # Errors
    /// [`ConfigError::Range`].
    pub fn range(
        field: &'static str,
        value: f64,
        inside: bool,
        range: &'static str,
    ) -> Result<(), Self> {
        if inside {
            Ok(())
        } else {
            Err(Self::Range {
                field,
                value,
                range,
            })
        }
    }
}
