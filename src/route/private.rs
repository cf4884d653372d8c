//! Which addresses mail to the outside may go to. A name server of a stranger must not be able to
//! make us connect to loopback or into our own network, however the address is wrapped.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether `ip` is loopback, private, link-local, unspecified, multicast or otherwise not an
/// address of the public internet (IANA special-purpose registries, RFC 6890), also when an IPv4
/// address of that kind is embedded in IPv6.
pub fn is_private(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => is_private_v4(ip),
        IpAddr::V6(ip) => is_private_v6(ip),
    }
}

fn is_private_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    a == 0 // "this network", RFC 1122 §3.2.1.3; Linux connects 0.0.0.0 to loopback
        || ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || (a == 100 && b & 0xc0 == 64) // carrier-grade NAT, RFC 6598
        || (a == 192 && b == 0 && c == 0) // IETF protocol assignments, RFC 6890
        || (a == 198 && b & 0xfe == 18) // benchmarking, RFC 2544
        || a >= 224 // multicast, reserved, broadcast
}

fn is_private_v6(ip: Ipv6Addr) -> bool {
    let s = ip.segments();
    let embedded = |hi: u16, lo: u16| {
        let ([a, b], [c, d]) = (hi.to_be_bytes(), lo.to_be_bytes());
        is_private_v4(Ipv4Addr::new(a, b, c, d))
    };
    match s {
        // ::, ::1 and the IPv4-compatible addresses of RFC 4291 §2.5.5.1.
        [0, 0, 0, 0, 0, 0, hi, lo] => embedded(hi, lo),
        // NAT64, RFC 6052; its local-use prefix is private by definition (RFC 8215).
        [0x64, 0xff9b, 0, 0, 0, 0, hi, lo] => embedded(hi, lo),
        [0x64, 0xff9b, 1, ..] => true,
        // 6to4, RFC 3056: the next 32 bits are the IPv4 address of the gateway.
        [0x2002, hi, lo, ..] => embedded(hi, lo),
        // Teredo, RFC 4380 §4: the client's IPv4 address is the last 32 bits, inverted.
        [0x2001, 0, _, _, _, _, hi, lo] => embedded(!hi, !lo),
        // Discard-only, RFC 6666.
        [0x100, 0, 0, 0, ..] => true,
        [first, ..] => {
            first & 0xfe00 == 0xfc00 // unique local, RFC 4193
                || first & 0xffc0 == 0xfe80 // link-local
                || first & 0xffc0 == 0xfec0 // site-local, RFC 3879
                || first & 0xff00 == 0xff00 // multicast
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_are_known_however_they_are_wrapped() {
        for text in [
            "127.0.0.1",
            "127.255.255.254",
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "100.127.255.255",
            "192.0.0.8",
            "198.18.0.1",
            "198.19.255.255",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:0.0.0.0",
            "64:ff9b::127.0.0.1",
            "64:ff9b::192.168.0.1",
            "64:ff9b:1::8.8.8.8",
            "2002:7f00:1::",
            "2002:a00:1::1",
            "2001:0:4136:e378:8000:63bf:f5ff:fffe", // Teredo around 10.0.0.1
            "100::1",
            "fc00::1",
            "fdff::1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(is_private(text.parse().unwrap()), "{text} should be private");
        }
    }

    #[test]
    fn public_addresses_are_not_private() {
        for text in [
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.1",
            "192.0.2.1",
            "198.17.255.255",
            "198.20.0.1",
            "223.255.255.255",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "2002:808:808::1",
            "2001:0:4136:e378:8000:63bf:f7f7:f7f7", // Teredo around 8.8.8.8
            "2001:db8::1",
            "2607:f8b0::1",
            "fbff::1",
        ] {
            assert!(!is_private(text.parse().unwrap()), "{text} should be public");
        }
    }
}
