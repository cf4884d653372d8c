//! Which addresses this machine has: a `source` that it does not have carries no mail, and a `hostname` that
//! nobody can look up is refused by many. Warnings: an address may come later, as a floating one does.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use super::Source;
use super::file::Reader;

/// Addresses of this machine that a message names.
const NAMED: usize = 12;

/// Whether an interface has it: only then can a socket be bound to it.
pub(super) fn is_of_this_machine(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

/// Warns of sources in the key `at` that are not there.
pub(super) fn warn_of_sources(reader: &mut Reader<'_>, at: &str, sources: &[Source]) {
    let absent: Vec<String> =
        sources.iter().map(|source| source.address).filter(|ip| !is_of_this_machine(*ip)).map(text).collect();
    let (be, it) = match absent.as_slice() {
        [] => return,
        [_] => ("is no address", "it"),
        _ => ("are no addresses", "them"),
    };
    let there = match addresses().as_slice() {
        [] => String::new(),
        there => format!(" (which has {})", listed(there)),
    };
    let message = format!(
        "{} {be} of this machine now{there}: no connection is made from {it} until that changes",
        listed(&absent)
    );
    reader.warn(at, message);
}

/// Why receivers will not take a host name that is one by its letters.
pub(super) fn fault_of_hostname(name: &str) -> Option<String> {
    let last = name.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
    if name.parse::<IpAddr>().is_ok() {
        return Some(format!(
            "{name} is an address: EHLO and Message-ID want a name (RFC 5321 §4.1.1.1), and many providers refuse \
             mail from a host without one: expected the name that the address of this machine has in DNS"
        ));
    }
    ["localdomain", "localhost", "local", "lan", "invalid"].contains(&last.as_str()).then(|| {
        format!("\"{name}\" is a name that nobody else can look up (.{last}), and many providers refuse mail from such a host")
    })
}

fn text(ip: IpAddr) -> String {
    ip.to_string()
}

fn listed(all: &[String]) -> String {
    let named = all.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    match all.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

/// Those of the interfaces that are up, but for loopback and link-local ones; empty where the system does not tell.
fn addresses() -> Vec<String> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let mut all = ipv4(&read("/proc/net/fib_trie"));
    all.extend(ipv6(&read("/proc/net/if_inet6")));
    all.into_iter().map(text).collect()
}

/// The local addresses in Linux's table of routes: the leaf before each `/32 host LOCAL`.
fn ipv4(table: &str) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = Vec::new();
    let mut leaf: Option<Ipv4Addr> = None;
    for line in table.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            leaf = address.parse().ok();
        } else if line.starts_with("/32 host LOCAL")
            && let Some(ip) = leaf.filter(|ip| !ip.is_loopback() && !ip.is_link_local())
            && !found.contains(&ip.into())
        {
            found.push(ip.into());
        }
    }
    found
}

/// The addresses in Linux's list of those of interfaces: 32 hexadecimal digits at the beginning of a line.
fn ipv6(table: &str) -> Vec<IpAddr> {
    let of = |line: &str| u128::from_str_radix(line.split_whitespace().next()?, 16).ok().map(Ipv6Addr::from_bits);
    let fits = |ip: &Ipv6Addr| !ip.is_loopback() && !ip.is_unicast_link_local();
    table.lines().filter_map(of).filter(fits).map(IpAddr::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_from_what_linux_tells() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     |-- 192.0.2.0\n        \
                    /24 link UNICAST\n     |-- 192.0.2.7\n        /32 host LOCAL\n     |-- 127.0.0.1\n        /32 host \
                    LOCAL\nLocal:\n     |-- 192.0.2.7\n        /32 host LOCAL\n     |-- 192.0.2.255\n        /32 link \
                    BROADCAST\n";
        assert_eq!(ipv4(trie), ["192.0.2.7".parse::<IpAddr>().unwrap()]);
        let list = "00000000000000000000000000000001 01 80 10 80       lo\n20010db8000000000000000000000005 02 40 00 80 eth0\n\
                    fe80000000000000020c29fffe000001 02 40 20 80     eth0\n";
        assert_eq!(ipv6(list), ["2001:db8::5".parse::<IpAddr>().unwrap()]);
        assert!(ipv4("").is_empty() && ipv6("no such thing\n").is_empty());
    }

    #[test]
    fn a_source_that_is_not_there_is_a_warning_with_those_that_are() {
        let warned = |source: &str| {
            let text =
                format!("hostname = 'a.example'\n[provider.p]\nmatch = {{ mx = ['mx.example'] }}\nsource = {source}\n");
            let warnings = crate::config::Loaded::parse(&text, "x").unwrap().warnings;
            warnings.into_iter().map(|w| w.problem).find(|p| p.key == "provider.p.source")
        };
        assert_eq!(warned("['127.0.0.1']"), None);
        let one = warned("['127.0.0.1', '192.0.2.77']").expect("a warning");
        assert!(one.message.starts_with("192.0.2.77 is no address of this machine now") && one.line == 4, "{one:?}");
        let two = warned("['192.0.2.77', '2001:db8::77']").expect("a warning");
        assert!(two.message.starts_with("192.0.2.77, 2001:db8::77 are no addresses of this machine"), "{two:?}");
    }

    #[test]
    fn host_names_that_nobody_can_look_up_are_warned_of() {
        let warned = |name: &str| {
            let warnings = crate::config::Loaded::parse(&format!("hostname = '{name}'\n"), "x").unwrap().warnings;
            warnings.into_iter().find(|w| w.problem.key == "hostname").map(|w| w.problem.message)
        };
        for (name, told) in [
            ("192.0.2.1", "is an address"),
            ("localhost.localdomain", "nobody else can look up (.localdomain)"),
            ("mail.lan", "nobody else can look up (.lan)"),
            ("Mail.Local", "nobody else can look up (.local)"),
        ] {
            assert!(warned(name).is_some_and(|message| message.contains(told)), "{name}");
        }
        assert_eq!(warned("relay.example.com"), None);
        for refused in ["localhost", "relay", "[192.0.2.1]", "::1"] {
            assert!(crate::config::Loaded::parse(&format!("hostname = '{refused}'\n"), "x").is_err(), "{refused}");
        }
    }
}
