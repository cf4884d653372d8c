//! Answers of DNS kept for as long as they hold, asked for once however many wait.
//!
//! Whether an entry is fresh is decided by `tokio::time`, so that tests can move time; moka bounds
//! the number of entries, lets one caller look up while others wait, and drops what is too old.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use moka::Expiry;
use moka::future::Cache;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::config;
use crate::observe::seldom;

/// How long a failure is remembered, so that a broken domain with a deep queue does not hammer the
/// name servers (RFC 9520 §3.2 asks for 1 s to 5 min).
pub(super) const FAILURE_TTL: Duration = Duration::from_secs(30);
/// How long after its end an answer may stand in for one that cannot be had (RFC 8767 §5).
pub(super) const STALE: Duration = Duration::from_secs(3600);
/// What a negative answer without SOA record is kept for. It says nothing of how long it holds and should not be kept
/// (RFC 2308 §5); a moment, so that all mail for a name does not ask at once.
const NEGATIVE_WITHOUT_SOA: Duration = Duration::from_secs(5);

/// What kind of answer this is: decides how long it is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Records; TTL in seconds.
    Positive(u32),
    /// No records or no such name; TTL of the SOA record.
    Negative(Option<u32>),
    /// No answer.
    Failure,
}

/// Something kept, and until when it holds.
#[derive(Clone, Debug)]
pub(super) struct Kept<V> {
    pub(super) value: V,
    pub(super) until: Instant,
    /// After `until`, it may be used up to here while the name servers fail. Before `until` if never.
    stale_until: Instant,
    /// How long moka keeps it.
    keep: Duration,
    /// When it was learned.
    since: Instant,
    /// It says that there is nothing, or that nobody knows.
    failed: bool,
}

impl<V> Kept<V> {
    /// Something put together from other entries, which holds as long as they do. Kept a while
    /// longer, for those who can use an old one.
    pub(super) fn new(value: V, until: Instant) -> Kept<V> {
        let now = Instant::now();
        let keep = until.saturating_duration_since(now) + STALE;
        Kept { value, until, stale_until: now, keep, since: now, failed: false }
    }

    /// The same of something that is of no use when it is old.
    pub(super) fn failure(value: V, until: Instant) -> Kept<V> {
        let now = Instant::now();
        Kept { failed: true, keep: until.saturating_duration_since(now), ..Kept::new(value, until) }
    }

    /// Whether it was learned before `time`.
    pub(super) fn is_before(&self, time: Option<Instant>) -> bool {
        time.is_some_and(|time| self.since < time)
    }
}

/// The cache of what was put together.
pub(super) fn routes_cache<V: Clone + Send + Sync + 'static>(size: u64) -> moka::sync::Cache<Arc<str>, Kept<V>> {
    moka::sync::Cache::builder().max_capacity(size).expire_after(Keep).build()
}

struct Keep;

impl<V> Expiry<Arc<str>, Kept<V>> for Keep {
    fn expire_after_create(&self, _: &Arc<str>, kept: &Kept<V>, _: std::time::Instant) -> Option<Duration> {
        Some(kept.keep)
    }

    fn expire_after_update(
        &self,
        _: &Arc<str>,
        kept: &Kept<V>,
        _: std::time::Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(kept.keep)
    }
}

/// Limits of the configuration on what DNS says about time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    min: Duration,
    max: Duration,
    negative_max: Duration,
}

impl Bounds {
    pub(super) fn new(dns: &config::Dns) -> Bounds {
        Bounds { min: dns.ttl_min.min(dns.ttl_max), max: dns.ttl_max, negative_max: dns.negative_ttl_max }
    }

    fn ttl(&self, kind: Kind) -> Duration {
        match kind {
            Kind::Positive(ttl) => Duration::from_secs(ttl.into()).clamp(self.min, self.max),
            Kind::Negative(Some(ttl)) => Duration::from_secs(ttl.into()).max(self.min).min(self.negative_max),
            Kind::Negative(None) => NEGATIVE_WITHOUT_SOA.min(self.negative_max),
            Kind::Failure => FAILURE_TTL,
        }
    }
}

/// A bounded cache of one kind of answer.
pub(super) struct Memo<V> {
    cache: Cache<Arc<str>, Kept<V>>,
    bounds: Bounds,
    /// Failures from before are not believed any more.
    failures_until: Mutex<Option<Instant>>,
}

impl<V: Clone + Send + Sync + 'static> Memo<V> {
    pub(super) fn new(size: u64, bounds: Bounds) -> Memo<V> {
        Memo {
            cache: Cache::builder().max_capacity(size).expire_after(Keep).build(),
            bounds,
            failures_until: Mutex::default(),
        }
    }

    /// What could not be told, or was said not to be there, is asked for again.
    pub(super) fn forget_failures(&self) {
        *self.failures_until.lock() = Some(Instant::now());
    }

    fn has_ended(&self, kept: &Kept<V>) -> bool {
        Instant::now() >= kept.until || kept.failed && kept.is_before(*self.failures_until.lock())
    }

    /// What is kept for `key`, which may have ended; nobody is asked.
    pub(super) async fn kept(&self, key: &Arc<str>) -> Option<Kept<V>> {
        self.cache.get(key).await
    }

    /// The answer for `key`: kept, or looked up by one of those who ask while the others wait. When
    /// the look-up fails and an older positive answer is at hand, that one.
    pub(super) async fn get(&self, key: &Arc<str>, lookup: impl Future<Output = (V, Kind)>) -> Kept<V> {
        let old = self.cache.get(key).await;
        if let Some(kept) = &old
            && !self.has_ended(kept)
        {
            return kept.clone();
        }
        let refresh = async {
            let (value, kind) = lookup.await;
            let now = Instant::now();
            let ttl = self.bounds.ttl(kind);
            match (kind, old) {
                (Kind::Failure, Some(old)) if now < old.stale_until => {
                    if let Some(times) = seldom("DNS fails", key.as_ref()) {
                        tracing::warn!(name = %key, times, "DNS fails, using the expired answer");
                    }
                    let stale_until = old.stale_until;
                    let until = (now + ttl).min(stale_until);
                    Kept { until, keep: stale_until - now, value: old.value, stale_until, since: now, failed: true }
                }
                (Kind::Positive(_), _) => {
                    let stale_until = now + ttl + STALE;
                    Kept { value, until: now + ttl, stale_until, keep: ttl + STALE, since: now, failed: false }
                }
                _ => Kept { value, until: now + ttl, stale_until: now, keep: ttl, since: now, failed: true },
            }
        };
        // Boxed, since moka keeps the future inside its own.
        let expired = |kept: &Kept<V>| self.has_ended(kept);
        self.cache.entry(key.clone()).or_insert_with_if(Box::pin(refresh), expired).await.into_value()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn memo(min: u64, max: u64, negative_max: u64) -> Memo<u32> {
        let [min, max, negative_max] = [min, max, negative_max].map(Duration::from_secs);
        Memo::new(100, Bounds { min, max, negative_max })
    }

    #[test]
    fn ttls_stay_within_bounds() {
        let bounds = memo(60, 3600, 300).bounds;
        for (kind, seconds) in [
            (Kind::Positive(0), 60),
            (Kind::Positive(61), 61),
            (Kind::Positive(u32::MAX), 3600),
            (Kind::Negative(Some(0)), 60),
            (Kind::Negative(Some(200)), 200),
            (Kind::Negative(Some(u32::MAX)), 300),
            (Kind::Negative(None), 5),
            (Kind::Failure, 30),
        ] {
            assert_eq!(bounds.ttl(kind), Duration::from_secs(seconds), "{kind:?}");
        }
        assert_eq!(memo(60, 3600, 10).bounds.ttl(Kind::Negative(Some(500))), Duration::from_secs(10));
    }

    #[tokio::test(start_paused = true)]
    async fn one_looks_up_while_the_others_wait() {
        let (memo, key, calls) = (Arc::new(memo(0, 3600, 300)), Arc::<str>::from("a"), Arc::new(AtomicU32::new(0)));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..100 {
            let (memo, key, calls) = (memo.clone(), key.clone(), calls.clone());
            tasks.spawn(async move {
                let lookup = async {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    (calls.fetch_add(1, Ordering::Relaxed), Kind::Positive(10))
                };
                memo.get(&key, lookup).await.value
            });
        }
        assert_eq!(tasks.join_all().await, vec![0; 100]);
        assert_eq!(calls.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_operator_who_says_now_has_failures_asked_for_again_and_no_answers() {
        let memo = memo(0, 3600, 300);
        let (failed, missing, found) = (Arc::from("a"), Arc::from("b"), Arc::from("c"));
        let ask = async |n: u32| {
            [
                memo.get(&failed, async { (n, Kind::Failure) }).await.value,
                memo.get(&missing, async { (n, Kind::Negative(Some(300))) }).await.value,
                memo.get(&found, async { (n, Kind::Positive(300)) }).await.value,
            ]
        };
        assert_eq!((ask(1).await, ask(2).await), ([1; 3], [1; 3]));
        tokio::time::advance(Duration::from_millis(1)).await;
        memo.forget_failures();
        assert_eq!(ask(3).await, [3, 3, 1]);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(ask(4).await, [3, 3, 1], "asked for once, not for ever");
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_takes_over_when_the_one_who_looks_up_is_dropped() {
        let (memo, key) = (Arc::new(memo(0, 3600, 300)), Arc::<str>::from("a"));
        let (first_memo, first_key) = (memo.clone(), key.clone());
        let first = tokio::spawn(async move {
            first_memo.get(&first_key, std::future::pending()).await;
        });
        tokio::task::yield_now().await;
        let second = tokio::spawn(async move { memo.get(&key, async { (2, Kind::Positive(10)) }).await.value });
        tokio::task::yield_now().await;
        first.abort();
        assert_eq!(second.await.unwrap(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn only_positive_answers_are_used_after_their_end() {
        for (kind, expected) in [(Kind::Positive(10), 1), (Kind::Negative(Some(10)), 2), (Kind::Failure, 2)] {
            let (memo, key) = (memo(0, 3600, 300), Arc::<str>::from("a"));
            assert_eq!(memo.get(&key, async { (1, kind) }).await.value, 1);
            tokio::time::advance(Duration::from_secs(31)).await;
            assert_eq!(memo.get(&key, async { (2, Kind::Failure) }).await.value, expected, "{kind:?}");
        }
    }
}
