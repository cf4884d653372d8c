//! What a provider enforces, and the words that set it: `rate=20/s connections=5 greylist=30s`.

use std::str::FromStr;
use std::time::Duration;

use crate::config::Count;
use crate::config::units::{Rate, Span};

/// The caps of a provider. What is not limited is `u32::MAX`, empty or zero.
#[derive(Clone, PartialEq, Debug)]
pub struct Caps {
    /// Messages (or recipients) in every sliding window; every one holds.
    pub rates: Vec<Rate>,
    /// What `rates` count.
    pub count: Count,
    /// Connections at once.
    pub connections: u32,
    /// New connections in every sliding window.
    pub connect_rates: Vec<Rate>,
    /// Messages of one connection.
    pub messages_per_connection: u32,
    /// At that number the connection is closed without a word, else with a reply.
    pub close_silently: bool,
    /// Recipients of one message.
    pub recipients: u32,
    /// How long the first attempts of a (sender, recipient, client) are refused.
    pub greylist: Duration,
    /// Share of recipients refused with 4yz, 0 to 1.
    pub fail_temporary: f64,
    /// Share of recipients refused with 5yz, 0 to 1.
    pub fail_permanent: f64,
    /// How long each answer takes.
    pub latency: Duration,
}

impl Default for Caps {
    fn default() -> Caps {
        Caps {
            rates: Vec::new(),
            count: Count::Messages,
            connections: u32::MAX,
            connect_rates: Vec::new(),
            messages_per_connection: u32::MAX,
            close_silently: false,
            recipients: u32::MAX,
            greylist: Duration::ZERO,
            fail_temporary: 0.0,
            fail_permanent: 0.0,
            latency: Duration::ZERO,
        }
    }
}

/// One cap set to a value.
#[derive(Clone, PartialEq, Debug)]
pub enum Setting {
    /// `rate`; none: no cap.
    Rates(Vec<Rate>),
    /// `count`.
    Count(Count),
    /// `connections`.
    Connections(u32),
    /// `connect-rate`.
    ConnectRates(Vec<Rate>),
    /// `messages-per-connection`.
    MessagesPerConnection(u32),
    /// `close-silently`.
    CloseSilently(bool),
    /// `recipients`.
    Recipients(u32),
    /// `greylist`.
    Greylist(Duration),
    /// `fail`.
    Fail(Fail),
    /// `latency`.
    Latency(Duration),
}

/// Names of settings, for messages.
const NAMES: &str = "rate, count, connections, connect-rate, messages-per-connection, close-silently, recipients, \
                     greylist, fail, latency";

impl Setting {
    /// From a name and a value; `none` as a value lifts the cap.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(name: &str, value: &str) -> Result<Setting, String> {
        let none = value == "none";
        let number = || match value.parse::<u32>() {
            _ if none => Ok(u32::MAX),
            Ok(n) if n > 0 => Ok(n),
            _ => Err(format!("`{value}` is not a number for {name}: expected 1 or more, or none")),
        };
        let span = || if none { Ok(Duration::ZERO) } else { value.parse::<Span>().map(|s| s.0) };
        let rates = || if none { Ok(Vec::new()) } else { value.split('+').map(str::parse).collect() };
        Ok(match name.replace('_', "-").as_str() {
            "rate" => Setting::Rates(rates()?),
            "connect-rate" => Setting::ConnectRates(rates()?),
            "count" => Setting::Count(match value {
                "messages" => Count::Messages,
                "recipients" => Count::Recipients,
                _ => return Err(format!("`{value}` is not a count: expected messages or recipients")),
            }),
            "connections" => Setting::Connections(number()?),
            "messages-per-connection" => Setting::MessagesPerConnection(number()?),
            "recipients" => Setting::Recipients(number()?),
            "close-silently" => Setting::CloseSilently(match value {
                "yes" | "true" => true,
                "no" | "false" => false,
                _ => return Err(format!("`{value}`: expected yes or no for {name}")),
            }),
            "greylist" => Setting::Greylist(span()?),
            "latency" => Setting::Latency(span()?),
            "fail" => Setting::Fail(if none { Fail::default() } else { value.parse()? }),
            _ => return Err(format!("`{name}` is not a cap: expected one of {NAMES}")),
        })
    }

    /// Settings with blanks or commas between, each `name=value` or `name:value`. A rate named
    /// twice holds in both windows.
    ///
    /// # Errors
    /// What is wrong with the first that cannot be read.
    pub fn list(text: &str) -> Result<Vec<Setting>, String> {
        let mut list: Vec<Setting> = Vec::new();
        for word in text.split([' ', '\t', ',']).filter(|w| !w.is_empty()) {
            let (name, value) = word
                .split_once(['=', ':'])
                .ok_or_else(|| format!("`{word}` sets nothing: expected name=value, such as rate=20/s"))?;
            let new = Setting::parse(name, value)?;
            let joined = list.iter_mut().any(|old| match (old, &new) {
                (Setting::Rates(old), Setting::Rates(more))
                | (Setting::ConnectRates(old), Setting::ConnectRates(more)) => {
                    old.extend(more);
                    true
                }
                _ => false,
            });
            if !joined {
                list.push(new);
            }
        }
        if list.is_empty() { Err("nothing is set: expected name=value, such as rate=20/s".into()) } else { Ok(list) }
    }
}

impl Caps {
    /// Sets one cap.
    pub fn set(&mut self, setting: &Setting) {
        match setting {
            Setting::Rates(rates) => self.rates.clone_from(rates),
            Setting::Count(count) => self.count = *count,
            Setting::Connections(n) => self.connections = *n,
            Setting::ConnectRates(rates) => self.connect_rates.clone_from(rates),
            Setting::MessagesPerConnection(n) => self.messages_per_connection = *n,
            Setting::CloseSilently(yes) => self.close_silently = *yes,
            Setting::Recipients(n) => self.recipients = *n,
            Setting::Greylist(span) => self.greylist = *span,
            Setting::Fail(fail) => (self.fail_temporary, self.fail_permanent) = (fail.temporary, fail.permanent),
            Setting::Latency(span) => self.latency = *span,
        }
    }
}

/// Shares of recipients that are refused: `2%` or `2%:4xx` for now, `1%:5xx` for good,
/// `2%:4xx+1%:5xx` both.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub struct Fail {
    /// 4yz, 0 to 1.
    pub temporary: f64,
    /// 5yz, 0 to 1.
    pub permanent: f64,
}

impl FromStr for Fail {
    type Err = String;

    fn from_str(s: &str) -> Result<Fail, String> {
        let bad = || format!("`{s}` is not a share that fails: expected 2%, 2%:4xx or 2%:5xx");
        let mut fail = Fail::default();
        for part in s.split('+') {
            let (share, class) = part.split_once(':').unwrap_or((part, "4xx"));
            let percent: f64 = share.strip_suffix('%').ok_or_else(bad)?.parse().map_err(|_| bad())?;
            match class {
                "4xx" => fail.temporary += percent / 100.0,
                "5xx" => fail.permanent += percent / 100.0,
                _ => return Err(bad()),
            }
            if !(0.0..=100.0).contains(&percent) {
                return Err(bad());
            }
        }
        if fail.temporary + fail.permanent > 1.0 {
            return Err(format!("`{s}` is more than 100%"));
        }
        Ok(fail)
    }
}

/// Caps that change at a time: `60s rate=40/s connections=4`.
#[derive(Clone, PartialEq, Debug)]
pub struct Change {
    /// Since the start.
    pub at: Duration,
    /// What holds from then on; the rest stays as it was.
    pub settings: Vec<Setting>,
}

impl FromStr for Change {
    type Err = String;

    fn from_str(s: &str) -> Result<Change, String> {
        let (at, settings) = s
            .trim()
            .split_once([' ', '\t'])
            .ok_or_else(|| format!("`{s}` is not a change: expected a time and caps, such as \"60s rate=40/s\""))?;
        Ok(Change { at: at.parse::<Span>()?.0, settings: Setting::list(settings)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_read_as_they_are_written() {
        let mut caps = Caps::default();
        let text = "rate=20/s,rate:600/m connections=5 messages_per_connection=20 close-silently=yes greylist=30s \
                    fail=2%:4xx+1%:5xx latency=50ms count=recipients recipients=50 connect-rate=30/m";
        for setting in Setting::list(text).expect("a list") {
            caps.set(&setting);
        }
        assert_eq!(caps.rates.iter().map(ToString::to_string).collect::<Vec<_>>(), ["20/s", "600/m"]);
        assert_eq!((caps.connections, caps.messages_per_connection, caps.close_silently), (5, 20, true));
        assert_eq!((caps.greylist, caps.latency), (Duration::from_secs(30), Duration::from_millis(50)));
        assert_eq!((caps.fail_temporary, caps.fail_permanent), (0.02, 0.01));
        assert_eq!((caps.count, caps.recipients, caps.connect_rates.len()), (Count::Recipients, 50, 1));
        caps.set(&Setting::parse("rate", "none").expect("a setting"));
        caps.set(&Setting::parse("connections", "none").expect("a setting"));
        assert!(caps.rates.is_empty() && caps.connections == u32::MAX);
    }

    #[test]
    fn nonsense_is_refused_with_what_was_expected() {
        for (text, expected) in [
            ("rate", "expected name=value"),
            ("rate=0/s", "would never send"),
            ("speed=3", "is not a cap"),
            ("connections=0", "1 or more"),
            ("fail=2", "2%:4xx"),
            ("fail=60%+60%", "more than 100%"),
            ("fail=-1%", "2%:4xx"),
            ("fail=NaN%", "2%:4xx"),
            ("greylist=5", "span of time"),
            ("", "nothing is set"),
        ] {
            let error = Setting::list(text).expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert!("rate=40/s".parse::<Change>().is_err());
        let change: Change = "60s rate=40/s".parse().expect("a change");
        assert_eq!(change.at, Duration::from_secs(60));
    }
}
