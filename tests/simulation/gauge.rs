//! Invariant 3 at the receiving end: what arrives of each provider, against its limits.
//!
//! Transactions are counted by when the relay wrote them, since a network that delays one and not
//! the next can bring any two together. A window may span any number of crashes and restarts.

use std::sync::Arc;
use std::time::Duration;

use mailweir::config::units::Rate;
use mailweir::config::{Count, Provider};

/// Between the permit and the first byte lies what the store takes to hand out a body, in ms.
const SLACK: i64 = 250;

/// A transaction.
#[derive(Clone, Copy)]
struct Start {
    at: i64,
    recipients: u32,
}

struct Seen {
    lane: String,
    provider: Arc<Provider>,
    open: u32,
    starts: Vec<Start>,
}

/// All groups.
pub struct Gauge {
    groups: Vec<Seen>,
}

impl Gauge {
    pub fn new(groups: Vec<(String, Arc<Provider>)>) -> Gauge {
        let seen = |(lane, provider)| Seen { lane, provider, open: 0, starts: Vec::new() };
        Gauge { groups: groups.into_iter().map(seen).collect() }
    }

    pub fn opened(&mut self, group: usize) -> Option<String> {
        let seen = &mut self.groups[group];
        seen.open += 1;
        let most = seen.provider.connections;
        (seen.open > most).then(|| format!("{}: {} connections, at most {most}", seen.lane, seen.open))
    }

    pub fn closed(&mut self, group: usize) {
        self.groups[group].open -= 1;
    }

    pub fn crashed(&mut self) {
        for seen in &mut self.groups {
            seen.open = 0;
        }
    }

    /// A transaction with so many recipients, as the `nth` of its connection.
    pub fn started(&mut self, group: usize, at: i64, recipients: u32, nth: u32) -> Option<String> {
        let seen = &mut self.groups[group];
        seen.starts.push(Start { at, recipients });
        let (most, longest) = (seen.provider.recipients_per_message, seen.provider.messages_per_connection);
        if recipients > most {
            return Some(format!("{}: {recipients} recipients in a message, at most {most}", seen.lane));
        }
        (nth > longest).then(|| format!("{}: {nth} messages on a connection, at most {longest}", seen.lane))
    }

    /// Transactions seen.
    pub fn transactions(&self) -> u64 {
        self.groups.iter().map(|seen| seen.starts.len() as u64).sum()
    }

    /// What was too much, of all that was seen.
    pub fn check(&mut self) -> Vec<String> {
        let mut wrong = Vec::new();
        for seen in &mut self.groups {
            seen.starts.sort_by_key(|start| start.at);
            for rate in &seen.provider.rate {
                wrong.extend(seen.check_rate(rate.rate));
            }
            for quota in &seen.provider.quota {
                wrong.extend(seen.check_quota(quota.rate));
            }
        }
        wrong
    }
}

impl Seen {
    fn cells(&self, start: &Start) -> u32 {
        match self.provider.count {
            Count::Messages => 1,
            Count::Recipients => start.recipients,
        }
    }

    /// GCRA: what arrives conforms if the arrival time never runs ahead by more than the burst.
    fn check_rate(&self, rate: Rate) -> Option<String> {
        let cell = rate.per.as_secs_f64() * 1000.0 / f64::from(rate.count);
        let natural = (10.0 / cell).floor().max(1.0);
        let burst = if self.provider.burst == 0 { natural } else { f64::from(self.provider.burst) };
        let largest = self.starts.iter().map(|start| self.cells(start)).max().unwrap_or(1);
        let ahead = burst.max(f64::from(largest)) * cell + SLACK as f64;
        let mut arrival = f64::MIN;
        for start in &self.starts {
            arrival = arrival.max(start.at as f64) + cell * f64::from(self.cells(start));
            if arrival - start.at as f64 > ahead {
                let over = Duration::from_millis((arrival - start.at as f64 - ahead) as u64);
                return Some(format!("{}: above {rate} at {} ms, by {over:?}", self.lane, start.at));
            }
        }
        None
    }

    fn check_quota(&self, quota: Rate) -> Option<String> {
        let per = i64::try_from(quota.per.as_millis()).unwrap_or(i64::MAX);
        let (mut from, mut cells) = (0, 0);
        for start in &self.starts {
            cells += self.cells(start);
            while self.starts[from].at + per - SLACK <= start.at {
                cells -= self.cells(&self.starts[from]);
                from += 1;
            }
            if cells > quota.count {
                return Some(format!("{}: {cells} within {quota} at {} ms", self.lane, start.at));
            }
        }
        None
    }
}
