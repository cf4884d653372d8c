//! Answers of name servers, as hickory reads them off the wire: where they lead mail to, they lead it to hosts that it may
//! go to, and what is told of them can be shown.
#![no_main]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use hickory_resolver::net::NetError;
use hickory_resolver::proto::op::{DnsResponse, Query};
use libfuzzer_sys::fuzz_target;
use mailweir::config::Config;
use mailweir::mail::Address;
use mailweir::route::{Asked, NameServer, Router, Said, is_private};

/// Says one after the other, whatever it is asked.
struct Answers {
    packets: Vec<Vec<u8>>,
    asked: AtomicUsize,
}

#[async_trait]
impl NameServer for Answers {
    async fn ask(&self, _: Query) -> Result<DnsResponse, NetError> {
        let turn = self.asked.fetch_add(1, Ordering::Relaxed);
        match self.packets.get(turn % self.packets.len().max(1)) {
            Some(packet) => DnsResponse::from_buffer(packet.clone()).map_err(NetError::from),
            None => Err(NetError::Timeout),
        }
    }
}

fn can_be_shown(text: &str) {
    assert!(!text.contains(['\r', '\n', '\0', '\u{1b}']), "it goes to logs and bounces: {text:?}");
    assert!(text.len() < 16 * 1024, "it grows without bound");
}

/// Packets with their length in front, as over TCP.
fn packets(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk().filter(|_| packets.len() < 8) {
        let (packet, rest) = rest.split_at(usize::from(u16::from_be_bytes(*length)).min(rest.len()));
        packets.push(packet.to_vec());
        bytes = rest;
    }
    packets
}

fuzz_target!(|bytes: &[u8]| {
    let packets = packets(bytes);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let config = Arc::new(Config::parse("hostname = \"relay.test\"", "fuzz.toml").expect("a configuration"));
        let asked = AtomicUsize::new(0);
        let server = Arc::new(Answers { packets, asked });
        let router = Router::with_name_server(config, server.clone());
        let recipient = Address::parse("a@x.example").expect("an address");
        match router.resolve(None, &recipient).await {
            Ok(route) => {
                assert!(!route.hosts.is_empty() && route.hosts.is_sorted_by_key(|host| host.preference));
                for host in route.hosts.iter() {
                    can_be_shown(&host.name);
                    assert!(!host.addresses.is_empty(), "a host without an address");
                    assert!(!host.addresses.iter().any(|ip| is_private(*ip)), "mail is led to us: {host:?}");
                }
            }
            Err(why) => can_be_shown(&why.to_string()),
        }
        // A chain of aliases, hosts, their addresses and what is published of TLS: all of that is bounded.
        assert!(server.asked.load(Ordering::Relaxed) < 4000, "questions without end");
        for kind in [Asked::A, Asked::Aaaa, Asked::Mx, Asked::Txt, Asked::Ptr, Asked::Tlsa] {
            match router.records("x.example", kind).await {
                Ok(answered) => answered.records.iter().for_each(|said| match said {
                    Said::Mx(_, name) | Said::Name(name) => can_be_shown(name),
                    _ => {}
                }),
                Err(why) => can_be_shown(&why),
            }
        }
        let _ = (router.texts("x.example").await, router.report_targets("x.example").await);
    });
});
