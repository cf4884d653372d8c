//! A worker's connection, and what feedback wants to know of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::Relay;
use super::lesson::{After, Carried, Load, amount};
use crate::deliver::{Admit, Connection, Event, Fact, Peer, Stage};
use crate::descriptors::{PATIENCE, Slot, Standing};
use crate::mail::Features;
use crate::route::Route;
use crate::schedule::lane::OpenGuard;
use crate::schedule::{Job, Lane};

/// While connections wait for descriptors: how often others are looked for that can give way.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Sockets of one opening: each counts for the lane's rate of connections, which the first was asked
/// for, and has its descriptor.
pub(super) struct Sockets<'a> {
    relay: &'a Relay,
    lane: &'a Lane,
    first: AtomicBool,
    /// When the last of them was opened.
    opened: Mutex<Option<Instant>>,
}

impl<'a> Sockets<'a> {
    pub(super) fn first_is_paid(relay: &'a Relay, lane: &'a Lane) -> Sockets<'a> {
        Sockets { relay, lane, first: AtomicBool::new(true), opened: Mutex::default() }
    }

    /// A session with the first host of the route that wants one, for such mail.
    pub(super) async fn open(&self, route: &Route, mail: Features<'_>) -> Result<Connection, Vec<Fact>> {
        tokio::select! {
            biased;
            opened = self.relay.connector.open_for(&self.lane.provider, route, mail, self) => opened,
            () = self.give_way() => {
                let peer = route.hosts.first().map(|host| Peer { host: host.name.as_str().into(), ip: None, tls: None });
                tracing::debug!(provider = self.lane.name.base(), "others need the descriptor of a host that says nothing");
                Err(vec![Fact { stage: Stage::Greeting, event: Event::Timeout(PATIENCE), peer }])
            }
        }
    }

    /// Returns when it has lasted too long and somebody waits for the descriptor.
    async fn give_way(&self) {
        tokio::time::sleep(PATIENCE).await;
        loop {
            let long = self.opened.lock().is_some_and(|at| at.elapsed() >= PATIENCE);
            if long && self.relay.connector.descriptors().is_wanted() {
                return;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn slot(&self) -> Slot {
        if !self.first.swap(false, Ordering::Relaxed) {
            self.lane.may_connect().await;
        }
        *self.opened.lock() = None;
        let standing = if self.lane.takes_mail() { Standing::Known } else { Standing::Unknown };
        let descriptors = self.relay.connector.descriptors();
        let slot = descriptors.for_host(&self.lane.name, standing);
        tokio::pin!(slot);
        loop {
            tokio::select! {
                biased;
                slot = &mut slot => {
                    *self.opened.lock() = Some(Instant::now());
                    return slot;
                }
                () = tokio::time::sleep(LOOK_AGAIN) => {
                    // Connections that are only kept for what may come give way to mail that is there.
                    if descriptors.wants_idle_ones() {
                        self.relay.scheduler.lanes().iter().for_each(|lane| lane.dismiss());
                    }
                }
            }
        }
    }
}

#[async_trait]
impl Admit for Sockets<'_> {
    async fn admit(&self) -> Option<Slot> {
        let mut stopping = self.relay.stopping.clone();
        tokio::select! {
            biased;
            slot = self.slot() => Some(slot),
            _ = stopping.wait_for(|stopping| *stopping) => None,
        }
    }
}

/// An open connection, counted by its lane.
pub(super) struct Link {
    pub(super) connection: Connection,
    /// Connections of the lane that were open when it was opened, with it.
    pub(super) open: u32,
    carried: Carried,
    counted: OpenGuard,
}

impl Link {
    pub(super) fn new(connection: Connection, number: u64, lane: &std::sync::Arc<Lane>) -> Link {
        let (open, counted) = lane.opened(connection.host());
        lane.listens(connection.host(), connection.awaited());
        lane.note_announced(connection.host(), connection.capabilities().limits);
        Link { connection, open, carried: Carried::nothing(number), counted }
    }

    /// Whether it may carry the next transaction.
    pub(super) fn suits(&mut self, lane: &Lane, route: &Route, job: &Job) -> bool {
        let fresh = self.connection.sent() == 0;
        self.connection.is_usable()
            && (fresh || !job.wants_fresh && self.connection.takes_more())
            && self.connection.sent() < lane.messages_per_connection()
            && self.may_have(job)
            && lane.room().takes(self.carried.amount(), amount(job, job.recipients.len()))
            && route
                .hosts
                .iter()
                .any(|host| host.name == self.connection.host() && self.connection.meets(&lane.provider, &host.policy))
            && self.connection.is_alive()
    }

    /// Whether the host, by its own word, takes the first recipient of a job on it.
    pub(super) fn may_have(&self, job: &Job) -> bool {
        job.recipients.first().is_none_or(|held| self.connection.may_have(&held.recipient.address))
    }

    /// What it had carried when the server closed it, if it did so right after the last one.
    pub(super) fn closed_early(&mut self) -> Option<Load> {
        let dead = self.connection.is_usable() && !self.connection.is_quiet();
        self.carried.lately().filter(|_| dead)
    }

    /// What it had carried before a transaction of a message of `bytes` with these facts.
    pub(super) fn carried(&mut self, facts: &[Fact], bytes: u64) -> Load {
        let before = self.carried.before(facts, bytes);
        if self.carried.amount().messages > 0 {
            self.counted.works();
        }
        before
    }

    /// What counts it in its lane.
    pub(super) fn counted(&self) -> &OpenGuard {
        &self.counted
    }

    /// What a transaction means for it.
    pub(super) fn note(&mut self, after: After) {
        self.carried.note(after);
    }

    pub(super) async fn quit(self) {
        self.connection.quit().await;
    }
}
