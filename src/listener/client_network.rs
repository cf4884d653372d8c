//! Who counts as one client where clients are counted by where they come from.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The address; of IPv6 the /64 that it is in, which is the least that one customer has.
pub(super) fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(v6) if !v6.is_loopback() => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        ip => ip,
    }
}

/// The same, with this machine as one: any program on it can use every address of 127.0.0.0/8 as its own.
pub(super) fn network_or_machine(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        ip if ip.is_loopback() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        ip => network(ip),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_customer_of_ipv6_and_a_machine_are_one() {
        let of = |text: &str| {
            let ip = text.parse().expect("an address");
            (network(ip).to_string(), network_or_machine(ip).to_string())
        };
        let both = |text: &str| (text.to_owned(), text.to_owned());
        assert_eq!(of("198.51.100.7"), both("198.51.100.7"));
        assert_eq!(of("::ffff:198.51.100.7"), both("198.51.100.7"));
        assert_eq!(of("2001:db8:0:1:2:3:4:5"), both("2001:db8:0:1::"));
        assert_eq!(of("127.9.8.7"), ("127.9.8.7".to_owned(), "127.0.0.1".to_owned()));
        assert_eq!(of("::1"), ("::1".to_owned(), "127.0.0.1".to_owned()));
    }
}
