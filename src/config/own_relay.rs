//! A `relay` that is one of our own listeners: mail goes round until it has too many hops. It is a warning, since
//! what listens there when the mail leaves may be something else (a port that another network namespace has).

use std::net::{IpAddr, SocketAddr};

use super::Listener;
use super::file::Reader;
use super::own_address::is_of_this_machine;

/// Warns of a provider whose smart host is this relay.
pub(super) fn warn<'a>(
    reader: &mut Reader<'_>,
    provider: &str,
    (host, port): (&str, u16),
    listeners: impl Iterator<Item = &'a Listener>,
) {
    let own = |socket: &SocketAddr| socket.port() == port && leads_to(host, socket.ip(), is_of_this_machine);
    let found = listeners.flat_map(|listener| listener.address.sockets()).find(own);
    if let Some(socket) = found {
        let message = format!(
            "{host}:{port} is this relay itself, which listens on {socket}: its mail would go round until it bounces; \
             expected the host that takes it from here"
        );
        reader.warn(&format!("provider.{provider}.relay"), message);
    }
}

/// Whether who connects to `host` on this machine reaches what listens on `address`.
fn leads_to(host: &str, address: IpAddr, is_ours: impl Fn(IpAddr) -> bool) -> bool {
    let address = address.to_canonical();
    if host.trim_end_matches('.').eq_ignore_ascii_case("localhost") {
        return address.is_loopback() || address.is_unspecified();
    }
    let Ok(host) = host.trim_matches(['[', ']']).parse::<IpAddr>() else { return false };
    let host = host.to_canonical();
    // `0.0.0.0` as a destination is the machine itself.
    let loopback = host.is_loopback() || host.is_unspecified();
    if address.is_unspecified() {
        // One of IPv6 takes connections of IPv4, too.
        return (address.is_ipv6() || host.is_ipv4()) && (loopback || is_ours(host));
    }
    host == address || host.is_unspecified() && address.is_loopback() && host.is_ipv4() == address.is_ipv4()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_known_which_addresses_are_this_relay() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        for (host, address, own) in [
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.2", "127.0.0.1", false),
            ("localhost", "127.0.0.1", true),
            ("LOCALHOST.", "::1", true),
            ("localhost", "192.0.2.1", false),
            ("::1", "::1", true),
            ("[::1]", "::1", true),
            ("::1", "0.0.0.0", false),
            ("127.0.0.1", "0.0.0.0", true),
            ("127.0.0.1", "::", true),
            ("0.0.0.0", "127.0.0.1", true),
            ("192.0.2.1", "192.0.2.1", true),
            ("::ffff:192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "0.0.0.0", true),
            ("192.0.2.2", "0.0.0.0", false),
            ("192.0.2.2", "127.0.0.1", false),
            ("smtp.example", "0.0.0.0", false),
        ] {
            assert_eq!(leads_to(host, ip(address), |ip| ip.to_string() == "192.0.2.1"), own, "{host} {address}");
        }
    }

    #[test]
    fn it_is_a_warning_only_on_the_same_port() {
        for (relay, listener, warned) in [
            ("127.0.0.1:2525", "", true),
            ("localhost:2525", "", true),
            ("127.0.0.1:2526", "", false),
            ("smtp.example:2525", "", false),
            ("127.0.0.1:2600", "[[listener]]\naddress = '0.0.0.0:2600'\nallow = ['192.0.2.0/24']\n", true),
            ("127.0.0.1:2525", "[[listener]]\naddress = 'unix:/run/x.sock'\n", false),
        ] {
            let text =
                format!("hostname = 'a.example'\n{listener}[provider.s]\nrelay = '{relay}'\n[[route]]\nvia = 's'\n");
            let warnings = crate::config::Loaded::parse(&text, "x").unwrap().warnings;
            let told: Vec<_> = warnings.iter().filter(|w| w.problem.key == "provider.s.relay").collect();
            assert_eq!(told.len(), usize::from(warned), "{relay} {listener}: {warnings:?}");
            assert!(told.iter().all(|w| w.problem.message.contains("is this relay itself") && w.problem.line > 0));
        }
    }
}
