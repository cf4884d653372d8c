//! How fast lanes of domains that are not known to work may begin while clients bring mail: what
//! waits anyway gives way to who waits for an answer.
//!
//! For each message that comes in one first attempt may begin, and for each four one further
//! attempt; besides that a few a second. When nothing comes in nothing is held back.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::places::Class;

/// Beginnings a second that need no message.
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
    credit: f64,
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
        Reader { seen: 0, last: None, at: Instant::now(), credit: SAVED }
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
        self.credit = (self.credit + came.min(1000) as f64 + passed * BASE).min(SAVED.max(came as f64));
        if self.last.is_none_or(|last| now.duration_since(last) >= QUIET) {
            return true;
        }
        let cost = match class {
            Class::Proven => 0.0,
            Class::Fresh => 1.0,
            Class::Tried => 4.0,
        };
        let allowed = self.credit >= cost;
        self.credit -= if allowed { cost } else { 0.0 };
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
        assert!((2500..2700).contains(&tried), "{tried} in ten seconds with 10,000 messages");
        let fresh = begun(1000, Class::Fresh).await;
        assert!((10_000..10_700).contains(&fresh), "{fresh} in ten seconds with 10,000 messages");
    }
}
