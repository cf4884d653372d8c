//! What feedback does to a lane: a pace, fewer connections, fewer messages on each, a hold. The
//! limits of the configuration hold besides; an operator's pause is another matter.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Lane, State, Wake};
use crate::clock::Timestamp;
use crate::shape::adapt::{Adapt, Finding, Limits, Room};

/// A pause up to this long keeps the connections; a longer one gives the jobs back and closes them.
const SHORT: Duration = Duration::from_secs(5);

/// Limits in force because of feedback.
#[derive(Debug, Default)]
pub(super) struct Narrowed {
    connections: Option<u32>,
    /// More connections than a number may be refused: the number, from when on one more may be tried, and until when
    /// one at a time.
    doubt: Option<(u32, Instant, Instant)>,
    messages: Option<u32>,
    room: Room,
    /// Nothing leaves before, and why.
    hold: Option<(Instant, String)>,
    /// Connections open, all of them and to each host.
    open: u32,
    open_to: HashMap<Arc<str>, Counted>,
    /// Those of them that have carried something.
    working: u32,
    /// Workers that have been told to end.
    retiring: u32,
}

/// Connections to a host.
#[derive(Clone, Copy, Default, Debug)]
struct Counted {
    open: u32,
    working: u32,
}

impl Narrowed {
    /// How long the hold lasts, if there is one.
    pub(super) fn held(&self) -> Option<Duration> {
        let left = self.hold.as_ref()?.0.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// How long the hold lasts and why, if there is one.
    pub(super) fn hold(&self) -> Option<(Duration, &str)> {
        Some((self.held()?, &self.hold.as_ref()?.1))
    }

    /// Connections that are open.
    pub(super) fn open(&self) -> u32 {
        self.open
    }

    /// Connections at most, of `configured`.
    pub(super) fn most(&self, configured: u32) -> u32 {
        self.connections.map_or(configured, |cap| cap.min(configured))
    }

    /// Workers at most, of `configured`: where further connections may be refused, those with one and few others.
    fn most_at_work(&self, configured: u32) -> u32 {
        let most = self.most(configured);
        let now = Instant::now();
        match self.doubt {
            Some((taken, from, until)) if now < until => {
                most.min(self.open.max(taken).saturating_add(u32::from(now >= from))).max(1)
            }
            _ => most,
        }
    }

    /// A worker has ended.
    pub(super) fn gone(&mut self) {
        self.retiring = self.retiring.saturating_sub(1);
    }
}

impl Lane {
    /// Feeds or asks the feedback state, and applies the limits that follow from it.
    pub fn feedback<T>(&self, now: Timestamp, with: impl FnOnce(&mut Adapt, u32) -> T) -> (T, Wake) {
        let mut adapt = self.adapt.lock();
        let open = self.state.lock().narrowed.open;
        adapt.keep_time(now);
        let result = with(&mut adapt, open);
        adapt.advance(open, now);
        let limits = adapt.limits(now);
        let sooner = self.paced.follow(&adapt, now);
        let wake = self.apply(limits, sooner, now);
        (result, wake)
    }

    /// `sooner`: a sender may leave earlier than was known.
    fn apply(&self, limits: Limits, sooner: bool, now: Timestamp) -> Wake {
        self.gate.limiter().set_pace(limits.rate);
        let mut state = self.state.lock();
        if sooner {
            state.ready.look_again();
        }
        let narrowed = &mut state.narrowed;
        narrowed.connections = (limits.connections < self.provider.connections).then_some(limits.connections);
        let at = Instant::now();
        narrowed.doubt = limits.doubt.map(|doubt| (doubt.open, at + doubt.gap, at + doubt.lasts));
        narrowed.messages = Some(limits.messages);
        narrowed.room = limits.room;
        let left = limits.paused.as_ref().map_or(Duration::ZERO, |(until, _)| until.since(now));
        self.gate.limiter().stop_for(left);
        narrowed.hold = limits.paused.map(|(_, why)| (Instant::now() + left, why));
        if narrowed.held().is_some_and(|left| left > SHORT) {
            self.held.notify_waiters();
        }
        self.wake(&mut state)
    }

    /// Messages on one connection at most, now.
    pub fn messages_per_connection(&self) -> u32 {
        let most = self.provider.messages_per_connection;
        self.state.lock().narrowed.messages.map_or(most, |cap| cap.min(most))
    }

    /// What else a server was found to count on one connection.
    pub fn room(&self) -> Room {
        self.state.lock().narrowed.room
    }

    /// Connections at most, if feedback allows fewer than the configuration.
    pub fn fewer_connections(&self) -> Option<u32> {
        self.state.lock().narrowed.connections
    }

    /// Why nothing leaves, and for how long, if feedback holds the lane.
    pub fn hold(&self) -> Option<(Duration, String)> {
        self.state.lock().narrowed.hold().map(|(left, why)| (left, why.to_owned()))
    }

    /// Returns when feedback holds the lane for longer than a connection should wait for it.
    pub async fn long_hold(&self) {
        loop {
            let changed = self.held.notified();
            if self.state.lock().narrowed.held().is_some_and(|left| left > SHORT) {
                return;
            }
            changed.await;
        }
    }

    /// Whether this worker, with a connection or without (`connected`), is one too many and has to end after its
    /// transaction. One with a connection goes only if too many are open: those without would only be refused; and one
    /// whose connection has carried something only if too many of these are.
    pub fn retire(&self, connected: Option<&OpenGuard>) -> bool {
        let mut state = self.state.lock();
        let narrowed = &state.narrowed;
        let most = narrowed.most_at_work(self.provider.connections);
        let counted = match connected {
            Some(guard) if guard.works => narrowed.working.min(state.workers),
            Some(_) => narrowed.open.min(state.workers),
            None => state.workers,
        };
        let surplus = counted.saturating_sub(narrowed.retiring) > most;
        state.narrowed.retiring += u32::from(surplus);
        surplus
    }

    /// A connection to `host` was opened; returns how many are open with it, to whatever host, and the
    /// guard that counts it.
    pub fn opened(self: &Arc<Lane>, host: &str) -> (u32, OpenGuard) {
        let host: Arc<str> = host.into();
        let mut state = self.state.lock();
        state.narrowed.open += 1;
        state.narrowed.open_to.entry(host.clone()).or_default().open += 1;
        (state.narrowed.open, OpenGuard { lane: self.clone(), host, works: false })
    }

    /// Connections open to the hosts that are meant.
    pub fn open_to(&self, meant: impl Fn(&str) -> bool) -> u32 {
        let state = self.state.lock();
        state.narrowed.open_to.iter().filter(|(host, _)| meant(host)).map(|(_, counted)| counted.open).sum()
    }

    /// Open connections that have carried something: all of them, and those to that host.
    pub fn working(&self, host: &str) -> (u32, u32) {
        let narrowed = &self.state.lock().narrowed;
        (narrowed.working, narrowed.open_to.get(host).map_or(0, |counted| counted.working))
    }

    /// What is in force because of feedback, in words.
    pub fn explain(&self, now: Timestamp) -> Vec<String> {
        self.adapt.lock().explain(now)
    }

    /// Verdicts about kinds of refusals that nobody was told yet.
    pub fn findings(&self) -> Vec<Finding> {
        self.adapt.lock().take_findings()
    }

    /// What replies taught, to look at.
    pub fn learned<T>(&self, look: impl FnOnce(&Adapt) -> T) -> T {
        look(&self.adapt.lock())
    }
}

/// Counts a connection as open while it lives.
#[derive(Debug)]
pub struct OpenGuard {
    lane: Arc<Lane>,
    host: Arc<str>,
    works: bool,
}

impl OpenGuard {
    /// It has carried something.
    pub fn works(&mut self) {
        if !std::mem::replace(&mut self.works, true) {
            let narrowed = &mut self.lane.state.lock().narrowed;
            narrowed.working = narrowed.working.saturating_add(1);
            if let Some(counted) = narrowed.open_to.get_mut(&self.host) {
                counted.working = counted.working.saturating_add(1);
            }
        }
    }
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        let narrowed = &mut self.lane.state.lock().narrowed;
        narrowed.open = narrowed.open.saturating_sub(1);
        narrowed.working = narrowed.working.saturating_sub(u32::from(self.works));
        if let Some(counted) = narrowed.open_to.get_mut(&self.host) {
            counted.open = counted.open.saturating_sub(1);
            counted.working = counted.working.saturating_sub(u32::from(self.works));
            if counted.open == 0 {
                narrowed.open_to.remove(&self.host);
            }
        }
    }
}

impl State {
    /// Connections at most, now.
    pub(super) fn most_workers(&self, configured: u32) -> u32 {
        // With an open circuit one worker probes; the others come when it has closed.
        // Those that end meanwhile may still have their connections open: with them, too, there are
        // never more than the configuration says.
        let most = self.narrowed.most_at_work(configured).saturating_add(self.narrowed.retiring);
        if self.circuit.is_some() { 1 } else { most.min(configured) }
    }
}
