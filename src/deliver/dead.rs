//! Addresses that did not answer, and for how long each is left alone: half a minute at first, twice
//! as long after every further failure, an hour at most, and never longer than the provider's retry
//! schedule would wait.
//!
//! Bounded: so many addresses are remembered; one that nobody tries is forgotten.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use moka::sync::Cache;
use tokio::time::Instant;

use super::fact::Event;
use crate::config::Provider;

/// How long an address is left alone: at first, and at most.
const FIRST: Duration = Duration::from_secs(30);
const LONGEST: Duration = Duration::from_secs(3600);
/// When a dead address that nobody tried is forgotten.
const FORGET: Duration = Duration::from_secs(2 * 3600);
/// How long the one that probes a dead address keeps the others away.
const PROBE: Duration = Duration::from_secs(60);
/// A refusal by an address that has answered so lately does not tell that it is dead.
const ALIVE: Duration = Duration::from_secs(60);
/// Addresses remembered.
const MAX: u64 = 10_000;

/// From where, if limits hold for each source, to where: an address that does not answer the one
/// may answer the other.
pub(super) type Way = (Option<IpAddr>, SocketAddr);

/// What is known of an address that did not answer.
#[derive(Clone)]
pub(super) struct BackOff {
    /// Failures in a row.
    times: u32,
    /// Left alone until then.
    pub until: Instant,
    /// Somebody is probing it.
    probing: bool,
    /// What happened.
    pub why: Event,
}

impl BackOff {
    /// For how much longer it is left alone.
    pub fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }
}

/// The memory of the whole program.
pub(super) struct DeadAddresses {
    dead: Cache<Way, BackOff>,
    alive: Cache<Way, Instant>,
}

impl DeadAddresses {
    /// All are thought to be alive.
    pub fn new() -> DeadAddresses {
        DeadAddresses {
            dead: Cache::builder().max_capacity(MAX).time_to_live(FORGET).build(),
            alive: Cache::builder().max_capacity(MAX).time_to_live(ALIVE).build(),
        }
    }

    /// What is known against it.
    pub fn get(&self, way: Way) -> Option<BackOff> {
        self.dead.get(&way)
    }

    /// Whether anything is.
    pub fn contains(&self, way: Way) -> bool {
        self.dead.contains_key(&way)
    }

    /// Forgets everything that is known against any address.
    pub fn forget(&self) {
        self.dead.invalidate_all();
    }

    /// Somebody tries it now; others are kept away meanwhile.
    pub fn probe(&self, way: Way, known: BackOff) {
        self.dead.insert(way, BackOff { until: Instant::now() + PROBE, probing: true, ..known });
    }

    /// It answered.
    pub fn answered(&self, way: Way) {
        self.dead.invalidate(&way);
        self.alive.insert(way, Instant::now());
    }

    /// Whether it has answered lately; once only, so that a second refusal counts.
    pub fn take_alive(&self, way: Way) -> bool {
        self.alive.remove(&way).is_some_and(|at| at.elapsed() < ALIVE)
    }

    /// Counts a failure, once for all that were under way at the same time.
    pub fn failed(&self, way: Way, why: &Event, provider: &Provider) {
        let before = self.dead.get(&way).filter(|dead| dead.until.elapsed() < FORGET);
        if before.as_ref().is_some_and(|dead| !dead.probing && !dead.left().is_zero()) {
            return;
        }
        let times = before.map_or(0, |dead| dead.times);
        let (first, longest) = (FIRST.min(provider.retry.first), LONGEST.min(provider.retry.max));
        let wait = first.saturating_mul(1 << times.min(10)).min(longest);
        let (until, why) = (Instant::now() + wait, why.clone());
        self.dead.insert(way, BackOff { times: times.saturating_add(1), until, probing: false, why });
    }
}
