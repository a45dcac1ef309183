//! Axes: from data to a position between 0 and 1, and the round numbers to label.

use crate::format::{fixed, scientific};

/// How an axis spaces its values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scale {
    /// Equal differences, equal distances.
    #[default]
    Linear,
    /// Equal ratios, equal distances. Values of zero and below have no place on it.
    Log,
}

/// What the numbers of an axis are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Plain numbers; large ones get k, M, G, T.
    #[default]
    Number,
    /// Shares of one, written in percent.
    Percent,
}

/// Limits of a quantity that has none.
pub(crate) const UNLIMITED: (f64, f64) = (f64::NEG_INFINITY, f64::INFINITY);

/// A scale with its ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Axis {
    pub scale: Scale,
    pub low: f64,
    pub high: f64,
}

impl Axis {
    /// The axis that exactly spans the usable values; `None` where there are none.
    pub fn span(scale: Scale, values: impl Iterator<Item = f64>) -> Option<Self> {
        let usable = values.filter(|&v| v.is_finite() && (scale == Scale::Linear || v > 0.0));
        let ends = usable.fold(None, |ends, v| match ends {
            None => Some((v, v)),
            Some((low, high)) => Some((v.min(low), v.max(high))),
        });
        let (low, high) = ends?;
        if low < high {
            return Some(Self { scale, low, high });
        }
        // One value only: room on both sides.
        let (low, high) = match scale {
            Scale::Log => (low / 2.0, high * 2.0),
            Scale::Linear if low == 0.0 => (-1.0, 1.0),
            Scale::Linear => (low - low.abs() / 10.0, high + high.abs() / 10.0),
        };
        Some(Self { scale, low, high })
    }

    /// Widened a little, so that curves do not touch the frame; on a linear scale out to the next
    /// tick. `limits` are bounds that the quantity cannot pass (0 and 1 for a share), where the
    /// axis ends too.
    pub fn widened(self, ticks: usize, limits: (f64, f64)) -> Self {
        let (low, high) = match self.scale {
            Scale::Log => {
                let room = (self.high / self.low).powf(0.04);
                (self.low / room, self.high * room)
            }
            Scale::Linear => {
                let room = 0.03 * (self.high - self.low);
                let step = nice_step(self.low - room, self.high + room, ticks);
                let low = ((self.low - room) / step).floor() * step;
                // Data that is never negative does not need room below zero.
                let low = if self.low >= 0.0 { low.max(0.0) } else { low };
                (low, ((self.high + room) / step).ceil() * step)
            }
        };
        // Data beyond the limits is not cut: it is worth seeing that they were passed.
        let (low, high) = (
            low.max(limits.0.min(self.low)),
            high.min(limits.1.max(self.high)),
        );
        Self {
            scale: self.scale,
            low,
            high,
        }
    }

    /// Where `value` lies: 0 at the low end, 1 at the high end, outside beyond; `None` where it has
    /// no place.
    pub fn position(&self, value: f64) -> Option<f64> {
        let position = match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Log if value > 0.0 => (value / self.low).ln() / (self.high / self.low).ln(),
            Scale::Log => return None,
        };
        position.is_finite().then_some(position)
    }

    /// Round numbers within the axis, about `target` of them, rising.
    pub fn ticks(&self, target: usize) -> Vec<f64> {
        let round = match self.scale {
            Scale::Linear => return linear_ticks(self.low, self.high, target),
            Scale::Log => log_ticks(self.low, self.high, target),
        };
        // Less than a decade may hold too few round ratios: round differences serve as well.
        if round.len() < 3 {
            linear_ticks(self.low, self.high, target)
        } else {
            round
        }
    }
}

/// The step of 1, 2 or 5 times a power of ten that divides the range into about `target` parts.
pub(crate) fn nice_step(low: f64, high: f64, target: usize) -> f64 {
    let rough = (high - low) / target.max(1) as f64;
    let power = 10_f64.powf(rough.log10().floor());
    let factor = match rough / power {
        f if f < 1.5 => 1.0,
        f if f < 3.5 => 2.0,
        f if f < 7.5 => 5.0,
        _ => 10.0,
    };
    factor * power
}

fn linear_ticks(low: f64, high: f64, target: usize) -> Vec<f64> {
    let step = nice_step(low, high, target);
    let first = (low / step - 1e-9).ceil();
    let count = (high / step - first + 1e-9).floor();
    if !(step > 0.0 && count.is_finite()) {
        return Vec::new();
    }
    // Adding zero turns -0 into 0. The division by the inverse of a small step keeps 0.3 at 0.3.
    let at = |index: f64| {
        if step < 1.0 {
            index / (1.0 / step).round()
        } else {
            index * step
        }
    };
    (0..=count.max(0.0) as usize)
        .map(|i| at(first + i as f64) + 0.0)
        .collect()
}

fn log_ticks(low: f64, high: f64, target: usize) -> Vec<f64> {
    let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    let every = ((last - first) as usize).div_ceil(target.max(1) + 2).max(1);
    let within = |v: &f64| (low * (1.0 - 1e-9)..=high * (1.0 + 1e-9)).contains(v);
    let ticks = |factors: &[f64]| -> Vec<f64> {
        (first..=last)
            .step_by(every)
            .flat_map(|power| factors.iter().map(move |f| power_of_ten(*f, power)))
            .filter(within)
            .collect()
    };
    let decades = ticks(&[1.0]);
    if decades.len() < 3 {
        ticks(&[1.0, 2.0, 5.0])
    } else {
        decades
    }
}

/// `factor * 10^power`, rounded like the literal.
fn power_of_ten(factor: f64, power: i32) -> f64 {
    if power < 0 {
        factor / 10_f64.powi(-power)
    } else {
        factor * 10_f64.powi(power)
    }
}

/// Labels of ticks: as few decimals as tell them apart, one common prefix for large numbers.
pub(crate) fn tick_labels(ticks: &[f64], unit: Unit) -> Vec<String> {
    let largest = ticks.iter().fold(0.0_f64, |max, t| max.max(t.abs()));
    if unit == Unit::Percent {
        let shares: Vec<_> = ticks.iter().map(|t| 100.0 * t).collect();
        let decimals = decimals(&shares);
        return shares
            .iter()
            .map(|&t| format!("{} %", fixed(t, decimals)))
            .collect();
    }
    // Prefixes from 10,000 on: a loss of 2,500 reads better without one.
    let (scale, prefix) = match largest {
        l if l < 1e4 => (1.0, ""),
        l if l < 1e6 => (1e3, " k"),
        l if l < 1e9 => (1e6, " M"),
        l if l < 1e12 => (1e9, " G"),
        l if l < 1e15 => (1e12, " T"),
        _ => return ticks.iter().map(|&t| scientific(t, 1)).collect(),
    };
    if largest > 0.0 && largest < 1e-3 {
        let label = |&t: &f64| {
            if t == 0.0 {
                "0".to_owned()
            } else {
                scientific(t, 1)
            }
        };
        return ticks.iter().map(label).collect();
    }
    let scaled: Vec<_> = ticks.iter().map(|t| t / scale).collect();
    let common = decimals(&scaled);
    // The ticks of a log axis differ in size: there each has the decimals that it needs.
    let steps = || scaled.windows(2).map(|pair| pair[1] - pair[0]);
    let even = steps().all(|step| steps().all(|other| (step - other).abs() <= 1e-6 * step.abs()));
    let label = |&t: &f64| match t {
        0.0 => "0".to_owned(),
        t if t.abs() * scale < 1e-3 && !even => scientific(t * scale, 0),
        t => format!(
            "{}{prefix}",
            fixed(t, if even { common } else { decimals(&[t]) })
        ),
    };
    scaled.iter().map(label).collect()
}

/// Fewest decimals that write every number exactly, as far as ticks go.
fn decimals(values: &[f64]) -> usize {
    let exact = |decimals: usize, v: f64| {
        let shown: f64 = format!("{v:.decimals$}").parse().unwrap_or(f64::NAN);
        (shown - v).abs() <= 1e-6 * v.abs()
    };
    (0..9)
        .find(|&d| values.iter().all(|&v| exact(d, v)))
        .unwrap_or(9)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn axis(scale: Scale, low: f64, high: f64) -> Axis {
        Axis { scale, low, high }
    }

    #[test]
    fn linear_ticks_are_round() {
        let ticks = |low, high| axis(Scale::Linear, low, high).ticks(5);
        assert_eq!(ticks(0.0, 1.0), [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]);
        assert_eq!(ticks(0.0, 0.3), [0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3]);
        assert_eq!(ticks(-3.0, 7.0), [-2.0, 0.0, 2.0, 4.0, 6.0]);
        assert_eq!(ticks(0.0, 2_300_000.0), [0.0, 5e5, 1e6, 1.5e6, 2e6]);
    }

    #[test]
    fn log_ticks_are_decades_or_their_halves() {
        let ticks = |low, high| axis(Scale::Log, low, high).ticks(5);
        assert_eq!(ticks(0.01, 1000.0), [0.01, 0.1, 1.0, 10.0, 100.0, 1000.0]);
        assert_eq!(ticks(0.9, 30.0), [1.0, 2.0, 5.0, 10.0, 20.0]);
        assert_eq!(ticks(0.3, 60.0), [0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0]);
        assert_eq!(
            ticks(1e-9, 1e3),
            [1e-9, 1e-7, 1e-5, 1e-3, 0.1, 10.0, 1000.0]
        );
        assert_eq!(ticks(3.1, 3.9), [3.2, 3.4, 3.6, 3.8]);
    }

    #[test]
    fn positions() {
        let linear = axis(Scale::Linear, 10.0, 20.0);
        assert_eq!(linear.position(12.5), Some(0.25));
        assert_eq!(linear.position(30.0), Some(2.0));
        assert_eq!(linear.position(f64::NAN), None);
        let log = axis(Scale::Log, 1.0, 10_000.0);
        approx::assert_relative_eq!(log.position(100.0).unwrap(), 0.5);
        assert_eq!(log.position(0.0), None);
        assert_eq!(log.position(-1.0), None);
    }

    #[test]
    fn spans_skip_what_has_no_place() {
        let values = [f64::NAN, -2.0, 0.0, 0.5, 8.0, f64::INFINITY];
        assert_eq!(
            Axis::span(Scale::Log, values.into_iter()),
            Some(axis(Scale::Log, 0.5, 8.0))
        );
        assert_eq!(
            Axis::span(Scale::Linear, values.into_iter()),
            Some(axis(Scale::Linear, -2.0, 8.0))
        );
        assert_eq!(Axis::span(Scale::Linear, [f64::NAN].into_iter()), None);
        let single = Axis::span(Scale::Linear, [5.0].into_iter()).unwrap();
        assert_eq!(single.position(5.0), Some(0.5));
    }

    #[test]
    fn a_share_stops_at_one() {
        let shares = axis(Scale::Linear, 0.1, 0.995);
        assert_eq!(shares.widened(5, (0.0, 1.0)).high, 1.0);
        assert!(shares.widened(5, UNLIMITED).high > 1.0);
        assert_eq!(
            axis(Scale::Linear, 0.01, 0.9).widened(5, UNLIMITED).low,
            0.0
        );
    }

    #[test]
    fn labels() {
        let labels = |ticks: &[f64]| tick_labels(ticks, Unit::Number);
        assert_eq!(
            labels(&[0.0, 5e5, 1e6, 1.5e6]),
            ["0", "0.5 M", "1.0 M", "1.5 M"]
        );
        assert_eq!(labels(&[-0.2, 0.0, 0.2]), ["−0.2", "0", "0.2"]);
        assert_eq!(labels(&[0.05, 0.1, 1.0, 10.0]), ["0.05", "0.1", "1", "10"]);
        assert_eq!(labels(&[1e-5, 1e-3, 0.1]), ["1 × 10⁻⁵", "0.001", "0.1"]);
        assert_eq!(labels(&[0.0, 2e4, 4e4]), ["0", "20 k", "40 k"]);
        assert_eq!(labels(&[2e-5, 4e-5]), ["2.0 × 10⁻⁵", "4.0 × 10⁻⁵"]);
        assert_eq!(
            tick_labels(&[0.985, 0.99, 0.995], Unit::Percent),
            ["98.5 %", "99.0 %", "99.5 %"]
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn ticks_lie_within_and_rise_and_have_distinct_labels(
            low in -1e6_f64..1e6, width in 1e-3_f64..1e6, target in 3_usize..9,
        ) {
            let high = low + width;
            let ticks = axis(Scale::Linear, low, high).ticks(target);
            prop_assert!((2..=2 * target + 2).contains(&ticks.len()), "{:?}", ticks);
            let slack = 1e-6 * width;
            prop_assert!(ticks.iter().all(|&t| t >= low - slack && t <= high + slack));
            prop_assert!(ticks.windows(2).all(|pair| pair[0] < pair[1]));
        }

        #[test]
        fn widening_never_cuts_data(low in 1e-6_f64..1e6, ratio in 1.001_f64..1e6) {
            for scale in [Scale::Linear, Scale::Log] {
                let wide = axis(scale, low, low * ratio).widened(5, (0.25, 0.5));
                prop_assert!(wide.low <= low && wide.high >= low * ratio);
                prop_assert!(wide.position(low).unwrap() >= 0.0);
                prop_assert!(wide.position(low * ratio).unwrap() <= 1.0);
            }
        }
    }
}
