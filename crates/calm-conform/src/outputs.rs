//! What a case gave, and how far two of these are apart.

use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};

/// Named numbers, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outputs(pub Vec<(String, Vec<f32>)>);

/// Numbers up to which an output is recorded whole.
const WHOLE: usize = 64;

/// An output on record: its numbers, or of many of them two sums.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Recorded {
    /// All of them.
    Whole(Vec<f32>),
    /// Of many.
    Sums {
        /// How many.
        n: usize,
        /// The root of their squares.
        norm: f64,
        /// Their sum with weights `cos(i)`.
        sum: f64,
    },
}

impl Outputs {
    pub(crate) fn add(&mut self, name: impl Into<String>, numbers: Vec<f32>) {
        self.0.push((name.into(), numbers));
    }

    pub(crate) fn add_tensor<const D: usize>(&mut self, name: impl Into<String>, x: Tensor<D>) {
        self.add_data(name, x.into_data());
    }

    pub(crate) fn add_data(&mut self, name: impl Into<String>, data: TensorData) {
        self.add(name, data.iter::<f32>().collect());
    }

    /// The largest difference in parts of each output's largest number (at least 1e-6), and where it
    /// is. Infinite where they are not alike, or a number is none.
    pub fn apart(&self, expected: &Self) -> (f64, String) {
        if self.0.len() != expected.0.len() {
            return (f64::INFINITY, "the number of outputs".to_owned());
        }
        worst(
            self.0
                .iter()
                .zip(&expected.0)
                .map(|((name, a), (other, b))| {
                    let off = match name == other && a.len() == b.len() {
                        true => {
                            let size = b
                                .iter()
                                .fold(1e-6f64, |size, &x| size.max(f64::from(x).abs()));
                            let apart = a.iter().zip(b).map(|(&a, &b)| f64::from(a) - f64::from(b));
                            largest(apart) / size
                        }
                        false => f64::INFINITY,
                    };
                    (off, name.clone())
                }),
        )
    }

    /// The same against what was recorded.
    pub fn apart_from_record(&self, record: &[(String, Recorded)]) -> (f64, String) {
        if self.0.len() != record.len() {
            return (f64::INFINITY, "the number of outputs".to_owned());
        }
        let apart = |(name, a): &(String, Vec<f32>), (other, recorded): &(String, Recorded)| match (
            name == other,
            recorded,
            recorded_of(a),
        ) {
            (true, Recorded::Whole(b), Recorded::Whole(a)) => {
                let of = |numbers: Vec<f32>| Self(vec![(String::new(), numbers)]);
                of(a).apart(&of(b.clone())).0
            }
            (
                true,
                Recorded::Sums { n, norm, sum },
                Recorded::Sums {
                    n: found,
                    norm: size,
                    sum: total,
                },
            ) if *n == found => largest([size - norm, total - sum].into_iter()) / norm.max(1e-6),
            _ => f64::INFINITY,
        };
        let pairs = self.0.iter().zip(record);
        worst(pairs.map(|(found, recorded)| (apart(found, recorded), found.0.clone())))
    }

    /// What is recorded of it.
    pub fn record(&self) -> Vec<(String, Recorded)> {
        let recorded = |(name, numbers): &(String, Vec<f32>)| (name.clone(), recorded_of(numbers));
        self.0.iter().map(recorded).collect()
    }
}

fn recorded_of(numbers: &[f32]) -> Recorded {
    if numbers.len() <= WHOLE {
        return Recorded::Whole(numbers.to_vec());
    }
    let (mut squares, mut sum) = (0.0, 0.0);
    for (i, &x) in numbers.iter().enumerate() {
        let x = f64::from(x);
        squares += x * x;
        sum += x * (i as f64).cos();
    }
    Recorded::Sums {
        n: numbers.len(),
        norm: squares.sqrt(),
        sum,
    }
}

fn largest(differences: impl Iterator<Item = f64>) -> f64 {
    differences
        .map(f64::abs)
        .fold(0.0, |largest, x| match x.is_nan() {
            true => f64::INFINITY,
            false => largest.max(x),
        })
}

/// The largest; one that is no number is as large as can be.
fn worst(all: impl Iterator<Item = (f64, String)>) -> (f64, String) {
    all.fold((0.0, String::new()), |worst, (off, name)| {
        let off = if off.is_nan() { f64::INFINITY } else { off };
        if off > worst.0 { (off, name) } else { worst }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(numbers: Vec<f32>) -> Outputs {
        Outputs(vec![("x".to_owned(), numbers)])
    }

    #[test]
    fn differences_are_parts_of_the_largest_number() {
        let (apart, at) = of(vec![1.0, -10.0]).apart(&of(vec![1.5, -10.0]));
        assert_eq!((apart, at.as_str()), (0.05, "x"));
        for (a, b) in [
            (vec![1.0], vec![1.0, 2.0]),
            (vec![f32::NAN], vec![1.0]),
            (vec![f32::INFINITY], vec![f32::INFINITY]),
        ] {
            assert_eq!(of(a).apart(&of(b)).0, f64::INFINITY);
        }
        assert_eq!(Outputs::default().apart(&of(vec![])).0, f64::INFINITY);
    }

    #[test]
    fn a_record_knows_what_it_was_made_of() {
        let many: Vec<f32> = (0..500).map(|i| (i as f32 * 0.7).sin()).collect();
        for numbers in [vec![1.0, 2.0], many] {
            let record = of(numbers.clone()).record();
            assert_eq!(of(numbers.clone()).apart_from_record(&record).0, 0.0);
            let mut other = numbers.clone();
            other[1] += 0.5;
            assert!(of(other).apart_from_record(&record).0 > 0.01);
            let mut shorter = numbers.clone();
            shorter.pop();
            assert_eq!(of(shorter).apart_from_record(&record).0, f64::INFINITY);
            // An exchange of two numbers leaves their size as it is.
            let mut swapped = numbers;
            swapped.swap(0, 1);
            assert!(of(swapped).apart_from_record(&record).0 > 1e-3);
        }
    }
}
