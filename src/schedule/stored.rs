//! What a lane knows of its recipients in the queue: when the earliest is due, and whether somebody
//! is fetching them. Pure.

use crate::clock::Timestamp;

/// The queue's part of a lane.
#[derive(Debug, Default)]
pub struct Stored {
    /// Earliest due time; `None`: nothing is stored.
    pub due: Option<Timestamp>,
    /// Somebody is fetching.
    pub claiming: bool,
    /// Something was stored while a claim was under way.
    noted: Option<Timestamp>,
}

impl Stored {
    /// The queue holds something, due at `due`.
    pub fn note(&mut self, due: Timestamp) {
        self.due = Some(self.due.map_or(due, |d| d.min(due)));
        if self.claiming {
            self.noted = Some(self.noted.map_or(due, |d| d.min(due)));
        }
    }

    /// Whether a claim would find something now; if so it has begun. One at a time.
    pub fn begin_claim(&mut self, now: Timestamp) -> bool {
        let begins = !self.claiming && self.due.is_some_and(|due| due <= now);
        self.claiming |= begins;
        begins
    }

    /// Ends a claim: `due` is what the queue says now; what was noted meanwhile counts, too.
    pub fn end_claim(&mut self, due: Option<Timestamp>) {
        self.claiming = false;
        self.due = match (due, self.noted.take()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
}
