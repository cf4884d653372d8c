//! Gates of single senders whose pace replies taught (see `adapt`): each holds back the mail of its sender in
//! its lane and nobody else's, as a `[[limit]]` does.
//!
//! Bounded by what `adapt` keeps: 64 senders of a lane.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::Limits;
use super::adapt::Adapt;
use super::gate::Gate;
use crate::clock::Timestamp;
use crate::config::Count;
use crate::mail::Message;

/// The gates of one lane's senders.
#[derive(Debug)]
pub struct Paced {
    count: Count,
    gates: Mutex<HashMap<u64, Arc<Gate>>>,
    /// There are some: most lanes have none, and are asked for every message.
    any: AtomicBool,
}

impl Paced {
    /// None yet; their paces count `count`.
    pub fn new(count: Count) -> Paced {
        Paced { count, gates: Mutex::default(), any: AtomicBool::new(false) }
    }

    fn of(&self, sender: u64) -> Option<Arc<Gate>> {
        if self.any.load(Ordering::Acquire) { self.gates.lock().get(&sender).cloned() } else { None }
    }

    /// Makes the gates what was learned. True if somebody may leave earlier than was known: a gate is gone, or
    /// a stop has ended before its time.
    pub fn follow(&self, adapt: &Adapt, now: Timestamp) -> bool {
        if !adapt.has_senders() && !self.any.load(Ordering::Acquire) {
            return false;
        }
        let mut gates = self.gates.lock();
        let mut former = std::mem::take(&mut *gates);
        let mut sooner = false;
        for pace in adapt.senders(now) {
            let gate = former.remove(&pace.key);
            let gate = gate.unwrap_or_else(|| Arc::new(Gate::of_sender(pace.name, self.count)));
            let stop = pace.stopped.map_or(Duration::ZERO, |until| until.since(now));
            sooner |= gate.set_pace(pace.rate, stop, pace.tried);
            gates.insert(pace.key, gate);
        }
        for gate in former.values() {
            // Who waits at it still holds it.
            gate.set_pace(None, Duration::ZERO, false);
            sooner = true;
        }
        self.any.store(!gates.is_empty(), Ordering::Release);
        sooner
    }
}

/// Whatever a message has to pass in a lane besides the provider's own gate.
#[derive(Clone, Copy, Debug)]
pub struct Gates<'a> {
    /// What the configuration says.
    pub limits: &'a Limits,
    /// What was learned of single senders.
    pub paced: &'a Paced,
}

impl Gates<'_> {
    /// There is none for anybody.
    pub fn is_empty(&self) -> bool {
        self.limits.is_empty() && !self.paced.any.load(Ordering::Acquire)
    }

    /// Those of a message of `sender` (see [`crate::mail::sender_key`]).
    pub fn of(&self, sender: u64, message: &Message) -> Vec<Arc<Gate>> {
        let mut gates = self.limits.gates(message);
        gates.extend(self.paced.of(sender));
        gates
    }
}
