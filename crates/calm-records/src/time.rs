//! Wall-clock time as RFC 3339 text in UTC.

use jiff::Timestamp;

/// The present moment, to the second: `2026-11-23T20:15:04Z`.
pub fn utc_now() -> String {
    utc_from_unix(Timestamp::now().as_second().max(0).unsigned_abs())
}

/// RFC 3339 text of `seconds` since 1970-01-01T00:00:00Z; beyond the year 9999 its last second.
pub fn utc_from_unix(seconds: u64) -> String {
    let time = i64::try_from(seconds).map(Timestamp::from_second);
    time.ok()
        .and_then(Result::ok)
        .unwrap_or(Timestamp::MAX)
        .strftime("%FT%TZ")
        .to_string()
}
