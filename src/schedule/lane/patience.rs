//! Patience with a host that says nothing to MAIL, RCPT or DATA while other mail needs the connection.
//!
//! RFC 5321 §4.5.3.2 asks for minutes, because a busy host may need them. A host that answers other mail within a
//! moment is not busy: there a message waits for [`PATIENCE`], or [`TIMES`] times what is usual if that is longer. Then
//! its transaction is given up, and it is tried again as after any time-out. Only
//! - before the body is out: what was cut off then has not arrived, and cannot arrive twice;
//! - while mail waits that no connection is there for and that would leave on this one, and that lacks something of what
//!   all that is under way has in common: nothing is gained for mail that the host leaves so as well;
//! - one, and another when the host has answered something since, as fast as usual. Else, as many as leave the half of
//!   the connections to what hangs, again after [`PATIENCE`] (twice that in a lane that was never answered anything), and
//!   then after twice as long each time: a host that hangs for all mail is asked hardly more often than before;
//! - the sooner the more messages had no answer in the last ten minutes: [`PATIENCE`] by one more than that, not less
//!   than [`SHORTEST`];
//! - for a message twice as long with each attempt, so that a host that is slow with it (a tar pit) has the full time
//!   of the RFC in the end.
//!
//! Pure, but for the connection that is told.

use std::sync::Weak;
use std::time::Duration;

use tokio::time::Instant;

use super::unanswered::{Confined, Unanswered};
use super::under_way::View;
use super::{LEAD, Lane, State};
use crate::clock::doubled;
use crate::deliver::{Silence, Stage};
use crate::mail::QueueId;
use crate::schedule::Job;
use crate::shape::Cost;

/// How long a message may wait in its first attempt.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
const TIMES: u32 = 10;
/// The same where a lot of mail hangs: the more of it there was lately, the less.
const SHORTEST: Duration = Duration::from_secs(5);
/// Never longer than the times of the RFC.
const LONGEST: Duration = Duration::from_secs(300);
/// Of those that wait longest so many are looked at.
const LOOKED_AT: usize = 3;

/// The next mail that hangs is told of after this.
const QUIET: Duration = Duration::from_secs(600);

/// When mail that hangs was told of, and whether its end was.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    at: Instant,
    over: bool,
}

/// Transactions that were given up for other mail, as many as may be for as long as nothing is answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct GaveUp {
    at: Instant,
    /// How many.
    count: usize,
    /// How often some were before, and nothing was answered since.
    in_vain: u32,
}

/// A transaction that was given up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GivenUp {
    /// Which.
    pub message: QueueId,
    /// The host.
    pub host: String,
    /// What it said nothing to.
    pub stage: Stage,
    /// For how long.
    pub after: Duration,
}

/// What a host does with mail that it leaves without an answer while it answers other mail.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Hangs {
    /// It has left some so for long.
    Begins {
        /// The one that waits longest.
        message: QueueId,
        /// The host.
        host: String,
        /// What it said nothing to.
        stage: Stage,
        /// For how long.
        silent: Duration,
        /// Connections that wait so.
        connections: usize,
    },
    /// None of it is left; the first was told of so long ago.
    Over(Duration),
}

impl Lane {
    /// What is to be told of mail that hangs while other mail is answered: that it does, and when it is over; once in
    /// [`QUIET`] at most.
    pub fn hangs(&self) -> Option<Hangs> {
        let mut state = self.state.lock();
        let (now, State { unanswered, answers, .. }) = (Instant::now(), &mut *state);
        let answered = unanswered.known_answers();
        let slow = answered.slow();
        let others = |lasts| now.checked_sub(lasts).is_some_and(|began| answered.any_since(began));
        let late = answers.late().filter(|(_, silence)| silence.lasts >= slow && others(silence.lasts));
        let longest = late.max_by_key(|(_, silence)| silence.lasts);
        match (longest, unanswered.hangs) {
            (None, Some(Told { at, over: false })) => {
                unanswered.hangs = Some(Told { at, over: true });
                Some(Hangs::Over(now.saturating_duration_since(at)))
            }
            (Some((host, silence)), told) if silence.lasts >= PATIENCE => {
                if told.is_some_and(|told| !told.over || now.saturating_duration_since(told.at) < QUIET) {
                    return None;
                }
                let (message, stage, silent) = (silence.message, silence.stage, silence.lasts);
                let (host, connections) = (host.to_string(), answers.longer_than(slow, now).count());
                unanswered.hangs = Some(Told { at: now, over: false });
                Some(Hangs::Begins { message, host, stage, silent, connections })
            }
            _ => None,
        }
    }

    /// Gives up a transaction for the sake of other mail, if that is to be. To be asked every second or so.
    pub fn give_up_late(&self) -> Option<GivenUp> {
        let mut state = self.state.lock();
        let stands = state.paused || state.narrowed.held().is_some() || self.gate.wait(Cost::LEAST) > LEAD;
        if stands || state.ready.is_empty() {
            return None;
        }
        let given_up = state.late_for_others(self.provider.connections)?;
        let now = Instant::now();
        let before = state.unanswered.gave_up.filter(|before| !state.unanswered.known_answers().any_since(before.at));
        state.unanswered.gave_up = Some(match before {
            Some(before) if before.is_over(&state.unanswered, now) => {
                GaveUp { at: now, count: 1, in_vain: before.in_vain.saturating_add(1) }
            }
            Some(before) => GaveUp { count: before.count + 1, ..before },
            None => GaveUp { at: now, count: 1, in_vain: 0 },
        });
        Some(given_up)
    }
}

impl GaveUp {
    /// How long until others are, if nothing is answered.
    fn again(&self, unanswered: &Unanswered) -> Duration {
        // Of a host that never answered anything it is not known how slow it is.
        let first = if unanswered.known_answers().times() == 0 { 2 * PATIENCE } else { PATIENCE };
        doubled(first, self.in_vain, LONGEST)
    }

    fn is_over(&self, unanswered: &Unanswered, now: Instant) -> bool {
        now.saturating_duration_since(self.at) >= self.again(unanswered)
    }
}

impl State {
    fn late_for_others(&self, connections: u32) -> Option<GivenUp> {
        let answered = self.unanswered.known_answers();
        let now = Instant::now();
        // Nothing was answered since some were: it may be the host.
        let most = self.narrowed.most(connections) as usize;
        let before = self.unanswered.gave_up.filter(|before| !answered.any_since(before.at));
        let again = before.map_or(Duration::ZERO, |before| before.again(&self.unanswered));
        let goes_on = before.is_some_and(|before| !before.is_over(&self.unanswered, now));
        if goes_on && before.is_some_and(|before| before.count >= most / 2) {
            return None;
        }
        let hung = u32::try_from(self.unanswered.lately.all(now).count()).unwrap_or(u32::MAX);
        let least = (answered.usual() * TIMES).max((PATIENCE / hung.saturating_add(1)).max(SHORTEST)).max(again);
        let attempts = |message| {
            let mut under_way = self.unanswered.under_way.iter().filter_map(Weak::upgrade);
            under_way.find(|one| one.message == message).map_or(0, |one| one.attempts)
        };
        let is_over =
            |silence: &Silence| silence.lasts >= doubled(least, attempts(silence.message), LONGEST.max(least));
        let mut late: Vec<_> = self.answers.that_may_end(least).filter(|(_, silence, _)| is_over(silence)).collect();
        late.sort_by_key(|(_, silence, _)| std::cmp::Reverse(silence.lasts));
        // Those of one time leave the half of the connections to what hangs.
        if goes_on && late.len() <= Confined::of_all(most) {
            return None;
        }
        for (host, silence, awaited) in late.into_iter().take(LOOKED_AT) {
            if self.waits_for(silence.message, connections, before.is_some()) && awaited.give_up(silence.message) {
                let host = host.to_string();
                return Some(GivenUp { message: silence.message, host, stage: silence.stage, after: silence.lasts });
            }
        }
        None
    }

    /// Whether other mail needs the connection of a message.
    fn waits_for(&self, message: QueueId, connections: u32, in_vain: bool) -> bool {
        let most = self.narrowed.most(connections);
        let none_free = self.workers >= self.most_workers(connections) && self.waiting == 0;
        let now = View::of(&self.unanswered, most, &self.answers, None);
        let without = View::of(&self.unanswered, most, &self.answers, Some(message));
        let keeps = |job: &Job| self.circuit.as_ref().is_some_and(|circuit| circuit.keeps(job));
        let mut waits = false;
        self.ready.look(&mut |job, limit| {
            waits = waits
                || limit.is_none()
                    && !keeps(job)
                    && (none_free || now.keeps(job))
                    && !without.keeps(job)
                    && !now.gains_nothing(job.features().keys(), in_vain)
                    && !self.unanswered.concerns(job);
        });
        waits
    }
}

#[cfg(test)]
#[path = "patience_tests.rs"]
mod tests;
