//! Questions to the name servers, and what their answers mean.
//!
//! Invariants:
//! - Only an answer says "no such record". SERVFAIL, REFUSED, time-outs, referrals and answers
//!   about other names are failures: they defer mail, they never bounce it.
//! - Names are fully qualified: search lists and `ndots` of the system never apply.
//! - A bounded number of questions is under way at once ([`MAX_QUERIES`], fewer where descriptors are
//!   short), each one bounded in time; those about domains that nobody knows leave a fifth to the others.
//!
//! hickory sends, retransmits, and falls back to TCP; there is one pool per name server, because a
//! pool of several takes the first SERVFAIL or REFUSED for the answer. CNAMEs are followed here,
//! so that only records that belong to the name asked for are used. With `dnssec = "validate"` each answer is checked
//! up to the root, negative ones too, and one that should be signed and is not well is no answer ([`Answer::Bogus`]).

use std::collections::HashSet;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ProtocolConfig, ResolveHosts, ResolverOpts, ServerOrderingStrategy,
};
use hickory_resolver::net::dnssec::DnssecDnsHandle;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::xfer::{DnsHandle, FirstAnswer};
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{DnsRequestOptions, DnsResponse, Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::{NameServerPool, PoolContext, TlsConfig, system_conf};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::RouterError;
use super::certificate::{Refused, Verifier};
use super::wildcard::{is_proven, leads_on};
use crate::config::{self, DnsProtocol, Dnssec};
use crate::descriptors::MAX_QUERIES;
use crate::observe::seldom;

/// Where the system's name servers stand.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Sets of records of which it is remembered, for each name server, whether they are well signed.
const VALIDATIONS: usize = 20_000;
/// CNAMEs followed from one name; recursive servers follow about as many.
const MAX_CNAMES: usize = 12;

/// What DNS knows about a name and type.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Answer {
    /// At least one record of the type asked for.
    Found {
        /// Records, at the end of the CNAME chain.
        data: Vec<RData>,
        /// Where the CNAME chain ends; the name itself if there is none.
        canonical: Name,
        /// The shortest TTL of chain and records, in seconds.
        ttl: u32,
        /// Chain and records are signed, and the signatures were checked (RFC 4035 §4.3).
        secure: bool,
    },
    /// The name exists, but has no record of this type.
    NoData {
        /// From the SOA record (RFC 2308 §5), if there was one.
        ttl: Option<u32>,
    },
    /// The name does not exist.
    NoDomain {
        /// From the SOA record, if there was one.
        ttl: Option<u32>,
    },
    /// What came should be signed, and is not, or not well: it may be forged. Why, for people.
    Bogus(String),
}

/// Whose question it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Whose {
    /// Of a provider, of an operator, or of a domain that took mail lately.
    Known,
    /// Of any other domain.
    Unknown,
}

/// No answer, for now. The text names the server that was asked last.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Failure(pub(super) String);

/// The name servers.
pub(super) struct Dns {
    servers: Vec<Server>,
    /// Where to start: the server that answered last.
    preferred: AtomicUsize,
    slots: Semaphore,
    unknown: Semaphore,
    timeout: Duration,
    attempts: usize,
    dnssec: Dnssec,
}

struct Server {
    label: String,
    pool: Pool,
    /// Why its certificate was refused lately.
    refused: Refused,
}

/// How a server is asked.
enum Pool {
    /// Over the network.
    Network(NameServerPool<TokioRuntimeProvider>),
    /// Over the network, and what comes is validated.
    Validating(Box<DnssecDnsHandle<NameServerPool<TokioRuntimeProvider>>>),
    /// In this process.
    Given(Arc<dyn NameServer>),
}

/// A name server inside this process, asked instead of one on the network: for simulations.
#[async_trait]
pub trait NameServer: Send + Sync + 'static {
    /// What hickory would make of the answer.
    ///
    /// # Errors
    /// As hickory tells them; no answer at all is a future that does not end.
    async fn ask(&self, query: Query) -> Result<DnsResponse, NetError>;
}

impl Pool {
    async fn ask(&self, query: Query, options: DnsRequestOptions) -> Result<DnsResponse, NetError> {
        match self {
            Pool::Network(pool) => pool.lookup(query, options).first_answer().await,
            Pool::Validating(pool) => validated(pool.lookup(query, options).first_answer().await),
            Pool::Given(server) => server.ask(query).await,
        }
    }
}

/// What was found out about signatures as a result: an answer, negative ones too, is well signed or of a zone that is
/// shown to have no signatures; else it is an error.
fn validated(response: Result<DnsResponse, NetError>) -> Result<DnsResponse, NetError> {
    let response = match response {
        Err(NetError::Dns(DnsError::Nsec { response, proof, .. })) if proof.is_insecure() => *response,
        Err(NetError::Dns(DnsError::Nsec { query, response, .. }))
            if is_proven(query.name(), &response) || leads_on(query.name(), &response) =>
        {
            *response
        }
        Err(NetError::Dns(DnsError::Nsec { .. })) => return Err(NetError::Dns(DnsError::DnssecBogus)),
        other => other?,
    };
    let signed = response.answers.iter().filter(|record| !record.record_type().is_rrsig());
    if signed.clone().any(|record| !record.proof.is_secure() && !record.proof.is_insecure()) {
        return Err(NetError::Dns(DnsError::DnssecBogus));
    }
    Ok(response)
}

/// Why one server gave no answer.
enum Refusal {
    /// What it said should be signed, and is not well.
    Bogus(String),
    /// It said so (SERVFAIL, REFUSED, ...): asking it again at once is of no use.
    Final(String),
    /// It said nothing (in time).
    Silent(String),
}

impl Dns {
    /// Connects to nothing yet.
    pub(super) fn new(config: &config::Dns, queries: usize) -> Result<Dns, RouterError> {
        let servers = match config.nameservers.as_slice() {
            [] => system_servers(Path::new(RESOLV_CONF))?,
            own => own.iter().map(|s| (s.address.to_string(), server_config(s))).collect(),
        };
        let encrypted = config.nameservers.iter().any(|s| s.protocol != DnsProtocol::Plain);
        let roots = encrypted.then(roots);
        let anchors = config.trust_anchor.as_ref().map(|file| file.anchors.clone()).unwrap_or_default();
        let servers = servers
            .into_iter()
            .map(|(label, server)| {
                let tls = TlsConfig::new().map_err(|e| RouterError::Resolver(e.to_string()))?;
                let mut context = PoolContext::new(options(config), tls);
                let refused = Refused::default();
                if let Some(roots) = &roots {
                    check_certificates(&mut context.tls, roots, &label, &refused)?;
                }
                let local = server.ip.is_loopback();
                if config.dnssec == Dnssec::TrustAd && !local {
                    return Err(RouterError::NotLocal(label));
                }
                let pool = NameServerPool::from_config([server], Arc::new(context), TokioRuntimeProvider::default());
                let pool = match config.dnssec {
                    Dnssec::Validate => {
                        let handle = DnssecDnsHandle::with_trust_anchor(pool, anchors.clone());
                        Pool::Validating(Box::new(handle.validation_cache_size(VALIDATIONS)))
                    }
                    Dnssec::Off | Dnssec::TrustAd => Pool::Network(pool),
                };
                Ok(Server { label, pool, refused })
            })
            .collect::<Result<Vec<_>, RouterError>>()?;
        Ok(Dns::with(servers, config, queries))
    }

    /// Asks this server alone.
    pub(super) fn given(server: Arc<dyn NameServer>, config: &config::Dns) -> Dns {
        Dns::with(
            vec![Server { label: "given".into(), pool: Pool::Given(server), refused: Refused::default() }],
            config,
            MAX_QUERIES,
        )
    }

    /// With so many questions at once. Names that nobody answers for keep theirs open for long, and
    /// others must not wait for them.
    fn with(servers: Vec<Server>, config: &config::Dns, queries: usize) -> Dns {
        Dns {
            servers,
            preferred: AtomicUsize::new(0),
            slots: Semaphore::new(queries.max(1)),
            unknown: Semaphore::new((queries * 4 / 5).max(1)),
            timeout: config.timeout,
            attempts: config.attempts.max(1),
            dnssec: config.dnssec,
        }
    }

    /// Asks for the records of `name`, following CNAMEs.
    pub(super) async fn lookup(&self, name: &Name, kind: RecordType, whose: Whose) -> Result<Answer, Failure> {
        if let Some(answer) = localhost(name, kind) {
            return Ok(answer);
        }
        let mut visited = HashSet::from([name.clone()]);
        let mut current = name.clone();
        let mut shortest = u32::MAX;
        let mut secure = self.dnssec != Dnssec::Off;
        for _ in 0..=MAX_CNAMES {
            let asked = current.clone();
            let response = match self.ask(&current, kind, whose).await? {
                Ok(response) => response,
                Err(negative) => return Ok(negative),
            };
            let is_secure = |record: &Record| match self.dnssec {
                Dnssec::Off => false,
                Dnssec::TrustAd => response.authentic_data,
                Dnssec::Validate => record.proof.is_secure(),
            };
            // Walk from the name asked for through the CNAMEs of this answer, in whatever order
            // they stand; records of other owners are none of our business.
            while let Some((target, ttl, signed)) = response.answers.iter().find_map(|r| match &r.data {
                RData::CNAME(target) if r.name == current => Some((&target.0, r.ttl, is_secure(r))),
                _ => None,
            }) {
                shortest = shortest.min(ttl);
                secure &= signed;
                current = target.clone();
                current.set_fqdn(true);
                if visited.len() > MAX_CNAMES || !visited.insert(current.clone()) {
                    return Err(Failure(format!("the CNAME records of {name} make a loop or are too many")));
                }
            }
            let mut data = Vec::new();
            for record in response.answers.iter().filter(|r| r.name == current && r.record_type() == kind) {
                shortest = shortest.min(record.ttl);
                secure &= is_secure(record);
                data.push(record.data.clone());
            }
            if !data.is_empty() {
                return Ok(Answer::Found { data, canonical: current, ttl: shortest, secure });
            }
            let followed = current != asked;
            // What is said of the end of a chain beside it was not checked: that name is asked for itself.
            if followed && self.dnssec == Dnssec::Validate {
                continue;
            }
            let ttl = response.negative_ttl().map(|ttl| ttl.min(shortest));
            match response.response_code {
                // The code speaks of the end of the chain (RFC 6604 §3).
                ResponseCode::NXDomain => return Ok(Answer::NoDomain { ttl }),
                ResponseCode::NoError if !followed => {
                    return Err(Failure(format!("the answer for {current} is about other names")));
                }
                ResponseCode::NoError if ttl.is_some() => return Ok(Answer::NoData { ttl }),
                // The server does not follow CNAMEs out of its zone: ask on.
                ResponseCode::NoError => {}
                code => return Err(Failure(format!("{current}: {code}"))),
            }
        }
        Err(Failure(format!("the CNAME records of {name} make a loop or are too many")))
    }

    /// Asks the servers in turn until one gives an answer (which may be negative).
    async fn ask(&self, name: &Name, kind: RecordType, whose: Whose) -> Result<Result<DnsResponse, Answer>, Failure> {
        let _share = match whose {
            Whose::Known => None,
            Whose::Unknown => Some(self.unknown.acquire().await.map_err(|_| Failure("shutting down".into()))?),
        };
        let _slot = self.slots.acquire().await.map_err(|_| Failure("shutting down".into()))?;
        let first = self.preferred.load(Ordering::Relaxed);
        let mut refused = vec![false; self.servers.len()];
        let mut last = String::from("no name server is configured");
        let mut bogus = None;
        for _ in 0..self.attempts {
            for step in 0..self.servers.len() {
                let index = (first + step) % self.servers.len();
                let (Some(server), Some(refused)) = (self.servers.get(index), refused.get_mut(index)) else { continue };
                if *refused {
                    continue;
                }
                match self.ask_one(server, name, kind).await {
                    Ok(answer) => {
                        self.preferred.store(index, Ordering::Relaxed);
                        return Ok(answer);
                    }
                    Err(Refusal::Final(text)) => {
                        *refused = true;
                        last = text;
                    }
                    Err(Refusal::Silent(text)) => last = text,
                    // Another one may have what is signed.
                    Err(Refusal::Bogus(text)) => {
                        *refused = true;
                        bogus = Some(text);
                    }
                }
            }
        }
        if let Some(text) = bogus {
            if let Some(times) = seldom("bogus", &name.to_string()) {
                tracing::warn!(%name, ?kind, why = text, times, "an answer of DNS may be forged: it is not believed");
            }
            return Ok(Err(Answer::Bogus(text)));
        }
        tracing::debug!(%name, ?kind, error = %last, "DNS lookup failed");
        Err(Failure(last))
    }

    async fn ask_one(
        &self,
        server: &Server,
        name: &Name,
        kind: RecordType,
    ) -> Result<Result<DnsResponse, Answer>, Refusal> {
        let mut edns = true;
        loop {
            let mut options = DnsRequestOptions::default();
            options.use_edns = edns;
            options.recursion_desired = true;
            // Who is asked for signatures says whether they are good.
            options.edns_set_dnssec_ok = self.dnssec != Dnssec::Off;
            let query = Query::query(name.clone(), kind);
            let began = Instant::now();
            let response = tokio::time::timeout(self.timeout, server.pool.ask(query, options)).await;
            let because =
                |what: &dyn std::fmt::Display| format!("name server {}: {what} for {name} {kind}", server.label);
            // A connection that another question waits for may have been refused just before.
            let recent = began.checked_sub(self.timeout).unwrap_or(began);
            return match response {
                Err(_) | Ok(Err(NetError::Timeout | NetError::NoConnections | NetError::Io(_)))
                    if let Some(why) = server.refused.since(recent) =>
                {
                    Err(Refusal::Final(because(&why)))
                }
                Err(_) | Ok(Err(NetError::Timeout)) => {
                    Err(Refusal::Silent(because(&format_args!("no answer within {} s", self.timeout.as_secs_f32()))))
                }
                Ok(Ok(response)) if self.dnssec == Dnssec::Validate && !answers(&response, name, kind) => {
                    let other = response.answers.iter().any(|record| !record.record_type().is_rrsig());
                    match (response.response_code, response.negative_ttl()) {
                        _ if other => Err(Refusal::Final(because(&"an answer about other names"))),
                        (ResponseCode::NXDomain, ttl) => Ok(Err(Answer::NoDomain { ttl })),
                        (ResponseCode::NoError, Some(ttl)) => Ok(Err(Answer::NoData { ttl: Some(ttl) })),
                        // Without a SOA record it may be a referral.
                        (ResponseCode::NoError, None) => Err(Refusal::Final(because(&"no records, and no SOA"))),
                        (code, _) => Err(Refusal::Final(because(&code))),
                    }
                }
                Ok(Ok(response)) => Ok(Ok(response)),
                Ok(Err(NetError::Dns(DnsError::DnssecBogus))) => {
                    Err(Refusal::Bogus(because(&"an answer without a good signature (DNSSEC)")))
                }
                // Servers older than EDNS answer like that (RFC 6891 §7).
                Ok(Err(NetError::Dns(DnsError::ResponseCode(ResponseCode::FormErr | ResponseCode::NotImp))))
                    if edns =>
                {
                    edns = false;
                    continue;
                }
                Ok(Err(NetError::Dns(DnsError::ResponseCode(code)))) => Err(Refusal::Final(because(&code))),
                Ok(Err(NetError::Dns(DnsError::NoRecordsFound(none)))) => match none.response_code {
                    ResponseCode::NXDomain => Ok(Err(Answer::NoDomain { ttl: none.negative_ttl })),
                    // Name servers instead of an answer: it does not look further for us.
                    ResponseCode::NoError if none.soa.is_none() && none.ns.is_some() => {
                        Err(Refusal::Final(because(&"a referral (it does not recurse)")))
                    }
                    ResponseCode::NoError => Ok(Err(Answer::NoData { ttl: none.negative_ttl })),
                    code => Err(Refusal::Final(because(&code))),
                },
                Ok(Err(other)) => Err(Refusal::Silent(because(&other))),
            };
        }
    }
}

/// Whether there is something of the name in it.
fn answers(response: &DnsResponse, name: &Name, kind: RecordType) -> bool {
    let fits = |record: &Record| record.record_type() == kind || record.record_type() == RecordType::CNAME;
    response.answers.iter().any(|record| record.name == *name && fits(record))
}

/// RFC 6761 §6.3: names in `localhost` are loopback, and never asked for.
fn localhost(name: &Name, kind: RecordType) -> Option<Answer> {
    if !name.iter().next_back().is_some_and(|label| label.eq_ignore_ascii_case(b"localhost")) {
        return None;
    }
    let data = match kind {
        RecordType::A => RData::A(Ipv4Addr::LOCALHOST.into()),
        RecordType::AAAA => RData::AAAA(Ipv6Addr::LOCALHOST.into()),
        _ => return Some(Answer::NoData { ttl: Some(u32::MAX) }),
    };
    Some(Answer::Found { data: vec![data], canonical: name.clone(), ttl: u32::MAX, secure: false })
}

fn options(config: &config::Dns) -> ResolverOpts {
    let mut options = ResolverOpts::default();
    options.ndots = 0;
    options.timeout = config.timeout;
    options.attempts = 0;
    options.edns0 = true;
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options.num_concurrent_reqs = 1;
    options.max_active_requests = MAX_QUERIES;
    options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
    options
}

/// The name servers of the system; its search list and options are of no concern.
fn system_servers(path: &Path) -> Result<Vec<(String, NameServerConfig)>, RouterError> {
    let unusable = |e: &dyn std::fmt::Display| RouterError::SystemResolver(format!("{}: {e}", path.display()));
    let text = std::fs::read(path).map_err(|e| unusable(&e))?;
    let (system, _) = system_conf::parse_resolv_conf(text).map_err(|e| unusable(&e))?;
    Ok(system.name_servers().iter().map(|s| (s.ip.to_string(), s.clone())).collect())
}

/// What certificates of name servers are checked against: the roots that the system trusts (a private CA
/// may be among them); without any, Mozilla's.
fn roots() -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.roots.extend_from_slice(webpki_roots::TLS_SERVER_ROOTS);
    }
    Arc::new(roots)
}

/// Has the certificate of this server checked, and what is wrong with it noted.
fn check_certificates(
    tls: &mut ClientConfig,
    roots: &Arc<RootCertStore>,
    server: &str,
    refused: &Refused,
) -> Result<(), RouterError> {
    let inner = WebPkiServerVerifier::builder_with_provider(roots.clone(), tls.crypto_provider().clone())
        .build()
        .map_err(|e| RouterError::Resolver(e.to_string()))?;
    let verifier = Verifier { inner, server: server.to_owned(), refused: refused.clone() };
    tls.dangerous().set_certificate_verifier(Arc::new(verifier));
    Ok(())
}

fn server_config(server: &config::Nameserver) -> NameServerConfig {
    let name: Arc<str> = match server.tls_name.as_str() {
        "" => server.address.ip().to_string().into(),
        name => name.into(),
    };
    let protocols = match server.protocol {
        DnsProtocol::Plain => vec![ProtocolConfig::Udp, ProtocolConfig::Tcp],
        DnsProtocol::Tls => vec![ProtocolConfig::Tls { server_name: name }],
        DnsProtocol::Https => vec![ProtocolConfig::Https { server_name: name, path: "/dns-query".into() }],
    };
    let connections = protocols
        .into_iter()
        .map(|protocol| {
            let mut connection = ConnectionConfig::new(protocol);
            connection.port = server.address.port();
            connection
        })
        .collect();
    NameServerConfig::new(server.address.ip(), true, connections)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_without_name_servers_is_an_error_that_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        let missing = system_servers(&path).err().unwrap().to_string();
        assert!(missing.contains("[dns] nameservers is empty") && missing.contains("resolv.conf"), "{missing}");
        std::fs::write(&path, "search lan.example\noptions ndots:5\n").unwrap();
        let none = system_servers(&path).err().unwrap().to_string();
        assert!(none.contains("no nameservers found"), "{none}");
        std::fs::write(&path, "nameserver 192.0.2.53\nnameserver 2001:db8::53\nsearch lan.example\n").unwrap();
        let labels: Vec<String> = system_servers(&path).unwrap().into_iter().map(|(label, _)| label).collect();
        assert_eq!(labels, ["192.0.2.53", "2001:db8::53"]);
    }
}
