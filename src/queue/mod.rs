//! The durable queue: what the rest of the relay may ask of it, and what it promises.
//!
//! What may be asked is in traits by who needs it (`parts`): [`Spool`] for what comes in, [`Leases`] and [`Lanes`] for
//! what leaves, [`Debts`] for reports, [`Desk`] for operators, [`Memory`] for small values, [`Upkeep`] for the store.
//!
//! Every backend passes `tests/contract`. Invariants:
//! - `accept` returns `Ok` only when message, envelope and all recipients are on stable storage.
//! - `settle` applies all its settlements and stores the reports that are owed for them, or nothing;
//!   `report` stores a report and ends what was owed, or nothing. So each debt is reported once.
//! - A message stays, with its body, as long as it has a recipient or owes a report.
//! - A recipient is given to at most one holder at a time (`claim`), until it is settled or the
//!   process that holds it is gone.
//! - An error changes nothing: the caller may try again.
//! - No call takes time that grows with the whole backlog.

pub mod opening;
mod parts;
pub mod sqlite;
pub mod turns;

use std::sync::Arc;

use bytes::Bytes;

pub use self::parts::{Debts, Desk, Lanes, Leases, Memory, Queue, Spool, Upkeep};
use crate::clock::Timestamp;
use crate::mail::lifecycle::Event;
use crate::mail::{LaneName, Message, Owed, QueueId, Recipient, RecipientKey, State};

/// Why the queue could not do what was asked. Nothing was changed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum QueueError {
    /// The disk is full (or a size limit is reached): answer 452.
    #[error("the queue's storage is full: {0}")]
    Full(String),
    /// It may work later: locked, I/O error, read-only, the server is gone: answer 451.
    #[error("the queue is not available: {0}")]
    Unavailable(String),
    /// The store's content is damaged or of a version this program does not know.
    #[error("the queue's store cannot be used: {0}")]
    Damaged(String),
    /// Another process has the store open.
    #[error("another mailweir has this queue open: {0}")]
    InUse(String),
    /// The request makes no sense (a queue id twice, no recipients, chunks missing): trying again
    /// will not help. A mistake of the caller, so answer 451.
    #[error("the queue refused a request: {0}")]
    Invalid(String),
    /// The queue is shutting down.
    #[error("the queue is closed")]
    Closed,
}

/// Bytes of first chunks that a claim brings along at most, for each recipient it may take.
pub const HEADS_EACH: usize = 4096;

/// A recipient that the caller now holds.
#[derive(Clone, Debug)]
pub struct Leased {
    /// Which.
    pub key: RecipientKey,
    /// Its message, shared between the recipients of one claim.
    pub message: Arc<Message>,
    /// The forward-path and its parameters.
    pub recipient: Recipient,
    /// The lane it waited in.
    pub lane: LaneName,
    /// Since when it was due.
    pub due: Timestamp,
    /// Attempts so far; 0 for a new one.
    pub attempts: u32,
    /// A delay DSN was owed or sent.
    pub warned: bool,
    /// Chunk 0 of the body, shared like the message, where it costs little to bring it along; else
    /// [`Spool::chunk`] has it.
    pub head: Option<Bytes>,
}

/// What became of a recipient that was held.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Accepted upstream: it leaves the queue.
    Delivered,
    /// Try again at `due`.
    Deferred {
        /// When.
        due: Timestamp,
        /// Why: the reply or error, as logged. At most 1,000 bytes are stored. Empty: what is stored stays.
        reason: String,
        /// Whether this counts as an attempt (RFC-wise a try, not a wait of our own).
        counts: bool,
        /// The final reply was lost: it may have arrived.
        uncertain: bool,
        /// A delay DSN is owed, or was before.
        warned: bool,
        /// The lane it waits in from now on.
        lane: LaneName,
    },
    /// Permanent failure or expiry: a dead letter.
    Failed {
        /// Why.
        reason: String,
    },
}

/// The settlement of one held recipient.
#[derive(Clone, Debug, PartialEq)]
pub struct Settlement {
    /// Which.
    pub key: RecipientKey,
    /// What became of it.
    pub verdict: Verdict,
}

/// A lane in the store that has something queued.
#[derive(Clone, Debug, PartialEq)]
pub struct LaneDue {
    /// Its name.
    pub lane: LaneName,
    /// The earliest due time of its queued recipients.
    pub due: Timestamp,
}

/// A message whose sender is owed a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owing {
    /// Which.
    pub id: QueueId,
    /// When one of its debts has to be reported.
    pub due: Timestamp,
}

/// What the sender of one message is owed.
#[derive(Clone, Debug, PartialEq)]
pub struct Debt {
    /// The message; chunk 0 of its body is what [`Spool::chunk`] has.
    pub message: Message,
    /// At least one, in order of the envelope.
    pub items: Vec<Owed>,
}

/// Which recipients an operator means; every given condition must hold. Patterns are globs.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    /// Queue id, as printed.
    pub id: Option<String>,
    /// Glob over the reverse-path; `<>` for the null one.
    pub sender: Option<String>,
    /// Glob over the recipient address.
    pub recipient: Option<String>,
    /// The user who had logged in, exactly (the case of ASCII letters does not matter).
    pub user: Option<String>,
    /// The recipient's domain, exactly (case does not matter).
    pub domain: Option<String>,
    /// Name of a provider (with all its sources) or of a lane, exactly.
    pub provider: Option<String>,
    /// State, as printed.
    pub state: Option<String>,
    /// Received at or before this time (ms since 1970).
    pub received_before: Option<i64>,
    /// Glob over the last reason.
    pub reason: Option<String>,
    /// Globs over the last reason, of which one is enough; empty: any reason.
    pub reasons: Vec<String>,
}

/// A recipient as an operator sees it: one line of `queue list --json`.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Row {
    /// Queue id.
    pub id: String,
    /// Position in the envelope.
    pub index: u32,
    /// Reverse-path; empty for `<>`.
    pub sender: String,
    /// As whom the client had logged in; empty without a login.
    #[serde(default)]
    pub user: String,
    /// Forward-path.
    pub recipient: String,
    /// It gets a copy, by a `[[copy]]`: no client named it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub copy: bool,
    /// A provider's name, or `@domain`.
    pub provider: String,
    /// The lane it waits in: the provider, with the source address where limits hold for each.
    #[serde(default)]
    pub lane: String,
    /// See [`State`].
    pub state: String,
    /// Delivery priority.
    pub priority: i8,
    /// Attempts so far.
    pub attempts: u32,
    /// When it is due, RFC 3339; for a dead letter: when it failed.
    pub due: String,
    /// Bytes of the message.
    pub size: u64,
    /// When it was accepted, RFC 3339.
    pub received: String,
    /// The time before which it does not leave, RFC 3339, also when that is over; empty without one.
    #[serde(default)]
    pub release: String,
    /// Its MAIL said REQUIRETLS: it leaves by TLS alone, to hosts that keep it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub requiretls: bool,
    /// Last reply or error; empty before the first attempt.
    pub reason: String,
    /// What it waits for now, if it is due and a running relay knows; else empty.
    #[serde(default)]
    pub waits: String,
    /// When the sender is told of it at the latest, RFC 3339, if a report is owed; else empty.
    #[serde(default)]
    pub report_due: String,
}

impl Row {
    /// Whether its time is still to come.
    pub fn waits_for_its_time(&self, now: Timestamp) -> bool {
        // As text they have the order of time; what failed or was delivered waits for nothing.
        self.release > now.to_string() && [State::Queued, State::Held].iter().any(|state| state.as_str() == self.state)
    }
}

/// A page of rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// In order of (id, index).
    pub rows: Vec<(RecipientKey, State, Row)>,
    /// Where the next page starts (exclusive); `None`: this was the last.
    pub next: Option<RecipientKey>,
}

/// What an operator does to recipients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// Due now; a dead letter is queued again. What waits for its time ([`Operation::HoldUntil`]) is left alone.
    Retry,
    /// Put aside.
    Hold,
    /// No longer put aside, due now, or when its time has come.
    Release,
    /// Remove, without a DSN.
    Cancel,
    /// Not before this time, due then; one that is over: now. Its age counts from there.
    #[serde(rename = "hold_until")]
    HoldUntil(Timestamp),
}

impl Operation {
    /// What it is in the table of states.
    pub fn event(self) -> Event {
        match self {
            Operation::Retry => Event::Retry,
            Operation::Hold => Event::Hold,
            Operation::Release => Event::Release,
            Operation::Cancel => Event::Cancel,
            Operation::HoldUntil(_) => Event::Postpone,
        }
    }
}

/// What a step of [`Desk::retry_all`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retried {
    /// Recipients there were.
    pub seen: u64,
    /// Recipients that are due now, whether they were so before or not.
    pub changed: u64,
    /// Recipients that somebody holds.
    pub leased: u64,
    /// Recipients that wait for their time.
    pub scheduled: u64,
    /// Where the next step starts (exclusive); `None`: this was the last.
    pub next: Option<RecipientKey>,
}

/// Recipients by state, and messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Counts {
    /// Messages stored.
    pub messages: u64,
    /// Recipients queued (waiting, whether due or not).
    pub queued: u64,
    /// Recipients held by a scheduler.
    pub leased: u64,
    /// Recipients put aside.
    pub held: u64,
    /// Dead letters.
    pub failed: u64,
    /// Recipients that may have arrived.
    pub uncertain: u64,
    /// Recipients that a report is owed on, whatever their state, or gone.
    #[serde(default)]
    pub owed: u64,
}

/// A change of a named value that somebody else may change, too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swap {
    /// Its name.
    pub name: String,
    /// What it is now, as far as the caller knows; `None`: there is none of that name.
    pub expected: Option<Bytes>,
    /// What it is to be; `None`: it goes.
    pub value: Option<Bytes>,
}

/// What a store takes of its disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Storage {
    /// Bytes of its file.
    pub file: u64,
    /// Bytes of that which hold nothing.
    pub free: u64,
    /// Bytes of the log beside it.
    pub log: u64,
    /// What is wrong with its files; empty if nothing is.
    pub trouble: String,
}

/// Why a copy was not made.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct SaveError {
    /// For people.
    pub message: String,
    /// It may work later.
    pub temporary: bool,
}
