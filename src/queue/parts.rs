//! The queue by who needs it: each part is a trait of a few methods, so that a user names what it uses and a fake has
//! no more. [`Queue`] is all of them, for whoever hands the queue on.
//!
//! Each part has its own part of the contract suite (`tests/contract`). All methods may be called concurrently.
//! The promises are in [the module above](super).

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::turns::{Look, Turn};
use super::{
    Counts, Debt, Filter, LaneDue, Leased, Operation, Owing, Page, QueueError, Retried, Row, SaveError, Settlement,
    Storage, Swap,
};
use crate::clock::Timestamp;
use crate::mail::{LaneName, NewMessage, Owed, QueueId, RecipientKey, State};

/// Recipients that [`Desk::waiting`] looks at in one step, where a store has no better way.
const COUNTED_AT_ONCE: usize = 1000;

/// Messages on their way in, and their bodies on the way out: what a listener needs.
#[async_trait]
pub trait Spool: Send + Sync + 'static {
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

    /// One chunk of a body, or `None` if the message is not there.
    async fn chunk(&self, id: QueueId, index: u32) -> Result<Option<Bytes>, QueueError>;

    /// Whether a message could be stored now: writes what does not matter, as durably.
    async fn probe(&self) -> Result<(), QueueError>;
}

/// Who holds a recipient, and what became of it: what a scheduler and its workers need.
#[async_trait]
pub trait Leases: Send + Sync + 'static {
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

    /// Ends all leases of this process: what it held waits again, as after a restart. For whoever begins
    /// anew on the open queue, when nobody uses what was claimed before. Returns how many there were.
    async fn end_leases(&self) -> Result<usize, QueueError> {
        Err(QueueError::Invalid("leases of this queue end when it is closed".into()))
    }
}

/// Where something waits, and since when: how a scheduler finds what it may claim.
#[async_trait]
pub trait Lanes: Send + Sync + 'static {
    /// Lanes with queued recipients, in order of name, after `after`, at most `limit`.
    async fn lanes(&self, after: Option<LaneName>, limit: usize) -> Result<Vec<LaneDue>, QueueError>;

    /// The earliest due time in a lane, if it has anything queued.
    async fn lane_due(&self, lane: &LaneName) -> Result<Option<Timestamp>, QueueError>;

    /// What lanes of domains (`@domain`) have queued, turn by turn, in order of turn. Costs some seeks
    /// for each turn there is and a step for each recipient passed by, whatever else is queued; at
    /// most [`turns::STEPS`] of these in a turn, then there is `more`.
    async fn turns(&self, look: Look) -> Result<Vec<Turn>, QueueError>;

    /// Moves what is queued in lane `from` to lane `to`, at most `limit`; returns how many.
    async fn move_lane(&self, from: &LaneName, to: &LaneName, limit: usize) -> Result<usize, QueueError>;
}

/// What senders are still to be told: what the writer of reports needs.
#[async_trait]
pub trait Debts: Send + Sync + 'static {
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
}

/// Looking and ordering: what operators need, at the command line or by a rule.
#[async_trait]
pub trait Desk: Send + Sync + 'static {
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
}

/// Small named values of other parts (quota reservations, what replies taught, pauses), as durable as mail.
#[async_trait]
pub trait Memory: Send + Sync + 'static {
    /// Stores small named values (quota reservations, feedback state), whatever they were: for those that only the
    /// caller changes. `None` removes one. Durable (fsync) before `Ok`.
    async fn remember(&self, entries: Vec<(String, Option<Bytes>)>) -> Result<(), QueueError>;

    /// Changes values that others may change, too: all of them if each is what the caller expects, else none. False:
    /// one was something else, so read again. Durable before `Ok(true)`. [`QueueError::Invalid`] for a name that is
    /// there twice.
    async fn swap(&self, changes: Vec<Swap>) -> Result<bool, QueueError>;

    /// The stored values whose name starts with `prefix`, in order of name.
    async fn recall(&self, prefix: &str) -> Result<Vec<(String, Bytes)>, QueueError>;
}

/// The store as a whole: its files, its copy, its end. What the process that has it open needs.
#[async_trait]
pub trait Upkeep: Send + Sync + 'static {
    /// Whether the store, once closed, could be opened again as it is: its files stand under their names
    /// and may be used. A full disk is no obstacle.
    async fn may_reopen(&self) -> Result<(), QueueError> {
        Ok(())
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

/// A durable queue: all of its parts.
pub trait Queue: Spool + Leases + Lanes + Debts + Desk + Memory + Upkeep {}

impl<T: Spool + Leases + Lanes + Debts + Desk + Memory + Upkeep> Queue for T {}
