//! Learning how many connections a server takes, and how many messages on one.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::pace::FORGET;
use crate::clock::Timestamp;

/// Transactions that a refused connection costs before one more is tried.
const CLEAN: u32 = 40;
/// Refused connections that count for that.
const HURT_MOST: u32 = 10;
/// Least and greatest time at one number, and the time after which a further one was taken well.
const HOLD_LEAST: Duration = Duration::from_secs(10);
const HOLD_MOST: Duration = Duration::from_secs(600);
const STEP: Duration = Duration::from_secs(5);
/// A connection that succeeds so soon after another was refused was under way at the same time.
const RACE: Duration = Duration::from_secs(2);
/// Stops when not even one connection is taken.
const STOP: Duration = Duration::from_secs(1);
const STOP_MOST: Duration = Duration::from_secs(60);
/// Sightings of a number that are more than chance.
const TIMES: u32 = 3;
/// Refusals further apart than this have nothing to do with each other.
const APART: Duration = Duration::from_secs(60);

/// How many connections: the number that was open when further ones were refused; one more is
/// tried after a while, and when that is taken, ever more at once. One refusal teaches nothing, nor do
/// several between which a connection was taken.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Crowd {
    learned: Option<Learned>,
    #[serde(skip)]
    suspected: Option<Suspected>,
}

/// How often a further connection was refused in a row, and when last.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Suspected {
    times: u32,
    last: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Learned {
    cap: u32,
    /// How many more the next step tries; 0 while the number is held.
    step: u32,
    /// Since when the number is as it is.
    since: Timestamp,
    /// Transactions accepted, connections refused since then.
    clean: u32,
    hurt: u32,
    /// Refusals in a row with nothing open.
    closed: u32,
    resume: Timestamp,
    last: Timestamp,
    reason: String,
}

impl Crowd {
    pub(super) fn is_free(&self) -> bool {
        self.learned.is_none()
    }

    /// Connections at most; `None`: as configured.
    pub(super) fn cap(&self) -> Option<u32> {
        self.learned.as_ref().map(|l| l.cap)
    }

    /// Nothing may connect until then.
    pub(super) fn stopped(&self, now: Timestamp) -> Option<Timestamp> {
        self.learned.as_ref().map(|l| l.resume).filter(|resume| *resume > now)
    }

    pub(super) fn reason(&self) -> Option<&str> {
        self.learned.as_ref().map(|l| l.reason.as_str())
    }

    /// What is stopped goes on at `now`.
    pub(super) fn end_stop(&mut self, now: Timestamp) {
        if let Some(l) = &mut self.learned {
            l.resume = l.resume.min(now);
        }
    }

    /// The clock was set back by that much.
    pub(super) fn go_back(&mut self, back: Duration) {
        if let Some(suspected) = &mut self.suspected {
            suspected.last = suspected.last.before(back);
        }
        if let Some(l) = &mut self.learned {
            for time in [&mut l.since, &mut l.resume, &mut l.last] {
                *time = time.before(back);
            }
        }
    }

    /// A connection was refused while `open` others were accepted and open.
    pub(super) fn refused(&mut self, open: u32, now: Timestamp, reason: &str) {
        if self.learned.is_none() && !self.is_believed(now) {
            return;
        }
        let cap = open.max(1);
        let (hurt, closed) = match &mut self.learned {
            // Others that were under way at the same time.
            Some(l) if l.cap <= cap && (now.since(l.last) < RACE || now < l.resume) => {
                l.hurt = l.hurt.saturating_add(1);
                l.last = now;
                return;
            }
            Some(l) => (if l.step > 0 { 0 } else { l.hurt }, if open == 0 { l.closed + 1 } else { 0 }),
            None => (0, u32::from(open == 0)),
        };
        let stop = match closed {
            0 => Duration::ZERO,
            n => STOP.saturating_mul(1 << (n - 1).min(10)).min(STOP_MOST),
        };
        self.learned = Some(Learned {
            cap: self.cap().map_or(cap, |old| old.min(cap)),
            step: 0,
            since: now,
            clean: 0,
            hurt: hurt.saturating_add(1),
            closed,
            resume: now.after(stop),
            last: now,
            reason: reason.to_owned(),
        });
    }

    /// Whether a refusal is one of several in a row.
    fn is_believed(&mut self, now: Timestamp) -> bool {
        let former = self.suspected.filter(|former| now.since(former.last) < APART);
        let times = former.map_or(0, |former| former.times).saturating_add(1);
        self.suspected = (times < TIMES).then_some(Suspected { times, last: now });
        times >= TIMES
    }

    /// A connection was accepted; `open` with it.
    pub(super) fn opened(&mut self, open: u32, now: Timestamp) {
        // A server that takes some and refuses others has no number in mind.
        self.suspected = None;
        if let Some(l) = &mut self.learned {
            l.closed = 0;
            if open > l.cap && l.step == 0 && now.since(l.last) < RACE {
                l.cap = open;
            }
        }
    }

    pub(super) fn delivered(&mut self) {
        if let Some(l) = &mut self.learned {
            l.clean = l.clean.saturating_add(1);
        }
    }

    /// Brings the state up to date; `open` are open now.
    pub(super) fn advance(&mut self, open: u32, configured: u32, now: Timestamp) -> bool {
        let Some(l) = &mut self.learned else { return false };
        let held = now.since(l.since);
        let full = open >= l.cap;
        let more = if l.step == 0 {
            let enough = l.clean >= CLEAN * l.hurt.clamp(1, HURT_MOST) && held >= HOLD_LEAST;
            full && (enough || held >= HOLD_MOST)
        } else {
            full && held >= STEP
        };
        if more {
            l.step = l.step.saturating_mul(2).max(1);
            l.cap = l.cap.saturating_add(l.step);
            l.since = now;
            l.clean = 0;
        }
        if l.cap >= configured && l.step > 0 && now.since(l.since) >= STEP || now.since(l.last) >= FORGET {
            self.learned = None;
            return true;
        }
        false
    }
}

/// How many messages a connection takes: the number after which the server closed it again and
/// again without a pause before and never let one go beyond, or once when it says so.
///
/// Servers also close for reasons of their own: a reset now and then, at any number, or a restart,
/// which ends all connections at once, many of them at the same number. So a number is believed when it
/// is seen on three connections in a row, each opened after the one before was closed, and if meanwhile
/// no connection has carried more.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Spent {
    cap: Option<u32>,
    #[serde(default)]
    until: Timestamp,
    #[serde(default)]
    reason: String,
    #[serde(skip)]
    seen: Option<Seen>,
}

/// The number at which the server closed last.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Seen {
    messages: u32,
    /// On how many connections in a row, and when on the last one.
    times: u32,
    last: Timestamp,
}

impl Spent {
    pub(super) fn is_free(&self) -> bool {
        self.cap.is_none()
    }

    pub(super) fn cap(&self) -> Option<u32> {
        self.cap
    }

    pub(super) fn until(&self) -> Timestamp {
        self.until
    }

    pub(super) fn reason(&self) -> &str {
        &self.reason
    }

    /// The clock was set back by that much.
    pub(super) fn go_back(&mut self, back: Duration) {
        self.until = self.until.before(back);
        if let Some(seen) = &mut self.seen {
            seen.last = seen.last.before(back);
        }
    }

    /// A connection has carried `messages`, the last one just now.
    pub(super) fn carried(&mut self, messages: u32) {
        if self.seen.is_some_and(|seen| messages > seen.messages) {
            self.seen = None;
        }
    }

    /// The server closed a connection that was opened at `opened` and had carried `messages`; `said`: it
    /// told why. True if that was learned.
    pub(super) fn closed(&mut self, messages: u32, opened: Timestamp, said: bool, now: Timestamp, why: &str) -> bool {
        if messages == 0 {
            return false;
        }
        let seen = match self.seen {
            // Closed together with the one before.
            Some(seen) if seen.messages == messages && opened < seen.last => seen,
            Some(seen) if seen.messages == messages => Seen { times: seen.times.saturating_add(1), last: now, ..seen },
            _ => Seen { messages, times: 1, last: now },
        };
        self.seen = Some(seen);
        // A smaller number than a learned one is believed on the same terms.
        if (said || seen.times >= TIMES) && self.cap.is_none_or(|cap| messages < cap) {
            *self = Spent { cap: Some(messages), until: now.after(FORGET), reason: why.to_owned(), seen: None };
            return true;
        }
        false
    }

    pub(super) fn advance(&mut self, now: Timestamp) -> bool {
        let over = self.cap.is_some() && now >= self.until;
        if over {
            *self = Spent::default();
        }
        over
    }
}
