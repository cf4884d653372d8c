//! Networks, `192.0.2.0/24`: who may relay, and whom a limit is about. A text that may mean two
//! things is refused, since one of them lets strangers relay. What prints parses to the same value.
//!
//! IPv4 addresses have forms in IPv6 ([`canonical`]): mapped ones (`::ffff:192.0.2.7`, RFC 4291), which
//! the system makes of clients of a socket for both, and translated ones (`::ffff:0:192.0.2.7`,
//! RFC 2765), which a translator in front makes. Both count as the IPv4 address. Those of NAT64
//! (`64:ff9b::192.0.2.7`, RFC 6052, and those in `64:ff9b:1::/48`, RFC 8215) do not: whoever runs the translator may be anybody, so they must be
//! named as what they are. So must those of 6to4, Teredo and IPv4-compatible addresses; in the sum of what
//! networks let in, all of them are the IPv4 addresses that they stand for.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// The form in which addresses are compared: IPv4 where an IPv6 address stands for one. A translated
/// loopback address stays what it is: no translator makes one (RFC 7915), so it is forged.
pub fn canonical(ip: IpAddr) -> IpAddr {
    let mapped = ip.to_canonical();
    match ipv4_in(ip) {
        Some(v4) if mapped.is_ipv4() || !matches!(v4.octets()[0], 0 | 127) => IpAddr::V4(v4),
        _ => mapped,
    }
}

/// The IPv4 address that an IPv6 address of one of the two forms stands for.
fn ipv4_in(ip: IpAddr) -> Option<Ipv4Addr> {
    match ip.to_canonical() {
        IpAddr::V4(v4) => Some(v4),
        IpAddr::V6(v6) => match v6.octets() {
            [0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, a, b, c, d] => Some([a, b, c, d].into()),
            _ => None,
        },
    }
}

/// The addresses of NAT64: all of IPv4 behind a prefix of 96 bits (RFC 6052).
const NAT64: Network = Network { base: IpAddr::V6(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0)), prefix: 96 };

/// Where operators put translators of their own (RFC 8215): prefixes of 96 bits in it have all of IPv4 behind them.
const LOCAL_NAT64: Network = Network { base: IpAddr::V6(Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0)), prefix: 48 };

/// What is assigned of IPv6: `2000::/3`.
const GLOBAL: Network = Network { base: IpAddr::V6(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0)), prefix: 3 };

/// An address range in CIDR notation, or one address. The base has no bits behind the prefix, and is
/// never an IPv6 form of an IPv4 address ([`canonical`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Network {
    base: IpAddr,
    prefix: u8,
}

impl Network {
    /// Its first and last address as numbers.
    fn span(&self) -> (u128, u128) {
        let (base, bits) = match self.base {
            IpAddr::V4(ip) => (u128::from(ip.to_bits()), 32),
            IpAddr::V6(ip) => (ip.to_bits(), 128),
        };
        let behind = bits - u32::from(self.prefix);
        (base, base | 1_u128.checked_shl(behind).map_or(u128::MAX, |size| size - 1))
    }

    /// Length of the prefix in bits.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether this is so wide that it means "anybody": wider than 10.0.0.0/8, or than fc00::/7,
    /// or than a /8 of IPv4 in its form of NAT64.
    pub fn is_nearly_everybody(&self) -> bool {
        let translated = [NAT64, LOCAL_NAT64].iter().any(|nat| self.contains(nat.base) || nat.contains(self.base));
        self.prefix
            < if self.base.is_ipv4() {
                8
            } else if translated {
                96 + 8
            } else {
                7
            }
    }

    /// Whether `ip` (in its [`canonical`] form) is inside.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = canonical(ip);
        self.base.is_ipv4() == ip.is_ipv4() && first_of(ip, self.prefix) == self.base
    }
}

/// Ranges of IPv6 whose addresses stand for IPv4 ones: the prefix, the bit at which the IPv4 address
/// begins, and what its bits are turned with.
const STAND_FOR_IPV4: [(Ipv6Addr, u8, u8, u32); 5] = [
    // 6to4 (RFC 3056).
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16, 16, 0),
    // Teredo (RFC 4380 §4): the client's address, after its server's.
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 32, 96, u32::MAX),
    // IPv4-compatible (RFC 4291 §2.5.5.1).
    (Ipv6Addr::UNSPECIFIED, 96, 96, 0),
    // NAT64 (RFC 6052).
    (Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96, 96, 0),
    // NAT64 of somebody's own (RFC 8215), whose prefix has 96 bits as a rule.
    (Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0), 48, 96, 0),
];

impl Network {
    /// The IPv4 addresses that some of its IPv6 addresses stand for.
    fn in_ipv4(self) -> impl Iterator<Item = Network> {
        STAND_FOR_IPV4.into_iter().filter_map(move |(range, length, at, turned)| {
            let range = Network { base: range.into(), prefix: length };
            if !range.contains(self.base) && !self.contains(range.base) || self.base.is_ipv4() {
                return None;
            }
            let (first, _) = self.span();
            let prefix = self.prefix.saturating_sub(at).min(32);
            let bits = u32::try_from((first >> (96 - at)) & u128::from(u32::MAX)).unwrap_or_default();
            Some(Network { base: first_of(IpAddr::V4((bits ^ turned).into()), prefix), prefix })
        })
    }
}

/// The family of which these networks together have more than half: of all IPv4 addresses (by whatever
/// IPv6 addresses stand for them, too), of all IPv6 addresses, or of those that are assigned.
pub fn more_than_half(networks: &[Network]) -> Option<&'static str> {
    let whole = |base: IpAddr| Network { base, prefix: 0 };
    // What is too wide without that has its own name.
    let by_name = family_of(networks, &whole);
    let stand_for: Vec<Network> =
        networks.iter().flat_map(|network| network.in_ipv4()).chain(networks.iter().copied()).collect();
    let ipv4 = || covers_half(&stand_for, &whole(Ipv4Addr::UNSPECIFIED.into()));
    by_name.or_else(|| ipv4().then_some("all IPv4 addresses (by 6to4, Teredo, NAT64 or IPv4-compatible ones)"))
}

fn family_of(networks: &[Network], whole: &dyn Fn(IpAddr) -> Network) -> Option<&'static str> {
    let families = [
        ("all IPv4 addresses", whole(Ipv4Addr::UNSPECIFIED.into())),
        ("all IPv6 addresses", whole(Ipv6Addr::UNSPECIFIED.into())),
        ("all IPv6 addresses in use (2000::/3)", GLOBAL),
    ];
    families.into_iter().find(|(_, family)| covers_half(networks, family)).map(|(name, _)| name)
}

/// Whether the networks cover more than half of `family`.
fn covers_half(networks: &[Network], family: &Network) -> bool {
    let mut inside: Vec<(u128, u128)> = networks
        .iter()
        .filter(|n| n.base.is_ipv4() == family.base.is_ipv4())
        .filter_map(|n| {
            let ((first, last), (from, to)) = (n.span(), family.span());
            let (first, last) = (first.max(from), last.min(to));
            (first <= last).then_some((first, last))
        })
        .collect();
    inside.sort_unstable();
    let (from, to) = family.span();
    let (half, mut covered, mut next) = ((to - from) / 2 + 1, 0_u128, from);
    for (first, last) in inside {
        let start = first.max(next);
        if last < start {
            continue;
        }
        covered = covered.saturating_add((last - start).saturating_add(1));
        let Some(behind) = last.checked_add(1) else { break };
        next = behind;
    }
    covered > half
}

/// The first address of the range of that prefix around `ip`.
fn first_of(ip: IpAddr, prefix: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(prefix.into())).unwrap_or(0);
            IpAddr::V4((u32::from(ip) & mask).into())
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(prefix.into())).unwrap_or(0);
            IpAddr::V6((u128::from(ip) & mask).into())
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(s: &str) -> Result<Network, String> {
        let bad = || format!("`{s}` is not a network: {}", expected_instead_of(s));
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
        // Addresses are compared as IPv4 where they are that, so the range must be.
        let (base, prefix) = match (base, ipv4_in(base)) {
            (IpAddr::V6(_), Some(v4)) => match prefix.checked_sub(96) {
                Some(prefix) => (IpAddr::V4(v4), prefix),
                None => {
                    return Err(format!(
                        "`{s}` is wider than all of IPv4, which ::ffff:0.0.0.0/96 is: expected a range like {v4}/24"
                    ));
                }
            },
            (base, _) => (base, prefix),
        };
        let first = first_of(base, prefix);
        if first != base {
            let one = if base.is_ipv4() { 32 } else { 128 };
            return Err(format!("`{s}` is an address within a range: did you mean {base}/{one} or {first}/{prefix}?"));
        }
        Ok(Network { base, prefix })
    }
}

/// What to write instead of a text that is no network, as others have them: masks with dots, a first and a last address,
/// exceptions.
fn expected_instead_of(text: &str) -> String {
    let is_address = |text: &str| text.trim().parse::<IpAddr>().is_ok();
    let masked = text.split_once(['/', ' ']).and_then(|(base, mask)| {
        let mask: Ipv4Addr = mask.trim().parse().ok()?;
        let bits = mask.to_bits().leading_ones();
        let whole = mask.to_bits().count_ones() == bits && base.trim().parse::<Ipv4Addr>().is_ok();
        whole.then(|| format!("did you mean {}/{bits}?", base.trim()))
    });
    if let Some(meant) = masked {
        return meant;
    }
    if text.trim_start().starts_with('!') {
        return "nothing can be taken out of a network: expected only those that are meant, without !".to_owned();
    }
    let parts: Vec<&str> = text.split([',', ';', ' ']).filter(|part| !part.is_empty()).collect();
    if parts.len() > 1 && parts.iter().all(|part| part.parse::<Network>().is_ok()) {
        return format!("expected each in quotes of its own, \"{}\"", parts.join("\", \""));
    }
    if text.contains(|c: char| c.is_ascii_alphabetic()) && !text.contains([':', '/']) {
        return "no name is looked up here: expected the address of that host, or its network".to_owned();
    }
    match text.split_once('-') {
        Some((first, last)) if is_address(first) && is_address(last) => format!(
            "expected each address by itself, or networks like 192.0.2.0/24 that together are those from {} to {}",
            first.trim(),
            last.trim()
        ),
        _ => "expected an address like 192.0.2.7 or a range like 192.0.2.0/24".to_owned(),
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn networks() {
        let n: Network = "192.0.2.0/24".parse().unwrap();
        assert!(n.contains("192.0.2.255".parse().unwrap()) && !n.contains("192.0.3.0".parse().unwrap()));
        assert!(n.contains("::ffff:192.0.2.1".parse().unwrap()));
        for (wide, is) in [
            ("0.0.0.0/0", true),
            ("::/0", true),
            ("128.0.0.0/1", true),
            ("10.0.0.0/8", false),
            ("fc00::/7", false),
            // Translators.
            ("::ffff:0:0:0/96", true),
            ("::ffff:0:10.0.0.0/104", false),
            ("64:ff9b::/96", true),
            ("64:ff9b::/48", true),
            ("64::/16", true),
            ("64:ff9b::10.0.0.0/104", false),
            ("64:ff9b:1::/48", true),
            ("64:ff9b:1:ab::/96", true),
            ("64:ff9b:1:ab::10.0.0.0/104", false),
            ("64:ff9b:2::/48", false),
        ] {
            assert_eq!(wide.parse::<Network>().unwrap().is_nearly_everybody(), is, "{wide}");
        }
    }

    #[test]
    fn forms_of_ipv4_count_as_that_unless_they_are_forged_or_of_nat64() {
        let read = |text: &str| text.parse::<IpAddr>().unwrap();
        for (ip, counts_as) in [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("::ffff:127.0.0.1", "127.0.0.1"),
            ("::ffff:0:192.0.2.7", "192.0.2.7"),
            ("::ffff:0:127.0.0.1", "::ffff:0:7f00:1"),
            ("::ffff:0:0.0.0.1", "::ffff:0:0:1"),
            ("64:ff9b::192.0.2.7", "64:ff9b::c000:207"),
            ("::192.0.2.7", "::c000:207"),
            ("2001:db8::1", "2001:db8::1"),
        ] {
            assert_eq!(canonical(read(ip)), read(counts_as), "{ip}");
        }
        let ours: Network = "192.0.2.0/24".parse().unwrap();
        assert!(ours.contains(read("::ffff:0:192.0.2.7")) && !ours.contains(read("64:ff9b::192.0.2.7")));
        let loopback: Network = "127.0.0.0/8".parse().unwrap();
        assert!(!loopback.contains(read("::ffff:0:127.0.0.1")), "anybody on the link could send that");
    }

    #[test]
    fn pieces_add_up() {
        let sum = |texts: &[&str]| {
            let networks: Vec<Network> = texts.iter().map(|text| text.parse().unwrap()).collect();
            more_than_half(&networks)
        };
        let v4 = Some("all IPv4 addresses");
        assert_eq!(sum(&["0.0.0.0/1", "128.0.0.0/1"]), v4);
        assert_eq!(sum(&["0.0.0.0/1"]), None, "half, not more");
        assert_eq!(sum(&["0.0.0.0/1", "10.0.0.0/8", "0.0.0.0/2"]), None, "twice the same");
        assert_eq!(sum(&["0.0.0.0/1", "255.255.255.255"]), v4);
        let eighths: Vec<String> = (0..=255).step_by(2).map(|n| format!("{n}.0.0.0/8")).collect();
        let mut eighths: Vec<&str> = eighths.iter().map(String::as_str).collect();
        assert_eq!(sum(&eighths), None);
        eighths.push("::ffff:0:9.9.9.0/120");
        assert_eq!(sum(&eighths), v4);
        assert_eq!(sum(&["0.0.0.0/0"]), v4);
        assert_eq!(sum(&["::/1", "8000::/1"]), Some("all IPv6 addresses"));
        assert_eq!(sum(&["::/0"]), Some("all IPv6 addresses"));
        assert_eq!(sum(&["2000::/4", "3000::/16"]), Some("all IPv6 addresses in use (2000::/3)"));
        assert_eq!(sum(&["3000::/4", "fc00::/7", "::1", "10.0.0.0/8", "192.168.0.0/16"]), None);
        assert_eq!(sum(&[]), None);
    }

    #[test]
    fn what_stands_for_ipv4_adds_up_as_that() {
        let sum = |texts: &[&str]| {
            let networks: Vec<Network> = texts.iter().map(|text| text.parse().unwrap()).collect();
            more_than_half(&networks).is_some()
        };
        for wide in [
            "2002::/16",
            "2001::/32",
            "::/96",
            "64:ff9b::/96",
            "64:ff9b:1::/48",
            "64:ff9b:1:ab::/64",
            "2002::/15",
            "2000::/4",
            "2001::/16",
            "::/64",
        ] {
            assert!(sum(&[wide]), "{wide}");
        }
        for half in [
            ["2002:8000::/17", "0.0.0.0/1"],
            ["::128.0.0.0/97", "64:ff9b::/97"],
            ["64:ff9b:1::128.0.0.0/97", "64:ff9b::/97"],
            // The client's bits are turned in Teredo: the first half stands for the last one.
            ["2001::/97", "0.0.0.0/1"],
            ["2001::8000:0/97", "2002:8000::/17"],
        ] {
            assert!(sum(&half), "{half:?}");
            assert!(!sum(&half[..1]) && !sum(&half[1..]), "{half:?}");
        }
        for same in [["2001::/97", "128.0.0.0/1"], ["2002::/17", "::/97"], ["2002:a00::/24", "10.0.0.0/8"]] {
            assert!(!sum(&same), "{same:?}: the same twice");
        }
        for narrow in
            ["2002:c000:207::/48", "2001:db8::/32", "2001:4860::/32", "fd00::/8", "::1", "64:ff9b::10.0.0.0/104"]
        {
            assert!(!sum(&[narrow]), "{narrow}");
        }
    }

    #[test]
    fn a_network_is_what_it_says() {
        let read = |text: &str| text.parse::<Network>();
        for (text, printed) in [
            ("203.0.113.7", "203.0.113.7/32"),
            ("203.0.113.7/32", "203.0.113.7/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("::1", "::1/128"),
            ("::/0", "::/0"),
            // IPv4 in IPv6 clothes.
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("::ffff:192.0.2.7", "192.0.2.7/32"),
        ] {
            assert_eq!(read(text).map(|n| n.to_string()).as_deref(), Ok(printed), "{text}");
        }
        assert!(read("::ffff:10.0.0.0/104").unwrap().contains("10.1.2.3".parse().unwrap()));
        assert!(!read("::/0").unwrap().contains("10.1.2.3".parse().unwrap()));
        for (text, told) in [
            ("203.0.113.7/8", "is an address within a range: did you mean 203.0.113.7/32 or 203.0.0.0/8?"),
            ("10.0.0.1/0", "is an address within a range: did you mean 10.0.0.1/32 or 0.0.0.0/0?"),
            ("2001:db8::1/64", "is an address within a range: did you mean 2001:db8::1/128 or 2001:db8::/64?"),
            ("::ffff:10.0.0.1/104", "is an address within a range: did you mean 10.0.0.1/32 or 10.0.0.0/8?"),
            ("::ffff:10.0.0.0/95", "is wider than all of IPv4, which ::ffff:0.0.0.0/96 is: expected a range like"),
            ("10.0.0.0/33", "is not a network"),
            ("::/129", "is not a network"),
            ("10.0.0.0/-1", "is not a network"),
        ] {
            let said = read(text).unwrap_err();
            assert!(said.starts_with(&format!("`{text}` {told}")), "{said}");
        }
    }

    proptest! {
        #[test]
        fn networks_print_what_they_parse(base in any::<u32>(), prefix in 0u8..=32) {
            let ip = IpAddr::V4(base.into());
            let n = Network { base: first_of(ip, prefix), prefix };
            prop_assert_eq!(n.to_string().parse(), Ok(n));
            prop_assert!(n.contains(ip));
            let other = IpAddr::V4((base ^ 1_u32.checked_shl(32 - u32::from(prefix)).unwrap_or(0)).into());
            prop_assert_eq!(n.contains(other), prefix == 0);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,40}", prefix in any::<u8>()) {
            let _ = (text.parse::<Network>(), format!("{text}/{prefix}").parse::<Network>());
        }
    }
}
