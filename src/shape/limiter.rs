//! The rates of one lane: several GCRA limiters (governor) that hold together, all or nothing.
//!
//! Invariant: with rate `r` and burst `b`, what the permits given in any window of length `t` take is
//! at most `r × t + b`, for every rate of the lane at once, in its own unit; permits given back unused
//! do not count.
//! governor decides; its state lives in a cell that we share, so that a taking that one of several
//! rates refuses can be undone in the others, and so that the wait can be foreseen without taking.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{NotKeyed, StateStore};
use governor::{Quota, RateLimiter};
use parking_lot::Mutex;

use super::cost::Cost;
use super::restart::Left;
use crate::config::units::Rate;
use crate::config::{Count, CountedRate};

/// What a closed limiter waits for, in nanoseconds: longer than a process takes to end.
const CLOSED: u64 = 100 * 86_400 * 1_000_000_000;

/// governor's clock, following `tokio::time` so that tests run on paused time.
#[derive(Clone, Copy, Debug)]
struct TokioClock {
    start: tokio::time::Instant,
}

impl Clock for TokioClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.start.elapsed()
    }
}

/// The theoretical arrival time (GCRA) in nanoseconds since the limiter began; 0 before first use.
/// Only ever touched under the limiter's lock.
#[derive(Clone, Debug, Default)]
struct Arrival(Arc<AtomicU64>);

impl Arrival {
    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, nanos: u64) {
        self.0.store(nanos, Ordering::Relaxed);
    }
}

impl StateStore for Arrival {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, _key: &NotKeyed, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let before = self.get();
        let (result, after) = f((before != 0).then(|| Nanos::from(before)))?;
        self.set(after.as_u64());
        Ok(result)
    }
}

struct Bucket {
    rate: Rate,
    /// What it counts.
    of: Count,
    governor: RateLimiter<NotKeyed, Arrival, TokioClock, NoOpMiddleware<Duration>>,
    arrival: Arrival,
    /// Nanoseconds one cell takes.
    period: u64,
    burst: u32,
    /// Tokens that may come back, in the order in which they were taken.
    out: Vec<Out>,
}

/// Tokens that may come back.
#[derive(Debug)]
struct Out {
    /// Which: counted by the limiter.
    id: u64,
    /// What the arrival time would be for a bucket that was full right after they were taken. When
    /// they come back the arrival time cannot be earlier: where the bucket would have been full
    /// without them, what had flowed over is lost.
    without: u64,
}

impl Bucket {
    fn new(rate: Rate, of: Count, burst: u32, clock: TokioClock) -> Bucket {
        // Rounded up, so that rounding never makes the pace faster than the rate.
        let per = u64::try_from(rate.per.as_nanos()).unwrap_or(u64::MAX);
        let period = per.div_ceil(u64::from(rate.count.max(1))).max(1);
        let burst = NonZeroU32::new(if burst == 0 { natural_burst(period) } else { burst }).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::with_period(Duration::from_nanos(period))
            .unwrap_or_else(|| Quota::per_second(NonZeroU32::MIN))
            .allow_burst(burst);
        let arrival = Arrival::default();
        Bucket {
            rate,
            of,
            governor: RateLimiter::new(quota, arrival.clone(), clock),
            arrival,
            period,
            burst: burst.get(),
            out: Vec::new(),
        }
    }

    fn cost(&self, cells: u32) -> u64 {
        self.period.saturating_mul(u64::from(cells))
    }

    /// The cells of a permit. More than the burst is never given at once.
    fn cells(&self, cost: Cost) -> u32 {
        cost.count(self.of).clamp(1, self.burst)
    }

    /// Notes that the tokens `id` were taken, after governor has counted them.
    fn taken(&mut self, id: u64, cost: Cost, now: u64) {
        let cost = self.cost(self.cells(cost));
        for out in &mut self.out {
            out.without = out.without.max(now).saturating_add(cost);
        }
        self.out.push(Out { id, without: 0 });
    }

    fn spent(&mut self, id: u64) {
        self.out.retain(|out| out.id != id);
    }

    /// As if the tokens `id` had never been taken.
    fn give_back(&mut self, id: u64, cost: Cost) {
        let cells = self.cells(cost);
        let Some(at) = self.out.iter().position(|out| out.id == id) else { return };
        let (cost, without) = (self.cost(cells), self.out.remove(at).without);
        self.arrival.set(self.arrival.get().saturating_sub(cost).max(without));
        // Those that were taken later never counted these.
        for earlier in self.out.iter_mut().take(at) {
            earlier.without = earlier.without.saturating_sub(cost).max(without);
        }
    }

    /// How long until the last of `n` cells conforms, if nobody else takes any meanwhile.
    fn wait_for(&self, n: u32, now: u64) -> Duration {
        let cells = |n: u32| self.cost(n);
        let arrival = self.arrival.get();
        let at = match n.checked_sub(self.burst) {
            None | Some(0) => arrival.saturating_sub(cells(self.burst - n)),
            Some(beyond) => arrival.max(now).saturating_add(cells(beyond)),
        };
        Duration::from_nanos(at.saturating_sub(now))
    }
}

/// A pace that changes while it holds: what feedback allows, besides the configured rates. Its
/// progress towards the next cell is kept when it changes, so that the cells permitted in any
/// window are at most the integral of the pace over it, plus the burst and the cells of one permit:
/// never more than the faster of two paces would have given.
#[derive(Debug)]
struct Pace {
    /// Nanoseconds one cell takes.
    period: f64,
    /// The next cell conforms then, in nanoseconds since the limiter began.
    arrival: f64,
    /// Nothing conforms before.
    stopped: f64,
}

impl Pace {
    fn wait_for(&self, n: u32, now: f64) -> f64 {
        // Timers have a grain, see `natural_burst`; more than one cell is taken on credit.
        let ahead = self.arrival.max(now) + self.period * f64::from(n.saturating_sub(1));
        (ahead - now - 10_000_000.0).max(self.stopped - now).max(0.0)
    }

    fn change(&mut self, period: f64, now: f64) {
        self.arrival = now + (self.arrival - now).max(0.0) * (period / self.period);
        self.period = period;
    }
}

/// What 10 ms bring, at least 1: timers have a grain of about a millisecond, so that a fast rate
/// without any burst could never be reached.
fn natural_burst(period_nanos: u64) -> u32 {
    u32::try_from(10_000_000 / period_nanos).unwrap_or(u32::MAX).max(1)
}

/// The rates of one lane. Without rates it always permits.
pub struct Limiter {
    clock: TokioClock,
    buckets: Mutex<Vec<Bucket>>,
    pace: Mutex<Option<Pace>>,
    /// What the pace counts.
    count: Count,
    /// Permits so far: the name of the next one's tokens.
    permits: AtomicU64,
    closed: AtomicBool,
}

impl Limiter {
    /// Rates of which those without a unit count messages, see [`Limiter::counting`].
    pub fn new<R: Copy + Into<CountedRate>>(rates: &[R], burst: u32) -> Limiter {
        Limiter::counting(rates, Count::Messages, burst)
    }

    /// Rates of which those without a unit count `count`, as does the pace; rates of connections are
    /// left out. `burst` 0: what 10 ms of each rate bring, at least 1; else of each in its own unit.
    /// Begins with a full burst, see [`Limiter::go_on`].
    pub fn counting<R: Copy + Into<CountedRate>>(rates: &[R], count: Count, burst: u32) -> Limiter {
        let clock = TokioClock { start: tokio::time::Instant::now() };
        let bucket = |rate: CountedRate| Some(Bucket::new(rate.rate, rate.count(count)?, burst, clock));
        let buckets: Vec<Bucket> = rates.iter().filter_map(|rate| bucket((*rate).into())).collect();
        let (pace, permits, closed) = Default::default();
        Limiter { clock, buckets: Mutex::new(buckets), pace, count, permits, closed }
    }

    /// The most recipients that one permit can be for: more would exceed a burst and never be given.
    pub fn most_recipients(&self) -> u32 {
        let buckets = self.buckets.lock();
        buckets.iter().filter(|b| b.of == Count::Recipients).map(|b| b.burst).min().unwrap_or(u32::MAX)
    }

    /// From now on at most `per_second` cells a second, besides the configured rates, which hold in
    /// any case; `None`: no further limit. A first pace begins with a whole cell to wait for.
    pub fn set_pace(&self, per_second: Option<f64>) {
        let mut pace = self.pace.lock();
        if pace.is_none() && per_second.is_none() {
            return;
        }
        let now = self.now() as f64;
        // Bounds, so that no arithmetic can leave them: from 1 cell in 100 days to 1 a nanosecond.
        let period = per_second.map(|rate| (1e9 / rate).clamp(1.0, 1e16)).filter(|p| p.is_finite());
        match (&mut *pace, period) {
            (Some(pace), Some(period)) => pace.change(period, now),
            (None, Some(period)) => *pace = Some(Pace { period, arrival: now + period, stopped: 0.0 }),
            (_, None) => *pace = None,
        }
    }

    /// Nothing more is permitted for `wait` from now, whatever an earlier stop said: zero ends it.
    pub fn stop_for(&self, wait: Duration) {
        let mut pace = self.pace.lock();
        if wait.is_zero() {
            pace.iter_mut().for_each(|pace| pace.stopped = 0.0);
            return;
        }
        let until = self.now() as f64 + wait.as_nanos() as f64;
        pace.get_or_insert(Pace { period: 1.0, arrival: 0.0, stopped: until }).stopped = until;
    }

    /// Takes `cost` of every rate, or of none.
    ///
    /// # Errors
    /// How long to wait before asking again.
    pub fn try_take(self: &Arc<Limiter>, cost: impl Into<Cost>) -> Result<Tokens, Duration> {
        let cost = cost.into();
        let mut buckets = self.buckets.lock();
        let mut pace = self.pace.lock();
        if buckets.is_empty() && pace.is_none() {
            return Ok(Tokens { limiter: None, cost, id: 0 });
        }
        let now = self.now();
        if let Some(pace) = &*pace {
            let wait = pace.wait_for(1, now as f64);
            if wait > 0.0 {
                return Err(Duration::from_nanos(wait as u64).max(Duration::from_micros(1)));
            }
        }
        for i in 0..buckets.len() {
            let cells = NonZeroU32::new(buckets[i].cells(cost)).unwrap_or(NonZeroU32::MIN);
            let wait = match buckets[i].governor.check_n(cells) {
                Ok(Ok(())) => None,
                Ok(Err(not_until)) => Some(not_until.wait_time_from(self.clock.now())),
                // Cannot be: a bucket gives no more than its burst.
                Err(_) => Some(Duration::from_secs(1)),
            };
            if let Some(wait) = wait {
                for taken in &buckets[..i] {
                    let back = taken.cost(taken.cells(cost));
                    taken.arrival.set(taken.arrival.get().saturating_sub(back));
                }
                return Err(wait.max(Duration::from_micros(1)));
            }
        }
        let id = self.permits.fetch_add(1, Ordering::Relaxed);
        for bucket in buckets.iter_mut() {
            bucket.taken(id, cost, now);
        }
        if let Some(pace) = &mut *pace {
            // Nothing conforms for what was not used, but for the grain of timers.
            pace.arrival = pace.arrival.max(now as f64) + pace.period * f64::from(cost.count(self.count));
        }
        Ok(Tokens { limiter: Some(self.clone()), cost, id })
    }

    /// How long until `cost` would be permitted, if nobody takes any meanwhile. Takes nothing.
    pub fn wait_for(&self, cost: impl Into<Cost>) -> Duration {
        let cost = cost.into();
        let buckets = self.buckets.lock();
        // Without a rate nobody looks at the clock: this is asked several times for each message.
        let now = if buckets.is_empty() { 0 } else { self.now() };
        let configured = buckets.iter().map(|b| b.wait_for(cost.count(b.of), now)).max().unwrap_or_default();
        drop(buckets);
        configured.max(self.held_by_pace(cost))
    }

    /// The rate (its place in the list) that makes `cost` wait longest, and how long.
    pub fn held_by(&self, cost: impl Into<Cost>) -> Option<(usize, Duration)> {
        let (now, cost) = (self.now(), cost.into());
        let buckets = self.buckets.lock();
        let waits = buckets.iter().enumerate().map(|(at, b)| (b.wait_for(cost.count(b.of), now), at));
        waits.filter(|(wait, _)| !wait.is_zero()).max().map(|(wait, at)| (at, wait))
    }

    /// How long the pace alone makes `cost` wait.
    pub fn held_by_pace(&self, cost: impl Into<Cost>) -> Duration {
        let pace = self.pace.lock();
        let Some(pace) = pace.as_ref() else { return Duration::ZERO };
        Duration::from_nanos(pace.wait_for(cost.into().count(self.count), self.now() as f64) as u64)
    }

    /// Goes on where an earlier limiter ended `ago`: `missing` says how long a bucket of this rate
    /// and burst lacked then until it was full; `None`: it counts as empty.
    pub fn go_on(&self, missing: impl Fn(Rate, Count, u32) -> Option<Duration>, ago: Duration) {
        let now = self.now();
        for bucket in self.buckets.lock().iter_mut() {
            let empty = Duration::from_nanos(bucket.cost(bucket.burst));
            let left = missing(bucket.rate, bucket.of, bucket.burst).unwrap_or(empty).saturating_sub(ago);
            let arrival = now.saturating_add(u64::try_from(left.as_nanos()).unwrap_or(u64::MAX / 4));
            if arrival > bucket.arrival.get().max(now) {
                bucket.arrival.set(arrival);
            }
        }
    }

    /// Permits nothing any more. Returns what its buckets lack; nothing if all are full, or if it was
    /// closed before.
    pub fn close(&self) -> Vec<Left> {
        let mut buckets = self.buckets.lock();
        if self.closed.swap(true, Ordering::Relaxed) {
            return Vec::new();
        }
        let now = self.now();
        let close = |bucket: &mut Bucket| {
            let missing = bucket.arrival.get().saturating_sub(now);
            bucket.arrival.set(now.saturating_add(CLOSED));
            Left::new(bucket.rate, bucket.of, bucket.burst, Duration::from_nanos(missing))
        };
        let lefts: Vec<Left> = buckets.iter_mut().map(close).collect();
        if lefts.iter().all(Left::is_full) { Vec::new() } else { lefts }
    }

    /// Nothing was taken lately: a new limiter would permit no more than this one.
    pub fn is_full(&self) -> bool {
        let now = self.now();
        self.buckets.lock().iter().all(|b| b.arrival.get() <= now)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.clock.now().as_nanos()).unwrap_or(u64::MAX)
    }

    fn give_back(&self, cost: Cost, id: u64) {
        if let Some(pace) = &mut *self.pace.lock() {
            pace.arrival -= pace.period * f64::from(cost.count(self.count));
        }
        for bucket in self.buckets.lock().iter_mut() {
            bucket.give_back(id, cost);
        }
    }
}

impl std::fmt::Debug for Limiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limiter").field("count", &self.count).finish_non_exhaustive()
    }
}

/// Cells of every rate. Given back when dropped without [`Tokens::spend`].
#[must_use = "tokens that are dropped unspent go back to the limiter"]
#[derive(Debug)]
pub struct Tokens {
    limiter: Option<Arc<Limiter>>,
    cost: Cost,
    id: u64,
}

impl Tokens {
    /// The transaction was begun (the server saw MAIL, or may have): the cells stay taken.
    pub fn spend(mut self) {
        if let Some(limiter) = self.limiter.take() {
            for bucket in limiter.buckets.lock().iter_mut() {
                bucket.spent(self.id);
            }
        }
    }
}

impl Drop for Tokens {
    fn drop(&mut self) {
        if let Some(limiter) = self.limiter.take() {
            limiter.give_back(self.cost, self.id);
        }
    }
}

#[cfg(test)]
#[path = "limiter_tests.rs"]
mod tests;
