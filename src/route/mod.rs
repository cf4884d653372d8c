//! Where a recipient goes: recipient → provider, lane and hosts.
//!
//! A route of the configuration (smart host) wins over MX. Everything that DNS says is checked
//! here: null MX, ourselves in the list, private addresses. `docs/routing.md` tells the rules.
//!
//! - [`Router`] decides, and explains; `dns` asks the name servers, whose `certificate` is checked over TLS; `records` reads what they say; `cache`
//!   keeps it; `select` makes the list of hosts; `sts` knows the policies of MTA-STS, `tlsa` the records of DANE; `wildcard` proves answers of wildcards; `source` chooses the source address where limits hold for each;
//!   `domain` is the one form of a domain; `asked` tells commands what a name has; `private` knows private addresses.
//!
//! Invariants: mail bounces only for what an authoritative answer says (never for a name server
//! that fails); a warm answer waits for nobody; everything DNS sends is cut to a bound.

mod asked;
mod cache;
mod certificate;
mod dns;
mod domain;
mod private;
mod records;
mod router;
mod select;
mod source;
pub mod sts;
mod texts;
mod tls_policy;
pub mod tlsa;
mod wildcard;

use std::net::IpAddr;
use std::sync::Arc;

use crate::config::Provider;
use crate::mail::LaneName;
pub use asked::{Answered, Asked, Said};
pub use dns::NameServer;
pub use private::is_private;
pub use router::{Explained, ExplainedHost, Router};
pub use tls_policy::{Dane, PolicyFault, TlsFacts, TlsPolicy};

/// What RFC 3463 has for security that is not there for now: X.7.5.
pub(crate) const NO_TLS: &str = "4.7.5";
/// What RFC 8689 §4.2.1 has for a session that cannot be encrypted as the sender demands, and for a host that does not keep
/// REQUIRETLS.
pub(crate) const NO_ENCRYPTION: &str = "5.7.10";
pub(crate) const NO_REQUIRETLS: &str = "5.7.30";

/// Why the router cannot be made. Fatal at start; at a reload the old one stays.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RouterError {
    /// `/etc/resolv.conf` is missing, unreadable, or names no server.
    #[error(
        "no name server is known: [dns] nameservers is empty and the system's resolver configuration cannot be used: {0}"
    )]
    SystemResolver(String),
    /// A name server elsewhere is believed as if nobody could come between.
    #[error(
        "[dns] dnssec = \"trust-ad\" believes what a name server says of signatures that it has checked: expected one \
         on loopback, found {0}; \"validate\" checks them here"
    )]
    NotLocal(String),
    /// TLS for name servers could not be set up.
    #[error("the DNS client cannot be set up: {0}")]
    Resolver(String),
}

/// One host to try.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Host {
    /// Name (without trailing dot, lower case), or the IP address as text for a literal.
    pub name: String,
    /// MX preference; 0 for smart hosts, literals and the fall-back to A/AAAA.
    pub preference: u16,
    /// Addresses in the order to try; v6 and v4 interleaved. At least one.
    pub addresses: Vec<IpAddr>,
    /// What is published on TLS to it.
    pub policy: TlsPolicy,
}

/// The resolved way to a destination.
#[derive(Clone, Debug)]
pub struct Route {
    /// The lane this recipient belongs in: the provider's, or the domain's own.
    pub lane: LaneName,
    /// Whose limits hold.
    pub provider: Arc<Provider>,
    /// The recipient domain (A-labels, lower case), or the relay's host name for a smart host: transactions
    /// of one message to recipients with equal `destination` and lane may be shared.
    pub destination: Arc<str>,
    /// Hosts in order of preference; at least one.
    pub hosts: Arc<[Host]>,
    /// Port to connect to.
    pub port: u16,
    /// What the domain publishes on TLS, for reports; `None`: none is made of sessions on this way.
    pub facts: Option<Arc<TlsFacts>>,
}

impl Route {
    /// Whether a connection that was opened for the one is good for the other, whichever host it is to: TLS that
    /// showed nothing is not good for mail that a policy protects.
    pub fn has_the_hosts_of(&self, other: &Route) -> bool {
        Arc::ptr_eq(&self.hosts, &other.hosts)
            || self.hosts.len() == other.hosts.len()
                && self
                    .hosts
                    .iter()
                    .all(|host| other.hosts.iter().any(|same| same.name == host.name && same.policy == host.policy))
    }
}

/// Why there is no way. `Permanent` bounces, `Temporary` defers.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RouteError {
    /// Never will be: no such domain, null MX, mail loop.
    #[error("{code} {enhanced} {text}")]
    Permanent {
        /// Basic code, e.g. 556.
        code: u16,
        /// Enhanced code, e.g. `5.1.10`.
        enhanced: &'static str,
        /// For people.
        text: String,
    },
    /// May be later: what the domain publishes on TLS leaves no host now.
    #[error("{NO_TLS} {text}")]
    Insecure {
        /// For people.
        text: String,
        /// What is wrong, for reports.
        facts: Arc<TlsFacts>,
    },
    /// May be later: SERVFAIL, time-out, MX without address.
    #[error("{enhanced} {text}")]
    Temporary {
        /// Enhanced code, e.g. `4.4.3`.
        enhanced: &'static str,
        /// For people.
        text: String,
    },
}
