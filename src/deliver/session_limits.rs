//! What a host takes in one session, by its own word (LIMITS, RFC 9422).
//!
//! Kept before the host has to refuse anything: recipients that one transaction has no place for go in another one, and
//! a connection that has carried what it may gives way to a new one. None of that is an attempt.
//!
//! Pure.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Domains of recipients that one session has at most, whatever the host says: what is remembered of them is bounded.
pub const MOST_DOMAINS: u32 = 1000;

/// The limits of a host; `None`: it names none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SessionLimits {
    /// `RCPTMAX`: recipients of one transaction.
    pub recipients: Option<u32>,
    /// `MAILMAX`: transactions of one session.
    pub messages: Option<u32>,
    /// `RCPTDOMAINMAX`: different domains among the recipients of one session.
    pub domains: Option<u32>,
}

impl SessionLimits {
    /// From the words behind `LIMITS` in a reply to EHLO. Limits that are not known here, and values that are none, say
    /// nothing (RFC 9422 §3); of one named twice the stricter holds.
    pub fn parse(words: &[u8]) -> SessionLimits {
        let mut limits = SessionLimits::default();
        for word in words.split(u8::is_ascii_whitespace) {
            let Some(at) = word.iter().position(|b| *b == b'=') else { continue };
            let (name, Some(value)) = (&word[..at], number(&word[at + 1..])) else { continue };
            let limit = match name {
                name if name.eq_ignore_ascii_case(b"RCPTMAX") => &mut limits.recipients,
                name if name.eq_ignore_ascii_case(b"MAILMAX") => &mut limits.messages,
                name if name.eq_ignore_ascii_case(b"RCPTDOMAINMAX") => &mut limits.domains,
                _ => continue,
            };
            *limit = Some(limit.map_or(value, |other| other.min(value)));
        }
        limits
    }

    /// It names none.
    pub fn is_empty(self) -> bool {
        self == SessionLimits::default()
    }
}

/// One to six digits, and no zero in front.
fn number(text: &[u8]) -> Option<u32> {
    let digits = (1..=6).contains(&text.len()) && text.iter().all(u8::is_ascii_digit) && text.first() != Some(&b'0');
    std::str::from_utf8(text).ok().filter(|_| digits)?.parse().ok()
}

/// As in a reply to EHLO: `RCPTMAX=20 MAILMAX=5`.
impl fmt::Display for SessionLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [("RCPTMAX", self.recipients), ("MAILMAX", self.messages), ("RCPTDOMAINMAX", self.domains)];
        let mut between = "";
        for (name, value) in all.into_iter().filter_map(|(name, value)| Some((name, value?))) {
            write!(f, "{between}{name}={value}")?;
            between = " ";
        }
        Ok(())
    }
}

/// The domains of recipients that a session has had.
#[derive(Clone, Debug, Default)]
pub(super) struct Domains(Vec<u64>);

impl Domains {
    /// Whether a recipient of this domain may come, if there may be `most`.
    pub(super) fn may_have(&self, domain: &str, most: u32) -> bool {
        let most = most.min(MOST_DOMAINS) as usize;
        self.0.len() < most || self.0.contains(&key(domain))
    }

    /// There is a recipient of this domain.
    pub(super) fn note(&mut self, domain: &str) {
        let key = key(domain);
        if !self.0.contains(&key) {
            self.0.push(key);
        }
    }
}

/// A domain has no case (RFC 5321 §2.4).
fn key(domain: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    domain.to_ascii_lowercase().hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_host_names_is_read_and_what_makes_no_sense_is_not() {
        let of = |text: &str| SessionLimits::parse(text.as_bytes());
        let all = of("rcptmax=20 MAILMAX=5 RCPTDOMAINMAX=1");
        assert_eq!(all, SessionLimits { recipients: Some(20), messages: Some(5), domains: Some(1) });
        assert_eq!(all.to_string(), "RCPTMAX=20 MAILMAX=5 RCPTDOMAINMAX=1");
        assert_eq!(of("MAILMAX=999999").to_string(), "MAILMAX=999999");
        assert_eq!(of("RCPTMAX=7 RCPTMAX=3 RCPTMAX=9").recipients, Some(3));
        for none in ["", "RCPTMAX", "RCPTMAX=", "RCPTMAX=0", "MAILMAX=05", "MAILMAX=1000000", "RCPTMAX=-1", "X=3 =4"] {
            assert!(of(none).is_empty(), "{none}");
        }
    }

    #[test]
    fn domains_are_counted_once_whatever_their_case() {
        let mut domains = Domains::default();
        assert!(domains.may_have("a.example", 1));
        ["a.example", "A.Example"].iter().for_each(|domain| domains.note(domain));
        assert!(domains.may_have("A.EXAMPLE", 1) && !domains.may_have("b.example", 1));
        assert!(domains.may_have("b.example", 2));
    }
}
