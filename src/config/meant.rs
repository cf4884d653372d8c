//! What was meant by a rate or a span that is written in words or with the units of others: `20 per second`,
//! `0.5/s`, `10,000/d`, `5 days`.

use super::units::{Rate, Span};

/// Spans that people name: how they begin, and what they are in a rate.
const WORDS: [(&str, &str); 13] = [
    ("millisecond", "ms"),
    ("msec", "ms"),
    ("second", "s"),
    ("sec", "s"),
    ("minute", "m"),
    ("min", "m"),
    ("hour", "h"),
    ("hr", "h"),
    ("day", "d"),
    ("week", "7d"),
    ("wk", "7d"),
    ("month", "30d"),
    ("year", "365d"),
];

/// The span that a word names, as it is written here.
fn span_of(word: &str) -> Option<&'static str> {
    let word = word.trim_end_matches('.');
    let plain = ["ms", "s", "m", "h", "d"].into_iter().find(|unit| *unit == word);
    let letter = || if word == "w" { Some("7d") } else { None };
    let spelled =
        || WORDS.iter().find(|(name, _)| word.strip_suffix('s').unwrap_or(word) == *name).map(|(_, unit)| *unit);
    plain.or_else(letter).or_else(spelled)
}

/// A number that people write with groups or a fraction, and what follows.
fn number(text: &str) -> Option<(f64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && !",._'".contains(c)).unwrap_or(text.len());
    let (digits, rest) = text.split_at_checked(end)?;
    // Groups have three digits; any other comma or point begins a fraction.
    let groups = digits.split([',', '_', '\'']).skip(1);
    let plain = match groups.clone().all(|group| group.len() == 3) {
        true => digits.replace([',', '_', '\''], ""),
        false => digits.replace(',', "."),
    };
    Some((plain.parse().ok()?, rest.trim()))
}

/// The rate that was meant; `None`: nobody can tell.
pub(super) fn rate(text: &str) -> Option<String> {
    let text = text.trim().to_ascii_lowercase();
    let (count, rest) = number(&text)?;
    let (count, rest) = match rest.strip_prefix('k').filter(|rest| rest.starts_with(['/', ' '])) {
        Some(rest) => (count * 1000.0, rest),
        None => (count, rest),
    };
    // What is counted may stand before the span or behind it.
    let mut words: Vec<&str> = rest.split(|c: char| c.is_whitespace() || c == '/').filter(|w| !w.is_empty()).collect();
    let unit = |word: &&str| matches!(*word, "messages" | "recipients" | "connections");
    let counted = words.iter().copied().find(unit);
    words.retain(|word| {
        !unit(word)
            && !matches!(
                *word,
                "per" | "a" | "an" | "each" | "every" | "mails" | "emails" | "message" | "mail" | "email"
            )
    });
    let [word] = words.as_slice() else { return None };
    let span = span_of(word).filter(|span| *span != "ms")?;
    // A part of one in a span is a whole one in a longer span.
    let longer = [("s", "m", 60.0), ("m", "h", 60.0), ("h", "d", 24.0)];
    let (mut count, mut span) = (count, span);
    while count.fract() != 0.0 {
        let (_, next, times) = longer.iter().find(|(from, ..)| *from == span)?;
        // To the thousandth, so that 0.2/s is 12/m.
        (count, span) = ((count * times * 1000.0).round() / 1000.0, next);
    }
    let meant = format!("{count}/{span}");
    if !Rate::is(&meant) {
        return None;
    }
    Some(match counted {
        Some(counted) => format!("{meant} {counted}"),
        None => meant,
    })
}

/// The span that was meant; `None`: nobody can tell.
pub(super) fn span(text: &str) -> Option<String> {
    let text = text.trim().to_ascii_lowercase();
    let (count, word) = number(&text)?;
    let unit = span_of(word)?;
    let many: u32 = unit.trim_end_matches(char::is_alphabetic).parse().unwrap_or(1);
    let (mut count, mut unit) = (count * f64::from(many), unit.trim_start_matches(|c: char| c.is_ascii_digit()));
    let shorter = [("d", "h", 24.0), ("h", "m", 60.0), ("m", "s", 60.0), ("s", "ms", 1000.0)];
    while count.fract() != 0.0 {
        let (_, next, times) = shorter.iter().find(|(from, ..)| *from == unit)?;
        (count, unit) = ((count * times * 1000.0).round() / 1000.0, next);
    }
    let meant = format!("{count}{unit}");
    Span::is(&meant).then_some(meant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_for_a_rate_is_known() {
        for (text, meant) in [
            ("20 per second", Some("20/s")),
            ("20/minute", Some("20/m")),
            ("20 / s", Some("20/s")),
            ("0.5/s", Some("30/m")),
            ("0.25/s recipients", Some("15/m recipients")),
            ("10,000/d", Some("10000/d")),
            ("10'000 messages per day", Some("10000/d messages")),
            ("100/w", Some("100/7d")),
            ("5 mails per month", Some("5/30d")),
            ("1.5/m", Some("90/h")),
            ("20/sec.", Some("20/s")),
            ("50k/d", Some("50000/d")),
            ("1.5K per hour", Some("1500/h")),
            ("0/s", None),
            ("20", None),
            ("10MB/d", None),
            ("0.0001/d", None),
            ("many", None),
            ("", None),
        ] {
            assert_eq!(rate(text).as_deref(), meant, "{text}");
        }
    }

    #[test]
    fn what_people_write_for_a_span_is_known() {
        for (text, meant) in [
            ("5 days", Some("5d")),
            ("5min", Some("5m")),
            ("1w", Some("7d")),
            ("1.5h", Some("90m")),
            ("30 Seconds", Some("30s")),
            ("2 weeks", Some("14d")),
            ("30", None),
            ("soon", None),
            ("1e9 s", None),
        ] {
            assert_eq!(span(text).as_deref(), meant, "{text}");
        }
    }
}
