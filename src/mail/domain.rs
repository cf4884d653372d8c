//! Domains as people and DNS write them: the same one in U-labels (`müller.example`) and in A-labels
//! (`xn--mller-kva.example`, RFC 5890). What compares an address with a configuration asks for both.

use std::borrow::Cow;

use hickory_resolver::proto::rr::Name;

use super::Address;

/// A fully qualified name from a domain in A- or U-labels.
pub(crate) fn parse_name(domain: &str) -> Option<Name> {
    let domain = domain.trim_end_matches('.');
    if domain.is_empty() {
        return None;
    }
    let mut name = if domain.is_ascii() {
        Name::from_ascii(domain.to_ascii_lowercase()).ok()?
    } else {
        // IDNA separates labels at these dots too (UTS 46); the name parser knows only `.`.
        Name::from_utf8(domain.replace(['\u{3002}', '\u{ff0e}', '\u{ff61}'], ".")).ok()?.to_lowercase()
    };
    name.set_fqdn(true);
    // 253 printed bytes and the final dot: 255 on the wire (RFC 1035 §2.3.4).
    (name.len() <= 255).then_some(name)
}

/// A name as text: A-labels, lower case, no trailing dot, anything odd escaped.
pub(crate) fn printed(name: &Name) -> String {
    let mut text = name.to_ascii();
    text.make_ascii_lowercase();
    if text.ends_with('.') {
        text.pop();
    }
    text
}

/// The same with U-labels, if it has any.
pub(crate) fn in_unicode(name: &Name, printed: &str) -> Option<String> {
    printed.contains("xn--").then(|| name.to_utf8().trim_end_matches('.').to_lowercase())
}

/// The texts that stand for one reverse-path or forward-path. For a domain without international
/// labels, as nearly all are, it is the address itself, and nothing is allocated.
#[derive(Clone, Debug)]
pub struct Spellings<'a> {
    written: &'a str,
    /// With A-labels and with U-labels, of a domain that has such labels.
    others: Option<[String; 2]>,
}

impl<'a> Spellings<'a> {
    /// Of an address; `None` is the null reverse-path, `<>`.
    pub fn of(address: Option<&'a Address>) -> Spellings<'a> {
        match address {
            Some(address) => Spellings { written: address.as_str(), others: international(address) },
            None => Spellings { written: "<>", others: None },
        }
    }

    /// As received, then with A-labels, then with U-labels, where these exist.
    pub fn each(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.written).chain(self.others.iter().flatten().map(String::as_str))
    }
}

/// The address in ASCII, for a host that takes nothing else (RFC 6531 §3.2): with A-labels. `None`: the
/// local part needs more, or the domain is none that the DNS knows. That of an ASCII address is itself.
pub fn in_ascii(address: &Address) -> Option<Cow<'_, Address>> {
    if address.is_ascii() {
        return Some(Cow::Borrowed(address));
    }
    if !address.local().is_ascii() {
        return None;
    }
    let domain = printed(&parse_name(address.domain())?);
    Address::parse(&format!("{}@{domain}", address.local())).ok().map(Cow::Owned)
}

fn international(address: &Address) -> Option<[String; 2]> {
    let domain = address.domain();
    let a_label = |domain: &str| domain.as_bytes().windows(4).any(|bytes| bytes.eq_ignore_ascii_case(b"xn--"));
    if domain.is_ascii() && !a_label(domain) {
        return None;
    }
    let name = parse_name(domain)?;
    let ascii = printed(&name);
    let unicode = in_unicode(&name, &ascii)?;
    Some([ascii, unicode].map(|domain| format!("{}@{domain}", address.local())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_in_ascii_is_the_same_mailbox() {
        let ascii = |text: &str| in_ascii(&Address::parse(text).unwrap()).map(|a| a.to_string());
        assert_eq!(ascii("Jo@m\u{fc}ller.example").as_deref(), Some("Jo@xn--mller-kva.example"));
        assert_eq!(ascii("\"a b\"@M\u{dc}LLER.Example").as_deref(), Some("\"a b\"@xn--mller-kva.example"));
        assert_eq!(ascii("Jo@Example.com").as_deref(), Some("Jo@Example.com"));
        assert_eq!(ascii("j\u{f6}@example.com"), None);
        assert_eq!(ascii(&format!("a@{}\u{fc}.example", "x".repeat(64))), None);
    }

    #[test]
    fn an_international_domain_has_all_its_spellings_and_another_one_costs_nothing() {
        let each = |text: &str| {
            let address = Address::parse(text).unwrap();
            Spellings::of(Some(&address)).each().map(str::to_owned).collect::<Vec<_>>()
        };
        let both = ["A.b@xn--mller-kva.example", "A.b@müller.example"];
        for written in ["A.b@MÜLLER.example", "A.b@XN--mller-KVA.Example", "A.b@müller\u{3002}example"] {
            assert_eq!(each(written), [&[written], &both[..]].concat(), "{written}");
        }
        // The local part is nobody's but the receiver's (RFC 5321 §2.3.11).
        assert_eq!(each("jörg@example.com"), ["jörg@example.com"]);
        for plain in ["a@Example.com", "a@[192.0.2.1]", "xn--a@example.com", "a@sub-domain.example"] {
            let address = Address::parse(plain).unwrap();
            assert!(Spellings::of(Some(&address)).others.is_none(), "{plain}");
        }
        // A name that no DNS knows has only the form in which it came.
        let long = format!("a@{}ü.example", "x".repeat(64));
        assert_eq!(each(&long), [long.as_str()]);
        assert_eq!(Spellings::of(None).each().collect::<Vec<_>>(), ["<>"]);
    }
}
