//! Mail changes lanes: to the provider that a domain turned out to have; where the configuration leads now, from the
//! lane of a provider that it does not have any more; and, where limits hold for
//! each source address, to another source when its own takes no mail (it does not work, or the
//! day's number of its warm-up is reached and the rest is to leave from elsewhere).
//!
//! What moves goes into the other lane's memory while that has room, else back to the queue in that
//! lane's name, so that memory stays bounded; it is never an attempt. Mail only moves to a lane
//! that takes it, and stays there while it does, so nothing goes to and fro.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Relay;
use crate::deliver::{Event, Fact};
use crate::mail::LaneName;
use crate::queue::{Leased, QueueError};
use crate::route::{Route, Router};
use crate::schedule::{Held, Job, Lane, WINDOW, Ways, stored_in};

/// Recipients put back into the queue in one transaction.
const AT_ONCE: usize = 500;

/// Where what is claimed goes: out of a lane without a provider wherever the configuration leads, else from one
/// source to another.
pub(super) struct Claimed(pub(super) Arc<Router>);

impl Ways for Claimed {
    fn is_former(&self, lane: &LaneName) -> bool {
        self.0.is_former(lane)
    }

    fn elsewhere(&self, lane: &LaneName, item: &Leased) -> Option<LaneName> {
        match self.is_former(lane) {
            true => Some(self.0.lane_of(&*item.message, &item.recipient.address)),
            false => self.0.elsewhere(lane, item.message.envelope.reverse_path.as_ref()),
        }
    }
}

impl Relay {
    /// Whether the lane of a source takes mail now; other lanes always do.
    pub(super) fn takes(&self, lane: &LaneName) -> bool {
        self.connector.source_works(lane) && !self.scheduler.known(lane).is_some_and(|lane| lane.overflows())
    }

    /// A job goes where its route leads. From the lane of a domain whose provider became known all
    /// goes, in memory and in the queue. A domain that left its provider (its MX changed) takes
    /// nothing of the others along.
    pub(super) async fn move_to(&self, lane: &Arc<Lane>, route: &Route, job: Job) {
        if lane.name.as_domain().is_none() || lane.name.base() == route.lane.base() {
            lane.settled(job.recipients.len());
            self.hand_over(vec![(job, route.lane.clone())]).await;
            return self.scheduler.attend(lane);
        }
        let base = LaneName::from(route.lane.base());
        // Which source it leaves from is a matter of each sender.
        let to = |job: &Job| self.router.elsewhere(&base, job.sender()).unwrap_or_else(|| base.clone());
        let jobs = lane.surrender(job).into_iter().map(|job| (to(&job), job)).map(|(to, job)| (job, to));
        self.hand_over(jobs.collect()).await;
        self.move_stored(lane, base);
    }

    /// What the queue holds in the lane of a domain follows to the lane of its provider.
    fn move_stored(&self, lane: &Arc<Lane>, to: LaneName) {
        let (queue, scheduler) = (self.queue.clone(), self.scheduler.clone());
        let (from, to, now) = (lane.clone(), scheduler.lane(&to), self.clock.now());
        tokio::spawn(async move {
            // Mostly there is nothing: the writer need not be asked.
            if let Ok(None) = queue.lane_due(&from.name).await {
                return scheduler.attend(&from);
            }
            while let Ok(moved) = queue.move_lane(&from.name, &to.name, 1000).await {
                if moved == 0 {
                    break;
                }
                scheduler.note_stored(&to, now);
            }
            // What could not be moved goes job by job: nobody else may be left to ask for it.
            scheduler.attend(&from);
        });
    }

    /// When the source of a lane takes no mail, what waits in it goes to those that do: what is in
    /// memory here, what is in the queue as it is claimed. True if something went.
    pub async fn move_on(&self, lane: &Arc<Lane>) -> bool {
        if lane.name.source().is_none() {
            return false;
        }
        let stuck = lane.overflows_now().await || !self.connector.source_works(&lane.name);
        if !stuck || !self.router.another_takes(&lane.name) || lane.snapshot().paused {
            return false;
        }
        let mut moving = Vec::new();
        for job in lane.drain() {
            match self.router.elsewhere(&lane.name, job.sender()) {
                Some(to) => moving.push((job, to)),
                None => self.scheduler.wake(lane, lane.push([job])),
            }
        }
        let recipients: usize = moving.iter().map(|(job, _)| job.recipients.len()).sum();
        if recipients > 0 {
            let why = if lane.overflows() { "its warm-up has no room today" } else { "it does not work" };
            tracing::info!(
                provider = lane.name.base(),
                source = source(&lane.name),
                recipients,
                why,
                "what waits leaves from another source"
            );
        }
        self.hand_over(moving).await;
        self.scheduler.attend(lane);
        recipients > 0
    }

    /// Whether a job whose connection failed that way should be tried from another source now: its
    /// own does not work, and nobody has said a word. Who was told something must not come back from
    /// another address.
    pub(super) fn fails_over(&self, lane: &Lane, facts: &[Fact]) -> bool {
        lane.name.source().is_some()
            && !facts.iter().any(|fact| matches!(fact.event, Event::Reply(_)))
            && !self.connector.source_works(&lane.name)
            && self.router.another_takes(&lane.name)
    }

    /// Jobs that no lane has go to these.
    async fn hand_over(&self, jobs: Vec<(Job, LaneName)>) {
        let mut back: BTreeMap<LaneName, Vec<Job>> = BTreeMap::new();
        for (job, to) in jobs {
            let lane = self
                .scheduler
                .taking(&to, job.message.message.envelope.sender())
                .filter(|lane| lane.in_memory() + job.recipients.len() <= WINDOW);
            match lane {
                Some(lane) => self.scheduler.wake(&lane, lane.push([job])),
                None => back.entry(to).or_default().push(job),
            }
        }
        let now = self.clock.now();
        for (to, jobs) in back {
            let settle = |job: &Job| {
                let one = |held: &Held| stored_in(job.key(held.index), held.warned, &to, now);
                job.recipients.iter().map(one).collect::<Vec<_>>()
            };
            let settlements: Vec<_> = jobs.iter().flat_map(settle).collect();
            for some in settlements.chunks(AT_ONCE) {
                match self.persist(|| self.queue.settle(some.to_vec(), Vec::new())).await {
                    Ok(()) => {}
                    Err(QueueError::Closed) => return,
                    // They keep their leases, which end with the process.
                    Err(error) => {
                        tracing::error!(%error, lane = to.as_str(), "could not move what waits; the next start does it")
                    }
                }
            }
            self.scheduler.note(&to, now);
        }
    }
}

/// The source of a lane, for log lines; empty without one.
pub(super) fn source(lane: &LaneName) -> String {
    lane.source().map(|source| source.to_string()).unwrap_or_default()
}
