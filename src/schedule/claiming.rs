//! Bringing to memory what a lane has in the queue, as far as its window and the memory budget go.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::budget::Ticket;
use super::lane::FETCH;
use super::{
    Held, Job, Lane, QUEUE_TROUBLE, RECIPIENT_COST, Scheduler, Shared, WINDOW, destination, stored_in, window,
};
use crate::clock::Timestamp;
use crate::mail::LaneName;
use crate::queue::{HEADS_EACH, Leased, Settlement, Verdict};

/// Recipients a lane has in memory when the budget is used up, or two for each connection if those
/// are more: every lane must go on.
pub(super) const WITHOUT_BUDGET: usize = 8;
/// Recipients claimed at once when the budget has no room for the window.
const CLAIM_SMALL: usize = WINDOW / 16;

/// Recipients fetched at least, for a sender who has nothing in memory.
const FETCH_LEAST: usize = 2;

/// What is due so soon after it began to come in is new.
pub(crate) const NEW: Duration = Duration::from_secs(1);

impl Scheduler {
    /// Claims for a lane whose claim has begun, until it has enough or nothing more is due.
    pub(super) async fn claim(self: Arc<Scheduler>, lane: Arc<Lane>, mut now: Timestamp, mut room: usize) {
        let _under_way = self.claims.begin();
        loop {
            if self.claims_over.load(Ordering::SeqCst) {
                return;
            }
            let (most, ticket) = self.claimable(&lane, room);
            if most == 0 {
                lane.give_up_claim(now);
                // When one of those in memory has gone, it is asked again. Those that went until just now
                // could not ask: if they were the last, nobody else would.
                if lane.in_memory() == 0 {
                    self.attend(&lane);
                }
                return;
            }
            let former = self.is_former(&lane.name);
            let until = if former { Timestamp(i64::MAX) } else { now };
            match self.queue.claim(&lane.name, until, most).await {
                Ok(leased) => {
                    let domain = lane.name.as_domain().is_some();
                    let more = leased.len() >= most;
                    let due = if more {
                        Ok(Some(now))
                    } else if domain {
                        // What is due later is come to then.
                        Ok(None)
                    } else {
                        // Nothing more is due now; never ask again at once for what cannot be had.
                        let floor = now.after(Duration::from_millis(1));
                        self.queue.lane_due(&lane.name).await.map(|due| due.map(|d| d.max(floor)))
                    };
                    let leased = self.pass_on(&lane, leased, now).await;
                    drop(ticket);
                    let jobs = self.jobs(&lane, leased);
                    lane.fetched(&jobs, more);
                    let wake = lane.push(jobs);
                    self.wake(&lane, wake);
                    lane.end_claim(due.unwrap_or(Some(now.after(QUEUE_TROUBLE))));
                }
                Err(error) => {
                    tracing::warn!(lane = lane.name.as_str(), %error, "could not read the queue; trying again");
                    lane.end_claim(Some(self.clock.now().after(QUEUE_TROUBLE)));
                    if lane.name.as_domain().is_some() {
                        self.wait_after_trouble(&lane);
                        lane.leave_place();
                        break;
                    }
                }
            }
            now = self.clock.now();
            match lane.begin_claim(now, window(&lane)) {
                Some(more) => room = more,
                None => break,
            }
        }
        if lane.stored_due().is_some_and(|due| due > now) {
            self.attend(&lane);
        }
        if lane.name.as_domain().is_some() {
            lane.leave_place();
        }
    }

    /// How many of `room` recipients a lane may claim now, and what they cost, to be kept until they have
    /// tickets of their own: many lanes may be about to claim. None if it has enough in memory for a budget
    /// that is used up.
    fn claimable(&self, lane: &Lane, room: usize) -> (usize, Option<Ticket>) {
        // To fetch a sender who has nothing in memory little is enough.
        let fetch = if lane.wants_somebody() { &[FETCH, WITHOUT_BUDGET, FETCH_LEAST][..] } else { &[] };
        for most in [room, room.min(CLAIM_SMALL)].iter().chain(fetch).copied().filter(|most| *most <= room) {
            if let Some(ticket) = self.budget.reserve((RECIPIENT_COST + HEADS_EACH as u64) * most as u64) {
                return (most, Some(ticket));
            }
        }
        let (most, held) = (WITHOUT_BUDGET.max(2 * lane.provider.connections as usize), lane.in_memory());
        // Below half of it, so that claims come in batches here, too.
        (if held * 2 <= most { room.min(most - held) } else { 0 }, None)
    }

    /// Puts what is not to leave from this lane into others, in the queue: those claim it when it is due and they
    /// have room. Returns what stays.
    async fn pass_on(self: &Arc<Scheduler>, lane: &Lane, leased: Vec<Leased>, now: Timestamp) -> Vec<Leased> {
        let Some(ways) = self.ways.get() else { return leased };
        let (mut stays, mut goes) = (Vec::new(), Vec::new());
        for item in leased {
            match ways.elsewhere(&lane.name, &item) {
                Some(to) => goes.push((item, to)),
                None => stays.push(item),
            }
        }
        if goes.is_empty() {
            return stays;
        }
        let former = self.is_former(&lane.name);
        let settle = |(item, to): &(Leased, LaneName)| match former {
            true => passed_on(item, to),
            false => stored_in(item.key, item.warned, to, now),
        };
        match self.queue.settle(goes.iter().map(settle).collect(), Vec::new()).await {
            Ok(()) => {
                let mut lanes: BTreeMap<LaneName, Timestamp> = BTreeMap::new();
                for (item, to) in goes {
                    let due = if former { item.due } else { now };
                    let first = lanes.entry(to).or_insert(due);
                    *first = due.min(*first);
                }
                if former {
                    let to: Vec<&str> = lanes.keys().take(10).map(LaneName::as_str).collect();
                    tracing::info!(
                        provider = lane.name.as_str(),
                        lanes = lanes.len(),
                        to = to.join(" "),
                        "a provider is not configured any more: what waits for it goes where it belongs now"
                    );
                }
                for (name, due) in lanes {
                    self.note(&name, due);
                }
            }
            Err(error) => {
                // They are held by this process: a worker finds out where each belongs.
                tracing::warn!(lane = lane.name.as_str(), %error, "could not move mail to another lane; doing it one by one");
                stays.extend(goes.into_iter().map(|(item, _)| item));
            }
        }
        stays
    }

    /// Groups what was claimed: recipients of one message to one destination share a job.
    pub(super) fn jobs(&self, lane: &Lane, leased: Vec<Leased>) -> Vec<Job> {
        let mut jobs: Vec<Job> = Vec::new();
        let mut at: HashMap<(i64, Arc<str>), usize> = HashMap::new();
        let mut shared: HashMap<i64, Arc<Shared>> = HashMap::new();
        for item in leased {
            let id = item.key.id.0;
            let destination = destination(&lane.provider, &item.message, &item.recipient.address);
            let index = *at.entry((id, destination.clone())).or_insert_with(|| {
                let message = shared.entry(id).or_insert_with(|| {
                    let (head, ticket) = self.afford(RECIPIENT_COST * 2, item.head.as_ref());
                    Arc::new(Shared { message: item.message.clone(), head, ticket })
                });
                // What is new has been due since it came; a retry or what a limit put off since later.
                let waited = item.attempts > 0 || item.due > item.message.age_from().after(NEW);
                jobs.push(Job { waited, ..Job::new(message.clone(), destination) });
                jobs.len() - 1
            });
            jobs[index].recipients.push(Held {
                index: item.key.index,
                recipient: item.recipient,
                attempts: item.attempts,
                warned: item.warned,
                untried: 0,
            });
        }
        jobs
    }
}

/// The end of a lease: the recipient waits in lane `to` as it did before, with the due time and the last reply
/// that it has.
fn passed_on(item: &Leased, to: &LaneName) -> Settlement {
    let (due, warned, lane) = (item.due, item.warned, to.clone());
    let verdict = Verdict::Deferred { due, reason: String::new(), counts: false, uncertain: false, warned, lane };
    Settlement { key: item.key, verdict }
}
