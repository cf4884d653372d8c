//! When the lanes of providers have something due in the queue. Pure.

use std::collections::{BTreeSet, HashMap};

use crate::clock::Timestamp;
use crate::mail::LaneName;

/// One entry for each lane of a provider that has something in the queue.
#[derive(Default)]
pub(super) struct Timer {
    by_time: BTreeSet<(Timestamp, LaneName)>,
    by_lane: HashMap<LaneName, Timestamp>,
}

impl Timer {
    /// Keeps the earlier of the two; true if `due` is the earliest of all now.
    pub(super) fn set(&mut self, lane: &LaneName, due: Timestamp) -> bool {
        match self.by_lane.get(lane) {
            Some(old) if *old <= due => return false,
            Some(old) => {
                self.by_time.remove(&(*old, lane.clone()));
            }
            None => {}
        }
        self.by_lane.insert(lane.clone(), due);
        self.by_time.insert((due, lane.clone()));
        self.by_time.first().is_some_and(|(first, name)| *first == due && name == lane)
    }

    /// When the first of all is due.
    pub(super) fn first(&self) -> Option<Timestamp> {
        self.by_time.first().map(|(due, _)| *due)
    }

    /// A lane of which something is due.
    pub(super) fn pop_due(&mut self, now: Timestamp) -> Option<LaneName> {
        if self.by_time.first()?.0 > now {
            return None;
        }
        let (_, lane) = self.by_time.pop_first()?;
        self.by_lane.remove(&lane);
        Some(lane)
    }
}
