//! A complete configuration for tests: one loopback listener, no providers, short DNS time-outs.
//! Tests change the fields they are about.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::units::Pattern;
use super::{
    Config, Count, Dns, DnsProtocol, Dnssec, LimitsPer, Listener, Log, LogFormat, Nameserver, Origins, Provider, Queue,
    Retry, Sendmail, SignedConversion, Store, TlsMin, TlsMode,
};
use crate::mail::LocalNames;

/// A configuration that talks to nobody: its only name server is a closed port on loopback.
pub fn config() -> Config {
    Config {
        users: Arc::default(),
        hostname: "relay.example".into(),
        listeners: vec![Arc::new(Listener {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 2525)).into(),
            allow: Vec::new(),
            session_timeout: Duration::from_secs(3600),
            names: names(),
            ..Listener::default()
        })],
        names: names(),
        queue: Queue {
            store: Store::Sqlite(PathBuf::from("mailweir.db")),
            memory: 64 << 20,
            keep_failed: Duration::from_secs(7 * 86_400),
            min_free: 64 << 20,
        },
        dns: Dns {
            nameservers: vec![nameserver(SocketAddr::from((Ipv4Addr::LOCALHOST, 1)))],
            timeout: Duration::from_secs(5),
            attempts: 2,
            dnssec: Dnssec::Off,
            trust_anchor: None,
            ttl_min: Duration::from_secs(60),
            ttl_max: Duration::from_secs(86_400),
            negative_ttl_max: Duration::from_secs(900),
            cache_size: 10_000,
        },
        default: Arc::new(provider("default")),
        providers: Vec::new(),
        routes: Vec::new(),
        limits: Vec::new(),
        arrivals: Vec::new(),
        dkim: Vec::new(),
        priorities: Vec::new(),
        origins: Origins::default(),
        admin: None,
        sandbox: None,
        tls_report: None,
        rewrites: Arc::default(),
        copies: Vec::new().into(),
        sendmail: Sendmail { wait: Duration::ZERO, spool: None },
        log: Log { format: LogFormat::Text, level: "info".into() },
        drain: Duration::from_secs(10),
    }
}

fn names() -> Arc<LocalNames> {
    Arc::new(LocalNames::new("relay.example", "relay.example"))
}

/// A provider without matches, relay or rates; fields are public to be changed.
pub fn provider(name: &str) -> Provider {
    Provider {
        name: name.into(),
        match_mx: Vec::new(),
        match_domains: Vec::new(),
        relay: None,
        connections: 5,
        messages_per_connection: 100,
        recipients_per_message: 100,
        max_message_size: 0,
        rate: Vec::new(),
        burst: 0,
        count: Count::Messages,
        idle_timeout: Duration::from_secs(10),
        port: 25,
        allow_private: false,
        tls: TlsMode::Opportunistic,
        tls_min: TlsMin::V12,
        mta_sts: true,
        tls_ca: None,
        tls_client: None,
        tls_resume: true,
        source: Vec::new(),
        limits_per: LimitsPer::Provider,
        pipelining: true,
        chunking: true,
        signed_conversion: SignedConversion::Convert,
        retry: Retry {
            first: Duration::from_secs(60),
            factor: 2.0,
            max: Duration::from_secs(4 * 3600),
            jitter: 0.2,
            expire: Duration::from_secs(5 * 86_400),
            warn: Duration::from_secs(4 * 3600),
        },
        quota: Vec::new(),
        connection_rate: Vec::new(),
        adaptive: false,
        rules: Vec::new(),
        warmup: None,
    }
}

/// A plain name server.
pub fn nameserver(address: SocketAddr) -> Nameserver {
    Nameserver { address, protocol: DnsProtocol::Plain, tls_name: String::new() }
}

/// Patterns from their texts.
pub fn patterns(texts: &[&str]) -> Vec<Pattern> {
    texts.iter().map(|t| Pattern::new(t)).collect()
}
