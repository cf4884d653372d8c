//! `[dns]`, checked: whom names are asked of, and how long answers hold.

use std::net::SocketAddr;
use std::time::Duration;

use super::TrustAnchor;

/// `[dns]`.
#[derive(Clone, Debug)]
pub struct Dns {
    /// Empty: the system's (`/etc/resolv.conf`).
    pub nameservers: Vec<Nameserver>,
    /// One query to one server.
    pub timeout: Duration,
    /// Tries a query.
    pub attempts: usize,
    /// Who checks signatures.
    pub dnssec: Dnssec,
    /// What is trusted instead of the keys of the root.
    pub trust_anchor: Option<TrustAnchor>,
    /// Shortest time an answer is cached.
    pub ttl_min: Duration,
    /// Longest time an answer is cached.
    pub ttl_max: Duration,
    /// Longest time a negative answer is cached.
    pub negative_ttl_max: Duration,
    /// Cached routes and hosts at most.
    pub cache_size: u64,
}

/// `[dns] dnssec`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dnssec {
    /// Nobody.
    Off,
    /// A name server on loopback, whose AD bit is believed.
    TrustAd,
    /// We do.
    Validate,
}

/// An entry of `[dns] nameservers`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Nameserver {
    /// Address and port.
    pub address: SocketAddr,
    /// How to talk to it.
    pub protocol: DnsProtocol,
    /// Name its certificate must have, for TLS and HTTPS.
    pub tls_name: String,
}

/// How to talk to a name server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DnsProtocol {
    /// UDP, TCP when truncated: `192.0.2.53` or `192.0.2.53:5353`.
    Plain,
    /// `tls://192.0.2.53:853#dns.example`.
    Tls,
    /// `https://192.0.2.53:443#dns.example`.
    Https,
}
