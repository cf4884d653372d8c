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

use super::meter::Meter;
use super::openings::Openings;
use crate::clock::Timestamp;

/// The most that is kept of the rate that met the first throttle reply.
const PROBE_DECREASE: f64 = 0.93;
/// The most that is kept when the same level is throttled again before it was held to the end.
const REPEATED_DECREASE: f64 = 0.85;
/// The least that is kept, unless the episode was long.
const DEEPEST: f64 = 0.3;
/// The rate right after a stop, of the target; it is reached [`RECOVERY`] later.
const RESTART: f64 = 0.8;
const RECOVERY: f64 = 2.0;
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
/// The first stop; the next ones are twice as long each, up to a second or a part of the time that the
/// server has been closed, whichever is more, and never longer than this.
const STOP: Duration = Duration::from_millis(250);
const STOP_LONG: f64 = 1.0;
const STOP_PART: f64 = 12.0;
const STOP_MOST: f64 = 600.0;
/// Closed for so long, and for so many stops: a long window is full, or the server is in trouble.
const LONG: f64 = 3.0;
const LONG_ROUNDS: u32 = 4;
/// What is used of a window that was measured.
const USED: f64 = 0.96;
/// What a probe adds to that when it was refused near it.
const CLIMB: f64 = 1.01;
/// A window longer than this stretches all times of the search.
const SHORT_WINDOW: f64 = 30.0;
/// What was accepted further back counts less, in seconds (in windows if these are longer).
const MEMORY: f64 = 120.0;
const MEMORY_WINDOWS: f64 = 2.0;
/// What is kept of the pace that a rule stopped or slowed; and of what was kept, if it did so again within
/// this time.
const RULED: f64 = 0.8;
const RULED_LATER: f64 = 0.88;
const RULED_AGAIN: f64 = 0.6;
const RULED_SOON: Duration = Duration::from_secs(600);
/// How long such a pace is held after a pause and after less, the first time (twice as long each further
/// time, up to the last): so no rule acts more than five times in a day. And how much slower than others such
/// a probe grows.
const RULED_HOLD: [Duration; 3] =
    [Duration::from_secs(3 * 3600), Duration::from_secs(1800), Duration::from_secs(24 * 3600)];
const RULED_SCALE: f64 = 20.0;
const RULED_FORGET: Duration = Duration::from_secs(86_400);
/// A rate below this part of the one that was too much is far below it: it is held for a moment
/// only, and grows by [`FAST`] a second up to [`NEAR`].
const FAR: f64 = 0.8;
const NEAR: f64 = 0.9;
const FAST: f64 = 0.2;
const CLEAN_FAR: u32 = 5;
const HOLD_FAR: Duration = Duration::from_secs(3);
/// Nothing was throttled for so long: what was learned is forgotten.
pub(super) const FORGET: Duration = Duration::from_secs(3600);
const FORGET_WINDOWS: f64 = 3.0;
/// No rate below this (a cell an hour) is learned.
const SLOWEST: f64 = 1.0 / 3600.0;

/// How much a rate has grown `seconds` after it began to grow: 1 at first, twice as much after half
/// a minute, a hundred times after a minute and a half.
pub(super) fn growth(seconds: f64) -> f64 {
    let t = seconds.clamp(0.0, 200.0);
    (0.01 * t + 0.0005 * t * t).exp()
}

/// What was learned, and where the search is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Learned {
    /// The rate in cells a second that is held, or from which the probe grows.
    target: f64,
    /// The last rate that was held to the end without a throttle reply; 0: none.
    good: f64,
    /// The last rate that was too much.
    ceiling: f64,
    /// Nothing leaves before; replies to what left before belong to the episode.
    resume: Timestamp,
    /// Stops in this episode.
    rounds: u32,
    /// Throttle replies in this episode.
    hurt: u32,
    /// Something that left after `resume` was accepted.
    accepted: bool,
    /// Cells accepted since `resume`.
    clean: u32,
    /// `None` while the target is held.
    probing: Option<Probe>,
    /// Probes in a row that met the same limit.
    #[serde(default)]
    same: u32,
    /// The length of the window in seconds, if it was measured; 0: it was not.
    #[serde(default)]
    window: f64,
    /// Times that a rule has stopped or slowed the lane at such a pace, and until when it does; `pause`: it
    /// stopped it.
    #[serde(default)]
    ruled: u32,
    #[serde(default)]
    ruled_until: Timestamp,
    #[serde(default)]
    pause: bool,
    /// The rate before the episode began; 0: there was none.
    #[serde(default)]
    held: f64,
    /// When the episode began, and cells accepted in so many seconds before, see `remembered`.
    #[serde(default)]
    begun: Timestamp,
    #[serde(default)]
    before: (f64, f64),
    /// When the state was last brought up to date.
    seen: Timestamp,
    /// The last throttle reply: when, and its text.
    last: Timestamp,
    reason: String,
}

/// A probe for more.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Probe {
    /// The rate now.
    rate: f64,
    /// Seconds of growth near and beyond the ceiling.
    beyond: f64,
}

impl Probe {
    fn grow(&mut self, ceiling: f64, seconds: f64) {
        let pace = if self.rate < ceiling * NEAR {
            FAST
        } else {
            self.beyond += seconds;
            0.01 + 0.001 * self.beyond.min(200.0)
        };
        self.rate *= (pace * seconds).exp();
    }
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
}

impl Pace {
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

    /// Whether what left at `began` left at the learned rate, and something was accepted at it.
    pub(super) fn is_tested(&self, began: Timestamp) -> bool {
        self.learned.as_ref().is_some_and(|l| l.accepted && began >= l.resume)
    }

    /// The clock was set back by that much.
    pub(super) fn go_back(&mut self, back: Duration) {
        // What was measured is measured anew.
        self.meter = Meter::default();
        self.openings.go_back(back);
        if let Some(l) = &mut self.learned {
            for time in [&mut l.resume, &mut l.begun, &mut l.seen, &mut l.last, &mut l.ruled_until] {
                *time = time.before(back);
            }
        }
    }

    /// Why, for people.
    pub(super) fn reason(&self) -> Option<&str> {
        self.learned.as_ref().map(|l| l.reason.as_str())
    }

    /// `cells` that left at `began` were accepted.
    pub(super) fn delivered(&mut self, cells: u32, began: Timestamp, now: Timestamp) -> Told {
        self.meter.note(f64::from(cells), true, now);
        let mut told = Told::Nothing;
        if let Some(l) = &mut self.learned
            && began >= l.resume
        {
            if !l.accepted {
                told = self.reopened(now);
            }
            if let Some(l) = &mut self.learned {
                l.accepted = true;
                l.clean = l.clean.saturating_add(cells);
            }
        }
        self.openings.passed(f64::from(cells), now);
        told
    }

    /// The first acceptance of an episode. If it took long, the rate says nothing, the time does.
    fn reopened(&mut self, now: Timestamp) -> Told {
        let Some(l) = &mut self.learned else { return Told::Nothing };
        let closed = now.since(l.begun).as_secs_f64();
        if closed < LONG || l.rounds < LONG_ROUNDS {
            return Told::Nothing;
        }
        if l.window > 0.0 {
            // A window that is known has become smaller.
            let (cells, seconds) = l.before;
            let most = USED * cells / (seconds + closed).max(1.0);
            l.target = l.target.min(most.max(SLOWEST));
            l.ceiling = l.target / USED;
            return Told::Nothing;
        }
        self.meter.restart(now);
        if let Some(window) = self.openings.reopened(l.last, now) {
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

    /// `cells` were refused for a reason that may not be the pace.
    pub(super) fn missed(&mut self, cells: u32, now: Timestamp) {
        self.meter.note(f64::from(cells), false, now);
    }

    /// What is tried in a second.
    pub(super) fn tried(&self, now: Timestamp) -> f64 {
        self.meter.rates(now).0
    }

    /// Begins to search; `passes`: this share of what is tried, `None`: nothing any more, so it stops for a
    /// moment. `limit` is the configured rate.
    pub(super) fn begin(&mut self, passes: Option<f64>, now: Timestamp, limit: Option<f64>, reason: &str) {
        let (tried, accepted) = self.meter.rates(now);
        let accepted = passes.map_or(accepted, |passes| accepted.min(tried * passes));
        // Over the first moment the acceptances are the receiver's burst, not its rate.
        let age = self.meter.age(now);
        let tried = tried * age.max(1.0) / age.max(0.1);
        let rate = limit.map_or(tried, |limit| tried.min(limit)).max(SLOWEST);
        let least = if age < 5.0 { 0.02 } else { 0.5 };
        let target = (accepted * 0.97).clamp(rate * least, rate * PROBE_DECREASE);
        let before = (self.meter.accepted(), age);
        let mut learned = Learned { before, ..Learned::at(target, rate, now, reason) };
        if passes.is_some() {
            (learned.resume, learned.accepted) = (now, true);
        }
        self.learned = Some(learned);
        self.meter.restart(now);
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
        let mut times = 1;
        if let Some(l) = &mut self.learned {
            if l.ruled > 0 && now < l.ruled_until {
                l.ruled_until = until;
                l.last = until;
                return;
            }
            let rate = l.rate(now);
            let part = if l.ruled > 0 { RULED_LATER } else { RULED };
            target = if target > 0.0 { (target / RULED).min(rate) * part } else { rate * part };
            if l.ruled > 0 && now.since(l.ruled_until) < RULED_SOON {
                target = target.min(l.target * RULED_AGAIN);
            } else if l.ruled > 0 && l.probing.is_some() {
                target = target.max(l.good.min(rate));
            }
            times = l.ruled.saturating_add(1);
        }
        if target <= 0.0 {
            return;
        }
        let next = Learned::at(target, target / RULED, now, reason);
        self.learned =
            Some(Learned { resume: now, ruled: times, ruled_until: until, pause, last: until, accepted: true, ..next });
        self.meter.restart(now);
    }

    /// What left at `began` was refused because of the pace, which is known to matter.
    pub(super) fn throttled(&mut self, began: Timestamp, now: Timestamp, reason: &str) {
        let (_, accepted) = self.meter.rates(now);
        let Some(l) = &mut self.learned else { return };
        l.last = now;
        l.hurt = l.hurt.saturating_add(1);
        if began < l.resume {
            return;
        }
        reason.clone_into(&mut l.reason);
        if !l.accepted {
            // Still closed: the level says nothing, only the time.
            l.rounds = l.rounds.saturating_add(1);
            l.resume = now.after(Duration::from_secs_f64(l.gap(now)));
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
        let (window, ruled, ruled_until, pause) = (l.window, l.ruled, l.ruled_until, l.pause);
        let next = Learned::at(target.min(ceiling * 0.97), believed, now, reason);
        *l = Learned { good: l.good, same, before, held, window, ruled, ruled_until, pause, ..next };
        self.meter.restart(now);
    }

    /// Brings the state up to date. True if what was learned is no longer needed.
    pub(super) fn advance(&mut self, now: Timestamp, limit: Option<f64>) -> bool {
        let (tried, _) = self.meter.rates(now);
        let Some(l) = &mut self.learned else { return false };
        let (rate, scale) = (l.rate(now), l.scale());
        let since = now.since(l.seen).as_secs_f64();
        l.seen = l.seen.max(now);
        match &mut l.probing {
            // Only a rate that is used is tested: a lane with little to do learns nothing.
            Some(probe) if tried >= rate * 0.4 => probe.grow(l.ceiling, since.min(2.0) / scale),
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
                let over = match l.patience() {
                    Some(patience) => held >= patience,
                    None => l.clean >= clean && held >= least || held >= HOLD_MOST.mul_f64(scale),
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

impl Learned {
    fn at(target: f64, ceiling: f64, now: Timestamp, reason: &str) -> Learned {
        Learned {
            target: target.max(SLOWEST),
            good: 0.0,
            ceiling,
            resume: now.after(STOP),
            rounds: 1,
            hurt: 1,
            accepted: false,
            clean: 0,
            probing: None,
            same: 0,
            window: 0.0,
            ruled: 0,
            ruled_until: Timestamp::default(),
            pause: false,
            held: 0.0,
            begun: now,
            before: (0.0, 0.0),
            seen: now,
            last: now,
            reason: reason.to_owned(),
        }
    }

    /// Cells accepted up to now, in so many seconds.
    fn remembered(&self, now: Timestamp) -> (f64, f64) {
        let cells = self.before.0 + f64::from(self.clean);
        let seconds = self.before.1 + now.since(self.begun).as_secs_f64();
        let part = (MEMORY.max(MEMORY_WINDOWS * self.window) / seconds.max(1.0)).min(1.0);
        (cells * part, seconds * part)
    }

    /// How much longer everything takes than with a window of a second.
    fn scale(&self) -> f64 {
        (self.window / SHORT_WINDOW).max(if self.ruled > 0 { RULED_SCALE } else { 1.0 })
    }

    /// How long a pace is held at which a rule acts.
    fn patience(&self) -> Option<Duration> {
        let [pause, less, most] = RULED_HOLD;
        let first = if self.pause { pause } else { less };
        (self.ruled > 0).then(|| first.saturating_mul(1 << (self.ruled - 1).min(10)).min(most))
    }

    /// How long the next stop is while nothing is accepted.
    fn gap(&self, now: Timestamp) -> f64 {
        let closed = now.since(self.begun).as_secs_f64();
        let doubled = STOP.as_secs_f64() * f64::from(1_u32 << self.rounds.saturating_sub(1).min(20));
        doubled.min((closed / STOP_PART).max(STOP_LONG)).min(STOP_MOST)
    }

    fn rate(&self, now: Timestamp) -> f64 {
        match self.probing {
            Some(probe) => probe.rate,
            // One at a time finds out whether it is open again.
            None if !self.accepted && self.rounds > 1 => (1.0 / self.gap(now)).min(self.target).max(SLOWEST),
            None => {
                let part = (now.since(self.resume).as_secs_f64() / RECOVERY).min(1.0);
                self.target * (RESTART + (1.0 - RESTART) * part)
            }
        }
    }
}
