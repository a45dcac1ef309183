//! Wall-clock time as RFC 3339 text in UTC, without a calendar library.

use std::time::{SystemTime, UNIX_EPOCH};

/// The present moment, to the second: `2026-11-23T20:15:04Z`. A clock set before 1970 reads as 1970.
pub fn utc_now() -> String {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    utc_from_unix(since.as_secs())
}

/// RFC 3339 text of `seconds` since 1970-01-01T00:00:00Z, leap seconds not counted.
pub fn utc_from_unix(seconds: u64) -> String {
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Gregorian date of the day that lies `days` after 1970-01-01.
fn civil(days: u64) -> (u64, usize, u64) {
    // 400 Gregorian years are always 146,097 days, so whole cycles can be taken at once.
    let mut year = 1970 + 400 * (days / 146_097);
    let mut rest = days % 146_097;
    while rest >= days_in_year(year) {
        rest -= days_in_year(year);
        year += 1;
    }
    let february = if is_leap(year) { 29 } else { 28 };
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if rest < length {
            break;
        }
        rest -= length;
        month += 1;
    }
    (year, month, rest + 1)
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_in_year(year: u64) -> u64 {
    if is_leap(year) { 366 } else { 365 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments() {
        // Each checked against `date -u -d @SECONDS +%FT%TZ`.
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (68_169_599, "1972-02-28T23:59:59Z"),
            (68_169_600, "1972-02-29T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_000_000_000, "2001-09-09T01:46:40Z"),
            (1_795_464_904, "2026-11-23T20:15:04Z"),
            (1_798_761_599, "2026-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(utc_from_unix(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn now_is_well_formed_and_after_this_was_written() {
        let now = utc_now();
        assert_eq!(now.len(), 20, "{now}");
        assert!(now.as_str() > "2025-01-01T00:00:00Z", "{now}");
    }
}
