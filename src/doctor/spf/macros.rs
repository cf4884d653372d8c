//! Macros of SPF (RFC 7208 §7): whether they are well written, and what they stand for. Pure.

use std::fmt::Write as _;
use std::net::IpAddr;

/// What macros stand for.
#[derive(Clone, Debug)]
pub struct Values<'a> {
    /// `i`, `v`, `c`: the client.
    pub ip: IpAddr,
    /// `s`, `l`, `o`: the sender.
    pub sender: &'a str,
    /// `d`: whose record it is.
    pub domain: &'a str,
    /// `h`: what the client says in EHLO.
    pub helo: &'a str,
}

/// Longest name that comes of macros; a longer one loses labels from the left (RFC 7208 §7.3).
const MAX_NAME: usize = 253;
/// Longest text on the way to it.
const MAX_TEXT: usize = 8192;

/// One piece of a macro-string.
enum Piece<'t> {
    Literal(&'t str),
    /// `%%`, `%_`, `%-`.
    Escape(&'static str),
    Macro(Macro<'t>),
}

struct Macro<'t> {
    letter: char,
    /// Written in upper case: what is not unreserved in URLs is escaped.
    escapes: bool,
    /// Labels from the right; `None`: all.
    digits: Option<usize>,
    reverse: bool,
    delimiters: &'t str,
}

/// Whether a macro-string is well written, and has only what is visible.
///
/// # Errors
/// It is not: why.
pub fn check(text: &str) -> Result<(), String> {
    if let Some(c) = text.chars().find(|c| !('\u{21}'..='\u{7e}').contains(c)) {
        return Err(match c.is_ascii() {
            true => "it has a control character".into(),
            false => {
                format!("`{c}` is not ASCII: expected A-labels (xn--…) of an international domain, and plain quotes")
            }
        });
    }
    each(text, |piece| match piece {
        // Those are for explanations only (RFC 7208 §7.2).
        Piece::Macro(Macro { letter: letter @ ('c' | 'r' | 't'), .. }) => {
            Err(format!("the macro {letter} is for explanations only"))
        }
        _ => Ok(()),
    })
}

/// Whether it depends on who sends.
pub fn depends_on_client(text: &str) -> bool {
    let mut depends = false;
    let _ = each(text, |piece| {
        depends |= matches!(piece, Piece::Macro(made) if !matches!(made.letter, 'd' | 'o'));
        Ok(())
    });
    depends
}

/// Whether it depends on who of a domain sends: `%{l}`, and `%{s}`, which has it in it.
pub fn depends_on_sender(text: &str) -> bool {
    let mut depends = false;
    let _ = each(text, |piece| {
        depends |= matches!(piece, Piece::Macro(made) if matches!(made.letter, 'l' | 's'));
        Ok(())
    });
    depends
}

/// The name that a macro-string stands for.
///
/// # Errors
/// It is not well written.
pub fn expand(text: &str, values: &Values<'_>) -> Result<String, String> {
    let mut out = String::new();
    each(text, |piece| {
        match piece {
            Piece::Literal(text) => out.push_str(text),
            Piece::Escape(text) => out.push_str(text),
            Piece::Macro(made) => out.push_str(&made.expand(values)),
        }
        if out.len() > MAX_TEXT { Err("it becomes too long".into()) } else { Ok(()) }
    })?;
    let mut name = out.trim_end_matches('.');
    while name.len() > MAX_NAME {
        let Some((_, rest)) = name.split_once('.') else { break };
        name = rest;
    }
    Ok(name.to_owned())
}

fn each<'t>(text: &'t str, mut take: impl FnMut(Piece<'t>) -> Result<(), String>) -> Result<(), String> {
    let mut rest = text;
    while let Some((literal, after)) = rest.split_once('%') {
        take(Piece::Literal(literal))?;
        let mut chars = after.chars();
        rest = match chars.next() {
            Some('%') => {
                take(Piece::Escape("%"))?;
                chars.as_str()
            }
            Some('_') => {
                take(Piece::Escape(" "))?;
                chars.as_str()
            }
            Some('-') => {
                take(Piece::Escape("%20"))?;
                chars.as_str()
            }
            Some('{') => {
                let (inside, more) = chars.as_str().split_once('}').ok_or("a macro `%{` has no `}`")?;
                take(Piece::Macro(Macro::parse(inside)?))?;
                more
            }
            _ => return Err("a `%` stands alone, expected %% or a macro such as %{d}".into()),
        };
    }
    take(Piece::Literal(rest))
}

impl<'t> Macro<'t> {
    fn parse(inside: &'t str) -> Result<Macro<'t>, String> {
        let wrong = || format!("%{{{inside}}} is no macro");
        let mut chars = inside.chars();
        let letter = chars.next().ok_or_else(wrong)?;
        let (escapes, letter) = (letter.is_ascii_uppercase(), letter.to_ascii_lowercase());
        if !"slodiphcrtv".contains(letter) {
            return Err(wrong());
        }
        let rest = chars.as_str();
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (digits, rest) = rest.split_at_checked(end).ok_or_else(wrong)?;
        let digits = match digits {
            "" => None,
            // More than any name has is all of it.
            text => Some(text.parse::<usize>().unwrap_or(usize::MAX)).filter(|n| *n > 0).map(Some).ok_or_else(wrong)?,
        };
        let (reverse, delimiters) = match rest.strip_prefix(['r', 'R']) {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        match delimiters.chars().all(|c| ".-+,/_=".contains(c)) {
            true => Ok(Macro { letter, escapes, digits, reverse, delimiters }),
            false => Err(wrong()),
        }
    }

    fn expand(&self, values: &Values<'_>) -> String {
        let (local, domain) = values.sender.rsplit_once('@').unwrap_or(("postmaster", values.sender));
        let value = match self.letter {
            's' => values.sender.to_owned(),
            'l' => local.to_owned(),
            'o' => domain.to_owned(),
            'd' => values.domain.to_owned(),
            'h' => values.helo.to_owned(),
            'i' => dotted(values.ip),
            'v' => if values.ip.is_ipv4() { "in-addr" } else { "ip6" }.to_owned(),
            // Checked names are for no use here (RFC 7208 §7.3: not recommended).
            _ => "unknown".to_owned(),
        };
        let delimiters = if self.delimiters.is_empty() { "." } else { self.delimiters };
        let mut parts: Vec<&str> = value.split(|c| delimiters.contains(c)).collect();
        if self.reverse {
            parts.reverse();
        }
        let skipped = self.digits.map_or(0, |digits| parts.len().saturating_sub(digits));
        let made = parts.get(skipped..).unwrap_or_default().join(".");
        if self.escapes { escaped(&made) } else { made }
    }
}

/// RFC 3986 §2.3.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'-' | b'.' | b'_' | b'~' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => out.push(char::from(byte)),
            // Writing to a String cannot fail.
            other => drop(write!(out, "%{other:02X}")),
        }
    }
    out
}

/// Dotted quads, or the nibbles of an IPv6 address with dots between.
pub fn dotted(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => {
            let mut out = String::with_capacity(64);
            for byte in ip.octets() {
                // Writing to a String cannot fail.
                let _ = write!(out, "{}{:x}.{:x}", if out.is_empty() { "" } else { "." }, byte >> 4, byte & 15);
            }
            out
        }
    }
}
