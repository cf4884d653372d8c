//! When a message is to leave: the time that a client names (FUTURERELEASE, RFC 4865, and the field `X-Send-At`). Pure.
//!
//! A time without a zone is none: nobody knows whose clock is meant.

use crate::clock::Timestamp;

/// The field.
pub const FIELD: &[u8] = b"x-send-at";

/// Bytes that its value may have.
const LONGEST: usize = 200;

/// Zones by name that are the same everywhere.
const UNIVERSAL: [&str; 4] = ["GMT", "UT", "UTC", "Z"];

/// A time as in RFC 5322 §3.3 (`Tue, 1 Dec 2026 10:00:00 +0100`) or RFC 3339 (`2026-12-01T10:00:00+01:00`); `None` if
/// it is neither, or there is no such day.
pub fn parse(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    // A comment behind it (`+0100 (CET)`).
    let text = text.strip_suffix(')').and_then(|text| text.rsplit_once('(')).map_or(text, |(before, _)| before.trim());
    if text.len() > LONGEST || !text.is_ascii() {
        return None;
    }
    let time = if has_iso_date(text) { rfc3339(text)? } else { rfc5322(text)? };
    let exists = Timestamp::from_date(i64::from(time.year), u32::from(time.month), u32::from(time.day)).is_some();
    (exists && time.is_valid()).then(|| Timestamp(time.to_timestamp().saturating_mul(1000)))
}

fn has_iso_date(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() > 10
        && bytes.iter().take(10).enumerate().all(|(at, byte)| match at {
            4 | 7 => *byte == b'-',
            _ => byte.is_ascii_digit(),
        })
}

fn rfc3339(text: &str) -> Option<mail_parser::DateTime> {
    let (between, time) = text.get(10..)?.split_at_checked(1)?;
    let (clock, zone) = match time.strip_suffix(['Z', 'z']) {
        Some(clock) => (clock, None),
        None => time.split_at_checked(time.len().checked_sub(6)?).map(|(clock, zone)| (clock, Some(zone)))?,
    };
    let is_zone = |zone: &str| zone.starts_with(['+', '-']) && is_clock(zone.get(1..).unwrap_or_default(), 2);
    let seconds = clock.split_once('.').map_or(clock, |(whole, _)| whole);
    let good = matches!(between, "T" | "t" | " ") && is_clock(seconds, 3) && zone.is_none_or(is_zone);
    // Of a fraction nothing is left: it would be read with the zone.
    let plain = format!("{}T{seconds}{}", text.get(..10)?, zone.unwrap_or("Z"));
    good.then(|| mail_parser::DateTime::parse_rfc3339(&plain)).flatten()
}

/// `hh:mm`, or `hh:mm:ss`.
fn is_clock(text: &str, parts: usize) -> bool {
    let two = |part: &str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit());
    text.split(':').count() == parts && text.split(':').all(two)
}

fn rfc5322(text: &str) -> Option<mail_parser::DateTime> {
    let (_, zone) = text.rsplit_once([' ', '\t'])?;
    let offset = zone.strip_prefix(['+', '-']).is_some_and(|n| n.len() == 4 && n.bytes().all(|b| b.is_ascii_digit()));
    let universal = UNIVERSAL.iter().any(|name| zone.eq_ignore_ascii_case(name));
    let plain = match (offset, universal) {
        (true, _) => text.to_owned(),
        (_, true) => format!("{}+0000", text.strip_suffix(zone)?),
        _ => return None,
    };
    mail_parser::DateTime::parse_rfc822(&plain)
}

/// What the field said, while a header section is read line by line.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SendAt {
    value: Option<String>,
    /// There was more than one, or more than one can be.
    unreadable: bool,
}

impl SendAt {
    /// The first line of the field, with its name.
    pub fn begin(&mut self, line: &[u8]) {
        let value = memchr::memchr(b':', line).map_or(&[][..], |colon| &line[colon + 1..]);
        self.unreadable |= self.value.is_some();
        self.value = Some(String::new());
        self.more(value);
    }

    /// A further line of it.
    pub fn more(&mut self, line: &[u8]) {
        let Some(value) = &mut self.value else { return };
        self.unreadable |= value.len() + line.len() > 2 * LONGEST;
        if !self.unreadable {
            value.push_str(&String::from_utf8_lossy(line.trim_ascii()));
            value.push(' ');
        }
    }

    /// The time that it names; `None` if there was no such field. The error: it names none.
    pub fn time(&self) -> Result<Option<Timestamp>, Unreadable> {
        match &self.value {
            None => Ok(None),
            Some(value) if !self.unreadable => parse(value).map(Some).ok_or(Unreadable),
            Some(_) => Err(Unreadable),
        }
    }
}

/// The field names no time that can be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unreadable;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read_and_times_of_nobodys_clock_are_not() {
        let told = |text: &str| parse(text).map(|time| time.to_string());
        for (text, time) in [
            ("Tue, 1 Dec 2026 10:00:00 +0100", "2026-12-01T09:00:00.000Z"),
            ("Tue, 01 Dec 2026 10:00:00 GMT", "2026-12-01T10:00:00.000Z"),
            ("1 Dec 2026 10:00 -0330", "2026-12-01T13:30:00.000Z"),
            ("Tue, 1 Dec 2026 10:00:00 +0100 (CET)", "2026-12-01T09:00:00.000Z"),
            ("2026-12-01T10:00:00Z", "2026-12-01T10:00:00.000Z"),
            ("2026-12-01t10:00:00.250+01:00", "2026-12-01T09:00:00.000Z"),
            (" 2026-12-01 10:00:00-05:00 ", "2026-12-01T15:00:00.000Z"),
        ] {
            assert_eq!(told(text).as_deref(), Some(time), "{text}");
        }
        for none in [
            "",
            "tomorrow",
            "Tue, 1 Dec 2026 10:00:00",
            "Tue, 1 Dec 2026 10:00:00 CET",
            "2026-12-01",
            "2026-12-01T10:00:00",
            "2026-02-30T10:00:00Z",
            "2026-13-01T10:00:00Z",
            "2026-12-01T25:00:00Z",
            "2026-12-01T10:00:00+1:00",
            "2026-12-01X10:00:00Z",
            "1795250940",
            "31 Feb 2026 10:00:00 +0000",
            "2026-12-01T10:00:00é",
        ] {
            assert_eq!(told(none), None, "{none}");
        }
    }

    #[test]
    fn a_field_may_be_folded_and_stands_once() {
        let mut folded = SendAt::default();
        folded.begin(b"X-Send-At: Tue, 1 Dec 2026\r\n");
        folded.more(b"\t10:00:00 +0000\r\n");
        assert_eq!(folded.time().map(|t| t.map(|t| t.to_string())), Ok(Some("2026-12-01T10:00:00.000Z".into())));
        folded.begin(b"X-Send-At: Tue, 1 Dec 2026 10:00:00 +0000\r\n");
        assert_eq!(folded.time(), Err(Unreadable));
        assert_eq!(SendAt::default().time(), Ok(None));
        let mut long = SendAt::default();
        long.begin(b"X-Send-At:");
        (0..1000).for_each(|_| long.more(b" 2026-12-01"));
        assert_eq!(long.time(), Err(Unreadable));
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_too_odd(text in "\\PC{0,60}") {
            let _ = parse(&text);
        }

        #[test]
        fn every_time_is_read_as_it_is_printed(seconds in 0i64..4_000_000_000) {
            let time = Timestamp(seconds * 1000);
            proptest::prop_assert_eq!(parse(&time.to_string()), Some(time));
            proptest::prop_assert_eq!(parse(&super::super::date::Rfc5322(time).to_string()), Some(time));
        }
    }
}
