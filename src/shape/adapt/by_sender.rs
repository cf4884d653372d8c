//! Whose mail is refused: what tells a cap on each sender from one on all. Pure.
//!
//! For each kind of refusal and each sender that met it, attempts are counted from its first refusal on.
//! Invariant: a lane has at most [`PLACES`] such pairs, and who was refused least makes room; so senders
//! that a client invents keep nobody's place, and nothing grows with their number.

use std::time::Duration;

use super::before::Before;
use super::evidence::{Party, SHARE};
use super::meter::Meter;
use super::run::{Counts, Few, Run};
use crate::clock::Timestamp;

/// Pairs of a kind and a sender.
const PLACES: usize = 64;
/// Distinct recipients and messages of a sender that must have been refused.
const RECIPIENTS: usize = 4;
const MESSAGES: usize = 3;
/// Refusals in a row that are looked at at once; else attempts, over so long.
const ROW: u32 = 5;
const ATTEMPTS: f64 = 12.0;
const WATCHED: Duration = Duration::from_secs(1);
/// That few senders are refused and all others pass is taken for chance up to this probability; and among so
/// many senders the few may have been found by looking for them.
const CHANCE: f64 = 1e-3;
const AMONG: f64 = 32.0;

/// What was seen of one sender since its first refusal of a kind.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct OfSender {
    kind: u64,
    sender: u64,
    pub(super) counts: Counts,
    /// Refused in a row.
    row: u32,
    recipients: Few<RECIPIENTS>,
    messages: Few<MESSAGES>,
    pub(super) meter: Meter,
    began: Timestamp,
    last: Timestamp,
}

impl OfSender {
    /// Several of its messages, to several recipients, were refused, and not because it was the first time.
    pub(super) fn has_witnesses(&self) -> bool {
        self.messages.is_full() && self.recipients.count() >= MESSAGES && !self.counts.is_greylisting()
    }

    /// Enough of that to be looked into: all recently, or a share of many.
    pub(super) fn is_suspicious(&self, now: Timestamp) -> bool {
        let watched = now.since(self.began) >= WATCHED && self.counts.attempts() >= ATTEMPTS;
        let (share, _) = self.counts.share();
        self.has_witnesses() && self.recipients.is_full() && share >= SHARE && (self.row >= ROW || watched)
    }

    /// Everything of it was refused lately.
    pub(super) fn is_closed(&self) -> bool {
        self.row >= ROW
    }
}

/// The table of a lane.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct BySender {
    places: Vec<OfSender>,
}

impl BySender {
    pub(super) fn of(&self, kind: u64, sender: u64) -> Option<&OfSender> {
        self.places.iter().find(|of| of.sender == sender && of.kind == kind)
    }

    /// A message of this sender was accepted, which counts `cells`.
    pub(super) fn passed(&mut self, party: Party, before: &Before, cells: u32, now: Timestamp) {
        for of in self.places.iter_mut().filter(|of| of.sender == party.sender) {
            of.counts.pass(party.again, before.has(of.kind, &party));
            of.row = 0;
            of.meter.note(f64::from(cells), true, now);
        }
    }

    /// A refusal of a kind; `before`: of one who was refused before.
    pub(super) fn refused(&mut self, kind: u64, party: Party, before: bool, cells: u32, now: Timestamp) {
        let found = self.places.iter().position(|of| of.sender == party.sender && of.kind == kind);
        let at = found.unwrap_or_else(|| self.place(kind, party.sender, now));
        let Some(of) = self.places.get_mut(at) else { return };
        of.counts.refuse(party.again, before);
        of.row = of.row.saturating_add(1);
        of.recipients.add(party.recipient);
        of.messages.add(party.message);
        of.meter.note(f64::from(cells), false, now);
        of.last = now;
    }

    fn place(&mut self, kind: u64, sender: u64, now: Timestamp) -> usize {
        if self.places.len() >= PLACES {
            let least = |of: &OfSender| (of.messages.count(), of.last);
            let worst = self.places.iter().enumerate().min_by_key(|(_, of)| least(of)).map(|(at, _)| at);
            self.places.swap_remove(worst.unwrap_or(0));
        }
        self.places.push(OfSender {
            kind,
            sender,
            counts: Counts::default(),
            row: 0,
            recipients: Few::default(),
            messages: Few::default(),
            meter: Meter::default(),
            began: now,
            last: now,
        });
        self.places.len() - 1
    }

    /// Whether the senders that were refused in a run are few among those whose mail passed meanwhile: that so
    /// many refusals hit only them is no chance.
    pub(super) fn are_few(&self, kind: u64, run: &Run) -> bool {
        if run.senders.is_full() {
            return false;
        }
        let theirs: f64 =
            run.senders.iter().filter_map(|sender| self.of(kind, sender)).map(|of| of.counts.attempts()).sum();
        let part = theirs / run.counts.attempts().max(theirs).max(1.0);
        let found = AMONG.ln() * run.senders.count() as f64;
        run.counts.refused() * part.ln() + found < CHANCE.ln()
    }

    /// What is older counts half.
    pub(super) fn halve(&mut self, kind: u64) {
        self.places.iter_mut().filter(|of| of.kind == kind).for_each(|of| of.counts.halve());
    }

    /// A run has ended.
    pub(super) fn end(&mut self, kind: u64) {
        self.places.retain(|of| of.kind != kind);
    }

    /// Forgets those that were refused last before `since`.
    pub(super) fn drop_older(&mut self, since: Timestamp) {
        self.places.retain(|of| of.last >= since);
    }

    /// The clock was set back by that much.
    pub(super) fn go_back(&mut self, back: Duration) {
        for of in &mut self.places {
            (of.began, of.last, of.meter) = (of.began.before(back), of.last.before(back), Meter::default());
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }
}
