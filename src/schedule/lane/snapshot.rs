//! What operators see of a lane.

use std::time::Duration;

use tokio::time::Instant;

use super::{Announced, LEAD, Lane};
use crate::clock::Timestamp;
use crate::mail::sender_key;
use crate::shape;

/// A lane as `provider show` and the page tell it.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Recipients ready in memory.
    pub ready: usize,
    /// Recipients in transactions.
    pub in_flight: usize,
    /// Workers: connections, and those who open one or wait for mail without.
    pub workers: u32,
    /// Connections that are open.
    pub connections: u32,
    /// Connections that are being opened: up to the host's answer to EHLO, STARTTLS and AUTH.
    pub opening: u32,
    /// An operator paused it.
    pub paused: bool,
    /// Why nothing leaves for now, and for how long.
    pub circuit: Option<(String, Duration)>,
    /// The earliest due time of what waits in the queue.
    pub stored_due: Option<Timestamp>,
    /// The rate or quota that holds the next transaction back.
    pub held: Option<shape::Held>,
    /// Recipients delivered a second in the last minute or two; `None`: none lately.
    pub recent: Option<f64>,
    /// What the host that was connected to last says of its sessions, if anything.
    pub announced: Option<Announced>,
    /// The last reply or error that was not an acceptance, and when it came; gone when something is
    /// delivered.
    pub last_error: Option<(Timestamp, String)>,
}

impl Lane {
    /// Recipients in memory that leave before new ones of this priority: those as urgent or more,
    /// and those in transactions.
    pub fn ahead_of(&self, priority: i8) -> usize {
        let state = self.state.lock();
        state.ready.at_least(priority) + state.in_flight
    }

    /// The pace that replies taught for this sender alone, in cells a second, and recipients of its in memory
    /// that wait; `None`: it has no pace of its own.
    pub fn pace_of(&self, sender: &str, now: Timestamp) -> Option<(f64, usize)> {
        let key = sender_key(sender);
        let rate = self.learned(|adapt| adapt.senders(now).find(|pace| pace.key == key).and_then(|pace| pace.rate))?;
        Some((rate, self.state.lock().ready.of_sender(key)))
    }

    /// Other senders who have a turn before the first message of this priority of `sender`, and recipients that
    /// leave until then, those in transactions among them.
    pub fn turns_before(&self, priority: i8, sender: &str) -> (usize, usize) {
        let state = self.state.lock();
        let (senders, recipients) = state.ready.turns_before(priority, sender_key(sender));
        (senders, recipients + state.in_flight)
    }

    /// What an operator sees.
    pub fn snapshot(&self) -> Snapshot {
        let state = self.state.lock();
        Snapshot {
            ready: state.ready.recipients(),
            in_flight: state.in_flight,
            workers: state.workers,
            connections: state.narrowed.open(),
            opening: u32::try_from(state.opening()).unwrap_or(u32::MAX),
            paused: state.paused,
            circuit: state.circuit.as_ref().map(|c| (c.reason.clone(), c.left())),
            stored_due: state.stored.due,
            held: self.gate.held().filter(|held| held.wait > LEAD),
            recent: state.recent.per_second(Instant::now()),
            announced: state.announced.clone(),
            last_error: state.last_error.clone(),
        }
    }
}
