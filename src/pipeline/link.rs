//! A worker's connection, and what feedback wants to know of it.

use std::time::Duration;

use tokio::time::Instant;

use crate::deliver::{Connection, Event, Fact, Stage};
use crate::route::Route;
use crate::schedule::Lane;
use crate::schedule::lane::OpenGuard;

/// A connection closed later than this after its last message was closed because it was idle.
const SOON: Duration = Duration::from_secs(2);

/// An open connection, counted by its lane.
pub(super) struct Link {
    pub(super) connection: Connection,
    /// Connections of the lane that were open when it was opened, with it.
    pub(super) open: u32,
    /// Messages accepted, and when the last one was.
    accepted: u32,
    last: Instant,
    _counted: OpenGuard,
}

impl Link {
    pub(super) fn new(connection: Connection, lane: &std::sync::Arc<Lane>) -> Link {
        let (open, counted) = lane.opened();
        Link { connection, open, accepted: 0, last: Instant::now(), _counted: counted }
    }

    /// Whether it may carry the next transaction.
    pub(super) fn suits(&mut self, lane: &Lane, route: &Route) -> bool {
        self.connection.is_usable()
            && self.connection.sent() < lane.messages_per_connection()
            && route.hosts.iter().any(|host| host.name == self.connection.host())
            && self.connection.is_alive()
    }

    /// After how many messages the server closed it, if it did so right after the last one.
    pub(super) fn closed_early(&mut self) -> Option<u32> {
        let dead = self.connection.is_usable() && !self.connection.is_quiet();
        (dead && self.accepted > 0 && self.last.elapsed() < SOON).then_some(self.accepted)
    }

    /// How many messages it had carried before a transaction with these facts, unless it had been
    /// idle for a while.
    pub(super) fn carried(&mut self, facts: &[Fact]) -> Option<u32> {
        let before =
            (self.last.elapsed() < SOON || facts.iter().all(|f| f.stage > Stage::Mail)).then_some(self.accepted);
        if facts.iter().any(|f| f.stage == Stage::Final && matches!(&f.event, Event::Reply(r) if r.is_positive())) {
            self.accepted = self.accepted.saturating_add(1);
            self.last = Instant::now();
        }
        before
    }

    pub(super) async fn quit(self) {
        self.connection.quit().await;
    }
}
