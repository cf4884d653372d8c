//! Dates as headers have them (RFC 5322 §3.3), in UTC.

use crate::clock::Timestamp;

/// `Sat, 21 Nov 2026 08:49:00 +0000`.
pub fn rfc5322(t: Timestamp) -> String {
    mail_parser::DateTime::from_timestamp(t.0.div_euclid(1000)).to_rfc822()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_dates() {
        assert_eq!(rfc5322(Timestamp(1_795_250_940_123)), "Sat, 21 Nov 2026 08:49:00 +0000");
        assert_eq!(rfc5322(Timestamp(0)), "Thu, 1 Jan 1970 00:00:00 +0000");
        assert_eq!(rfc5322(Timestamp(1_709_164_800_000)), "Thu, 29 Feb 2024 00:00:00 +0000");
    }
}
