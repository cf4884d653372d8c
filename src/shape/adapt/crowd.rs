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
/// Refusals in a row teach a number of connections if it would happen by chance less often than this (the second
/// where the server speaks of connections, which is a hint and no more); how many attempts to connect are
/// remembered for that, older ones count half.
const CHANCE: f64 = 1e-5;
const CHANCE_SAID: f64 = 1e-4;
/// But never fewer than so many, as many connections that begin together may be refused together.
const ROW_LEAST: u32 = 5;
const ATTEMPTS: f64 = 256.0;
/// Refusals further apart than this have nothing to do with each other.
const APART: Duration = Duration::from_secs(60);
/// From so many refusals in a row on, further connections are opened one at a time, so that the row costs no more
/// refusals than it needs; not before this time for each of them has passed since the last one, and for this long
/// only if none is tried any more.
const DOUBT: u32 = 2;
const GAP: Duration = Duration::from_millis(250);
const GAP_MOST: Duration = Duration::from_secs(2);
const DOUBT_MOST: Duration = Duration::from_secs(10);

/// How many connections: the number that was open when further ones were refused; one more is
/// tried after a while, and when that is taken, ever more at once. One refusal teaches nothing, nor do
/// several between which a connection was taken, nor as many in a row as a busy server gives by chance. A
/// smaller number than a learned one is believed on the same terms, unless more was just tried.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Crowd {
    learned: Option<Learned>,
    #[serde(skip)]
    suspected: Suspected,
    /// What the server said to the last one of the row.
    #[serde(skip)]
    reply: String,
}

/// The last connections were refused in a row: further ones are opened one at a time, for as long as this `lasts`, and
/// not before the `gap` is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// How long none is to be opened.
    pub gap: Duration,
    /// How long only one at a time is.
    pub lasts: Duration,
    /// So many were open beside those that were refused: one of them that ends is replaced at once.
    pub open: u32,
}

/// Refused connections whose numbers are kept.
const BEGUN: usize = 16;
/// Of a wave those that are taken are told so little later.
const SETTLED: Duration = Duration::from_millis(300);

/// How often a further connection was refused in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Suspected {
    row: u32,
    /// Numbers of the last of them, in the order in which they began: those of a wave are refused at once, and that
    /// those before them were taken is told later, when they have said EHLO and more.
    begun: [u64; BEGUN],
    /// When one was last taken.
    taken_at: Timestamp,
    /// How many were taken since the row began that only replaced what had ended.
    replaced: u64,
    /// When it last was, how many were open then, and whether in words about connections.
    last: Timestamp,
    open: u32,
    said: bool,
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

    /// The one of that number was refused while `open` were open, in words about connections or not (`said`).
    fn refused(&mut self, number: u64, open: u32, said: bool, now: Timestamp) {
        // Where more are open than at the last refusal, one was taken since and is not yet ready; where
        // fewer are, it is another number.
        let is_first = self.row == 0 || now.since(self.last) >= APART || open != self.open;
        self.row = if is_first { 1 } else { self.row.saturating_add(1) };
        self.replaced = if is_first { 0 } else { self.replaced };
        self.begun.rotate_right(1);
        self.begun[0] = number;
        (self.last, self.open, self.said) = (now, open, said);
        self.note(0.0, 1.0);
    }

    /// The one of that number was taken, and `open` are open with it: the row is what was refused of those that
    /// began after it. A server that takes some of them and refuses others has no number in mind. One that takes
    /// another in the place of one that ended, and no more than were open at the refusals, may well have.
    fn taken(&mut self, number: u64, open: u32, now: Timestamp) {
        self.note(1.0, 0.0);
        if self.row > 0 && open <= self.open {
            self.replaced = self.replaced.saturating_add(1);
            return;
        }
        let known = usize::try_from(self.row).unwrap_or(BEGUN).min(BEGUN);
        let after = self.begun[..known].iter().filter(|other| **other > number).count();
        if after < known {
            // The latest first, as the others are in no row any more.
            self.begun[..known].sort_unstable_by(|a, b| b.cmp(a));
            self.row = u32::try_from(after).unwrap_or(0);
        }
        (self.open, self.taken_at, self.replaced) = (open, now, 0);
    }

    /// The number of the first of the row.
    fn first(&self) -> Option<u64> {
        let known = usize::try_from(self.row).unwrap_or(BEGUN).min(BEGUN);
        self.begun[..known].iter().copied().filter(|number| *number > 0).min()
    }

    /// Whether too much that began among those of the row has not ended yet, or in another way: by chance some of a
    /// wave are refused, and by a number all that come after it.
    fn has_holes(&self) -> bool {
        let known = usize::try_from(self.row).unwrap_or(BEGUN).min(BEGUN);
        let numbers = || self.begun[..known].iter().filter(|number| **number > 0);
        let (Some(first), Some(last)) = (self.first(), numbers().max().copied()) else { return false };
        let others = (last - first + 1).saturating_sub(numbers().count() as u64).saturating_sub(self.replaced);
        2 * others > u64::from(self.row)
    }

    /// Whether the row is longer than by chance.
    fn is_believed(&self) -> bool {
        if self.row < ROW_LEAST || self.has_holes() {
            return false;
        }
        let row = f64::from(self.row);
        let before = (self.refused - row).max(0.0) + 1.0;
        let chance = before / (before + self.taken.max(f64::from(self.open)) + 1.0);
        chance.powf(row) < if self.said { CHANCE_SAID } else { CHANCE }
    }

    /// Whether it is to be feared that further ones are refused.
    fn doubt(&self, now: Timestamp) -> Option<Doubt> {
        let since = now.since(self.last);
        let gap = (GAP * self.row).min(GAP_MOST).saturating_sub(since);
        let lasts = DOUBT_MOST.saturating_sub(since);
        (self.row >= DOUBT && since < DOUBT_MOST).then_some(Doubt { gap, lasts, open: self.open })
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
    /// The number of the first connection that was refused: what began before it was taken before.
    #[serde(skip)]
    first: u64,
    /// It shows at the mail, see [`newcomers`](super::newcomers): that a connection is opened says nothing.
    #[serde(default)]
    late: bool,
    resume: Timestamp,
    last: Timestamp,
    reason: String,
}

impl Crowd {
    pub(super) fn is_free(&self) -> bool {
        self.learned.is_none()
    }

    /// Whether connections were refused in a row a moment ago: time has to pass for the lane until it is known what
    /// that means.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.suspected.row >= DOUBT
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
        self.suspected.taken_at = self.suspected.taken_at.before(back);
        if let Some(l) = &mut self.learned {
            for time in [&mut l.since, &mut l.resume, &mut l.last] {
                *time = time.before(back);
            }
        }
    }

    /// Whether it is not yet known if there may be more connections than are open.
    pub(super) fn doubt(&self, now: Timestamp) -> Option<Doubt> {
        self.suspected.doubt(now)
    }

    /// The connection of that number was refused while `open` others were accepted and open; `said`: in words about
    /// connections.
    pub(super) fn refused(&mut self, (number, open): (u64, u32), said: bool, now: Timestamp, reason: &str) {
        if self.is_news(open) {
            self.suspected.refused(number, open, said, now);
            if !self.suspected.is_believed() {
                reason.clone_into(&mut self.reply);
                return;
            }
        }
        let first = self.suspected.first().unwrap_or(number);
        self.learn((first, open, false), now, reason);
    }

    /// Whether it is known, from the refusal of mail, that no connection is served beside so many that work.
    pub(super) fn is_too_many(&self, working: u32) -> bool {
        self.learned.as_ref().is_some_and(|l| l.late && !self.is_news(working))
    }

    /// Mail was refused on the connection of that number, as `working` others are all that is served; what began before
    /// `first` may be among these.
    pub(super) fn refused_late(&mut self, (number, working): (u64, u32), first: u64, now: Timestamp, reason: &str) {
        self.learn((first.min(number), working, true), now, reason);
    }

    /// Mail was taken on the connection of that number for the first time; `working` have carried something with it.
    pub(super) fn took_first(&mut self, (number, working): (u64, u32), now: Timestamp) {
        if let Some(l) = self.learned.as_mut().filter(|l| l.late)
            && working > l.cap
            && l.step == 0
            && (now.since(l.last) < RACE || number < l.first)
        {
            l.cap = working;
        }
    }

    /// Whether it is not known that there may be no more than `open`.
    fn is_news(&self, open: u32) -> bool {
        self.learned.as_ref().is_none_or(|l| l.step == 0 && open.max(1) < l.cap)
    }

    /// No more than `open` are taken, as the connection of the number `first` and those after it show, at the mail
    /// (`late`) or before.
    fn learn(&mut self, (first, open, late): (u64, u32, bool), now: Timestamp, reason: &str) {
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
            n => doubled(STOP, n - 1, STOP_MOST),
        };
        self.learned = Some(Learned {
            cap: self.cap().map_or(cap, |old| old.min(cap)),
            step: 0,
            since: now,
            clean: 0,
            hurt: hurt.saturating_add(1),
            closed,
            first,
            late,
            resume: now.after(stop),
            last: now,
            reason: reason.to_owned(),
        });
        // What a number explains says nothing of how busy the host is.
        self.suspected = Suspected::default();
    }

    /// The connection of that number was accepted; `open` with it.
    pub(super) fn opened(&mut self, (number, open): (u64, u32), now: Timestamp) {
        self.suspected.taken(number, open, now);
        if let Some(l) = &mut self.learned {
            l.closed = 0;
            if open > l.cap && l.step == 0 && !l.late && (now.since(l.last) < RACE || number < l.first) {
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
        if self.suspected.row > 0 && now.since(self.suspected.last) >= APART {
            self.suspected.row = 0;
        }
        let row = &self.suspected;
        let settled = row.row > 0 && open == row.open && now.since(row.taken_at) >= SETTLED;
        if settled && self.is_news(open) && self.suspected.is_believed() {
            // The last ones that were taken were heard of after the refusals of those that began after them.
            let reason = std::mem::take(&mut self.reply);
            let first = self.suspected.first().unwrap_or(self.suspected.begun[0]);
            self.learn((first, open, false), now, &reason);
            return true;
        }
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
        for (seed, said, early) in (0..20).flat_map(|n| [(n, false, n % 2 == 0), (n, true, n % 2 == 0)]) {
            let mut random = fastrand::Rng::with_seed(seed);
            let (mut crowd, mut number) = (Crowd::default(), 0);
            for wave in 0..30_i64 {
                let (mut open, mut tries, mut now) = (0, 20, at(9000 * wave));
                while tries > 0 {
                    let before = open;
                    let mut taken = Vec::new();
                    for _ in 0..tries {
                        number += 1;
                        if random.u32(..10) == 0 && open > 0 {
                            // What is taken and not yet ready counts as open or not, as it comes.
                            let told = if early { before } else { open };
                            crowd.refused((number, told), said, now, "421");
                        } else {
                            open += 1;
                            taken.push(number);
                        }
                    }
                    let ready = now.after(Duration::from_millis(800));
                    (before + 1..).zip(taken).for_each(|(open, number)| crowd.opened((number, open), ready));
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
        (1..=4).for_each(|n| crowd.opened((u64::from(n), n), at(0)));
        (5..21).for_each(|n| crowd.refused((n, 4), false, at(10), "421"));
        assert_eq!(crowd.cap(), Some(4));
        crowd.refused((21, 2), false, at(5000), "421");
        crowd.opened((22, 3), at(5100));
        assert_eq!(crowd.cap(), Some(4), "one refusal with fewer open");
        (23..43).for_each(|n| crowd.refused((n, 2), false, at(9000), "421"));
        assert_eq!(crowd.cap(), Some(2), "it takes fewer now");
        assert!(crowd.advance(0, 10, at(2 * HOUR)), "forgotten");
    }

    /// While a row grows, nothing is opened that the row does not need; words about connections make it shorter.
    #[test]
    fn while_it_is_in_doubt_connections_are_opened_one_at_a_time() {
        for (said, needed) in [(true, 6), (false, 8)] {
            let mut crowd = Crowd::default();
            (1..=3).for_each(|n| crowd.opened((u64::from(n), n), at(0)));
            crowd.refused((4, 3), said, at(0), "421");
            assert_eq!(crowd.doubt(at(0)), None, "one teaches nothing");
            let (mut refused, mut now) = (1, 0);
            while crowd.cap().is_none() {
                refused += 1;
                crowd.refused((3 + refused, 3), said, at(now), "421");
                let Some(Doubt { gap, .. }) = crowd.doubt(at(now)) else { break };
                assert!(gap >= DOUBT * GAP && gap <= GAP_MOST, "{gap:?}");
                now += gap.as_millis() as i64;
                assert_eq!(crowd.doubt(at(now)).map(|doubt| doubt.gap), Some(Duration::ZERO), "one may be tried");
            }
            assert_eq!((crowd.cap(), refused), (Some(3), needed), "{said}");
            assert!(now <= 8000, "after {now} ms");
            assert_eq!(crowd.doubt(at(now)), None, "it is known");
        }
        let mut crowd = Crowd::default();
        (0..2).for_each(|n| crowd.refused((n, 3), true, at(0), "421"));
        assert!(crowd.doubt(at(600)).is_some() && crowd.is_in_doubt());
        assert_eq!(crowd.doubt(at(11_000)), None, "not for ever");
        let mut later = crowd.clone();
        later.advance(3, 10, at(61_000));
        assert!(!later.is_in_doubt(), "what is so old is no part of a row");
        crowd.opened((7, 4), at(600));
        assert!(crowd.doubt(at(600)).is_none() && !crowd.is_in_doubt(), "there may be more");
    }

    /// Connections end, by their number of messages or by the host, and others take their place: a row of refusals goes on
    /// over that, and nothing more is opened at once than the number that is served.
    #[test]
    fn a_connection_in_the_place_of_one_that_ended_ends_no_row() {
        let mut crowd = Crowd::default();
        (1..=3).for_each(|n| crowd.opened((n, u32::try_from(n).unwrap()), at(0)));
        (4..=8).for_each(|n| crowd.refused((n, 3), true, at(10), "421"));
        assert_eq!(
            crowd.doubt(at(2000)),
            Some(Doubt { gap: Duration::ZERO, lasts: Duration::from_millis(8010), open: 3 })
        );
        (9..=11).zip(1..).for_each(|(n, open)| crowd.opened((n, open), at(2000)));
        assert!(crowd.is_in_doubt() && crowd.cap().is_none());
        crowd.refused((12, 3), true, at(2500), "421");
        assert_eq!(crowd.cap(), Some(3));
    }

    /// A host that refuses six of ten, whatever is open, and whose connections end after some messages.
    #[test]
    fn a_host_that_refuses_by_chance_teaches_no_number_when_connections_are_replaced() {
        let mut wrong = 0;
        for seed in 0..100 {
            let mut random = fastrand::Rng::with_seed(seed);
            let (mut crowd, mut open) = (Crowd::default(), 0);
            for number in 1..400 {
                let now = at(400 * i64::try_from(number).unwrap());
                if random.u32(..10) < 6 {
                    crowd.refused((number, open), true, now, "421");
                } else {
                    open += 1;
                    crowd.opened((number, open), now);
                }
                open = open.min(9).saturating_sub(u32::from(random.u32(..10) < 4));
                wrong += u32::from(crowd.cap().is_some());
                crowd.learned = None;
            }
        }
        assert!(wrong <= 4, "{wrong} in 40,000 attempts");
    }

    /// Ten begin together, three are taken, and that is told after the seven refusals: these count all the same.
    #[test]
    fn a_wave_that_is_refused_before_the_first_is_ready_teaches_the_number() {
        for (refused, learned) in [(4..=10, Some(3)), (3..=9, None)] {
            let mut crowd = Crowd::default();
            refused.for_each(|n| crowd.refused((n, 0), true, at(10), "421 too many"));
            assert_eq!(crowd.cap(), None, "nothing is open");
            // The one that began last was taken: then the others were refused by chance.
            let taken = if learned.is_some() { [2, 1, 3] } else { [1, 10, 2] };
            for (open, number) in (1..).zip(taken) {
                crowd.opened((number, open), at(300 + i64::from(open)));
                crowd.advance(open, 10, at(301 + i64::from(open)));
            }
            assert_eq!(crowd.cap(), None, "more may be told in a moment");
            crowd.advance(3, 10, at(700));
            assert_eq!((crowd.cap(), crowd.reason()), (learned, learned.map(|_| "421 too many")));
        }
    }
}
