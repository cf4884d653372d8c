//! Values of the configuration that parse and print themselves: spans `5m`, sizes `25MiB`, rates
//! `20/s`, patterns `*.google.com`. What prints parses to the same value. So do networks (`network`)
//! and rates that say what they count (`counted`).

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::meant;
use crate::mail::{Spellings, lowercase};

/// A pace: `20/s`, `30/m`, `500/h`, `2000/d`, or in any other span: `5000/180s`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    /// How many; at least 1.
    pub count: u32,
    /// In what time: whole milliseconds, from a second to 366 days.
    pub per: Duration,
}

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
/// Longest span of a rate.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);

impl Rate {
    /// As [`Rate::from_str`]; the error is what is wrong with one that is a rate, or nothing.
    fn read(s: &str) -> Result<Rate, &'static str> {
        let (count, per) = s.split_once('/').ok_or("")?;
        let per = match per.trim() {
            "s" => SECOND,
            "m" => MINUTE,
            "h" => HOUR,
            "d" => DAY,
            other => Span::read(other).ok_or("")?.0,
        };
        if !(SECOND..=LONGEST).contains(&per) {
            return Err(" (the span is shorter than 1s or longer than 366d)");
        }
        match digits(count.trim()) {
            Some(0) => Err(" (0 would never send; hold or pause the provider instead)"),
            Some(n) => Ok(Rate { count: u32::try_from(n).map_err(|_| " (the count is too great)")?, per }),
            None => Err(""),
        }
    }

    /// Whether a text is one.
    pub(super) fn is(s: &str) -> bool {
        Rate::read(s).is_ok()
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(s: &str) -> Result<Rate, String> {
        Rate::read(s).map_err(|why| match meant::rate(s).filter(|_| why.is_empty()) {
            Some(meant) => format!("`{s}` is not a rate: did you mean \"{meant}\"?"),
            None => format!(
                "`{s}` is not a rate{why}: expected a count per s, m, h or d, or per span, such as 20/s, 500/h or 50/300s"
            ),
        })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.per {
            SECOND => write!(f, "{}/s", self.count),
            MINUTE => write!(f, "{}/m", self.count),
            HOUR => write!(f, "{}/h", self.count),
            DAY => write!(f, "{}/d", self.count),
            other => write!(f, "{}/{}", self.count, Span(other)),
        }
    }
}

/// A span of time: `500ms`, `30s`, `5m`, `4h`, `5d`; whole milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Span(pub Duration);

/// Units of a span in milliseconds, longest first.
const SPANS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

impl Span {
    fn read(s: &str) -> Option<Span> {
        let (number, unit) = split_unit(s);
        let (_, unit) = SPANS.iter().find(|(name, _)| *name == unit)?;
        Some(Span(Duration::from_millis(digits(number)?.checked_mul(*unit)?)))
    }

    /// Whether a text is one.
    pub(super) fn is(s: &str) -> bool {
        Span::read(s).is_some()
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(s: &str) -> Result<Span, String> {
        Span::read(s).ok_or_else(|| match meant::span(s) {
            Some(meant) => format!("`{s}` is not a span of time: did you mean \"{meant}\"?"),
            None => {
                format!("`{s}` is not a span of time: expected a number and a unit (ms, s, m, h, d), such as 30s or 4h")
            }
        })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if ms == 0 {
            return f.write_str("0s");
        }
        match SPANS.iter().find(|(_, unit)| ms.is_multiple_of(*unit)) {
            Some((name, unit)) => write!(f, "{}{name}", ms / unit),
            None => write!(f, "{ms}ms"),
        }
    }
}

/// A size in bytes: `1024`, `20MB` (powers of 1000), `25MiB` (powers of 1024).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Size(pub u64);

/// Units of a size, in the order in which printing prefers them.
const SIZES: [(&str, u64); 6] =
    [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("GB", 1_000_000_000), ("MB", 1_000_000), ("KB", 1000)];

impl FromStr for Size {
    type Err = String;

    fn from_str(s: &str) -> Result<Size, String> {
        let bad = || {
            format!("`{s}` is not a size: expected bytes, or a number with KB, MB, GB, KiB, MiB or GiB, such as 25MiB")
        };
        let (number, unit) = split_unit(s);
        let unit = match unit {
            "" | "B" => 1,
            name => {
                SIZES
                    .iter()
                    .find(|(known, _)| *known == name)
                    .ok_or_else(|| meant_size(s, number, name).unwrap_or_else(bad))?
                    .1
            }
        };
        digits(number).and_then(|n| n.checked_mul(unit)).map(Size).ok_or_else(bad)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match SIZES.iter().find(|(_, unit)| self.0 != 0 && self.0.is_multiple_of(*unit)) {
            Some((name, unit)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{}", self.0),
        }
    }
}

/// What to write for `20M` or `20mb`.
fn meant_size(text: &str, number: &str, unit: &str) -> Option<String> {
    digits(number)?;
    let letter = match unit.to_ascii_lowercase().as_str() {
        "k" | "kb" | "kib" => 'K',
        "m" | "mb" | "mib" => 'M',
        "g" | "gb" | "gib" => 'G',
        _ => return None,
    };
    Some(format!(
        "`{text}` is not a size: did you mean \"{number}{letter}iB\" (powers of 1024) or \"{number}{letter}B\" (of 1000)?"
    ))
}

/// Splits `30s` into `30` and `s`.
fn split_unit(s: &str) -> (&str, &str) {
    let at = s.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(s.len());
    let (number, unit) = s.split_at(at);
    (number, unit.trim_start())
}

/// Decimal digits, which `_` may group as in TOML: `1_000`.
fn digits(s: &str) -> Option<u64> {
    let well_formed = s.split('_').all(|group| !group.is_empty() && group.bytes().all(|b| b.is_ascii_digit()));
    if !well_formed {
        return None;
    }
    s.replace('_', "").parse().ok()
}

/// A pattern in which `*` stands for any run of characters; case does not matter; a trailing dot
/// of a host name is ignored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pattern(String);

impl Pattern {
    /// Folds the pattern to lower case.
    pub fn new(text: &str) -> Pattern {
        Pattern(text.trim_end_matches('.').to_lowercase())
    }

    /// The pattern that matches everything.
    pub fn any() -> Pattern {
        Pattern("*".into())
    }

    /// As written, in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the whole of `text` matches.
    pub fn matches(&self, text: &str) -> bool {
        if self.0 == "*" {
            return true;
        }
        let text = lowercase(text.trim_end_matches('.'));
        glob(self.0.as_bytes(), text.as_bytes())
    }

    /// Whether some name matches both.
    pub fn overlaps(&self, other: &Pattern) -> bool {
        match (self.0.contains('*'), other.0.contains('*')) {
            (_, false) => self.matches(&other.0),
            (false, true) => other.matches(&self.0),
            (true, true) => both(self.0.as_bytes(), other.0.as_bytes()),
        }
    }

    /// Whether the whole of an address matches, in whichever way its domain is written.
    pub fn matches_mailbox(&self, mailbox: &Spellings<'_>) -> bool {
        mailbox.each().any(|text| self.matches(text))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `*` is any run of bytes; everything else is itself. Linear with one point of return.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            star = Some((p, t));
            p += 1;
        } else if p < pattern.len() && pattern[p] == text[t] {
            p += 1;
            t += 1;
        } else if let Some((sp, st)) = star {
            p = sp + 1;
            t = st + 1;
            star = Some((sp, st + 1));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|b| *b == b'*')
}

/// Whether some text matches both patterns. A row for each byte of the first: whether what is left of both from
/// there on has a text in common.
fn both(a: &[u8], b: &[u8]) -> bool {
    let after = |row: &[bool], at: usize| row.get(at).copied().unwrap_or(false);
    let ends = |rest: &[u8]| rest.iter().all(|byte| *byte == b'*');
    let mut below: Vec<bool> = (0..=b.len()).map(|at| ends(&b[at..])).collect();
    for from in (0..a.len()).rev() {
        let mut row = vec![false; b.len() + 1];
        row[b.len()] = ends(&a[from..]);
        for at in (0..b.len()).rev() {
            row[at] = match (a[from], b[at]) {
                (b'*', _) | (_, b'*') => after(&below, at) || row[at + 1],
                (one, other) => one == other && after(&below, at + 1),
            };
        }
        below = row;
    }
    after(&below, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Two patterns overlap if, and only if, there is a text that matches both.
        #[test]
        fn patterns_overlap_where_a_text_matches_both(a in "[ab*]{0,5}", b in "[ab*]{0,5}") {
            let (a, b) = (Pattern::new(&a), Pattern::new(&b));
            // No longer text is needed than both without their stars.
            let texts = (0..=8u32).flat_map(|length| {
                (0..1u32 << length).map(move |bits| (0..length).map(|at| if bits >> at & 1 == 0 { 'a' } else { 'b' }).collect::<String>())
            });
            let common = texts.into_iter().any(|text| a.matches(&text) && b.matches(&text));
            // Of ten letters the text may be longer than those that were tried.
            let letters = |p: &Pattern| p.as_str().bytes().filter(|byte| *byte != b'*').count();
            if letters(&a) + letters(&b) <= 8 {
                prop_assert_eq!(a.overlaps(&b), common);
            }
            prop_assert_eq!(a.overlaps(&b), b.overlaps(&a));
        }
    }

    #[test]
    fn spans() {
        for (text, ms, printed) in [
            ("30s", 30_000, "30s"),
            ("500ms", 500, "500ms"),
            ("120s", 120_000, "2m"),
            ("4h", 14_400_000, "4h"),
            ("5d", 432_000_000, "5d"),
            ("1_000ms", 1000, "1s"),
            ("0s", 0, "0s"),
        ] {
            let span: Span = text.parse().unwrap();
            assert_eq!((span.0, span.to_string().as_str()), (Duration::from_millis(ms), printed));
        }
        for bad in ["", "5", "s", "5 minutes", "-5s", "1.5h", "5S", "99999999999999999999d", "200000000000000d", "_5s"]
        {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes, printed) in [
            ("25MiB", 25 << 20, "25MiB"),
            ("20MB", 20_000_000, "20MB"),
            ("1024", 1024, "1KiB"),
            ("7", 7, "7"),
            ("0", 0, "0"),
            ("1_000 KB", 1_000_000, "1MB"),
        ] {
            let size: Size = text.parse().unwrap();
            assert_eq!((size.0, size.to_string().as_str()), (bytes, printed));
        }
        for bad in ["", "MiB", "1.5MiB", "-1", "10 mb", "99999999999GiB", "10TiB"] {
            assert!(bad.parse::<Size>().is_err(), "{bad}");
        }
    }

    #[test]
    fn rates() {
        assert_eq!("20/s".parse(), Ok(Rate { count: 20, per: SECOND }));
        assert_eq!("1_000/h".parse(), Ok(Rate { count: 1000, per: HOUR }));
        assert_eq!("2000/d".parse::<Rate>().map(|r| r.to_string()), Ok("2000/d".into()));
        for (odd, printed) in [("5000/180s", "5000/3m"), ("50/300 s", "50/5m"), ("7/60s", "7/m"), ("1/90s", "1/90s")] {
            assert_eq!(odd.parse::<Rate>().map(|r| r.to_string()), Ok(printed.into()));
        }
        for bad in ["", "20", "20/", "/s", "0/s", "20/w", "-1/s", "1.5/s", "5000000000/s", "20/0s", "1/999ms", "1/367d"]
        {
            assert!(bad.parse::<Rate>().is_err(), "{bad}");
        }
    }

    #[test]
    fn patterns() {
        let p = Pattern::new("*.Google.com.");
        assert!(p.matches("ASPMX.l.google.com.") && !p.matches("google.com") && !p.matches("google.com.evil.example"));
        assert!(Pattern::new("a*b*c").matches("aXbXbc") && !Pattern::new("a*b*c").matches("acb"));
    }

    proptest! {
        #[test]
        fn what_prints_parses_to_the_same(ms in 0u64..u64::MAX / 2, bytes in any::<u64>(), count in 1u32.., unit in 0usize..4, odd in 1000u64..=366 * 86_400_000) {
            let span = Span(Duration::from_millis(ms));
            prop_assert_eq!(span.to_string().parse(), Ok(span));
            let size = Size(bytes);
            prop_assert_eq!(size.to_string().parse(), Ok(size));
            let rate = Rate { count, per: [SECOND, MINUTE, HOUR, DAY][unit] };
            prop_assert_eq!(rate.to_string().parse(), Ok(rate));
            let rate = Rate { count, per: Duration::from_millis(odd) };
            prop_assert_eq!(rate.to_string().parse(), Ok(rate));
        }

        #[test]
        fn no_text_makes_a_parser_panic(text in "\\PC{0,40}") {
            let _ = (text.parse::<Span>(), text.parse::<Size>(), text.parse::<Rate>());
            let _ = Pattern::new(&text).matches(&text);
        }
    }
}
