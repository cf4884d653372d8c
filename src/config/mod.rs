//! The checked configuration: what every other part takes. No Options where there is a default.
//!
//! `keys` declares every key once; `file` reads TOML and refuses what it does not know; `check`
//! compares the values with one another; `report` prints them, and the documentation; `load` is the way in; `units` and
//! `network` are the values that parse and print themselves. A [`Config`] is immutable.

mod aliases;
mod authorities;
pub mod certificates;
mod check;
mod client_identity;
mod counted;
mod dkim;
mod elsewhere;
mod expiring;
mod fields;
mod file;
mod identity;
mod keys;
mod listen_address;
mod listener_auth;
mod listener_keys;
mod load;
mod meant;
mod mistakes;
mod names;
mod network;
mod never;
mod oauth;
mod oauth_check;
mod oauth_files;
mod own_address;
mod own_certificate;
mod own_relay;
mod password;
mod problem;
pub mod profiles;
pub mod report;
mod routes;
mod rule_keys;
mod rules;
#[doc(hidden)]
pub mod sample;
mod sandbox;
mod secret;
mod sendmail;
mod shaping;
mod source_file;
mod source_keys;
pub mod sources;
mod store_place;
mod submission;
mod trust_anchor;
pub mod units;
mod users;
mod value;
mod warmup;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use crate::mail::convert::SignedConversion;
use crate::mail::{Address, Incoming, LaneName, LocalNames, Spellings};
pub use crate::observe::LogFormat;
pub use aliases::{AliasFault, AliasFile, Aliases};
pub use authorities::Authorities;
pub(crate) use check::collide;
pub use client_identity::{ClientAuthorities, ClientIdentity};
pub use counted::{CountedRate, Unit};
pub(crate) use dkim::read_selector;
pub use dkim::{Dkim, DkimKey};
pub use elsewhere::Elsewhere;
pub(crate) use expiring::troubles as expiring;
pub use file::find;
pub use identity::{IdentityFault, ListenerTls};
pub use listen_address::{FileMode, ListenAddress};
pub(crate) use listener_keys::local_networks;
pub use load::Loaded;
pub(crate) use load::has_text;
pub use network::{Network, canonical};
pub use oauth::{Endpoint, OAuth, OAuthGrant, OAuthService, Proof};
pub use oauth_files::{ClientCertificate, JwtAlgorithm, RsaKey, ServiceAccount};
pub use own_certificate::OwnCertificate;
pub use password::{MAX_PASSWORD, MOST_MEMORY, ScramKeys, StoredPassword};
pub use problem::{ConfigError, Problem, Warning};
pub use routes::{PriorityRule, Route, RouteWhen};
pub use sandbox::Sandbox;
pub use secret::{AuthMechanism, Credentials, Redactor, Secret};
pub use sendmail::Sendmail;
pub use submission::{Search, Submission};
pub use trust_anchor::TrustAnchor;
use units::{Pattern, Rate};
pub use users::{User, Users};
pub(crate) use value::nearest;

/// Everything `config.toml` says, checked, with defaults filled in.
#[derive(Clone, Debug)]
pub struct Config {
    /// EHLO name, `Received:`, Reporting-MTA. Default: the system's FQDN.
    pub hostname: String,
    /// What names without a domain stand for.
    pub names: Arc<LocalNames>,
    /// Who may log in at listeners.
    pub users: Arc<Users>,
    /// At least one.
    pub listeners: Vec<Arc<Listener>>,
    /// The queue.
    pub queue: Queue,
    /// Name resolution.
    pub dns: Dns,
    /// Limits of a destination that no provider matches (its `name` is `default`).
    pub default: Arc<Provider>,
    /// Providers in the order of the file.
    pub providers: Vec<Arc<Provider>>,
    /// Routes in the order of the file; the first match wins.
    pub routes: Vec<Route>,
    /// `[[limit]]` in the order of the file; every one that matches holds. Those on what goes out.
    pub limits: Vec<Arc<Limit>>,
    /// Those on what comes in (`over`), in the order of the file.
    pub arrivals: Vec<Arc<Limit>>,
    /// `[[dkim]]` in the order of the file.
    pub dkim: Vec<Arc<Dkim>>,
    /// `[[route]]` with `priority`, in the order of the file; the first match decides.
    pub priorities: Vec<PriorityRule>,
    /// Where the values of providers came from.
    pub origins: Origins,
    /// Where the admin API listens, if anywhere.
    pub admin: Option<SocketAddr>,
    /// `[sandbox]`, if there is one.
    pub sandbox: Option<Arc<Sandbox>>,
    /// `[sendmail]`.
    pub sendmail: Sendmail,
    /// Log settings.
    pub log: Log,
    /// Time that transactions in flight get at shutdown.
    pub drain: Duration,
}

impl Config {
    /// The provider of that name.
    pub fn provider(&self, name: &str) -> Option<&Arc<Provider>> {
        self.providers.iter().find(|p| p.name == name)
    }

    /// The provider whose `match.domains` has this recipient domain.
    pub fn provider_for_domain(&self, domain: &str) -> Option<&Arc<Provider>> {
        self.providers.iter().find(|p| p.match_domains.iter().any(|d| d.matches(domain)))
    }

    /// The provider whose `match.mx` has this MX host.
    pub fn provider_for_mx(&self, host: &str) -> Option<&Arc<Provider>> {
        self.providers.iter().find(|p| p.match_mx.iter().any(|d| d.matches(host)))
    }

    /// The user of the configuration as whom the client of a message had logged in.
    pub fn user_of(&self, from: &Incoming<'_>) -> Option<&Arc<User>> {
        if from.user.is_empty() { None } else { self.users.find(from.user) }
    }

    /// The provider that is chosen whatever the recipient's domain: that of the user, else of the first route that
    /// matches.
    pub fn via_for(&self, from: Incoming<'_>, recipient: &Address) -> Option<&Arc<Provider>> {
        let of_user = self.user_of(&from).and_then(|user| self.provider(user.via.as_deref()?));
        of_user.or_else(|| self.route_for(from, recipient).map(|route| &route.via))
    }

    /// The first route that matches. A sender alone (`None` for `<>`) is a message from no client.
    pub fn route_for<'a>(&self, from: impl Into<Incoming<'a>>, recipient: &Address) -> Option<&Route> {
        self.routes.get(self.route_index(from, recipient)?)
    }

    /// Its place in `routes`.
    pub fn route_index<'a>(&self, from: impl Into<Incoming<'a>>, recipient: &Address) -> Option<usize> {
        let (from, recipient) = (from.into(), Spellings::of(Some(recipient)));
        let sender = Spellings::of(from.sender);
        self.routes.iter().position(|r| r.when.fits(&from, &sender, &recipient))
    }

    /// The priority that the user has, or that the first `[[route]]` with one gives.
    pub fn priority_for<'a>(&self, from: impl Into<Incoming<'a>>, recipient: &Address) -> Option<i8> {
        let from = from.into();
        if let Some(priority) = self.user_of(&from).and_then(|user| user.priority) {
            return Some(priority);
        }
        self.priorities.get(self.priority_index(from, recipient)?).map(|r| r.priority)
    }

    /// Which of the priorities of `[[route]]` that is.
    pub fn priority_index<'a>(&self, from: impl Into<Incoming<'a>>, recipient: &Address) -> Option<usize> {
        let (from, recipient) = (from.into(), Spellings::of(Some(recipient)));
        let sender = Spellings::of(from.sender);
        self.priorities.iter().position(|r| r.when.fits(&from, &sender, &recipient))
    }
}

/// Where each value of each provider came from, for those who ask why a limit holds.
#[derive(Clone, Default, Debug)]
pub struct Origins(BTreeMap<String, BTreeMap<String, String>>);

impl Origins {
    /// Where the value of `key` (such as `rate`) of a provider came from: `config.toml:12`,
    /// `built-in: vendor page`, `[default], config.toml:7` or `default`.
    pub fn of(&self, provider: &str, key: &str) -> &str {
        self.0.get(provider).and_then(|keys| keys.get(key)).map_or("default", String::as_str)
    }
}

/// `[[listener]]`.
#[derive(Clone, Debug)]
pub struct Listener {
    /// What `[[route]] listener` calls it; empty without one.
    pub name: Arc<str>,
    /// Where it listens.
    pub address: ListenAddress,
    /// Who may connect to a Unix socket, by the rights of the file system.
    pub mode: FileMode,
    /// The group of a Unix socket; `None`: that of the process.
    pub group: Option<u32>,
    /// Clients that may relay, unless `auth` asks more of them.
    pub allow: Vec<Network>,
    /// Whether clients may log in, or have to.
    pub auth: ListenerAuth,
    /// Who asks for a login gets one, and may do no more than before.
    pub accept_any: bool,
    /// AUTH is told in the form of old clients, too: `AUTH=PLAIN LOGIN`.
    pub auth_old_line: bool,
    /// Who may log in: the same for all listeners.
    pub users: Arc<Users>,
    /// TLS for clients; `None`: clear text only.
    pub tls: Option<ListenerTls>,
    /// In bytes.
    pub max_message_size: u64,
    /// Recipients a transaction may have.
    pub max_recipients: usize,
    /// `Received:` fields over which a message is taken to loop (RFC 5321 §6.3).
    pub max_hops: u32,
    /// Bytes that a header section may have.
    pub max_header: u64,
    /// Sessions at once.
    pub max_connections: usize,
    /// Sessions at once of one address (of IPv6: of a /64) among those of clients outside `allow` that have not logged
    /// in; `None`: a quarter of these.
    pub max_strangers_per_network: Option<usize>,
    /// The protocol engine.
    pub engine: Engine,
    /// End a message at a bare LF dot line and take bare LF as line end in commands: for devices
    /// that speak LF only. Off by default (smuggling).
    pub lf_only: bool,
    /// Longest wait for a command.
    pub command_timeout: Duration,
    /// Longest wait between reads of message data.
    pub data_timeout: Duration,
    /// Longest session.
    pub session_timeout: Duration,
    /// How far ahead a client may name the time at which its message leaves (RFC 4865); zero: not at all.
    pub future_release: Duration,
    /// Window in which a message sent again gets the first queue id; zero: off.
    pub dedupe: Duration,
    /// Proxies and filters in front that may tell whose client they speak for (XCLIENT, XFORWARD).
    pub xclient_from: Vec<Network>,
    /// Proxies in front whose connections begin with a header of the PROXY protocol, and must.
    pub proxy_from: Vec<Network>,
    /// `[sandbox]`: the same for all listeners.
    pub sandbox: Option<Arc<Sandbox>>,
    /// What names without a domain stand for: the same for all listeners.
    pub names: Arc<LocalNames>,
}

/// `auth` of a listener.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ListenerAuth {
    /// Nobody can log in.
    Off,
    /// Clients in `allow` relay as they are, others after they have logged in.
    Offered,
    /// Nobody relays who has not logged in.
    Required,
}

/// `tls.client_cert` of a listener: whether clients are asked for a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientCert {
    /// No.
    Off,
    /// Those who have one may show it.
    Offered,
    /// Nobody gets through the handshake without one for which an authority vouches.
    Required,
}

/// `tls.mode` of a listener: when TLS begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ListenerTlsMode {
    /// When the client says STARTTLS (RFC 3207).
    StartTls,
    /// With the first byte (RFC 8314 §3.3).
    Implicit,
}

/// `engine`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Engine {
    /// Ours, on tokio and smtp-proto.
    Native,
    /// mailin-embedded: one thread a session, fewer features.
    Mailin,
}

/// `[queue]`.
#[derive(Clone, Debug)]
pub struct Queue {
    /// The store.
    pub store: Store,
    /// Budget in bytes for bodies and recipients kept in memory.
    pub memory: u64,
    /// How long dead letters are kept.
    pub keep_failed: Duration,
    /// Bytes of the store's disk that are set aside for mail on its way out.
    pub min_free: u64,
}

/// `[queue] store`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Store {
    /// `sqlite:PATH`.
    Sqlite(PathBuf),
}

/// `[retry]`, also inside a provider.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Retry {
    /// Delay after the first failed attempt.
    pub first: Duration,
    /// Each delay is this many times the one before; at least 1.
    pub factor: f64,
    /// Longest delay.
    pub max: Duration,
    /// Each delay is multiplied by a random 1 ± jitter; 0 to 1.
    pub jitter: f64,
    /// Age at which a recipient expires.
    pub expire: Duration,
    /// Age at which a delay DSN is due.
    pub warn: Duration,
}

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

/// `[[provider.NAME.on_reply]]`, or a built-in rule: what a reply means and what follows.
#[derive(Clone, PartialEq, Debug)]
pub struct ReplyRule {
    /// Where it was written: `built-in gmail: vendor page` or `config.toml:12`.
    pub origin: String,
    /// Only at this stage.
    pub stage: Option<crate::smtp::upstream::Stage>,
    /// Only this basic code.
    pub code: Option<u16>,
    /// Only an enhanced code that matches, e.g. `4.7.28` or `4.7.*`.
    pub enhanced: Option<Pattern>,
    /// Only a text that contains this (case does not matter; `*` stands for any run of characters).
    pub text: Option<String>,
    /// How far it reaches.
    pub scope: RuleScope,
    /// What is done; at least one.
    pub actions: Vec<RuleAction>,
    /// How long the actions last.
    pub lasting: Duration,
    /// Only after that many matches in that time (`3/h`); before, the reply is judged as usual.
    pub after: Option<Rate>,
}

/// `scope` of a rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RuleScope {
    /// The recipient that was refused.
    Recipient,
    /// The connection on which it was said.
    Connection,
    /// The provider (seen from one source address).
    Provider,
    /// The account at a smart host.
    Account,
}

/// One action of a rule.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum RuleAction {
    /// `delay`: these recipients wait that long.
    Delay(Duration),
    /// `slow_to`: at most this rate.
    SlowTo(Rate),
    /// `connections`: at most so many.
    Connections(u32),
    /// `messages_per_connection`: at most so many.
    MessagesPerConnection(u32),
    /// `pause = true`: nothing leaves.
    Pause,
    /// `treat_as = "temporary"`: try again, whatever the code.
    Temporary,
    /// `treat_as = "permanent"`: bounce, whatever the code.
    Permanent,
    /// `alert = true`: an error line in the log, for somebody to look at.
    Alert,
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

/// `[[limit]]`: a share of a provider for some senders or clients, so that one application cannot
/// eat another's.
#[derive(Clone, PartialEq, Debug)]
pub struct Limit {
    /// Reverse-paths it is about.
    pub sender: Pattern,
    /// Client addresses it is about; empty: all.
    pub client: Vec<Network>,
    /// The user it is about; `None`: whoever, and nobody.
    pub user: Option<String>,
    /// Providers (lanes) it is about.
    pub provider: Pattern,
    /// Rates; never of connections.
    pub rate: Vec<CountedRate>,
    /// Quotas; never of connections.
    pub quota: Vec<CountedRate>,
    /// What those without a unit count.
    pub count: Count,
    /// Each sender domain has its own (else all that match share one). It is not about the null sender, which has
    /// none, unless `sender` is `<>`.
    pub each_domain: bool,
    /// Each user has its own; it is about nobody who has not logged in.
    pub each_user: bool,
    /// What becomes of more than that.
    pub over: Over,
}

impl Limit {
    /// Its conditions in words, by which it is known in reports and in the store.
    pub fn conditions(&self) -> String {
        let mut name = format!("limit {}", self.sender);
        if !self.client.is_empty() {
            let networks: Vec<String> = self.client.iter().map(ToString::to_string).collect();
            name.push_str(&format!(" from {}", networks.join(",")));
        }
        if let Some(user) = &self.user {
            name.push_str(&format!(" of {user}"));
        }
        if self.provider.as_str() != "*" {
            name.push_str(&format!(" to {}", self.provider));
        }
        name
    }
}

/// `over` of a `[[limit]]`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Over {
    /// It waits in the queue.
    #[default]
    Wait,
    /// It is refused for now when it comes in.
    Reject,
    /// It is taken, and held until an operator releases it.
    Hold,
    /// The same, and its user may not send until somebody ends that.
    Lock,
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
    redactor: Redactor,
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

/// `count`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Count {
    /// A transaction is one.
    Messages,
    /// Each recipient is one.
    Recipients,
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

/// `[log]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Log {
    /// Text or JSON.
    pub format: LogFormat,
    /// A level, or a filter like `info,mailweir::route=debug`.
    pub level: String,
}
