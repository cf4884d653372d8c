//! How fast lanes of domains that are not known to work may begin while clients bring mail: what
//! waits anyway gives way to who waits for an answer.
//!
//! An attempt at a domain that does not answer costs one and a half times as much as a message that comes and
//! goes: a look-up, a lane, a claim and an outcome of its own. So for each three messages that come in one first
//! attempt may begin, and for each eight one further attempt; besides that a few of both a second. What comes in
//! keeps two thirds of what there is, or more. When nothing comes in nothing is held back.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::places::Class;

/// Messages for each first attempt, and for each further one.
const EACH_FRESH: f64 = 3.0;
const EACH_TRIED: f64 = 8.0;
/// Beginnings of a class a second that need no message.
const BASE: f64 = 50.0;
/// Beginnings that may be saved up.
const SAVED: f64 = 16.0;
/// Nothing comes in if nothing has for so long.
const QUIET: Duration = Duration::from_millis(200);
/// When to ask again after a no.
pub const AGAIN: Duration = Duration::from_millis(20);

/// The pace.
#[derive(Debug)]
pub struct Pace {
    /// Messages taken so far.
    taken: AtomicU64,
}

/// What its only reader knows.
#[derive(Debug)]
pub struct Reader {
    seen: u64,
    last: Option<Instant>,
    at: Instant,
    /// Beginnings that are allowed: of first attempts, and of others.
    fresh: f64,
    tried: f64,
}

impl Pace {
    /// Nothing came in yet.
    pub fn new() -> Pace {
        Pace { taken: AtomicU64::new(0) }
    }

    /// A client's message was taken.
    pub fn note(&self) {
        self.taken.fetch_add(1, Ordering::Relaxed);
    }
}

impl Reader {
    /// Begins now.
    pub fn new() -> Reader {
        Reader { seen: 0, last: None, at: Instant::now(), fresh: SAVED, tried: SAVED }
    }

    /// Whether one of `class` may begin now; if so it counts.
    pub fn allows(&mut self, pace: &Pace, class: Class) -> bool {
        let (now, taken) = (Instant::now(), pace.taken.load(Ordering::Relaxed));
        let came = taken.saturating_sub(self.seen);
        if came > 0 {
            self.seen = taken;
            self.last = Some(now);
        }
        let passed = now.duration_since(self.at).as_secs_f64();
        self.at = now;
        let came = came as f64;
        for (credit, came) in [(&mut self.fresh, came / EACH_FRESH), (&mut self.tried, came / EACH_TRIED)] {
            *credit = (*credit + came.min(1000.0) + passed * BASE).min(SAVED.max(came));
        }
        if self.last.is_none_or(|last| now.duration_since(last) >= QUIET) {
            return true;
        }
        let credit = match class {
            Class::Proven => return true,
            Class::Fresh => &mut self.fresh,
            Class::Tried => &mut self.tried,
        };
        let allowed = *credit >= 1.0;
        *credit -= if allowed { 1.0 } else { 0.0 };
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many begin in ten seconds with so many messages in each of them.
    async fn begun(messages: u32, class: Class) -> u32 {
        let (pace, mut reader) = (Pace::new(), Reader::new());
        let mut begun = 0;
        for tick in 0..1000 {
            tokio::time::advance(Duration::from_millis(10)).await;
            (0..messages / 100).for_each(|_| pace.note());
            for _ in 0..100 {
                begun += u32::from(reader.allows(&pace, class));
            }
            assert!(tick < 1000);
        }
        begun
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_gives_way_to_what_comes_in() {
        assert_eq!(begun(0, Class::Tried).await, 100_000, "nobody to give way to");
        let tried = begun(1000, Class::Tried).await;
        assert!((1700..1800).contains(&tried), "{tried} in ten seconds with 10,000 messages");
        let fresh = begun(1000, Class::Fresh).await;
        assert!((3_800..3_900).contains(&fresh), "{fresh} in ten seconds with 10,000 messages");
        let trickle = begun(100, Class::Tried).await;
        assert!((600..700).contains(&trickle), "{trickle} in ten seconds with 1,000 messages");
    }
}
