//! The one form of a recipient domain that lanes, caches and queries use: A-labels in lower case
//! without a trailing dot, or an address literal in its canonical text.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use hickory_resolver::proto::rr::Name;

use crate::mail::Address;
use crate::mail::domain::in_unicode;
pub(super) use crate::mail::domain::{parse_name, printed};

/// Where a recipient's domain points.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Target {
    /// A domain to look up.
    Domain {
        /// A-labels, lower case, no trailing dot.
        ascii: Arc<str>,
        /// The same with U-labels, if it has any: patterns may be written either way.
        unicode: Option<String>,
        /// For queries; always fully qualified, so that no search list applies.
        name: Name,
    },
    /// An address literal (RFC 5321 §4.1.3).
    Literal {
        /// The address; an IPv4-mapped one is IPv4.
        ip: IpAddr,
        /// Bracketed, canonical, lower case.
        text: Arc<str>,
    },
    /// Not a name that DNS could know: a label over 63 or a name over 253 bytes, or bad IDN.
    Invalid {
        /// As received, in lower case.
        text: Arc<str>,
    },
}

impl Target {
    pub(super) fn of(recipient: &Address) -> Target {
        if let Some(ip) = recipient.literal() {
            let ip = ip.to_canonical();
            let text = match ip {
                IpAddr::V4(ip) => format!("[{ip}]"),
                IpAddr::V6(ip) => format!("[ipv6:{ip}]"),
            };
            return Target::Literal { ip, text: text.into() };
        }
        match parse_name(recipient.domain()) {
            Some(name) => {
                let ascii = printed(&name);
                let unicode = in_unicode(&name, &ascii);
                Target::Domain { ascii: ascii.into(), unicode, name }
            }
            None => Target::Invalid { text: recipient.domain().to_lowercase().into() },
        }
    }

    /// The text that lanes and caches use.
    pub(super) fn text(&self) -> &Arc<str> {
        match self {
            Target::Domain { ascii, .. } => ascii,
            Target::Literal { text, .. } | Target::Invalid { text } => text,
        }
    }
}

/// How configuration and caches know a recipient's domain: what [`Target`] says of it, but for an
/// ordinary name in lower case without taking it apart.
pub(super) struct Form<'a> {
    /// As [`Target::text`].
    pub(super) text: Cow<'a, str>,
    /// The same with U-labels, if it has any.
    pub(super) unicode: Option<String>,
}

impl<'a> Form<'a> {
    pub(super) fn of(recipient: &'a Address) -> Form<'a> {
        let domain = recipient.domain();
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.');
        if domain.bytes().all(plain) && !domain.contains("xn--") {
            return Form { text: domain.into(), unicode: None };
        }
        match Target::of(recipient) {
            Target::Domain { ascii, unicode, .. } => Form { text: String::from(&*ascii).into(), unicode },
            Target::Literal { text, .. } | Target::Invalid { text } => {
                Form { text: String::from(&*text).into(), unicode: None }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(address: &str) -> Target {
        Target::of(&Address::parse(address).unwrap())
    }

    #[test]
    fn domains_have_one_form() {
        for (address, text) in [
            ("a@Example.COM", "example.com"),
            ("a@example.com.", "example.com"),
            ("a@müller.example", "xn--mller-kva.example"),
            ("a@MÜLLER.example", "xn--mller-kva.example"),
            ("a@xn--mller-kva.example", "xn--mller-kva.example"),
            ("a@XN--MLLER-KVA.example", "xn--mller-kva.example"),
            ("a@müller\u{3002}example", "xn--mller-kva.example"),
            ("a@ex_ample.com", "ex_ample.com"),
            ("a@sub-domain.0.example", "sub-domain.0.example"),
            ("a@[192.0.2.1]", "[192.0.2.1]"),
            ("a@[IPv6:2001:DB8:0::1]", "[ipv6:2001:db8::1]"),
            ("a@[IPv6:::ffff:192.0.2.1]", "[192.0.2.1]"),
        ] {
            assert_eq!(&**target(address).text(), text, "{address}");
            assert_eq!(Form::of(&Address::parse(address).unwrap()).text, text, "{address}");
        }
    }

    #[test]
    fn names_are_fully_qualified_and_bounded() {
        let Target::Domain { name, .. } = target("a@host") else { panic!() };
        assert!(name.is_fqdn());
        let long = format!("a@{}.example", "x".repeat(64));
        assert!(matches!(target(&long), Target::Invalid { .. }));
        let deep = format!("a@{}example", "abcdefg.".repeat(31));
        assert!(matches!(target(&deep), Target::Invalid { .. }), "{:?}", target(&deep));
    }

    #[test]
    fn idn_domains_keep_both_forms() {
        let Target::Domain { unicode, .. } = target("a@xn--mller-kva.example") else { panic!() };
        assert_eq!(unicode.as_deref(), Some("müller.example"));
        let address = Address::parse("a@xn--mller-kva.example").unwrap();
        assert_eq!(Form::of(&address).unicode.as_deref(), Some("müller.example"));
    }
}
