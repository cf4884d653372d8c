//! Mail of domains that something holds back for long goes back to the queue: in memory it would keep
//! a place from domains that could have theirs.

use std::sync::Arc;
use std::time::Duration;

use super::{Job, Lane, Scheduler};
use crate::clock::Timestamp;
use crate::queue::{Settlement, Verdict};

/// Who is held back for less keeps what it has in memory.
const LONG: Duration = Duration::from_secs(20);
/// It is looked at again after so long at the latest: what holds it back may have ended.
const AT_MOST: Duration = Duration::from_secs(900);

impl Scheduler {
    /// Puts what waits in the lane of a domain back, if that is held back for long and nothing of it is
    /// under way.
    pub(super) fn shelve(self: &Arc<Scheduler>, lane: &Arc<Lane>) {
        let Some(held) = lane.idle_behind(LONG) else { return };
        let now = self.clock.now();
        // What has expired meanwhile stays: it is ended where it is, see `Relay::expire_held`.
        let expire = lane.provider.retry.expire;
        let is_old = |job: &Job| job.message.message.age_from().after(expire) <= now;
        let (old, jobs): (Vec<Job>, Vec<Job>) = lane.drain().into_iter().partition(is_old);
        for job in old.into_iter().rev() {
            self.wake(lane, lane.put_back(job));
        }
        if jobs.is_empty() {
            return;
        }
        // Behind a pause nobody knows when: whoever ends it asks.
        let due = if lane.is_paused() { now } else { now.after(held.wait.min(AT_MOST)) };
        lane.take_in_hand(recipients(&jobs));
        lane.dismiss_all();
        let (scheduler, lane, by) = (self.clone(), lane.clone(), held.by);
        tokio::spawn(async move {
            let settlements = jobs.iter().flat_map(|job| waits(job, &lane, due, &by)).collect();
            match scheduler.queue.settle(settlements, Vec::new()).await {
                Ok(()) => {
                    lane.settled(recipients(&jobs));
                    scheduler.note_stored(&lane, due);
                }
                Err(error) => {
                    tracing::warn!(lane = lane.name.as_str(), %error, "could not put back what is held up; it stays in memory");
                    for job in jobs.into_iter().rev() {
                        scheduler.wake(&lane, lane.give_back(job));
                    }
                }
            }
        });
    }
}

fn recipients(jobs: &[Job]) -> usize {
    jobs.iter().map(|job| job.recipients.len()).sum()
}

/// It waits until `due`, and that was no attempt.
fn waits<'a>(job: &'a Job, lane: &'a Lane, due: Timestamp, by: &'a str) -> impl Iterator<Item = Settlement> + 'a {
    job.recipients.iter().map(move |held| {
        let (reason, lane) = (format!("waits for the end of {by}"), lane.name.clone());
        let verdict = Verdict::Deferred { due, reason, counts: false, uncertain: false, warned: held.warned, lane };
        Settlement { key: job.key(held.index), verdict }
    })
}
