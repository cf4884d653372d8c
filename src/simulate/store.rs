//! The queue of one lane, in memory: what arrives when, and what is tried again when. Pure.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Site;
use crate::clock::Timestamp;
use crate::schedule::{Held, Job};

/// A recipient that was put off, in order of its due time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Waiting {
    pub(super) due: Timestamp,
    pub(super) index: u32,
    pub(super) attempts: u32,
}

/// What waits for a lane.
#[derive(Debug)]
pub(super) struct Store {
    /// When each message arrives, in order.
    arrivals: Vec<Timestamp>,
    /// The first that was not claimed yet.
    next: usize,
    again: BinaryHeap<Reverse<Waiting>>,
}

impl Store {
    pub(super) fn new(arrivals: Vec<Timestamp>) -> Store {
        Store { arrivals, next: 0, again: BinaryHeap::new() }
    }

    /// Messages that were not claimed yet.
    pub(super) fn left(&self) -> usize {
        self.arrivals.len() - self.next + self.again.len()
    }

    /// Messages that have arrived by now.
    pub(super) fn arrived(&self, now: Timestamp) -> usize {
        self.arrivals.partition_point(|at| *at <= now)
    }

    /// When a message arrived.
    pub(super) fn received(&self, index: u32) -> Timestamp {
        self.arrivals.get(index as usize).copied().unwrap_or_default()
    }

    /// When something is due.
    pub(super) fn due(&self) -> Option<Timestamp> {
        let (fresh, again) = (self.arrivals.get(self.next).copied(), self.again.peek().map(|Reverse(w)| w.due));
        match (fresh, again) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Tries a recipient again.
    pub(super) fn put_off(&mut self, waiting: Waiting) {
        self.again.push(Reverse(waiting));
    }

    /// Up to `room` that are due, in order of their due time.
    pub(super) fn claim(&mut self, now: Timestamp, room: usize, site: &Site) -> Vec<Job> {
        let mut jobs = Vec::new();
        while jobs.len() < room {
            let fresh = self.arrivals.get(self.next).copied().filter(|at| *at <= now);
            let again = self.again.peek().map(|Reverse(w)| *w).filter(|w| w.due <= now);
            let (index, attempts) = match (fresh, again) {
                (fresh, Some(w)) if fresh.is_none_or(|at| w.due <= at) => {
                    self.again.pop();
                    (w.index, w.attempts)
                }
                (Some(_), _) => {
                    self.next += 1;
                    (u32::try_from(self.next - 1).unwrap_or(u32::MAX), 0)
                }
                _ => break,
            };
            let mut job = Job::new(site.message.clone(), site.destination.clone());
            job.recipients.push(Held { attempts, ..Held::fresh(index, site.recipient.clone()) });
            jobs.push(job);
        }
        jobs
    }
}
