//! The line of those who wait for a permit of a lane.
//!
//! Invariant: only the first in line may ask for a permit, and the order is that in which the lane
//! gave the jobs out, whenever each of them came to stand here (a connection may have had to be
//! opened first). So nobody loses a race for a permit, and who comes with an earlier place passes
//! those who are there already.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Which place the lane gave; at the same place the more urgent (it took the place over); then who
/// came first.
type Place = (u64, Reverse<i8>, u64);

/// Those who wait, in order.
#[derive(Debug, Default)]
pub(super) struct Line {
    waiting: Mutex<BTreeMap<Place, Arc<Notify>>>,
    came: AtomicU64,
}

impl Line {
    /// Nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.lock().is_empty()
    }

    /// Joins the line, until the value is dropped.
    pub(super) fn stand(&self, place: u64, priority: i8) -> Standing<'_> {
        let place = (place, Reverse(priority), self.came.fetch_add(1, Ordering::Relaxed));
        let called = Arc::new(Notify::new());
        self.waiting.lock().insert(place, called.clone());
        Standing { line: self, place, called }
    }
}

/// Somebody in line.
#[derive(Debug)]
pub(super) struct Standing<'a> {
    line: &'a Line,
    place: Place,
    called: Arc<Notify>,
}

impl Standing<'_> {
    pub(super) fn is_first(&self) -> bool {
        self.line.waiting.lock().first_key_value().is_some_and(|(first, _)| *first == self.place)
    }

    /// Returns when this one is first; somebody with an earlier place may come after that.
    pub(super) async fn turn(&self) {
        while !self.is_first() {
            self.called.notified().await;
        }
    }
}

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        let mut waiting = self.line.waiting.lock();
        waiting.remove(&self.place);
        if let Some((_, first)) = waiting.first_key_value() {
            first.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_has_the_earliest_place_is_first_and_calls_the_next() {
        let line = Line::default();
        let (third, second) = (line.stand(3, 0), line.stand(2, 0));
        assert!(second.is_first() && !third.is_first());
        let first = line.stand(1, 0);
        assert!(first.is_first() && !second.is_first(), "it came last and has the earliest place");
        drop(second);
        assert!(!third.is_first());
        drop(first);
        third.turn().await;
        drop(third);
        assert!(line.is_empty());
    }

    #[test]
    fn who_took_a_place_over_stands_before_whom_it_belonged_to() {
        let line = Line::default();
        let (bulk, urgent) = (line.stand(1, -4), line.stand(1, 4));
        assert!(urgent.is_first() && !bulk.is_first());
    }
}
