//! The places that a listener has for sessions: `max_connections` for clients that may relay, and a few beside them
//! for strangers. Each has its part of the budget of descriptors.
//!
//! Others can cause these refusals again and again: they are told once in a while, with their number.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::policy::stranger_sessions;
use super::seat::{Clients, Seat};
use super::strangers::{Entered, Strangers};
use super::submit::Shared;
use crate::config::{ListenAddress, ListenerTlsMode};
use crate::descriptors::{self, Descriptors, Slot};
use crate::mail::Caller;

/// Refused connections that are closed politely at the same time; further ones are just closed.
const MAX_REFUSALS: usize = 64;

/// How often the same is told again.
const TELL_AGAIN: Duration = Duration::from_secs(10);
/// The same of strangers, who can be many.
const TELL_OF_STRANGERS: Duration = Duration::from_secs(60);

/// See the module.
pub(super) struct Places {
    shared: Arc<Shared>,
    /// Of those who may relay.
    most: usize,
    clients: Arc<Clients>,
    strangers: Arc<Strangers>,
    /// For a last word to those who have no place.
    refusals: Arc<Semaphore>,
    told: Mutex<Told>,
}

/// What was told last, and what has happened since.
#[derive(Default)]
struct Told {
    no_descriptors: Option<Instant>,
    no_place: Option<Instant>,
    refused: u64,
    strangers: Option<Instant>,
    strangers_refused: u64,
    strangers_replaced: u64,
}

/// Whether it is time to tell it again.
fn is_due(last: &mut Option<Instant>, every: Duration) -> bool {
    let due = last.is_none_or(|at| at.elapsed() >= every);
    if due {
        *last = Some(Instant::now());
    }
    due
}

impl Places {
    /// `most`: sessions that the engine can have of those who may relay.
    pub fn new(shared: Arc<Shared>, most: usize) -> Places {
        let budget = Budget::of(&shared);
        let (few, politely) = budget.beside(stranger_sessions(most));
        let refusals = Arc::new(Semaphore::new(politely));
        let of_a_network = shared.listener.max_strangers_per_network;
        Places {
            most,
            clients: Arc::new(Clients { slots: Arc::new(Semaphore::new(most)), budget }),
            strangers: Arc::new(Strangers::new(few, of_a_network, refusals.clone())),
            refusals,
            told: Mutex::default(),
            shared,
        }
    }

    /// Sessions that have a place.
    pub fn open(&self) -> usize {
        self.most - self.clients.slots.available_permits() + self.strangers.taken()
    }

    /// Whether this address is of a proxy that tells whose its connections are.
    pub fn is_proxy(&self, ip: IpAddr) -> bool {
        self.shared.policy.is_proxy(ip)
    }

    /// Whoever waits for a handshake could not read a reply in clear text.
    pub fn is_speechless(&self) -> bool {
        self.shared.listener.tls.as_ref().is_some_and(|tls| tls.mode == ListenerTlsMode::Implicit)
    }

    /// The right to tell a client why it is turned away; `None`: it could not hear it, or too many are told already.
    pub fn last_word(&self, speechless: bool) -> Option<OwnedSemaphorePermit> {
        if speechless { None } else { self.refusals.clone().try_acquire_owned().ok() }
    }

    /// A place for whoever has connected: of a proxy that has yet to say for whom, one of those who may relay.
    pub fn first_seat(&self, caller: Caller) -> Option<Seat> {
        if self.is_proxy(caller.ip()) { self.of_client(caller) } else { self.seat(caller) }
    }

    /// The place of the client for whom a proxy has connected, which had `seat` so far.
    pub fn seat_behind_proxy(&self, seat: Seat, client: Caller) -> Option<Seat> {
        if self.shared.policy.may_stay(client.ip()) {
            return Some(seat);
        }
        drop(seat);
        self.of_stranger(client)
    }

    /// A place for a client; `None`: there is none, and that was told.
    fn seat(&self, caller: Caller) -> Option<Seat> {
        if self.shared.policy.may_stay(caller.ip()) { self.of_client(caller) } else { self.of_stranger(caller) }
    }

    fn of_client(&self, caller: Caller) -> Option<Seat> {
        let address = &self.shared.listener.address;
        let Ok(slot) = self.clients.slots.clone().try_acquire_owned() else {
            let mut told = self.told.lock();
            told.refused += 1;
            debug!(%address, client = %caller, "too many connections");
            if is_due(&mut told.no_place, TELL_AGAIN) {
                let refused = std::mem::take(&mut told.refused);
                warn!(%address, client = %caller, max_connections = self.most, refused, "too many connections, refused");
            }
            return None;
        };
        match self.clients.budget.session(true) {
            Some(descriptors) => Some(Seat::of_client(slot, descriptors)),
            None => {
                if is_due(&mut self.told.lock().no_descriptors, TELL_AGAIN) {
                    self.clients.budget.tell(address);
                }
                None
            }
        }
    }

    fn of_stranger(&self, caller: Caller) -> Option<Seat> {
        let entered = self.strangers.enter(caller.ip(), Instant::now());
        let place = match entered {
            Entered::In(place) => return Some(Seat::of_stranger(place, self.clients.clone())),
            Entered::InPlaceOf(place) => Some(place),
            Entered::Full => None,
        };
        debug!(client = %caller, in_place_of_another = place.is_some(), "no place of strangers was free");
        self.tell_of_strangers(place.is_some());
        place.map(|place| Seat::of_stranger(place, self.clients.clone()))
    }

    fn tell_of_strangers(&self, replaced: bool) {
        let mut told = self.told.lock();
        *(if replaced { &mut told.strangers_replaced } else { &mut told.strangers_refused }) += 1;
        if !is_due(&mut told.strangers, TELL_OF_STRANGERS) {
            return;
        }
        let (refused, replaced) = (told.strangers_refused, told.strangers_replaced);
        (told.strangers_refused, told.strangers_replaced) = (0, 0);
        drop(told);
        let Some(crowd) = self.strangers.crowd() else { return };
        warn!(
            address = %self.shared.listener.address,
            client = %crowd.network,
            has = crowd.has,
            taken = crowd.all,
            places = self.strangers.most(),
            refused,
            replaced,
            "too many connections of clients that have not logged in; this one has most of them"
        );
    }
}

/// The part of the listener in the budget of descriptors.
pub(super) struct Budget {
    descriptors: Option<Arc<Descriptors>>,
    /// Descriptors of a session.
    each: usize,
}

impl Budget {
    /// Without one.
    #[cfg(test)]
    pub(super) fn none() -> Budget {
        Budget { descriptors: None, each: 1 }
    }

    fn of(shared: &Shared) -> Budget {
        let each = descriptors::of_session(shared.listener.engine);
        Budget { descriptors: shared.intake.descriptors().cloned(), each }
    }

    /// Sessions of clients that may not relay, of which the policy gives `few`, and polite refusals:
    /// these are beside the part for clients.
    fn beside(&self, few: usize) -> (usize, usize) {
        match &self.descriptors {
            Some(all) => ((all.shares().strangers / self.each).clamp(1, few), all.shares().refusals.min(MAX_REFUSALS)),
            None => (few, MAX_REFUSALS),
        }
    }

    /// For one more session, if there is one.
    pub(super) fn session(&self, permitted: bool) -> Option<Slot> {
        match &self.descriptors {
            Some(all) if permitted => all.for_client(self.each),
            _ => Some(Slot::uncounted()),
        }
    }

    fn tell(&self, address: &ListenAddress) {
        let most = self.descriptors.as_ref().map_or(0, |all| all.most_sessions(self.each));
        warn!(
            %address,
            most,
            "no file descriptors left for clients, refused: raise the limit of open files (LimitNOFILE of systemd, ulimit -n)"
        );
    }
}
