//! What a receiver makes of a record of SPF for one client (RFC 7208 §4, `check_host`).
//!
//! Bounded as the standard says: [`MOST_LOOKUPS`] terms that cost a look-up, [`MOST_VOID`] that find nothing,
//! [`MOST_HOSTS`] mail hosts or names of an address.

use std::net::IpAddr;

use super::macros::{self, Values};
use super::record::{Directive, Mechanism, Prefixes, Qualifier, Record, is_record};
use crate::doctor::names::Asker;

/// Terms that cost a look-up.
pub const MOST_LOOKUPS: usize = 10;
/// Look-ups that find nothing.
pub const MOST_VOID: usize = 2;
/// Mail hosts of one `mx`, and names of an address that `ptr` looks at.
pub const MOST_HOSTS: usize = 10;

/// What a receiver makes of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// There is no record.
    None,
    /// The record says nothing of this client.
    Neutral,
    /// May send.
    Pass,
    /// May not.
    Fail,
    /// Probably may not.
    SoftFail,
    /// DNS could not be asked: why.
    TempError(String),
    /// The record cannot be used: why.
    PermError(String),
}

impl Verdict {
    /// As RFC 7208 calls it.
    pub fn name(&self) -> &'static str {
        match self {
            Verdict::None => "none",
            Verdict::Neutral => "neutral",
            Verdict::Pass => "pass",
            Verdict::Fail => "fail",
            Verdict::SoftFail => "softfail",
            Verdict::TempError(_) => "temperror",
            Verdict::PermError(_) => "permerror",
        }
    }
}

/// Who sends.
#[derive(Clone, Debug)]
pub struct Client<'a> {
    /// From where.
    pub ip: IpAddr,
    /// Its reverse-path.
    pub sender: &'a str,
    /// What it says in EHLO.
    pub helo: &'a str,
}

/// A verdict and the term that made it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Judged {
    /// What.
    pub verdict: Verdict,
    /// The term that matched, as written; empty if none did.
    pub by: String,
}

/// The same, and whether another sender of the same domain may be judged otherwise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OfSender {
    /// What this one is judged.
    pub judged: Judged,
    /// A term that asks who it is, as written, came before the verdict, or made it.
    pub asks_who: Option<String>,
}

/// A record that was asked for.
pub enum Published {
    /// None, or not one.
    Not(Verdict),
    /// This text.
    Text(String),
}

/// The record of a domain, if there is exactly one.
pub async fn published(asker: &Asker<'_>, domain: &str) -> Published {
    if !is_domain(domain) {
        return Published::Not(Verdict::None);
    }
    let texts = match asker.texts(domain).await {
        Ok(texts) => texts,
        Err(why) => return Published::Not(Verdict::TempError(why)),
    };
    let mut records = texts.into_iter().filter(|text| is_record(text));
    match (records.next(), records.count()) {
        (None, _) => Published::Not(Verdict::None),
        (Some(text), 0) => Published::Text(text),
        (Some(_), more) => Published::Not(Verdict::PermError(format!("{domain} has {} records of SPF", more + 1))),
    }
}

/// Whether check_host() takes it for a domain (RFC 7208 §4.3): two labels or more, none empty or too long.
fn is_domain(domain: &str) -> bool {
    let domain = domain.strip_suffix('.').unwrap_or(domain);
    domain.contains('.') && domain.len() <= 253 && domain.split('.').all(|label| (1..=63).contains(&label.len()))
}

/// Judges a client by the record of a domain.
pub async fn check(asker: &Asker<'_>, client: &Client<'_>, domain: &str) -> Judged {
    check_sender(asker, client, domain).await.judged
}

/// [`check`] for one of several senders.
pub async fn check_sender(asker: &Asker<'_>, client: &Client<'_>, domain: &str) -> OfSender {
    let mut walk = Walk { asker, client, lookups: 0, voids: 0, asks_who: None };
    let judged = walk.domain(domain).await;
    OfSender { judged, asks_who: walk.asks_who }
}

struct Walk<'a> {
    asker: &'a Asker<'a>,
    client: &'a Client<'a>,
    lookups: usize,
    voids: usize,
    asks_who: Option<String>,
}

/// Why the walk ends with an error.
type Ends<T> = Result<T, Verdict>;

impl Walk<'_> {
    async fn domain(&mut self, domain: &str) -> Judged {
        let by_none = |verdict| Judged { verdict, by: String::new() };
        let text = match published(self.asker, domain).await {
            Published::Not(verdict) => return by_none(verdict),
            Published::Text(text) => text,
        };
        let record = match Record::parse(&text) {
            Ok(record) => record,
            Err(faults) => {
                let first = faults.first().map(ToString::to_string).unwrap_or_default();
                return by_none(Verdict::PermError(format!("the record of {domain} is wrong: {first}")));
            }
        };
        for directive in &record.directives {
            match self.matches(directive, domain).await {
                Ok(false) => {}
                Ok(true) => {
                    let verdict = match directive.qualifier {
                        Qualifier::Pass => Verdict::Pass,
                        Qualifier::Fail => Verdict::Fail,
                        Qualifier::SoftFail => Verdict::SoftFail,
                        Qualifier::Neutral => Verdict::Neutral,
                    };
                    return Judged { verdict, by: directive.text.clone() };
                }
                Err(verdict) => return Judged { verdict, by: directive.text.clone() },
            }
        }
        match &record.redirect {
            Some(target) => self.redirect(target, domain).await,
            None => by_none(Verdict::Neutral),
        }
    }

    async fn redirect(&mut self, target: &str, domain: &str) -> Judged {
        let by = |verdict| Judged { verdict, by: format!("redirect={target}") };
        let name = match self.count().and_then(|()| self.name(target, domain)) {
            Ok(name) => name,
            Err(verdict) => return by(verdict),
        };
        match Box::pin(self.domain(&name)).await {
            Judged { verdict: Verdict::None, .. } => {
                by(Verdict::PermError(format!("{name} has no record of SPF, to which redirect= leads")))
            }
            judged => judged,
        }
    }

    fn count(&mut self) -> Ends<()> {
        self.lookups += 1;
        match self.lookups > MOST_LOOKUPS {
            true => Err(Verdict::PermError(format!("it takes more than {MOST_LOOKUPS} look-ups"))),
            false => Ok(()),
        }
    }

    fn void(&mut self, is: bool) -> Ends<()> {
        self.voids += usize::from(is);
        match self.voids > MOST_VOID {
            true => Err(Verdict::PermError(format!("more than {MOST_VOID} look-ups find nothing"))),
            false => Ok(()),
        }
    }

    fn name(&mut self, spec: &str, domain: &str) -> Ends<String> {
        if macros::depends_on_sender(spec) {
            self.asks_who.get_or_insert_with(|| spec.to_owned());
        }
        let Client { ip, sender, helo } = *self.client;
        macros::expand(spec, &Values { ip, sender, domain, helo }).map_err(Verdict::PermError)
    }

    async fn matches(&mut self, directive: &Directive, domain: &str) -> Ends<bool> {
        if directive.mechanism.costs() {
            self.count()?;
        }
        let mut named = |spec: &Option<String>| match spec {
            Some(spec) => self.name(spec, domain),
            None => Ok(domain.to_owned()),
        };
        match &directive.mechanism {
            Mechanism::All => Ok(true),
            Mechanism::Network(network, prefix) => Ok(is_within(self.client.ip, *network, *prefix)),
            Mechanism::Include(spec) => {
                let name = self.name(spec, domain)?;
                self.include(&name).await
            }
            Mechanism::A(spec, prefixes) => {
                let name = named(spec)?;
                let found = self.addresses(&name).await?;
                self.void(found.is_empty())?;
                Ok(self.is_one_of(&found, *prefixes))
            }
            Mechanism::Mx(spec, prefixes) => {
                let name = named(spec)?;
                self.mx(&name, *prefixes).await
            }
            Mechanism::Ptr(spec) => {
                let name = named(spec)?;
                self.ptr(&name).await
            }
            Mechanism::Exists(spec) => {
                let name = self.name(spec, domain)?;
                // Of IPv4 also for clients of IPv6 (RFC 7208 §5.7).
                let found = self.asker.addresses(&name, true).await.map_err(Verdict::TempError)?;
                self.void(found.is_empty())?;
                Ok(!found.is_empty())
            }
        }
    }

    async fn include(&mut self, name: &str) -> Ends<bool> {
        match Box::pin(self.domain(name)).await.verdict {
            Verdict::Pass => Ok(true),
            Verdict::Fail | Verdict::SoftFail | Verdict::Neutral => Ok(false),
            Verdict::None => Err(Verdict::PermError(format!("{name} has no record of SPF to include"))),
            error @ (Verdict::TempError(_) | Verdict::PermError(_)) => Err(error),
        }
    }

    /// Of the client's family.
    async fn addresses(&self, name: &str) -> Ends<Vec<IpAddr>> {
        self.asker.addresses(name, self.client.ip.is_ipv4()).await.map_err(Verdict::TempError)
    }

    fn is_one_of(&self, found: &[IpAddr], prefixes: Prefixes) -> bool {
        let prefix = if self.client.ip.is_ipv4() { prefixes.v4 } else { prefixes.v6 };
        found.iter().any(|ip| is_within(self.client.ip, *ip, prefix))
    }

    async fn mx(&mut self, name: &str, prefixes: Prefixes) -> Ends<bool> {
        let hosts = self.asker.hosts(name).await.map_err(Verdict::TempError)?;
        self.void(hosts.is_empty())?;
        if hosts.len() > MOST_HOSTS {
            return Err(Verdict::PermError(format!("{name} has more than {MOST_HOSTS} mail hosts")));
        }
        for (_, host) in hosts.iter().filter(|(_, host)| !host.is_empty()) {
            let found = self.addresses(host).await?;
            if self.is_one_of(&found, prefixes) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn ptr(&mut self, name: &str) -> Ends<bool> {
        // Who has no name, or whose name server fails, just does not match (RFC 7208 §5.5).
        let Ok(names) = self.asker.names_of(self.client.ip).await else { return Ok(false) };
        self.void(names.is_empty())?;
        let below = format!(".{}", name.to_lowercase());
        for found in names.iter().take(MOST_HOSTS) {
            if !format!(".{found}").ends_with(&below) {
                continue;
            }
            if self.addresses(found).await.is_ok_and(|ips| ips.contains(&self.client.ip)) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Whether an address is in a network; never one of the other family.
pub fn is_within(ip: IpAddr, network: IpAddr, prefix: u8) -> bool {
    match (ip, network) {
        (IpAddr::V4(ip), IpAddr::V4(network)) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
            ip.to_bits() & mask == network.to_bits() & mask
        }
        (IpAddr::V6(ip), IpAddr::V6(network)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
            ip.to_bits() & mask == network.to_bits() & mask
        }
        _ => false,
    }
}
