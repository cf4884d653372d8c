//! `warmup`: how it is written, what contradicts itself in it, and how it prints.
//!
//! Either `{ start, day_1, double_every, until }` or `{ start, days = [...] }`, both with an
//! optional `end`, `overflow` and `before`. Both become a list of days; what prints is the list, and parses to the same.

use std::time::Duration;

use toml_edit::{Array, InlineTable, Value};

use super::fields::Field;
use super::units::{Rate, Span};
use super::value::{Kind, describe, is_mistyped, nearest};
use super::{BeforeStart, Overflow, Warmup};
use crate::clock::Timestamp;

/// Longest plan, in days.
const MAX_DAYS: u32 = 3660;
const DAY: Duration = Duration::from_secs(86_400);
const DAY_MS: i64 = 86_400_000;
const KEYS: [&str; 8] = ["start", "day_1", "double_every", "until", "days", "end", "overflow", "before"];

/// What is expected, for messages and documentation.
pub(super) const EXPECTED: &str = "{ start = \"2026-12-01\", day_1 = \"50/d\", double_every = \"1d\", until = \"20000/d\" } \
     or { start = \"2026-12-01\", days = [50, 100, 200] }, each with or without end = \"2027-01-31\", overflow = \"source\" and before = \"nothing\"";

/// Reads the inline table; the error says what is wrong, without where.
pub(super) fn read(value: &Value) -> Result<Warmup, String> {
    let table = value
        .as_inline_table()
        .ok_or_else(|| format!("expected a table such as {EXPECTED}, found {}", describe(value)))?;
    if let Some((unknown, _)) = table.iter().find(|(k, _)| !KEYS.contains(k)) {
        // Words that are no secret which lost its key: they may be repeated.
        if ["begin", "begins", "from", "first_day"].contains(&unknown) {
            return Err(format!("unknown key `{unknown}`: did you mean `start`?"));
        }
        let hint = nearest(unknown, KEYS).map(|near| format!("did you mean `{near}`?"));
        let hint = hint.unwrap_or_else(|| format!("expected {EXPECTED}"));
        let named = if is_mistyped(unknown, KEYS) { format!(" `{unknown}`") } else { String::new() };
        return Err(format!("unknown key{named}: {hint}"));
    }
    let start = date(table.get("start").ok_or_else(|| format!("`start` is missing: expected {EXPECTED}"))?, "start")?;
    let days = match table.get("days") {
        Some(days) => {
            if let Some(other) = ["day_1", "double_every", "until"].into_iter().find(|k| table.contains_key(k)) {
                return Err(format!("`days` says it all: `{other}` contradicts it"));
            }
            listed(days)?
        }
        None => doubled(table)?,
    };
    let planned = u32::try_from(days.len()).unwrap_or(u32::MAX);
    let length = match table.get("end") {
        Some(end) => until_end(start, date(end, "end")?, planned)?,
        None => planned,
    };
    let overflow = table.get("overflow").map_or(Ok(Overflow::Wait), |v| word("overflow", Overflow::WORDS, v))?;
    let before = table.get("before").map_or(Ok(BeforeStart::default()), |v| word("before", BeforeStart::WORDS, v))?;
    Ok(Warmup { start, days, length, overflow, before })
}

fn word<T: Field>(key: &str, words: &'static [&'static str], value: &Value) -> Result<T, String> {
    let read = Kind::Word(words).read(value).map_err(|e| format!("`{key}`: {e}"))?;
    T::from_val(read).ok_or_else(|| format!("`{key}`: found {}", describe(value)))
}

/// The number of days from `start` to `end`; at least `planned`.
fn until_end(start: Timestamp, end: Timestamp, planned: u32) -> Result<u32, String> {
    let (from, to) = (start.day_text(), end.day_text());
    if end <= start {
        return Err(format!("ends on {to}, which is not after its start on {from}"));
    }
    let length = u32::try_from((end.0 - start.0) / DAY_MS).ok().filter(|n| *n <= MAX_DAYS);
    let length = length.ok_or_else(|| format!("lasts from {from} to {to}: more than {MAX_DAYS} days"))?;
    if length < planned {
        return Err(format!("has a plan of {planned} days from {from}, but ends on {to}, after {length}"));
    }
    Ok(length)
}

fn listed(days: &Value) -> Result<Vec<u32>, String> {
    let expected = "expected `days` to be a list of numbers, first day first, such as [50, 100, 200]";
    let array = days.as_array().ok_or_else(|| format!("{expected}, found {}", describe(days)))?;
    if array.is_empty() || array.len() > MAX_DAYS as usize {
        return Err(format!("{expected}, at least one and at most {MAX_DAYS}"));
    }
    let read = |v: &Value| v.as_integer().and_then(|n| u32::try_from(n).ok()).ok_or_else(|| expected.to_owned());
    let days: Vec<u32> = array.iter().map(read).collect::<Result<_, _>>()?;
    if let Some(day) = days.iter().position(|n| *n == 0) {
        return Err(format!("day {} has 0: nothing would be sent; expected at least 1", day + 1));
    }
    Ok(days)
}

/// Doubles every so many days; the last step is what `until` says, and lasts as long as the others.
fn doubled(table: &InlineTable) -> Result<Vec<u32>, String> {
    let text = |key: &str| {
        let value = table.get(key).ok_or_else(|| format!("`{key}` is missing: expected {EXPECTED}"))?;
        value.as_str().ok_or_else(|| format!("expected `{key}` to be a text, found {}", describe(value)))
    };
    let per_day = |key: &str| {
        let rate: Rate = text(key)?.parse()?;
        if rate.per == DAY { Ok(rate.count) } else { Err(format!("`{key}` is {rate}: expected a count per day")) }
    };
    let (first, until) = (per_day("day_1")?, per_day("until")?);
    let every: Span = text("double_every")?.parse()?;
    let step = every.0.as_secs() / DAY.as_secs();
    if !every.0.as_millis().is_multiple_of(DAY.as_millis()) || !(1..=366).contains(&step) {
        return Err(format!("`double_every` is {every}: expected whole days, from 1d to 366d"));
    }
    if first > until {
        return Err(format!("starts with day_1 = {first}/d, more than until = {until}/d"));
    }
    let mut days = Vec::new();
    let mut today = first;
    loop {
        days.extend((0..step).map(|_| today));
        if today >= until {
            break;
        }
        today = today.saturating_mul(2).min(until);
        if days.len() > MAX_DAYS as usize {
            return Err(format!("needs more than {MAX_DAYS} days to come from {first}/d to {until}/d"));
        }
    }
    Ok(days)
}

/// A day, however it is written.
pub(super) fn day(value: &Value) -> Option<Timestamp> {
    match value {
        Value::String(text) => Timestamp::of_day(text.value()),
        Value::Datetime(date) => Timestamp::of_day(&date.value().to_string()),
        _ => None,
    }
}

/// A day: `"2026-12-01"`, or the same without quotes (a TOML date).
fn date(value: &Value, key: &str) -> Result<Timestamp, String> {
    day(value)
        .ok_or_else(|| format!("`{key}` is {}: expected a day (UTC) such as \"2026-12-01\"", value.to_string().trim()))
}

impl Warmup {
    /// As it stands in a configuration, with the list of days.
    pub(super) fn to_toml(&self) -> Value {
        let mut table = InlineTable::new();
        table.insert("start", self.start.day_text().into());
        table.insert("days", Value::Array(self.days.iter().map(|n| i64::from(*n)).collect::<Array>()));
        if self.length as usize > self.days.len() {
            table.insert("end", Timestamp(self.start.0 + i64::from(self.length) * DAY_MS).day_text().into());
        }
        if self.overflow != Overflow::Wait {
            table.insert("overflow", self.overflow.as_str().into());
        }
        if self.before != BeforeStart::default() {
            table.insert("before", self.before.as_str().into());
        }
        Value::InlineTable(table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Warmup, String> {
        read(&text.parse().expect("TOML"))
    }

    #[test]
    fn doubling_becomes_days() {
        let plan =
            parse("{ start = '2026-12-01', day_1 = '50/d', double_every = '1d', until = '300/d' }").expect("good");
        assert_eq!((plan.days, plan.length), (vec![50, 100, 200, 300], 4));
        assert_eq!(plan.start.to_string(), "2026-12-01T00:00:00.000Z");
        let slow =
            parse("{ start = 2026-12-01, day_1 = '50/d', double_every = '2d', until = '100/d', end = '2026-12-11' }");
        let slow = slow.expect("good");
        assert_eq!((slow.days, slow.length), (vec![50, 50, 100, 100], 10));
    }

    #[test]
    fn what_contradicts_itself_is_refused_with_the_reason() {
        for (text, reason) in [
            ("{ days = [1] }", "`start` is missing"),
            ("{ start = '2026-02-30', days = [1] }", "`start` is '2026-02-30': expected a day"),
            ("{ start = '2026-12-01', days = [] }", "at least one"),
            ("{ start = '2026-12-01', days = [5, 0] }", "day 2 has 0"),
            ("{ start = '2026-12-01', days = [5], day_1 = '5/d' }", "`day_1` contradicts it"),
            (
                "{ start = '2026-12-01', days = [5], end = '2026-11-30' }",
                "ends on 2026-11-30, which is not after its start",
            ),
            ("{ start = '2026-12-01', days = [5, 6], end = '2026-12-02' }", "has a plan of 2 days"),
            ("{ start = '2026-12-01', day_1 = '50/d', double_every = '1d', until = '20/d' }", "more than until = 20/d"),
            (
                "{ start = '2026-12-01', day_1 = '50/h', double_every = '1d', until = '20/d' }",
                "expected a count per day",
            ),
            ("{ start = '2026-12-01', day_1 = '50/d', double_every = '36h', until = '90/d' }", "expected whole days"),
            ("{ start = '2026-12-01', day_1 = '50/d', until = '90/d' }", "`double_every` is missing"),
            ("{ start = '2026-12-01', day1 = '50/d' }", "did you mean `day_1`?"),
            ("{ start = '2026-12-01', days = [5], overflow = 'sources' }", "did you mean \"source\"?"),
            ("{ start = '2026-12-01', days = [5], overflow = 1 }", "`overflow`: expected one of"),
            (
                "{ start = '2026-12-01', days = [5], before = 'none' }",
                "`before`: \"none\" is not known: expected one of",
            ),
            ("7", "found the integer 7"),
        ] {
            let told = parse(text).expect_err(text);
            assert!(told.contains(reason), "{text}: {told}");
        }
    }

    proptest! {
        #[test]
        fn what_prints_parses_to_the_same(start in 0i64..80_000, days in proptest::collection::vec(1u32.., 1..40), more in 0u32..60) {
            let length = days.len() as u32 + more;
            let overflow = if more % 2 == 0 { Overflow::Wait } else { Overflow::Source };
            let before = if more % 3 == 0 { BeforeStart::Nothing } else { BeforeStart::DayOne };
            let plan = Warmup { start: Timestamp(start * DAY_MS), days, length, overflow, before };
            prop_assert_eq!(read(&plan.to_toml()), Ok(plan));
        }
    }
}
