//! What a connection waits for: told to operators while a host says nothing, and given up where other mail needs the
//! connection.
//!
//! Invariant: only a transaction whose message is not out yet is given up. It has not arrived, and will not.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Stage;
use crate::mail::{FeatureKeys, QueueId};

/// The answer that a transaction waits for, shared by its connection with whoever looks.
#[derive(Debug, Default)]
pub struct Awaited {
    waits: Mutex<Option<Waits>>,
    given_up: Notify,
}

#[derive(Clone, Copy, Debug)]
struct Waits {
    message: QueueId,
    features: FeatureKeys,
    stage: Stage,
    since: Instant,
    may_end: bool,
    given_up: Option<GivenUp>,
}

/// Why something is not waited for any longer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum GivenUp {
    /// Other mail needs the connection; it was waited for for so long.
    After(Duration),
    /// This process, or this configuration, ends.
    Leaving,
}

/// What [`Awaited`] shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Silence {
    /// The message of the transaction.
    pub message: QueueId,
    /// What the host has heard of it.
    pub features: FeatureKeys,
    /// What was said last, and has no answer.
    pub stage: Stage,
    /// For how long.
    pub lasts: Duration,
    /// It may be given up: the message is not out.
    pub may_end: bool,
}

impl Awaited {
    /// An answer is waited for from now on; `may_end`: the message is not out.
    pub(crate) fn begins(&self, (message, features): (QueueId, FeatureKeys), stage: Stage, may_end: bool) {
        let since = Instant::now();
        *self.waits.lock() = Some(Waits { message, features, stage, since, may_end, given_up: None });
    }

    /// It came, or is not waited for any more.
    pub(crate) fn ends(&self) {
        *self.waits.lock() = None;
    }

    /// What is waited for now.
    pub fn silence(&self) -> Option<Silence> {
        self.silence_of(Duration::ZERO, Instant::now())
    }

    /// The same if it is waited for for so long at `now`. Every message looks at all connections: the clock is read
    /// once for all.
    pub fn silence_of(&self, least: Duration, now: Instant) -> Option<Silence> {
        let waits = self.waits.lock();
        let Waits { message, features, stage, since, may_end, .. } = waits.as_ref()?;
        let lasts = now.saturating_duration_since(*since);
        if lasts < least {
            return None;
        }
        let features = if *stage > Stage::Mail { *features } else { features.at_mail() };
        Some(Silence { message: *message, features, stage: *stage, lasts, may_end: *may_end })
    }

    /// Nobody waits for it any longer; false: there is nothing of that message to be given up.
    pub fn give_up(&self, message: QueueId) -> bool {
        self.end(message, |waits| GivenUp::After(waits.since.elapsed()))
    }

    /// The same, because this end leaves: that says nothing of the host.
    pub fn leave(&self, message: QueueId) -> bool {
        self.end(message, |_| GivenUp::Leaving)
    }

    fn end(&self, message: QueueId, why: impl FnOnce(&Waits) -> GivenUp) -> bool {
        let mut waits = self.waits.lock();
        let Some(waits) = waits.as_mut().filter(|waits| waits.message == message && waits.may_end) else {
            return false;
        };
        waits.given_up = Some(why(waits));
        self.given_up.notify_one();
        true
    }

    /// Returns when what is waited for was given up, and why.
    pub(crate) async fn given_up(&self) -> GivenUp {
        loop {
            let notified = self.given_up.notified();
            // A word that came too late for what was waited for before says nothing of this.
            if let Some(why) = self.waits.lock().and_then(|waits| waits.given_up) {
                return why;
            }
            notified.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_what_is_waited_for_now_and_is_not_out_is_given_up() {
        let (awaited, of) = (Awaited::default(), |id| (QueueId(id), FeatureKeys::NONE));
        assert!(!awaited.give_up(QueueId(1)));
        awaited.begins(of(1), Stage::Final, false);
        assert!(!awaited.give_up(QueueId(1)));
        awaited.begins(of(2), Stage::Rcpt, true);
        assert!(!awaited.give_up(QueueId(1)) && awaited.give_up(QueueId(2)));
        // The answer came first; the word that is left over ends nothing else.
        awaited.ends();
        awaited.begins(of(3), Stage::Mail, true);
        let waits = tokio::time::timeout(Duration::from_secs(7), awaited.given_up());
        assert!(waits.await.is_err());
        assert!(awaited.give_up(QueueId(3)));
        assert_eq!(awaited.given_up().await, GivenUp::After(Duration::from_secs(7)));
        awaited.begins(of(4), Stage::Mail, true);
        assert!(awaited.leave(QueueId(4)));
        assert_eq!(awaited.given_up().await, GivenUp::Leaving);
    }
}
