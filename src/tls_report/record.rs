//! The TXT record at `_smtp._tls.DOMAIN`, which says who gets reports (RFC 8460 §3).

use std::fmt;

use crate::config::Endpoint;
use crate::mail::Address;

/// Reports on a domain go to so many at most, whatever it names.
pub const MOST_TARGETS: usize = 3;

/// Who gets a report.
#[derive(Clone, Debug)]
pub enum Target {
    /// By mail.
    Mail(Address),
    /// By POST.
    Https(Endpoint),
}

/// As it is stored.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Mail(address) => write!(f, "mailto:{address}"),
            Target::Https(endpoint) => endpoint.fmt(f),
        }
    }
}

impl Target {
    /// For the log: what an address may say beside its host is nobody's business.
    pub fn shown(&self) -> String {
        match self {
            Target::Mail(address) => address.to_string(),
            Target::Https(endpoint) => format!("https://{}", endpoint.host()),
        }
    }

    fn parse(uri: &str) -> Option<Target> {
        let (scheme, rest) = uri.split_once(':')?;
        if scheme.eq_ignore_ascii_case("https") {
            return uri.parse().ok().map(Target::Https);
        }
        if !scheme.eq_ignore_ascii_case("mailto") {
            return None;
        }
        let address = rest.split('?').next().unwrap_or_default();
        Address::parse(&decoded(address)?).ok().filter(Address::is_ascii).map(Target::Mail)
    }
}

/// `%2B` is a plus (RFC 3986 §2.1).
fn decoded(text: &str) -> Option<String> {
    let (mut out, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((byte, behind)) = rest.split_first() {
        rest = behind;
        if *byte != b'%' {
            out.push(*byte);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        out.push(u8::from_str_radix(digits, 16).ok().filter(|_| digits.bytes().all(|d| d.is_ascii_hexdigit()))?);
        rest = rest.get(2..)?;
    }
    String::from_utf8(out).ok()
}

/// Who gets reports, by the texts of all TXT records of the name, each put together from its strings. Exactly one has
/// to be of this version (RFC 8460 §3); nobody without any address that can be used.
pub fn targets<'t>(texts: impl Iterator<Item = &'t str>) -> Vec<Target> {
    let mut ours = texts.filter_map(fields);
    let Some(fields) = ours.next().filter(|_| ours.next().is_none()) else { return Vec::new() };
    let rua = fields.split(';').find_map(|field| {
        let (name, value) = field.split_once('=')?;
        (name.trim() == "rua").then_some(value)
    });
    rua.into_iter()
        .flat_map(|rua| rua.split(','))
        .filter_map(|uri| Target::parse(uri.trim()))
        .take(MOST_TARGETS)
        .collect()
}

/// What stands behind the version, if it is this one.
fn fields(text: &str) -> Option<&str> {
    let behind = text.trim_start().strip_prefix("v")?.trim_start().strip_prefix('=')?.trim_start();
    behind.strip_prefix("TLSRPTv1")?.trim_start().strip_prefix(';')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_record_of_this_version_names_a_few() {
        for (texts, expected) in [
            (&["v=TLSRPTv1; rua=mailto:tls@a.example"] as &[&str], &["mailto:tls@a.example"] as &[&str]),
            (&["v=TLSRPTv1;rua=https://a.example/tls?x=1"], &["https://a.example/tls?x=1"]),
            (
                &["v=TLSRPTv1; rua = mailto:a@a.example , https://b.example/x;"],
                &["mailto:a@a.example", "https://b.example/x"],
            ),
            (&["v=TLSRPTv1; ext=1; rua=MAILTO:a%2Bb@a.example?subject=x"], &["mailto:a+b@a.example"]),
            (
                &["v=spf1 -all", "v=TLSRPTv1; rua=mailto:a@a.example", "v=TLSRPTv10; rua=mailto:b@a.example"],
                &["mailto:a@a.example"],
            ),
            (
                &["v=TLSRPTv1; rua=mailto:a@a.example,mailto:b@a.example,mailto:c@a.example,mailto:d@a.example"],
                &["mailto:a@a.example", "mailto:b@a.example", "mailto:c@a.example"],
            ),
            (
                &[
                    "v=TLSRPTv1; rua=http://a.example/,ftp:x,mailto:,mailto:a,mailto:%zz@a.example,mailto:a%0d@a.example,mailto:%3Cx@a.example",
                ],
                &[],
            ),
            (&["v=TLSRPTv1; rua=mailto:a@a.example", "v=TLSRPTv1; rua=mailto:b@a.example"], &[]),
            (&["v=TLSRPT1; rua=mailto:a@a.example"], &[]),
            (&["v=TLSRPTv1"], &[]),
            (&["v=TLSRPTv1; rua="], &[]),
            (&["rua=mailto:a@a.example; v=TLSRPTv1"], &[]),
            (&[], &[]),
        ] {
            let found: Vec<String> = targets(texts.iter().copied()).iter().map(Target::to_string).collect();
            assert_eq!(found, expected, "{texts:?}");
        }
    }

    #[test]
    fn the_log_has_no_more_than_the_host_of_an_address() {
        let found = targets(["v=TLSRPTv1; rua=https://a.example/secret"].into_iter());
        assert_eq!(found[0].shown(), "https://a.example");
    }
}
