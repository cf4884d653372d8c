//! A policy of MTA-STS: what it says, which hosts it names, how long it holds (RFC 8461 §3.2, §4.1).
//!
//! Read strictly, since half a policy protects nobody; keys that are not known may be there (§3.2). Bounded: the names
//! of the hosts have [`MAX_MX`] bytes at most, so that a policy that is kept is small.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::mail::domain::{parse_name, printed};

/// Bytes of a policy's host names together; the largest ones seen have some hundred.
pub const MAX_MX: usize = 4096;
/// The longest `max_age` there may be, a year; a longer one is this.
const LONGEST: u64 = 31_557_600;
/// A shorter `max_age` is this, so that a domain is not asked with each message.
const SHORTEST: Duration = Duration::from_secs(300);

/// What becomes of a host that does not do what the policy says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It gets no mail.
    Enforce,
    /// It is told of.
    Testing,
    /// Nothing: the domain has no policy any more.
    None,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Enforce => "enforce",
            Mode::Testing => "testing",
            Mode::None => "none",
        })
    }
}

/// A policy that was fetched.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Policy {
    /// Whose it is: A-labels, lower case.
    pub domain: Box<str>,
    /// The id of the record that led to it.
    pub id: Box<str>,
    /// Its mode.
    pub mode: Mode,
    /// Patterns of host names, in lower case: `mx.example` or `*.example`.
    pub mx: Vec<Box<str>>,
    /// How long it holds from [`Policy::fetched`] on.
    pub max_age: Duration,
    /// When it was fetched.
    pub fetched: Timestamp,
}

impl Policy {
    /// Reads what `https://mta-sts.DOMAIN/.well-known/mta-sts.txt` says.
    ///
    /// # Errors
    /// It is no policy: why, for people.
    pub fn parse(text: &str, domain: &str, id: &str, now: Timestamp) -> Result<Policy, String> {
        let (mut version, mut mode, mut max_age) = (None, None, None);
        let mut mx: Vec<Box<str>> = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (key, value) = line
                .split_once(':')
                .ok_or_else(|| format!("expected `key: value` in each line, found {}", shown(line)))?;
            let value = value.trim();
            match key.trim_end() {
                // Of a key that may be there once the first counts.
                "version" => version = version.or(Some(value)),
                "mode" => mode = mode.or(Some(value)),
                "max_age" => max_age = max_age.or(Some(value)),
                "mx" => mx.push(pattern(value).ok_or_else(|| format!("`mx: {}` names no host", shown(value)))?),
                _ => {}
            }
        }
        match version {
            Some("STSv1") => {}
            Some(other) => return Err(format!("expected `version: STSv1`, found {}", shown(other))),
            None => return Err("expected `version: STSv1`, found none".into()),
        }
        let mode = match mode {
            Some("enforce") => Mode::Enforce,
            Some("testing") => Mode::Testing,
            Some("none") => Mode::None,
            Some(other) => return Err(format!("expected a mode of enforce, testing or none, found {}", shown(other))),
            None => return Err("it has no `mode`".into()),
        };
        let digits = |text: &&str| (1..=10).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        let seconds = max_age.filter(digits).and_then(|text| text.parse::<u64>().ok());
        let seconds = seconds.ok_or("expected a `max_age` in seconds, of at most 10 digits")?;
        if mx.is_empty() && mode != Mode::None {
            return Err("it names no `mx`".into());
        }
        if mx.iter().map(|name| name.len()).sum::<usize>() > MAX_MX {
            return Err(format!("the names of its hosts have more than {MAX_MX} bytes"));
        }
        let max_age = Duration::from_secs(seconds.min(LONGEST)).max(SHORTEST);
        Ok(Policy { domain: domain.into(), id: id.into(), mode, mx, max_age, fetched: now })
    }

    /// What it says, line by line, as far as it counts.
    pub fn lines(&self) -> Vec<String> {
        let first = ["version: STSv1".to_owned(), format!("mode: {}", self.mode)];
        let hosts = self.mx.iter().map(|name| format!("mx: {name}"));
        let last = [format!("max_age: {}", self.max_age.as_secs())];
        first.into_iter().chain(hosts).chain(last).collect()
    }

    /// Until when it holds.
    pub fn expires(&self) -> Timestamp {
        self.fetched.after(self.max_age)
    }

    /// Whether it is one of its hosts. `host` in lower case without a trailing dot. A wildcard stands for one label.
    pub fn names(&self, host: &str) -> bool {
        self.mx.iter().any(|pattern| match pattern.strip_prefix("*.") {
            Some(parent) => host.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == parent),
            None => **pattern == *host,
        })
    }

    /// Its hosts, the first of them, for people.
    pub fn hosts(&self) -> String {
        let mut told: Vec<&str> = self.mx.iter().take(5).map(|name| &**name).collect();
        if self.mx.len() > told.len() {
            told.push("…");
        }
        told.join(", ")
    }
}

/// A pattern in the form in which hosts are compared: A-labels, lower case, no trailing dot.
fn pattern(text: &str) -> Option<Box<str>> {
    let (wildcard, name) = match text.strip_prefix("*.") {
        Some(name) => ("*.", name),
        None => ("", text),
    };
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '-' | '.' | '_');
    let name = Some(name).filter(|name| !name.is_empty() && name.chars().all(fits))?;
    Some(format!("{wildcard}{}", printed(&parse_name(name)?)).into())
}

/// What somebody wrote, cut and printable.
fn shown(text: &str) -> String {
    let text: String = text.chars().filter(|c| !c.is_control()).take(60).collect();
    format!("`{text}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Policy, String> {
        Policy::parse(text, "a.example", "1", Timestamp(0))
    }

    #[test]
    fn a_policy_as_the_standard_shows_it() {
        let text = "version: STSv1\r\nmode: enforce\r\nmx: mail.Example.com\r\nmx: *.example.net\r\nmx: bücher.example\r\nmax_age: 604800\r\n";
        let policy = parse(text).unwrap();
        assert_eq!((policy.mode, policy.max_age.as_secs()), (Mode::Enforce, 604_800));
        assert_eq!(policy.expires(), Timestamp(604_800_000));
        for (host, named) in [
            ("mail.example.com", true),
            ("mx.mail.example.com", false),
            ("a.example.net", true),
            ("example.net", false),
            ("a.b.example.net", false),
            (".example.net", false),
            ("xn--bcher-kva.example", true),
            ("mail.example.com.evil.example", false),
        ] {
            assert_eq!(policy.names(host), named, "{host}");
        }
    }

    #[test]
    fn unknown_keys_and_empty_lines_are_passed_over_and_the_first_of_two_counts() {
        let policy =
            parse("max_age: 86400\n\nfuture: x: y\nmode: testing\nmode: enforce\nmx: a.example\nversion:STSv1\n\n")
                .unwrap();
        assert_eq!((policy.mode, policy.hosts().as_str()), (Mode::Testing, "a.example"));
    }

    #[test]
    fn what_is_no_policy_is_refused_with_the_reason() {
        let good = "version: STSv1\nmode: enforce\nmx: a.example\nmax_age: 86400\n";
        assert!(parse(good).is_ok());
        for (from, to, why) in [
            ("version: STSv1", "version: STSv2", "found `STSv2`"),
            ("version: STSv1\n", "", "found none"),
            ("enforce", "ENFORCE", "expected a mode"),
            ("mode: enforce\n", "", "no `mode`"),
            ("mx: a.example\n", "", "names no `mx`"),
            ("a.example", "*", "`mx: `*``"),
            ("a.example", "*.*.example", "names no host"),
            ("a.example", "a.*.example", "names no host"),
            ("a.example", "", "names no host"),
            ("a.example", "a b", "names no host"),
            ("86400", "-1", "`max_age`"),
            ("86400", "99999999999", "`max_age`"),
            ("max_age: 86400\n", "", "`max_age`"),
            ("mode: enforce", "<html>", "expected `key: value`"),
        ] {
            let error = parse(&good.replace(from, to)).expect_err(to);
            assert!(error.contains(why), "{to}: {error}");
        }
        let many = "mx: abcdefghijklmnop.example\n".repeat(200);
        assert!(parse(&format!("{good}{many}")).unwrap_err().contains("more than 4096 bytes"));
        assert!(parse("").is_err());
    }

    #[test]
    fn times_are_within_bounds_and_none_needs_no_hosts() {
        let of = |age: &str| parse(&format!("version: STSv1\nmode: none\nmax_age: {age}\n")).unwrap().max_age.as_secs();
        assert_eq!((of("0"), of("86400"), of("9999999999")), (300, 86_400, LONGEST));
    }
}
