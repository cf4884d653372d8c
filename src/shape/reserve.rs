//! The quotas of one gate with their place in the store: loading, and reserving ahead.
//!
//! Nothing that is limited is taken before it was loaded, and no block is used before its record is
//! durable. All quotas of a gate, and the day of its warm-up, are taken together or not at all, from one
//! record of what left (`quota/LANE/GATE/departures`). The record says nothing of the quotas: one whose
//! number, length or unit is changed, or that is taken away and comes back, counts what really left. That
//! is why gates that the configuration names ([`Standing::Named`]) count also while they have no quota; what
//! they count then is stored once a minute and at the end, as nothing depends on it but a quota to come.
//! One whose `limits_per` changed goes on too (`related`), and what left under other names for the same
//! receivers counts beside it (`succession`).
//!
//! As every record counts at least what was used, a gate may be forgotten at any time when nobody
//! holds cells of it, and loaded again when it is needed: memory does not grow with what was sent. What
//! was reserved and not used would count as used then, so `release` gives it up first.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::cost::Cost;
use super::ledger::{Ledger, Now, PREFIX};
use super::quota::{Account, At, Cap, Refusal, Taken};
use super::record::{self, Record};
use super::related;
use super::usage::Usage;
use crate::clock::Mark;
use crate::config::{Count, CountedRate, Warmup};
use crate::mail::LaneName;

/// How long to wait when the store fails.
const TROUBLE: Duration = Duration::from_secs(1);
const DAY_MS: i64 = 86_400_000;

/// Who stands behind a gate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// The configuration: there are few of them, and what left there is remembered for a month, so that
    /// quotas that do not exist yet can be counted.
    Named,
    /// Whoever sends, or is sent to: remembered as long as its quotas need it.
    Passing,
}

/// Cells of all quotas of a gate.
#[derive(Debug)]
pub struct Charge(Taken);

fn json(record: &impl serde::Serialize) -> Bytes {
    // Numbers and lists of numbers always print.
    Bytes::from(serde_json::to_vec(record).unwrap_or_default())
}

/// Entries with names that begin so, and without that.
fn without(prefix: &str, entries: Vec<(String, Bytes)>) -> Vec<(String, Bytes)> {
    let short = |(name, value): (String, Bytes)| Some((name.strip_prefix(prefix)?.to_owned(), value));
    entries.into_iter().filter_map(short).collect()
}

/// The quotas of one gate.
pub struct Quotas {
    ledger: Arc<Ledger>,
    /// Of the gate, within its lane.
    name: String,
    lane: LaneName,
    prefix: String,
    /// Where the records are of what was one with it, or several, before `limits_per` changed.
    related: Option<String>,
    rates: Vec<CountedRate>,
    caps: Vec<Cap>,
    plan: Option<(Warmup, Count)>,
    keep: i64,
    loaded: AtomicBool,
    /// Before it was loaded: what left since then, where nothing is limited.
    state: Mutex<State>,
    /// Held by the one who writes records of this gate.
    writing: tokio::sync::Mutex<()>,
}

/// The account, whose own time is the steady one plus `offset`.
#[derive(Debug)]
struct State {
    account: Account,
    offset: i64,
}

impl State {
    fn at(&self, now: Now) -> At {
        At { time: now.steady.saturating_add(self.offset), clock: now.clock }
    }
}

impl Quotas {
    /// The quotas `rates` and `warmup` of the gate `name` of a lane; `None` without any, unless the
    /// configuration names the gate.
    pub fn new(
        ledger: &Arc<Ledger>,
        (lane, name, standing): (&str, &str, Standing),
        rates: &[CountedRate],
        count: Count,
        warmup: Option<&Warmup>,
    ) -> Option<Quotas> {
        // Of several quotas with one window and unit the smallest decides.
        let mut smallest: Vec<CountedRate> = Vec::new();
        for rate in rates {
            let same = |other: &&mut CountedRate| other.per == rate.per && other.count(count) == rate.count(count);
            match smallest.iter_mut().find(same) {
                Some(other) if other.rate.count > rate.rate.count => *other = *rate,
                Some(_) => {}
                None => smallest.push(*rate),
            }
        }
        if smallest.is_empty() && warmup.is_none() && standing == Standing::Passing {
            return None;
        }
        let keep = match (standing, warmup) {
            (Standing::Named, _) => 31 * DAY_MS,
            (Standing::Passing, Some(_)) => DAY_MS,
            (Standing::Passing, None) => 0,
        };
        let cap = |rate: &CountedRate| Cap { rate: rate.rate, of: rate.count(count).unwrap_or(count) };
        let caps: Vec<Cap> = smallest.iter().map(cap).collect();
        let plan = warmup.map(|plan| (plan.clone(), count));
        let now = ledger.now();
        let at = At { time: now.wall.0, clock: now.clock };
        let account = Account::new(caps.clone(), plan.clone(), keep, at);
        Some(Quotas {
            ledger: ledger.clone(),
            name: name.to_owned(),
            lane: LaneName::from(lane),
            prefix: format!("{PREFIX}{lane}/{name}/"),
            related: (name == "provider").then(|| format!("{PREFIX}{}", related::prefix(&LaneName::from(lane)))),
            rates: smallest,
            caps,
            plan,
            keep,
            loaded: AtomicBool::new(false),
            state: Mutex::new(State { account, offset: now.wall.0.saturating_sub(now.steady) }),
            writing: tokio::sync::Mutex::default(),
        })
    }

    /// Whether nothing is limited here: it only counts.
    pub(super) fn only_counts(&self) -> bool {
        self.caps.is_empty() && self.plan.is_none()
    }

    /// Whether what was used before is known, or need not be.
    pub fn is_loaded(&self) -> bool {
        self.only_counts() || self.loaded.load(Ordering::Acquire)
    }

    /// Reads what was used before. Tries until the store answers.
    pub async fn load(&self) {
        while let Err(error) = self.try_load().await {
            tracing::warn!(%error, "could not read the quotas; trying again");
            tokio::time::sleep(TROUBLE).await;
        }
    }

    /// Reads what was used before, also where nothing is limited.
    ///
    /// # Errors
    /// The store's, as text.
    pub(super) async fn try_load(&self) -> Result<(), String> {
        let _alone = self.writing.lock().await;
        if self.loaded.load(Ordering::Acquire) {
            return Ok(());
        }
        let found = self.ledger.memos.recall(&self.prefix).await?;
        let others = match &self.related {
            Some(prefix) => self.ledger.memos.recall(prefix).await?,
            None => Vec::new(),
        };
        let mut inherited = Vec::new();
        for other in self.ledger.others_of(&self.lane) {
            let found = self.records_of(&other.lane).await?;
            inherited.extend(found.into_iter().map(|entries| (other.clone(), entries)));
        }
        let now = self.ledger.now();
        let mark = self.ledger.mark(now);
        let own = record::read(&without(&self.prefix, found), now.wall, &mark);
        let others = related::others(without(PREFIX, others), now.wall, &mark);
        let mut state = self.state.lock();
        let (mut account, time) = self.account_from(own.as_ref(), now, &mark);
        related::add(&mut account, &others, own.as_ref(), time, &mark);
        for (other, entries) in &inherited {
            if let Some(record) = record::read(entries, now.wall, &mark) {
                account.inherit(&record, other, At { time, clock: now.clock }, &mark);
            }
        }
        let offset = time.saturating_sub(now.steady);
        account.take_over(&state.account, offset.saturating_sub(state.offset));
        *state = State { account, offset };
        self.loaded.store(true, Ordering::Release);
        Ok(())
    }

    /// What is stored of the gate of the same name in another lane: of the same source, if that lane has sources
    /// and this one is of one, else of all of them. Names without the gate's own.
    async fn records_of(&self, lane: &str) -> Result<Vec<Vec<(String, Bytes)>>, String> {
        let together = format!("{PREFIX}{lane}/{}/", self.name);
        let mut all = vec![without(&together, self.ledger.memos.recall(&together).await?)];
        match self.lane.source() {
            Some(source) => {
                let apart = format!("{PREFIX}{lane}@{source}/{}/", self.name);
                all.push(without(&apart, self.ledger.memos.recall(&apart).await?));
            }
            None => {
                let mut sources: BTreeMap<String, Vec<(String, Bytes)>> = BTreeMap::new();
                let apart = format!("{PREFIX}{lane}@");
                for (key, value) in without(&apart, self.ledger.memos.recall(&apart).await?) {
                    let Some((source, rest)) = key.split_once('/') else { continue };
                    let Some(rest) = rest.strip_prefix(&self.name).and_then(|rest| rest.strip_prefix('/')) else {
                        continue;
                    };
                    sources.entry(source.to_owned()).or_default().push((rest.to_owned(), value));
                }
                all.extend(sources.into_values());
            }
        }
        Ok(all)
    }

    fn account_from(&self, own: Option<&Record>, now: Now, mark: &Mark) -> (Account, i64) {
        let (caps, plan) = (self.caps.clone(), self.plan.clone());
        match own {
            Some(record) => Account::restore(caps, plan, self.keep, record, mark, now.clock),
            None => {
                let at = At { time: now.wall.0, clock: now.clock };
                (Account::new(caps, plan, self.keep, at), at.time)
            }
        }
    }

    /// Asks the account, now.
    fn ask<T>(&self, what: impl FnOnce(&mut Account, At) -> T) -> T {
        let now = self.ledger.now();
        let mut state = self.state.lock();
        let at = state.at(now);
        what(&mut state.account, at)
    }

    /// Takes `cost` of every quota, or of none.
    ///
    /// # Errors
    /// What has to happen first: [`Refusal::Reserve`] is for [`Quotas::reserve`].
    pub fn try_take(&self, cost: impl Into<Cost>) -> Result<Charge, Refusal> {
        if !self.is_loaded() {
            return Err(Refusal::Reserve);
        }
        self.ask(|account, at| account.try_take(cost.into(), at)).map(Charge)
    }

    /// The cells were not used.
    pub fn give_back(&self, charge: Charge) {
        self.ask(|account, at| account.give_back(charge.0, at));
    }

    /// The transaction is over: its cells count from now on for a whole window.
    pub fn left(&self, charge: Charge) {
        self.ask(|account, at| account.left(charge.0, at));
    }

    /// Makes a block durable from which `cost` can be taken, where one is needed and there is
    /// room. Comes back also when the store failed, after a while: ask again.
    pub async fn reserve(&self, cost: impl Into<Cost>) {
        let cost = cost.into();
        self.load().await;
        let _alone = self.writing.lock().await;
        let _no_sweep = self.ledger.sweeping.read().await;
        let now = self.ledger.now();
        let mark = self.ledger.mark(now);
        let Some(reservation) = self.ask(|account, at| account.reserve(cost, at, mark)) else { return };
        match self.ledger.memos.remember(self.entries(&reservation.record)).await {
            Ok(()) => self.ask(|account, at| account.confirm(&reservation, at)),
            Err(error) => {
                tracing::warn!(%error, "could not reserve a part of a quota; trying again");
                tokio::time::sleep(TROUBLE).await;
            }
        }
    }

    fn entries(&self, record: &Record) -> Vec<(String, Option<Bytes>)> {
        vec![(format!("{}{}", self.prefix, record::NAME), Some(json(record)))]
    }

    /// Whether the stored records count nothing that was not used: then nothing is lost when the gate
    /// is forgotten.
    pub fn is_exact(&self) -> bool {
        self.state.lock().account.is_exact()
    }

    /// Begins to give up what is reserved and not used; `None` if there is no such thing, or if
    /// somebody writes records of this gate now. Nothing is reserved while the value lives.
    pub(super) fn release(&self, mark: &Mark) -> Option<Released<'_>> {
        let alone = self.writing.try_lock().ok()?;
        if self.is_exact() || !self.loaded.load(Ordering::Acquire) {
            return None;
        }
        let record = self.ask(|account, at| account.release(at, mark.clone()));
        Some(Released { quotas: self, record, _alone: alone })
    }

    /// How long until `cost` could be taken. Zero before it was loaded.
    pub fn wait_for(&self, cost: Cost) -> Duration {
        if !self.loaded.load(Ordering::Acquire) {
            return Duration::ZERO;
        }
        self.ask(|account, at| account.wait_for(cost, at))
    }

    /// The quota that makes `cost` wait longest, and how long.
    pub fn held_by(&self, cost: Cost) -> Option<(String, Duration)> {
        if !self.loaded.load(Ordering::Acquire) {
            return None;
        }
        self.ask(|account, at| {
            let text = |rate: &CountedRate| format!("quota {rate}");
            let caps = self.rates.iter().enumerate().map(|(cap, rate)| (account.cap_wait(cap, cost, at), text(rate)));
            let longest = caps.filter(|(wait, _)| !wait.is_zero()).max();
            let day = Some((account.plan_wait(cost, at), account.plan_text())).filter(|(wait, _)| !wait.is_zero());
            longest.into_iter().chain(day).max().map(|(wait, text)| (text, wait))
        })
    }

    /// What is used of each; empty before it was loaded.
    pub fn usage(&self) -> Vec<Usage> {
        if !self.loaded.load(Ordering::Acquire) {
            return Vec::new();
        }
        self.ask(|account, at| {
            let of_cap = |(cap, rate): (usize, &CountedRate)| {
                let (used, most, back) = account.usage(cap, at)?;
                Some(Usage { quota: rate.to_string(), day: None, begins: None, used, most, back })
            };
            let mut all: Vec<Usage> = self.rates.iter().enumerate().filter_map(of_cap).collect();
            let begins = account.begins(at);
            all.extend(account.day_usage(at).map(|(day, used, most, back)| Usage {
                quota: String::new(),
                day: Some(day),
                begins,
                used,
                most,
                back,
            }));
            all
        })
    }

    /// The tightest of the quotas in the configuration, as it is written there.
    pub fn tightest(&self) -> Option<String> {
        let per_second = |rate: &&CountedRate| f64::from(rate.rate.count) / rate.per.as_secs_f64().max(1e-3);
        let tightest = self.rates.iter().min_by(|a, b| per_second(a).total_cmp(&per_second(b)))?;
        Some(format!("quota {tightest}"))
    }

    /// Whether nothing more may leave today by a warm-up plan. False before it was loaded.
    pub fn day_is_used_up(&self) -> bool {
        self.loaded.load(Ordering::Acquire) && self.ask(Account::day_is_used_up)
    }

    /// The most recipients that could be taken in `wait`, if nobody takes any meanwhile; `u32::MAX`:
    /// nothing counts them, or nobody knows yet.
    pub fn room_for_recipients(&self, wait: Duration) -> u32 {
        match self.loaded.load(Ordering::Acquire) {
            true => self.ask(|account, at| account.room_for_recipients(wait, at)),
            false => u32::MAX,
        }
    }
}

/// What a gate gives up, to be made durable and then confirmed.
#[must_use = "nothing is gained before it is durable and confirmed"]
pub(super) struct Released<'a> {
    quotas: &'a Quotas,
    record: Record,
    _alone: tokio::sync::MutexGuard<'a, ()>,
}

impl Released<'_> {
    /// What has to be durable.
    pub(super) fn entries(&self) -> Vec<(String, Option<Bytes>)> {
        self.quotas.entries(&self.record)
    }

    /// It is.
    pub(super) fn confirm(self) {
        self.quotas.state.lock().account.released();
    }
}

impl std::fmt::Debug for Quotas {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Quotas").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! A store in memory that can be killed with its process.
    use std::collections::BTreeMap;

    use async_trait::async_trait;

    use super::*;
    use crate::clock::Clock;
    use crate::shape::Memos;

    /// What is durable. Clones share it.
    #[derive(Clone, Default)]
    pub(crate) struct Store {
        pub(crate) entries: Arc<Mutex<BTreeMap<String, Bytes>>>,
        /// How long a write takes.
        pub(crate) slow: Duration,
        /// Writes so far.
        pub(crate) writes: Arc<std::sync::atomic::AtomicUsize>,
        /// Fails every write.
        pub(crate) broken: Arc<AtomicBool>,
    }

    #[async_trait]
    impl Memos for Store {
        async fn remember(&self, entries: Vec<(String, Option<Bytes>)>) -> Result<(), String> {
            if !self.slow.is_zero() {
                tokio::time::sleep(self.slow).await;
            }
            if self.broken.load(Ordering::Relaxed) {
                return Err("the disk is full".into());
            }
            self.writes.fetch_add(1, Ordering::Relaxed);
            let mut stored = self.entries.lock();
            for (name, value) in entries {
                match value {
                    Some(value) => stored.insert(name, value),
                    None => stored.remove(&name),
                };
            }
            Ok(())
        }

        async fn recall(&self, prefix: &str) -> Result<Vec<(String, Bytes)>, String> {
            let found = self.entries.lock();
            Ok(found.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(n, v)| (n.clone(), v.clone())).collect())
        }
    }

    /// A ledger with a store of its own.
    pub(crate) fn ledger() -> Arc<Ledger> {
        Ledger::new(Arc::new(Store::default()), Clock::for_tests())
    }
}
