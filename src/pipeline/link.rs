//! A worker's connection, and what feedback wants to know of it.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use tokio::sync::watch;

use super::lesson::{Carried, Load};
use crate::deliver::{Admit, Connection, Fact};
use crate::route::Route;
use crate::schedule::Lane;
use crate::schedule::lane::OpenGuard;

/// Sockets of one opening: each counts for the lane's rate of connections, the first was asked for.
pub(super) struct Sockets<'a> {
    lane: &'a Lane,
    stopping: &'a watch::Receiver<bool>,
    first: AtomicBool,
}

impl<'a> Sockets<'a> {
    pub(super) fn first_is_paid(lane: &'a Lane, stopping: &'a watch::Receiver<bool>) -> Sockets<'a> {
        Sockets { lane, stopping, first: AtomicBool::new(true) }
    }
}

#[async_trait]
impl Admit for Sockets<'_> {
    async fn admit(&self) -> bool {
        if self.first.swap(false, Ordering::Relaxed) {
            return true;
        }
        let mut stopping = self.stopping.clone();
        tokio::select! {
            biased;
            () = self.lane.may_connect() => true,
            _ = stopping.wait_for(|stopping| *stopping) => false,
        }
    }
}

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
        let (open, counted) = lane.opened(connection.host());
        Link { connection, open, carried: Carried::nothing(), _counted: counted }
    }

    /// Whether it may carry the next transaction.
    pub(super) fn suits(&mut self, lane: &Lane, route: &Route) -> bool {
        self.connection.is_usable()
            && self.connection.sent() < lane.messages_per_connection()
            && route.hosts.iter().any(|host| host.name == self.connection.host())
            && self.connection.is_alive()
    }

    /// What it had carried when the server closed it, if it did so right after the last one.
    pub(super) fn closed_early(&mut self) -> Option<Load> {
        let dead = self.connection.is_usable() && !self.connection.is_quiet();
        self.carried.lately().filter(|_| dead)
    }

    /// What it had carried before a transaction with these facts, unless it had been
    /// idle for a while.
    pub(super) fn carried(&mut self, facts: &[Fact]) -> Option<Load> {
        self.carried.before(facts)
    }

    pub(super) async fn quit(self) {
        self.connection.quit().await;
    }
}
