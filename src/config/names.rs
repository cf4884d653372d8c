//! Names of hosts, stores and name servers, and patterns of them, as they stand in a configuration.

use std::net::{IpAddr, SocketAddr};

use super::file_path::plain_path;
use super::never;
use super::units::Pattern;
use super::value::{Kind, Val};
use super::{DnsProtocol, Nameserver, Store};

/// A host name of letters, digits, `-` and `_` in dotted labels (RFC 1123 §2.1, and `_`).
pub(super) fn check_host(name: &str) -> Result<(), String> {
    let labels_fit = name.split('.').all(|label| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    });
    if !labels_fit || name.len() > 253 {
        return Err(format!(
            "\"{name}\" is not a host name: expected labels of letters, digits and - with dots between"
        ));
    }
    Ok(())
}

pub(super) fn read_host_port(text: &str) -> Option<Val> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse::<u16>().ok().filter(|p| *p != 0)?;
    let host = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().ok()?.to_string(),
        None => {
            let host = host.trim_end_matches('.');
            check_host(host).ok()?;
            host.to_ascii_lowercase()
        }
    };
    Some(Val::HostPort(host, port))
}

/// What was meant by a host that is written as a URL, in brackets as those of Postfix, or without a port.
pub(super) fn meant_by_host_port(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    let rest = rest.trim().trim_end_matches('/');
    // The part before an @ may be a password.
    let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    let (host, port) = match rest.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit())) {
        Some((host, port)) => (host, port),
        None => (rest, if scheme.eq_ignore_ascii_case("smtps") { "465" } else { "587" }),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let meant = format!("{host}:{port}");
    (host.contains('.') && read_host_port(&meant).is_some()).then_some(meant)
}

pub(super) fn read_store(text: &str) -> Result<Store, String> {
    if let Some(path) = text.strip_prefix("sqlite:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        return match path {
            "" => Err(format!("\"{text}\" names no file: expected {}", Kind::Store.expected())),
            ":memory:" => Err("a queue in memory would not survive a restart: expected the path of a file".into()),
            path if plain_path(path).is_some() => Err(plain_path(path).unwrap_or_default()),
            path if path.contains(['\0', '?']) => {
                Err(format!("\"{path}\" is not a path: it has a zero byte or a question mark"))
            }
            path => Ok(Store::Sqlite(path.into())),
        };
    }
    if text.starts_with("postgres:") || text.starts_with("postgresql:") {
        return Err("PostgreSQL is not supported by this version: expected \"sqlite:PATH\"".into());
    }
    Err(format!("\"{text}\" is not a store: expected {}", Kind::Store.expected()))
}

pub(super) fn host_pattern(text: &str) -> Result<Pattern, String> {
    let pattern = Pattern::new(text);
    let fits = pattern.as_str().split('.').all(|label| {
        !label.is_empty() && label.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_' || c == '*')
    });
    if !fits || text.len() > 255 {
        let one = text.rsplit_once('@').is_some_and(|(local, _)| !local.is_empty() && !local.contains(['*', '/']));
        let hint = match never::meant_by_host(text, |meant| host_pattern(meant).is_ok()) {
            Some(meant) if one => {
                format!("did you mean \"{meant}\"? (one address is a matter of [[route]]: recipient = \"{text}\")")
            }
            Some(meant) => format!("did you mean \"{meant}\"?"),
            None => "expected a name such as mx.example.com or *.example.com".to_owned(),
        };
        return Err(format!("\"{text}\" is not a pattern of a host name: {hint}"));
    }
    Ok(pattern)
}

pub(super) fn mail_pattern(text: &str, null: bool) -> Result<Pattern, String> {
    if null && text == "<>" {
        return Ok(Pattern::new(text));
    }
    let bad_char = |c: char| c.is_control() || c.is_whitespace() || "<>,;()".contains(c);
    if text.is_empty() || text.len() > 1000 || text.contains(bad_char) {
        return Err(format!("\"{text}\" is not an address pattern: expected {}", Kind::MailPattern(null).expected()));
    }
    if !text.contains(['@', '*']) {
        // A name without a dot is a user rather than a domain.
        let meant = if text.contains('.') { format!("*@{text}") } else { format!("{text}@*") };
        return Err(format!("\"{text}\" would match no address: expected a pattern such as \"{meant}\""));
    }
    if let Some(why) = never::of_mailbox(text) {
        return Err(format!("\"{text}\" would match no address: {why}"));
    }
    Ok(Pattern::new(text))
}

/// `4.7.28`, `4.7.*`, `5.*`. A pattern that no code can match is refused.
pub(super) fn enhanced_pattern(text: &str) -> Result<Pattern, String> {
    let parts: Vec<&str> = text.split('.').collect();
    let numbers =
        parts.iter().all(|p| (1..=3).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_digit() || b == b'*'));
    let class = parts.first().is_some_and(|c| ["4", "5", "*"].contains(c));
    let whole = parts.len() == 3 || (parts.len() < 3 && parts.last() == Some(&"*"));
    if !numbers || !class || !whole {
        return Err(format!("\"{text}\" matches no enhanced code: expected {}", Kind::Enhanced.expected()));
    }
    Ok(Pattern::new(text))
}

/// Words to look for in a reply. What looks like a regular expression would silently never match.
pub(super) fn reply_text(text: &str) -> Result<String, String> {
    let regex = ["\\", ".*", ".+", "(?", "[^"].into_iter().find(|mark| text.contains(mark));
    let anchored = text.starts_with('^') || text.ends_with('$');
    if let Some(mark) = regex.or(anchored.then_some("^ or $")) {
        return Err(format!(
            "{text:?} has {mark}: this is no regular expression; write the words as they stand in the reply, without \
             escapes, with * for any run of characters"
        ));
    }
    if text.len() > 500 || text.contains(char::is_control) {
        return Err(format!("{text:?} cannot stand in a reply: expected at most 500 printable characters"));
    }
    if text.trim_matches(['*', ' ']).is_empty() {
        return Err(format!("{text:?} matches every reply: expected {}", Kind::ReplyText.expected()));
    }
    Ok(text.to_owned())
}

/// A pattern of the names of lanes: providers, and `@domain` for destinations without one.
pub(super) fn lane_pattern(text: &str) -> Result<Pattern, String> {
    let name = text.strip_prefix('@').unwrap_or(text);
    let fits = |c: char| c.is_alphanumeric() || "-_.*".contains(c);
    if name.is_empty() || text.len() > 255 || !name.chars().all(fits) {
        return Err(format!("\"{text}\" is not a pattern of providers: expected {}", Kind::LanePattern.expected()));
    }
    Ok(Pattern::new(text))
}

impl std::str::FromStr for Nameserver {
    type Err = String;

    fn from_str(s: &str) -> Result<Nameserver, String> {
        let bad = |why: &str| format!("\"{s}\" is not a name server: {why}");
        let (protocol, rest, port) = if let Some(rest) = s.strip_prefix("tls://") {
            (DnsProtocol::Tls, rest, 853)
        } else if let Some(rest) = s.strip_prefix("https://") {
            (DnsProtocol::Https, rest, 443)
        } else if s.contains("://") {
            return Err(bad("expected an address, tls://ADDRESS#NAME or https://ADDRESS#NAME"));
        } else {
            (DnsProtocol::Plain, s, 53)
        };
        let (address, tls_name) = rest.split_once('#').unwrap_or((rest, ""));
        let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
        let address = match bare.parse::<IpAddr>() {
            Ok(ip) => SocketAddr::new(ip, port),
            Err(_) => address.parse().map_err(|_| match protocol {
                DnsProtocol::Plain => bad("expected an IP address, with or without a port"),
                // The name of a server is no address, and whom would one ask for it?
                _ => {
                    bad("expected an IP address and the name of its certificate, such as tls://192.0.2.53#dns.example")
                }
            })?,
        };
        if address.port() == 0 || address.ip().is_unspecified() {
            return Err(bad("the address or port is zero"));
        }
        match protocol {
            DnsProtocol::Plain if s.contains('#') => {
                return Err(bad("a certificate name (#NAME) needs tls:// or https://"));
            }
            DnsProtocol::Tls | DnsProtocol::Https if tls_name.is_empty() => {
                return Err(bad("the name of its certificate is missing: add #NAME, such as #dns.example"));
            }
            DnsProtocol::Tls | DnsProtocol::Https => check_host(tls_name)?,
            DnsProtocol::Plain => {}
        }
        Ok(Nameserver { address, protocol, tls_name: tls_name.to_owned() })
    }
}

impl std::fmt::Display for Nameserver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.protocol {
            DnsProtocol::Plain => write!(f, "{}", self.address),
            DnsProtocol::Tls => write!(f, "tls://{}#{}", self.address, self.tls_name),
            DnsProtocol::Https => write!(f, "https://{}#{}", self.address, self.tls_name),
        }
    }
}

impl std::fmt::Display for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Store::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
        }
    }
}
