//! Large writes take turns, so that they do not stand before everybody else's small ones.
//!
//! The writer takes all that waits in one transaction, and everybody in it waits for its commit.
//! With chunks of hundreds of uploads in there that takes half a second, while a short message
//! alone takes a fraction of a millisecond. So a large write waits here for its turn before it goes
//! to the writer at all:
//!
//! - While only large writes come, [`ALONE`] of them are under way at once: as fast as the disk.
//! - While small ones come as well, one or two are, and for twice as long as they took there is none: the
//!   writer has two thirds of its time for small writes. A merge of the log that is due to large writes
//!   counts as one of them.
//! - Turns are given in the order of asking.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::queue::QueueError;

/// A write of more bytes is large.
const LARGE: usize = 32 * 1024;

/// Large writes under way at once.
const ALONE: u32 = 16;
/// Of these, what each takes while small writes come as well: so two are under way.
const BESIDE: u32 = ALONE / 2;

/// For so long after a small write others are expected.
const LIVELY: Duration = Duration::from_millis(50);

/// Whether a write of so many bytes is large.
pub(super) fn is_large(bytes: usize) -> bool {
    bytes > LARGE
}

/// See the module.
#[derive(Debug)]
pub(super) struct Turns {
    free: Arc<Semaphore>,
    origin: Instant,
    /// When the last small write came, in µs from `origin` plus one; 0: none did.
    small: AtomicU64,
    /// Until when no turn begins, in µs from `origin`.
    rest: AtomicU64,
}

impl Default for Turns {
    fn default() -> Turns {
        Turns::new()
    }
}

impl Turns {
    pub(super) fn new() -> Turns {
        Turns {
            free: Arc::new(Semaphore::new(ALONE as usize)),
            origin: Instant::now(),
            small: AtomicU64::new(0),
            rest: AtomicU64::new(0),
        }
    }

    /// The turn of a write of so many bytes; `None`: it is small and needs none. To be kept until
    /// the write is committed.
    ///
    /// # Errors
    /// The queue is closed.
    pub(super) async fn of(&self, bytes: usize) -> Result<Option<Turn>, QueueError> {
        if !is_large(bytes) {
            let now = u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX - 1);
            self.small.store(now + 1, Ordering::Relaxed);
            return Ok(None);
        }
        let share = if self.is_lively() { BESIDE } else { 1 };
        let permit = self.free.clone().acquire_many_owned(share).await.map_err(|_| QueueError::Closed)?;
        loop {
            let rest = Duration::from_micros(self.rest.load(Ordering::Relaxed));
            if rest <= self.origin.elapsed() || !self.is_lively() {
                break;
            }
            tokio::time::sleep_until(self.origin + rest).await;
        }
        Ok(Some(Turn { permit, began: Instant::now() }))
    }

    /// Ends a turn. While small writes come, nobody else has it for twice as long as it took.
    pub(super) fn end(&self, turn: Turn) {
        if !self.is_lively() {
            return;
        }
        let rest = turn.began.elapsed() * 2;
        // At most as many of these as there are turns.
        tokio::spawn(async move {
            tokio::time::sleep(rest).await;
            drop(turn.permit);
        });
    }

    /// A merge of the log that took so long was due to large writes: they rest for it while small ones come.
    pub(super) fn merged(&self, took: Duration) {
        let until = u64::try_from((self.origin.elapsed() + took).as_micros()).unwrap_or(u64::MAX);
        if took > Duration::ZERO {
            self.rest.fetch_max(until, Ordering::Relaxed);
        }
    }

    /// From now on there are no turns.
    pub(super) fn close(&self) {
        self.free.close();
    }

    fn is_lively(&self) -> bool {
        match self.small.load(Ordering::Relaxed) {
            0 => false,
            last => self.origin.elapsed() < Duration::from_micros(last - 1) + LIVELY,
        }
    }
}

/// Leave to write; see [`Turns::of`].
#[derive(Debug)]
pub(super) struct Turn {
    permit: OwnedSemaphorePermit,
    began: Instant,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{Future, poll_fn};
    use std::pin::pin;
    use std::task::Poll;

    const CHUNK: usize = 256 * 1024;

    /// The turns that can be had now.
    async fn at_once(turns: &Turns) -> Vec<Turn> {
        let mut had = Vec::new();
        loop {
            let mut next = pin!(turns.of(CHUNK));
            match poll_fn(|context| Poll::Ready(next.as_mut().poll(context))).await {
                Poll::Ready(turn) => had.extend(turn.expect("open")),
                Poll::Pending => return had,
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn large_writes_leave_two_thirds_of_the_time_to_small_ones() {
        let turns = Turns::new();
        let alone = at_once(&turns).await;
        assert_eq!(alone.len(), ALONE as usize);
        drop(alone);

        for size in [0, LARGE] {
            assert!(turns.of(size).await.expect("open").is_none(), "a small one never waits");
        }
        let beside = at_once(&turns).await;
        assert_eq!(beside.len(), 2);
        tokio::time::advance(Duration::from_millis(20)).await;
        for turn in beside {
            turns.end(turn);
        }
        let (began, mut done) = (Instant::now(), 0);
        while done < 2 {
            done += turns.of(CHUNK).await.expect("open").is_some() as u32;
        }
        // What the turns before took, on top of what a timer of tokio may be late.
        assert!(began.elapsed() >= Duration::from_millis(40), "{:?}", began.elapsed());

        assert!(turns.of(1).await.expect("open").is_none());
        turns.merged(Duration::from_millis(30));
        assert_eq!(at_once(&turns).await.len(), 0, "while the merge is paid for");
        tokio::time::advance(Duration::from_millis(30)).await;
        assert_eq!(at_once(&turns).await.len(), 2);

        turns.merged(Duration::from_secs(1));
        tokio::time::advance(LIVELY).await;
        assert_eq!(at_once(&turns).await.len(), ALONE as usize, "alone again");
    }

    #[tokio::test]
    async fn who_waits_for_a_turn_hears_that_the_queue_is_closed() {
        let turns = Turns::new();
        let _all = at_once(&turns).await;
        let (waits, ()) = tokio::join!(turns.of(CHUNK), async { turns.close() });
        assert!(matches!(waits, Err(QueueError::Closed)));
    }
}
