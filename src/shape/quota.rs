//! A sliding-window quota, `N per W`: never more than `N` cells in *any* window of length `W`,
//! across restarts. Pure: `now` is an argument, what has to be durable is a value.
//!
//! **The window** is a ring of [`SLOTS`] sub-windows and the one that is running. A sub-window
//! counts until all of it has left the window, so the count is never too low; a cell comes back up
//! to `W / 60` later than it could, which costs at most one 61st of the quota. Memory is O(1).
//!
//! **Durability** is write-ahead. Cells are only taken from a [`Block`] that a record ([`Record`])
//! in the store has announced as used. The record counts what is left of a block at the *end* of
//! the time in which it may be used ([`Block::until`]), so that after `kill -9` every cell counts
//! at least until it would have counted alive. What a dead process had reserved and not used counts
//! as used: at most one block of `N / 200`, at least 1. Who stops using a quota in good order writes
//! a record without the block first ([`Window::release`]), and then nothing is lost.
//!
//! **Time** never runs backwards here: an earlier `now` counts as the latest one seen. Across a
//! restart the time that has passed is measured as [`Mark::since`] does: exactly while the machine
//! was not restarted either, else by the wall clock; never less than nothing.
//!
//! Invariants: `sum + block + lost ≤ N` after every reservation; a cell that is given back returns
//! to the block only if the latest record still counts it at the block's end.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Mark;
use crate::config::units::Rate;

/// Sub-windows of a window.
pub const SLOTS: i64 = 60;
/// A block may be used for at least this long (ms), so that a store slower than a sub-window of a
/// short quota cannot stop it.
const BLOCK_MIN_MS: i64 = 1000;
/// Blocks of a quota: few enough writes, and little lost by a `kill -9`.
const BLOCKS: u32 = 200;

/// Why no cells were taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// A block must be reserved first.
    Reserve,
    /// So long until they would be there.
    Wait(Duration),
}

/// Cells that were taken, for giving them back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Taken {
    slot: i64,
    record: u64,
}

/// Cells that may be used without asking the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Block {
    left: u32,
    /// The last sub-window in which it may be used.
    until: i64,
}

/// A quota as it is stored. Counts are per sub-window, named by its number since `time` 0.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Length of the window in ms.
    pub window: i64,
    /// Length of a sub-window in ms.
    pub slot: i64,
    /// The quota's own time at which this was written, in ms.
    pub time: i64,
    /// The time then, for a later process.
    #[serde(flatten)]
    pub mark: Mark,
    /// Cells used, by sub-window.
    pub used: Vec<(i64, u32)>,
    /// What may have been used until the end of a sub-window, and of which.
    pub reserved: (i64, u32),
}

impl Record {
    /// Whether nothing in it counts any more.
    pub fn is_over(&self, now: &Mark) -> bool {
        let now = self.time.saturating_add(elapsed(&self.mark, now));
        let latest = self.used.iter().map(|(slot, _)| *slot).chain([self.reserved.0]).max().unwrap_or(i64::MIN);
        now > latest.saturating_add(2).saturating_mul(self.slot).saturating_add(self.window)
    }
}

/// Milliseconds from `from` to `to`; never negative.
fn elapsed(from: &Mark, to: &Mark) -> i64 {
    i64::try_from(to.since(from).as_millis()).unwrap_or(i64::MAX)
}

/// A reservation under way: to be made durable, then confirmed.
#[must_use = "a reservation is of use only when it is durable and confirmed"]
#[derive(Debug)]
pub struct Reservation {
    /// What has to be durable first.
    pub record: Record,
    size: u32,
    until: i64,
}

/// One quota.
#[derive(Clone, Debug)]
pub struct Window {
    most: u32,
    window_ms: i64,
    slot_ms: i64,
    /// Cells used in the running sub-window (last) and those before it; at most `SLOTS + 1`.
    used: VecDeque<u32>,
    /// The number of the running sub-window.
    newest: i64,
    sum: u64,
    block: Block,
    /// What earlier processes may have used, all of it at the end of that sub-window.
    lost: (i64, u32),
    /// Records made so far.
    records: u64,
    /// Cells that the stored record may count and that were not used, at most.
    unused: u32,
}

impl Window {
    /// A quota of which nothing is used. `now` in ms of a clock that never stands.
    pub fn new(quota: Rate, now: i64) -> Window {
        let window_ms = i64::try_from(quota.per.as_millis()).unwrap_or(i64::MAX / 4).clamp(1, i64::MAX / 4);
        // Rounded up: sixty of them are never shorter than the window.
        let slot_ms = (window_ms + SLOTS - 1) / SLOTS;
        Window {
            most: quota.count.max(1),
            window_ms,
            slot_ms,
            used: VecDeque::from([0]),
            newest: now.div_euclid(slot_ms),
            sum: 0,
            block: Block::default(),
            lost: (i64::MIN, 0),
            records: 0,
            unused: 0,
        }
    }

    /// The quota as an earlier process left it, and its own time now: it goes on from there. A
    /// record of another count starts from what is known of the same window. A record of another
    /// window is converted: every count moves to the end of its old sub-window, so it is never
    /// freed too early; of a longer window only what the shorter one has seen is known.
    pub fn restore(quota: Rate, record: &Record, mark: &Mark) -> (Window, i64) {
        let now = record.time.saturating_add(elapsed(&record.mark, mark));
        let mut window = Window::new(quota, now);
        let slot_ms = record.slot.max(1);
        for (slot, count) in record.used.iter().chain([&record.reserved]).filter(|(_, count)| *count > 0) {
            let end = slot.saturating_add(1).saturating_mul(slot_ms).saturating_sub(1);
            window.count_earlier(end.div_euclid(window.slot_ms), *count);
        }
        window.settle_lost();
        (window, now)
    }

    /// Counts what another quota of the same window has used, too. `now` is this one's own time.
    pub fn also(&mut self, record: &Record, now: i64, mark: &Mark) {
        self.advance(now);
        let shift = now.saturating_sub(record.time.saturating_add(elapsed(&record.mark, mark)));
        let slot_ms = record.slot.max(1);
        for (slot, count) in record.used.iter().chain([&record.reserved]).filter(|(_, count)| *count > 0) {
            let end = slot.saturating_add(1).saturating_mul(slot_ms).saturating_sub(1).saturating_add(shift);
            self.count_earlier(end.div_euclid(self.slot_ms), *count);
        }
        self.settle_lost();
    }

    /// Counts what was used in an earlier life.
    fn count_earlier(&mut self, slot: i64, count: u32) {
        let age = self.newest.saturating_sub(slot);
        if age > SLOTS {
            return;
        }
        if age < 0 {
            self.lost = (self.lost.0.max(slot), self.lost.1.saturating_add(count));
            return;
        }
        let age = usize::try_from(age).unwrap_or(usize::MAX);
        while self.used.len() <= age {
            self.used.push_front(0);
        }
        let at = self.used.len() - 1 - age;
        if let Some(used) = self.used.get_mut(at) {
            *used = used.saturating_add(count);
            self.sum += u64::from(count);
        }
    }

    /// A record by which all of it was used just now: for one that cannot be read.
    pub fn used_up(&self, now: i64, mark: Mark) -> Record {
        let reserved = (self.newest, self.most);
        Record { window: self.window_ms, slot: self.slot_ms, time: now, mark, used: Vec::new(), reserved }
    }

    /// Moves on to `now`; what has left the window is free again.
    fn advance(&mut self, now: i64) {
        let slot = now.div_euclid(self.slot_ms);
        if slot <= self.newest {
            return;
        }
        if slot - self.newest > SLOTS {
            self.used.clear();
            self.used.push_back(0);
            self.sum = 0;
        } else {
            for _ in self.newest..slot {
                self.used.push_back(0);
            }
            while self.used.len() as i64 > SLOTS + 1 {
                self.sum -= u64::from(self.used.pop_front().unwrap_or(0));
            }
        }
        self.newest = slot;
        if slot > self.block.until {
            self.block.left = 0;
        }
        self.settle_lost();
    }

    /// What an earlier process may have used becomes an ordinary count when its time has come.
    fn settle_lost(&mut self) {
        let (slot, count) = self.lost;
        if count > 0 && slot <= self.newest {
            self.lost = (i64::MIN, 0);
            self.count_earlier(slot, count);
        }
    }

    /// Cells that are used or promised.
    fn committed(&self) -> u64 {
        self.sum + u64::from(self.block.left) + u64::from(self.lost.1)
    }

    /// Cells that could be taken now, durable reservations permitting.
    pub fn room(&mut self, now: i64) -> u32 {
        self.advance(now);
        let used = self.sum + u64::from(self.lost.1);
        u32::try_from(u64::from(self.most).saturating_sub(used)).unwrap_or(self.most)
    }

    /// Cells that could be taken at `then`, not before `now`, if nobody takes any meanwhile.
    pub fn room_at(&mut self, now: i64, then: i64) -> u32 {
        let room = self.room(now);
        let gone = then.div_euclid(self.slot_ms).saturating_sub(SLOTS + 1);
        let first = self.newest - (self.used.len() as i64 - 1);
        let freed = (first..).zip(&self.used).take_while(|(slot, _)| *slot <= gone).map(|(_, count)| *count);
        freed.fold(room, u32::saturating_add).min(self.most)
    }

    /// How long until `cells` could be taken, if nobody takes any meanwhile.
    pub fn wait_for(&mut self, cells: u32, now: i64) -> Duration {
        let room = self.room(now);
        if cells <= room {
            return Duration::ZERO;
        }
        let mut missing = u64::from(cells.min(self.most)).saturating_sub(u64::from(room));
        // The sub-window `newest − age` leaves when `newest` has become `newest − age + 61`.
        let mut slot = self.newest - (self.used.len() as i64 - 1);
        for count in &self.used {
            missing = missing.saturating_sub(u64::from(*count));
            if missing == 0 {
                break;
            }
            slot += 1;
        }
        if missing > 0 {
            slot = self.lost.0;
        }
        let free = slot.saturating_add(SLOTS + 1).saturating_mul(self.slot_ms);
        Duration::from_millis(u64::try_from(free.saturating_sub(now).max(1)).unwrap_or(u64::MAX))
    }

    /// Cells that are used and cells there are, and how long until the first of those used is free.
    pub fn usage(&mut self, now: i64) -> (u32, u32, Duration) {
        let used = self.most.saturating_sub(self.room(now));
        let back = if used == 0 { Duration::ZERO } else { self.wait_for((self.most - used).saturating_add(1), now) };
        (used, self.most, back)
    }

    /// Whether `cells` could be taken now; takes nothing.
    ///
    /// # Errors
    /// What has to happen first.
    pub fn check(&mut self, cells: u32, now: i64) -> Result<(), Refusal> {
        self.advance(now);
        if cells <= self.block.left {
            return Ok(());
        }
        match self.wait_for(cells, now) {
            Duration::ZERO => Err(Refusal::Reserve),
            wait => Err(Refusal::Wait(wait)),
        }
    }

    /// Takes `cells` from the block.
    ///
    /// # Errors
    /// What has to happen first. Nothing was taken.
    pub fn try_take(&mut self, cells: u32, now: i64) -> Result<Taken, Refusal> {
        self.check(cells, now)?;
        self.block.left -= cells;
        self.unused = self.unused.saturating_sub(cells);
        self.sum += u64::from(cells);
        if let Some(used) = self.used.back_mut() {
            *used = used.saturating_add(cells);
        }
        Ok(Taken { slot: self.newest, record: self.records })
    }

    /// The cells were not used. Never again more than once for one taking.
    pub fn give_back(&mut self, taken: Taken, cells: u32, now: i64) {
        self.advance(now);
        let Ok(age) = usize::try_from(self.newest - taken.slot) else { return };
        let Some(at) = self.used.len().checked_sub(age + 1) else { return };
        let Some(used) = self.used.get_mut(at) else { return };
        let cells = cells.min(*used);
        *used -= cells;
        self.sum -= u64::from(cells);
        self.unused = self.unused.saturating_add(cells);
        // A later record counts them where they were taken: then they must be announced anew.
        if taken.record == self.records && self.newest <= self.block.until {
            self.block.left += cells;
        }
    }

    /// Begins to reserve a block from which `cells` can be taken: `None` if there is one, or if so
    /// many are not free. At most one reservation is under way.
    pub fn reserve(&mut self, cells: u32, now: i64, mark: Mark) -> Option<Reservation> {
        if self.check(cells, now) != Err(Refusal::Reserve) {
            return None;
        }
        let free = u64::from(self.most).saturating_sub(self.committed());
        let wanted = (self.most / BLOCKS).max(1).max(cells.saturating_sub(self.block.left));
        let size = u32::try_from(u64::from(wanted).min(free)).unwrap_or(wanted);
        let until = self.newest + ((BLOCK_MIN_MS + self.slot_ms - 1) / self.slot_ms).max(1);
        let reserved = self.block.left.saturating_add(size);
        let record = self.record(until, reserved, now, mark);
        // Until it is confirmed, either of the two records may be the stored one.
        self.unused = self.unused.max(reserved);
        Some(Reservation { record, size, until })
    }

    /// What is used, what was lost, and `reserved` cells at the end of sub-window `until`.
    fn record(&mut self, until: i64, reserved: u32, now: i64, mark: Mark) -> Record {
        let first = self.newest - (self.used.len() as i64 - 1);
        let (lost_slot, lost) = self.lost;
        self.records += 1;
        Record {
            window: self.window_ms,
            slot: self.slot_ms,
            time: now.max(self.newest.saturating_mul(self.slot_ms)),
            mark,
            used: (first..).zip(self.used.iter().copied()).filter(|(_, count)| *count > 0).collect(),
            reserved: (until.max(lost_slot), reserved.saturating_add(lost)),
        }
    }

    /// Whether the stored record counts nothing that was not used: then a later life has as much
    /// room as this one.
    pub fn is_exact(&self) -> bool {
        self.unused == 0
    }

    /// Gives up the block; returns the record without it. From here on nothing is taken before
    /// another record is durable, so that it does not matter whether this one becomes it.
    #[must_use = "nothing is gained before it is durable and confirmed"]
    pub fn release(&mut self, now: i64, mark: Mark) -> Record {
        self.advance(now);
        self.block.left = 0;
        self.record(self.newest, 0, now, mark)
    }

    /// The record of [`Window::release`] is durable, and none was made since.
    pub fn released(&mut self) {
        self.unused = 0;
    }

    /// The record of the reservation is durable: the block may be used, unless it took too long.
    pub fn confirm(&mut self, reservation: &Reservation, now: i64) {
        self.advance(now);
        if self.newest <= reservation.until {
            self.block.left = self.block.left.saturating_add(reservation.size);
            self.block.until = reservation.until;
        }
    }
}

#[cfg(test)]
#[path = "quota_tests.rs"]
mod tests;
