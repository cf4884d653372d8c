//! The window in which a message sent again gets the first queue id (`dedupe`, off by default).
//!
//! A client that never saw the `250` (RFC 1047) sends its message once more. Within the window a
//! message with the same sender, recipients, Message-ID and content is answered like the first and
//! not queued again. Two copies that race wait for one another: whoever comes second gets the id
//! of the first, or, when the first failed, is queued itself. Messages without a Message-ID are
//! never taken for copies.
//!
//! Keys are 128 bits: a SipHash with keys that are random for each process, and the size. The
//! number of entries is bounded; an entry that is pushed out early makes a duplicate, never a loss.

use std::collections::hash_map::RandomState;
use std::future::Future;
use std::hash::{BuildHasher, DefaultHasher, Hash};
use std::time::Duration;

use moka::future::Cache;
use moka::ops::compute::{CompResult, Op};

use crate::clock::{Clock, Timestamp};
use crate::mail::{Envelope, QueueId, Recipient, TlsWish};
use crate::queue::QueueError;

const MAX_ENTRIES: u64 = 100_000;

/// The memory of what was accepted lately.
#[derive(Debug)]
pub struct Dedupe {
    window: Duration,
    clock: Clock,
    keys: RandomState,
    seen: Cache<(u64, u64), (QueueId, Timestamp)>,
}

/// The id to answer with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Once {
    /// The message was queued now.
    First(QueueId),
    /// It had been queued before, under this id.
    Again(QueueId),
}

impl Dedupe {
    /// `window` counts from the acceptance of the first copy.
    pub fn new(window: Duration, clock: Clock) -> Dedupe {
        // moka's own clock only clears up; whether an entry still counts is decided by `clock`.
        let seen = Cache::builder().max_capacity(MAX_ENTRIES).time_to_live(window).build();
        Dedupe { window, clock, keys: RandomState::new(), seen }
    }

    /// Begins the fingerprint of a message of this envelope; its content is written to it next.
    pub fn begin(&self, envelope: &Envelope, recipients: &[Recipient]) -> DefaultHasher {
        let mut hasher = self.keys.build_hasher();
        envelope.sender().hash(&mut hasher);
        // One that left unprotected is no copy of one that must not.
        (envelope.tls == TlsWish::Required).hash(&mut hasher);
        recipients.len().hash(&mut hasher);
        for recipient in recipients {
            recipient.address.hash(&mut hasher);
        }
        hasher
    }

    /// Runs `accept` unless a message of this fingerprint and size was accepted within the window.
    pub async fn once<F>(&self, fingerprint: u64, size: u64, accept: F) -> Result<Once, QueueError>
    where
        F: Future<Output = Result<QueueId, QueueError>> + Send,
    {
        let now = self.clock.now();
        let result = self
            .seen
            .entry((fingerprint, size))
            .and_try_compute_with(|known| async move {
                match known.map(|entry| entry.into_value()) {
                    Some((_, at)) if now.since(at) < self.window => Ok(Op::Nop),
                    _ => accept.await.map(|id| Op::Put((id, self.clock.now()))),
                }
            })
            .await?;
        match result {
            CompResult::Inserted(entry) | CompResult::ReplacedWith(entry) => Ok(Once::First(entry.into_value().0)),
            CompResult::Unchanged(entry) => Ok(Once::Again(entry.into_value().0)),
            // Only an operation that removes can end here.
            CompResult::Removed(_) | CompResult::StillNone(_) => {
                Err(QueueError::Unavailable("the dedupe window lost an entry".into()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::Hasher;
    use std::sync::atomic::{AtomicI64, Ordering};

    #[test]
    fn the_fingerprint_does_not_depend_on_how_content_was_cut() {
        let dedupe = Dedupe::new(Duration::from_secs(1), Clock::System);
        let content: Vec<u8> = (0u8..200).collect();
        let whole = {
            let mut h = dedupe.begin(&Envelope::default(), &[]);
            h.write(&content);
            h.finish()
        };
        for cut in 0..content.len() {
            let mut h = dedupe.begin(&Envelope::default(), &[]);
            h.write(&content[..cut]);
            h.write(&content[cut..]);
            assert_eq!(h.finish(), whole, "{cut}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_copy_within_the_window_gets_the_first_id() {
        let dedupe = Dedupe::new(Duration::from_secs(60), Clock::for_tests());
        let next = AtomicI64::new(1);
        let accept = || async { Ok(QueueId(next.fetch_add(1, Ordering::Relaxed))) };
        assert_eq!(dedupe.once(7, 1, accept()).await.unwrap(), Once::First(QueueId(1)));
        assert_eq!(dedupe.once(7, 1, accept()).await.unwrap(), Once::Again(QueueId(1)));
        assert_eq!(dedupe.once(8, 1, accept()).await.unwrap(), Once::First(QueueId(2)));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(dedupe.once(7, 1, accept()).await.unwrap(), Once::First(QueueId(3)));
    }

    #[tokio::test(start_paused = true)]
    async fn copies_that_race_are_queued_once_and_a_failure_lets_the_next_try() {
        let dedupe = Dedupe::new(Duration::from_secs(60), Clock::for_tests());
        let slow = |result: Result<QueueId, QueueError>| async move {
            tokio::time::sleep(Duration::from_secs(5)).await;
            result
        };
        let (a, b) = tokio::join!(dedupe.once(1, 1, slow(Ok(QueueId(10)))), dedupe.once(1, 1, slow(Ok(QueueId(11)))),);
        let mut ids = [a.unwrap(), b.unwrap()];
        ids.sort_by_key(|o| matches!(o, Once::Again(_)));
        assert!(matches!(ids, [Once::First(first), Once::Again(again)] if first == again), "{ids:?}");
        let (a, b) =
            tokio::join!(dedupe.once(2, 1, slow(Err(QueueError::Closed))), dedupe.once(2, 1, slow(Ok(QueueId(12)))),);
        assert!(a.is_err());
        assert_eq!(b.unwrap(), Once::First(QueueId(12)));
    }
}
