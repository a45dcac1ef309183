//! Numbers that JSON cannot hold: NaN and the infinities are written as `null` and read back as
//! NaN, so that one odd gradient norm makes neither an invalid file nor a failed run.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Writes a non-finite number as `null`.
pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    value.is_finite().then_some(*value).serialize(serializer)
}

/// Reads `null` as NaN.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

/// The same for the four values of Brier-1 to Brier-4.
pub mod four {
    use super::*;

    /// Writes each non-finite number as `null`.
    pub fn serialize<S: Serializer>(values: &[f64; 4], serializer: S) -> Result<S::Ok, S::Error> {
        values
            .map(|v| v.is_finite().then_some(v))
            .serialize(serializer)
    }

    /// Reads each `null` as NaN.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[f64; 4], D::Error> {
        let values = <[Option<f64>; 4]>::deserialize(deserializer)?;
        Ok(values.map(|v| v.unwrap_or(f64::NAN)))
    }
}

/// The same for four values that may be absent altogether.
pub mod maybe_four {
    use super::*;

    /// Writes each non-finite number as `null`.
    pub fn serialize<S: Serializer>(
        values: &Option<[f64; 4]>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        values
            .map(|four| four.map(|v| v.is_finite().then_some(v)))
            .serialize(serializer)
    }

    /// Reads each `null` as NaN.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<[f64; 4]>, D::Error> {
        let values = Option::<[Option<f64>; 4]>::deserialize(deserializer)?;
        Ok(values.map(|four| four.map(|v| v.unwrap_or(f64::NAN))))
    }
}
