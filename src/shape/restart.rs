//! Rates over the end of a process: no window that spans a restart gets more than `rate × t + burst`.
//!
//! The state of a rate is in memory; nothing is written while mail leaves. At an orderly end every
//! limiter is closed, then what its buckets lack is stored with the time, and then a marker
//! ([`Life::Stopped`]). The next process takes that up and sets the marker to [`Life::Running`]
//! before it sends anything. If it finds that marker, the one before it was killed, and nobody knows
//! what it sent: then **every bucket begins empty**. A bucket is never emptier than that, so whatever
//! was sent, it was allowed for; it takes no clock and costs one cell's time, once. Without any
//! marker the store is new and every bucket begins full.
//!
//! A lane begins no better than those whose departures count in it (`succession`) ended. What a lane lacked that
//! was not made in a process is passed on to the next one.
//!
//! Bounded: stored are the buckets of lanes in memory that were not full; they are read once, and
//! forgotten when the last of them would be full.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::ledger::Ledger;
use super::limiter::Limiter;
use crate::clock::Mark;
use crate::config::units::Rate;
use crate::config::{Count, CountedRate};
use crate::mail::LaneName;

/// The name of the marker, and the first part of the names of all else.
const PREFIX: &str = "rates/";
/// How long after it gave something up the bucket of a lane that goes on counts in the one that got it: two
/// starts one right after the other.
const LATELY: Duration = Duration::from_secs(60);
/// Records stored in one transaction.
const AT_ONCE: usize = 1000;

/// What a bucket lacks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Left {
    /// Its rate, with what it counts unless that is messages; one that changed is another one.
    rate: String,
    burst: u32,
    /// Milliseconds until it is full, rounded up.
    ms: u64,
}

impl Left {
    /// A bucket of a rate of these that will be full in `missing`.
    pub fn new(rate: Rate, of: Count, burst: u32, missing: Duration) -> Left {
        let ms = u64::try_from(missing.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        Left { rate: title(rate, of), burst, ms }
    }

    /// Nothing is missing.
    pub fn is_full(&self) -> bool {
        self.ms == 0
    }

    /// With one more for the times of both ends, which are whole milliseconds.
    fn missing(&self) -> Duration {
        Duration::from_millis(self.ms.saturating_add(1))
    }
}

/// What a bucket is found again by.
fn title(rate: Rate, of: Count) -> String {
    match of {
        Count::Messages => rate.to_string(),
        Count::Recipients => format!("{rate} recipients"),
    }
}

/// The marker.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Life {
    /// A process is at work, or was killed.
    Running,
    /// It ended in good order, then.
    Stopped(Mark),
    /// The same, and what began after a kill may still lack what it lacked at the later one of those starts.
    StoppedAfterKill { stopped: Mark, emptied: Mark },
}

/// How the process before this one ended.
#[derive(Debug, Default)]
enum Before {
    /// There was none, or it left everything full.
    #[default]
    Full,
    /// Nobody knows what it sent.
    Killed,
    /// What each limiter lacked, and how long before the start that was.
    Stopped {
        lacked: Lacked,
        ago: Duration,
        longest: Duration,
        /// When and how long before the start all limiters were empty: those of which nothing is known have
        /// been made by nobody since then.
        emptied: Option<(Mark, Duration)>,
    },
}

/// What limiters lacked at the end, by name: `LANE/WHAT`.
#[derive(Debug, Default)]
struct Lacked {
    limiters: HashMap<String, Vec<Left>>,
    /// Those of several sources, by their names without the sources.
    apart: HashSet<String>,
}

impl Lacked {
    /// What the limiter of that name lacked. Where `limits_per` changed since then, a source goes on
    /// where all together were, and all together where nobody knows: begin empty.
    fn of(&self, name: &str) -> Option<&[Left]> {
        let found = self.limiters.get(name).or_else(|| self.limiters.get(&together(name)?));
        found.map(Vec::as_slice).or_else(|| self.apart.contains(name).then_some(&[]))
    }
}

/// The name of a limiter of one source as it is without one.
fn together(name: &str) -> Option<String> {
    let (lane, what) = name.split_once('/')?;
    let base = LaneName::base_of(lane);
    (base != lane).then(|| format!("{base}/{what}"))
}

/// What an earlier process left, as limiters need it.
#[derive(Debug, Default)]
pub(super) struct Earlier {
    before: Before,
    /// When this process took it up; before that no limiter was made.
    began: Option<Instant>,
    /// The same, for a later process.
    mark: Option<Mark>,
    closed: bool,
}

impl Earlier {
    /// What limiters lacked before this process, and would lack still: those that were not made in it go on in
    /// the next one.
    fn passed_on(&self) -> Vec<(String, Vec<Left>)> {
        let Before::Stopped { lacked, ago, .. } = &self.before else { return Vec::new() };
        let passed = ago.saturating_add(self.began.map(|began| began.elapsed()).unwrap_or_default());
        let still = |left: &Left| Left {
            ms: left.ms.saturating_sub(u64::try_from(passed.as_millis()).unwrap_or(u64::MAX)),
            ..left.clone()
        };
        let each = |(name, lefts): (&String, &Vec<Left>)| {
            let lefts: Vec<Left> = lefts.iter().map(still).collect();
            (!lefts.iter().all(Left::is_full)).then(|| (name.clone(), lefts))
        };
        lacked.limiters.iter().filter_map(each).collect()
    }

    /// When all limiters that were not made since then were empty.
    fn emptied(&self) -> Option<Mark> {
        match &self.before {
            Before::Full => None,
            Before::Killed => self.mark.clone(),
            Before::Stopped { emptied, .. } => emptied.as_ref().map(|(mark, _)| mark.clone()),
        }
    }
}

impl Ledger {
    /// Learns how the process before ended, and notes that this one is at work: to be called before
    /// the first gate is made. `new`: the store has nothing in it, so that without a marker there
    /// was no process before.
    ///
    /// # Errors
    /// The store's, as text; then nothing may be sent.
    pub async fn begin(&self, new: bool) -> Result<(), String> {
        let found = self.memos.recall(PREFIX).await?;
        let now = self.mark(self.now());
        let marker =
            found.iter().find(|(name, _)| name == PREFIX).map(|(_, json)| serde_json::from_slice::<Life>(json));
        let before = match marker {
            None if new => Before::Full,
            Some(Ok(Life::Stopped(stopped))) => stopped_before(&found, &now, &stopped, None),
            Some(Ok(Life::StoppedAfterKill { stopped, emptied })) => {
                stopped_before(&found, &now, &stopped, Some(emptied))
            }
            None | Some(Ok(Life::Running) | Err(_)) => Before::Killed,
        };
        if matches!(before, Before::Killed) {
            tracing::info!("the process before did not end in good order: every rate begins without its burst");
        }
        // One transaction: what was taken up counts only once.
        let old = found.iter().filter(|(name, _)| name != PREFIX).map(|(name, _)| (name.clone(), None));
        let entries = old.chain([(PREFIX.to_owned(), Some(json(&Life::Running)))]).collect();
        self.memos.remember(entries).await?;
        // Later than `ago` was measured, so that no time counts twice.
        *self.rates.lock() = Earlier { before, began: Some(Instant::now()), mark: Some(now), closed: false };
        Ok(())
    }

    /// A limiter of connections that goes on where the one of that name ended in the process before.
    pub fn limiter(&self, name: &str, rates: &[Rate], burst: u32) -> Arc<Limiter> {
        self.go_on(name, Limiter::new(rates, burst))
    }

    /// The same, of transactions: see [`Limiter::counting`].
    pub fn limiter_counting(&self, name: &str, rates: &[CountedRate], count: Count, burst: u32) -> Arc<Limiter> {
        self.go_on(name, Limiter::counting(rates, count, burst))
    }

    fn go_on(&self, name: &str, limiter: Limiter) -> Arc<Limiter> {
        let limiter = Arc::new(limiter);
        let names = self.names_of_rates(name);
        let mut earlier = self.rates.lock();
        let since = earlier.began.map(|began| began.elapsed()).unwrap_or_default();
        match &earlier.before {
            Before::Full => {}
            Before::Killed => limiter.go_on(|_, _, _| None, since),
            Before::Stopped { ago, longest, emptied: None, .. } if ago.saturating_add(since) >= *longest => {
                earlier.before = Before::Full;
            }
            Before::Stopped { lacked, ago, emptied, .. } => {
                // The fullest of them decides nothing: each call only adds to what is missing.
                for name in &names {
                    let Some(lefts) = lacked.of(name) else {
                        if let Some((_, ago)) = emptied {
                            limiter.go_on(|_, _, _| None, ago.saturating_add(since));
                        }
                        continue;
                    };
                    // A rate or burst that is new since then begins empty.
                    let missing = |rate: Rate, of: Count, burst: u32| {
                        let text = title(rate, of);
                        let same = lefts.iter().find(|left| left.rate == text && left.burst == burst);
                        same.map(Left::missing)
                    };
                    limiter.go_on(missing, ago.saturating_add(since));
                }
            }
        }
        if earlier.closed {
            limiter.close();
        }
        limiter
    }

    /// The names under which what counts for a limiter was stored: its own, and those of the lanes that are gone
    /// or gave something up to this one just now.
    fn names_of_rates(&self, name: &str) -> Vec<String> {
        let mut names = vec![name.to_owned()];
        let Some((lane, what)) = name.split_once('/') else { return names };
        let lane = LaneName::from(lane);
        let now = self.mark(self.now());
        for other in self.others_of(&lane) {
            let lately = other.until.as_ref().is_none_or(|until| now.since(until) < LATELY);
            if other.is_gone || lately {
                let source = lane.source().map(|source| format!("@{source}")).unwrap_or_default();
                names.push(format!("{}{source}/{what}", other.lane));
            }
        }
        names
    }

    /// From now on new limiters permit nothing; those there are have to be closed one by one.
    pub fn close(&self) {
        self.rates.lock().closed = true;
    }

    /// Stores what limiters lacked when they were closed, all of them after [`Ledger::close`], and
    /// that this process ended in good order.
    ///
    /// # Errors
    /// The store's, as text: the next process takes this one for killed.
    pub async fn end(&self, lacked: Vec<(String, Vec<Left>)>) -> Result<(), String> {
        // Taken after the limiters were closed: what they lack was measured at this time or before.
        let mark = self.mark(self.now());
        let mut entries = Vec::new();
        let passed_on = self.rates.lock().passed_on();
        // Of two with one name the one of this process is stored last.
        for (name, lefts) in passed_on.into_iter().chain(lacked).filter(|(_, lefts)| !lefts.is_empty()) {
            entries.push((format!("{PREFIX}{name}"), Some(json(&lefts))));
            if entries.len() >= AT_ONCE {
                self.memos.remember(std::mem::take(&mut entries)).await?;
            }
        }
        let life = match self.rates.lock().emptied() {
            Some(emptied) => Life::StoppedAfterKill { stopped: mark, emptied },
            None => Life::Stopped(mark),
        };
        entries.push((PREFIX.to_owned(), Some(json(&life))));
        self.memos.remember(entries).await
    }
}

/// What an orderly end left, if it can be read.
fn stopped_before(found: &[(String, Bytes)], now: &Mark, stopped: &Mark, emptied: Option<Mark>) -> Before {
    let Some(lacked) = read(found) else { return Before::Killed };
    let longest = lacked.limiters.values().flatten().map(Left::missing).max().unwrap_or_default();
    let emptied = emptied.map(|emptied| {
        let ago = now.since(&emptied);
        (emptied, ago)
    });
    Before::Stopped { lacked, ago: now.since(stopped), longest, emptied }
}

/// What limiters lacked; `None` if some of it cannot be read.
fn read(found: &[(String, Bytes)]) -> Option<Lacked> {
    let mut lacked = Lacked::default();
    for (name, json) in found {
        let name = name.strip_prefix(PREFIX).unwrap_or_default();
        if !name.is_empty() {
            lacked.limiters.insert(name.to_owned(), serde_json::from_slice(json).ok()?);
            lacked.apart.extend(together(name));
        }
    }
    Some(lacked)
}

fn json(value: &impl Serialize) -> Bytes {
    // Texts and numbers always print.
    Bytes::from(serde_json::to_vec(value).unwrap_or_default())
}

#[cfg(test)]
#[path = "restart_tests.rs"]
mod tests;
