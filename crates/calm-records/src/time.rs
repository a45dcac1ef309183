//! Wall-clock time as RFC 3339 text in UTC.

use jiff::Timestamp;

/// The present moment, to the second: `2026-11-23T20:15:04Z`.
pub fn utc_now() -> String {
    utc_from_unix(Timestamp::now().as_second().max(0).unsigned_abs())
}

/// RFC 3339 text of `seconds` since 1970-01-01T00:00:00Z, leap seconds not counted; beyond
/// 9999-12-30T22:00:00Z that moment.
pub fn utc_from_unix(seconds: u64) -> String {
    let time = i64::try_from(seconds).map(Timestamp::from_second);
    time.ok()
        .and_then(Result::ok)
        .unwrap_or(Timestamp::MAX)
        .strftime("%FT%TZ")
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments() {
        // Each checked against `date -u -d @SECONDS +%FT%TZ`, but for the last.
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (68_169_599, "1972-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_464_904, "2026-11-23T20:15:04Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (253_402_207_200, "9999-12-30T22:00:00Z"),
            (u64::MAX, "9999-12-30T22:00:00Z"),
        ] {
            assert_eq!(utc_from_unix(seconds), text, "{seconds}");
        }
        let now = utc_now();
        assert!(
            now.len() == 20 && now.as_str() > "2026-01-01T00:00:00Z",
            "{now}"
        );
    }
}
