//! The place that a session has among those of its listener: one of a client that may relay, or one of the few for
//! strangers. Who logs in changes the one for the other.

use std::future::pending;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::places::Budget;
use super::strangers::Place;
use crate::descriptors::Slot;

/// The places of those who may relay.
pub(super) struct Clients {
    pub slots: Arc<Semaphore>,
    pub budget: Budget,
}

/// See the module. The default is a place that nobody counts.
#[derive(Default)]
pub(super) struct Seat {
    held: Option<(OwnedSemaphorePermit, Slot)>,
    /// Of a stranger, and where there is another one.
    stranger: Option<(Place, Arc<Clients>)>,
}

impl Seat {
    /// Of a client that may relay.
    pub fn of_client(slot: OwnedSemaphorePermit, descriptors: Slot) -> Seat {
        Seat { held: Some((slot, descriptors)), stranger: None }
    }

    /// Of a stranger; `better` are the places that it might have.
    pub fn of_stranger(place: Place, better: Arc<Clients>) -> Seat {
        Seat { held: None, stranger: Some((place, better)) }
    }

    /// Takes a place among those who may relay, and gives back that of a stranger; false: there is none, or somebody
    /// has taken that of the stranger.
    pub fn promote(&mut self) -> bool {
        let Some((place, clients)) = &self.stranger else { return true };
        let Ok(slot) = clients.slots.clone().try_acquire_owned() else { return false };
        let Some(descriptors) = clients.budget.session(true) else { return false };
        if !place.leave() {
            return false;
        }
        self.held = Some((slot, descriptors));
        self.stranger = None;
        true
    }

    /// The session has got on, on its way to a login.
    pub fn moved(&self) {
        if let Some((place, _)) = &self.stranger {
            place.moved();
        }
    }

    /// Whether the place can be taken away.
    pub fn can_be_lost(&self) -> bool {
        self.stranger.is_some()
    }

    /// Waits until that happens.
    pub fn lost(&self) -> impl Future<Output = ()> + use<> {
        let lost = self.stranger.as_ref().map(|(place, _)| place.lost());
        async move {
            match lost {
                Some(lost) => lost.await,
                None => pending().await,
            }
        }
    }

    /// The right to tell a client that its place was taken away; `None`: too many are told already.
    pub fn goodbye(&self) -> Option<OwnedSemaphorePermit> {
        self.stranger.as_ref().and_then(|(place, _)| place.goodbye())
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::super::strangers::{Entered, GRACE, Strangers};
    use super::*;

    #[test]
    fn who_logs_in_gives_back_the_place_of_a_stranger_and_needs_another() {
        let slots = Arc::new(Semaphore::new(1));
        let strangers = Arc::new(Strangers::new(2, Some(2), Arc::new(Semaphore::new(1))));
        let clients = Arc::new(Clients { slots: slots.clone(), budget: Budget::none() });
        let stranger = |now| match strangers.enter([192, 0, 2, 1].into(), now) {
            Entered::In(place) | Entered::InPlaceOf(place) => Seat::of_stranger(place, clients.clone()),
            Entered::Full => panic!("no place"),
        };
        let now = Instant::now();
        let (mut first, mut second) = (stranger(now), stranger(now));
        assert_eq!((strangers.taken(), slots.available_permits()), (2, 1));
        assert!(first.promote() && first.promote(), "once more changes nothing");
        assert_eq!((strangers.taken(), slots.available_permits()), (1, 0));
        assert!(!second.promote(), "all are taken");
        drop(first);
        assert!(second.promote());
        drop(second);
        assert_eq!((strangers.taken(), slots.available_permits()), (0, 1));
        // Who has lost his place to another gets none by a login.
        let mut slow = [stranger(now), stranger(now)];
        let _quick = [stranger(now + GRACE), stranger(now + GRACE)];
        assert!(slow.iter_mut().all(|seat| !seat.promote()));
        assert_eq!((strangers.taken(), slots.available_permits()), (2, 1));
    }
}
