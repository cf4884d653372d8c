//! Mail that a limit holds back goes back to the queue when too much of it would wait in memory: it is
//! due again about when the limit lets it pass, and until then it takes no room from others.

use std::sync::Arc;
use std::time::Duration;

use super::record::Attempt;
use super::{Hand, Relay};
use crate::clock::Timestamp;
use crate::deliver::{Event, Fact, Stage};
use crate::mail::RecipientKey;
use crate::queue::{QueueError, Settlement};
use crate::schedule::lane::Beyond;
use crate::schedule::{Empty, Job, Lane};

/// Recipients put back in one transaction.
const AT_ONCE: usize = 200;

impl Relay {
    /// The next job of a worker. On the way it puts back what waits for a limit and finds no place.
    pub(super) async fn next_job(&self, hand: &Hand, serves: Option<&str>, idle: Duration) -> Option<Job> {
        let lane = &hand.lane;
        loop {
            match lane.next(serves, idle).await {
                Ok((job, wake)) => {
                    self.scheduler.wake(lane, wake);
                    return Some(job);
                }
                Err(Empty::Idle) => return None,
                // Cut short by the end of the relay, the leases end with the queue.
                Err(Empty::Beyond) => self.put_off(lane, lane.take_beyond()).await,
            }
        }
    }

    /// Puts back what was claimed before its time, as mail of a provider that is gone from the configuration may be.
    /// True: the worker has nothing in hand.
    pub(super) async fn is_too_early(&self, hand: &Hand, attempt: &mut Attempt) -> bool {
        let (lane, now) = (&hand.lane, self.clock.now());
        let Some(due) = attempt.job.message.message.envelope.release.filter(|release| *release > now) else {
            return false;
        };
        hand.not_needed(&mut attempt.job);
        let settlements: Vec<Settlement> = attempt.job.until(&lane.name, due, String::new()).collect();
        // Whatever else becomes of it, it does not leave now: the lease ends with the queue.
        if let Err(error) = self.persist(|| self.queue.settle(settlements.clone(), Vec::new())).await {
            tracing::error!(id = %attempt.job.message.message.id, %error, "what came before its time could not be put back");
        }
        lane.settled(settlements.len());
        hand.empty();
        self.scheduler.note_stored(lane, due);
        true
    }

    /// Puts jobs back into the queue until their time has come.
    async fn put_off(&self, lane: &Arc<Lane>, beyond: Vec<Beyond>) {
        let now = self.clock.now();
        let (mut settlements, mut earliest) = (Vec::new(), None::<Timestamp>);
        for beyond in beyond {
            let expires = beyond.job.message.message.age_from().after(lane.provider.retry.expire);
            if expires <= now {
                let mut attempt = Attempt::new(beyond.job, now);
                attempt.everyone(Fact { stage: Stage::Route, event: Event::Held(beyond.by), peer: None });
                self.settle(lane, attempt, None).await;
                continue;
            }
            let due = beyond.due(now, expires);
            earliest = Some(earliest.map_or(due, |earliest| earliest.min(due)));
            settlements.extend(beyond.settlements(&lane.name, due));
        }
        for some in settlements.chunks(AT_ONCE) {
            match self.persist(|| self.queue.settle(some.to_vec(), Vec::new())).await {
                Ok(()) => {}
                Err(QueueError::Closed) => return,
                Err(error) => {
                    let keys: Vec<RecipientKey> = some.iter().map(|settlement| settlement.key).collect();
                    self.put_aside(&keys, &format!("the queue refuses to keep it for later: {error}")).await;
                }
            }
            lane.settled(some.len());
        }
        match earliest {
            Some(due) => self.scheduler.note_stored(lane, due),
            None => self.scheduler.attend(lane),
        }
    }
}
