//! Dates as headers have them (RFC 5322 §3.3), in UTC.

use std::fmt;

use crate::clock::Timestamp;

const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Prints `Sat, 21 Nov 2026 08:49:00 +0000`.
#[derive(Clone, Copy, Debug)]
pub struct Rfc5322(pub Timestamp);

impl fmt::Display for Rfc5322 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let t = mail_parser::DateTime::from_timestamp(self.0.0.div_euclid(1000));
        let day = DAYS.get(usize::from(t.day_of_week())).unwrap_or(&"");
        let month = MONTHS.get(usize::from(t.month).wrapping_sub(1)).unwrap_or(&"");
        write!(f, "{day}, {} {month} {:04} {:02}:{:02}:{:02} +0000", t.day, t.year, t.hour, t.minute, t.second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_dates() {
        assert_eq!(Rfc5322(Timestamp(1_795_250_940_123)).to_string(), "Sat, 21 Nov 2026 08:49:00 +0000");
        assert_eq!(Rfc5322(Timestamp(0)).to_string(), "Thu, 1 Jan 1970 00:00:00 +0000");
        assert_eq!(Rfc5322(Timestamp(1_709_164_800_000)).to_string(), "Thu, 29 Feb 2024 00:00:00 +0000");
    }
}
