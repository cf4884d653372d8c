//! What the controller of `pace` knows: a level, where it came from, and how long it is kept. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::phase::Phase;
use crate::clock::Timestamp;

/// The rate right after a stop, of the target; it is reached [`RECOVERY`] later.
const RESTART: f64 = 0.8;
pub(super) const RECOVERY: f64 = 2.0;
/// Closed for so long, and for so many stops: a long window is full, or the server is in trouble.
const LONG: f64 = 3.0;
const LONG_ROUNDS: u32 = 4;
/// The first stop; the next ones are twice as long each, up to a second or a part of the time that the
/// server has been closed, whichever is more, and never longer than this.
const STOP: Duration = Duration::from_millis(250);
const STOP_LONG: f64 = 1.0;
const STOP_PART: f64 = 12.0;
const STOP_MOST: f64 = 600.0;
/// A window longer than this stretches all times of the search; the growth of a probe a little less.
const SHORT_WINDOW: f64 = 30.0;
const SHORT_PROBE: f64 = 40.0;
/// Where the window is known the first stop is this part of it, but no more than so many seconds: one that slides
/// has room again then. The next ones are longer, from that part on to the last: each try costs a refusal, and
/// one that does not slide stays closed to its end.
const STOP_WINDOW: f64 = 1.0 / 25.0;
const STOP_FIRST: f64 = 5.0;
const STOP_NEXT: f64 = 1.0 / 20.0;
const STOP_LAST: f64 = 1.0 / 6.0;
/// Of a long one much passes for each refusal: no more than so many seconds.
const STOPS_MOST: [f64; 2] = [20.0, 60.0];
/// A pace is held for no longer than this part of the window (of a minute if it is shorter), so that a raised limit
/// is found.
const HOLD_WINDOW: f64 = 1.0;
const HOLD_WINDOW_LEAST: f64 = 0.5;
/// What was accepted further back counts less, in seconds (in windows if these are longer).
const MEMORY: f64 = 120.0;
const MEMORY_WINDOWS: f64 = 2.0;
/// How long such a pace is held after a pause and after less, the first time (eight times as long each further
/// time, up to the last): the second time the limit is known well, and a third one costs more than to stay a little
/// below it. So no rule acts more than five times in a day. And how much slower than others such a probe grows.
const RULED_HOLD: [Duration; 3] =
    [Duration::from_secs(3 * 3600), Duration::from_secs(1800), Duration::from_secs(24 * 3600)];
const RULED_SCALE: f64 = 20.0;
/// How many times as long as the rule acts it is held at least where the window is known: to look for more
/// costs no more than a tenth of the time.
const RULED_PART: f64 = 10.0;
/// From this part of the rate that was too much on a probe is gentle; below it grows by [`FAST`] a second.
pub(super) const NEAR: f64 = 0.9;
const FAST: f64 = 0.2;
/// No rate below this (a cell an hour) is learned.
pub(super) const SLOWEST: f64 = 1.0 / 3600.0;

/// What was learned, and where the search is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Learned {
    /// The rate in cells a second that is held, or from which the probe grows.
    pub(super) target: f64,
    /// The last rate that was held to the end without a throttle reply; 0: none.
    pub(super) good: f64,
    /// The last rate that was too much.
    pub(super) ceiling: f64,
    /// Nothing leaves before; replies to what left before belong to the episode.
    pub(super) resume: Timestamp,
    /// Stops in this episode.
    pub(super) rounds: u32,
    /// Throttle replies in this episode.
    pub(super) hurt: u32,
    /// It began with a wall: so much had been refused in a row that everything was.
    #[serde(default)]
    pub(super) wall: bool,
    /// Something that left after `resume` was accepted.
    pub(super) accepted: bool,
    /// It was closed for long, and what was accepted since may be no more than what still fits into a window of
    /// bytes: small messages do.
    #[serde(default)]
    pub(super) opening: Option<Opening>,
    /// Cells accepted since `resume`.
    pub(super) clean: u32,
    /// `None` while the target is held.
    pub(super) probing: Option<Probe>,
    /// Probes in a row that met the same limit.
    #[serde(default)]
    pub(super) same: u32,
    /// The length of the window in seconds, if it was measured; 0: it was not.
    #[serde(default)]
    pub(super) window: f64,
    /// When it begins anew, if it was closed for long and that at fixed times.
    #[serde(default)]
    pub(super) phase: Option<Phase>,
    /// Times that a rule has stopped or slowed the lane at such a pace, and until when it does; `pause`: it
    /// stopped it.
    #[serde(default)]
    pub(super) ruled: u32,
    #[serde(default)]
    pub(super) ruled_until: Timestamp,
    #[serde(default)]
    pub(super) pause: bool,
    /// Cells that were accepted before it last did.
    #[serde(default)]
    pub(super) ruled_cells: f64,
    /// How long a rule acts here, in seconds.
    #[serde(default)]
    pub(super) ruled_for: f64,
    /// The rate before the episode began; 0: there was none.
    #[serde(default)]
    pub(super) held: f64,
    /// When the episode began, and cells accepted in so many seconds before, see `remembered`.
    #[serde(default)]
    pub(super) begun: Timestamp,
    #[serde(default)]
    pub(super) before: (f64, f64),
    /// When the state was last brought up to date.
    pub(super) seen: Timestamp,
    /// The last throttle reply: when, and its text.
    pub(super) last: Timestamp,
    pub(super) reason: String,
}

/// Acceptances behind a wall that do not show yet that it is gone.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Opening {
    /// The last refusal before the first of them, and that one.
    pub(super) refused: Timestamp,
    pub(super) first: Timestamp,
    /// Transactions accepted since.
    pub(super) passed: u32,
}

/// A probe for more.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Probe {
    /// The rate now.
    pub(super) rate: f64,
    /// Seconds of growth near and beyond the ceiling.
    pub(super) beyond: f64,
}

impl Probe {
    pub(super) fn grow(&mut self, ceiling: f64, seconds: f64) {
        let pace = if self.rate < ceiling * NEAR {
            FAST
        } else {
            self.beyond += seconds;
            0.01 + 0.001 * self.beyond.min(200.0)
        };
        self.rate *= (pace * seconds).exp();
    }
}

impl Learned {
    pub(super) fn at(target: f64, ceiling: f64, now: Timestamp, reason: &str) -> Learned {
        Learned {
            target: target.max(SLOWEST),
            good: 0.0,
            ceiling,
            resume: now.after(STOP),
            rounds: 1,
            hurt: 1,
            wall: false,
            accepted: false,
            opening: None,
            clean: 0,
            probing: None,
            same: 0,
            window: 0.0,
            phase: None,
            ruled: 0,
            ruled_until: Timestamp::default(),
            pause: false,
            ruled_cells: 0.0,
            ruled_for: 0.0,
            held: 0.0,
            begun: now,
            before: (0.0, 0.0),
            seen: now,
            last: now,
            reason: reason.to_owned(),
        }
    }

    /// Cells accepted up to now, in so many seconds.
    pub(super) fn remembered(&self, now: Timestamp) -> (f64, f64) {
        let cells = self.before.0 + f64::from(self.clean);
        let seconds = self.before.1 + now.since(self.begun).as_secs_f64();
        let part = (MEMORY.max(MEMORY_WINDOWS * self.window) / seconds.max(1.0)).min(1.0);
        (cells * part, seconds * part)
    }

    /// Closed for so long, and for so many stops, that the level says nothing.
    pub(super) fn was_closed(&self, now: Timestamp) -> bool {
        let long = now.since(self.begun).as_secs_f64() >= LONG;
        long && (self.window > 0.0 || self.rounds >= LONG_ROUNDS || self.wall)
    }

    /// How much longer everything takes than with a window of a second.
    pub(super) fn scale(&self) -> f64 {
        (self.window / SHORT_WINDOW).max(if self.ruled > 0 { RULED_SCALE } else { 1.0 })
    }

    /// The same for the growth of a probe.
    pub(super) fn probe_scale(&self) -> f64 {
        (self.window / SHORT_PROBE).max(if self.ruled > 0 { RULED_SCALE } else { 1.0 })
    }

    /// How long the first stop of an episode is.
    pub(super) fn stop(&self) -> Duration {
        STOP.max(Duration::from_secs_f64((self.window * STOP_WINDOW).min(STOP_FIRST)))
    }

    /// Of the least and the greatest time for which a pace is held, what the window allows.
    pub(super) fn hold(&self, least: Duration, most: Duration) -> (Duration, Duration) {
        let window = |part: f64| Duration::from_secs_f64(self.window.max(60.0) * part);
        if self.window <= 0.0 {
            return (least, most);
        }
        (least.min(window(HOLD_WINDOW_LEAST)), most.min(window(HOLD_WINDOW)))
    }

    /// How long a pace is held at which a rule acts.
    pub(super) fn patience(&self) -> Option<Duration> {
        let [pause, less, most] = RULED_HOLD;
        let first = if self.pause { pause } else { less };
        let cheap = if self.window > 0.0 { RULED_PART * self.ruled_for } else { 0.0 };
        let cheap = Duration::try_from_secs_f64(cheap).unwrap_or(most);
        (self.ruled > 0).then(|| first.saturating_mul(1 << (3 * (self.ruled - 1)).min(10)).max(cheap).min(most))
    }

    /// It has just been found open: between the last refusal and `now`.
    pub(super) fn note_phase(&mut self, now: Timestamp) {
        if self.window > 0.0 {
            let before = self.phase.map(|phase| phase.opened(self.last, now, self.window));
            self.phase = Some(before.unwrap_or_else(|| Phase::new(self.last, now)));
        }
    }

    /// How long the next stop is while nothing is accepted.
    pub(super) fn gap(&self, now: Timestamp) -> f64 {
        let closed = now.since(self.begun).as_secs_f64();
        let times = f64::from(1_u32 << self.rounds.saturating_sub(1).min(20));
        let doubled = STOP.as_secs_f64() * times;
        if self.window > 0.0 {
            let [next, last] = STOPS_MOST;
            let stop = (self.window * STOP_NEXT).min(next) * times / 2.0;
            return stop.min((self.window * STOP_LAST).min(last)).max(STOP.as_secs_f64());
        }
        doubled.min((closed / STOP_PART).max(STOP_LONG)).min(STOP_MOST)
    }

    pub(super) fn rate(&self, now: Timestamp) -> f64 {
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
