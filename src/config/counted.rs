//! A rate or quota that says what it counts: `30/m`, `10000/d recipients`, `5/s connections`. What
//! prints parses to the same value.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use super::Count;
use super::units::Rate;

/// A rate with a unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CountedRate {
    /// How many in what time.
    pub rate: Rate,
    /// Of what; `None`: of what `count` says beside it.
    pub unit: Option<Unit>,
}

/// What a limit counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// Transactions: one message to several recipients at once is one.
    Messages,
    /// Recipients of transactions.
    Recipients,
    /// New connections.
    Connections,
}

impl Unit {
    const WORDS: [(&'static str, Unit); 3] =
        [("messages", Unit::Messages), ("recipients", Unit::Recipients), ("connections", Unit::Connections)];
}

impl From<Count> for Unit {
    fn from(count: Count) -> Unit {
        match count {
            Count::Messages => Unit::Messages,
            Count::Recipients => Unit::Recipients,
        }
    }
}

impl CountedRate {
    /// What of transactions it counts, where values without a unit count `default`; `None`: it counts
    /// connections.
    pub fn count(&self, default: Count) -> Option<Count> {
        match self.unit.unwrap_or(default.into()) {
            Unit::Messages => Some(Count::Messages),
            Unit::Recipients => Some(Count::Recipients),
            Unit::Connections => None,
        }
    }

    /// It counts connections.
    pub fn is_of_connections(&self) -> bool {
        self.unit == Some(Unit::Connections)
    }
}

impl From<Rate> for CountedRate {
    fn from(rate: Rate) -> CountedRate {
        CountedRate { rate, unit: None }
    }
}

impl Deref for CountedRate {
    type Target = Rate;

    fn deref(&self) -> &Rate {
        &self.rate
    }
}

/// The list that was meant by rates in one text.
fn several(text: &str) -> Option<String> {
    let parts: Vec<&str> = text.split([',', ';']).map(str::trim).collect();
    let all = parts.len() > 1 && parts.iter().all(|part| part.parse::<CountedRate>().is_ok());
    all.then(|| format!("[{}]", parts.iter().map(|part| format!("\"{part}\"")).collect::<Vec<_>>().join(", ")))
}

impl FromStr for CountedRate {
    type Err = String;

    fn from_str(s: &str) -> Result<CountedRate, String> {
        if ["unlimited", "none", "off", "no", "infinite", "infinity", "max"]
            .contains(&s.trim().to_ascii_lowercase().as_str())
        {
            return Err(format!("`{s}` is not a rate: where there is no limit, expected [], or no such line"));
        }
        if let Some(several) = several(s) {
            return Err(format!("`{s}` has several rates: expected a list of them, {several}"));
        }
        let Some((rate, word)) = s.trim().split_once(char::is_whitespace) else { return Ok(s.parse::<Rate>()?.into()) };
        let rate: Rate = match rate.parse() {
            Ok(rate) => rate,
            // The whole of it may be one in words.
            Err(why) => {
                let meant = super::meant::rate(s);
                return Err(meant.map_or(why, |meant| format!("`{s}` is not a rate: did you mean \"{meant}\"?")));
            }
        };
        let unit = |word: &str| Unit::WORDS.iter().find(|(name, _)| *name == word).map(|(_, unit)| *unit);
        match word.trim() {
            "bytes" => Err(format!("`{s}`: bytes cannot be counted yet: expected messages, recipients or connections")),
            word => match unit(word) {
                Some(unit) => Ok(CountedRate { rate, unit: Some(unit) }),
                None => Err(format!("`{s}`: `{word}` is no unit: expected messages, recipients or connections")),
            },
        }
    }
}

impl fmt::Display for CountedRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rate.fmt(f)?;
        match self.unit.and_then(|unit| Unit::WORDS.iter().find(|(_, known)| *known == unit)) {
            Some((word, _)) => write!(f, " {word}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_unit_stands_behind_the_rate() {
        let rate = Rate { count: 10_000, per: Duration::from_secs(86_400) };
        for (text, unit, printed) in [
            ("10000/d", None, "10000/d"),
            ("10_000/d  recipients", Some(Unit::Recipients), "10000/d recipients"),
            ("10000/24h messages", Some(Unit::Messages), "10000/d messages"),
            ("10000/d connections", Some(Unit::Connections), "10000/d connections"),
        ] {
            let read: CountedRate = text.parse().expect(text);
            assert_eq!((read, read.to_string().as_str()), (CountedRate { rate, unit }, printed));
            assert_eq!(read.to_string().parse(), Ok(read));
        }
        for (text, reason) in [
            ("10/d bytes", "bytes cannot be counted yet"),
            ("10/d recipient", "`recipient` is no unit: expected messages, recipients or connections"),
            ("10/d recipients each", "`recipients each` is no unit"),
            ("ten/d recipients", "`ten/d` is not a rate"),
            ("0/d messages", "0 would never send"),
        ] {
            let told = text.parse::<CountedRate>().expect_err(text);
            assert!(told.contains(reason), "{text}: {told}");
        }
    }

    #[test]
    fn what_has_no_unit_counts_what_is_said_beside_it() {
        let of = |text: &str, default| text.parse::<CountedRate>().expect(text).count(default);
        assert_eq!(of("5/s", Count::Recipients), Some(Count::Recipients));
        assert_eq!(of("5/s messages", Count::Recipients), Some(Count::Messages));
        assert_eq!(of("5/s connections", Count::Recipients), None);
    }
}
