//! What is examined: a domain, and from where and how this relay sends for it. Made of the configuration.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use crate::config::{Config, Dkim, Dnssec, Provider};
use crate::mail::Address;
use crate::mail::domain::{Spellings, parse_name, printed};
use crate::route::is_private;

/// Sources that are looked at.
pub const MOST_SOURCES: usize = 32;
/// Addresses of the Internet that are asked for the way to them; nothing is sent there.
const FAR_V4: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 41, 0, 4)), 25);
const FAR_V6: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0x503, 0xba3e, 0, 0, 0, 2, 0x30)), 25);

/// An address that mail leaves from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Source {
    /// Which.
    pub address: IpAddr,
    /// What is said in EHLO from there.
    pub name: String,
    /// Who says that mail leaves from there.
    pub from: String,
}

impl Source {
    /// Whether receivers see this address: a private one is behind NAT.
    pub fn is_judged(&self) -> bool {
        !is_private(self.address)
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Of the address in `From`: A-labels, lower case.
    pub domain: String,
    /// Of the reverse-path, whose SPF counts.
    pub envelope: String,
    /// From where mail leaves directly.
    pub sources: Vec<Source>,
    /// Through whom it leaves otherwise.
    pub smart_hosts: Vec<String>,
    /// What signs for the domain.
    pub keys: Vec<Arc<Dkim>>,
    /// Blocklists to ask.
    pub blocklists: Vec<String>,
    /// Hosts may have private addresses.
    pub allow_private: bool,
    /// Signatures of DNS are checked.
    pub dnssec: bool,
}

/// A domain in its one form.
pub fn domain_of(text: &str) -> Option<String> {
    let name = printed(&parse_name(text)?);
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    name.chars().all(fits).then_some(name)
}

impl Subject {
    /// `public` are addresses that receivers see; without any, and where the configuration names none, those that the
    /// system would send from.
    pub fn new(config: &Config, domain: String, envelope: Option<String>, public: &[IpAddr]) -> Subject {
        let envelope = envelope.unwrap_or_else(|| domain.clone());
        let ways = ways(config, &envelope);
        let relays = ways.iter().filter_map(|provider| provider.relay.as_ref());
        let mut smart_hosts: Vec<String> = relays.map(|relay| relay.host.to_string()).collect();
        smart_hosts.sort();
        smart_hosts.dedup();
        let direct: Vec<&Provider> = ways.into_iter().filter(|provider| provider.relay.is_none()).collect();
        let mut sources: BTreeMap<IpAddr, Source> = BTreeMap::new();
        let mut add = |address: IpAddr, name: Option<&String>, from: &str| {
            let address = address.to_canonical();
            let name = name.unwrap_or(&config.hostname).clone();
            sources.entry(address).or_insert_with(|| Source { address, name, from: from.to_owned() });
        };
        for provider in &direct {
            for source in &provider.source {
                add(source.address, source.name.as_ref(), &format!("`source` of {}", provider.name));
            }
        }
        for address in public {
            add(*address, None, "--ip");
        }
        if public.is_empty() && direct.iter().any(|provider| provider.source.is_empty()) {
            for address in of_the_system() {
                add(address, None, "the system's own");
            }
        }
        Subject {
            keys: config.dkim_for(&domain),
            envelope,
            domain,
            sources: sources.into_values().take(MOST_SOURCES).collect(),
            smart_hosts,
            blocklists: Vec::new(),
            allow_private: config.default.allow_private,
            dnssec: config.dns.dnssec != Dnssec::Off,
        }
    }
}

/// The providers that mail from a domain may go through, each once; the default before those that take its sources over.
fn ways<'c>(config: &'c Config, envelope: &str) -> Vec<&'c Provider> {
    let Ok(sender) = Address::parse(&format!("postmaster@{envelope}")) else { return vec![&*config.default] };
    let spellings = Spellings::of(Some(&sender));
    let mut ways: Vec<&Provider> = Vec::new();
    let mut add = |provider: &'c Provider| {
        if !ways.iter().any(|known| known.name == provider.name) {
            ways.push(provider);
        }
    };
    let mut everything = false;
    let by_users = config.users.iter().filter_map(|user| config.provider(user.via.as_deref()?));
    by_users.for_each(|provider| add(provider));
    for route in &config.routes {
        let when = &route.when;
        let any_sender = spellings.each().any(|spelling| when.sender.matches(spelling));
        // Of one sender in the domain.
        let one_sender = when.sender.as_str().ends_with(&format!("@{envelope}"));
        if any_sender || one_sender {
            add(&route.via);
        }
        everything = any_sender && when.recipient.as_str() == "*" && when.is_for_all_clients() && when.user.is_none();
        if everything {
            break;
        }
    }
    if !everything {
        add(&config.default);
        let is_matched =
            |provider: &&Arc<Provider>| !provider.match_mx.is_empty() || !provider.match_domains.is_empty();
        config.providers.iter().filter(is_matched).for_each(|provider| add(provider));
    }
    ways
}

/// The addresses that the system would send from to the Internet, of each family that it has a way for.
fn of_the_system() -> Vec<IpAddr> {
    let own = |from: IpAddr, to: SocketAddr| {
        let socket = UdpSocket::bind((from, 0)).ok()?;
        // Chooses the way, and sends nothing.
        socket.connect(to).ok()?;
        socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
    };
    [own(Ipv4Addr::UNSPECIFIED.into(), FAR_V4), own(Ipv6Addr::UNSPECIFIED.into(), FAR_V6)]
        .into_iter()
        .flatten()
        .collect()
}
