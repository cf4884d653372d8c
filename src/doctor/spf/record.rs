//! A record of SPF as it is written (RFC 7208 §4.5, §4.6, §12): its terms, or what is wrong with it. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::macros;

/// How a record begins.
pub const VERSION: &str = "v=spf1";
/// Terms of a record that are read.
const MOST_TERMS: usize = 200;

/// What a mechanism that matches says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Qualifier {
    /// `+`
    Pass,
    /// `-`
    Fail,
    /// `~`
    SoftFail,
    /// `?`
    Neutral,
}

/// Lengths of prefixes for IPv4 and IPv6.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Prefixes {
    /// Of an IPv4 address.
    pub v4: u8,
    /// Of an IPv6 address.
    pub v6: u8,
}

/// What is compared with the address of a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Mechanism {
    /// Everybody.
    All,
    /// Whoever passes by the record of that domain.
    Include(String),
    /// The addresses of a name.
    A(Option<String>, Prefixes),
    /// Those of a domain's mail hosts.
    Mx(Option<String>, Prefixes),
    /// Who has a name in that domain.
    Ptr(Option<String>),
    /// A network.
    Network(IpAddr, u8),
    /// Whoever makes that name exist.
    Exists(String),
}

/// A mechanism with its qualifier, as it was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Directive {
    /// What it says of who matches.
    pub qualifier: Qualifier,
    /// Who matches.
    pub mechanism: Mechanism,
    /// As written.
    pub text: String,
}

/// A record.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Record {
    /// In their order.
    pub directives: Vec<Directive>,
    /// `redirect=`.
    pub redirect: Option<String>,
    /// A version of the record that receivers would read is not what is here: names of modifiers nobody knows.
    pub unknown: Vec<String>,
}

/// What is wrong with a term.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// As written, cut.
    pub term: String,
    /// What was expected.
    pub why: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.term, self.why)
    }
}

/// Whether receivers take this text for a record of SPF (RFC 7208 §4.5).
pub fn is_record(text: &str) -> bool {
    let head = text.get(..VERSION.len()).is_some_and(|head| head.eq_ignore_ascii_case(VERSION));
    head && text.as_bytes().get(VERSION.len()).is_none_or(|b| *b == b' ')
}

/// Whether somebody meant this to be one, although receivers pass over it.
pub fn is_meant_as_record(text: &str) -> bool {
    let bare: String = text.chars().filter(|c| c.is_ascii_alphanumeric()).take(5).collect();
    !is_record(text) && bare.eq_ignore_ascii_case("vspf1")
}

impl Record {
    /// Reads a text that [`is_record`]; all that is wrong with it, if anything is.
    ///
    /// # Errors
    /// At least one term is wrong, and so the whole record (RFC 7208 §4.6).
    pub fn parse(text: &str) -> Result<Record, Vec<Fault>> {
        let (mut record, mut faults) = (Record::default(), Vec::new());
        let (mut redirects, mut explanations) = (0, 0);
        let mut terms = text.get(VERSION.len()..).unwrap_or_default().split(' ').filter(|term| !term.is_empty());
        for term in terms.by_ref().take(MOST_TERMS) {
            let read = match modifier(term) {
                Some((name, value)) => match name.to_ascii_lowercase().as_str() {
                    "redirect" => {
                        redirects += 1;
                        domain_spec(value).map(|()| record.redirect = Some(value.to_owned()))
                    }
                    "exp" => {
                        explanations += 1;
                        domain_spec(value)
                    }
                    _ => macros::check(value).map(|()| record.unknown.push(cut(term))),
                },
                None => directive(term).map(|directive| record.directives.push(directive)),
            };
            if let Err(why) = read {
                faults.push(Fault { term: cut(term), why });
            }
        }
        if terms.next().is_some() {
            faults.push(Fault { term: cut(text), why: format!("it has more than {MOST_TERMS} terms") });
        }
        for (name, times) in [("redirect=", redirects), ("exp=", explanations)] {
            if times > 1 {
                faults.push(Fault { term: name.into(), why: format!("it stands there {times} times, expected once") });
            }
        }
        if faults.is_empty() { Ok(record) } else { Err(faults) }
    }

    /// The `all` that ends it, if one does.
    pub fn all(&self) -> Option<&Directive> {
        self.directives.iter().find(|directive| directive.mechanism == Mechanism::All)
    }
}

impl Mechanism {
    /// Whether it costs a look-up (RFC 7208 §4.6.4).
    pub fn costs(&self) -> bool {
        !matches!(self, Mechanism::All | Mechanism::Network(..))
    }
}

/// A text for people, of bounded length.
pub fn cut(text: &str) -> String {
    let mut cut: String = text.chars().take(80).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    cut
}

/// Name and value of a modifier: `name=` with a name of letters, digits, `-`, `_` and `.`.
fn modifier(term: &str) -> Option<(&str, &str)> {
    let (name, value) = term.split_once('=')?;
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(fits)).then_some((name, value))
}

fn directive(term: &str) -> Result<Directive, String> {
    let (qualifier, rest) = match term.chars().next() {
        Some('+') => (Qualifier::Pass, term.get(1..)),
        Some('-') => (Qualifier::Fail, term.get(1..)),
        Some('~') => (Qualifier::SoftFail, term.get(1..)),
        Some('?') => (Qualifier::Neutral, term.get(1..)),
        _ => (Qualifier::Pass, Some(term)),
    };
    let rest = rest.unwrap_or_default();
    let end = rest.find([':', '/']).unwrap_or(rest.len());
    let (name, arguments) = rest.split_at_checked(end).unwrap_or((rest, ""));
    let mechanism = match name.to_ascii_lowercase().as_str() {
        "all" if arguments.is_empty() => Mechanism::All,
        "all" => return Err("`all` takes no argument".into()),
        "include" => Mechanism::Include(spec(arguments, "include")?),
        "exists" => Mechanism::Exists(spec(arguments, "exists")?),
        "a" | "mx" => {
            let (domain, prefixes) = domain_and_prefixes(arguments)?;
            match name.len() {
                1 => Mechanism::A(domain, prefixes),
                _ => Mechanism::Mx(domain, prefixes),
            }
        }
        "ptr" if arguments.is_empty() => Mechanism::Ptr(None),
        "ptr" => Mechanism::Ptr(Some(spec(arguments, "ptr")?)),
        "ip4" => network(arguments, "ip4")?,
        "ip6" => network(arguments, "ip6")?,
        other => return Err(unknown(other, term)),
    };
    Ok(Directive { qualifier, mechanism, text: cut(term) })
}

/// What was probably meant by a mechanism that nobody knows.
fn unknown(name: &str, term: &str) -> String {
    const KNOWN: [&str; 8] = ["all", "include", "a", "mx", "ptr", "ip4", "ip6", "exists"];
    let bare = term.trim_start_matches(['+', '-', '~', '?']);
    if bare.parse::<Ipv4Addr>().is_ok() || bare.split('/').next().is_some_and(|ip| ip.parse::<Ipv4Addr>().is_ok()) {
        return format!("an address alone is no mechanism, expected ip4:{bare}");
    }
    if is_record(term) || term.eq_ignore_ascii_case(VERSION) {
        return "a second record begins here: expected one `v=spf1`, and the mechanisms of both behind it".into();
    }
    if name.is_empty() {
        return "a qualifier or colon stands alone: is there a space too many?".into();
    }
    let near = match name {
        "ip" | "ipv4" | "ip4v" => Some("ip4"),
        "ipv6" => Some("ip6"),
        "includes" | "incude" => Some("include"),
        _ => KNOWN.into_iter().find(|known| strsim::osa_distance(known, name) == 1 && known.len() > 2),
    };
    let ends = |end: char| name.ends_with(end) && KNOWN.contains(&name.trim_end_matches(end));
    if ends(';') || ends(',') {
        return "terms are separated by spaces, not by `;` or `,`".into();
    }
    match near {
        Some(near) => format!("there is no mechanism `{}`, did you mean {near}?", cut(name)),
        None => format!("there is no mechanism `{}`: expected one of {}", cut(name), KNOWN.join(", ")),
    }
}

/// The domain behind the colon, which has to be there.
fn spec(arguments: &str, name: &str) -> Result<String, String> {
    let domain = arguments.strip_prefix(':').ok_or_else(|| format!("expected {name}:DOMAIN"))?;
    domain_spec(domain)?;
    Ok(domain.to_owned())
}

/// `[:DOMAIN][/n][//n]`.
fn domain_and_prefixes(arguments: &str) -> Result<(Option<String>, Prefixes), String> {
    let at = prefix_start(arguments);
    let (domain, lengths) = arguments.split_at_checked(at).unwrap_or((arguments, ""));
    let domain = match domain.strip_prefix(':') {
        Some(domain) => {
            domain_spec(domain)?;
            Some(domain.to_owned())
        }
        None => None,
    };
    let (v4, v6) = match lengths.split_once("//") {
        Some((v4, v6)) => (v4, Some(v6)),
        None => (lengths, None),
    };
    let v4 = match v4.strip_prefix('/') {
        Some(v4) => length(v4, 32)?,
        None if v4.is_empty() => 32,
        None => return Err("expected /n, //n or /n//n behind the domain".into()),
    };
    Ok((domain, Prefixes { v4, v6: v6.map_or(Ok(128), |v6| length(v6, 128))? }))
}

/// Where the lengths of prefixes begin: at the first `/` outside of a macro, where it may be a delimiter, from which
/// on there are only digits and `/`.
fn prefix_start(arguments: &str) -> usize {
    let mut start = arguments.len();
    let mut inside = false;
    for (at, c) in arguments.char_indices() {
        match c {
            '{' => inside = true,
            '}' => inside = false,
            '/' if !inside && start == arguments.len() => start = at,
            '0'..='9' | '/' => {}
            _ => start = arguments.len(),
        }
    }
    start
}

fn length(text: &str, most: u8) -> Result<u8, String> {
    let digits =
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    let length = text.parse::<u8>().ok().filter(|length| digits && *length <= most);
    length.ok_or_else(|| format!("/{} is no length of a prefix, expected 0 to {most}", cut(text)))
}

fn network(arguments: &str, name: &str) -> Result<Mechanism, String> {
    let text = arguments.strip_prefix(':').ok_or_else(|| format!("expected {name}:ADDRESS"))?;
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let v4 = name == "ip4";
    let ip = match v4 {
        true => address.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        false => address.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
    };
    let Some(ip) = ip else {
        let other = match (address.parse::<IpAddr>(), v4) {
            (Ok(_), true) => ": that is an IPv6 address, expected ip6:",
            (Ok(_), false) => ": that is an IPv4 address, expected ip4:",
            (Err(_), _) if address.chars().any(|c| c.is_ascii_alphabetic()) && v4 => {
                ": a name is no address, expected a:NAME or include:NAME"
            }
            (Err(_), _) => "",
        };
        return Err(format!("`{}` is no address for {name}{other}", cut(address)));
    };
    let most = if v4 { 32 } else { 128 };
    Ok(Mechanism::Network(ip, prefix.map_or(Ok(most), |prefix| length(prefix, most))?))
}

/// `domain-spec` of RFC 7208 §7.1: a macro-string that ends in a macro, or in `.` and a label that is no number.
fn domain_spec(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("a domain is missing".into());
    }
    macros::check(text)?;
    if text.ends_with('}') || text.ends_with("%%") || text.ends_with("%_") || text.ends_with("%-") {
        return match text.ends_with('}') {
            true => Ok(()),
            false => Err(format!("`{}` does not end as a domain does", cut(text))),
        };
    }
    let bare = text.strip_suffix('.').unwrap_or(text);
    // A label that begins inside a macro (`%{d}com`) has no dot before it.
    let last = bare.rsplit(['.', '}']).next().unwrap_or_default();
    let dotted = bare.strip_suffix(last).is_some_and(|before| before.ends_with('.'));
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let is_label = !last.is_empty()
        && last.chars().all(fits)
        && !last.starts_with('-')
        && !last.ends_with('-')
        && last.chars().any(|c| !c.is_ascii_digit());
    match dotted && is_label {
        true => Ok(()),
        false if bare.parse::<IpAddr>().is_ok() => {
            Err(format!("`{}` is an address, expected a domain: ip4: is for addresses", cut(text)))
        }
        false => Err(format!("`{}` is no domain name", cut(text))),
    }
}
