//! What operators ask of a running mailweir: the trait that the application implements, and the
//! values it answers with. `control` carries them over a Unix socket, `requests` does the work.

pub mod bans;
mod bounded;
pub mod control;
pub mod explain;
pub mod feedback;
mod holds;
pub mod http;
mod listing;
pub mod requests;
mod resuming;
mod spare;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub use explain::Explanation;
pub use feedback::FeedbackStatus;
pub use holds::{HoldStatus, QuotaStatus};

use crate::clock::Timestamp;
use crate::config::Provider;
use crate::listener::arrivals::Lock;
use crate::mail::{Address, Incoming, LaneName, RecipientKey, State};
pub use crate::pipeline::{Forgotten, Resumed};
use crate::queue::{Counts, Operation, Queue, QueueError, Storage};

/// The handles of a running relay.
#[async_trait]
pub trait Controls: Send + Sync + 'static {
    /// The queue.
    fn queue(&self) -> Arc<dyn Queue>;

    /// Takes recipients that wait in memory (not in a transaction) away from the scheduler. Keys it
    /// does not have are passed over.
    fn withdraw(&self, keys: &[RecipientKey]) -> Withdrawn;

    /// Waits until requests can be answered; they are as long as what it returns is kept. The error is for
    /// people: that takes too long.
    async fn enter(&self) -> Result<Box<dyn Send>, String> {
        Ok(Box::new(()))
    }

    /// Takes recipients away from workers that have sent nothing of them; `op` is done to those whose
    /// transaction is under way when that has ended, unless that is their end.
    fn recall(&self, _op: Operation, _keys: &[RecipientKey]) -> Withdrawn {
        Withdrawn::nothing()
    }

    /// Tells the scheduler that lanes may have something that is due since `due`, and has name servers
    /// and hosts that failed asked again.
    fn wake(&self, lanes: &[LaneName], due: Timestamp);

    /// The same of all lanes.
    fn wake_all(&self, due: Timestamp);

    /// The lanes of the configuration, and those that have mail or are in trouble.
    async fn lanes(&self) -> Vec<LaneStatus>;

    /// Why mail to this recipient does not leave whatever an operator says, if so.
    fn kept_in(&self, _recipient: &str) -> Option<String> {
        None
    }

    /// What lets nothing leave each of these lanes, in words; those that are open are left out.
    fn stopped(&self, _lanes: &[LaneName]) -> Vec<(String, String)> {
        Vec::new()
    }

    /// What recipients wait for that are due, in words.
    fn waits(&self, _due: &[Due]) -> HashMap<RecipientKey, String> {
        HashMap::new()
    }

    /// Stops or starts a lane or provider, also over the end of the process; `false` if there is none
    /// of that name. The error is that of the queue: it is done, but ends with the process.
    async fn pause(&self, lane_or_provider: &str, paused: bool) -> Result<bool, QueueError>;

    /// Ends every hold of a lane or provider that is not the configuration's own; `None` if there is none
    /// of that name. The error is that of the queue: it is done, but ends with the process.
    async fn resume(&self, lane_or_provider: &str) -> Result<Option<Vec<Resumed>>, QueueError> {
        Ok(self.pause(lane_or_provider, false).await?.then(Vec::new))
    }

    /// Forgets what replies taught about a lane or provider, and the like.
    async fn forget(&self, _lane_or_provider: &str) -> Result<Option<Vec<Forgotten>>, QueueError> {
        Ok(None)
    }

    /// How the relay is.
    fn status(&self) -> Status;

    /// What would become of such a message to `recipient` sent now. The error is for people: nobody is
    /// there who knows.
    async fn explain(&self, _from: Incoming<'_>, _recipient: &Address, _priority: i8) -> Result<Explanation, String> {
        Err("mailweir is not running".into())
    }

    /// Reads the configuration again and puts it in force; tells what changed. The error is for
    /// people; the configuration in force stays then.
    async fn reload(&self) -> Result<String, Refusal> {
        Err(Refusal { message: "mailweir is not running".into(), config: false })
    }

    /// Addresses whose logins have failed.
    fn bans(&self) -> Vec<bans::BanStatus> {
        Vec::new()
    }

    /// Forgets the failures of one address, or of all; how many addresses that were.
    fn unban(&self, _address: Option<IpAddr>) -> usize {
        0
    }

    /// Users who may not send until somebody ends that.
    fn locks(&self) -> Vec<Lock> {
        Vec::new()
    }

    /// Lets a user send again; `false` if it was not locked. The error is that of the queue: it is done, but ends
    /// with the process.
    async fn unlock(&self, _user: &str) -> Result<bool, QueueError> {
        Ok(false)
    }

    /// The values in force that differ from the built-in ones, as TOML; secrets as `<secret>`. `None`: nobody
    /// knows.
    fn settings(&self) -> Option<String> {
        None
    }

    /// How the file on disk differs from what is in force, for people: why it could not be taken, or that it has
    /// changed; `None` if it does not, or there is none.
    async fn file_differs(&self) -> Option<String> {
        None
    }
}

/// Why a configuration was not put in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// For people.
    pub message: String,
    /// The file has faults, or asks for what cannot be.
    pub config: bool,
}

/// A recipient that is due, or on its way.
#[derive(Clone, Debug)]
pub struct Due {
    /// Which.
    pub key: RecipientKey,
    /// Its lane.
    pub lane: LaneName,
    /// Whether it is on its way.
    pub state: State,
    /// The domain that the mail is for, in lower case.
    pub domain: String,
}

/// Recipients taken away from the scheduler for an operation. The store still counts them as held by
/// this process: either the operation ends that, or they are put back, or nobody tries them before
/// the next start.
#[must_use = "what is neither operated on nor put back waits for the next start"]
pub struct Withdrawn {
    keys: Vec<RecipientKey>,
    back: Box<dyn FnOnce() + Send>,
}

impl Withdrawn {
    /// `keys` were taken; `back` gives them to the scheduler again.
    pub fn new(keys: Vec<RecipientKey>, back: impl FnOnce() + Send + 'static) -> Withdrawn {
        Withdrawn { keys, back: Box::new(back) }
    }

    /// There was nothing to take.
    pub fn nothing() -> Withdrawn {
        Withdrawn::new(Vec::new(), || ())
    }

    /// Which.
    pub fn keys(&self) -> &[RecipientKey] {
        &self.keys
    }

    /// The store has refused the operation, so nothing has changed: they wait in memory again. This
    /// needs no store.
    pub fn put_back(self) {
        (self.back)();
    }
}

impl std::fmt::Debug for Withdrawn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Withdrawn").field(&self.keys).finish()
    }
}

/// A lane as an operator sees it: one line of `provider list --json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LaneStatus {
    /// A provider's name or `@domain`; where limits hold for each source, with its address.
    pub name: String,
    /// The source address whose limits these are; empty where there is one lane for all.
    #[serde(default)]
    pub source: String,
    /// The provider whose limits hold; `default` for a domain without one.
    pub provider: String,
    /// The configuration has no provider of that name any more: what waits goes where it leads now.
    #[serde(default)]
    pub former: bool,
    /// Recipients that wait in memory.
    pub waiting: u64,
    /// Recipients that wait in the queue besides, due or not; at most a million are counted.
    #[serde(default)]
    pub stored: u64,
    /// Recipients in a transaction.
    pub in_flight: u64,
    /// Open connections.
    pub connections: u64,
    /// Connections that are being opened: they have a socket, and the host has not yet let us go on to MAIL.
    #[serde(default)]
    pub opening: u64,
    /// Limit of connections.
    pub max_connections: u64,
    /// What its host announces about a session (LIMITS, RFC 9422), and which host: `RCPTMAX=20 MAILMAX=5 (mx.example)`;
    /// empty if it announces nothing, or was not connected to yet.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub announced: String,
    /// The rates, as in the configuration; those of `connection_rate` as `6/h connections`.
    pub rate: Vec<String>,
    /// Put to rest by an operator.
    pub paused: bool,
    /// Why mailweir itself has stopped it for now: the words of the first of `holds` that stops it; empty
    /// if none does, or an operator paused it.
    pub stopped: String,
    /// All that holds it, what matters most first.
    #[serde(default)]
    pub holds: Vec<HoldStatus>,
    /// What was used of its quotas, as far as it is known.
    #[serde(default)]
    pub quotas: Vec<QuotaStatus>,
    /// What replies taught.
    #[serde(default)]
    pub feedback: FeedbackStatus,
    /// The last error or refusal since something was delivered, with its time; empty if there was none.
    pub last_error: String,
}

impl LaneStatus {
    /// What is open, between it and the limit `of`, and what is being opened, in words: `0/5, 3 opening`.
    pub fn connections_told(&self, of: &str) -> String {
        let opening = if self.opening > 0 { format!(", {} opening", self.opening) } else { String::new() };
        format!("{}{of}{}{opening}", self.connections, self.max_connections)
    }

    /// A lane in which nothing happens.
    pub fn idle(name: &LaneName, provider: &Provider) -> LaneStatus {
        // As they are written in `rate`.
        let connection_rates = provider.connection_rate.iter().map(|rate| format!("{rate} connections"));
        LaneStatus {
            name: name.to_string(),
            source: name.source().map(|source| source.to_string()).unwrap_or_default(),
            provider: provider.name.clone(),
            max_connections: u64::from(provider.connections),
            rate: provider.rate.iter().map(ToString::to_string).chain(connection_rates).collect(),
            ..LaneStatus::default()
        }
    }
}

/// How the relay is: `mailweir status --json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the program.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// Host name in use.
    pub hostname: String,
    /// The configuration file; empty if there is none.
    pub config: String,
    /// Since when it runs, RFC 3339.
    pub started: String,
    /// Since when this configuration is in force, RFC 3339.
    #[serde(default)]
    pub loaded: String,
    /// How often another configuration was put in force since the start.
    #[serde(default)]
    pub reloads: u64,
    /// When and why the last reload was refused; empty if none was since this configuration is in force.
    #[serde(default)]
    pub refused: String,
    /// What the sandbox does, if there is one; else empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sandbox: String,
    /// What is counted for reports on TLS, and how many wait; empty where none are made.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tls_reports: String,
    /// It is ending: nothing new is taken, and what is in a transaction ends within `drain`.
    #[serde(default)]
    pub stopping: bool,
    /// Seconds since the start.
    pub uptime: u64,
    /// Where it listens.
    pub listeners: Vec<String>,
    /// Messages accepted since the start.
    pub accepted: u64,
    /// Recipients delivered since the start.
    pub delivered: u64,
    /// Attempts put off since the start.
    pub deferred: u64,
    /// Recipients bounced or expired since the start.
    pub bounced: u64,
    /// What is in the queue; filled in by `requests`.
    #[serde(default)]
    pub queue: Counts,
    /// What it takes of its disk; filled in by `requests`.
    #[serde(default)]
    pub storage: Storage,
    /// Bytes of the disk that are set aside for mail on its way out.
    #[serde(default)]
    pub set_aside: u64,
    /// The same as `[queue] min_free` wants it.
    #[serde(default)]
    pub min_free: u64,
}
