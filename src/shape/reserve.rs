//! The quotas of one gate with their place in the store: loading, and reserving ahead.
//!
//! Nothing is taken before it was loaded, and no block is used before its record is durable. All
//! quotas of a gate are taken together or not at all, and reserved in one write. The store holds
//! one record for each length of window and unit (`quota/LANE/GATE/1h` counts messages, `…/1h recipients`
//! recipients): a quota whose number changed goes on with the same record; one with a new unit starts
//! from the record of the same length, one with a new length from the longest record there is. A
//! provider or limit that was renamed starts anew; one whose `limits_per` changed does not (`related`).
//!
//! As every record counts at least what was used, a gate may be forgotten at any time when nobody
//! holds cells of it, and loaded again when it is needed: memory does not grow with what was sent. What
//! was reserved and not used would count as used then, so `release` gives it up first.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::cost::Cost;
use super::ledger::{Ledger, Now, PREFIX};
use super::quota::{Record, Refusal, Reservation, Taken, Window};
use super::related;
use super::usage::Usage;
use super::warmup::{Day, DayRecord, DayReservation};
use crate::clock::Mark;
use crate::config::units::Span;
use crate::config::{Count, CountedRate, Warmup};
use crate::mail::LaneName;

/// How long to wait when the store fails.
const TROUBLE: Duration = Duration::from_secs(1);

/// One quota, or the plan of a warm-up.
#[derive(Debug)]
enum Meter {
    /// The quota's own time is the steady one plus `offset`.
    Window {
        key: String,
        text: String,
        of: Count,
        window: Window,
        offset: i64,
    },
    Day {
        key: String,
        of: Count,
        day: Day,
    },
}

/// Cells of one meter.
#[derive(Clone, Copy, Debug)]
enum Cells {
    Window(Taken),
    Day(i64),
}

/// Cells of all meters.
#[derive(Debug)]
pub struct Charge {
    cost: Cost,
    taken: Vec<Cells>,
}

/// What is to be confirmed once it is durable.
enum Promise {
    Window(Reservation),
    Day(DayReservation),
}

impl Meter {
    /// What it counts of transactions.
    fn cells(&self, cost: Cost) -> u32 {
        match self {
            Meter::Window { of, .. } | Meter::Day { of, .. } => cost.count(*of),
        }
    }

    fn check(&mut self, cost: Cost, now: Now) -> Result<(), Refusal> {
        let cells = self.cells(cost);
        match self {
            Meter::Window { window, offset, .. } => window.check(cells, now.steady.saturating_add(*offset)),
            Meter::Day { day, .. } => day.check(cells, now.clock),
        }
    }

    fn take(&mut self, cost: Cost, now: Now) -> Result<Cells, Refusal> {
        let cells = self.cells(cost);
        match self {
            Meter::Window { window, offset, .. } => {
                window.try_take(cells, now.steady.saturating_add(*offset)).map(Cells::Window)
            }
            Meter::Day { day, .. } => day.try_take(cells, now.clock).map(Cells::Day),
        }
    }

    fn give_back(&mut self, taken: Cells, cost: Cost, now: Now) {
        let cells = self.cells(cost);
        match (self, taken) {
            (Meter::Window { window, offset, .. }, Cells::Window(taken)) => {
                window.give_back(taken, cells, now.steady.saturating_add(*offset));
            }
            (Meter::Day { day, .. }, Cells::Day(of)) => day.give_back(of, cells),
            _ => {}
        }
    }

    fn wait_for(&mut self, cost: Cost, now: Now) -> Duration {
        let cells = self.cells(cost);
        match self {
            // More than a whole quota never comes at once: a full one is all there is to wait for.
            Meter::Window { window, offset, .. } => window.wait_for(cells, now.steady.saturating_add(*offset)),
            Meter::Day { day, .. } => day.wait_for(cells, now.clock),
        }
    }

    fn room(&mut self, now: Now) -> u32 {
        match self {
            Meter::Window { window, offset, .. } => window.room(now.steady.saturating_add(*offset)),
            Meter::Day { day, .. } => day.room(now.clock),
        }
    }

    fn room_in(&mut self, wait: Duration, now: Now) -> u32 {
        match self {
            Meter::Window { window, offset, .. } => {
                let now = now.steady.saturating_add(*offset);
                window.room_at(now, now.saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX)))
            }
            Meter::Day { day, .. } => day.room_at(now.clock, now.clock.after(wait)),
        }
    }

    fn usage(&mut self, now: Now) -> Option<Usage> {
        match self {
            Meter::Window { text, window, offset, .. } => {
                let (used, most, back) = window.usage(now.steady.saturating_add(*offset));
                Some(Usage { quota: text.clone(), day: None, begins: None, used, most, back })
            }
            Meter::Day { day, .. } => {
                let begins = day.begins(now.clock);
                let (day, used, most, back) = day.usage(now.clock)?;
                Some(Usage { quota: String::new(), day: Some(day), begins, used, most, back })
            }
        }
    }

    fn text(&self) -> String {
        match self {
            Meter::Window { text, .. } => format!("quota {text}"),
            Meter::Day { day, .. } => day.text(),
        }
    }

    fn reserve(&mut self, cost: Cost, now: Now, mark: Mark) -> Option<(String, Bytes, Promise)> {
        let cells = self.cells(cost);
        match self {
            Meter::Window { key, window, offset, .. } => {
                let reservation = window.reserve(cells, now.steady.saturating_add(*offset), mark)?;
                Some((key.clone(), json(&reservation.record), Promise::Window(reservation)))
            }
            Meter::Day { key, day, .. } => {
                let reservation = day.reserve(cells, now.clock)?;
                Some((key.clone(), json(&reservation.record), Promise::Day(reservation)))
            }
        }
    }

    fn is_exact(&self) -> bool {
        match self {
            Meter::Window { window, .. } => window.is_exact(),
            Meter::Day { day, .. } => day.is_exact(),
        }
    }

    fn release(&mut self, now: Now, mark: Mark) -> (String, Bytes) {
        match self {
            Meter::Window { key, window, offset, .. } => {
                (key.clone(), json(&window.release(now.steady.saturating_add(*offset), mark)))
            }
            Meter::Day { key, day, .. } => (key.clone(), json(&day.release(now.clock))),
        }
    }

    fn released(&mut self) {
        match self {
            Meter::Window { window, .. } => window.released(),
            Meter::Day { day, .. } => day.released(),
        }
    }

    fn confirm(&mut self, promise: &Promise, now: Now) {
        match (self, promise) {
            (Meter::Window { window, offset, .. }, Promise::Window(reservation)) => {
                window.confirm(reservation, now.steady.saturating_add(*offset));
            }
            (Meter::Day { day, .. }, Promise::Day(reservation)) => day.confirm(reservation, now.clock),
            _ => {}
        }
    }
}

fn json(record: &impl serde::Serialize) -> Bytes {
    // Numbers and lists of numbers always print.
    Bytes::from(serde_json::to_vec(record).unwrap_or_default())
}

/// The quotas of one gate.
pub struct Quotas {
    ledger: Arc<Ledger>,
    prefix: String,
    /// Where the records are of what was one with it, or several, before `limits_per` changed.
    related: Option<String>,
    rates: Vec<CountedRate>,
    /// What a plan counts, and rates without a unit.
    count: Count,
    warmup: Option<Warmup>,
    loaded: AtomicBool,
    /// Empty until loaded.
    meters: Mutex<Vec<Meter>>,
    /// Held by the one who writes records of this gate.
    writing: tokio::sync::Mutex<()>,
}

impl Quotas {
    /// The quotas `rates` and `warmup` of the gate `name` of a lane; `None` without any.
    pub fn new(
        ledger: &Arc<Ledger>,
        lane: &str,
        name: &str,
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
        if smallest.is_empty() && warmup.is_none() {
            return None;
        }
        Some(Quotas {
            ledger: ledger.clone(),
            prefix: format!("{PREFIX}{lane}/{name}/"),
            related: (name == "provider").then(|| format!("{PREFIX}{}", related::prefix(&LaneName::from(lane)))),
            rates: smallest,
            count,
            warmup: warmup.cloned(),
            loaded: AtomicBool::new(false),
            meters: Mutex::default(),
            writing: tokio::sync::Mutex::default(),
        })
    }

    /// Whether what was used before is known.
    pub fn is_loaded(&self) -> bool {
        self.loaded.load(Ordering::Acquire)
    }

    /// Reads what was used before. Tries until the store answers.
    pub async fn load(&self) {
        let _alone = self.writing.lock().await;
        while !self.is_loaded() {
            let found = self.ledger.memos.recall(&self.prefix).await;
            let others = match &self.related {
                Some(prefix) => self.ledger.memos.recall(prefix).await,
                None => Ok(Vec::new()),
            };
            match found.and_then(|found| Ok((found, others?))) {
                Ok((found, others)) => {
                    let short = |(name, value): (String, Bytes)| Some((name.strip_prefix(PREFIX)?.to_owned(), value));
                    let others = related::others(others.into_iter().filter_map(short));
                    *self.meters.lock() = self.meters_from(&found, &others);
                    self.loaded.store(true, Ordering::Release);
                }
                Err(error) => {
                    tracing::warn!(%error, "could not read the quotas; trying again");
                    tokio::time::sleep(TROUBLE).await;
                }
            }
        }
    }

    fn meters_from(&self, found: &[(String, Bytes)], others: &related::Others) -> Vec<Meter> {
        let now = self.ledger.now();
        let mark = self.ledger.mark(now);
        let records: Vec<(&str, Option<Record>)> =
            found.iter().map(|(name, value)| (name.as_str(), serde_json::from_slice(value).ok())).collect();
        let mut meters = Vec::new();
        for counted in &self.rates {
            let (rate, of) = (counted.rate, counted.count(self.count).unwrap_or(self.count));
            let about = related::about(Span(rate.per), of);
            let key = format!("{}{about}", self.prefix);
            let full;
            let record = match records.iter().find(|(name, _)| *name == key) {
                Some((_, Some(record))) => Some(record),
                Some((_, None)) => {
                    tracing::error!(name = key, "the record of a quota cannot be read: it counts as used up");
                    full = Window::new(rate, now.wall.0).used_up(now.wall.0, mark.clone());
                    Some(&full)
                }
                None => related::nearest(&about, || {
                    records
                        .iter()
                        .filter_map(|(name, record)| Some((name.strip_prefix(self.prefix.as_str())?, record.as_ref()?)))
                }),
            };
            let (mut window, time) = match record {
                Some(record) => Window::restore(rate, record, &mark),
                None => (Window::new(rate, now.wall.0), now.wall.0),
            };
            related::add(&mut window, &about, others, record.map(|record| &record.mark), time, &mark);
            let offset = time.saturating_sub(now.steady);
            meters.push(Meter::Window { key, text: counted.to_string(), of, window, offset });
        }
        if let Some(plan) = &self.warmup {
            let key = format!("{}warmup", self.prefix);
            let stored = found.iter().find(|(name, _)| *name == key);
            let record = stored.map(|(_, value)| {
                serde_json::from_slice(value).unwrap_or_else(|_| {
                    tracing::error!(name = key, "the record of a warm-up cannot be read: today counts as used up");
                    DayRecord { day: now.clock.0.div_euclid(86_400_000), count: u32::MAX }
                })
            });
            let record = related::day(record, others);
            meters.push(Meter::Day { day: Day::new(plan.clone(), record, now.clock), of: self.count, key });
        }
        meters
    }

    /// Takes `cost` of every quota, or of none.
    ///
    /// # Errors
    /// What has to happen first: [`Refusal::Reserve`] is for [`Quotas::reserve`].
    pub fn try_take(&self, cost: impl Into<Cost>) -> Result<Charge, Refusal> {
        let cost = cost.into();
        if !self.is_loaded() {
            return Err(Refusal::Reserve);
        }
        let now = self.ledger.now();
        let mut meters = self.meters.lock();
        let mut refused = None;
        for meter in meters.iter_mut() {
            match (meter.check(cost, now), refused) {
                (Ok(()), _) | (Err(Refusal::Reserve), Some(_)) => {}
                (Err(Refusal::Wait(wait)), Some(Refusal::Wait(longer))) if wait <= longer => {}
                (Err(refusal), _) => refused = Some(refusal),
            }
        }
        if let Some(refusal) = refused {
            return Err(refusal);
        }
        let taken = meters.iter_mut().map(|meter| meter.take(cost, now)).collect::<Result<_, _>>()?;
        Ok(Charge { cost, taken })
    }

    /// The cells were not used.
    pub fn give_back(&self, charge: Charge) {
        let now = self.ledger.now();
        for (meter, taken) in self.meters.lock().iter_mut().zip(charge.taken) {
            meter.give_back(taken, charge.cost, now);
        }
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
        let promised: Vec<_> =
            self.meters.lock().iter_mut().map(|meter| meter.reserve(cost, now, mark.clone())).collect();
        let entries: Vec<_> =
            promised.iter().flatten().map(|(key, value, _)| (key.clone(), Some(value.clone()))).collect();
        if entries.is_empty() {
            return;
        }
        match self.ledger.memos.remember(entries).await {
            Ok(()) => {
                let now = self.ledger.now();
                for (meter, promised) in self.meters.lock().iter_mut().zip(&promised) {
                    if let Some((_, _, promise)) = promised {
                        meter.confirm(promise, now);
                    }
                }
            }
            Err(error) => {
                tracing::warn!(%error, "could not reserve a part of a quota; trying again");
                tokio::time::sleep(TROUBLE).await;
            }
        }
    }

    /// Whether the stored records count nothing that was not used: then nothing is lost when the gate
    /// is forgotten.
    pub fn is_exact(&self) -> bool {
        self.meters.lock().iter().all(Meter::is_exact)
    }

    /// Begins to give up what is reserved and not used; `None` if there is no such thing, or if
    /// somebody writes records of this gate now. Nothing is reserved while the value lives.
    pub(super) fn release(&self, now: Now, mark: &Mark) -> Option<Released<'_>> {
        let alone = self.writing.try_lock().ok()?;
        let mut meters = self.meters.lock();
        let loose = |meter: &mut Meter| (!meter.is_exact()).then(|| meter.release(now, mark.clone()));
        let records: Vec<_> = meters.iter_mut().map(loose).collect();
        records.iter().any(Option::is_some).then_some(Released { quotas: self, records, _alone: alone })
    }

    /// How long until `cost` could be taken. Zero before it was loaded.
    pub fn wait_for(&self, cost: Cost) -> Duration {
        let now = self.ledger.now();
        self.meters.lock().iter_mut().map(|meter| meter.wait_for(cost, now)).max().unwrap_or_default()
    }

    /// The quota that makes `cost` wait longest, and how long.
    pub fn held_by(&self, cost: Cost) -> Option<(String, Duration)> {
        let now = self.ledger.now();
        let mut meters = self.meters.lock();
        let waits = meters.iter_mut().map(|meter| (meter.wait_for(cost, now), meter.text()));
        waits.filter(|(wait, _)| !wait.is_zero()).max().map(|(wait, text)| (text, wait))
    }

    /// What is used of each; empty before it was loaded.
    pub fn usage(&self) -> Vec<Usage> {
        let now = self.ledger.now();
        self.meters.lock().iter_mut().filter_map(|meter| meter.usage(now)).collect()
    }

    /// The tightest of the quotas in the configuration, as it is written there.
    pub fn tightest(&self) -> Option<String> {
        let per_second = |rate: &&CountedRate| f64::from(rate.rate.count) / rate.per.as_secs_f64().max(1e-3);
        let tightest = self.rates.iter().min_by(|a, b| per_second(a).total_cmp(&per_second(b)))?;
        Some(format!("quota {tightest}"))
    }

    /// Whether nothing more may leave today by a warm-up plan. False before it was loaded.
    pub fn day_is_used_up(&self) -> bool {
        let now = self.ledger.now();
        self.meters.lock().iter_mut().any(|meter| matches!(meter, Meter::Day { .. }) && meter.room(now) == 0)
    }

    /// The most recipients that could be taken in `wait`, if nobody takes any meanwhile; `u32::MAX`:
    /// nothing counts them.
    pub fn room_for_recipients(&self, wait: Duration) -> u32 {
        let now = self.ledger.now();
        let counts = |meter: &&mut Meter| match meter {
            Meter::Window { of, .. } | Meter::Day { of, .. } => *of == Count::Recipients,
        };
        self.meters.lock().iter_mut().filter(counts).map(|meter| meter.room_in(wait, now)).min().unwrap_or(u32::MAX)
    }
}

/// What gates give up, to be made durable and then confirmed.
#[must_use = "nothing is gained before it is durable and confirmed"]
pub(super) struct Released<'a> {
    quotas: &'a Quotas,
    /// One a meter.
    records: Vec<Option<(String, Bytes)>>,
    _alone: tokio::sync::MutexGuard<'a, ()>,
}

impl Released<'_> {
    /// What has to be durable.
    pub(super) fn entries(&self) -> impl Iterator<Item = (String, Option<Bytes>)> + '_ {
        self.records.iter().flatten().map(|(key, value)| (key.clone(), Some(value.clone())))
    }

    /// It is.
    pub(super) fn confirm(self) {
        for (meter, record) in self.quotas.meters.lock().iter_mut().zip(&self.records) {
            if record.is_some() {
                meter.released();
            }
        }
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
