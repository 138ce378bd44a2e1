//! Moments as text.

use std::time::{SystemTime, UNIX_EPOCH};

/// A moment in RFC 3339, UTC, to the millisecond: `2026-11-21T03:50:00.123Z`.
pub(crate) fn rfc3339(moment: SystemTime) -> String {
    let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
    let since_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    workers::deployments::rfc3339(since_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn moments_are_rfc3339() {
        let cases = [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_164_800_000, "2024-02-29T00:00:00.000Z"),
            (1_795_233_600_123, "2026-11-21T04:00:00.123Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ];
        for (milliseconds, text) in cases {
            let moment = UNIX_EPOCH + Duration::from_millis(milliseconds);
            assert_eq!(rfc3339(moment), text);
        }
    }
}
