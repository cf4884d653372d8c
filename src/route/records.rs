//! What DNS says of a domain and of its hosts, made into what the router decides on: MX records and
//! addresses, cut to a bound, each with how long it holds.

use std::net::IpAddr;
use std::sync::Arc;

use hickory_resolver::proto::rr::{Name, RData, RecordType};

use super::cache::Kind;
use super::dns::{Answer, Dns, Failure, Whose};
use super::domain::{parse_name, printed};
use super::select::{Addresses, interleave};
use super::sts::{Record, id_of};
use crate::observe::seldom;

/// MX hosts of a domain that are looked up, the preferred ones.
const MAX_HOSTS: usize = 10;
/// Seconds for which it is remembered that an answer may be forged.
const BOGUS: u32 = 30;
/// Seconds for which a record of MTA-STS that could not be looked up, or whose absence came without a time, is taken for
/// none.
const STS_FAILED: u32 = 300;
const STS_NONE: u32 = 60;
/// Addresses of a host that are used.
pub const MAX_ADDRESSES: usize = 8;

/// What the MX records of a domain say.
#[derive(Clone, Debug)]
pub enum Mx {
    /// In order of preference; at least one, at most [`MAX_HOSTS`]; and whether that is signed.
    List(Arc<[Exchange]>, bool),
    /// RFC 7505.
    Null,
    /// The domain exists, without MX.
    None,
    NoDomain,
    Failed(Arc<str>),
    /// What is said may be forged.
    Bogus(Arc<str>),
}

#[derive(Clone, PartialEq, Debug)]
pub struct Exchange {
    pub preference: u16,
    pub text: Arc<str>,
    pub at: Place,
}

#[derive(Clone, PartialEq, Debug)]
pub enum Place {
    Name(Name),
    /// Forbidden by RFC 5321 §5.1, and found in the wild.
    Ip(IpAddr),
}

#[derive(Clone, Debug)]
pub struct HostAddresses {
    pub addresses: Addresses,
    pub canonical: Option<Arc<str>>,
    /// The addresses are signed.
    pub secure: bool,
}

impl Dns {
    /// The MX hosts of a domain, and how long that holds.
    pub async fn look_up_mx(&self, domain: &Name, whose: Whose) -> (Mx, Kind) {
        match self.lookup(domain, RecordType::MX, whose).await {
            Err(Failure(text)) => (Mx::Failed(text.into()), Kind::Failure),
            Ok(Answer::NoData { ttl }) => (Mx::None, Kind::Negative(ttl)),
            Ok(Answer::NoDomain { ttl }) => (Mx::NoDomain, Kind::Negative(ttl)),
            // Old records are no better where somebody forges new ones.
            Ok(Answer::Bogus(text)) => (Mx::Bogus(text.into()), Kind::Negative(Some(BOGUS))),
            Ok(Answer::Found { data, ttl, secure, .. }) => {
                let exchanges = exchanges(domain, &data);
                match exchanges.is_empty() {
                    true => (Mx::Null, Kind::Negative(Some(ttl))),
                    false => (Mx::List(exchanges.into(), secure), Kind::Positive(ttl)),
                }
            }
        }
    }

    /// The addresses of a host, of both families.
    pub async fn look_up_addresses(&self, name: &Name, whose: Whose) -> (HostAddresses, Kind) {
        let (v6, v4) =
            tokio::join!(self.lookup(name, RecordType::AAAA, whose), self.lookup(name, RecordType::A, whose));
        combine(name, v6, v4)
    }

    /// The record of MTA-STS of a domain, and how long that holds.
    pub async fn look_up_sts(&self, domain: &str, whose: Whose) -> (Record, Kind) {
        // A domain that leaves no room for the label can have none.
        let Some(name) = parse_name(&format!("_mta-sts.{domain}")) else { return (Record::None, Kind::Negative(None)) };
        match self.lookup(&name, RecordType::TXT, whose).await {
            // It says nothing of the domain: as without a policy, and not asked for with each message.
            Err(_) | Ok(Answer::Bogus(_)) => (Record::Failed, Kind::Negative(Some(STS_FAILED))),
            Ok(Answer::NoData { ttl } | Answer::NoDomain { ttl }) => {
                (Record::None, Kind::Negative(ttl.or(Some(STS_NONE))))
            }
            Ok(Answer::Found { data, ttl, .. }) => {
                let texts: Vec<Vec<u8>> = data
                    .iter()
                    .filter_map(|data| match data {
                        RData::TXT(txt) => Some(txt.txt_data.concat()),
                        _ => None,
                    })
                    .collect();
                match id_of(texts.iter().map(Vec::as_slice)) {
                    Some(id) => (Record::Id(id), Kind::Positive(ttl)),
                    None => (Record::None, Kind::Negative(Some(ttl))),
                }
            }
        }
    }
}

/// The hosts of MX records in order of preference, each once; empty for the null MX.
fn exchanges(domain: &Name, data: &[RData]) -> Vec<Exchange> {
    let mut records: Vec<(u16, &Name)> = data
        .iter()
        .filter_map(|data| match data {
            // `.` means "no mail" when alone (RFC 7505 §3), and nothing beside other hosts.
            RData::MX(mx) if !mx.exchange.is_root() => Some((mx.preference, &mx.exchange)),
            _ => None,
        })
        .collect();
    records.sort_by_key(|(preference, _)| *preference);
    let mut exchanges: Vec<Exchange> = Vec::new();
    for (preference, name) in records {
        if exchanges.len() == MAX_HOSTS {
            break;
        }
        // Some write [192.0.2.1], whose brackets are escaped in a printed name.
        let mut text = printed(name);
        let at = match text.trim_matches(['[', ']', '\\']).parse::<IpAddr>() {
            Ok(ip) => {
                if let Some(times) = seldom("MX is an address", &domain.to_string()) {
                    tracing::warn!(%domain, mx = %text, times, "an MX record names an IP address instead of a host");
                }
                text = ip.to_string();
                Place::Ip(ip)
            }
            Err(_) => {
                let mut name = name.to_lowercase();
                name.set_fqdn(true);
                Place::Name(name)
            }
        };
        if exchanges.iter().any(|e| *e.text == text) {
            continue;
        }
        exchanges.push(Exchange { preference, text: text.into(), at });
    }
    exchanges
}

/// One result of the AAAA and the A look-up of a host.
fn combine(name: &Name, v6: Result<Answer, Failure>, v4: Result<Answer, Failure>) -> (HostAddresses, Kind) {
    let mut canonical = None;
    let mut shortest = u32::MAX;
    let mut negative_ttl: Option<u32> = None;
    let mut missing = false;
    let (mut failure, mut bogus): (Option<String>, Option<String>) = (None, None);
    let mut secure = true;
    let [v6, v4] = [v6, v4].map(|answer| match answer {
        Ok(Answer::Found { data, canonical: end, ttl, secure: its }) => {
            shortest = shortest.min(ttl);
            secure &= its;
            if end != *name {
                canonical = Some(Arc::from(printed(&end)));
            }
            data.iter().filter_map(RData::ip_addr).collect()
        }
        Ok(Answer::NoData { ttl }) => {
            negative_ttl = negative_ttl.into_iter().chain(ttl).min();
            Vec::new()
        }
        Ok(Answer::NoDomain { ttl }) => {
            missing = true;
            negative_ttl = negative_ttl.into_iter().chain(ttl).min();
            Vec::new()
        }
        Ok(Answer::Bogus(text)) => {
            bogus.get_or_insert(text);
            Vec::new()
        }
        Err(Failure(text)) => {
            failure.get_or_insert(text);
            Vec::new()
        }
    });
    if let Some(text) = bogus {
        let addresses = Addresses::Bogus(text.into());
        return (HostAddresses { addresses, canonical: None, secure: false }, Kind::Negative(Some(BOGUS)));
    }
    let ips = interleave(v6, v4, MAX_ADDRESSES);
    let (addresses, kind) = match (ips.is_empty(), failure) {
        // Half an answer is used, but not for long.
        (false, Some(_)) => (Addresses::Found(ips.into()), Kind::Positive(0)),
        (false, None) => (Addresses::Found(ips.into()), Kind::Positive(shortest)),
        (true, Some(text)) => (Addresses::Failed(text.into()), Kind::Failure),
        (true, None) if missing => (Addresses::NoDomain, Kind::Negative(negative_ttl)),
        (true, None) => (Addresses::None, Kind::Negative(negative_ttl)),
    };
    (HostAddresses { addresses, canonical, secure }, kind)
}
