//! `[[limit]]` with `over`: how much may come in, and what becomes of more. Others hold mail back on its way out
//! (`shape`); these are for accounts that are misused, and ask before a message is taken.
//!
//! Invariants:
//! - What is counted was accepted: a message is counted before it is stored, and given back if it is not. So however
//!   many sessions send at once, no more than the limit is taken.
//! - A window is never shorter than the limit says: it is up to a sixteenth longer.
//! - A lock is a decision that only a person ends. It is in the store before the message that caused it is answered.
//! - Bounded: [`MOST`] windows; of more users or domains at once the one that was asked for longest ago starts anew.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::clock::Timestamp;
use crate::config::{Count, CountedRate, Limit, Over};
use crate::mail::{Address, Spellings};
use crate::queue::{Memory, QueueError};

/// Windows that are counted at once.
const MOST: usize = 10_000;
/// Parts of a window that are told from each other.
const PARTS: u32 = 16;
/// The first part of the names under which locks are stored.
const PREFIX: &str = "locked/";

/// Who sends, as far as these limits ask.
#[derive(Clone, Copy)]
pub(super) struct Sending<'a> {
    /// The user that has logged in; empty: nobody.
    pub user: &'a str,
    pub client: IpAddr,
    pub sender: Option<&'a Address>,
}

/// A user who may not send until somebody ends that.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Lock {
    /// The name, as the configuration spelled it.
    pub user: String,
    /// Since when, RFC 3339.
    pub since: String,
    /// The limit that was reached, in words.
    pub why: String,
}

/// A limit that was reached.
#[derive(Clone, Debug)]
pub(super) struct Reached {
    pub limit: Arc<Limit>,
    /// Which of its numbers, in words.
    pub what: String,
    /// The message alone is more than that: waiting does not help.
    pub never: bool,
}

/// What was counted of a message, to give back if it is not stored.
#[derive(Default)]
pub(super) struct Counted {
    windows: Vec<(Key, u32)>,
    /// It is to be held, because of this limit.
    pub held: Option<Reached>,
}

/// The limits of all listeners of a relay; see the module.
#[derive(Default)]
pub struct Arrivals {
    limits: Vec<Arc<Limit>>,
    windows: Mutex<HashMap<Key, Window>>,
    /// By the name in lower case.
    locks: Mutex<HashMap<String, Lock>>,
}

/// A number of a limit, for one user or domain where each has its own.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Key {
    limit: String,
    number: String,
    whose: String,
}

/// What came in the last while: counts of equal parts of time, the newest last.
struct Window {
    part: Duration,
    /// The start of the newest part.
    newest: Instant,
    counts: [u64; PARTS as usize + 1],
}

impl Window {
    fn new(per: Duration, now: Instant) -> Window {
        Window { part: (per / PARTS).max(Duration::from_millis(1)), newest: now, counts: [0; PARTS as usize + 1] }
    }

    fn turn(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.newest).as_nanos() / self.part.as_nanos().max(1);
        let all = self.counts.len();
        let parts = usize::try_from(passed).unwrap_or(usize::MAX).min(all);
        self.counts.rotate_left(parts);
        self.counts.iter_mut().skip(all - parts).for_each(|count| *count = 0);
        match u32::try_from(passed) {
            Ok(passed) => self.newest += self.part * passed,
            Err(_) => self.newest = now,
        }
    }

    fn count(&mut self, now: Instant) -> u64 {
        self.turn(now);
        self.counts.iter().sum()
    }

    fn add(&mut self, n: u64) {
        if let Some(newest) = self.counts.last_mut() {
            *newest += n;
        }
    }

    fn give_back(&mut self, n: u64) {
        if let Some(counted) = self.counts.iter_mut().rev().find(|count| **count >= n) {
            *counted -= n;
        }
    }
}

impl Arrivals {
    /// Those of `limits` that are about what comes in.
    pub fn new(limits: &[Arc<Limit>]) -> Arrivals {
        let limits = limits.iter().filter(|limit| limit.over != Over::Wait).cloned().collect();
        Arrivals { limits, ..Arrivals::default() }
    }

    /// Takes over what was counted and who is locked, as after a reload.
    pub fn go_on_from(&self, before: &Arrivals) {
        *self.windows.lock() = std::mem::take(&mut *before.windows.lock());
        *self.locks.lock() = before.locks.lock().clone();
    }

    /// Takes up the locks of earlier processes.
    ///
    /// # Errors
    /// The queue cannot be read.
    pub async fn recall(&self, queue: &dyn Memory) -> Result<(), QueueError> {
        for (name, value) in queue.recall(PREFIX).await? {
            match serde_json::from_slice::<Lock>(&value) {
                Ok(lock) => _ = self.locks.lock().insert(lock.user.to_ascii_lowercase(), lock),
                // Better locked without a reason than open.
                Err(_) => {
                    let user = name.strip_prefix(PREFIX).unwrap_or_default().to_owned();
                    let lock = Lock { user: user.clone(), since: String::new(), why: String::new() };
                    self.locks.lock().insert(user, lock);
                }
            }
        }
        Ok(())
    }

    /// All who are locked, by name.
    pub fn locks(&self) -> Vec<Lock> {
        let mut all: Vec<Lock> = self.locks.lock().values().cloned().collect();
        all.sort_by(|a, b| a.user.cmp(&b.user));
        all
    }

    /// Whether this user may not send; nobody is no user.
    pub fn is_locked(&self, user: &str) -> bool {
        let locks = self.locks.lock();
        !locks.is_empty() && locks.contains_key(&user.to_ascii_lowercase())
    }

    /// Locks a user, in the store too.
    ///
    /// # Errors
    /// The queue could not store it: it is locked, but only until the process ends.
    pub(super) async fn lock(
        &self,
        user: &str,
        why: &str,
        now: Timestamp,
        queue: &dyn Memory,
    ) -> Result<(), QueueError> {
        let key = user.to_ascii_lowercase();
        let lock = Lock { user: user.to_owned(), since: now.to_string(), why: why.to_owned() };
        let stored = serde_json::to_vec(&lock).unwrap_or_default();
        self.locks.lock().insert(key.clone(), lock);
        queue.remember(vec![(format!("{PREFIX}{key}"), Some(Bytes::from(stored)))]).await
    }

    /// Lets a user send again, whose messages are counted anew; false: it was not locked.
    ///
    /// # Errors
    /// The queue could not store it: it may send until the process ends.
    pub async fn unlock(&self, user: &str, queue: &dyn Memory) -> Result<bool, QueueError> {
        let key = user.to_ascii_lowercase();
        let was = self.locks.lock().remove(&key).is_some();
        if was {
            let own = |limit: &Limit| limit.user.as_ref().is_some_and(|name| name.eq_ignore_ascii_case(user));
            let locks = |limit: &&Arc<Limit>| limit.over == Over::Lock && (limit.each_user || own(limit));
            let names: Vec<(String, bool)> =
                self.limits.iter().filter(locks).map(|limit| (limit.conditions(), own(limit))).collect();
            let is_of = |of: &Key| names.iter().any(|(name, own)| *name == of.limit && (*own || of.whose == key));
            self.windows.lock().retain(|of, _| !is_of(of));
            queue.remember(vec![(format!("{PREFIX}{key}"), None)]).await?;
        }
        Ok(was)
    }

    /// Counts a message to so many recipients, or tells which limit it is over; then nothing of it is counted.
    pub(super) fn take(&self, from: Sending<'_>, recipients: usize) -> Result<Counted, Reached> {
        let mut counted = Counted::default();
        if self.limits.is_empty() {
            return Ok(counted);
        }
        let (now, mut windows) = (Instant::now(), self.windows.lock());
        let recipients = u32::try_from(recipients).unwrap_or(u32::MAX);
        for (limit, whose) in self.about(from) {
            for number in limit.rate.iter().chain(&limit.quota) {
                let n = units(number, limit, recipients);
                let key = key(limit, number, &whose);
                make_room(&mut windows, &key);
                let window = windows.entry(key.clone()).or_insert_with(|| Window::new(number.rate.per, now));
                if window.count(now) + u64::from(n) > u64::from(number.rate.count) {
                    let never = n > number.rate.count;
                    let reached = Reached { limit: limit.clone(), what: number.to_string(), never };
                    if limit.over == Over::Hold {
                        counted.held.get_or_insert(reached);
                        continue;
                    }
                    give_back(&mut windows, &counted);
                    return Err(reached);
                }
                window.add(u64::from(n));
                counted.windows.push((key, n));
            }
        }
        Ok(counted)
    }

    /// The limit that refuses the next message, if it can be told before that comes.
    pub(super) fn is_over(&self, from: Sending<'_>) -> Option<Reached> {
        if self.limits.is_empty() {
            return None;
        }
        let (now, mut windows) = (Instant::now(), self.windows.lock());
        self.about(from).filter(|(limit, _)| limit.over == Over::Reject).find_map(|(limit, whose)| {
            let mut numbers = limit.rate.iter().chain(&limit.quota);
            let over = numbers.find(|number| {
                let window = windows.get_mut(&key(limit, number, &whose));
                window.is_some_and(|window| window.count(now) >= u64::from(number.rate.count))
            })?;
            Some(Reached { limit: limit.clone(), what: over.to_string(), never: false })
        })
    }

    /// What was counted was not stored.
    pub(super) fn give_back(&self, counted: &Counted) {
        give_back(&mut self.windows.lock(), counted);
    }

    /// The limits that are about this, and whose number is counted.
    fn about<'a>(&'a self, from: Sending<'a>) -> impl Iterator<Item = (&'a Arc<Limit>, String)> {
        self.limits.iter().filter(move |limit| is_about(limit, from)).map(move |limit| {
            let domain = || from.sender.map_or_else(|| "<>".to_owned(), |sender| sender.domain().to_lowercase());
            let whose = match (limit.each_user, limit.each_domain) {
                (true, _) => from.user.to_ascii_lowercase(),
                (false, true) => domain(),
                (false, false) => String::new(),
            };
            (limit, whose)
        })
    }
}

fn is_about(limit: &Limit, from: Sending<'_>) -> bool {
    limit.sender.matches_mailbox(&Spellings::of(from.sender))
        && (limit.client.is_empty() || limit.client.iter().any(|network| network.contains(from.client)))
        && limit.user.as_ref().is_none_or(|name| name.eq_ignore_ascii_case(from.user))
        && !(limit.each_user && from.user.is_empty())
        && !(limit.each_domain && from.sender.is_none() && limit.sender.as_str() != "<>")
}

/// How much a message counts for this number.
fn units(number: &CountedRate, limit: &Limit, recipients: u32) -> u32 {
    match number.count(limit.count) {
        Some(Count::Recipients) => recipients,
        _ => 1,
    }
}

fn key(limit: &Limit, number: &CountedRate, whose: &str) -> Key {
    Key { limit: limit.conditions(), number: number.to_string(), whose: whose.to_owned() }
}

fn give_back(windows: &mut HashMap<Key, Window>, counted: &Counted) {
    for (key, n) in &counted.windows {
        if let Some(window) = windows.get_mut(key) {
            window.give_back(u64::from(*n));
        }
    }
}

/// Forgets the window that got nothing for longest, if there is no room for another.
fn make_room(windows: &mut HashMap<Key, Window>, key: &Key) {
    if windows.len() < MOST || windows.contains_key(key) {
        return;
    }
    if let Some(oldest) = windows.iter().min_by_key(|(_, window)| window.newest).map(|(key, _)| key.clone()) {
        windows.remove(&oldest);
    }
}

#[cfg(test)]
#[path = "arrivals_tests.rs"]
mod tests;
