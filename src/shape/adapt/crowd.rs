//! Learning how many connections a server takes, and how many messages on one.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::pace::FORGET;
use crate::clock::{Timestamp, doubled};

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
/// Sightings of a number of messages that are more than chance.
const TIMES: u32 = 3;
/// Refusals in a row teach a number of connections if it would happen by chance less often than this; how
/// many attempts to connect are remembered for that, older ones count half.
const CHANCE: f64 = 1e-5;
const ATTEMPTS: f64 = 256.0;
/// Refusals further apart than this have nothing to do with each other.
const APART: Duration = Duration::from_secs(60);

/// How many connections: the number that was open when further ones were refused; one more is
/// tried after a while, and when that is taken, ever more at once. One refusal teaches nothing, nor do
/// several between which a connection was taken, nor as many in a row as a busy server gives by chance. A
/// smaller number than a learned one is believed on the same terms, unless more was just tried.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Crowd {
    learned: Option<Learned>,
    #[serde(skip)]
    suspected: Suspected,
}

/// How often a further connection was refused in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Suspected {
    row: u32,
    /// When it last was, and how many were open then.
    last: Timestamp,
    open: u32,
    /// Connections that were taken and refused lately, those of the row included.
    taken: f64,
    refused: f64,
}

impl Suspected {
    fn note(&mut self, taken: f64, refused: f64) {
        (self.taken, self.refused) = (self.taken + taken, self.refused + refused);
        if self.taken + self.refused > ATTEMPTS {
            (self.taken, self.refused) = (self.taken / 2.0, self.refused / 2.0);
        }
    }

    /// One was refused while `open` were open: whether the row is longer than by chance.
    fn is_believed(&mut self, open: u32, now: Timestamp) -> bool {
        // Where more are open than at the last refusal, one was taken since and is not yet ready; where
        // fewer are, it is another number.
        let is_first = self.row == 0 || now.since(self.last) >= APART || open != self.open;
        self.row = if is_first { 1 } else { self.row.saturating_add(1) };
        (self.last, self.open) = (now, open);
        self.note(0.0, 1.0);
        let row = f64::from(self.row);
        let before = (self.refused - row).max(0.0) + 1.0;
        let chance = before / (before + self.taken.max(f64::from(open)) + 1.0);
        chance.powf(row) < CHANCE
    }
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
        self.suspected.last = self.suspected.last.before(back);
        if let Some(l) = &mut self.learned {
            for time in [&mut l.since, &mut l.resume, &mut l.last] {
                *time = time.before(back);
            }
        }
    }

    /// A connection was refused while `open` others were accepted and open.
    pub(super) fn refused(&mut self, open: u32, now: Timestamp, reason: &str) {
        let cap = open.max(1);
        let is_new = self.learned.as_ref().is_none_or(|l| l.step == 0 && cap < l.cap);
        if is_new && !self.suspected.is_believed(open, now) {
            return;
        }
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
            n => doubled(STOP, n - 1, STOP_MOST),
        };
        // What a number explains says nothing of how busy the host is.
        self.suspected = Suspected::default();
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

    /// A connection was accepted; `open` with it.
    pub(super) fn opened(&mut self, open: u32, now: Timestamp) {
        // A server that takes some and refuses others has no number in mind.
        self.suspected.row = 0;
        self.suspected.note(1.0, 0.0);
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
/// no connection has carried more. Where it was mail of one sender each time at which they ended, it is about that
/// sender, until some of it is accepted, which tells that it was the connection's turn to end.
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
    /// The only sender at whose mail they were closed, as long as none of it has passed since.
    only: Option<u64>,
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

    /// A connection has carried `messages`, the last one, of `sender`, just now.
    pub(super) fn carried(&mut self, messages: u32, sender: u64) {
        let Some(seen) = &mut self.seen else { return };
        if messages > seen.messages {
            self.seen = None;
        } else if seen.only == Some(sender) {
            seen.only = None;
        }
    }

    /// The server closed a connection that was opened at `opened` and had carried `messages`, when mail of
    /// `sender` was to follow, if any was. True if that was learned.
    pub(super) fn closed(
        &mut self,
        (messages, opened): (u32, Timestamp),
        sender: Option<u64>,
        now: Timestamp,
        why: &str,
    ) -> bool {
        if messages == 0 {
            return false;
        }
        let seen = match self.seen {
            Some(seen) if seen.messages == messages => {
                // Not one that was closed together with the one before.
                let again = opened >= seen.last;
                Seen {
                    times: seen.times.saturating_add(u32::from(again)),
                    last: if again { now } else { seen.last },
                    only: seen.only.filter(|only| sender == Some(*only)),
                    ..seen
                }
            }
            _ => Seen { messages, times: 1, last: now, only: sender },
        };
        self.seen = Some(seen);
        seen.times >= TIMES && seen.only.is_none() && self.learn(messages, now, why)
    }

    /// The server said that it takes no more than `messages` on a connection. True if that was learned.
    pub(super) fn told(&mut self, messages: u32, now: Timestamp, why: &str) -> bool {
        messages > 0 && self.learn(messages, now, why)
    }

    fn learn(&mut self, messages: u32, now: Timestamp, why: &str) -> bool {
        // A smaller number than a learned one is believed on the same terms.
        if self.cap.is_none_or(|cap| messages < cap) {
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

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    fn at(ms: i64) -> Timestamp {
        Timestamp(1_790_000_000_000 + ms)
    }

    /// 20 connections end and begin together; each tenth attempt is refused, whatever is open, and what is taken
    /// is ready only when all have been answered.
    #[test]
    fn a_host_that_is_busy_now_and_then_teaches_no_number() {
        for seed in 0..20 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut crowd = Crowd::default();
            for wave in 0..30_i64 {
                let (mut open, mut tries, mut now) = (0, 20, at(9000 * wave));
                while tries > 0 {
                    let before = open;
                    for _ in 0..tries {
                        if random.u32(..10) == 0 && open > 0 { crowd.refused(open, now, "421") } else { open += 1 }
                    }
                    (before..open).for_each(|n| crowd.opened(n + 1, now.after(Duration::from_millis(800))));
                    tries = 20_u32.saturating_sub(open);
                    now = now.after(Duration::from_millis(1000));
                }
                assert_eq!(crowd.cap(), None, "seed {seed}, wave {wave}");
            }
        }
    }

    /// A cap is told from that at once where many connect, and one random refusal makes no number smaller.
    #[test]
    fn a_cap_is_learned_from_its_first_refusals_and_kept() {
        let mut crowd = Crowd::default();
        (1..=4).for_each(|n| crowd.opened(n, at(0)));
        (0..16).for_each(|_| crowd.refused(4, at(10), "421"));
        assert_eq!(crowd.cap(), Some(4));
        crowd.refused(2, at(5000), "421");
        crowd.opened(3, at(5100));
        assert_eq!(crowd.cap(), Some(4), "one refusal with fewer open");
        (0..20).for_each(|_| crowd.refused(2, at(9000), "421"));
        assert_eq!(crowd.cap(), Some(2), "it takes fewer now");
        assert!(crowd.advance(0, 10, at(2 * HOUR)), "forgotten");
    }
}
