//! Sliding-window quotas, `N per W`, and the day of a warm-up, of one gate: never more than `N` cells
//! in *any* window of length `W`, nor more than the day's number on any UTC day, across restarts and
//! whatever the numbers, lengths and units were before. Pure: `now` is an argument, what has to be
//! durable is a value.
//!
//! **What left** is counted in both units by [`Departures`], whatever is configured; a quota is a
//! question to it. What is on its way to the server counts as used until the server has answered.
//!
//! **Durability** is write-ahead. Cells are only taken from a [`Block`] that a record ([`Record`]) in
//! the store has announced as used, in both units. After `kill -9` the block, and what was on its way,
//! counts from the start of the next process, or from [`GRACE`] after the time in which the block could
//! be used if that is earlier. What a dead process had reserved and not used counts as used: at most one
//! block of `N / 200`, at least 1. Who stops using a quota in good order writes a record without the
//! block first ([`Account::release`]), and then nothing is lost.
//!
//! **Time** never runs backwards here: an earlier `now` counts as the latest one seen. Across a restart
//! the time that has passed is measured as [`Mark::since`] does: exactly while the machine was not
//! restarted either, else by the wall clock; never less than nothing.
//!
//! Invariants: what counts, the block and what is on its way are together at most `N` after every
//! reservation; a cell that is given back returns to the block only if the latest record still counts it.

use std::time::Duration;

use super::cost::Cost;
use super::departures::{self, Departures, slack};
use super::inherited::Inherited;
use super::record::Record;
use super::succession::Other;
use super::warmup::{BLOCKS, Day};
use crate::clock::{Mark, Timestamp};
use crate::config::units::Rate;
use crate::config::{Count, Warmup};

/// A block may be used for at least this long (ms), so that a slow store cannot stop a short quota.
const BLOCK_MIN_MS: i64 = 1000;
/// No transaction takes longer than this, in ms: the replies' time limits of RFC 5321 section 4.5.3.2.
pub(super) const GRACE: i64 = 600_000;
/// What waits for more cells than there will ever be is looked at again after this.
const NEVER: Duration = Duration::from_secs(60);

/// Why no cells were taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// A block must be reserved first.
    Reserve,
    /// So long until they would be there.
    Wait(Duration),
}

/// One instant: of the account's own clock, which never runs backwards, in ms, and of the wall clock.
#[derive(Clone, Copy, Debug)]
pub struct At {
    /// The account's own time.
    pub time: i64,
    /// Whose day it is.
    pub clock: Timestamp,
}

/// One quota.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cap {
    /// Its number, and the length of its window.
    pub rate: Rate,
    /// What it counts.
    pub of: Count,
}

impl Cap {
    fn most(&self) -> u32 {
        self.rate.count.max(1)
    }

    fn window(&self) -> i64 {
        i64::try_from(self.rate.per.as_millis()).unwrap_or(i64::MAX / 4).clamp(1, i64::MAX / 4)
    }
}

/// Cells that were taken, for giving them back, or for noting when they left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Taken {
    cost: Cost,
    record: u64,
    day: i64,
}

/// Cells that may be used without asking the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Block {
    left: Cost,
    /// It may be used until then.
    until: i64,
}

/// A reservation under way: to be made durable, then confirmed.
#[must_use = "a reservation is of use only when it is durable and confirmed"]
#[derive(Debug)]
pub struct Reservation {
    /// What has to be durable first.
    pub record: Record,
    size: Cost,
    until: i64,
    day: i64,
}

/// The quotas of one gate, and the plan of its warm-up.
#[derive(Clone, Debug)]
pub struct Account {
    caps: Vec<Cap>,
    plan: Option<(Warmup, Count)>,
    departures: Departures,
    day: Day,
    /// What left under other names and counts, too.
    others: Inherited,
    /// On its way: taken, and not answered yet.
    out: Cost,
    block: Block,
    /// The latest time seen.
    latest: i64,
    /// Records made so far.
    records: u64,
    /// Counts what the stored record may not say.
    changes: u64,
    /// That number when the last record was begun that says exactly what left, and when.
    exact: u64,
    /// The same of the last one that is durable.
    stored: u64,
}

impl Account {
    /// Of which nothing is used. `keep`: how long what left is remembered at least, in ms.
    pub fn new(caps: Vec<Cap>, plan: Option<(Warmup, Count)>, keep: i64, at: At) -> Account {
        let departures = Departures::new(caps.iter().map(Cap::window).collect(), keep);
        let day = Day::new(at.clock);
        let (out, block, others) = Default::default();
        Account {
            caps,
            plan,
            departures,
            day,
            others,
            out,
            block,
            latest: at.time,
            records: 0,
            changes: 0,
            exact: 0,
            stored: 0,
        }
    }

    /// As an earlier process left it, whatever was configured then, and its own time now: it goes on
    /// from there.
    pub fn restore(
        caps: Vec<Cap>,
        plan: Option<(Warmup, Count)>,
        keep: i64,
        record: &Record,
        mark: &Mark,
        clock: Timestamp,
    ) -> (Account, i64) {
        let now = record.time.saturating_add(record.age(mark));
        let mut account = Account::new(caps, plan, record.keep.max(keep), At { time: now, clock });
        account.put_in(record, now, i64::MAX, mark);
        account.day = Day::restore(record.day.0, record.day_used(), clock);
        (account, now)
    }

    /// Counts what another gate's record says, too, that left within the last `since` ms.
    pub fn also(&mut self, record: &Record, since: i64, now: i64, mark: &Mark) -> Cost {
        self.changes += 1;
        self.put_in(record, now, since, mark)
    }

    /// Counts what left under another name as well, beside its own and never as its own.
    pub(super) fn inherit(&mut self, record: &Record, other: &Other, at: At, mark: &Mark) {
        self.others.add(record, other, at.time, mark, at.clock);
    }

    /// Counts what was counted before this one was read from the store.
    pub fn take_over(&mut self, earlier: &Account, shift: i64) {
        for bucket in earlier.departures.buckets() {
            self.departures.insert(bucket.moved(shift, self.latest));
            self.day.add(bucket.cost);
        }
        self.out = self.out.and(earlier.out);
        self.day.add(earlier.out);
        self.departures.compact(self.latest);
        self.changes += earlier.changes;
    }

    fn put_in(&mut self, record: &Record, now: i64, since: i64, mark: &Mark) -> Cost {
        let mut all = Cost::default();
        let shift = now.saturating_sub(record.time.saturating_add(record.age(mark)));
        for bucket in record.buckets() {
            let bucket = bucket.moved(shift, now);
            if now.saturating_sub(bucket.to) < since {
                all = all.and(bucket.cost);
                self.departures.insert(bucket);
            }
        }
        self.departures.compact(now);
        all
    }

    /// The same numbers for the day, see [`Day::join`].
    pub fn join_day(&mut self, day: i64, used: Cost) {
        self.day.join(day, used);
    }

    /// The day that counts, and what was used on it.
    pub fn today(&self) -> (i64, Cost) {
        (self.day.number(), self.day.used())
    }

    /// Moves on to `at`; the time that counts.
    fn advance(&mut self, at: At) -> i64 {
        self.latest = self.latest.max(at.time);
        // A record counts a block on the day on which it was written.
        if self.day.advance(at.clock) || self.latest > self.block.until {
            self.block.left = Cost::default();
        }
        self.latest
    }

    /// What the plan of a warm-up allows today, and what that counts.
    fn allowance(&self) -> Option<(u32, Count)> {
        let (plan, of) = self.plan.as_ref()?;
        plan.allowance(self.day.midnight()).map(|most| (most, *of))
    }

    /// Cells used in the window of a cap, those on their way included.
    fn used(&self, cap: &Cap) -> u64 {
        self.left_in(cap, self.latest) + u64::from(self.out.count(cap.of))
    }

    /// What left and counts at `now` in the window of a cap.
    fn left_in(&self, cap: &Cap, now: i64) -> u64 {
        let (of, window) = (cap.of, cap.window());
        self.departures.used(of, window, now) + departures::used(self.others.buckets(), of, window, now)
    }

    /// What was used of the day.
    fn used_today(&self, of: Count) -> u32 {
        self.day.used().count(of).saturating_add(self.others.on_day(self.day.number(), of))
    }

    fn room_of(&self, cap: &Cap) -> u32 {
        u32::try_from(u64::from(cap.most()).saturating_sub(self.used(cap))).unwrap_or(u32::MAX)
    }

    /// Cells that the plan leaves today.
    fn day_room(&self, most: u32, of: Count) -> u32 {
        most.saturating_sub(self.used_today(of))
    }

    fn wait_of(&self, cap: &Cap, cells: u32) -> Duration {
        // More than a whole quota never comes at once: a full one is all there is to wait for.
        let wanted = u64::from(cells.min(cap.most())) + self.used(cap);
        let Some(missing) = wanted.checked_sub(u64::from(cap.most())).filter(|missing| *missing > 0) else {
            return Duration::ZERO;
        };
        let (window, now) = (cap.window(), self.latest);
        let free = self.departures.free(self.others.buckets(), missing, cap.of, window, now);
        // What is on its way counts until it has left the window, too.
        let free = free.unwrap_or_else(|| now.saturating_add(window).saturating_add(slack(window)));
        Duration::from_millis(u64::try_from(free.saturating_sub(now).max(1)).unwrap_or(u64::MAX))
    }

    fn day_wait(&self, cells: u32, clock: Timestamp) -> Duration {
        let Some((most, of)) = self.allowance() else { return Duration::ZERO };
        if cells <= self.day_room(most, of) {
            return Duration::ZERO;
        }
        let start = self.plan.as_ref().map_or(Timestamp(0), |(plan, _)| plan.start);
        // On the days before the start nothing comes.
        let next = if most == 0 { self.day.tomorrow().max(start) } else { self.day.tomorrow() };
        next.since(clock).max(Duration::from_millis(1))
    }

    /// How long until `cost` could be taken, if nobody takes any meanwhile.
    pub fn wait_for(&mut self, cost: Cost, at: At) -> Duration {
        self.advance(at);
        let windows = self.caps.iter().map(|cap| self.wait_of(cap, cost.count(cap.of))).max().unwrap_or_default();
        windows.max(self.plan_wait(cost, at))
    }

    /// How long until a cap (its place in the list) lets `cost` pass.
    pub fn cap_wait(&mut self, cap: usize, cost: Cost, at: At) -> Duration {
        self.advance(at);
        self.caps.get(cap).map_or(Duration::ZERO, |cap| self.wait_of(cap, cost.count(cap.of)))
    }

    /// How long until the plan lets `cost` pass.
    pub fn plan_wait(&self, cost: Cost, at: At) -> Duration {
        self.allowance().map_or(Duration::ZERO, |(_, of)| self.day_wait(cost.count(of), at.clock))
    }

    /// Whether anything limits it now: then every cell is announced in the store before it is used.
    fn is_metered(&self) -> bool {
        !self.caps.is_empty() || self.allowance().is_some()
    }

    /// Whether `cost` could be taken now; takes nothing.
    ///
    /// # Errors
    /// What has to happen first.
    pub fn check(&mut self, cost: Cost, at: At) -> Result<(), Refusal> {
        self.advance(at);
        let Cost { messages, recipients } = self.block.left;
        if !self.is_metered() || cost.messages <= messages && cost.recipients <= recipients {
            return Ok(());
        }
        let never = self.caps.iter().any(|cap| cost.count(cap.of) > cap.most());
        match self.wait_for(cost, at) {
            Duration::ZERO if never => Err(Refusal::Wait(NEVER)),
            Duration::ZERO => Err(Refusal::Reserve),
            wait => Err(Refusal::Wait(wait)),
        }
    }

    /// Takes `cost` from the block: it is on its way from now on.
    ///
    /// # Errors
    /// What has to happen first. Nothing was taken.
    pub fn try_take(&mut self, cost: Cost, at: At) -> Result<Taken, Refusal> {
        self.check(cost, at)?;
        // Where nothing is limited there is no block.
        self.block.left = self.block.left.without(cost);
        self.out = self.out.and(cost);
        self.day.add(cost);
        self.changes += 1;
        Ok(Taken { cost, record: self.records, day: self.day.number() })
    }

    /// The cells were not used. Never again more than once for one taking.
    pub fn give_back(&mut self, taken: Taken, at: At) {
        let now = self.advance(at);
        self.out = self.out.without(taken.cost);
        if taken.day == self.day.number() {
            self.day.take_away(taken.cost);
        }
        // A later record counts them as on their way: then they must be announced anew.
        if self.is_metered()
            && taken.record == self.records
            && now <= self.block.until
            && taken.day == self.day.number()
        {
            self.block.left = self.block.left.and(taken.cost);
        }
    }

    /// The server has answered, or never will: they left, at the latest now.
    pub fn left(&mut self, taken: Taken, at: At) {
        let now = self.advance(at);
        self.out = self.out.without(taken.cost);
        self.departures.add(taken.cost, now);
        // Whichever of the two days the receiver counts it on.
        if taken.day != self.day.number() {
            self.day.add(taken.cost);
        }
        self.changes += 1;
    }

    /// Begins to reserve a block from which `cost` can be taken: `None` if there is one, or if so much
    /// is not free. At most one reservation is under way.
    pub fn reserve(&mut self, cost: Cost, at: At, mark: Mark) -> Option<Reservation> {
        if self.check(cost, at) != Err(Refusal::Reserve) {
            return None;
        }
        let size = self.block_for(cost);
        let shortest = self.caps.iter().map(Cap::window).min().unwrap_or(i64::MAX);
        let until = self.latest.saturating_add((shortest / 60).clamp(BLOCK_MIN_MS, GRACE));
        let record = self.record(until, self.block.left.and(size), mark);
        self.changes += 1;
        Some(Reservation { record, size, until, day: self.day.number() })
    }

    /// How much more to reserve so that `cost` can be taken. A unit that nothing limits is reserved as the
    /// other one needs it.
    fn block_for(&self, cost: Cost) -> Cost {
        let size = |of: Count| -> Option<u32> {
            let caps = self.caps.iter().filter(|cap| cap.of == of).map(|cap| (cap.most(), self.room_of(cap)));
            let day = self.allowance().filter(|(_, unit)| *unit == of);
            let all = caps.chain(day.map(|(most, of)| (most, self.day_room(most, of))));
            let (wanted, free) = all
                .map(|(most, room)| ((most / BLOCKS).max(1), room))
                .reduce(|(wanted, free), (other, room)| (wanted.min(other), free.min(room)))?;
            let left = self.block.left.count(of);
            Some(wanted.max(cost.count(of).saturating_sub(left)).min(free.saturating_sub(left)))
        };
        let (messages, recipients) = (size(Count::Messages), size(Count::Recipients));
        let left = self.block.left;
        let of_messages = |messages: u32| {
            let all = messages.saturating_add(left.messages).saturating_mul(cost.recipients);
            all.saturating_sub(left.recipients)
        };
        let of_recipients = |recipients: u32| {
            let all = recipients.saturating_add(left.recipients).div_ceil(cost.recipients.max(1));
            all.max(cost.messages).saturating_sub(left.messages)
        };
        match (messages, recipients) {
            (Some(messages), Some(recipients)) => Cost { messages, recipients },
            (Some(messages), None) => Cost { messages, recipients: of_messages(messages) },
            (None, Some(recipients)) => Cost { messages: of_recipients(recipients), recipients },
            (None, None) => Cost::default(),
        }
    }

    /// The record is durable: the block may be used, unless it took too long.
    pub fn confirm(&mut self, reservation: &Reservation, at: At) {
        let now = self.advance(at);
        if now <= reservation.until && self.day.number() == reservation.day {
            self.block = Block { left: self.block.left.and(reservation.size), until: reservation.until };
        }
    }

    /// What left, and `reserved` beside what is on its way until then.
    fn record(&mut self, until: i64, reserved: Cost, mark: Mark) -> Record {
        self.records += 1;
        self.departures.compact(self.latest);
        Record::new(
            self.latest,
            mark,
            &self.departures,
            (until, reserved.and(self.out)),
            (self.day.number(), self.day.used().and(reserved)),
        )
    }

    /// Whether the stored record says exactly what left, and when: then a later life has as much room
    /// as this one.
    pub fn is_exact(&self) -> bool {
        self.changes == self.stored && self.out == Cost::default()
    }

    /// Gives up the block; returns the record without it. From here on nothing is taken before another
    /// record is durable, so that it does not matter whether this one becomes it.
    #[must_use = "nothing is gained before it is durable and confirmed"]
    pub fn release(&mut self, at: At, mark: Mark) -> Record {
        let now = self.advance(at);
        self.block.left = Cost::default();
        self.exact = self.changes;
        self.record(now, Cost::default(), mark)
    }

    /// The record of [`Account::release`] is durable, and none was made since.
    pub fn released(&mut self) {
        self.stored = self.exact;
    }
}

#[path = "quota_shown.rs"]
mod shown;

#[cfg(test)]
#[path = "quota_tests.rs"]
mod tests;
