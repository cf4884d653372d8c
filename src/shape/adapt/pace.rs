//! Learning a rate that nobody told us: one controller, in cells a second.
//!
//! A throttle reply begins an *episode*: everything stops for a moment (twice as long with every
//! further throttle reply before something is accepted), then the lane goes on at `target`, below
//! the rate that was too much. It stays there for a while (the longer, the more replies the
//! episode cost and the more probes have met the same limit: so the share of throttled attempts is
//! bounded whatever the rate), and then probes: fast far below the rate that was too much, gently
//! near it, and ever faster beyond it, as CUBIC does (RFC 9438 §4.1), so that a limit that was
//! raised is found soon. Where replies alternate with acceptances, what was accepted in the
//! meantime tells the limit better than any halving.
//!
//! The stop is short because most limits are windows that slide or buckets that fill: they have
//! room again at once, at the pace they allow. A window that stays full for long tells by that how
//! long it is, and then what was accepted before tells the pace.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::learned::{Learned, NEAR, Opening, Probe, SLOWEST};
use super::meter::{Meter, Recent};
use super::openings::{Openings, alike};
use crate::clock::Timestamp;

/// The most that is kept of the rate that met the first throttle reply.
const PROBE_DECREASE: f64 = 0.93;
/// The most that is kept when the same level is throttled again before it was held to the end.
const REPEATED_DECREASE: f64 = 0.85;
/// The least part of what is tried that a cap is taken to let through, where a part passes.
const PASSES_LEAST: f64 = 0.1;
/// The least that is kept, unless the episode was long.
const DEEPEST: f64 = 0.3;
/// Accepted cells a throttle reply costs before the next probe.
const CLEAN: u32 = 40;
/// Throttle replies that count for that.
const HURT_MOST: u32 = 10;
/// Bounds of the time at one level.
const HOLD_LEAST: Duration = Duration::from_secs(10);
const HOLD_MOST: Duration = Duration::from_secs(600);
/// The longest time between probes that meet the same limit again and again, at a level so near to
/// it; and how far apart two limits are the same. A limit that was doubled has to be found within
/// two minutes.
const HOLD_SAME: Duration = Duration::from_secs(40);
const CLOSE: f64 = 0.92;
const SAME: f64 = 1.25;
/// Where everything was refused so many have to pass in a row before it counts as open: into a window of bytes that
/// is full a small message fits now and then. Not where that took so long: there each attempt is precious.
const OPEN: u32 = 2;
const LONG: Duration = Duration::from_secs(600);
/// A window that was closed for so many times its length, which is measured between two questions, is longer than was
/// thought.
const CLOSED_MOST: f64 = 1.2;
/// A window whose contents seem to be no smaller than this part of what was held is as before; so much of that
/// is kept.
const UNCERTAIN: f64 = 0.85;
const STEADY: f64 = 0.99;
/// What is used of a window that was measured.
const USED: f64 = 0.96;
/// What a probe adds to that when it was refused near it.
const CLIMB: f64 = 1.01;
/// What is kept of the pace that a rule stopped or slowed; and of what was kept, if it did so again within
/// this time.
const RULED: f64 = 0.8;
const RULED_LATER: f64 = 0.88;
const RULED_AGAIN: f64 = 0.6;
const RULED_SOON: Duration = Duration::from_secs(600);
/// Lengths of windows, in seconds, that are tried in turn where a rule hides how long one is.
const RULED_WINDOWS: [f64; 3] = [60.0, 3600.0, 86_400.0];
/// An even pace that meets a rule only after so many seconds has filled a window that is longer than that.
const RULED_EVEN: f64 = 5.0;
/// A lane that meets a rule within so many seconds, after so many cells, has met a cap of a second.
const RULED_SECOND: f64 = 1.0;
const RULED_COUNT: f64 = 8.0;
/// After so many attempts while a rule slows the lane, of which no more than such a part was taken, it is to be slower
/// than the rule says: as what was taken, but no less than such a part of what was tried, as that may be chance.
const RULED_STILL: f64 = 10.0;
const STILL_GOOD: f64 = 0.8;
const STILL_LEAST: f64 = 0.25;
const RULED_FORGET: Duration = Duration::from_secs(86_400);
/// A rate below this part of the one that was too much is far below it: it is held for a moment
/// only, and grows by [`FAST`] a second up to [`NEAR`].
const FAR: f64 = 0.8;
const CLEAN_FAR: u32 = 5;
const HOLD_FAR: Duration = Duration::from_secs(3);
/// Nothing was throttled for so long: what was learned is forgotten.
pub(super) const FORGET: Duration = Duration::from_secs(3600);
const FORGET_WINDOWS: f64 = 3.0;
/// How much a rate has grown `seconds` after it began to grow: 1 at first, twice as much after half
/// a minute, a hundred times after a minute and a half.
pub(super) fn growth(seconds: f64) -> f64 {
    let t = seconds.clamp(0.0, 200.0);
    (0.01 * t + 0.0005 * t * t).exp()
}

/// What an acceptance tells beyond itself.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Told {
    /// Nothing.
    Nothing,
    /// The server was closed for long and is open again; nobody can tell why.
    Reopened,
    /// The same for the second time, after the same amount: a window of so many cells and seconds.
    Window(f64, f64),
}

/// The controller.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Pace {
    learned: Option<Learned>,
    #[serde(default)]
    openings: Openings,
    #[serde(skip)]
    meter: Meter,
    #[serde(skip)]
    recent: Recent,
}

impl Pace {
    /// Nothing is learned, but something was measured.
    pub(super) fn measured(meter: Meter) -> Pace {
        Pace { meter, ..Pace::default() }
    }

    /// Nothing is learned.
    pub(super) fn is_free(&self) -> bool {
        self.learned.is_none()
    }

    /// The rate now, in cells a second; `None`: as configured.
    pub(super) fn rate(&self, now: Timestamp) -> Option<f64> {
        self.learned.as_ref().map(|l| l.rate(now))
    }

    /// Nothing is learned any more; what was measured stays.
    pub(super) fn release(&mut self) {
        self.learned = None;
    }

    /// What was learned is what `former` had learned; what was measured stays.
    pub(super) fn go_back_to(&mut self, former: Pace) {
        self.learned = former.learned;
    }

    /// Nothing may leave until then.
    pub(super) fn stopped(&self, now: Timestamp) -> Option<Timestamp> {
        self.learned.as_ref().map(|l| l.resume).filter(|resume| *resume > now)
    }

    /// What is stopped goes on at `now`.
    pub(super) fn end_stop(&mut self, now: Timestamp) {
        if let Some(l) = &mut self.learned {
            l.resume = l.resume.min(now);
        }
    }

    /// What has just made it slower does not refuse everything, so nothing need be found open first.
    pub(super) fn go_on(&mut self, now: Timestamp) {
        if let Some(l) = &mut self.learned {
            (l.resume, l.accepted) = (now, true);
        }
    }

    /// Whether what left at `began` left at the learned rate, and something was accepted at it.
    pub(super) fn is_tested(&self, began: Timestamp) -> bool {
        self.learned.as_ref().is_some_and(|l| l.accepted && l.opening.is_none() && began >= l.resume)
    }

    /// Whether everything is refused just now, as far as anybody knows.
    pub(super) fn is_closed(&self) -> bool {
        self.learned.as_ref().is_some_and(|l| l.rounds > 1 && (!l.accepted || l.opening.is_some()))
    }

    /// The clock was set back by that much.
    pub(super) fn go_back(&mut self, back: Duration) {
        // What was measured is measured anew.
        (self.meter, self.recent) = Default::default();
        self.openings.go_back(back);
        if let Some(l) = &mut self.learned {
            for time in [&mut l.resume, &mut l.begun, &mut l.seen, &mut l.last, &mut l.ruled_until] {
                *time = time.before(back);
            }
            if let Some(phase) = &mut l.phase {
                phase.go_back(back);
            }
            // Whether it is open is seen anew.
            l.opening = None;
        }
    }

    /// Why, for people.
    pub(super) fn reason(&self) -> Option<&str> {
        self.learned.as_ref().map(|l| l.reason.as_str())
    }

    /// `cells` that left at `began` were accepted.
    pub(super) fn delivered(&mut self, cells: u32, began: Timestamp, now: Timestamp) -> Told {
        self.meter.note(f64::from(cells), true, now);
        let window = self.learned.as_ref().map_or(0.0, |l| l.window);
        let mut told = Told::Nothing;
        if let Some(l) = &mut self.learned
            && began >= l.resume
        {
            if !l.accepted && l.was_closed(now) {
                l.note_phase(began);
                l.opening = Some(Opening { refused: l.last, first: now, passed: 0 });
            }
            l.accepted = true;
            if let Some(opening) = &mut l.opening {
                opening.passed += 1;
            }
            let long = l.opening.as_ref().is_some_and(|opening| opening.first.since(l.begun) >= LONG);
            if let Some(opening) = l.opening.take_if(|opening| long || opening.passed >= OPEN) {
                told = self.reopened(opening, now);
            }
            if let Some(l) = &mut self.learned {
                l.accepted = true;
                // What passes while a rule slows the lane says nothing of the pace after it.
                l.clean = if now < l.ruled_until { 0 } else { l.clean.saturating_add(cells) };
            }
        }
        self.openings.passed(f64::from(cells), now);
        self.recent.note(f64::from(cells), window, now);
        told
    }

    /// A server that was closed for long is open again: the rate says nothing, the time does.
    fn reopened(&mut self, opening: Opening, now: Timestamp) -> Told {
        let Some(l) = &mut self.learned else { return Told::Nothing };
        let closed = opening.first.since(l.begun).as_secs_f64();
        if l.window > 0.0 && closed >= l.window * CLOSED_MOST {
            // It is longer than that, or the server was in trouble: what passed in it tells nothing.
            (l.window, l.phase) = (0.0, None);
        }
        if l.window > 0.0 {
            // What passed in the last one filled it; if that was not counted, it has become smaller.
            let (cells, seconds) = l.before;
            let opened = Timestamp(opening.refused.0.midpoint(opening.first.0));
            let filled = self.recent.within(l.window, opened).map(|cells| cells / l.window);
            let mut most = filled.unwrap_or_else(|| cells / (seconds + closed).max(1.0)) * USED;
            // It is not measured so well that a little less is news.
            if l.good > 0.0 && most >= l.good * UNCERTAIN {
                most = most.max(l.good * STEADY);
            }
            l.target = l.target.min(most.max(SLOWEST));
            l.ceiling = l.target / USED;
            return Told::Nothing;
        }
        self.meter.restart(now);
        if let Some(window) = self.openings.reopened(opening.refused, opening.first) {
            let most = window.cells / window.seconds;
            let target = (most * USED).max(SLOWEST);
            *l = Learned {
                good: target,
                window: window.seconds,
                resume: now,
                ..Learned::at(target, most.max(SLOWEST), now, &l.reason)
            };
            return Told::Window(window.cells, window.seconds);
        }
        if l.held > 0.0 {
            l.target = l.held;
            l.ceiling = l.ceiling.max(l.held);
            l.rounds = 1;
        } else {
            self.learned = None;
        }
        Told::Reopened
    }

    /// `cells` were refused, in a message of so many bytes, for a reason that may not be the pace.
    pub(super) fn missed(&mut self, cells: u32, bytes: u64, now: Timestamp) {
        self.meter.note(f64::from(cells), false, now);
        self.meter.note_size(bytes as f64, false);
    }

    /// `cells` were refused for a reason that is not the pace: the pace was right for them, and it is a pace of attempts
    /// that is looked for.
    pub(super) fn let_through(&mut self, cells: u32, now: Timestamp) {
        self.meter.note(f64::from(cells), true, now);
    }

    /// What is accepted just now has so many bytes.
    pub(super) fn sized(&mut self, bytes: u64) {
        self.meter.note_size(bytes as f64, true);
    }

    /// What is tried in a second.
    pub(super) fn tried(&self, now: Timestamp) -> f64 {
        self.meter.rates(now).0
    }

    /// What is accepted in a second.
    pub(super) fn passed(&self, now: Timestamp) -> f64 {
        self.meter.rates(now).1
    }

    /// Begins to search; `passes`: this share of what is tried, `None`: nothing any more, so it stops for a
    /// moment. `limit` is the configured rate.
    pub(super) fn begin(&mut self, passes: Option<f64>, now: Timestamp, limit: Option<f64>, reason: &str) {
        let (tried, accepted) = self.meter.rates(now);
        // Where bytes are counted what passes is small, and less passes of what is not.
        let smaller = self.meter.smaller();
        let accepted = passes.map_or(accepted, |passes| accepted.min(tried * passes)) * smaller;
        // Over the first moment the acceptances are the receiver's burst, not its rate.
        let age = self.meter.age(now);
        let tried = tried * age.max(1.0) / age.max(0.1);
        let rate = limit.map_or(tried, |limit| tried.min(limit)).max(SLOWEST);
        // Where a part passes that is known, a cap may be as small as that.
        let least = match passes {
            _ if age < 5.0 => 0.02,
            Some(passes) if passes >= PASSES_LEAST => PASSES_LEAST,
            _ => 0.5 * smaller,
        };
        let target = (accepted * 0.97).clamp(rate * least, rate * PROBE_DECREASE);
        let before = (self.meter.accepted(), age);
        let mut learned = Learned { before, ..Learned::at(target, rate, now, reason) };
        if passes.is_some() {
            (learned.resume, learned.accepted) = (now, true);
        }
        self.learned = Some(learned);
        self.meter.restart(now);
    }

    /// The search that has just begun begins at such a rate at least.
    pub(super) fn begin_at_least(&mut self, rate: f64) {
        if let Some(l) = &mut self.learned {
            l.target = l.target.max(rate.min(l.ceiling));
        }
    }

    /// And at such a rate at most.
    pub(super) fn begin_at_most(&mut self, rate: f64) {
        if let Some(l) = &mut self.learned {
            l.target = l.target.min(rate.max(SLOWEST));
        }
    }

    /// Before it began, everything had been refused since `since`.
    pub(super) fn walled(&mut self, since: Timestamp) {
        if let Some(l) = &mut self.learned {
            (l.begun, l.wall) = (l.begun.min(since), true);
        }
    }

    /// Whether the search is back at the rate that was too much, or over.
    pub(super) fn is_back(&self, now: Timestamp) -> bool {
        self.learned.as_ref().is_none_or(|l| l.probing.is_some() && l.rate(now) >= l.ceiling)
    }

    /// A rule stops (`pause`) or slows the lane until `until`: what was accepted before is too much by a
    /// little. A further time soon after it went on says that it was far too much.
    pub(super) fn ruled(&mut self, pause: bool, until: Timestamp, now: Timestamp, limit: Option<f64>, reason: &str) {
        let (tried, accepted) = self.meter.rates(now);
        let age = self.meter.age(now);
        let tried = tried * age.max(1.0) / age.max(0.1);
        // Over the first moment a part of what was accepted is the receiver's burst.
        let accepted = if age < 5.0 { accepted * tried / (accepted + tried).max(SLOWEST) / NEAR } else { accepted };
        let mut target = limit.map_or(accepted, |limit| accepted.min(limit)) * RULED;
        // Within its first second it has met what is let through in one, most likely: a further time costs no
        // more than to be careful for hours.
        let in_a_second = self.learned.is_none() && age <= RULED_SECOND && self.meter.accepted() >= RULED_COUNT;
        if in_a_second {
            let second = self.meter.accepted() * USED;
            target = limit.map_or(second, |limit| second.min(limit * NEAR));
        }
        // What is known so well is held as after a second time.
        let first = if in_a_second { 2 } else { 1 };
        let (mut times, mut cells, mut window) = (first, self.meter.accepted(), 0.0);
        // Each further time costs as much as this one, so the first guess is the careful one.
        if let Some((whole, seconds)) = self.meter.evenly(now).filter(|_| self.learned.is_none())
            && (RULED_EVEN..RULED_WINDOWS[0]).contains(&seconds)
        {
            (cells, window) = (whole, RULED_WINDOWS[0]);
            target = target.min(USED * cells / window);
        }
        let mut ruled_for = until.since(now).as_secs_f64();
        if let Some(l) = &mut self.learned {
            if l.ruled > 0 && now < l.ruled_until {
                l.ruled_for = l.ruled_for.max(ruled_for);
                l.ruled_until = until;
                l.last = until;
                self.meter.note(1.0, false, now);
                self.ruled_still(now);
                return;
            }
            let rate = l.rate(now);
            let part = if l.ruled > 0 { RULED_LATER } else { RULED };
            // What was measured over a pause is no rate.
            target = if target > 0.0 && l.ruled == 0 { (target / RULED).min(rate) * part } else { rate * part };
            let soon = now.since(l.ruled_until) < RULED_SOON.max(Duration::from_secs_f64(2.0 * l.window));
            (cells, window) = (f64::from(l.clean), l.window);
            let longer = RULED_WINDOWS.into_iter().find(|longer| *longer > l.window);
            if l.ruled > 0 && soon && alike(cells, l.ruled_cells) {
                // The same amount at another pace: it is the amount that counts, in a window of unknown length.
                window = longer.unwrap_or(window);
                target = target.min(USED * cells / window);
            } else if l.ruled > 0 && soon {
                target = target.min(l.target * RULED_AGAIN);
            } else if l.ruled > 0 && l.probing.is_some() {
                target = target.max(l.good.min(rate));
            }
            times = l.ruled.saturating_add(1);
            ruled_for = ruled_for.max(l.ruled_for);
        }
        if target <= 0.0 {
            return;
        }
        self.learned = Some(Learned {
            resume: now,
            ruled: times,
            ruled_until: until,
            ruled_cells: cells,
            ruled_for,
            pause,
            window,
            last: until,
            accepted: true,
            ..Learned::at(target, target / RULED, now, reason)
        });
        self.meter.restart(now);
    }

    /// A rule slows the lane, and is met again all the same: at its rate more is refused than may be, too, so it is
    /// met for as long as there is mail, unless the lane goes below it.
    fn ruled_still(&mut self, now: Timestamp) {
        let (tried, accepted) = self.meter.rates(now);
        let attempts = tried * self.meter.age(now);
        let Some(l) = &mut self.learned else { return };
        if attempts < RULED_STILL || accepted > tried * STILL_GOOD {
            return;
        }
        l.target = l.target.min((accepted * USED).max(tried * STILL_LEAST)).max(SLOWEST);
        l.ceiling = l.target / RULED;
        self.meter.restart(now);
    }

    /// When to ask next after a refusal, where a window begins anew at known times and about as much has passed
    /// since it last did as fits into one: else it is another limit.
    fn opens(&self, now: Timestamp) -> Option<Timestamp> {
        let l = self.learned.as_ref()?;
        let next = l.phase?.next(now, l.window)?;
        let passed = self.recent.within(l.window - next.since(now).as_secs_f64(), now)?;
        let contents = l.window * if l.good > 0.0 { l.good } else { l.target };
        (passed >= contents * UNCERTAIN).then_some(next)
    }

    /// What left at `began` was refused because of the pace, which is known to matter.
    pub(super) fn throttled(&mut self, began: Timestamp, now: Timestamp, reason: &str) {
        let (_, accepted) = self.meter.rates(now);
        let opens = self.opens(now);
        let Some(l) = &mut self.learned else { return };
        l.last = now;
        l.hurt = l.hurt.saturating_add(1);
        if began < l.resume {
            return;
        }
        reason.clone_into(&mut l.reason);
        if !l.accepted || l.opening.take().is_some() {
            // Still closed: the level says nothing, only the time.
            l.accepted = false;
            l.rounds = l.rounds.saturating_add(1);
            l.resume = opens.unwrap_or_else(|| now.after(Duration::from_secs_f64(l.gap(now))));
            return;
        }
        let ceiling = l.rate(now);
        let target = match l.probing {
            // It was measured, and a window that is full says little of how far beyond the probe was.
            Some(_) if l.window > 0.0 && ceiling < l.good * 1.5 => (l.good * CLIMB).min(ceiling * 0.95),
            // The receiver's burst let the probe go further than it may: what was held weighs more.
            Some(_) if ceiling < l.good * 1.3 => l.good * 0.5 + ceiling * 0.5,
            // Far from what is known: what was accepted lately tells more.
            Some(_) => (accepted * 0.97).clamp((ceiling * 0.5).max(l.good).min(ceiling), ceiling),
            None if l.window > 0.0 => l.target * USED,
            None if l.good > 0.0 && l.good < l.target => std::mem::take(&mut l.good) * 0.98,
            None => {
                let deepest = if l.rounds >= 3 { 0.0 } else { DEEPEST };
                l.good = 0.0;
                (accepted * 0.97).clamp(l.target * deepest, l.target * REPEATED_DECREASE)
            }
        };
        // A fast probe ran past the limit before it was told: the limit lies between what was held and
        // where the probe was, so the next one is careful from the middle on.
        let far = l.probing.is_some() && ceiling >= l.good * 1.3 && l.good > 0.0;
        let believed = if far { (target * ceiling).sqrt() } else { ceiling };
        let again = l.probing.is_some() && believed < l.ceiling * SAME && believed * SAME > l.ceiling;
        let same = if again { l.same.saturating_add(1) } else { 0 };
        let before = l.remembered(now);
        let held = if l.probing.is_some() { l.good } else { l.target };
        let (window, phase, ruled, ruled_until, pause) = (l.window, l.phase, l.ruled, l.ruled_until, l.pause);
        let (ruled_cells, ruled_for) = (l.ruled_cells, l.ruled_for);
        let next = Learned::at(target.min(ceiling * 0.97), believed, now, reason);
        let ruling = Learned { ruled, ruled_until, ruled_cells, ruled_for, pause, ..next };
        *l = Learned { good: l.good, same, before, held, window, phase, ..ruling };
        l.resume = opens.unwrap_or_else(|| now.after(l.stop()));
        self.meter.restart(now);
    }

    /// Brings the state up to date; `held`: a trial compares it with the pace before, so it does not grow. True if what
    /// was learned is no longer needed.
    pub(super) fn advance(&mut self, held: bool, now: Timestamp, limit: Option<f64>) -> bool {
        let (tried, _) = self.meter.rates(now);
        let used = self.learned.as_ref().is_some_and(|l| self.meter.keeps_up(l.rate(now), now));
        let Some(l) = &mut self.learned else { return false };
        let (rate, scale, probe_scale) = (l.rate(now), l.scale(), l.probe_scale());
        let since = now.since(l.seen).as_secs_f64();
        l.seen = l.seen.max(now);
        if held {
            return false;
        }
        match &mut l.probing {
            // Only a rate that is used is tested: a lane with little to do learns nothing.
            Some(probe) if tried >= rate * 0.4 || used => probe.grow(l.ceiling, since.min(2.0) / probe_scale),
            Some(_) => {}
            None => {
                let held = now.since(l.resume.max(l.ruled_until));
                let (clean, least) = if l.target < l.ceiling * FAR {
                    // At first anything is better than to stay far below.
                    let hurt = if l.good > 0.0 { l.hurt.clamp(1, 3) } else { 1 };
                    (CLEAN_FAR * hurt, HOLD_FAR)
                } else {
                    let same = if l.target < l.ceiling * CLOSE { 0 } else { l.same.min(8) };
                    let same = HOLD_LEAST.saturating_mul(1 << same).min(HOLD_SAME);
                    (CLEAN * l.hurt.clamp(1, HURT_MOST), same.mul_f64(scale))
                };
                let (least, most) = l.hold(least, HOLD_MOST.mul_f64(scale));
                let over = match l.patience() {
                    Some(patience) => held >= patience,
                    None => l.clean >= clean && held >= least || held >= most,
                };
                if over {
                    l.good = l.target;
                    l.probing = Some(Probe { rate: l.target, beyond: 0.0 });
                }
            }
        }
        let reached = l.probing.is_some() && limit.is_some_and(|limit| l.rate(now) >= limit);
        let forget = if l.ruled > 0 { RULED_FORGET } else { FORGET };
        if reached || now.since(l.last) >= forget.max(Duration::from_secs_f64(FORGET_WINDOWS * l.window)) {
            self.learned = None;
            return true;
        }
        false
    }
}
