//! Networks, `192.0.2.0/24`: who may relay, and whom a limit is about. A text that may mean two
//! things is refused, since one of them lets strangers relay. What prints parses to the same value.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// An address range in CIDR notation, or one address. The base has no bits behind the prefix, and is
/// never an IPv4-mapped IPv6 address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Network {
    base: IpAddr,
    prefix: u8,
}

impl Network {
    /// Length of the prefix in bits.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether this is so wide that it means "anybody": wider than 10.0.0.0/8, or than fc00::/7.
    pub fn is_nearly_everybody(&self) -> bool {
        self.prefix < if self.base.is_ipv4() { 8 } else { 7 }
    }

    /// Whether `ip` (an IPv4-mapped IPv6 address counts as IPv4) is inside.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.base.is_ipv4() == ip.is_ipv4() && first_of(ip, self.prefix) == self.base
    }
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
        // Addresses are compared as IPv4 where they are that, so the range must be.
        let (base, prefix) = match (base, base.to_canonical()) {
            (IpAddr::V6(_), v4 @ IpAddr::V4(_)) => match prefix.checked_sub(96) {
                Some(prefix) => (v4, prefix),
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
        for (wide, is) in
            [("0.0.0.0/0", true), ("::/0", true), ("128.0.0.0/1", true), ("10.0.0.0/8", false), ("fc00::/7", false)]
        {
            assert_eq!(wide.parse::<Network>().unwrap().is_nearly_everybody(), is, "{wide}");
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
