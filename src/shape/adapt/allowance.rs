//! What a server takes on one connection, counted in messages, recipients or bytes. Pure.
//!
//! A refusal that comes on a connection which has carried mail, while fresh ones take it, is about the connection. What
//! tells such a cap from chance is that it *separates*: in one measure all that was refused lies above all that passed.
//! So for each kind of refusal a *series* keeps the greatest level that passed and the smallest that was refused, in
//! five measures at once; a measure in which they overlap is out. Invariants: one refusal never teaches anything; a
//! fresh connection is always used; what is learned is a level that has passed, so never nothing. Memory is bounded
//! ([`KINDS`]).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::pace::FORGET;
use crate::clock::{Timestamp, doubled};

/// Kinds of refusals of one lane that may be about connections at the same time.
const KINDS: usize = 4;
/// The kind of all that ends a connection, with 421 or without a word.
pub(super) const ENDS: u64 = 0;
/// Connections that must agree, one after the other: so many at least, and so many that it would happen by chance less
/// often than this, were each attempt refused as often as one is.
const TIMES: u32 = 3;
const CHANCE: f64 = 0.005;
/// Refusals of a kind that are not evidence of anything else while it may be about connections.
const MOST: u32 = 500;
/// How long a kind that was found not to be about connections is taken for one that is not: at first, and at most.
const DOUBT: Duration = Duration::from_secs(60);
const DOUBT_MOST: Duration = Duration::from_secs(4 * 3600);
/// How long what was learned is kept to before more is tried: at first, and at most, which is less than it is kept.
const PROBE: Duration = Duration::from_secs(300);
const PROBE_MOST: Duration = Duration::from_secs(1800);
/// A probe goes beyond what has passed by this part.
const BEYOND: u64 = 4;

/// An amount of mail: of a message, or what a connection has carried.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Amount {
    /// Messages.
    pub messages: u32,
    /// Recipients that were accepted, or are to be.
    pub recipients: u32,
    /// Bytes of content.
    pub bytes: u64,
}

impl Amount {
    /// Both together.
    #[must_use]
    pub fn and(self, more: Amount) -> Amount {
        Amount {
            messages: self.messages.saturating_add(more.messages),
            recipients: self.recipients.saturating_add(more.recipients),
            bytes: self.bytes.saturating_add(more.bytes),
        }
    }

    fn without(self, less: Amount) -> Amount {
        Amount {
            messages: self.messages.saturating_sub(less.messages),
            recipients: self.recipients.saturating_sub(less.recipients),
            bytes: self.bytes.saturating_sub(less.bytes),
        }
    }
}

/// What a server may count. Some look at what was before a message, some at what would be with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Measure {
    Messages,
    Recipients,
    RecipientsWithIt,
    Bytes,
    BytesWithIt,
}

use Measure::{Bytes, BytesWithIt, Messages, Recipients, RecipientsWithIt};

/// The simplest first: it is believed where several fit.
const MEASURES: [Measure; 5] = [Messages, Recipients, RecipientsWithIt, Bytes, BytesWithIt];

impl Measure {
    /// The level of a message `next` on a connection that has carried `before`.
    fn level(self, before: Amount, next: Amount) -> u64 {
        let with = before.and(next);
        match self {
            Messages => u64::from(before.messages),
            Recipients => u64::from(before.recipients),
            RecipientsWithIt => u64::from(with.recipients),
            Bytes => before.bytes,
            BytesWithIt => with.bytes,
        }
    }

    /// The level at which it was refused; the greatest there is, if that is not known.
    fn refused(self, attempt: &Attempted) -> u64 {
        match (attempt.next, self) {
            (Some((next, _)), _) => self.level(attempt.before, next),
            (None, RecipientsWithIt | BytesWithIt) => u64::MAX,
            (None, _) => self.level(attempt.before, Amount::default()),
        }
    }
}

/// What may still be sent on a connection, beside the number of messages. By default anything may.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Room {
    /// The greatest level in each of [`MEASURES`].
    most: [Option<u64>; 5],
}

impl Room {
    /// Whether a connection that has carried `before` takes `next` as well. One that has carried nothing always does.
    pub fn takes(&self, before: Amount, next: Amount) -> bool {
        let fits =
            |(measure, most): (&Measure, &Option<u64>)| most.is_none_or(|most| measure.level(before, next) <= most);
        before.messages == 0 || MEASURES.iter().zip(&self.most).all(fits)
    }
}

/// An attempt that was refused.
#[derive(Clone, Copy, Debug)]
pub struct Attempted {
    /// When its connection was opened.
    pub opened: Timestamp,
    /// What that had carried, and the last message of it.
    pub before: Amount,
    /// See `before`.
    pub last: Amount,
    /// What was to follow, and the hash of its sender; `None`: nobody was told yet.
    pub next: Option<(Amount, u64)>,
    /// The kind of the last refusal on this connection, if nothing has passed since.
    pub earlier: Option<u64>,
}

impl Attempted {
    fn sender(&self) -> Option<u64> {
        self.next.map(|(_, sender)| sender)
    }
}

/// What a refusal is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Says {
    /// Something else, or nobody knows.
    Nothing,
    /// The connection perhaps; `again`: it has refused before, so another one is tried.
    Perhaps {
        /// See above.
        again: bool,
    },
    /// The connection: it is used up; `news`: that is known by now.
    UsedUp {
        /// See above.
        news: bool,
    },
}

/// Of one measure: what passed and what was refused.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Levels {
    passed: Option<u64>,
    refused: u64,
}

impl Levels {
    fn separate(&self) -> bool {
        self.passed.is_none_or(|passed| passed < self.refused)
    }
}

/// What was seen since a refusal on a connection that had carried something.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Series {
    /// Connections that agreed, each opened after the one before had refused; and when the last of them did.
    times: u32,
    last: Timestamp,
    /// Refusals in all.
    refused: u32,
    /// The only sender whose mail was refused, as long as none of it has passed since.
    only: Option<u64>,
    levels: [Levels; 5],
}

impl Series {
    fn of(attempt: &Attempted, now: Timestamp) -> Series {
        let mut levels = [Levels { passed: None, refused: u64::MAX }; 5];
        for (of, measure) in levels.iter_mut().zip(MEASURES) {
            of.refused = measure.refused(attempt);
            of.passed = Some(measure.level(attempt.before.without(attempt.last), attempt.last));
        }
        Series { times: 1, last: now, refused: 1, only: attempt.sender(), levels }
    }

    /// Another one was refused; false: no measure separates any more.
    fn refused(&mut self, attempt: &Attempted, now: Timestamp) -> bool {
        let one = Series::of(attempt, now);
        for (of, new) in self.levels.iter_mut().zip(one.levels) {
            *of = Levels { passed: of.passed.max(new.passed), refused: of.refused.min(new.refused) };
        }
        if attempt.opened >= self.last {
            (self.times, self.last) = (self.times.saturating_add(1), now);
        }
        self.refused = self.refused.saturating_add(1);
        self.only = self.only.filter(|only| attempt.sender() == Some(*only));
        self.separates()
    }

    /// The same for one that passed.
    fn passed(&mut self, before: Amount, next: Amount, sender: u64) -> bool {
        for (of, measure) in self.levels.iter_mut().zip(MEASURES) {
            of.passed = of.passed.max(Some(measure.level(before, next)));
        }
        self.only = self.only.filter(|only| *only != sender);
        self.separates()
    }

    fn separates(&self) -> bool {
        self.levels.iter().any(Levels::separate)
    }

    /// The measure and the greatest level that passes, if there were connections enough.
    fn believed(&self) -> Option<(Measure, u64)> {
        // One is refused after so many.
        let share = 1.0 / (self.levels[0].refused as f64 + 1.0);
        let needed = 1.0 + (CHANCE.ln() / share.min(0.9).ln()).ceil();
        if self.only.is_some() || self.times < TIMES || f64::from(self.times) < needed {
            return None;
        }
        let is_fit = |levels: &Levels| levels.separate() && levels.refused < u64::MAX;
        let mut fit = MEASURES.into_iter().zip(self.levels).filter(|(_, levels)| is_fit(levels));
        fit.find_map(|(measure, levels)| Some((measure, levels.passed?)))
    }
}

/// What is known of a kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Learned {
    measure: Measure,
    /// The greatest level that passed.
    most: u64,
    /// Until then, and because of what.
    until: Timestamp,
    reason: String,
    /// More is tried from then on, and how often that was refused.
    probe: Timestamp,
    #[serde(default)]
    tries: u32,
}

impl Learned {
    /// The greatest level that is sent at `now`.
    fn cap(&self, now: Timestamp) -> u64 {
        let more = (self.most / BEYOND).saturating_add(1);
        if now >= self.probe { self.most.saturating_add(more) } else { self.most }
    }

    /// It was refused beyond what has passed.
    fn hold(&mut self, now: Timestamp) {
        if now >= self.probe {
            self.probe = now.after(doubled(PROBE, self.tries, PROBE_MOST));
            self.tries = self.tries.saturating_add(1);
        }
        self.until = now.after(FORGET);
    }

    fn told(&self) -> String {
        match self.measure {
            Messages => format!("{} messages", self.most.saturating_add(1)),
            Recipients => format!("{} recipients", self.most.saturating_add(1)),
            RecipientsWithIt => format!("{} recipients", self.most),
            Bytes | BytesWithIt if self.most >= 10_000 => format!("{} kB", self.most / 1000),
            Bytes | BytesWithIt => format!("{} bytes", self.most),
        }
    }
}

/// A kind of refusal that may be about connections.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Kind {
    hash: u64,
    #[serde(default)]
    learned: Option<Learned>,
    #[serde(skip)]
    series: Option<Series>,
    /// It is about something else until then, and how often that was found.
    #[serde(skip)]
    doubted: Timestamp,
    #[serde(skip)]
    tries: u32,
    /// The last refusal.
    #[serde(skip)]
    last: Timestamp,
    /// That it is about something else was found just now.
    #[serde(skip)]
    refuted: bool,
}

impl Kind {
    /// It is about something else.
    fn doubt(&mut self, now: Timestamp) {
        if self.hash != ENDS {
            self.series = None;
        }
        if now >= self.doubted {
            self.doubted = now.after(doubled(DOUBT, self.tries, DOUBT_MOST));
            self.tries = self.tries.saturating_add(1);
            self.refuted = true;
        }
    }

    /// A refusal on a connection that has carried something.
    fn refused(&mut self, attempt: &Attempted, now: Timestamp, reason: &str) -> Says {
        if let Some(learned) = &mut self.learned
            && learned.measure.refused(attempt) > learned.most
        {
            learned.hold(now);
            return Says::UsedUp { news: false };
        }
        let ends = self.hash == ENDS;
        if now < self.doubted && !ends {
            return Says::Nothing;
        }
        match &mut self.series {
            Some(series) if attempt.earlier == Some(self.hash) => series.refused = series.refused.saturating_add(1),
            Some(series) => {
                if !series.refused(attempt, now) {
                    self.series = Some(Series::of(attempt, now));
                    // Known to be about connections, it is about another number now.
                    if self.learned.is_none() {
                        self.doubt(now);
                        return Says::Nothing;
                    }
                }
            }
            None => self.series = Some(Series::of(attempt, now)),
        }
        if let Some((measure, most)) = self.series.as_ref().and_then(Series::believed) {
            let (until, probe) = (now.after(FORGET), now.after(PROBE));
            self.learned = Some(Learned { measure, most, until, reason: reason.to_owned(), probe, tries: 1 });
            (self.series, self.tries) = (None, 0);
            return Says::UsedUp { news: true };
        }
        let few = self.series.is_some_and(|series| series.refused <= MOST);
        if now < self.doubted || !few {
            Says::Nothing
        } else {
            Says::Perhaps { again: attempt.earlier == Some(self.hash) }
        }
    }
}

/// What a lane knows of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Allowances {
    #[serde(default)]
    kinds: Vec<Kind>,
}

impl Allowances {
    /// Nothing was learned.
    pub(super) fn is_free(&self) -> bool {
        self.kinds.iter().all(|kind| kind.learned.is_none())
    }

    /// What is worth storing.
    pub(super) fn lasting(&self) -> Allowances {
        Allowances { kinds: self.kinds.iter().filter(|kind| kind.learned.is_some()).cloned().collect() }
    }

    fn learned(&self) -> impl Iterator<Item = &Learned> {
        self.kinds.iter().filter_map(|kind| kind.learned.as_ref())
    }

    /// Messages on a connection at most.
    pub(super) fn messages(&self, now: Timestamp) -> Option<u32> {
        let of = self.learned().filter(|learned| learned.measure == Messages);
        of.map(|learned| u32::try_from(learned.cap(now)).unwrap_or(u32::MAX).saturating_add(1)).min()
    }

    /// Whatever else is counted.
    pub(super) fn room(&self, now: Timestamp) -> Room {
        let mut room = Room::default();
        for learned in self.learned().filter(|learned| learned.measure != Messages) {
            let at = MEASURES.iter().position(|measure| *measure == learned.measure);
            if let Some(most) = at.and_then(|at| room.most.get_mut(at)) {
                *most = Some(most.map_or(learned.cap(now), |most| most.min(learned.cap(now))));
            }
        }
        room
    }

    /// In words.
    pub(super) fn explain(&self) -> Vec<String> {
        let line =
            |of: &Learned| format!("{} per connection until {} learned from: {}", of.told(), of.until, of.reason);
        self.learned().map(line).collect()
    }

    /// The same without messages, and what led to it.
    pub(super) fn per_connection(&self) -> Vec<String> {
        self.learned().filter(|learned| learned.measure != Messages).map(Learned::told).collect()
    }

    /// What was learned of a kind, in words.
    pub(super) fn told(&self, hash: u64) -> Option<String> {
        let kind = self.kinds.iter().find(|kind| kind.hash == hash)?;
        kind.learned.as_ref().map(Learned::told)
    }

    /// A message `next` of `sender` was accepted on a connection that had carried `before`. True if more is known to
    /// pass than before.
    pub(super) fn passed(&mut self, before: Amount, next: Amount, sender: u64, now: Timestamp) -> bool {
        let mut raised = false;
        for kind in &mut self.kinds {
            if kind.series.as_mut().is_some_and(|series| !series.passed(before, next, sender)) {
                kind.series = None;
                if kind.learned.is_none() {
                    kind.doubt(now);
                }
            }
            if let Some(learned) = &mut kind.learned
                && learned.measure.level(before, next) > learned.most
            {
                learned.most = learned.measure.level(before, next);
                raised = true;
            }
        }
        raised
    }

    /// A refusal of a kind. What is told of it in `reason` must be of a kind, too.
    pub(super) fn refused(&mut self, hash: u64, attempt: &Attempted, now: Timestamp, reason: &str) -> Says {
        if attempt.before.messages == 0 {
            if let Some(kind) = self.kinds.iter_mut().find(|kind| kind.hash == hash) {
                kind.doubt(now);
            }
            return Says::Nothing;
        }
        let at = self.kinds.iter().position(|kind| kind.hash == hash).or_else(|| self.make_room(hash, now));
        let Some(kind) = at.and_then(|at| self.kinds.get_mut(at)) else { return Says::Nothing };
        kind.last = now;
        kind.refused(attempt, now, reason)
    }

    /// Whether a kind was found to be about something else since this was last asked.
    pub(super) fn take_refuted(&mut self) -> bool {
        // Of each: what is not asked for now is told another time.
        self.kinds.iter_mut().map(|kind| std::mem::take(&mut kind.refuted)).filter(|refuted| *refuted).count() > 0
    }

    /// The place of a new kind: of one that was heard of longest ago and of which nothing is known.
    fn make_room(&mut self, hash: u64, now: Timestamp) -> Option<usize> {
        let new = Kind {
            hash,
            learned: None,
            series: None,
            doubted: Timestamp::default(),
            tries: 0,
            last: now,
            refuted: false,
        };
        if self.kinds.len() < KINDS {
            self.kinds.push(new);
            return Some(self.kinds.len() - 1);
        }
        let free = self.kinds.iter().enumerate().filter(|(_, kind)| kind.learned.is_none() && now >= kind.doubted);
        let at = free.min_by_key(|(_, kind)| kind.last).map(|(at, _)| at)?;
        *self.kinds.get_mut(at)? = new;
        Some(at)
    }

    /// The clock was set back by that much.
    pub(super) fn go_back(&mut self, back: Duration) {
        for kind in &mut self.kinds {
            for time in [&mut kind.doubted, &mut kind.last] {
                *time = time.before(back);
            }
            if let Some(series) = &mut kind.series {
                series.last = series.last.before(back);
            }
            if let Some(learned) = &mut kind.learned {
                (learned.until, learned.probe) = (learned.until.before(back), learned.probe.before(back));
            }
        }
    }

    /// Drops what is over; `most`: messages on a connection as configured. True if anything went.
    pub(super) fn advance(&mut self, most: u32, now: Timestamp) -> bool {
        let is_over = |learned: &mut Learned| {
            now >= learned.until || learned.measure == Messages && learned.most >= u64::from(most)
        };
        self.kinds.iter_mut().filter_map(|kind| kind.learned.take_if(is_over)).count() > 0
    }
}

#[cfg(test)]
#[path = "allowance_tests.rs"]
mod tests;
