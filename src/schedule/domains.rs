//! Lanes of domains, which are there only while they work.
//!
//! What waits for a domain is in the store. [`Turns`] go through it in order of sender and due time,
//! first attempts apart from others; when there is a place and the pace allows it, the lane whose
//! turn it is is made and claims. A lane that has nothing to do leaves its place and is forgotten; what
//! the store has for it is come to when it is due. Nothing here grows with the number of domains.

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::pace::{self, Pace};
use super::places::{Class, Places};
use super::turns::Turns;
use super::{Lane, QUEUE_TROUBLE, Scheduler, TIMER_MAX};
use crate::clock::Timestamp;
use crate::mail::LaneName;
use crate::queue::turns::{Turn, sender_number};

/// Domains that took mail lately and are remembered.
const PROVEN: u64 = 10_000;
/// For how long.
const PROVEN_FOR: Duration = Duration::from_secs(3600);
/// Lanes in memory at most besides those in places: with a rate that is still used up, or with
/// something that replies taught. When there are more no other begins.
const RESTING: usize = 2048;
/// Lanes begun in one go; then others have their turn.
const AT_ONCE: usize = 256;
/// How often lanes without work are forgotten.
const SWEEP: Duration = Duration::from_secs(1);
/// How often the store is asked what has come, at most; what waits meanwhile is known.
const LOOK: Duration = Duration::from_millis(20);
/// How often idle connections are closed for want of places, at most.
const DISMISS: Duration = Duration::from_millis(100);

/// What is known of the lanes of domains.
pub(super) struct Domains {
    pub(super) places: Arc<Places>,
    /// What was never tried, and the rest.
    fresh: Mutex<Turns>,
    tried: Mutex<Turns>,
    pace: Pace,
    proven: Cache<LaneName, ()>,
    times: Mutex<Times>,
}

/// When something was done last.
#[derive(Default)]
struct Times {
    swept: Option<Instant>,
    dismissed: Option<Instant>,
    /// Of first attempts, and of others.
    looked: [Option<Instant>; 2],
}

impl Domains {
    pub(super) fn new(places: Arc<Places>) -> Domains {
        Domains {
            places,
            fresh: Mutex::new(Turns::new(false)),
            tried: Mutex::new(Turns::new(true)),
            pace: Pace::new(),
            proven: Cache::builder().max_capacity(PROVEN).time_to_idle(PROVEN_FOR).build(),
            times: Mutex::default(),
        }
    }

    /// A message was taken from a client.
    pub(super) fn taken(&self) {
        self.pace.note();
    }

    fn turns(&self, class: Class) -> &Mutex<Turns> {
        if class == Class::Tried { &self.tried } else { &self.fresh }
    }
}

/// Whether at least `every` has passed since `last`; then it is now.
fn has_passed(last: &mut Option<Instant>, every: Duration) -> bool {
    let passed = last.is_none_or(|at| at.elapsed() >= every);
    if passed {
        *last = Some(Instant::now());
    }
    passed
}

impl Scheduler {
    /// The lane for mail that comes in, if it can go straight to memory.
    pub(super) fn admitting(&self, name: &LaneName, sender: &str) -> Option<Arc<Lane>> {
        if name.as_domain().is_none() {
            return Some(self.lane(name));
        }
        if let Some(lane) = self.known(name) {
            let works = lane.stopped_by().is_none() && self.seat(&lane, Class::Fresh, sender_number(sender));
            return works.then_some(lane);
        }
        // Nobody goes before those who wait, but to a domain that is known to take mail.
        if !self.domains.proven.contains_key(name) && self.domains.fresh.lock().is_waiting() {
            return None;
        }
        self.open(name, Class::Fresh, sender_number(sender))
    }

    /// The lane for mail that comes from another one, unless that has no place to work in.
    pub fn taking(&self, name: &LaneName, sender: &str) -> Option<Arc<Lane>> {
        match name.as_domain() {
            None => Some(self.lane(name)),
            Some(_) => self.open(name, Class::Fresh, sender_number(sender)),
        }
    }

    /// The lane of a domain, in a place.
    pub(super) fn open(&self, name: &LaneName, class: Class, sender: usize) -> Option<Arc<Lane>> {
        if let Some(lane) = self.known(name) {
            return self.seat(&lane, class, sender).then_some(lane);
        }
        if self.lanes.read().len() >= self.domains.places.total() + RESTING {
            return None;
        }
        let proven = self.domains.proven.contains_key(name);
        let place = proven.then(|| self.domains.places.take(Class::Proven, sender)).flatten();
        let place = place.or_else(|| self.domains.places.take(class, sender))?;
        let lane = self.lane(name);
        lane.prove(proven);
        lane.take_place(place);
        Some(lane)
    }

    /// Whether a lane has a place, or gets one.
    pub(super) fn seat(&self, lane: &Lane, class: Class, sender: usize) -> bool {
        if lane.has_place() {
            return true;
        }
        let class = if lane.is_proven() { Class::Proven } else { class };
        let place = self.domains.places.take(class, sender);
        place.is_some_and(|place| {
            lane.take_place(place);
            true
        })
    }

    /// The queue has something for a domain whose lane is not in memory.
    pub(super) fn note_waiting(&self, due: Timestamp) {
        let mut sooner = false;
        for turns in [&self.domains.fresh, &self.domains.tried] {
            sooner |= turns.lock().note(due);
        }
        if sooner {
            self.domains.places.changed.notify_one();
        }
    }

    /// What the queue has for a lane is come to in its turn.
    pub(super) fn wait_for_turn(&self, lane: &Lane) {
        if let Some(due) = lane.forget_stored() {
            self.note_waiting(due);
        }
    }

    /// After trouble with the queue nobody knows what is left of a lane.
    pub(super) fn wait_after_trouble(&self, lane: &Lane) {
        lane.forget_stored();
        let at = self.clock.now().after(QUEUE_TROUBLE);
        for turns in [&self.domains.fresh, &self.domains.tried] {
            turns.lock().again(at);
        }
        self.domains.places.changed.notify_one();
    }

    /// Everything that waits is looked at again: for leases that ended without a word.
    pub(super) fn go_through_domains_again(&self) {
        let now = self.clock.now();
        for turns in [&self.domains.fresh, &self.domains.tried] {
            turns.lock().again(now);
        }
    }

    /// A domain or a provider took mail, or could not be reached.
    pub fn prove(&self, lane: &Lane, proven: bool) {
        if lane.prove(proven) && lane.name.as_domain().is_some() {
            match proven {
                true => self.domains.proven.insert(lane.name.clone(), ()),
                false => self.domains.proven.invalidate(&lane.name),
            }
        }
    }

    /// Begins lanes whose turn it is, as far as there are places and the pace allows it; returns how
    /// long nothing is to do.
    pub(super) async fn begin_domains(self: &Arc<Scheduler>, reader: &mut pace::Reader) -> Duration {
        let classes = if fastrand::bool() { [Class::Fresh, Class::Tried] } else { [Class::Tried, Class::Fresh] };
        let mut wait = TIMER_MAX;
        for class in classes {
            wait = wait.min(self.begin_class(class, reader).await);
        }
        wait
    }

    async fn begin_class(self: &Arc<Scheduler>, class: Class, reader: &mut pace::Reader) -> Duration {
        let turns = self.domains.turns(class);
        for _ in 0..AT_ONCE {
            let now = self.clock.now();
            let also_new = {
                let looked = &self.domains.times.lock().looked[usize::from(class == Class::Tried)];
                looked.is_none_or(|at| at.elapsed() >= LOOK)
            };
            let look = turns.lock().look(now, also_new);
            if let Some(look) = look {
                self.domains.times.lock().looked[usize::from(class == Class::Tried)] = Some(Instant::now());
                match self.queue.turns(look).await {
                    Ok(found) => turns.lock().found(found),
                    Err(error) => {
                        tracing::warn!(%error, "could not read what waits for domains; trying again");
                        turns.lock().failed(now.after(QUEUE_TROUBLE));
                        return QUEUE_TROUBLE;
                    }
                }
            }
            // Senders that have as many places as they may are passed over until one is left.
            let places = &self.domains.places;
            let Some((turn, next)) = turns.lock().pop(|number| places.allows(class, Turn::sender(number))) else {
                let due = turns.lock().next_look();
                return due.map_or(TIMER_MAX, |due| due.since(now).max(if also_new { Duration::ZERO } else { LOOK }));
            };
            match self.known(&next.lane) {
                Some(lane) if lane.has_place() || lane.is_paused() => {
                    self.note_stored(&lane, next.due);
                    continue;
                }
                // Come to again when all is gone through again.
                Some(lane) if lane.stopped_by().is_some_and(|held| held.wait >= SWEEP) => continue,
                _ => {}
            }
            let paced = if self.domains.proven.contains_key(&next.lane) { Class::Proven } else { class };
            if !reader.allows(&self.domains.pace, paced) {
                turns.lock().put_back(turn, next);
                return pace::AGAIN;
            }
            let Some(lane) = self.open(&next.lane, class, Turn::sender(turn)) else {
                turns.lock().put_back(turn, next);
                self.dismiss_idle(class);
                // Woken when there is a place again.
                return TIMER_MAX.min(SWEEP);
            };
            lane.note_stored(next.due);
            self.attend(&lane);
        }
        Duration::ZERO
    }

    /// Ends connections without work when their places are needed.
    fn dismiss_idle(&self, class: Class) {
        let places = &self.domains.places;
        if (places.is_full(class) || places.is_full(Class::Proven))
            && has_passed(&mut self.domains.times.lock().dismissed, DISMISS)
        {
            self.lanes().iter().filter(|lane| lane.name.as_domain().is_some()).for_each(|lane| lane.dismiss());
        }
    }

    /// Whether there are many lanes in memory that only rest.
    pub(super) fn is_crowded(&self) -> bool {
        self.lanes.read().len() >= self.domains.places.total() + RESTING / 2
    }

    /// Forgets lanes of domains that have nothing to do.
    pub(super) fn sweep_domains(self: &Arc<Scheduler>) {
        if !has_passed(&mut self.domains.times.lock().swept, SWEEP) {
            return;
        }
        let held = |lane: &&Arc<Lane>| lane.name.as_domain().is_some() && lane.idle_behind(SWEEP).is_some();
        // In order of name, so that what follows is the same each time.
        let held: Vec<Arc<Lane>> = self.lanes().into_iter().filter(|lane| held(&lane)).collect();
        held.iter().for_each(|lane| self.shelve(lane));
        drop(held);
        let crowded = self.is_crowded();
        self.lanes.write().retain(|name, lane| {
            if name.as_domain().is_none() || Arc::strong_count(lane) > 1 {
                return true;
            }
            lane.leave_place();
            if crowded {
                lane.forget_circuit();
            }
            !lane.is_disposable()
        });
    }
}

#[cfg(test)]
#[path = "domains_tests.rs"]
mod tests;
