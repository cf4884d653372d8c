//! What a receiver did, second by second and sender by sender: for those who judge how it was treated.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::Cap;

/// A second.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Second {
    /// Messages accepted.
    pub accepted: u32,
    /// Refusals that mean "slow down".
    pub throttled: u32,
    /// Refusals for anything else.
    pub refused: u32,
}

/// What became of the mail of one sender.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct Sender {
    /// Messages accepted.
    pub accepted: u32,
    /// The sum of the times at which they were, in seconds since the start.
    pub sum: f64,
    /// When the last of them was.
    pub last: Duration,
}

/// Grows with the time and with the recipients: only for runs of known length.
#[derive(Clone, Default, Debug)]
pub struct Log {
    /// From the start on.
    pub seconds: Vec<Second>,
    /// By address.
    pub senders: BTreeMap<String, Sender>,
    /// Refusals by cap.
    pub by_cap: BTreeMap<Cap, u64>,
    /// How often each recipient of each sender was refused, by hash.
    tries: HashMap<u64, u32>,
}

impl Log {
    fn second(&mut self, now: Duration) -> &mut Second {
        let at = usize::try_from(now.as_secs()).unwrap_or(usize::MAX).min(10_000_000);
        if self.seconds.len() <= at {
            self.seconds.resize(at + 1, Second::default());
        }
        &mut self.seconds[at]
    }

    pub(super) fn accepted(&mut self, now: Duration, sender: &str) {
        self.second(now).accepted += 1;
        let of = match self.senders.get_mut(sender) {
            Some(of) => of,
            None => self.senders.entry(sender.to_owned()).or_default(),
        };
        of.accepted += 1;
        of.sum += now.as_secs_f64();
        of.last = now;
    }

    /// `whom`: hash of the sender and the recipient, where they are known.
    pub(super) fn refused(&mut self, now: Duration, by: Cap, whom: Option<u64>) {
        *self.by_cap.entry(by).or_default() += 1;
        let second = self.second(now);
        if by.throttles() {
            second.throttled += 1
        } else {
            second.refused += 1
        }
        if let Some(whom) = whom {
            *self.tries.entry(whom).or_default() += 1;
        }
    }

    /// How often one recipient of one sender was refused at most.
    pub fn most_refusals(&self) -> u32 {
        self.tries.values().copied().max().unwrap_or(0)
    }
}
