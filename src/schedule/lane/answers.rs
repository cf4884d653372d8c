//! Which answers the open connections of a lane wait for, and how long: what a host that hangs in a transaction
//! is told by.
//!
//! Bounded: one entry for an open connection.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::Lane;
use super::holds::By;
use crate::deliver::{Awaited, Silence};

/// A host that takes so long is worth a word.
const LONG: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Answers {
    connections: Vec<(Arc<str>, Weak<Awaited>)>,
}

impl Answers {
    /// Those that are waited for for long.
    pub(super) fn late(&self) -> impl Iterator<Item = (&Arc<str>, Silence)> {
        let silences =
            self.connections.iter().filter_map(|(host, awaited)| Some((host, awaited.upgrade()?.silence()?)));
        silences.filter(|(_, silence)| silence.lasts >= LONG)
    }

    /// Those that are waited for for so long at `now`.
    pub(super) fn longer_than(&self, least: Duration, now: Instant) -> impl Iterator<Item = Silence> {
        self.connections.iter().filter_map(move |(_, awaited)| awaited.upgrade()?.silence_of(least, now))
    }

    /// Those that are waited for for so long, and may be given up: nothing of the message is out.
    pub(super) fn that_may_end(&self, least: Duration) -> impl Iterator<Item = (&Arc<str>, Silence, Arc<Awaited>)> {
        let all = self.connections.iter().filter_map(|(host, awaited)| {
            let awaited = awaited.upgrade()?;
            Some((host, awaited.silence()?, awaited))
        });
        all.filter(move |(_, silence, _)| silence.may_end && silence.lasts >= least)
    }

    /// Of those that are waited for for long the longest, in the words of a hold.
    pub(super) fn latest(&self) -> Option<By> {
        self.longest().filter(|_| self.late().next().is_some())
    }

    /// The one that is waited for longest, in the same words.
    pub(super) fn longest(&self) -> Option<By> {
        let all = self.connections.iter().filter_map(|(host, awaited)| Some((host, awaited.upgrade()?.silence()?)));
        let (host, silence) = all.max_by_key(|(_, silence)| silence.lasts)?;
        Some(told(host, silence, self.late().count().max(1)))
    }
}

/// The longest of so many connections that wait.
pub(super) fn told(host: &str, silence: Silence, connections: usize) -> By {
    By::Answer { host: host.to_owned(), stage: silence.stage, silent: silence.lasts, connections }
}

impl Lane {
    /// Transactions of which nothing is out, and whose host has said nothing for so long, are left; returns how many.
    pub fn leave_silent(&self, least: Duration) -> usize {
        let state = self.state.lock();
        state.answers.that_may_end(least).filter(|(_, silence, awaited)| awaited.leave(silence.message)).count()
    }

    /// A connection to `host` is open; `awaited` is what it waits for.
    pub fn listens(&self, host: &str, awaited: &Arc<Awaited>) {
        let connections = &mut self.state.lock().answers.connections;
        connections.retain(|(_, other)| other.strong_count() > 0);
        connections.push((host.into(), Arc::downgrade(awaited)));
    }
}
