//! A gate: rates and quotas that hold together, for a provider or for a `[[limit]]` inside it.
//!
//! Who goes through in two steps. [`Gate::let_through`] counts a transaction as on its way, so that
//! no more are sent for than can pass soon; [`Gate::try_take`] takes its cells, of everything or of
//! nothing. A [`Permit`] that is dropped unspent gives them back. Each limit counts in its own unit: a
//! transaction is one of messages and as many as it has of recipients ([`Cost`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::bookings::Bookings;
use super::cost::Cost;
use super::ledger::Ledger;
use super::limiter::{Limiter, Tokens};
use super::quota::Refusal;
use super::reserve::{Charge, Quotas, Standing};
use super::restart::Left;
use super::usage::{Holding, Usage};
use crate::config::{Count, CountedRate, Provider};
use crate::mail::LaneName;

/// What holds mail back, as `provider show` tells it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    /// The rate or quota, e.g. `quota 500/h`.
    pub by: String,
    /// How long until a transaction may pass.
    pub wait: Duration,
}

/// `quota 500/h, next in 12m`.
impl std::fmt::Display for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let s = self.wait.as_millis().div_ceil(1000);
        write!(f, "{}, next in ", self.by)?;
        match s {
            0..60 => write!(f, "{s}s"),
            60..3600 => write!(f, "{}m", s.div_ceil(60)),
            _ => write!(f, "{}h {}m", s / 3600, s % 3600 / 60),
        }
    }
}

/// Why a permit was not given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// A block of a quota has to be made durable first: [`Gate::reserve`].
    Reserve,
    /// A rate: so long.
    Rate(Duration),
    /// A quota is used up: so long.
    Quota(Duration),
}

/// Rates and quotas that hold together.
#[derive(Debug)]
pub struct Gate {
    /// The how manyth gate of the process it is: an order that does not depend on where it is in memory.
    number: u64,
    /// Empty for the provider itself, else which limit it is.
    name: String,
    /// Under which its rates outlive the process.
    key: String,
    rates: Vec<CountedRate>,
    limiter: Arc<Limiter>,
    quotas: Option<Quotas>,
    /// What transactions on their way will take.
    pending: Mutex<Cost>,
    /// When those come back that find no place to wait for it; of a limit only.
    bookings: Option<Bookings>,
}

fn next_number() -> u64 {
    static GATES: AtomicU64 = AtomicU64::new(0);
    GATES.fetch_add(1, Ordering::Relaxed)
}

impl Gate {
    /// Which one it is; no other has the same.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The gate of a provider in its lane.
    pub fn of_provider(ledger: &Arc<Ledger>, lane: &str, provider: &Provider) -> Gate {
        let (key, count) = (format!("{lane}/provider"), provider.count);
        let rates: Vec<CountedRate> = provider.rate.iter().filter(|rate| !rate.is_of_connections()).copied().collect();
        Gate {
            number: next_number(),
            name: String::new(),
            limiter: ledger.limiter_counting(&key, &rates, count, provider.burst),
            rates,
            key,
            quotas: Quotas::new(
                ledger,
                (lane, "provider", standing(lane)),
                &provider.quota,
                count,
                provider.warmup.as_ref(),
            ),
            pending: Mutex::default(),
            bookings: None,
        }
    }

    /// The gate of a limit that is called `name`, in reports and in the store; `of_domain`: for one sender
    /// domain of those that it is about.
    pub fn of_limit(
        ledger: &Arc<Ledger>,
        lane: &str,
        name: String,
        limit: &crate::config::Limit,
        of_domain: bool,
    ) -> Gate {
        let key = format!("{lane}/{name}");
        let standing = if of_domain { Standing::Passing } else { standing(lane) };
        Gate {
            number: next_number(),
            rates: limit.rate.clone(),
            limiter: ledger.limiter_counting(&key, &limit.rate, limit.count, 0),
            key,
            quotas: Quotas::new(ledger, (lane, &name, standing), &limit.quota, limit.count, None),
            pending: Mutex::default(),
            bookings: Some(Bookings::new(limit.rate.iter().chain(&limit.quota), limit.count)),
            name,
        }
    }

    /// The gate of a sender whose pace was learned.
    pub fn of_sender(sender: &str, count: Count) -> Gate {
        Gate {
            number: next_number(),
            name: format!("sender <{sender}>"),
            key: String::new(),
            rates: Vec::new(),
            limiter: Arc::new(Limiter::counting::<CountedRate>(&[], count, 0)),
            quotas: None,
            pending: Mutex::default(),
            bookings: Some(Bookings::of_pace(count)),
        }
    }

    /// From now on at most `per_second` cells a second, and nothing for `stop`. True if a stop has ended before
    /// its time. `tried`: the pace may end soon. Only for a [gate of a sender](Gate::of_sender).
    pub fn set_pace(&self, per_second: Option<f64>, stop: Duration, tried: bool) -> bool {
        let sooner = stop.is_zero() && self.limiter.is_stopped();
        self.limiter.set_pace(per_second);
        self.limiter.stop_for(stop);
        if let Some(bookings) = &self.bookings {
            bookings.set_pace(per_second, tried);
        }
        sooner
    }

    /// When those that find no place come back; `None` for a provider's own gate.
    pub fn bookings(&self) -> Option<&Bookings> {
        self.bookings.as_ref()
    }

    /// Whether what was used in earlier lives is known; else [`Gate::load`] first.
    pub fn is_loaded(&self) -> bool {
        self.quotas.as_ref().is_none_or(Quotas::is_loaded)
    }

    /// Learns what was used in earlier lives.
    pub async fn load(&self) {
        if let Some(quotas) = &self.quotas {
            quotas.load().await;
        }
    }

    /// Whether nothing more may leave today by a warm-up plan. False before it was loaded.
    pub fn day_is_used_up(&self) -> bool {
        self.quotas.as_ref().is_some_and(Quotas::day_is_used_up)
    }

    /// Its rates, for who makes them slower.
    pub fn limiter(&self) -> &Limiter {
        &self.limiter
    }

    /// How long until a transaction of `cost`, behind those on their way, could pass.
    pub fn wait(&self, cost: impl Into<Cost>) -> Duration {
        self.wait_for(self.pending().and(cost.into()))
    }

    /// How long until the smallest transaction could pass if nobody was on its way.
    pub fn wait_alone(&self) -> Duration {
        self.wait_for(Cost::LEAST)
    }

    fn wait_for(&self, cost: Cost) -> Duration {
        let quota = self.quotas.as_ref().map(|quotas| quotas.wait_for(cost)).unwrap_or_default();
        self.limiter.wait_for(cost).max(quota)
    }

    /// What one more transaction would wait for.
    pub fn held(&self) -> Option<Held> {
        let quota = self.quotas.as_ref().and_then(|quotas| quotas.held_by(Cost::LEAST));
        let rate = self
            .limiter
            .held_by(Cost::LEAST)
            .and_then(|(at, wait)| Some((format!("rate {}", self.rates.get(at)?), wait)));
        let pace = self.limiter.held_by_pace(Cost::LEAST);
        let pace = (!pace.is_zero()).then(|| ("the pace that replies taught".into(), pace));
        let (text, wait) = [quota, rate, pace].into_iter().flatten().max_by_key(|(_, wait)| *wait)?;
        let by = if self.name.is_empty() { text } else { format!("{}: {text}", self.name) };
        Some(Held { by, wait })
    }

    /// What makes a transaction of `cost` wait, and how long: the quota that does so longest, the rate that
    /// does, and the pace, a pause included.
    pub fn holding(&self, cost: Cost) -> Vec<(Duration, Holding)> {
        let used_up = self.usage().into_iter().filter(Usage::is_used_up);
        let quota = used_up.map(|usage| (usage.back, Holding::Quota(usage))).max_by_key(|(wait, _)| *wait);
        let rate = self.limiter.held_by(cost).and_then(|(at, wait)| Some((wait, self.rates.get(at)?)));
        let rate = rate.map(|(wait, rate)| (wait, Holding::Rate(rate.to_string())));
        let pace = Some((self.limiter.held_by_pace(cost), Holding::Pace)).filter(|(wait, _)| !wait.is_zero());
        [quota, rate, pace].into_iter().flatten().collect()
    }

    /// What is used of each of its quotas; empty without any, or before they were loaded.
    pub fn usage(&self) -> Vec<Usage> {
        self.quotas.as_ref().map(Quotas::usage).unwrap_or_default()
    }

    /// Which limit it is, also while it holds nothing back yet: what is on its way may use it up.
    pub fn title(&self) -> String {
        let rate = || self.rates.first().map(|rate| format!("rate {rate}"));
        let text = self.quotas.as_ref().and_then(Quotas::tightest).or_else(rate).unwrap_or_else(|| "a limit".into());
        if self.name.is_empty() { text } else { format!("{}: {text}", self.name) }
    }

    /// Recipients that a transaction may have to pass `soon`: what a burst, and the room that quotas will
    /// have then, can give at once. Limits that count messages take any number.
    pub fn most_recipients(&self, soon: Duration) -> u32 {
        let pending = self.pending().recipients;
        let room = self.quotas.as_ref().map_or(u32::MAX, |q| match q.room_for_recipients(soon) {
            u32::MAX => u32::MAX,
            room => room.saturating_sub(pending),
        });
        self.limiter.most_recipients().min(room).max(1)
    }

    fn pending(&self) -> Cost {
        *self.pending.lock()
    }

    /// A transaction of `cost` is on its way.
    pub fn let_through(&self, cost: Cost) {
        let mut pending = self.pending.lock();
        *pending = pending.and(cost);
    }

    /// It has its permit, or does not need one any more.
    pub fn arrived(&self, cost: Cost) {
        let mut pending = self.pending.lock();
        *pending = pending.without(cost);
    }

    /// Takes `cost` of every rate and quota, or nothing. Without quotas this costs what the rates do.
    ///
    /// # Errors
    /// What has to happen first.
    pub fn try_take(self: &Arc<Gate>, cost: impl Into<Cost>) -> Result<Permit, Refused> {
        let cost = cost.into();
        let tokens = self.limiter.try_take(cost).map_err(Refused::Rate)?;
        let Some(quotas) = &self.quotas else { return Ok(Permit { tokens, charged: None, more: Vec::new() }) };
        // The tokens go back when a quota refuses.
        match quotas.try_take(cost) {
            Ok(charge) => {
                let charged = Some(Charged { gate: self.clone(), charge: Some(charge), spent: false });
                Ok(Permit { tokens, charged, more: Vec::new() })
            }
            Err(Refusal::Reserve) => Err(Refused::Reserve),
            Err(Refusal::Wait(wait)) => Err(Refused::Quota(wait)),
        }
    }

    /// Makes a block of the quotas durable from which `cost` can be taken.
    pub async fn reserve(&self, cost: impl Into<Cost>) {
        if let Some(quotas) = &self.quotas {
            quotas.reserve(cost).await;
        }
    }

    /// Ends its rates: nothing is permitted any more. Returns what they lack, under its name.
    pub fn close(&self) -> (String, Vec<Left>) {
        (self.key.clone(), self.limiter.close())
    }

    /// Nobody is on its way, and a new gate would let no more through than this one.
    pub fn is_idle(&self) -> bool {
        self.pending() == Cost::default() && self.limiter.is_full()
    }

    /// Whether it has no quota and counts all the same what leaves, for one to come.
    pub fn only_counts(&self) -> bool {
        self.quotas.as_ref().is_some_and(Quotas::only_counts)
    }

    /// Whether nothing of its quotas is reserved in the store and unused, see [`Ledger::release`].
    pub fn is_exact(&self) -> bool {
        self.quotas.as_ref().is_none_or(Quotas::is_exact)
    }

    /// A new gate would let exactly as much through as this one: what was used of quotas is in the
    /// store, and nothing else.
    pub fn is_disposable(&self) -> bool {
        self.is_idle() && self.is_exact()
    }

    pub(super) fn quotas(&self) -> Option<&Quotas> {
        self.quotas.as_ref()
    }
}

/// The right to make one transaction now. Given back when dropped without [`Permit::spend`].
#[must_use = "a permit that is dropped unspent goes back"]
#[derive(Debug)]
pub struct Permit {
    tokens: Tokens,
    charged: Option<Charged>,
    more: Vec<Permit>,
}

impl Permit {
    /// With what the limits inside the provider gave.
    pub fn and(mut self, more: Vec<Permit>) -> Permit {
        self.more = more;
        self
    }

    /// The transaction is begun (the server sees MAIL, or may): the cells stay taken. What this returns is
    /// to be kept until the server has answered all of it, or never will: it may count the transaction at
    /// any moment until then, and a quota counts it from the last one.
    pub fn spend(self) -> Spent {
        self.tokens.spend();
        let mut charged = self.charged;
        if let Some(charged) = &mut charged {
            charged.spent = true;
        }
        Spent { _charged: charged, _more: self.more.into_iter().map(Permit::spend).collect() }
    }
}

/// A transaction under way, as quotas see it: it has left when this is dropped.
#[derive(Debug)]
pub struct Spent {
    _charged: Option<Charged>,
    _more: Vec<Spent>,
}

/// Cells of quotas; when dropped they are given back, or have left if they were spent.
#[derive(Debug)]
struct Charged {
    gate: Arc<Gate>,
    charge: Option<Charge>,
    spent: bool,
}

impl Drop for Charged {
    fn drop(&mut self) {
        if let (Some(charge), Some(quotas)) = (self.charge.take(), &self.gate.quotas) {
            if self.spent { quotas.left(charge) } else { quotas.give_back(charge) }
        }
    }
}

/// Whose gate of a lane it is: a provider's, or a domain's that somebody sends to.
fn standing(lane: &str) -> Standing {
    if LaneName::from(lane).as_domain().is_some() { Standing::Passing } else { Standing::Named }
}
