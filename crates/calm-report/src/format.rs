//! Numbers for people: 1.23 M, 4 min 12 s, 3.4 GiB, 0.0131 ± 0.0004.
//!
//! Minus is U+2212 and a number that is not finite reads "unknown".

/// Text for a number that is not finite.
pub const UNKNOWN: &str = "unknown";

/// `value` with a fixed number of decimals.
pub fn fixed(value: f64, decimals: usize) -> String {
    if !value.is_finite() {
        return UNKNOWN.to_owned();
    }
    let text = format!("{value:.decimals$}");
    match text.strip_prefix('-') {
        // What rounds to zero has no sign.
        Some(digits) if digits.bytes().all(|b| b == b'0' || b == b'.') => digits.to_owned(),
        Some(digits) => format!("−{digits}"),
        None => text,
    }
}

/// `value` with its sign always shown.
pub fn signed(value: f64, decimals: usize) -> String {
    let text = fixed(value, decimals);
    if value.is_finite() && !text.starts_with('−') {
        format!("+{text}")
    } else {
        text
    }
}

/// Whole number with commas between groups of three: `1,234,567`.
pub fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count to three significant digits: `950`, `8,421`, `12.3 k`, `1.23 M`, `4.50 G`, `1.00 T`.
pub fn count(value: f64) -> String {
    if !value.is_finite() {
        return UNKNOWN.to_owned();
    }
    if value < 0.0 {
        return format!("−{}", count(-value));
    }
    if value < 9_999.5 {
        return grouped(value.round() as u64);
    }
    for (scale, prefix) in [(1e3, "k"), (1e6, "M"), (1e9, "G"), (1e12, "T")] {
        // 999.5 would round to 1000: that belongs to the next prefix.
        if value / scale < 999.5 {
            return format!(
                "{} {prefix}",
                fixed(value / scale, three_digits(value / scale))
            );
        }
    }
    scientific(value, 2)
}

/// Decimals that show a number below 1000 with three significant digits.
fn three_digits(value: f64) -> usize {
    match value {
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    }
}

/// A share of one as percent, with more decimals where it comes close to all: `51.3 %`, `98.71 %`,
/// `99.987 %`. Only a whole is ever `100 %`.
pub fn percent(share: f64) -> String {
    let decimals = match share {
        s if s == 1.0 || s == 0.0 => 0,
        s if (0.9999..1.0).contains(&s) => 4,
        s if (0.999..1.0).contains(&s) => 3,
        s if (0.9..1.0).contains(&s) => 2,
        _ => 1,
    };
    if share.is_finite() {
        // Cut rather than round: an almost perfect share must not read as a perfect one.
        let cut = if decimals == 4 {
            (share * 1e6).floor() / 1e6
        } else {
            share
        };
        format!("{} %", fixed(100.0 * cut, decimals))
    } else {
        UNKNOWN.to_owned()
    }
}

/// A span of time: `120 ms`, `38.2 s`, `4 min 12 s`, `2 h 05 min`, `3 d 04 h`.
pub fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return UNKNOWN.to_owned();
    }
    if seconds < 0.9995 {
        return format!("{} ms", fixed(1e3 * seconds, 0));
    }
    if seconds < 59.95 {
        return format!("{} s", fixed(seconds, 1));
    }
    let whole = seconds.round() as u64;
    let minutes = (whole + 30) / 60;
    if whole < 3600 {
        format!("{} min {:02} s", whole / 60, whole % 60)
    } else if minutes < 24 * 60 {
        format!("{} h {:02} min", minutes / 60, minutes % 60)
    } else {
        let hours = (whole + 1800) / 3600;
        format!("{} d {:02} h", hours / 24, hours % 24)
    }
}

/// An amount of memory in binary units: `512 B`, `1.5 KiB`, `3.4 GiB`.
pub fn bytes(amount: u64) -> String {
    if amount < 1024 {
        return format!("{amount} B");
    }
    let mut value = amount as f64;
    let mut unit = "";
    for next in ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"] {
        value /= 1024.0;
        unit = next;
        if value < 1023.95 {
            break;
        }
    }
    format!("{} {unit}", fixed(value, 1))
}

/// Powers of ten written out: `3.70 × 10¹⁴`.
pub fn scientific(value: f64, decimals: usize) -> String {
    if !value.is_finite() {
        return UNKNOWN.to_owned();
    }
    if value == 0.0 {
        return "0".to_owned();
    }
    // Rust's own notation carries the rounding into the exponent (9.999e2 -> 1.00e3).
    let text = format!("{value:.decimals$e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    format!(
        "{} × 10{}",
        mantissa.replace('-', "−"),
        superscript(exponent)
    )
}

fn superscript(exponent: &str) -> String {
    const DIGITS: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    let raise = |c: char| c.to_digit(10).map_or('⁻', |d| DIGITS[d as usize]);
    exponent.chars().map(raise).collect()
}

/// `value` to about `digits` significant digits, in powers of ten where it is tiny or huge.
pub fn significant(value: f64, digits: usize) -> String {
    if !value.is_finite() {
        return UNKNOWN.to_owned();
    }
    if value == 0.0 {
        return "0".to_owned();
    }
    let order = value.abs().log10().floor() as i32;
    let decimals = digits as i32 - 1 - order;
    if (-3..6).contains(&order) {
        fixed(value, decimals.max(0) as usize)
    } else {
        scientific(value, digits.saturating_sub(1))
    }
}

/// A number in at most four digits: `0.05`, `1.5 M`, `2 × 10⁻⁵`.
pub(crate) fn tick(value: f64) -> String {
    let (scale, prefix) = match unit(value) {
        None => return if value == 0.0 { "0" } else { UNKNOWN }.to_owned(),
        Some(unit) => unit,
    };
    let rounded: f64 = format!("{:.3e}", value / scale).parse().unwrap_or(value);
    if (1e-3..1e15).contains(&value.abs()) {
        format!("{rounded}{prefix}").replace('-', "−")
    } else {
        let digits = format!("{rounded:e}");
        let mantissa = digits
            .split('e')
            .next()
            .unwrap_or("")
            .trim_start_matches('-');
        scientific(rounded, mantissa.len().saturating_sub(2))
    }
}

/// One of several that lie multiples of `step` apart, with as many decimals as tell them apart.
pub(crate) fn tick_by(value: f64, step: f64) -> String {
    let (scale, prefix) = match unit(value) {
        None => return tick(value),
        Some(unit) => unit,
    };
    let decimals = |size: f64| (-size.log10() - 1e-9).ceil().clamp(0.0, 17.0) as usize;
    if (1e-3..1e15).contains(&value.abs()) {
        format!("{}{prefix}", fixed(value / scale, decimals(step / scale)))
    } else {
        let power = 10_f64.powf(value.abs().log10().floor());
        scientific(value, decimals(step / power))
    }
}

/// What a number is counted in, and the prefix for that; `None` for 0 and what is no number.
fn unit(value: f64) -> Option<(f64, &'static str)> {
    Some(match value.abs() {
        s if s == 0.0 || !s.is_finite() => return None,
        // Prefixes from 10,000 on: a loss of 2,500 reads better without one.
        s if s < 1e4 => (1.0, ""),
        s if s < 1e6 => (1e3, " k"),
        s if s < 1e9 => (1e6, " M"),
        s if s < 1e12 => (1e9, " G"),
        s if s < 1e15 => (1e12, " T"),
        _ => (1.0, ""),
    })
}

/// A figure with its standard error, both to the error's second digit: `0.01310 ± 0.00042`,
/// `(1.20 ± 0.30) × 10⁻⁵`.
pub fn with_error(value: f64, error: f64) -> String {
    let (value, error, power) = with_error_parts(value, error);
    match power {
        Some(power) => format!("({value} ± {error}) {power}"),
        None => format!("{value} ± {error}"),
    }
}

/// The value, the error and, for small figures, the common power of ten of [`with_error`].
pub(crate) fn with_error_parts(value: f64, error: f64) -> (String, String, Option<String>) {
    if !value.is_finite() || !error.is_finite() || error <= 0.0 {
        let error = if error == 0.0 {
            "0".to_owned()
        } else {
            UNKNOWN.to_owned()
        };
        return (significant(value, 4), error, None);
    }
    let size = value.abs().max(error);
    let order = size.log10().floor() as i32;
    let (scale, power) = if order < -3 {
        (
            10_f64.powi(-order),
            Some(format!("× 10{}", superscript(&order.to_string()))),
        )
    } else {
        (1.0, None)
    };
    let decimals = (1 - (error * scale).log10().floor() as i32).clamp(0, 8) as usize;
    (
        fixed(value * scale, decimals),
        fixed(error * scale, decimals),
        power,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts() {
        for (value, text) in [
            (0.0, "0"),
            (950.0, "950"),
            (8420.6, "8,421"),
            (9_999.4, "9,999"),
            (9_999.6, "10.0 k"),
            (123_456.0, "123 k"),
            (999_499.0, "999 k"),
            (999_500.0, "1.00 M"),
            (1_234_567.0, "1.23 M"),
            (-1_234_567.0, "−1.23 M"),
            (4.5e9, "4.50 G"),
            (7.2e15, "7.20 × 10¹⁵"),
            (f64::NAN, "unknown"),
        ] {
            assert_eq!(count(value), text, "{value}");
        }
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(grouped(100), "100");
    }

    #[test]
    fn durations() {
        for (seconds, text) in [
            (0.12, "120 ms"),
            (0.9996, "1.0 s"),
            (38.24, "38.2 s"),
            (59.96, "1 min 00 s"),
            (252.0, "4 min 12 s"),
            (3599.4, "59 min 59 s"),
            (3599.6, "1 h 00 min"),
            (7500.0, "2 h 05 min"),
            (86_399.0, "1 d 00 h"),
            (273_600.0, "3 d 04 h"),
            (-1.0, "unknown"),
        ] {
            assert_eq!(duration(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn memory() {
        for (amount, text) in [
            (512, "512 B"),
            (1536, "1.5 KiB"),
            (1_048_575, "1.0 MiB"),
            (3_650_722_202, "3.4 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(amount), text, "{amount}");
        }
    }

    #[test]
    fn shares_never_round_up_to_all() {
        for (share, text) in [
            (0.0, "0 %"),
            (0.513, "51.3 %"),
            (0.98714, "98.71 %"),
            (0.99987, "99.987 %"),
            (0.999_999_9, "99.9999 %"),
            (1.0, "100 %"),
            (f64::NAN, "unknown"),
        ] {
            assert_eq!(percent(share), text, "{share}");
        }
    }

    #[test]
    fn figures_with_errors() {
        for (value, error, text) in [
            (0.0131, 0.000_42, "0.01310 ± 0.00042"),
            (5.7167, 0.031, "5.717 ± 0.031"),
            (-0.002, 0.01, "−0.002 ± 0.010"),
            (1.2e-5, 3.0e-6, "(1.20 ± 0.30) × 10⁻⁵"),
            (0.0, 3.0e-6, "(0.0 ± 3.0) × 10⁻⁶"),
            (0.5, 0.0, "0.5000 ± 0"),
            (0.5, f64::NAN, "0.5000 ± unknown"),
        ] {
            assert_eq!(with_error(value, error), text);
        }
    }

    #[test]
    fn ticks_are_told_apart() {
        for (value, text) in [
            (0.05, "0.05"),
            (-1.5e6, "−1.5 M"),
            (2e-5, "2 × 10⁻⁵"),
            (1_572_864.0, "1.573 M"),
            (0.0, "0"),
            (f64::NAN, "unknown"),
        ] {
            assert_eq!(tick(value), text);
        }
        let all = |first: f64, step: f64| -> Vec<String> {
            (0..3)
                .map(|i| tick_by(first + f64::from(i) * step, step))
                .collect()
        };
        assert_eq!(all(0.0, 5e5), ["0", "500 k", "1.0 M"]);
        assert_eq!(all(12_000.0, 2.0), ["12.000 k", "12.002 k", "12.004 k"]);
        assert_eq!(all(99.99, 0.002), ["99.990", "99.992", "99.994"]);
        assert_eq!(all(2e-5, 1e-6), ["2.0 × 10⁻⁵", "2.1 × 10⁻⁵", "2.2 × 10⁻⁵"]);
        assert_eq!(all(-0.2, 0.1), ["−0.2", "−0.1", "0"]);
    }

    #[test]
    fn significant_digits() {
        for (value, text) in [
            (0.011_04, "0.0110"),
            (91.54, "91.5"),
            (3.7e14, "3.70 × 10¹⁴"),
            (-4.24e-7, "−4.24 × 10⁻⁷"),
            (0.0, "0"),
        ] {
            assert_eq!(significant(value, 3), text);
        }
        assert_eq!(fixed(-0.001, 2), "0.00");
        assert_eq!(signed(5.25, 1), "+5.2");
        assert_eq!(signed(-5.25, 1), "−5.2");
    }
}
