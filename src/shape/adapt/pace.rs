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
/// The first stop and the longest.
const STOP: Duration = Duration::from_millis(250);
const STOP_MOST: Duration = Duration::from_secs(60);
/// Closed for so long: a long window is full.
const LONG: f64 = 3.0;
/// What was accepted further back counts less, in seconds.
const MEMORY: f64 = 120.0;
/// Not known to be over when it was last asked, so likely longer.
const LONGER: f64 = 1.4;
/// A rate below this part of the one that was too much is far below it: it is held for a moment
/// only, and grows by [`FAST`] a second up to [`NEAR`].
const FAR: f64 = 0.8;
const NEAR: f64 = 0.9;
const FAST: f64 = 0.2;
const CLEAN_FAR: u32 = 5;
const HOLD_FAR: Duration = Duration::from_secs(3);
/// Nothing was throttled for so long: what was learned is forgotten.
pub(super) const FORGET: Duration = Duration::from_secs(3600);
/// No rate below this (a cell an hour) is learned.
const SLOWEST: f64 = 1.0 / 3600.0;

/// How much a rate has grown `seconds` after it began to grow: 1 at first, twice as much after half
/// a minute, a hundred times after a minute and a half.
pub(super) fn growth(seconds: f64) -> f64 {
    let t = seconds.clamp(0.0, 200.0);
    (0.01 * t + 0.0005 * t * t).exp()
}

/// What was tried and what was accepted lately.
#[derive(Clone, Debug, Default, PartialEq)]
struct Meter {
    since: Option<Timestamp>,
    last: Timestamp,
    /// Milliseconds that were halved away are no longer in `since`.
    tried: f64,
    accepted: f64,
}

impl Meter {
    fn note(&mut self, cells: f64, accepted: bool, now: Timestamp) {
        let since = *self.since.get_or_insert(now);
        let age = now.since(since).as_secs_f64();
        let gap = now.since(self.last).as_secs_f64();
        if self.tried > 0.0 && gap > 10.0_f64.max(5.0 * age / self.tried) {
            // A lane that had nothing to do says nothing about what it may.
            *self = Meter { since: Some(now), ..Meter::default() };
        } else if age > 8.0 && self.tried > 40.0 {
            self.since = Some(Timestamp(since.0.midpoint(now.0)));
            self.tried /= 2.0;
            self.accepted /= 2.0;
        }
        self.last = now;
        self.tried += cells;
        if accepted {
            self.accepted += cells;
        }
    }

    /// How long it has measured, in seconds.
    fn age(&self, now: Timestamp) -> f64 {
        self.since.map_or(0.0, |since| now.since(since).as_secs_f64())
    }

    /// Tried and accepted a second.
    fn rates(&self, now: Timestamp) -> (f64, f64) {
        let age = self.age(now).max(1.0);
        (self.tried / age, self.accepted / age)
    }

    fn restart(&mut self, now: Timestamp) {
        *self = Meter { since: Some(now), last: now, tried: 0.0, accepted: 0.0 };
    }
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

/// The controller.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Pace {
    learned: Option<Learned>,
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

    /// The clock was set back by that much.
    pub(super) fn go_back(&mut self, back: Duration) {
        // What was measured is measured anew.
        self.meter = Meter::default();
        if let Some(l) = &mut self.learned {
            for time in [&mut l.resume, &mut l.begun, &mut l.seen, &mut l.last] {
                *time = time.before(back);
            }
        }
    }

    /// Why, for people.
    pub(super) fn reason(&self) -> Option<&str> {
        self.learned.as_ref().map(|l| l.reason.as_str())
    }

    /// `cells` that left at `began` were accepted.
    pub(super) fn delivered(&mut self, cells: u32, began: Timestamp, now: Timestamp) {
        self.meter.note(f64::from(cells), true, now);
        if let Some(l) = &mut self.learned
            && began >= l.resume
        {
            l.accepted = true;
            l.clean = l.clean.saturating_add(cells);
        }
    }

    /// `cells` that left at `began` were throttled; `limit` is the configured rate.
    pub(super) fn throttled(&mut self, cells: u32, began: Timestamp, now: Timestamp, limit: Option<f64>, reason: &str) {
        self.meter.note(f64::from(cells), false, now);
        let (tried, accepted) = self.meter.rates(now);
        let Some(l) = &mut self.learned else {
            // Over the first moment the acceptances are the receiver's burst, not its rate.
            let age = self.meter.age(now);
            let tried = tried * age.max(1.0) / age.max(0.1);
            let rate = limit.map_or(tried, |limit| tried.min(limit)).max(SLOWEST);
            let least = if age < 5.0 { 0.02 } else { 0.5 };
            let target = accepted.clamp(rate * least, rate * PROBE_DECREASE);
            let before = (self.meter.accepted, age);
            self.learned = Some(Learned { before, ..Learned::at(target, rate, now, reason) });
            self.meter.restart(now);
            return;
        };
        l.last = now;
        l.hurt = l.hurt.saturating_add(1);
        if began < l.resume {
            return;
        }
        reason.clone_into(&mut l.reason);
        if !l.accepted {
            // Still closed: the level says nothing, only the time.
            l.rounds = l.rounds.saturating_add(1);
            l.resume = now.after(stop(l.rounds));
            l.closed_long(now);
            return;
        }
        let ceiling = l.rate(now);
        let target = match l.probing {
            // The receiver's burst let the probe go further than it may: what was held weighs more.
            Some(_) if ceiling < l.good * 1.3 => l.good * 0.5 + ceiling * 0.5,
            // Far from what is known: what was accepted lately tells more.
            Some(_) => (accepted * 0.97).clamp((ceiling * 0.5).max(l.good).min(ceiling), ceiling),
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
        *l = Learned { good: l.good, same, before, ..Learned::at(target.min(ceiling * 0.97), believed, now, reason) };
        self.meter.restart(now);
    }

    /// Brings the state up to date. True if what was learned is no longer needed.
    pub(super) fn advance(&mut self, now: Timestamp, limit: Option<f64>) -> bool {
        let (tried, _) = self.meter.rates(now);
        let Some(l) = &mut self.learned else { return false };
        let rate = l.rate(now);
        let since = now.since(l.seen).as_secs_f64();
        l.seen = l.seen.max(now);
        match &mut l.probing {
            // Only a rate that is used is tested: a lane with little to do learns nothing.
            Some(probe) if tried >= rate * 0.4 => probe.grow(l.ceiling, since.min(2.0)),
            Some(_) => {}
            None => {
                let held = now.since(l.resume);
                let (clean, least) = if l.target < l.ceiling * FAR {
                    // At first anything is better than to stay far below.
                    let hurt = if l.good > 0.0 { l.hurt.clamp(1, 3) } else { 1 };
                    (CLEAN_FAR * hurt, HOLD_FAR)
                } else {
                    let same = if l.target < l.ceiling * CLOSE { 0 } else { l.same.min(8) };
                    let same = HOLD_LEAST.saturating_mul(1 << same).min(HOLD_SAME);
                    (CLEAN * l.hurt.clamp(1, HURT_MOST), same)
                };
                if l.clean >= clean && held >= least || held >= HOLD_MOST {
                    l.good = l.target;
                    l.probing = Some(Probe { rate: l.target, beyond: 0.0 });
                }
            }
        }
        let reached = l.probing.is_some() && limit.is_some_and(|limit| l.rate(now) >= limit);
        if reached || now.since(l.last) >= FORGET {
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
        let part = (MEMORY / seconds.max(1.0)).min(1.0);
        (cells * part, seconds * part)
    }

    /// Refused again, and nothing was accepted since the episode began: what was accepted before is
    /// what the window takes, once in the time that it is full.
    fn closed_long(&mut self, now: Timestamp) {
        let closed = now.since(self.begun).as_secs_f64();
        let (cells, seconds) = self.before;
        if closed >= LONG && cells > 0.0 {
            let most = (cells / (seconds + closed * LONGER)).max(SLOWEST);
            if most < self.target {
                self.target = most;
                self.good = 0.0;
                self.ceiling = self.ceiling.min(most / NEAR);
            }
        }
    }

    fn rate(&self, now: Timestamp) -> f64 {
        match self.probing {
            Some(probe) => probe.rate,
            None => {
                let part = (now.since(self.resume).as_secs_f64() / RECOVERY).min(1.0);
                self.target * (RESTART + (1.0 - RESTART) * part)
            }
        }
    }
}

/// The stop of the `rounds`-th throttle reply in a row.
fn stop(rounds: u32) -> Duration {
    STOP.saturating_mul(1 << rounds.saturating_sub(1).min(10)).min(STOP_MOST)
}
