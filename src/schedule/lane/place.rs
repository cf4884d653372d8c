//! The place in which the lane of a domain works, see [`crate::schedule::places`].

use std::time::Duration;

use super::{Lane, State};
use crate::schedule::places::Place;
use crate::shape::Held;

impl Lane {
    /// Whether it may work: it has a place, or needs none.
    pub fn has_place(&self) -> bool {
        self.name.as_domain().is_none() || self.state.lock().place.is_some()
    }

    /// Whether an operator has paused it.
    pub fn is_paused(&self) -> bool {
        self.state.lock().paused
    }

    /// It works here from now on.
    pub fn take_place(&self, place: Place) {
        let mut state = self.state.lock();
        let (proven, found) = (state.proven, state.found);
        state.place_sender = place.sender();
        let place = state.place.insert(place);
        if proven {
            place.prove();
        } else if found {
            place.found();
        }
    }

    /// Whose mail it had its last place for ([`crate::queue::turns::sender_number`]).
    pub fn place_sender(&self) -> usize {
        self.state.lock().place_sender
    }

    /// Leaves its place if it has nothing to do.
    pub fn leave_place(&self) {
        let mut state = self.state.lock();
        // Behind a pause nothing is to be done about what is stored.
        let paused = state.paused && state.ready.is_empty() && state.in_flight == 0 && !state.stored.claiming;
        if (paused || state.has_nothing_to_do()) && state.workers == 0 {
            // Another may have it at once, so not while this is locked.
            let place = state.place.take();
            drop(state);
            drop(place);
        }
    }

    /// Where the domain is, is known: others may look theirs up.
    pub fn found(&self) {
        let mut state = self.state.lock();
        state.found = true;
        if let Some(place) = &mut state.place {
            place.found();
        }
    }

    /// The domain takes mail, or does not any more. True if that is news.
    pub fn prove(&self, proven: bool) -> bool {
        let mut state = self.state.lock();
        let news = state.proven != proven;
        state.proven = proven;
        if news
            && proven
            && let Some(place) = &mut state.place
        {
            place.prove();
        }
        news
    }

    /// Whether the domain took mail lately. The lane of a provider is always thought to.
    pub fn is_proven(&self) -> bool {
        self.name.as_domain().is_none() || self.state.lock().proven
    }

    /// Whether mail of it was taken lately, and it was reached since whenever that was tried.
    pub fn takes_mail(&self) -> bool {
        self.state.lock().proven
    }

    /// Whether it is the lane of a domain and has nothing to do.
    pub fn is_over(&self) -> bool {
        self.name.as_domain().is_some() && self.state.lock().has_nothing_to_do()
    }

    /// Ends the workers that wait although there is nothing to do: somebody else needs the place.
    pub fn dismiss(&self) {
        if self.state.lock().has_nothing_to_do() {
            self.dismissed.notify_waiters();
        }
    }

    /// Ends all workers that wait.
    pub fn dismiss_all(&self) {
        self.dismissed.notify_waiters();
    }

    /// What holds it back for at least `long`, if nothing of it is under way.
    pub fn idle_behind(&self, long: Duration) -> Option<Held> {
        let state = self.state.lock();
        if state.ready.is_empty() || state.in_flight > 0 || state.place.is_none() {
            return None;
        }
        self.stopped(&state).filter(|held| held.wait >= long)
    }

    /// Returns when a worker that waits is to end.
    pub async fn dismissed(&self) {
        self.dismissed.notified().await;
    }

    /// Forgets that everything was refused, if nothing waits for that to end: there are too many such
    /// domains, and what is delivered next finds out again with a few messages.
    pub fn forget_circuit(&self) {
        let mut state = self.state.lock();
        if state.has_nothing_to_do() {
            state.circuit = None;
        }
    }

    /// What the queue holds is not the lane's to know any more. Returns what it knew.
    pub fn forget_stored(&self) -> Option<crate::clock::Timestamp> {
        self.state.lock().stored.due.take()
    }
}

impl State {
    fn has_nothing_to_do(&self) -> bool {
        self.ready.is_empty() && self.in_flight == 0 && self.stored.due.is_none() && !self.stored.claiming
    }
}
