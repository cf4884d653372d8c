//! The checked configuration: what every other part takes. No Options where there is a default.
//!
//! `keys` declares every key once; `file` reads TOML and refuses what it does not know; `check`
//! compares the values with one another; `report` prints them, and the documentation; `load` is the way in; `units` and
//! `network` are the values that parse and print themselves. A [`Config`] is immutable.

mod aliases;
mod authorities;
pub mod certificates;
mod check;
mod check_listener;
mod check_provider;
mod check_routes;
mod client_identity;
mod counted;
mod dkim;
mod dns;
mod elsewhere;
mod expected;
mod expiring;
mod fields;
mod file;
mod file_path;
mod identity;
mod keys;
mod limit;
mod listen_address;
mod listener;
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
mod provider;
mod reply_rule;
pub mod report;
mod rewrite;
mod routes;
mod rule_keys;
mod rules;
#[doc(hidden)]
pub mod sample;
mod sandbox;
mod secret;
mod secret_value;
mod sendmail;
mod shaping;
mod source_file;
mod source_keys;
pub mod sources;
mod srs;
mod store_place;
mod submission;
mod tls_report;
mod trust_anchor;
pub mod units;
mod unknown_key;
mod users;
mod value;
mod warmup;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use crate::mail::convert::SignedConversion;
use crate::mail::{Address, Incoming, LocalNames, Spellings};
pub use crate::observe::LogFormat;
pub use aliases::{AliasFault, AliasFile, Aliases};
pub use authorities::Authorities;
pub(crate) use check_listener::collide;
pub use client_identity::{ClientAuthorities, ClientIdentity};
pub use counted::{CountedRate, Unit};
pub(crate) use dkim::read_selector;
pub use dkim::{Dkim, DkimKey};
pub use dns::{Dns, DnsProtocol, Dnssec, Nameserver};
pub use elsewhere::Elsewhere;
pub(crate) use expiring::troubles as expiring;
pub use file::find;
pub use identity::{IdentityFault, ListenerTls};
pub use limit::{Count, Limit, Over};
pub use listen_address::{FileMode, ListenAddress};
pub use listener::{ClientCert, Engine, Listener, ListenerAuth, ListenerTlsMode, ReceivedSays};
pub(crate) use listener_keys::local_networks;
pub use load::Loaded;
pub(crate) use load::has_text;
pub use network::{Network, canonical};
pub use oauth::{Endpoint, OAuth, OAuthGrant, OAuthService, Proof};
pub use oauth_files::{ClientCertificate, JwtAlgorithm, RsaKey, ServiceAccount};
pub use own_certificate::OwnCertificate;
pub use password::{MAX_PASSWORD, MOST_MEMORY, ScramKeys, StoredPassword};
pub use problem::{ConfigError, Problem, Warning};
pub use provider::{BeforeStart, LimitsPer, Overflow, Provider, Relay, Source, TlsMin, TlsMode, Warmup};
pub use reply_rule::{ReplyRule, RuleAction, RuleScope};
pub use rewrite::{CopyTo, Place, Rewrites, Rewritten};
pub use routes::{PriorityRule, Route, RouteWhen};
pub use sandbox::Sandbox;
pub use secret::{AuthMechanism, Credentials, Redactor, Secret};
pub use sendmail::Sendmail;
pub use srs::Srs;
pub use submission::{Search, Submission};
pub use tls_report::TlsReport;
pub use trust_anchor::TrustAnchor;
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
    /// `[tls_report]`, if reports are made.
    pub tls_report: Option<Arc<TlsReport>>,
    /// `[[rewrite]]`.
    pub rewrites: Arc<Rewrites>,
    /// `[[copy]]`.
    pub copies: Arc<[CopyTo]>,
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

impl Store {
    /// The file beside it whose name goes on with `what`: where the socket and tokens are.
    pub fn beside(&self, what: &str) -> PathBuf {
        let mut name = self.place().to_owned().into_os_string();
        name.push(what);
        PathBuf::from(name)
    }

    /// Where it is on this machine.
    pub fn place(&self) -> &Path {
        match self {
            Store::Sqlite(path) => path,
        }
    }
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

/// `[log]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Log {
    /// Text or JSON.
    pub format: LogFormat,
    /// A level, or a filter like `info,mailweir::route=debug`.
    pub level: String,
}
