//! The name server of the simulation.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hickory_resolver::net::{DnsError, NetError, NoRecords};
use hickory_resolver::proto::op::{DnsResponse, Message, OpCode, Query, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, MX};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use mailweir::route::NameServer;

use super::plan::Dns;
use super::world::World;

/// How long answers hold, in seconds.
const TTL: u32 = 900;

pub struct Zone(pub Arc<World>);

impl Zone {
    fn records(&self, name: &str, kind: RecordType) -> Option<Vec<RData>> {
        let (plan, now) = (&self.0.plan, self.0.now());
        if let Some(domain) = plan.domains.iter().find(|domain| domain.name == name) {
            let mx = domain.mx.iter().rev().find(|(from, _)| *from <= now).map_or(&[][..], |(_, hosts)| hosts);
            let record = |(n, host): (usize, &usize)| {
                // Two of equal preference, so that chance decides between them.
                let preference = if n < 2 { 10 } else { 20 };
                RData::MX(MX::new(preference, name_of(&plan.hosts[*host].name)))
            };
            let found = (kind == RecordType::MX).then(|| mx.iter().enumerate().map(record).collect());
            return Some(found.unwrap_or_default());
        }
        let host = plan.hosts.iter().find(|host| host.name == name)?;
        Some(match (kind, host.address) {
            (RecordType::A, std::net::IpAddr::V4(ip)) => vec![RData::A(A(ip))],
            _ => Vec::new(),
        })
    }
}

fn name_of(text: &str) -> Name {
    Name::from_ascii(format!("{text}.")).expect("a name")
}

#[async_trait]
impl NameServer for Zone {
    async fn ask(&self, query: Query) -> Result<DnsResponse, NetError> {
        let world = &self.0;
        let kind = query.query_type();
        let name = query.name().to_ascii().trim_end_matches('.').to_owned();
        // Told when it is asked: which of two answers of one moment is taken first may differ.
        world.note(format_args!("dns {name} {kind}"));
        tokio::time::sleep(Duration::from_millis(world.random(1..=80))).await;
        let now = world.now();
        let domain = world.plan.domains.iter().find(|domain| domain.name == name);
        let trouble = domain.and_then(|d| d.trouble.iter().find(|(span, _)| span.has(now))).map(|(_, dns)| *dns);
        if let Some(trouble) = trouble {
            world.note(format_args!("dns {name} {kind} {trouble:?}"));
        }
        let code = match trouble {
            Some(Dns::Silent) => std::future::pending().await,
            Some(Dns::ServFail) => return Err(NetError::Dns(DnsError::ResponseCode(ResponseCode::ServFail))),
            Some(Dns::NoDomain) => ResponseCode::NXDomain,
            None => ResponseCode::NoError,
        };
        let records = match trouble {
            None => self.records(&name, kind),
            _ => None,
        };
        let code = if records.is_none() { ResponseCode::NXDomain } else { code };
        let records = records.unwrap_or_default();
        if records.is_empty() {
            let mut none = NoRecords::new(query, code);
            none.negative_ttl = Some(TTL);
            return Err(NetError::Dns(DnsError::NoRecordsFound(none)));
        }
        let mut response = Message::response(0, OpCode::Query);
        for record in records {
            response.add_answer(Record::from_rdata(query.name().clone(), TTL, record));
        }
        DnsResponse::from_message(response).map_err(NetError::from)
    }
}
