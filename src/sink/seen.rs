//! What the sink saw: counters, worst windows and a series, in constant memory.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::model::{Cap, Window};

/// Lengths of the windows that are watched.
const LENGTHS: [(&str, u64); 5] = [("1s", 1), ("10s", 10), ("1m", 60), ("5m", 300), ("1h", 3600)];

/// Slots of the series at most; when there are more, each takes in its neighbour.
const SLOTS: usize = 2160;

/// The most that any window of each length had.
#[derive(Debug)]
struct Worst(Vec<(Window, u64)>);

impl Worst {
    fn new() -> Worst {
        Worst(LENGTHS.iter().map(|(_, secs)| (Window::new(Duration::from_secs(*secs)), 0)).collect())
    }

    fn add(&mut self, now: Duration, n: u64) {
        for (window, worst) in &mut self.0 {
            *worst = window.add(now, n).max(*worst);
        }
    }
}

/// One slot of the series.
#[derive(Clone, Copy, Default, Debug, Serialize, PartialEq, Eq)]
pub struct Slot {
    /// Messages accepted.
    pub messages: u64,
    /// Refusals that mean "slow down".
    pub throttled: u64,
}

/// Counters while the sink runs.
#[derive(Debug)]
pub struct Seen {
    messages: u64,
    recipients: u64,
    bytes: u64,
    connections: u64,
    refused: u64,
    peak: u32,
    most_on_a_connection: u64,
    by_cap: BTreeMap<Cap, u64>,
    opened: Worst,
    begun: Worst,
    accepted: Worst,
    named: Worst,
    slot: Duration,
    slots: Vec<Slot>,
    end: Duration,
}

impl Seen {
    /// Nothing yet. `slot`: how long a slot of the series is at the beginning, at least a second.
    pub fn new(slot: Duration) -> Seen {
        Seen {
            messages: 0,
            recipients: 0,
            bytes: 0,
            connections: 0,
            refused: 0,
            peak: 0,
            most_on_a_connection: 0,
            by_cap: BTreeMap::new(),
            opened: Worst::new(),
            begun: Worst::new(),
            accepted: Worst::new(),
            named: Worst::new(),
            slot: Duration::from_secs(slot.as_secs().max(1)),
            slots: Vec::new(),
            end: Duration::ZERO,
        }
    }

    /// A connection was let in; `open` are there now.
    pub fn connected(&mut self, now: Duration, open: u32) {
        self.opened.add(now, 1);
        self.connections += 1;
        self.peak = self.peak.max(open);
    }

    /// A connection was turned away.
    pub fn turned_away(&mut self, now: Duration) {
        self.opened.add(now, 1);
        self.refused += 1;
    }

    /// A connection ended on which so many messages were accepted.
    pub fn disconnected(&mut self, messages: u64) {
        self.most_on_a_connection = self.most_on_a_connection.max(messages);
    }

    /// MAIL was said, whatever the answer.
    pub fn begun(&mut self, now: Duration) {
        self.begun.add(now, 1);
    }

    /// A message was accepted.
    pub fn accepted(&mut self, now: Duration, recipients: u64, bytes: u64) {
        self.messages += 1;
        self.recipients += recipients;
        self.bytes += bytes;
        self.accepted.add(now, 1);
        self.named.add(now, recipients);
        self.slot(now).messages += 1;
        self.end = now;
    }

    /// A cap refused something.
    pub fn refused(&mut self, now: Duration, by: Cap) {
        *self.by_cap.entry(by).or_default() += 1;
        if by.throttles() {
            self.slot(now).throttled += 1;
        }
    }

    fn slot(&mut self, now: Duration) -> &mut Slot {
        let at = |slot: Duration| usize::try_from(now.as_nanos() / slot.as_nanos().max(1)).unwrap_or(usize::MAX);
        while at(self.slot) >= SLOTS {
            self.slot *= 2;
            self.slots = self
                .slots
                .chunks(2)
                .map(|two| {
                    two.iter().fold(Slot::default(), |sum, s| Slot {
                        messages: sum.messages + s.messages,
                        throttled: sum.throttled + s.throttled,
                    })
                })
                .collect();
        }
        let at = at(self.slot);
        if self.slots.len() <= at {
            self.slots.resize(at + 1, Slot::default());
        }
        &mut self.slots[at]
    }

    /// The sums, after `elapsed`.
    pub fn report(&self, name: &str, elapsed: Duration) -> Report {
        let throttled: u64 = self.by_cap.iter().filter(|(cap, _)| cap.throttles()).map(|(_, n)| n).sum();
        let windows = LENGTHS.iter().enumerate().map(|(i, (length, _))| {
            let worst = |w: &Worst| w.0.get(i).map_or(0, |(_, n)| *n);
            WindowSeen {
                length,
                connections: worst(&self.opened),
                attempts: worst(&self.begun),
                messages: worst(&self.accepted),
                recipients: worst(&self.named),
            }
        });
        Report {
            provider: name.to_owned(),
            seconds: elapsed.as_secs_f64(),
            messages: self.messages,
            recipients: self.recipients,
            bytes: self.bytes,
            connections: self.connections,
            connections_refused: self.refused,
            peak_connections: self.peak,
            messages_per_connection: PerConnection {
                max: self.most_on_a_connection,
                mean: share(self.messages, self.connections),
            },
            throttled,
            throttled_share: share(throttled, throttled + self.messages),
            refusals: self.by_cap.iter().map(|(cap, n)| (cap.to_string(), *n)).collect(),
            windows: windows.collect(),
            series_seconds: self.slot.as_secs(),
            series: self.slots.clone(),
        }
    }
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// What was seen, for people and machines.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The persona.
    pub provider: String,
    /// How long the sink ran.
    pub seconds: f64,
    /// Messages accepted.
    pub messages: u64,
    /// Their recipients.
    pub recipients: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Connections let in.
    pub connections: u64,
    /// Connections turned away at the greeting.
    pub connections_refused: u64,
    /// Most connections at once.
    pub peak_connections: u32,
    /// Messages accepted on one connection.
    pub messages_per_connection: PerConnection,
    /// Refusals that mean "slow down".
    pub throttled: u64,
    /// `throttled / (throttled + messages)`.
    pub throttled_share: f64,
    /// Refusals by cap.
    pub refusals: BTreeMap<String, u64>,
    /// Worst windows.
    pub windows: Vec<WindowSeen>,
    /// Length of a slot of the series.
    pub series_seconds: u64,
    /// From the start on.
    pub series: Vec<Slot>,
}

/// Messages of a connection.
#[derive(Clone, Debug, Serialize)]
pub struct PerConnection {
    /// Most.
    pub max: u64,
    /// On average.
    pub mean: f64,
}

/// The worst window of one length.
#[derive(Clone, Debug, Serialize)]
pub struct WindowSeen {
    /// Its length.
    pub length: &'static str,
    /// Connections that came, those turned away too.
    pub connections: u64,
    /// MAIL commands, refused ones too.
    pub attempts: u64,
    /// Messages accepted.
    pub messages: u64,
    /// Recipients accepted.
    pub recipients: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOT: Duration = Duration::from_secs(10);

    #[test]
    fn the_worst_window_is_found_wherever_it_begins() {
        let mut seen = Seen::new(SLOT);
        seen.connected(Duration::from_millis(500), 1);
        seen.turned_away(Duration::from_millis(1400));
        seen.connected(Duration::from_millis(1600), 1);
        for ms in [0, 900, 1100, 1200, 1300, 30_000] {
            seen.begun(Duration::from_millis(ms));
            seen.accepted(Duration::from_millis(ms), 2, 10);
        }
        seen.refused(Duration::from_millis(31_000), Cap::Rate(Duration::from_secs(1)));
        seen.refused(Duration::from_millis(31_000), Cap::Greylist);
        let report = seen.report("generic", Duration::from_secs(40));
        let worst: Vec<_> = report.windows.iter().map(|w| (w.length, w.attempts, w.recipients)).collect();
        assert_eq!(report.windows.iter().map(|w| w.connections).collect::<Vec<_>>(), [2, 3, 3, 3, 3]);
        assert_eq!(worst, [("1s", 4, 8), ("10s", 5, 10), ("1m", 6, 12), ("5m", 6, 12), ("1h", 6, 12)]);
        let messages: Vec<_> = report.series.iter().map(|s| s.messages).collect();
        assert_eq!((messages, report.throttled), (vec![5, 0, 0, 1], 1));
        assert_eq!(report.refusals.get("greylist"), Some(&1));
    }

    #[test]
    fn the_series_grows_coarser_not_longer() {
        let mut seen = Seen::new(SLOT);
        for hour in 0..100 {
            seen.accepted(Duration::from_secs(hour * 3600), 1, 1);
        }
        assert!(seen.slots.len() <= SLOTS);
        assert_eq!(seen.slots.iter().map(|s| s.messages).sum::<u64>(), 100);
    }
}
