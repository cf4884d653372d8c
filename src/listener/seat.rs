//! The place that a session has among those of its listener: one of a client that may relay, or one of the few for
//! others. Who logs in changes the one for the other.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::server::Budget;
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
    /// Of a stranger: where there is another place.
    better: Option<Arc<Clients>>,
}

impl Seat {
    /// Of a client that may relay; else `better` are the places that it might have.
    pub fn new(held: (OwnedSemaphorePermit, Slot), better: Option<Arc<Clients>>) -> Seat {
        Seat { held: Some(held), better }
    }

    /// Takes a place among those who may relay, and gives back that of a stranger; false: there is none.
    pub fn promote(&mut self) -> bool {
        let Some(clients) = &self.better else { return true };
        let Ok(slot) = clients.slots.clone().try_acquire_owned() else { return false };
        let Some(descriptors) = clients.budget.session(true) else { return false };
        self.held = Some((slot, descriptors));
        self.better = None;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_logs_in_gives_back_the_place_of_a_stranger_and_needs_another() {
        let [slots, strangers] = [1, 2].map(|n| Arc::new(Semaphore::new(n)));
        let clients = Arc::new(Clients { slots: slots.clone(), budget: Budget::none() });
        let stranger = || {
            let permit = strangers.clone().try_acquire_owned().expect("a place");
            Seat::new((permit, Slot::uncounted()), Some(clients.clone()))
        };
        let (mut first, mut second) = (stranger(), stranger());
        assert_eq!((strangers.available_permits(), slots.available_permits()), (0, 1));
        assert!(first.promote() && first.promote(), "once more changes nothing");
        assert_eq!((strangers.available_permits(), slots.available_permits()), (1, 0));
        assert!(!second.promote(), "all are taken");
        drop(first);
        assert!(second.promote());
        drop(second);
        assert_eq!((strangers.available_permits(), slots.available_permits()), (2, 1));
    }
}
