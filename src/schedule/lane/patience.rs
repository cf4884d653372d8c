//! Patience with a host that says nothing to MAIL, RCPT or DATA while other mail needs the connection.
//!
//! RFC 5321 §4.5.3.2 asks for minutes, because a busy host may need them. A host that answers other mail within a
//! moment is not busy: there a message waits for [`PATIENCE`], or [`TIMES`] times what is usual if that is longer. Then
//! its transaction is given up, and it is tried again as after any time-out. Only
//! - before the body is out: what was cut off then has not arrived, and cannot arrive twice;
//! - while mail waits that no connection is there for and that would leave on this one, and that lacks something of what
//!   all that is under way has in common: nothing is gained for mail that the host leaves so as well;
//! - one, and another when the host has answered something since, as fast as usual: a host that hangs for all mail is
//!   asked no more often than before;
//! - for a message twice as long with each attempt, so that a host that is slow with it (a tar pit) has the full time
//!   of the RFC in the end.
//!
//! Pure, but for the connection that is told.

use std::sync::Weak;
use std::time::Duration;

use tokio::time::Instant;

use super::under_way::View;
use super::{LEAD, Lane, State};
use crate::clock::doubled;
use crate::deliver::Stage;
use crate::mail::QueueId;
use crate::schedule::Job;
use crate::shape::Cost;

/// How long a message may wait in its first attempt.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
const TIMES: u32 = 10;
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
        state.unanswered.gave_up = Some(Instant::now());
        Some(given_up)
    }
}

impl State {
    fn late_for_others(&self, connections: u32) -> Option<GivenUp> {
        let answered = self.unanswered.known_answers();
        let told = self.unanswered.gave_up.is_none_or(|at| answered.any_since(at));
        if answered.times() == 0 || !told {
            return None;
        }
        let least = (answered.usual() * TIMES).max(PATIENCE);
        let mut late: Vec<_> = self.answers.that_may_end(least).collect();
        late.sort_by_key(|(_, silence, _)| std::cmp::Reverse(silence.lasts));
        for (host, silence, awaited) in late.into_iter().take(LOOKED_AT) {
            let mut under_way = self.unanswered.under_way.iter().filter_map(Weak::upgrade);
            let attempts = under_way.find(|one| one.message == silence.message).map_or(0, |one| one.attempts);
            if silence.lasts >= doubled(least, attempts, LONGEST.max(least))
                && self.waits_for(silence.message, connections)
                && awaited.give_up(silence.message)
            {
                let host = host.to_string();
                return Some(GivenUp { message: silence.message, host, stage: silence.stage, after: silence.lasts });
            }
        }
        None
    }

    /// Whether other mail needs the connection of a message.
    fn waits_for(&self, message: QueueId, connections: u32) -> bool {
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
                    && !now.is_like_all(job.features().keys())
                    && !self.unanswered.concerns(job);
        });
        waits
    }
}

#[cfg(test)]
#[path = "patience_tests.rs"]
mod tests;
