//! Mailbox addresses as they stand in MAIL and RCPT.
//!
//! Syntax is checked only as far as safety needs: legacy software sends addresses that RFC 5321
//! forbids and that providers accept (`user..name@`, `_` in domains). What is refused would break
//! a command line or hide a second address: controls, spaces outside quotes, `<>`, bad brackets.
//! The value inside is a [`lettre::Address`], so that commands and DSNs are printed by lettre; it is
//! shared, since it is in the envelope, in a lane and in the hands of a worker at once.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

/// A mailbox: `local-part@domain`. At most 320 bytes (64 + `@` + 255, RFC 5321 §4.5.3.1) are
/// guaranteed to work; up to 1,000 are accepted.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(Arc<lettre::Address>);

/// A text in lower case; most are already, and are not copied.
pub fn lowercase(text: &str) -> Cow<'_, str> {
    match text.bytes().all(|b| b.is_ascii() && !b.is_ascii_uppercase()) {
        true => Cow::Borrowed(text),
        false => Cow::Owned(text.to_lowercase()),
    }
}

/// Why a text is not an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AddressError {
    /// Empty.
    #[error("the address is empty")]
    Empty,
    /// More than 1,000 bytes.
    #[error("the address is longer than 1000 bytes")]
    TooLong,
    /// No `@`.
    #[error("the address has no domain: expected local-part@domain")]
    NoDomain,
    /// Local part.
    #[error("the local part has a character that needs quotes, or its quotes do not close")]
    Local,
    /// Domain.
    #[error("the domain is not a host name or an address literal like [192.0.2.1]")]
    Domain,
}

impl Address {
    /// Parses what stands between the angle brackets (a source route `@a,@b:` is dropped, RFC 5321 §4.1.1.3).
    pub fn parse(text: &str) -> Result<Address, AddressError> {
        let text = match text.strip_prefix('@').and_then(|route| route.split_once(':')) {
            Some((_, mailbox)) => mailbox,
            None => text,
        };
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        if text.len() > 1000 {
            return Err(AddressError::TooLong);
        }
        let at = text.rfind('@').ok_or(AddressError::NoDomain)?;
        let (local, domain) = (&text[..at], &text[at + 1..]);
        if !local_part_is_safe(local) {
            return Err(AddressError::Local);
        }
        if !domain_is_safe(domain) {
            return Err(AddressError::Domain);
        }
        Ok(Address(lettre::Address::new_dangerous(local, domain.strip_suffix('.').unwrap_or(domain)).into()))
    }

    /// What stands before the `@`, as received (quotes included).
    pub fn local(&self) -> &str {
        self.0.user()
    }

    /// What stands after the `@`, as received.
    pub fn domain(&self) -> &str {
        self.0.domain()
    }

    /// The IP address, if the domain is an address literal (RFC 5321 §4.1.3).
    pub fn literal(&self) -> Option<IpAddr> {
        parse_literal(self.domain())
    }

    /// The whole address.
    pub fn as_str(&self) -> &str {
        (*self.0).as_ref()
    }

    /// No byte over 127, so no SMTPUTF8 is needed for it.
    pub fn is_ascii(&self) -> bool {
        self.as_str().is_ascii()
    }

    /// The value that lettre's commands take.
    pub fn to_lettre(&self) -> lettre::Address {
        (*self.0).clone()
    }
}

pub(super) fn local_part_is_safe(local: &str) -> bool {
    if local.is_empty() {
        return false;
    }
    if let Some(inner) = local.strip_prefix('"') {
        // Quoted string, RFC 5321 §4.1.2: backslash quotes the next character.
        let mut chars = inner.chars();
        loop {
            match chars.next() {
                None => return false,
                Some('"') => return chars.next().is_none(),
                Some('\\') => match chars.next() {
                    Some(c) if !c.is_control() => {}
                    _ => return false,
                },
                Some(c) if c.is_control() => return false,
                Some(_) => {}
            }
        }
    }
    local.chars().all(|c| !c.is_control() && !c.is_whitespace() && !"<>()[]\\,;:\"@".contains(c))
}

fn domain_is_safe(domain: &str) -> bool {
    if domain.starts_with('[') {
        return parse_literal(domain).is_some();
    }
    let domain = domain.strip_suffix('.').unwrap_or(domain);
    !domain.is_empty()
        && domain.len() <= 255
        && domain.split('.').all(|label| {
            !label.is_empty()
                && label.len() <= 63 * 4
                && !label.starts_with('-')
                && label.chars().all(|c| {
                    c.is_alphanumeric()
                        || c == '-'
                        || c == '_'
                        || (!c.is_ascii() && !c.is_control() && !c.is_whitespace())
                })
        })
}

fn parse_literal(domain: &str) -> Option<IpAddr> {
    let inner = domain.strip_prefix('[')?.strip_suffix(']')?;
    match inner.get(..5) {
        Some(tag) if tag.eq_ignore_ascii_case("IPv6:") => inner[5..].parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => inner.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(s: &str) -> Result<Address, AddressError> {
        Address::parse(s)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>", self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_legacy_software_sends() {
        for good in [
            "a@b",
            "user..name@example.com",
            "user.@docomo.example",
            "o'brien+tag@ex_ample.com",
            "\"a b\"@example.com",
            "\"a@b\\\"c\"@example.com",
            "user@[192.0.2.1]",
            "user@[IPv6:2001:db8::1]",
            "jörg@müller.example",
            "a@example.com.",
            "@relay.example,@b.example:user@example.com",
        ] {
            assert!(Address::parse(good).is_ok(), "{good}");
        }
        assert_eq!(Address::parse("@r.example:u@example.com").map(|a| a.to_string()), Ok("u@example.com".into()));
        assert_eq!(Address::parse("u@[IPv6:::1]").ok().and_then(|a| a.literal()), Some("::1".parse().unwrap()));
    }

    #[test]
    fn refuses_what_could_break_a_command_line() {
        for bad in [
            "",
            "user",
            "@example.com",
            "user@",
            "a b@example.com",
            "a\r\nRCPT TO:<x@y>@example.com",
            "a@b\r\n.c",
            "a>@example.com",
            "<a@example.com",
            "\"a@example.com",
            "\"a\"b@example.com",
            "a@[192.0.2.999]",
            "a@[::1]",
            "a@exa mple.com",
            "a@-x.example",
            "a@x..example",
            "a@b,c@d",
            "a\0@b",
            "\"a\u{7f}\"@b",
            "x@y>z",
        ] {
            assert!(Address::parse(bad).is_err(), "{bad:?}");
        }
        assert!(Address::parse(&format!("{}@x", "a".repeat(1000))).is_err());
    }
}
