//! A provider, checked: where its mail goes, from which addresses, with which TLS, and under which limits.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::units::{Pattern, Rate};
use super::{
    Authorities, Count, CountedRate, Credentials, OAuth, OwnCertificate, Redactor, ReplyRule, Retry, Secret,
    SignedConversion,
};
use crate::mail::LaneName;

/// `[provider.NAME]`, and `[default]`.
#[derive(Clone, Debug)]
pub struct Provider {
    /// The table's name; also the name of its lane, or the first part of the names of its lanes.
    pub name: String,
    /// `match.mx`: patterns of MX host names.
    pub match_mx: Vec<Pattern>,
    /// `match.domains`: patterns of recipient domains.
    pub match_domains: Vec<Pattern>,
    /// A smart host; `None`: by MX.
    pub relay: Option<Relay>,
    /// Connections at once.
    pub connections: u32,
    /// Messages after which a connection is closed.
    pub messages_per_connection: u32,
    /// Recipients of one transaction.
    pub recipients_per_message: u32,
    /// Bytes that a message may have to be tried at all; 0: what the host announces.
    pub max_message_size: u64,
    /// Every one holds; empty: no rate limit. Those of connections belong to
    /// [`Provider::connection_rates`].
    pub rate: Vec<CountedRate>,
    /// Transactions (or recipients, by the unit of each rate) that may leave at once after a pause; 0:
    /// what 10 ms of the rate bring, at least 1.
    pub burst: u32,
    /// What rates and quotas without a unit count, and warm-up plans.
    pub count: Count,
    /// How long an idle connection is kept.
    pub idle_timeout: Duration,
    /// Port of MX hosts.
    pub port: u16,
    /// Deliver to loopback and private addresses found in DNS.
    pub allow_private: bool,
    /// TLS to its hosts.
    pub tls: TlsMode,
    /// The oldest version of TLS that is spoken to its hosts.
    pub tls_min: TlsMin,
    /// Honour the MTA-STS policies of domains, of a provider without a smart host.
    pub mta_sts: bool,
    /// Extra trusted roots, for a private CA.
    pub tls_ca: Option<Authorities>,
    /// What is shown to hosts that ask for a certificate.
    pub tls_client: Option<OwnCertificate>,
    /// TLS session resumption.
    pub tls_resume: bool,
    /// Local addresses to connect from; empty: the system chooses.
    pub source: Vec<Source>,
    /// For what the limits hold. In the configuration of one source (see [`sources::each`])
    /// `source` has just that one.
    pub limits_per: LimitsPer,
    /// Use PIPELINING where offered.
    pub pipelining: bool,
    /// Use CHUNKING (BDAT) where offered.
    pub chunking: bool,
    /// What to do with a DKIM- or S/MIME-signed message that a host without 8BITMIME would need
    /// converted, or whose long lines would need folding.
    pub signed_conversion: SignedConversion,
    /// Retry schedule.
    pub retry: Retry,
    /// Sliding-window caps: never more than `count` in *any* window of length `per`, across
    /// restarts. Never of connections. Empty: none.
    pub quota: Vec<CountedRate>,
    /// New connections, besides those of `rate`: see [`Provider::connection_rates`].
    pub connection_rate: Vec<Rate>,
    /// Slow down on throttle replies and speed up again by itself.
    pub adaptive: bool,
    /// What replies mean here: the configuration's rules first, then the built-in ones. The first
    /// rule that matches decides.
    pub rules: Vec<ReplyRule>,
    /// A plan for new source addresses.
    pub warmup: Option<Warmup>,
}

/// `warmup`: how much may leave on which day since `start` (UTC days). Counts like the rates.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Warmup {
    /// Midnight UTC of the first day.
    pub start: crate::clock::Timestamp,
    /// Most per day: day 1 first; the last entry holds from then until `end`.
    pub days: Vec<u32>,
    /// Number of days after which no warm-up limit holds any more (the plan's length).
    pub length: u32,
    /// What becomes of mail over the day's number.
    pub overflow: Overflow,
    /// What leaves before `start`.
    pub before: BeforeStart,
}

/// `limits_per`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LimitsPer {
    /// The limits hold for all source addresses together.
    Provider,
    /// Every source address has all limits for itself, and learns for itself.
    Source,
}

/// `before` of a warm-up.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum BeforeStart {
    /// As much on each day as on the first.
    #[default]
    DayOne,
    /// Nothing.
    Nothing,
}

/// `overflow` of a warm-up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Overflow {
    /// It waits for the next day.
    Wait,
    /// It leaves from the next source that has room today.
    Source,
}

impl Provider {
    /// The name of the lane of this provider.
    pub fn lane(&self) -> LaneName {
        LaneName::provider(&self.name)
    }

    /// The limits of new connections, which all hold; empty: none.
    pub fn connection_rates(&self) -> Vec<Rate> {
        let of_rate = self.rate.iter().filter(|rate| rate.is_of_connections()).map(|rate| rate.rate);
        self.connection_rate.iter().copied().chain(of_rate).collect()
    }
}

/// A local address to connect from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Source {
    /// The address.
    pub address: IpAddr,
    /// Said in EHLO; `None`: the relay's host name.
    pub name: Option<String>,
    /// Its part of the sender domains is this, of the sum of all weights; at least 1.
    pub weight: u32,
    /// Its own warm-up, instead of the provider's. Only with limits for each source.
    pub warmup: Option<Warmup>,
}

impl Source {
    /// An address of weight 1 without a name of its own.
    pub fn new(address: IpAddr) -> Source {
        Source { address, name: None, weight: 1, warmup: None }
    }
}

/// A smart host.
#[derive(Clone, Debug)]
pub struct Relay {
    /// Host name or IP address.
    pub host: Arc<str>,
    /// Port.
    pub port: u16,
    /// TLS from the first byte (port 465 by default), else STARTTLS.
    pub implicit_tls: bool,
    /// A password for AUTH.
    pub auth: Option<Credentials>,
    /// How a token for AUTH is had; with a password there is none.
    pub oauth: Option<Arc<OAuth>>,
    /// Knows the secrets that this host may have heard, from this or another provider.
    pub(super) redactor: Redactor,
}

impl Relay {
    /// A smart host that has heard no other secret than that of `auth`.
    pub fn new(host: &str, port: u16, implicit_tls: bool, auth: Option<Credentials>) -> Relay {
        Relay { host: host.into(), port, implicit_tls, redactor: Redactor::new(&auth), auth, oauth: None }
    }

    /// What the configuration keeps secret of the account.
    pub fn secrets(&self) -> impl Iterator<Item = &Secret> {
        let password = self.auth.iter().map(|credentials| &credentials.password);
        password.chain(self.oauth.iter().flat_map(|oauth| oauth.secrets()))
    }

    /// For all that this host says.
    pub fn redactor(&self) -> &Redactor {
        &self.redactor
    }
}

/// `tls`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TlsMode {
    /// Never.
    Off,
    /// If offered, whatever the certificate; once more in clear text when it fails.
    Opportunistic,
    /// Encrypted or not at all, whatever the certificate.
    Required,
    /// Encrypted, with a certificate that is valid for the host's name. Default of smart hosts.
    Verified,
    /// Only to hosts with signed TLSA records, one of which their certificate matches.
    Dane,
    /// Only to hosts that an enforced MTA-STS policy of the domain names, with such a certificate.
    MtaSts,
}

/// `tls_min`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TlsMin {
    /// TLS 1.2, the oldest one that is spoken at all.
    V12,
    /// TLS 1.3.
    V13,
}
