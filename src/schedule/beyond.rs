//! Mail that a limit holds back and for which there is no place beside it in memory: how it goes back
//! to the queue, and when it comes again. Pure.

use std::time::Duration;

use super::Job;
use crate::clock::Timestamp;
use crate::mail::LaneName;
use crate::queue::{Settlement, Verdict};

/// A job that its limits hold back and for which there is no place aside.
#[derive(Debug)]
pub struct Beyond {
    /// The job, which stays leased until it is settled.
    pub job: Job,
    /// What holds it back.
    pub by: String,
    /// When to bring it back, from when it was looked at.
    pub after: Duration,
    /// What is due within one such time may as well come together.
    pub block: Duration,
}

impl Beyond {
    /// When it comes again: at the beginning of a block, so that what comes together is in the order in
    /// which it was accepted; later than `now`, but not much later than it `expires`.
    pub fn due(&self, now: Timestamp, expires: Timestamp) -> Timestamp {
        let next = now.after(Duration::from_millis(1));
        block_of(now, self.after, self.block).min(expires.max(next))
    }

    /// The ends of its leases: it waits in `lane` until `due`, and that was no attempt.
    pub fn settlements<'a>(&'a self, lane: &'a LaneName, due: Timestamp) -> impl Iterator<Item = Settlement> + 'a {
        self.job.until(lane, due, format!("waits for {}", self.by))
    }
}

impl Job {
    /// The ends of its leases: it waits in `lane` until `due`, and that was no attempt.
    pub fn until<'a>(
        &'a self,
        lane: &'a LaneName,
        due: Timestamp,
        reason: String,
    ) -> impl Iterator<Item = Settlement> + 'a {
        self.recipients.iter().map(move |held| Settlement {
            key: self.key(held.index),
            verdict: Verdict::Deferred {
                due,
                reason: reason.clone(),
                counts: false,
                uncertain: false,
                warned: held.warned,
                lane: lane.clone(),
            },
        })
    }
}

/// The beginning of the block in which it should come; never now.
fn block_of(now: Timestamp, after: Duration, block: Duration) -> Timestamp {
    let block = i64::try_from(block.as_millis()).unwrap_or(i64::MAX).max(1);
    let at = now.after(after).0;
    let begin = at - at.rem_euclid(block);
    Timestamp(if begin > now.0 { begin } else { at.max(now.0 + 1) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_in_one_block_is_due_at_once_but_never_now() {
        let at = |now, after| block_of(Timestamp(now), Duration::from_millis(after), Duration::from_millis(100)).0;
        assert_eq!((at(50, 60), at(50, 149), at(50, 150)), (100, 100, 200));
        assert_eq!((at(50, 10), at(50, 0)), (60, 51));
    }
}
