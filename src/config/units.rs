//! Values of the configuration that parse and print themselves: spans `5m`, sizes `25MiB`, rates
//! `20/s`, patterns `*.google.com`, networks `192.0.2.0/24`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

/// A pace: `20/s`, `30/m`, `500/h`, `2000/d`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    /// How many; at least 1.
    pub count: u32,
    /// In what time: a second, minute, hour or day.
    pub per: Duration,
}

/// A pattern in which `*` stands for any run of characters; case does not matter; a trailing dot
/// of a host name is ignored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pattern(String);

impl Pattern {
    /// Folds the pattern to lower case.
    pub fn new(text: &str) -> Pattern {
        Pattern(text.trim_end_matches('.').to_lowercase())
    }

    /// The pattern that matches everything.
    pub fn any() -> Pattern {
        Pattern("*".into())
    }

    /// As written, in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the whole of `text` matches.
    pub fn matches(&self, text: &str) -> bool {
        if self.0 == "*" {
            return true;
        }
        let text = text.trim_end_matches('.').to_lowercase();
        glob(self.0.as_bytes(), text.as_bytes())
    }
}

/// `*` is any run of bytes; everything else is itself. Linear with one point of return.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            star = Some((p, t));
            p += 1;
        } else if p < pattern.len() && pattern[p] == text[t] {
            p += 1;
            t += 1;
        } else if let Some((sp, st)) = star {
            p = sp + 1;
            t = st + 1;
            star = Some((sp, st + 1));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|b| *b == b'*')
}

/// An address range in CIDR notation, or one address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Network {
    base: IpAddr,
    prefix: u8,
}

impl Network {
    /// Whether `ip` (an IPv4-mapped IPv6 address counts as IPv4) is inside.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.base, ip.to_canonical()) {
            (IpAddr::V4(base), IpAddr::V4(ip)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
                u32::from(base) & mask == u32::from(ip) & mask
            }
            (IpAddr::V6(base), IpAddr::V6(ip)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
                u128::from(base) & mask == u128::from(ip) & mask
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(s: &str) -> Result<Network, String> {
        let bad = || format!("`{s}` is not a network: expected an address like 192.0.2.7 or a range like 192.0.2.0/24");
        let (base, prefix) = match s.split_once('/') {
            Some((base, prefix)) => (base, Some(prefix)),
            None => (s, None),
        };
        let base: IpAddr = base.parse().map_err(|_| bad())?;
        let most = if base.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(p) => p.parse::<u8>().ok().filter(|p| *p <= most).ok_or_else(bad)?,
            None => most,
        };
        Ok(Network { base, prefix })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}
