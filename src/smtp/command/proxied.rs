//! Attributes of XCLIENT and XFORWARD, by which a proxy or filter in front tells whose client it speaks
//! for (Postfix's XCLIENT_README and XFORWARD_README). Values are xtext (RFC 3461 §4); one that is not known
//! is `[UNAVAILABLE]` or `[TEMPUNAVAIL]`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::super::Reply;
use super::params::decode_xtext;

/// What EHLO announces behind the names of the commands.
pub const XCLIENT: &str = "XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT";
/// See [`XCLIENT`].
pub const XFORWARD: &str = "XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE";

/// Longest value, in bytes.
const MAX_VALUE: usize = 255;

/// A value that was said to be unknown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Known<T> {
    /// It is this.
    Is(T),
    /// The proxy does not know it.
    Unavailable,
}

/// What was said. `None`: nothing, so what was known before holds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Proxied {
    /// `ADDR=`: the client's address.
    pub address: Option<Known<IpAddr>>,
    /// `NAME=`: its host name.
    pub name: Option<Known<String>>,
    /// `HELO=`: what it said in HELO or EHLO.
    pub helo: Option<Known<String>>,
    /// `PROTO=`: it said EHLO.
    pub esmtp: Option<bool>,
    /// `LOGIN=`: who it has logged in as.
    pub login: Option<Known<String>>,
    /// `IDENT=`: the queue id of the message in front.
    pub ident: Option<Known<String>>,
}

impl Proxied {
    /// Parses what follows the verb; `announced` is [`XCLIENT`] or [`XFORWARD`].
    ///
    /// # Errors
    /// 501, with the attribute that is wrong.
    pub(super) fn parse(rest: &str, announced: &str) -> Result<Proxied, Reply> {
        let mut told = Proxied::default();
        let mut seen: Vec<&str> = Vec::new();
        for word in rest.split_ascii_whitespace() {
            let (name, coded) = word.split_once('=').ok_or_else(|| bad(word))?;
            let known = announced.split(' ').skip(1).find(|known| known.eq_ignore_ascii_case(name));
            let name = known.filter(|known| !seen.contains(known)).ok_or_else(|| bad(name))?;
            seen.push(name);
            let value = value(coded).ok_or_else(|| bad(name))?;
            told.take(name, value).ok_or_else(|| bad(name))?;
        }
        if seen.is_empty() { Err(bad("(none)")) } else { Ok(told) }
    }

    fn take(&mut self, name: &str, value: Known<String>) -> Option<()> {
        match name {
            "ADDR" => self.address = Some(value.read(address)?),
            "NAME" => self.name = Some(value),
            "HELO" => self.helo = Some(value),
            "LOGIN" => self.login = Some(value),
            "IDENT" => self.ident = Some(value),
            "PROTO" => {
                let known = value.read(|text| match text {
                    _ if text.eq_ignore_ascii_case("SMTP") => Some(false),
                    _ if text.eq_ignore_ascii_case("ESMTP") => Some(true),
                    _ => None,
                })?;
                self.esmtp = match known {
                    Known::Is(esmtp) => Some(esmtp),
                    Known::Unavailable => None,
                };
            }
            "SOURCE" => {
                value.read(|text| ["LOCAL", "REMOTE"].contains(&text).then_some(()))?;
            }
            // Checked, and of no use here.
            "DESTADDR" => {
                value.read(address)?;
            }
            _ => {
                value.read(|text| text.parse::<u16>().ok())?;
            }
        }
        Some(())
    }
}

impl<T> Known<T> {
    fn read<U>(&self, read: impl FnOnce(&str) -> Option<U>) -> Option<Known<U>>
    where
        T: AsRef<str>,
    {
        match self {
            Known::Is(text) => read(text.as_ref()).map(Known::Is),
            Known::Unavailable => Some(Known::Unavailable),
        }
    }
}

fn bad(name: &str) -> Reply {
    Reply::with(501, "5.5.4", format!("Bad attribute {name:.64}"))
}

fn value(coded: &str) -> Option<Known<String>> {
    if ["[UNAVAILABLE]", "[TEMPUNAVAIL]"].iter().any(|word| coded.eq_ignore_ascii_case(word)) {
        return Some(Known::Unavailable);
    }
    let text = decode_xtext(coded).filter(|text| !text.is_empty() && text.len() <= MAX_VALUE)?;
    (!text.chars().any(char::is_control)).then_some(Known::Is(text))
}

/// `192.0.2.1` or `IPV6:2001:db8::1`.
fn address(text: &str) -> Option<IpAddr> {
    let v6 = text.get(..5).filter(|tag| tag.eq_ignore_ascii_case("IPV6:")).and_then(|_| text.get(5..));
    match v6 {
        Some(v6) => v6.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Proxied, Reply> {
        Proxied::parse(text, XCLIENT)
    }

    #[test]
    fn attributes_are_read_and_checked() {
        let told =
            parse("ADDR=192.0.2.7 NAME=spike.example PORT=1234 PROTO=ESMTP HELO=spike+2Dx login=Jo+20B").expect("good");
        assert_eq!(told.address, Some(Known::Is([192, 0, 2, 7].into())));
        assert_eq!(told.name, Some(Known::Is("spike.example".into())));
        assert_eq!((told.helo, told.esmtp), (Some(Known::Is("spike-x".into())), Some(true)));
        // Some clients say two words, and a proxy passes on what they said.
        assert_eq!(parse("HELO=my+20pc").expect("good").helo, Some(Known::Is("my pc".into())));
        assert_eq!(told.login, Some(Known::Is("Jo B".into())));
        let told =
            parse("addr=IPv6:2001:db8::1 NAME=[UNAVAILABLE] HELO=[tempunavail] DESTADDR=[UNAVAILABLE]").expect("good");
        assert_eq!(told.address, Some(Known::Is("2001:db8::1".parse().expect("an address"))));
        assert_eq!((told.name, told.helo, told.esmtp), (Some(Known::Unavailable), Some(Known::Unavailable), None));
        for bad in [
            "",
            "ADDR",
            "ADDR=",
            "ADDR=2001:db8::1",
            "ADDR=IPV6:192.0.2.1",
            "ADDR=192.0.2.1 ADDR=192.0.2.2",
            "ADDR=192.0.2.256",
            "PORT=x",
            "PORT=70000",
            "PROTO=HTTP",
            "NAME=a+0D+0Ab",
            "NAME=a+4",
            "IDENT=x",
            "FOO=x",
        ] {
            assert_eq!(parse(bad).map_err(|reply| reply.code), Err(501), "{bad}");
        }
        assert_eq!(
            Proxied::parse("IDENT=ABC SOURCE=LOCAL", XFORWARD).expect("good").ident,
            Some(Known::Is("ABC".into()))
        );
        assert!(Proxied::parse("LOGIN=x", XFORWARD).is_err() && Proxied::parse("SOURCE=MOON", XFORWARD).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_taken_or_refused(text in "\\PC{0,80}", pairs in "( ?(ADDR|NAME|PROTO|HELO)=[ -~]{0,20}){0,4}") {
            let _ = (parse(&text), parse(&pairs), Proxied::parse(&pairs, XFORWARD));
        }
    }
}
