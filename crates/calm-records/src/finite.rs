//! Numbers that JSON cannot hold: serde_json writes NaN and the infinities as `null`, and here they
//! are read back as NaN, so that one odd gradient norm makes neither an invalid file nor a failed run.

use serde::{Deserialize, Deserializer};

/// Reads `null` as NaN.
pub fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

/// The same for the four values of Brier-1 to Brier-4.
pub fn four<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[f64; 4], D::Error> {
    let values = <[Option<f64>; 4]>::deserialize(deserializer)?;
    Ok(values.map(|v| v.unwrap_or(f64::NAN)))
}

/// The same for four values that may be absent altogether.
pub fn maybe_four<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<[f64; 4]>, D::Error> {
    let values = Option::<[Option<f64>; 4]>::deserialize(deserializer)?;
    Ok(values.map(|four| four.map(|v| v.unwrap_or(f64::NAN))))
}
