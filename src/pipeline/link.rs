//! A worker's connection, and what feedback wants to know of it.

use super::lesson::Carried;
use crate::deliver::{Connection, Fact};
use crate::route::Route;
use crate::schedule::Lane;
use crate::schedule::lane::OpenGuard;

/// An open connection, counted by its lane.
pub(super) struct Link {
    pub(super) connection: Connection,
    /// Connections of the lane that were open when it was opened, with it.
    pub(super) open: u32,
    carried: Carried,
    _counted: OpenGuard,
}

impl Link {
    pub(super) fn new(connection: Connection, lane: &std::sync::Arc<Lane>) -> Link {
        let (open, counted) = lane.opened();
        Link { connection, open, carried: Carried::nothing(), _counted: counted }
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
        self.carried.lately().filter(|_| dead)
    }

    /// How many messages it had carried before a transaction with these facts, unless it had been
    /// idle for a while.
    pub(super) fn carried(&mut self, facts: &[Fact]) -> Option<u32> {
        self.carried.before(facts)
    }

    pub(super) async fn quit(self) {
        self.connection.quit().await;
    }
}
