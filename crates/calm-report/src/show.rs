//! Numbers in templates: those of [`crate::format`], in which a line never breaks between a number
//! and its unit or error. Templates hand out references as well as values.

use crate::format;

fn unbroken(text: &str) -> String {
    text.replace(' ', "\u{a0}")
}

/// A number of any type of the records, or a reference to one.
pub(crate) trait Number<T> {
    fn number(&self) -> T;
}

impl Number<f64> for f64 {
    fn number(&self) -> f64 {
        *self
    }
}

impl Number<u64> for u64 {
    fn number(&self) -> u64 {
        *self
    }
}

impl Number<u64> for usize {
    fn number(&self) -> u64 {
        *self as u64
    }
}

impl<T, N: Number<T>> Number<T> for &N {
    fn number(&self) -> T {
        (*self).number()
    }
}

pub(crate) fn grouped(value: impl Number<u64>) -> String {
    format::grouped(value.number())
}

pub(crate) fn count(value: impl Number<u64>) -> String {
    unbroken(&format::count(value.number() as f64))
}

pub(crate) fn bytes(value: impl Number<u64>) -> String {
    unbroken(&format::bytes(value.number()))
}

pub(crate) fn fixed(value: impl Number<f64>, decimals: usize) -> String {
    format::fixed(value.number(), decimals)
}

pub(crate) fn signed(value: impl Number<f64>, decimals: usize) -> String {
    format::signed(value.number(), decimals)
}

pub(crate) fn percent(share: impl Number<f64>) -> String {
    unbroken(&format::percent(share.number()))
}

pub(crate) fn duration(seconds: impl Number<f64>) -> String {
    unbroken(&format::duration(seconds.number()))
}

pub(crate) fn significant(value: impl Number<f64>, digits: usize) -> String {
    unbroken(&format::significant(value.number(), digits))
}

pub(crate) fn scientific(value: impl Number<f64>, decimals: usize) -> String {
    unbroken(&format::scientific(value.number(), decimals))
}

pub(crate) fn with_error(value: impl Number<f64>, error: impl Number<f64>) -> String {
    unbroken(&format::with_error(value.number(), error.number()))
}

/// With its error where it has one.
pub(crate) fn maybe_error(value: impl Number<f64>, error: &Option<f64>) -> String {
    with_error(value, error.unwrap_or(f64::NAN))
}

/// A difference in its standard errors.
pub(crate) fn errors(difference: impl Number<f64>, error: impl Number<f64>) -> String {
    signed(standard_errors(difference.number(), error.number()), 1)
}

/// [`brier_lm`] as a figure.
pub(crate) fn brier_lm_of(brier: &[f64; 4]) -> String {
    significant(brier_lm(brier), 3)
}

/// "A", "A and B", "A, B and C".
pub(crate) fn listed(names: &[String]) -> String {
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => names.concat(),
    }
}

/// The difference in standard errors; NaN where the error is unknown or zero.
pub(crate) fn standard_errors(difference: f64, error: f64) -> f64 {
    if error > 0.0 {
        difference / error
    } else {
        f64::NAN
    }
}

/// `100 * (product of the four)^(1/4)`, 0 where any factor is not positive.
pub(crate) fn brier_lm(brier: &[f64; 4]) -> f64 {
    if brier.iter().any(|&b| b <= 0.0) {
        return 0.0;
    }
    100.0 * brier.iter().product::<f64>().powf(0.25)
}
