//! What a host turned out not to take although it offers it, or to answer more often than it is asked: remembered for
//! some hours, so that its next connection does without from the start.
//!
//! Not part of a message's fate: a refusal of an extension's command or parameter speaks of the
//! extension, and the message goes again without it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use moka::sync::Cache;

use crate::mail::QueueId;

/// How long a host is remembered; software gets mended, and middleboxes go away.
const FOR: Duration = Duration::from_secs(6 * 3600);
/// How long a message is remembered whose end was left open: a retry comes within a day.
const OPEN_FOR: Duration = Duration::from_secs(24 * 3600);
/// Hosts remembered, and messages.
const MOST: u64 = 10_000;

/// What to do without at a host.
///
/// Nothing is remembered in a host's favour: that it takes BDAT every connection shows anew, as the next one
/// may reach another program at the same address (see `chunks`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Quirks {
    /// PIPELINING and CHUNKING: its replies made no sense while they were used, or stopped after the first.
    pub serial: bool,
    /// BDAT.
    pub no_bdat: bool,
    /// Parameters of MAIL and RCPT, but for SMTPUTF8, which a message may need.
    pub no_parameters: bool,
    /// The next MAIL shows whether it is that.
    pub try_without: bool,
    /// A second message on a connection: it may hear a late reply to the first (see `step`).
    pub once: bool,
    /// A message right behind the 354 (see `stray`).
    pub haste: Haste,
    /// A message may have had a wrong fate by what it said too much: each is given the moment behind the 354.
    pub wary: bool,
    /// It has taken and refused the same message at its end.
    pub contradicts: bool,
    /// It repeats what it said, later: a copy may come where the reply to the end of a message is due (see `end`).
    pub repeats: bool,
    /// It has said something between a 354 and the end of a message: what it says there the next time counts.
    pub interrupts: bool,
    /// It has refused something before it was asked for the next: that counts the next time, and each recipient has a
    /// transaction of its own.
    pub unasked: bool,
    /// A command right behind a reply: a second reply may come a moment later (see `stray`).
    pub doubles: bool,
}

/// Whether a message follows the 354 at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Haste {
    /// Nothing speaks against it.
    #[default]
    Fine,
    /// The host has said something between a 354 and the end of the message, or may have.
    Waits,
    /// It was waited for, and nothing came.
    InVain,
}

/// A host at one of its addresses, with the port: behind each may be another program.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Place {
    /// As in the route.
    pub host: Arc<str>,
    pub address: SocketAddr,
}

/// The hosts that have any. A clone is another handle of the same memory.
#[derive(Clone, Debug)]
pub(super) struct Hosts {
    all: Cache<Place, Quirks>,
    /// Messages of whose end a host's word could not be told from another.
    open: Cache<(Place, QueueId), ()>,
    /// How often a message was refused to a recipient as if its commands had been out of order (see `order`).
    disordered: Cache<(QueueId, u64), u8>,
    /// There has been one. Each message asks several times, and few relays ever meet such a host: a look at the cache,
    /// which notes who asked, costs much more than this.
    any: Arc<AtomicBool>,
}

impl Hosts {
    /// Of none so far.
    pub(super) fn new() -> Hosts {
        Hosts {
            all: Cache::builder().max_capacity(MOST).time_to_live(FOR).build(),
            open: Cache::builder().max_capacity(MOST).time_to_live(OPEN_FOR).build(),
            disordered: Cache::builder().max_capacity(MOST).time_to_live(OPEN_FOR).build(),
            any: Arc::default(),
        }
    }

    /// Those of a host.
    pub(super) fn of(&self, host: &Place) -> Quirks {
        if !self.any.load(Ordering::Acquire) {
            return Quirks::default();
        }
        self.all.get(host).unwrap_or_default()
    }

    /// The end of this message was left open at this host; true: not for the first time.
    pub(super) fn was_open(&self, host: &Place, message: QueueId) -> bool {
        let key = (host.clone(), message);
        let before = self.open.contains_key(&key);
        self.open.insert(key, ());
        before
    }

    /// A message was refused to a recipient in words on the order of commands, once more: for the how manieth time.
    pub(super) fn disordered(&self, message: QueueId, recipient: u64) -> u8 {
        let key = (message, recipient);
        let times = self.disordered.get(&key).unwrap_or_default().saturating_add(1);
        self.disordered.insert(key, times);
        times
    }

    /// Another one of a host.
    pub(super) fn note(&self, host: &Place, note: impl FnOnce(&mut Quirks)) {
        let before = self.of(host);
        let mut quirks = before;
        note(&mut quirks);
        if quirks != before && !quirks.without().is_empty() && quirks.without() != before.without() {
            let Place { host, address } = host;
            tracing::info!(%host, %address, without = %quirks.without(), "the host does not take what it offers, or says more than it is asked: going on without for 6 h");
        }
        if quirks != before {
            self.all.insert(host.clone(), quirks);
            self.any.store(true, Ordering::Release);
        }
    }
}

impl Quirks {
    /// The host was seen to say more than it is asked for, or to contradict itself: its first word behind a message proves
    /// nothing.
    pub(super) fn is_doubted(self) -> bool {
        self.repeats || self.doubles || self.wary || self.contradicts
    }

    /// For the log.
    fn without(self) -> String {
        let all = [
            (self.serial, "PIPELINING and CHUNKING"),
            (self.no_bdat && !self.serial, "BDAT"),
            (self.no_parameters, "parameters of MAIL and RCPT"),
            (self.once, "more than one message a connection"),
            (self.haste == Haste::Waits, "a message right behind the go-ahead"),
            (self.doubles, "a command right behind a reply"),
            (self.repeats, "trust in the first reply behind a message"),
            (self.unasked, "more than one recipient a transaction"),
        ];
        all.into_iter().filter_map(|(has, what)| has.then_some(what)).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_connection_notes_of_a_host_all_others_know_and_of_that_host_alone() {
        let (hosts, place) =
            (Hosts::new(), |host: &str| Place { host: host.into(), address: ([192, 0, 2, 1], 25).into() });
        let others = hosts.clone();
        assert_eq!(others.of(&place("a")), Quirks::default());
        hosts.note(&place("a"), |_| {});
        assert!(!others.any.load(Ordering::Acquire), "nothing was noted");
        hosts.note(&place("a"), |quirks| quirks.once = true);
        assert_eq!(others.of(&place("a")), Quirks { once: true, ..Quirks::default() });
        others.note(&place("a"), |quirks| quirks.no_bdat = true);
        assert_eq!(hosts.of(&place("a")), Quirks { once: true, no_bdat: true, ..Quirks::default() });
        assert_eq!(hosts.of(&place("b")), Quirks::default());
    }
}
