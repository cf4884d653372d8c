//! The durable queue: what the rest of the relay may ask of it, and what it promises.
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

pub mod sqlite;
pub mod turns;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::clock::Timestamp;
use crate::mail::lifecycle::Event;
use crate::mail::{LaneName, Message, NewMessage, Owed, QueueId, Recipient, RecipientKey, State};
use turns::{Look, Turn};

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
    /// [`Queue::chunk`] has it.
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
    /// The message; chunk 0 of its body is what [`Queue::chunk`] has.
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

/// What a step of [`Queue::retry_all`] did.
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

/// Recipients that [`Queue::waiting`] looks at in one step, where a store has no better way.
const COUNTED_AT_ONCE: usize = 1000;

/// A durable queue. All methods may be called concurrently.
#[async_trait]
pub trait Queue: Send + Sync + 'static {
    /// A fresh queue id.
    fn next_id(&self, now: Timestamp) -> QueueId;

    /// Stores chunk `index` (from 1) of the body of a message that is still coming in. Not durable
    /// until `accept`; what was never accepted is dropped by `unspill` or at the next start.
    async fn spill(&self, id: QueueId, index: u32, chunk: Bytes) -> Result<(), QueueError>;

    /// Drops the chunks of a message that will not be accepted.
    async fn unspill(&self, id: QueueId);

    /// Stores a message. Durable (fsync) before `Ok`. With a time before which it does not leave
    /// ([`crate::mail::Envelope::release`]) what is not leased is due then.
    async fn accept(&self, message: NewMessage) -> Result<(), QueueError>;

    /// Takes up to `limit` due recipients of a lane: highest priority first, senders taking turns
    /// within a priority, then by due time. Of every eight, one is for lower priorities than the
    /// one that would use up all, so that a stream of urgent mail starves nobody. First chunks
    /// that are short may come along, of all together at most `limit` times [`HEADS_EACH`] bytes.
    async fn claim(&self, lane: &LaneName, now: Timestamp, limit: usize) -> Result<Vec<Leased>, QueueError>;

    /// Takes up to `limit` recipients of a lane, due or not, whose message was received at
    /// `received` or before, the oldest first: what may expire while nothing leaves. Queue ids tell
    /// the age, so that after the clock was set back a message may be found a little later. The age of what waited for
    /// its time counts from there ([`Message::age_from`]).
    async fn claim_older(&self, lane: &LaneName, received: Timestamp, limit: usize) -> Result<Vec<Leased>, QueueError>;

    /// Ends leases and stores what their senders are owed a report on, in one transaction. A key
    /// that is no longer held (an operator cancelled it) is passed over, and so is its debt.
    async fn settle(&self, settlements: Vec<Settlement>, owed: Vec<Owed>) -> Result<(), QueueError>;

    /// Messages that owe a report, in order of due time, after `after`, at most `limit` entries. A
    /// message is there once for each due time that it has.
    async fn owing(&self, after: Option<Owing>, limit: usize) -> Result<Vec<Owing>, QueueError>;

    /// What one message owes, at most `limit` items; `None` if it owes nothing.
    async fn owed(&self, id: QueueId, limit: usize) -> Result<Option<Debt>, QueueError>;

    /// Whether a recipient of a message of which nothing is owed yet may have its fate before `until`:
    /// it is held by a scheduler, or queued and due by then.
    async fn is_under_way(&self, id: QueueId, until: Timestamp) -> Result<bool, QueueError>;

    /// Ends debts and stores the message (DSN) that reports on them, in one transaction; without a
    /// message they are written off. A debt is named by its recipient and due time.
    /// [`QueueError::Invalid`] if one of them is not owed (any more).
    async fn report(&self, told: Vec<(RecipientKey, Timestamp)>, report: Option<NewMessage>) -> Result<(), QueueError>;

    /// One chunk of a body, or `None` if the message is not there.
    async fn chunk(&self, id: QueueId, index: u32) -> Result<Option<Bytes>, QueueError>;

    /// Lanes with queued recipients, in order of name, after `after`, at most `limit`.
    async fn lanes(&self, after: Option<LaneName>, limit: usize) -> Result<Vec<LaneDue>, QueueError>;

    /// The earliest due time in a lane, if it has anything queued.
    async fn lane_due(&self, lane: &LaneName) -> Result<Option<Timestamp>, QueueError>;

    /// Recipients that wait in a lane, due or not (not those that are held), whose priority is at least
    /// `priority`, without those that wait for a time of their own later than `released`; counted up to `most`.
    async fn waiting(
        &self,
        lane: &LaneName,
        priority: i8,
        released: Timestamp,
        most: usize,
    ) -> Result<usize, QueueError> {
        let filter = Filter { provider: Some(lane.to_string()), ..Filter::default() };
        let (mut after, mut waiting) = (None, 0);
        loop {
            let page = self.inspect(&filter, after, COUNTED_AT_ONCE).await?;
            let counts = |(_, state, row): &&(RecipientKey, State, Row)| {
                matches!(state, State::Queued | State::Uncertain)
                    && row.priority >= priority
                    && LaneName::from(row.lane.as_str()) == *lane
                    && !row.waits_for_its_time(released)
            };
            waiting += page.rows.iter().filter(counts).count();
            after = page.next;
            if after.is_none() || waiting >= most {
                return Ok(waiting.min(most));
            }
        }
    }

    /// What lanes of domains (`@domain`) have queued, turn by turn, in order of turn. Costs some seeks
    /// for each turn there is and a step for each recipient passed by, whatever else is queued; at
    /// most [`turns::STEPS`] of these in a turn, then there is `more`.
    async fn turns(&self, look: Look) -> Result<Vec<Turn>, QueueError>;

    /// Moves what is queued in lane `from` to lane `to`, at most `limit`; returns how many.
    async fn move_lane(&self, from: &LaneName, to: &LaneName, limit: usize) -> Result<usize, QueueError>;

    /// Recipients that match, in order of key, after `after`.
    async fn inspect(&self, filter: &Filter, after: Option<RecipientKey>, limit: usize) -> Result<Page, QueueError>;

    /// Does an operation to the recipients named, where the state table allows it; `withdrawn` are
    /// those that this process holds and has given up. A recipient that is held and not withdrawn
    /// is left alone; one that is withdrawn but not changed goes back to its lane. Returns how
    /// many were changed.
    async fn operate(
        &self,
        op: Operation,
        keys: &[RecipientKey],
        withdrawn: &[RecipientKey],
        now: Timestamp,
    ) -> Result<usize, QueueError>;

    /// [`Operation::Retry`] of every recipient of the store that came before `now`, in steps of about
    /// `limit`, in order of key after `after`. Those that are held (leased) are left alone and counted; those that wait
    /// for their time are left alone.
    async fn retry_all(
        &self,
        after: Option<RecipientKey>,
        now: Timestamp,
        limit: usize,
    ) -> Result<Retried, QueueError> {
        let filter = Filter { received_before: Some(now.0), ..Filter::default() };
        let page = self.inspect(&filter, after, limit).await?;
        let keys: Vec<RecipientKey> = page.rows.iter().map(|(key, ..)| *key).collect();
        let changed = self.operate(Operation::Retry, &keys, &[], now).await?;
        let leased = page.rows.iter().filter(|(_, state, _)| *state == State::Leased).count();
        let scheduled = page.rows.iter().filter(|(.., row)| row.waits_for_its_time(now)).count() as u64;
        let (seen, changed, leased) = (page.rows.len() as u64, changed as u64, leased as u64);
        Ok(Retried { seen, changed, leased, scheduled, next: page.next })
    }

    /// Recipients by state.
    async fn counts(&self) -> Result<Counts, QueueError>;

    /// Deletes up to `limit` dead letters that failed before `now − keep`; returns how many. The
    /// body goes with a message's last recipient.
    async fn forget(&self, now: Timestamp, keep: Duration, limit: usize) -> Result<usize, QueueError>;

    /// Stores small named values (quota reservations, feedback state); `None` removes one. Durable
    /// (fsync) before `Ok`.
    async fn remember(&self, entries: Vec<(String, Option<Bytes>)>) -> Result<(), QueueError>;

    /// The stored values whose name starts with `prefix`, in order of name.
    async fn recall(&self, prefix: &str) -> Result<Vec<(String, Bytes)>, QueueError>;

    /// Whether a message could be stored now: writes what does not matter, as durably.
    async fn probe(&self) -> Result<(), QueueError> {
        self.counts().await.map(drop)
    }

    /// Whether the store, once closed, could be opened again as it is: its files stand under their names
    /// and may be used. A full disk is no obstacle.
    async fn may_reopen(&self) -> Result<(), QueueError> {
        Ok(())
    }

    /// Ends all leases of this process: what it held waits again, as after a restart. For whoever begins
    /// anew on the open queue, when nobody uses what was claimed before. Returns how many there were.
    async fn end_leases(&self) -> Result<usize, QueueError> {
        Err(QueueError::Invalid("leases of this queue end when it is closed".into()))
    }

    /// What the store takes of its disk; nothing, for one that is not on a disk.
    async fn storage(&self) -> Result<Storage, QueueError> {
        Ok(Storage::default())
    }

    /// Copies the queue, as this process has it open, to the new file `copy`, also where its files have
    /// lost their names. Returns the bytes of the copy, and what is in it.
    async fn save(&self, _copy: PathBuf) -> Result<(u64, Counts), SaveError> {
        Err(SaveError { message: "this queue cannot be copied".into(), temporary: false })
    }

    /// Commits what waits and closes the store. Further calls fail with `Closed`.
    async fn close(&self);

    /// Resolves when the store can do nothing any more though nobody closed it: the process should
    /// end, so that whoever supervises it starts another one. A store that heals by itself never
    /// does; nor does one that is merely unavailable. Says why.
    async fn failed(&self) -> QueueError {
        std::future::pending().await
    }
}
