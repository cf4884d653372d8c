//! Paces of single senders: where a receiver has a cap on each, only who meets it waits. Pure.
//!
//! A sender is tried as a lane is (see `learn`): slower for as many attempts as it takes to tell. Where the
//! others are refused as well there is a control: the share of theirs must not fall meanwhile, or it was
//! something else that ended. When it is known that a kind of refusal is about each sender's pace, whoever
//! meets it gets a pace at once. Invariants: at most [`PLACES`] senders have one, and who was heard of
//! longest ago makes room; a trial slows one sender and nobody else.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::evidence::{SENDER_SHARE, SHARE, Suspicion, Verdict};
use super::learn::{IDLE, Refused, UNDECIDED};
use super::pace::{Pace, Told};
use super::trial::{Doubt, Found, Trial, Watch};
use super::{Adapt, cut, readable};
use crate::clock::Timestamp;
use crate::mail::sender_key;

/// Senders with a pace of their own.
const PLACES: usize = 64;
/// Senders that are named to people.
const SHOWN: usize = 10;
/// Bytes of a sender that are kept.
const NAME: usize = 320;
/// Attempts of others that a control takes, and the part of their former share that must be left.
const CONTROLS: u32 = 8;
const LEFT: f64 = 0.5;
/// While all are refused, or a lane has a pace already, it is slowed down to so many times what was accepted
/// during a trial with a sender: enough to be refused if it was not about the sender.
const OVER: f64 = 4.0;
/// Attempts of a sender that it takes to find that fewer of them are refused than of others.
const BESIDE: u32 = 10;
/// What was accepted of a sender over so many seconds is a rate.
const MEASURED: f64 = 5.0;
/// What a sender is slowed down to at least where all are refused: this part of its share of what is accepted.
const FAIR: f64 = 0.9;
/// A trial with a control ends undecided after so many attempts of others, and so many more for each sender.
const CONTROLS_MOST: (u32, u32) = (50, 60);
/// Attempts of the sender, few of them refused, for which there may be so many times as many; after so many of them
/// it is judged by what there is.
const LEANS: u32 = 4;
const LONGER: u32 = 2;
const BESIDE_LEAST: u32 = 6;

/// What was refused of others during a trial.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Control {
    /// The share before; 0: hardly any, and what is refused now is because the lane was let go on.
    before: f64,
    seen: u32,
    refused: u32,
    /// Attempts at most, or refused ones where there were hardly any before.
    most: u32,
}

impl Control {
    fn share(&self) -> f64 {
        f64::from(self.refused) / f64::from(self.seen.max(1))
    }

    /// What the trial has found beside it.
    fn judges(&self, trial: &Trial) -> Found {
        // What comes right behind a pause passes, whoever sends it: a few attempts say little.
        if self.seen < CONTROLS || trial.refused * 2 < trial.seen && trial.seen < BESIDE {
            return Found::Open;
        }
        trial.beside(self.share())
    }

    /// It has cost so much that the trial is to end, `times` as much being allowed.
    fn is_over(&self, times: u32) -> bool {
        let cost = if self.before > 0.0 { self.seen } else { self.refused };
        cost >= self.most.saturating_mul(times)
    }
}

/// A trial with one sender.
#[derive(Clone, Debug, PartialEq)]
struct Alone {
    trial: Trial,
    /// Nothing of it passed when it began.
    closed: bool,
    control: Option<Control>,
    /// The lane's pace before, and the rate of the lane meanwhile; `over`: it may do more than its pace.
    lane: Pace,
    most: Option<f64>,
    over: bool,
}

impl Alone {
    /// Its control has cost enough: what has been found by then.
    fn is_over(&self) -> Option<Found> {
        let control = self.control.filter(|control| control.is_over(1))?;
        let (seen, few) = (self.trial.seen, 4 * self.trial.refused <= self.trial.seen);
        let still = control.share() >= (LEFT * control.before).max(SHARE);
        if few && still && seen >= BESIDE_LEAST && self.trial.beside(control.share()) == Found::Fewer {
            return Some(Found::Fewer);
        }
        // With few of it refused it only takes longer, as its own pace is slow.
        let longer = few && seen >= LEANS && !control.is_over(LONGER);
        (!longer).then_some(Found::Same)
    }
}

/// A sender with a pace of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Slowed {
    /// See [`sender_key`].
    #[serde(skip)]
    key: u64,
    /// The reverse-path.
    name: String,
    /// The kind of refusal.
    kind: u64,
    pace: Pace,
    /// The share that was refused before.
    share: f64,
    /// When something of it was tried last.
    last: Timestamp,
    #[serde(skip)]
    alone: Option<Alone>,
    #[serde(skip)]
    doubt: Doubt,
    #[serde(skip)]
    watch: Watch,
}

impl Slowed {
    /// Whether what left at `began` left at its own rate.
    fn is_tested(&self, began: Timestamp) -> bool {
        self.pace.is_tested(began) && self.alone.as_ref().is_none_or(|alone| began > alone.trial.began)
    }
}

/// What follows for one sender now.
#[derive(Clone, PartialEq, Debug)]
pub struct SenderPace<'a> {
    /// See [`sender_key`].
    pub key: u64,
    /// The reverse-path, for people; a long one is cut.
    pub name: &'a str,
    /// At most so many cells a second, if that is limited.
    pub rate: Option<f64>,
    /// Nothing of it leaves before, if that is not over.
    pub stopped: Option<Timestamp>,
    /// Nobody knows yet whether that helps.
    pub tried: bool,
}

/// The senders of a lane that have a pace of their own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Senders {
    #[serde(default)]
    slowed: Vec<Slowed>,
}

impl Senders {
    pub(super) fn is_free(&self) -> bool {
        self.slowed.is_empty()
    }

    /// What is worth storing.
    pub(super) fn lasting(mut self) -> Senders {
        self.slowed.retain(|s| s.alone.is_none());
        self
    }

    /// After it was read from the store.
    pub(super) fn recall(&mut self) {
        self.slowed.truncate(PLACES);
        self.slowed.iter_mut().for_each(|s| s.key = sender_key(&s.name));
    }

    /// The kind of refusal that is tried with a sender.
    pub(super) fn tried(&self) -> Option<u64> {
        self.slowed.iter().find(|s| s.alone.is_some()).map(|s| s.kind)
    }

    /// The rate of the lane during a trial.
    pub(super) fn most(&self) -> Option<f64> {
        self.slowed.iter().find_map(|s| s.alone.as_ref()).and_then(|alone| alone.most)
    }

    /// The greatest rate that was learned from a kind.
    fn rate_of(&self, kind: u64, now: Timestamp) -> Option<f64> {
        let learned = self.slowed.iter().filter(|s| s.kind == kind && s.alone.is_none());
        learned.filter_map(|s| s.pace.rate(now)).max_by(f64::total_cmp)
    }

    fn of(&mut self, key: u64) -> Option<&mut Slowed> {
        self.slowed.iter_mut().find(|s| s.key == key)
    }

    fn remove(&mut self, key: u64) {
        self.slowed.retain(|s| s.key != key);
    }

    fn add(&mut self, slowed: Slowed) {
        self.remove(slowed.key);
        if self.slowed.len() >= PLACES
            && let Some((at, _)) = self.slowed.iter().enumerate().min_by_key(|(_, s)| (s.alone.is_some(), s.last))
        {
            self.slowed.swap_remove(at);
        }
        self.slowed.push(slowed);
    }

    /// An attempt for others than `key`, of the kind that is tried or accepted.
    fn control(&mut self, key: u64, refused: Option<u64>) {
        let alone = |s: &Slowed| s.key != key && s.alone.is_some() && refused.is_none_or(|kind| kind == s.kind);
        let control = self.slowed.iter_mut().find(|s| alone(s)).and_then(|s| s.alone.as_mut());
        if let Some(control) = control.and_then(|alone| alone.control.as_mut()) {
            control.seen += 1;
            control.refused += u32::from(refused.is_some());
        }
    }

    /// What is stopped goes on at `now`.
    pub(super) fn end_stops(&mut self, now: Timestamp) {
        self.slowed.iter_mut().for_each(|s| s.pace.end_stop(now));
    }

    /// The clock was set back by that much.
    pub(super) fn go_back(&mut self, back: Duration) {
        for slowed in &mut self.slowed {
            slowed.pace.go_back(back);
            slowed.last = slowed.last.before(back);
            if let Some(alone) = &mut slowed.alone {
                alone.trial.began = alone.trial.began.before(back);
                alone.trial.last = alone.trial.last.before(back);
                alone.lane.go_back(back);
            }
        }
    }

    /// Lets time pass. True if a pace is no longer needed.
    pub(super) fn advance(&mut self, now: Timestamp, limit: Option<f64>) -> bool {
        let before = self.slowed.len();
        self.slowed.retain_mut(|s| {
            let held = s.alone.as_ref().is_some_and(|alone| !alone.closed && !alone.over);
            s.pace.advance(held, now, limit);
            s.alone.is_some() || !s.pace.is_free()
        });
        before != self.slowed.len()
    }

    /// What holds now.
    pub(super) fn paces(&self, now: Timestamp) -> impl Iterator<Item = SenderPace<'_>> {
        self.slowed.iter().map(move |s| SenderPace {
            key: s.key,
            name: &s.name,
            rate: s.pace.rate(now),
            stopped: s.pace.stopped(now),
            tried: s.alone.is_some(),
        })
    }

    /// The same in words.
    pub(super) fn explain(&self, now: Timestamp) -> Vec<String> {
        let line = |s: &Slowed| {
            let rate = s.pace.rate(now).map_or_else(|| "not slowed".to_owned(), readable);
            let tried = if s.alone.is_some() { ", tried now" } else { "" };
            format!("sender <{}>: slow to {rate}{tried}, learned from: {}", s.name, s.pace.reason().unwrap_or_default())
        };
        let mut lines: Vec<String> = self.slowed.iter().take(SHOWN).map(line).collect();
        if self.slowed.len() > SHOWN {
            lines.push(format!("{} more senders have a pace of their own", self.slowed.len() - SHOWN));
        }
        lines
    }
}

impl Adapt {
    /// Senders with a pace of their own, and what that is now.
    pub fn senders(&self, now: Timestamp) -> impl Iterator<Item = SenderPace<'_>> {
        self.senders.paces(now)
    }

    /// Whether there are any.
    pub fn has_senders(&self) -> bool {
        !self.senders.is_free()
    }

    /// A sender gets a pace: to try it, or because its kind of refusal is known.
    pub(super) fn slow_sender(
        &mut self,
        refused: &Refused<'_>,
        kind: u64,
        suspicion: Option<Suspicion>,
        now: Timestamp,
    ) {
        let Some(of) = self.evidence.of_sender(kind, refused.party.sender) else { return };
        let (share, closed) = match suspicion {
            Some(suspicion) => (suspicion.share, suspicion.closed),
            None => (of.counts.share().0, of.is_closed()),
        };
        let mut pace = Pace::measured(of.meter.clone());
        pace.begin((!closed).then_some(1.0 - share), now, self.configured.rate, cut(refused.reply));
        let senders = self.evidence.senders_lately();
        if closed {
            pace.walled(now);
        } else if suspicion.is_some_and(|suspicion| suspicion.control.is_some()) {
            pace.begin_at_least(FAIR * self.pace.passed(now) / f64::from(senders));
        } else if let Some(rate) = self.senders.rate_of(kind, now).filter(|_| suspicion.is_none()) {
            // What one may the others may, too, as far as anybody knows.
            pace.begin_at_least(FAIR * rate);
        } else if of.meter.age(now) >= MEASURED {
            pace.begin_at_most(of.meter.rates(now).1);
        }
        let alone = suspicion.map(|Suspicion { least, closed, control, wall, .. }| {
            // A pace that another kind taught stays.
            let over = wall || !self.pace.is_free() && self.evidence.verdict(kind) == Verdict::Pace;
            let (rate, tried) = (self.pace.rate(now).unwrap_or(0.0), self.pace.tried(now));
            let most = match over {
                true => Some(OVER * rate.max(self.pace.passed(now)).max(1.0)),
                // As fast as before but evenly: of messages that leave in step the first gets what is free, and one
                // that comes between them always passes, whoever it is of.
                false => (control.is_some() && self.pace.is_free()).then_some(tried.max(1.0)),
            };
            if over {
                self.pace.end_stop(now);
            }
            let trial = Trial::of(kind, if closed { super::learn::WALL } else { least }, now);
            let (most_of_all, each) = CONTROLS_MOST;
            let control = control.or(over.then_some(0.0));
            let control =
                control.map(|before| Control { before, seen: 0, refused: 0, most: most_of_all + each * senders });
            Alone { trial, closed, control, lane: self.pace.clone(), most, over }
        });
        let end = (0..=refused.sender.len().min(NAME)).rev().find(|at| refused.sender.is_char_boundary(*at));
        let name = refused.sender.get(..end.unwrap_or(0)).unwrap_or_default().to_owned();
        self.senders.add(Slowed {
            key: refused.party.sender,
            name,
            kind,
            pace,
            share,
            last: now,
            alone,
            doubt: Doubt::default(),
            watch: Watch::default(),
        });
        self.changed = true;
    }

    /// A transaction of `sender` that began at `began` was accepted.
    pub(super) fn accepted_of(&mut self, sender: u64, cells: u32, began: Timestamp, now: Timestamp) {
        self.senders.control(sender, None);
        let Some(slowed) = self.senders.of(sender) else { return };
        slowed.last = now;
        let tested = slowed.is_tested(began);
        match slowed.pace.delivered(cells, began, now) {
            Told::Nothing if tested => self.note_of(sender, false, now),
            Told::Nothing => {}
            Told::Reopened if slowed.alone.is_some() => self.end_alone(sender, None, now),
            Told::Reopened => {}
            Told::Window(..) => {
                self.changed = true;
                if slowed.alone.is_some() {
                    self.end_alone(sender, Some(Found::Fewer), now);
                }
            }
        }
    }

    /// A refusal of `kind` for a sender that has a pace because of such. False: it has none.
    pub(super) fn refused_of(&mut self, refused: &Refused<'_>, kind: u64, began: Timestamp, now: Timestamp) -> bool {
        let sender = refused.party.sender;
        self.senders.control(sender, Some(kind));
        let Some(slowed) = self.senders.of(sender).filter(|s| s.kind == kind) else { return false };
        slowed.last = now;
        slowed.pace.missed(refused.cells, refused.party.size, now);
        let tested = slowed.is_tested(began);
        let reply = cut(refused.reply);
        match &mut slowed.alone {
            Some(alone) => {
                alone.trial.last = now;
                if alone.closed {
                    slowed.pace.throttled(began, now, reply);
                }
            }
            None => slowed.pace.throttled(began, now, reply),
        }
        if tested {
            self.note_of(sender, true, now);
        }
        self.changed = true;
        true
    }

    /// An attempt at a sender's own rate.
    fn note_of(&mut self, sender: u64, refused: bool, now: Timestamp) {
        let Some(slowed) = self.senders.of(sender) else { return };
        let Some(Alone { trial, closed, control, .. }) = &mut slowed.alone else {
            let rate = slowed.pace.rate(now).unwrap_or(f64::MAX);
            let doubted = slowed.doubt.note(refused, slowed.share) || slowed.watch.note(refused, slowed.share, rate);
            if doubted {
                let kind = slowed.kind;
                self.senders.remove(sender);
                self.evidence.not_of_senders(kind, true, now);
                self.changed = true;
            }
            return;
        };
        let alone = trial.note(refused, now);
        let found = match control {
            None => alone,
            Some(c) if c.before > 0.0 => c.judges(trial),
            // As if it were alone, where nothing is refused of the others either.
            Some(c) if c.share() < SENDER_SHARE => alone,
            Some(c) => c.judges(trial),
        };
        match found {
            Found::Open => {}
            // After a time of trouble nothing is refused either, however fast: a limit is met again. Not if others
            // still are refused.
            Found::Fewer if *closed && trial.refused == 0 && control.is_none_or(|c| c.share() < SENDER_SHARE) => {}
            Found::Fewer if control.is_some_and(|c| c.share() < LEFT * c.before) => self.end_alone(sender, None, now),
            found => self.end_alone(sender, Some(found), now),
        }
    }

    /// A trial with a sender ends; `None`: without a verdict.
    fn end_alone(&mut self, sender: u64, found: Option<Found>, now: Timestamp) {
        let Some(slowed) = self.senders.of(sender) else { return };
        let Some(Alone { trial, lane, over, .. }) = slowed.alone.take() else { return };
        let kind = slowed.kind;
        self.changed = true;
        if found == Some(Found::Fewer) {
            slowed.share = trial.share;
            let evidence = format!("with one sender: {}", trial.evidence());
            // What was taken for a pace of all was one of this sender.
            if self.evidence.verdict(kind) == Verdict::Pace || over {
                self.pace.release();
            }
            self.judge(kind, Verdict::SenderPace, trial.share, evidence, now);
            return;
        }
        let reason = slowed.pace.reason().unwrap_or_default().to_owned();
        if over {
            self.pace.go_back_to(lane);
        }
        self.senders.remove(sender);
        if found.is_none() {
            self.evidence.anew(kind);
        } else if over && self.pace.is_free() && self.trial.is_none() {
            self.try_lane(kind, &reason, now);
        }
        self.evidence.not_of_senders(kind, false, now);
    }

    /// Ends trials with a sender that nothing decides any more.
    pub(super) fn end_alone_trials(&mut self, now: Timestamp) {
        let Some((key, alone, back)) =
            self.senders.slowed.iter().find_map(|s| Some((s.key, s.alone.as_ref()?, s.pace.is_back(now))))
        else {
            return;
        };
        if let Some(found) = alone.is_over() {
            self.end_alone(key, Some(found), now);
        } else if now.since(alone.trial.last) >= IDLE || alone.closed && alone.trial.refused == 0 && back {
            self.end_alone(key, None, now);
        } else if !alone.closed && now.since(alone.trial.began) >= UNDECIDED {
            self.end_alone(key, Some(Found::Same), now);
        }
    }
}

#[cfg(test)]
#[path = "senders_tests.rs"]
mod tests;
