//! Times for people: an absolute time with the time until then, from one reading of the clock, so
//! that both always agree; spans in two units at most; long numbers in groups.

use std::fmt;
use std::time::Duration;

use super::Timestamp;

/// A time, as seen at `now`: `14:10:00Z (in 22 min)`, `2026-11-30 14:10:00Z (in 22 h 49 min)`; the
/// date is left out where it is today's. What is over has `(2 min ago)`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct When {
    /// The time that is meant.
    pub at: Timestamp,
    /// The time of whoever is told.
    pub now: Timestamp,
}

const SECOND: i64 = 1000;
const DAY: i64 = 86_400 * SECOND;

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Both to the nearest second, so that the one is the other plus the clock.
        let at = (self.at.0.saturating_add(SECOND / 2)).div_euclid(SECOND);
        let now = (self.now.0.saturating_add(SECOND / 2)).div_euclid(SECOND);
        let text = Timestamp(at.saturating_mul(SECOND)).to_string();
        let (date, time) = text.split_once('T').unwrap_or(("", &text));
        let time = time.split('.').next().unwrap_or(time);
        // The day of the time that is told: a moment before midnight is told as midnight.
        if at.div_euclid(DAY / SECOND) != now.div_euclid(DAY / SECOND) {
            write!(f, "{date} ")?;
        }
        let seconds = |n: i64| Duration::from_secs(u64::try_from(n).unwrap_or(0));
        match at.saturating_sub(now) {
            0 => write!(f, "{time}Z (now)"),
            ahead @ 1.. => write!(f, "{time}Z (in {})", span(seconds(ahead))),
            ago => write!(f, "{time}Z ({} ago)", span(seconds(ago.saturating_neg()))),
        }
    }
}

/// A span in its two greatest units, whole seconds at least: `22 h 49 min`, `1 min 20 s`, `3 d`.
/// Below ten of the greater unit the lesser is told, too; above, only of days and hours.
pub fn span(d: Duration) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3600, "h"), (60, "min"), (1, "s")];
    let seconds = d.as_secs();
    let Some(at) = UNITS.iter().position(|(unit, _)| seconds >= *unit) else { return "0 s".into() };
    let mut units = UNITS.iter().skip(at);
    let Some((unit, name)) = units.next() else { return "0 s".into() };
    let (whole, rest) = (seconds / unit, seconds % unit);
    match units.next().map(|(unit, name)| (rest / unit, name)) {
        Some((lesser, of)) if lesser > 0 && (whole < 10 || *unit >= 3600) => format!("{whole} {name} {lesser} {of}"),
        _ => format!("{whole} {name}"),
    }
}

/// A number in groups of three digits: `4,321`.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 2026-11-21T08:49:00.123Z
    const NOW: Timestamp = Timestamp(1_795_250_940_123);

    #[test]
    fn a_time_and_how_long_it_is_until_then_agree() {
        let told = |ms: i64| When { at: Timestamp(NOW.0 + ms), now: NOW }.to_string();
        assert_eq!(told(22 * 60_000), "09:11:00Z (in 22 min)");
        assert_eq!(told(80_000), "08:50:20Z (in 1 min 20 s)");
        assert_eq!(told(82_128_000), "2026-11-22 07:37:48Z (in 22 h 48 min)");
        assert_eq!(told(-2 * 60_000), "08:47:00Z (2 min ago)");
        assert_eq!(told(100), "08:49:00Z (now)");
        // Half a second is rounded in both.
        assert_eq!(told(1400), "08:49:02Z (in 2 s)");
    }

    #[test]
    fn midnight_has_the_date_of_the_day_that_it_begins() {
        let midnight = (NOW.0.div_euclid(DAY) + 1) * DAY;
        for at in [midnight - 300, midnight, midnight + 300] {
            let told = When { at: Timestamp(at), now: NOW }.to_string();
            assert_eq!(told, "2026-11-22 00:00:00Z (in 15 h 11 min)");
        }
    }

    #[test]
    fn spans_have_two_units_at_most() {
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (61, "1 min 1 s"),
            (1320, "22 min"),
            (1325, "22 min"),
            (3600, "1 h"),
            (82_140, "22 h 49 min"),
            (3 * 86_400 + 4 * 3600 + 59, "3 d 4 h"),
            (14 * 86_400, "14 d"),
        ] {
            assert_eq!(span(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn numbers_are_grouped() {
        let all = [0, 12, 999, 1000, 20_183, 1_000_000].map(grouped);
        assert_eq!(all, ["0", "12", "999", "1,000", "20,183", "1,000,000"]);
    }

    proptest! {
        #[test]
        fn any_times_can_be_told(at in any::<i64>(), now in any::<i64>()) {
            let told = When { at: Timestamp(at), now: Timestamp(now) }.to_string();
            prop_assert!(told.ends_with(')'));
        }
    }
}
