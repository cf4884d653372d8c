//! From what DNS said to the hosts that may be tried: ourselves and what stands behind us is
//! dropped (RFC 5321 §5.1), private addresses are refused, hosts without address are skipped.
//! Pure but for one question to the system: whether an address is local.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;

use super::private::is_private;
use super::tlsa::Published;
use super::{Host, NO_TLS, RouteError, TlsPolicy};
use crate::config::{Config, Provider};

/// What is known of the addresses of a host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Addresses {
    /// In the order to try; at least one.
    Found(Arc<[IpAddr]>),
    /// The name has neither A nor AAAA.
    None,
    /// The name does not exist.
    NoDomain,
    /// The name servers gave no answer.
    Failed(Arc<str>),
    /// What they gave may be forged.
    Bogus(Arc<str>),
}

/// A host that DNS names for a destination.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    /// As in the MX record; the domain itself for the implicit MX.
    pub(super) name: Arc<str>,
    /// Where its CNAME leads, if it is one.
    pub(super) canonical: Option<Arc<str>>,
    /// MX preference.
    pub(super) preference: u16,
    /// Its addresses.
    pub(super) addresses: Addresses,
    /// Its records of DANE, and the name where they are.
    pub(super) tlsa: (Arc<str>, Published),
}

/// What of the world is this relay itself.
#[derive(Clone, Debug)]
pub(super) struct Ourselves {
    hostname: String,
    listeners: Vec<SocketAddr>,
}

impl Ourselves {
    pub(super) fn new(config: &Config) -> Ourselves {
        Ourselves {
            hostname: config.hostname.trim_end_matches('.').to_lowercase(),
            listeners: config.listeners.iter().flat_map(|l| l.address.sockets()).collect(),
        }
    }

    /// Whether a connection to this address and port would end at one of our listeners. The port
    /// counts: another mail server of this machine (Postfix on 25 beside us on 2525) is not us.
    pub(super) fn listens_at(&self, ip: IpAddr, port: u16) -> bool {
        let ip = ip.to_canonical();
        self.listeners.iter().filter(|l| l.port() == port).any(|l| {
            let bound = l.ip().to_canonical();
            bound == ip
                || (bound.is_unspecified() && is_local(ip))
                // A connection to the unspecified address is one to loopback.
                || (ip.is_unspecified() && (bound.is_loopback() || bound.is_unspecified()))
        })
    }

    fn is(&self, host: &Candidate, port: u16) -> bool {
        let named = |name: &str| name == self.hostname;
        named(&host.name)
            || host.canonical.as_deref().is_some_and(named)
            || matches!(&host.addresses, Addresses::Found(ips) if ips.iter().any(|ip| self.listens_at(*ip, port)))
    }
}

/// Whether an interface of this machine has the address: only then can a socket be bound to it
/// (and to multicast addresses, which nobody has).
fn is_local(ip: IpAddr) -> bool {
    ip.is_loopback() || (!ip.is_multicast() && UdpSocket::bind((ip, 0)).is_ok())
}

/// The hosts to try for `destination`, in order of preference, or why there is none. `candidates`
/// are in order of preference; `implicit` says that there was no MX record.
pub(super) fn select(
    destination: &str,
    candidates: &[Candidate],
    implicit: bool,
    provider: &Provider,
    ourselves: &Ourselves,
) -> Result<Vec<Host>, RouteError> {
    let our_preference = candidates
        .iter()
        .filter(|c| ourselves.is(c, provider.port))
        .map(|c| c.preference)
        .min()
        .map_or(u32::MAX, u32::from);
    let mut hosts = Vec::new();
    let mut failed: Option<String> = None;
    let mut bogus: Option<String> = None;
    let mut refused: Option<String> = None;
    for host in candidates.iter().filter(|c| u32::from(c.preference) < our_preference) {
        match &host.addresses {
            Addresses::Found(ips) => {
                let (bad, good): (Vec<IpAddr>, Vec<IpAddr>) =
                    ips.iter().map(IpAddr::to_canonical).partition(|ip| !provider.allow_private && is_private(*ip));
                if let Some(ip) = bad.first() {
                    refused.get_or_insert_with(|| format!("{} is at {ip}", host.name));
                }
                if !good.is_empty() {
                    hosts.push(Host {
                        name: host.name.to_string(),
                        preference: host.preference,
                        addresses: good,
                        policy: TlsPolicy::None,
                    });
                }
            }
            Addresses::Failed(text) => {
                failed.get_or_insert_with(|| text.to_string());
            }
            Addresses::Bogus(text) => {
                bogus.get_or_insert_with(|| text.to_string());
            }
            Addresses::NoDomain | Addresses::None => {}
        }
    }
    if !hosts.is_empty() {
        return Ok(hosts);
    }
    if our_preference != u32::MAX && candidates.iter().all(|c| u32::from(c.preference) >= our_preference) {
        return Err(RouteError::Permanent {
            code: 554,
            enhanced: "5.4.6",
            text: format!(
                "mail for {destination} would come back to this relay: the best mail host of the domain is this host \
                 (give the domain a provider with `relay` if it is handled elsewhere)"
            ),
        });
    }
    if let Some(text) = bogus {
        return Err(RouteError::Temporary { enhanced: NO_TLS, text });
    }
    if let Some(text) = failed {
        return Err(RouteError::Temporary { enhanced: "4.4.3", text });
    }
    if let Some(which) = refused {
        let table = match provider.name.as_str() {
            "default" => "[default]".to_owned(),
            name => format!("[provider.{name}]"),
        };
        return Err(RouteError::Permanent {
            code: 550,
            enhanced: "5.4.4",
            text: format!(
                "mail for {destination} would go to a loopback or private address ({which}); \
                 set allow_private = true in {table} to allow that"
            ),
        });
    }
    if implicit {
        return Err(no_such_domain(destination, candidates.iter().any(|c| c.addresses == Addresses::NoDomain)));
    }
    Err(RouteError::Temporary { enhanced: "4.4.4", text: format!("no mail host of {destination} has an address") })
}

/// 5.1.2: the domain does not exist, or has nothing that takes mail.
pub(super) fn no_such_domain(domain: &str, missing: bool) -> RouteError {
    let text = match missing {
        true => format!("the domain {domain} does not exist"),
        false => format!("the domain {domain} has no MX, A or AAAA record"),
    };
    RouteError::Permanent { code: 550, enhanced: "5.1.2", text }
}

/// v6 and v4 in turns, v6 first, at most `most`: whichever of the two is broken, the next address
/// is of the other kind.
pub(super) fn interleave(v6: Vec<IpAddr>, v4: Vec<IpAddr>, most: usize) -> Vec<IpAddr> {
    let (mut v6, mut v4) = (v6.into_iter(), v4.into_iter());
    let mut mixed = Vec::new();
    loop {
        let (six, four) = (v6.next(), v4.next());
        if (six.is_none() && four.is_none()) || mixed.len() >= most {
            mixed.truncate(most);
            return mixed;
        }
        mixed.extend(six.into_iter().chain(four));
    }
}
