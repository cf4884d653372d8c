//! The queue of one lane, in memory: what arrives when, and what is tried again when. Pure.
//!
//! Claims go as in the queue on disk: urgent mail first, but for one recipient of every [`ONE_OF`],
//! and the senders of one priority in turn, each in the order of due times.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use crate::clock::Timestamp;

/// Of so many recipients claimed, one is of the lower priority, if such a one is due.
const ONE_OF: usize = 8;

/// A recipient that was put off, in order of its due time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Waiting {
    pub(super) due: Timestamp,
    pub(super) index: u32,
    pub(super) attempts: u32,
}

/// One message of a lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Arrival {
    pub(super) at: Timestamp,
    /// Number of its sender.
    pub(super) sender: u16,
    /// Bulk is of lower priority.
    pub(super) bulk: bool,
}

/// The mail of one sender and one priority.
#[derive(Debug, Default)]
struct Line {
    /// In order of arrival.
    fresh: Vec<u32>,
    /// The first of them that was not taken yet.
    next: usize,
    again: BinaryHeap<Reverse<Waiting>>,
}

/// What waits for a lane.
#[derive(Debug)]
pub(super) struct Store {
    /// All of the destination, in order; those of other sources among them.
    arrivals: Arc<[Arrival]>,
    /// By sender; the urgent ones, then bulk.
    lines: [Vec<Line>; 2],
}

impl Store {
    /// Those of `arrivals` that are named, in order of time, of so many senders.
    pub(super) fn of(arrivals: Arc<[Arrival]>, indices: Vec<u32>, senders: usize) -> Store {
        let mut lines =
            [(); 2].map(|()| std::iter::repeat_with(Line::default).take(senders.max(1)).collect::<Vec<_>>());
        for index in indices {
            let Some(arrival) = arrivals.get(index as usize) else { continue };
            if let Some(line) = lines[usize::from(arrival.bulk)].get_mut(usize::from(arrival.sender)) {
                line.fresh.push(index);
            }
        }
        Store { arrivals, lines }
    }

    /// Whether there is mail of both priorities.
    pub(super) fn is_mixed(&self) -> bool {
        self.lines.iter().all(|lines| lines.iter().any(|line| !line.fresh.is_empty()))
    }

    /// Messages of the destination that have arrived by now.
    pub(super) fn arrived(&self, now: Timestamp) -> usize {
        self.arrivals.partition_point(|arrival| arrival.at <= now)
    }

    /// One of the messages.
    pub(super) fn arrival(&self, index: u32) -> Option<Arrival> {
        self.arrivals.get(index as usize).copied()
    }

    /// When something is due.
    pub(super) fn due(&self) -> Option<Timestamp> {
        self.lines.iter().flatten().filter_map(|line| line.due(&self.arrivals)).min()
    }

    /// When the next urgent message arrives.
    pub(super) fn next_urgent(&self) -> Option<Timestamp> {
        self.lines[0].iter().filter_map(|line| line.fresh_at(&self.arrivals)).min()
    }

    /// The urgent messages that have arrived and were not claimed yet.
    pub(super) fn take_urgent(&mut self, now: Timestamp) -> Vec<Waiting> {
        let mut taken = Vec::new();
        for line in &mut self.lines[0] {
            while let Some(due) = line.fresh_at(&self.arrivals).filter(|at| *at <= now) {
                let Some(index) = line.fresh.get(line.next).copied() else { break };
                line.next += 1;
                taken.push(Waiting { due, index, attempts: 0 });
            }
        }
        taken
    }

    /// Tries a recipient again when it is due.
    pub(super) fn put_off(&mut self, waiting: Waiting) {
        let Some(Arrival { sender, bulk, .. }) = self.arrival(waiting.index) else { return };
        if let Some(line) = self.lines[usize::from(bulk)].get_mut(usize::from(sender)) {
            line.again.push(Reverse(waiting));
        }
    }

    /// Up to `room` that are due.
    pub(super) fn claim(&mut self, now: Timestamp, room: usize) -> Vec<Waiting> {
        let mut taken = Vec::new();
        let arrivals = &self.arrivals;
        let [urgent, bulk] = &mut self.lines;
        let bulk_is_due = bulk.iter().any(|line| line.due(arrivals).is_some_and(|due| due <= now));
        let kept = if bulk_is_due { (room / ONE_OF).min(room.saturating_sub(1)) } else { 0 };
        take_turns(urgent, arrivals, now, room - kept, &mut taken);
        take_turns(bulk, arrivals, now, room - taken.len(), &mut taken);
        take_turns(urgent, arrivals, now, room - taken.len(), &mut taken);
        taken
    }

    /// Up to `room` that arrived at `before` or earlier, whether they are due or not.
    pub(super) fn claim_older(&mut self, before: Timestamp, room: usize) -> Vec<Waiting> {
        let mut taken = Vec::new();
        let arrivals = &self.arrivals;
        let is_old = |index: u32| arrivals.get(index as usize).is_some_and(|arrival| arrival.at <= before);
        for line in self.lines.iter_mut().flatten() {
            while taken.len() < room
                && let Some(index) = line.fresh.get(line.next).copied().filter(|index| is_old(*index))
            {
                line.next += 1;
                taken.push(Waiting { due: before, index, attempts: 0 });
            }
            if line.again.iter().any(|Reverse(waiting)| is_old(waiting.index)) {
                line.again.retain(|Reverse(waiting)| {
                    let old = taken.len() < room && is_old(waiting.index);
                    if old {
                        taken.push(*waiting);
                    }
                    !old
                });
            }
        }
        taken
    }
}

/// Each line gives one, until none has one that is due.
fn take_turns(lines: &mut [Line], arrivals: &[Arrival], now: Timestamp, room: usize, taken: &mut Vec<Waiting>) {
    let most = taken.len() + room;
    let mut some = true;
    while some && taken.len() < most {
        some = false;
        for line in &mut *lines {
            if taken.len() >= most {
                break;
            }
            if let Some(waiting) = line.take(arrivals, now) {
                taken.push(waiting);
                some = true;
            }
        }
    }
}

impl Line {
    fn fresh_at(&self, arrivals: &[Arrival]) -> Option<Timestamp> {
        let index = *self.fresh.get(self.next)?;
        Some(arrivals.get(index as usize)?.at)
    }

    fn due(&self, arrivals: &[Arrival]) -> Option<Timestamp> {
        let again = self.again.peek().map(|Reverse(waiting)| waiting.due);
        [self.fresh_at(arrivals), again].into_iter().flatten().min()
    }

    /// The first that is due.
    fn take(&mut self, arrivals: &[Arrival], now: Timestamp) -> Option<Waiting> {
        let fresh = self.fresh_at(arrivals).filter(|at| *at <= now);
        let again = self.again.peek().map(|Reverse(waiting)| waiting.due).filter(|due| *due <= now);
        match (fresh, again) {
            (fresh, Some(due)) if fresh.is_none_or(|at| due <= at) => self.again.pop().map(|Reverse(waiting)| waiting),
            (Some(due), _) => {
                let index = *self.fresh.get(self.next)?;
                self.next += 1;
                Some(Waiting { due, index, attempts: 0 })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Store {
        fn new(arrivals: Vec<Arrival>, senders: usize) -> Store {
            let all = (0..u32::try_from(arrivals.len()).expect("few")).collect();
            Store::of(arrivals.into(), all, senders)
        }
    }

    #[test]
    fn what_is_old_is_claimed_whether_it_is_due_or_not() {
        let at = |at| Arrival { at: Timestamp(at), sender: 0, bulk: false };
        let mut store = Store::new(vec![at(1), at(2), at(3), at(4)], 1);
        assert_eq!(store.claim(Timestamp(1), 1).len(), 1);
        store.put_off(Waiting { due: Timestamp(90), index: 0, attempts: 2 });
        let mut old: Vec<u32> = store.claim_older(Timestamp(3), 9).iter().map(|waiting| waiting.index).collect();
        old.sort_unstable();
        assert_eq!(old, [0, 1, 2]);
        assert_eq!((store.claim_older(Timestamp(3), 9).len(), store.due()), (0, Some(Timestamp(4))));
    }

    #[test]
    fn urgent_mail_leaves_its_part_to_bulk_and_senders_take_turns() {
        let arrival = |sender, bulk| Arrival { at: Timestamp(0), sender, bulk };
        // Indices 0..90: urgent of sender 0; 90..100: urgent of sender 1; 100..200: bulk.
        let arrivals: Vec<Arrival> = (0..90)
            .map(|_| arrival(0, false))
            .chain((0..10).map(|_| arrival(1, false)))
            .chain((0..100).map(|_| arrival(0, true)))
            .collect();
        let mut store = Store::new(arrivals, 2);
        let first = store.claim(Timestamp(0), 16);
        let of = |range: std::ops::Range<u32>| first.iter().filter(|w| range.contains(&w.index)).count();
        assert_eq!((of(0..90), of(90..100), of(100..200)), (7, 7, 2));
        store.put_off(Waiting { due: Timestamp(5), index: 0, attempts: 1 });
        let mut rest = store.claim(Timestamp(0), 1000);
        assert_eq!(rest.len() + first.len(), 200, "each once, and nothing before it is due");
        assert_eq!((store.due(), store.claim(Timestamp(4), 9).len()), (Some(Timestamp(5)), 0));
        rest = store.claim(Timestamp(5), 9);
        assert_eq!(rest, [Waiting { due: Timestamp(5), index: 0, attempts: 1 }]);
    }

    #[test]
    fn urgent_mail_that_has_arrived_is_taken_once() {
        let at = |at, bulk| Arrival { at: Timestamp(at), sender: 0, bulk };
        let mut store = Store::new(vec![at(1, true), at(2, false), at(3, false)], 1);
        assert_eq!(store.next_urgent(), Some(Timestamp(2)));
        assert_eq!(store.take_urgent(Timestamp(2)).len(), 1);
        assert_eq!((store.next_urgent(), store.arrived(Timestamp(2))), (Some(Timestamp(3)), 2));
        assert_eq!(store.claim(Timestamp(9), 9).iter().map(|w| w.index).collect::<Vec<_>>(), [2, 0]);
    }
}
