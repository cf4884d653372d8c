//! Places for the lanes of domains that work: how many there may be at once, and whose.
//!
//! A lane costs memory, tasks and sockets, and there are as many domains as somebody writes to. So a
//! lane of a domain works only in a place, each place holds a ticket of the memory budget, and there
//! are so many for each [`Class`]: domains that fail, and domains that nobody has written to before,
//! take nothing from those that work (invariants 4 and 5). Only some of a class may look up where
//! their domain is at once, so that names that nobody answers for cost the others nothing.
//!
//! A place is left when there is nothing to do, and a host that accepts a connection and says nothing
//! keeps one for minutes. So a sender gets another place of a class only while it has fewer than are
//! free: alone it has half of them at most, two have a third each, and there is always one for whoever
//! comes next. The same holds for look-ups.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use super::budget::{Budget, Ticket};
use crate::queue::turns::SENDERS;

/// What a working lane costs, in bytes: itself, its tasks, a connection.
pub const LANE_COST: u64 = 32 << 10;
/// Places at most, whatever the memory.
const MOST: usize = 2048;
/// Places at least, whatever the memory: these have no ticket, so that all go on.
const LEAST: usize = 32;
/// Domains looked up at once.
const LOOK_UPS: [usize; 3] = [usize::MAX, 48, 16];

/// Whose place it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Class {
    /// A domain that took mail lately.
    Proven = 0,
    /// A domain that nobody has tried for this mail.
    Fresh = 1,
    /// A domain whose mail was tried before.
    Tried = 2,
}

/// All places.
#[derive(Debug)]
pub struct Places {
    budget: Arc<Budget>,
    most: [usize; 3],
    taken: [AtomicUsize; 3],
    looking: [AtomicUsize; 3],
    /// Places of each sender, by class.
    of_sender: [[AtomicUsize; SENDERS]; 3],
    /// Look-ups of each sender, by class.
    looking_for: [[AtomicUsize; SENDERS]; 3],
    /// Somebody left a place or found out where a domain is.
    pub changed: Notify,
}

impl Places {
    /// As many as half of `memory` (bytes) has room for, half of them for domains that work.
    pub fn new(budget: Arc<Budget>, memory: u64) -> Arc<Places> {
        let all = usize::try_from(memory / 2 / LANE_COST).unwrap_or(MOST).clamp(LEAST, MOST);
        let (half, tried) = (all / 2, all / 8);
        let zero = || [const { AtomicUsize::new(0) }; 3];
        let most = [half, all - half - tried, tried];
        let by_sender = || [const { [const { AtomicUsize::new(0) }; SENDERS] }; 3];
        let (of_sender, looking_for) = (by_sender(), by_sender());
        Arc::new(Places {
            budget,
            most,
            taken: zero(),
            looking: zero(),
            of_sender,
            looking_for,
            changed: Notify::new(),
        })
    }

    /// Whether a sender may have another place of a class: none of those for domains that work is kept
    /// from anybody.
    pub fn allows(&self, class: Class, sender: usize) -> bool {
        let at = class as usize;
        let sender = sender % SENDERS;
        let free = self.most[at].saturating_sub(self.taken(class));
        let unasked = LOOK_UPS[at].saturating_sub(self.looking[at].load(Ordering::Relaxed));
        class == Class::Proven
            || self.of_sender[at][sender].load(Ordering::Relaxed) < free
                && self.looking_for[at][sender].load(Ordering::Relaxed) < unasked
    }

    /// A place for mail of a sender, if there is one. Its lane has to look up where its domain is.
    pub fn take(self: &Arc<Places>, class: Class, sender: usize) -> Option<Place> {
        let at = class as usize;
        let sender = sender % SENDERS;
        if !self.allows(class, sender) {
            return None;
        }
        if !add_below(&self.looking[at], LOOK_UPS[at]) {
            return None;
        }
        // Made now, so that every way out of here gives back what was taken.
        let mut place = Place { places: self.clone(), class, sender, looking: true, counted: false, _ticket: None };
        place.counted = add_below(&self.taken[at], self.most[at]);
        if !place.counted {
            place.looking = false;
            self.looking[at].fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        self.of_sender[at][sender].fetch_add(1, Ordering::Relaxed);
        self.looking_for[at][sender].fetch_add(1, Ordering::Relaxed);
        place._ticket = if self.total() > LEAST { self.budget.reserve(LANE_COST) } else { None };
        let free = self.taken[at].load(Ordering::Relaxed) <= (LEAST * self.most[at] / self.total()).max(1);
        (place._ticket.is_some() || free).then_some(place)
    }

    /// Places of a class that are taken.
    pub fn taken(&self, class: Class) -> usize {
        self.taken[class as usize].load(Ordering::Relaxed)
    }

    /// Places there are.
    pub fn total(&self) -> usize {
        self.most.iter().sum()
    }

    /// Whether a class has no place left, whatever its look-ups are at.
    pub fn is_full(&self, class: Class) -> bool {
        self.taken(class) >= self.most[class as usize]
    }
}

/// Adds one unless that would be more than `most`.
fn add_below(count: &AtomicUsize, most: usize) -> bool {
    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < most).then_some(n + 1)).is_ok()
}

/// A place of a lane, left on drop.
#[must_use = "a place that is dropped is somebody else's"]
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    class: Class,
    sender: usize,
    looking: bool,
    counted: bool,
    _ticket: Option<Ticket>,
}

impl Place {
    /// Where the domain is, is known.
    pub fn found(&mut self) {
        if std::mem::take(&mut self.looking) {
            self.places.looking[self.class as usize].fetch_sub(1, Ordering::Relaxed);
            self.places.looking_for[self.class as usize][self.sender].fetch_sub(1, Ordering::Relaxed);
            self.places.changed.notify_one();
        }
    }

    /// The domain took mail: its place is among those of its kind, if there is room.
    pub fn prove(&mut self) {
        self.found();
        let at = Class::Proven as usize;
        if self.class != Class::Proven && add_below(&self.places.taken[at], self.places.most[at]) {
            self.places.taken[self.class as usize].fetch_sub(1, Ordering::Relaxed);
            self.places.of_sender[self.class as usize][self.sender].fetch_sub(1, Ordering::Relaxed);
            self.places.of_sender[at][self.sender].fetch_add(1, Ordering::Relaxed);
            self.class = Class::Proven;
            self.places.changed.notify_one();
        }
    }

    /// Whose mail it was taken for.
    pub fn sender(&self) -> usize {
        self.sender
    }

    /// Whose it is.
    pub fn class(&self) -> Class {
        self.class
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.found();
        if self.counted {
            self.places.of_sender[self.class as usize][self.sender].fetch_sub(1, Ordering::Relaxed);
            self.places.taken[self.class as usize].fetch_sub(1, Ordering::Relaxed);
            self.places.changed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(memory: u64) -> Arc<Places> {
        Places::new(Budget::new(memory), memory)
    }

    /// Takes places for many senders until there are no more; each finds its domain at once.
    fn take_all(places: &Arc<Places>, class: Class) -> Vec<Place> {
        let take = |sender| {
            let mut place = places.take(class, sender)?;
            place.found();
            Some(place)
        };
        let mut all = Vec::new();
        while let Some(place) = (0..SENDERS).find_map(take) {
            all.push(place);
        }
        all
    }

    #[test]
    fn whatever_a_sender_has_there_is_a_place_for_another() {
        let places = &places(1 << 30);
        let take = |sender| {
            std::iter::from_fn(move || {
                places.take(Class::Fresh, sender).map(|mut place| {
                    place.found();
                    place
                })
            })
        };
        let of_one: Vec<Place> = take(1).collect();
        assert_eq!(of_one.len(), 384, "half of them");
        let of_two: Vec<Place> = take(2).collect();
        let of_three: Vec<Place> = take(3).collect();
        assert_eq!((of_two.len(), of_three.len()), (192, 96));
        assert!(places.take(Class::Fresh, 1).is_none() && places.take(Class::Fresh, 4).is_some());
        drop(of_one);
        assert!(places.allows(Class::Fresh, 2) && places.allows(Class::Proven, 2));
    }

    #[test]
    fn no_class_takes_places_of_another_and_all_that_is_taken_comes_back() {
        for (memory, expected) in [(1 << 20, [16, 12, 4]), (16 << 20, [128, 96, 32]), (1 << 30, [1024, 768, 256])] {
            let places = places(memory);
            let classes = [Class::Proven, Class::Fresh, Class::Tried];
            let taken = classes.map(|class| take_all(&places, class));
            assert_eq!(taken.each_ref().map(Vec::len), expected);
            assert!(places.budget.used() <= memory / 2);
            drop(taken);
            assert_eq!((places.budget.used(), classes.map(|class| places.taken(class))), (0, [0; 3]));
            assert_eq!(classes.map(|class| take_all(&places, class).len()), expected, "nothing is lost");
        }
    }

    #[test]
    fn only_some_look_up_their_domain_at_once() {
        let places = places(1 << 30);
        let of_one = std::iter::from_fn(|| places.take(Class::Fresh, 0)).collect::<Vec<_>>();
        assert_eq!(of_one.len(), LOOK_UPS[1] / 2, "the rest is for others");
        let others = (1..SENDERS)
            .flat_map(|sender| std::iter::from_fn(|| places.take(Class::Fresh, sender)).collect::<Vec<_>>());
        let mut looking: Vec<Place> = of_one.into_iter().chain(others.collect::<Vec<_>>()).collect();
        assert_eq!(looking.len(), LOOK_UPS[1]);
        assert!(places.take(Class::Tried, 0).is_some() && places.take(Class::Proven, 0).is_some());
        looking[7].found();
        looking[7].found();
        let one = places.take(Class::Fresh, 63).expect("one has found it");
        assert!((0..SENDERS).all(|sender| places.take(Class::Fresh, sender).is_none()));
        drop((looking, one));
        assert_eq!(std::iter::from_fn(|| places.take(Class::Fresh, 0)).take(100).count(), 100, "left at once");
    }

    #[test]
    fn a_domain_that_takes_mail_leaves_its_place_to_another_unknown_one() {
        let places = places(1 << 20);
        let mut fresh = take_all(&places, Class::Fresh);
        assert!(places.is_full(Class::Fresh));
        for place in &mut fresh {
            place.prove();
            place.prove();
        }
        assert_eq!((places.taken(Class::Fresh), places.taken(Class::Proven)), (0, 12));
        let again = take_all(&places, Class::Fresh);
        for mut place in again {
            place.prove();
        }
        assert_eq!(places.taken(Class::Proven), 12);
        drop(fresh);
        assert_eq!((places.taken(Class::Fresh), places.taken(Class::Proven)), (0, 0));
    }

    /// A budget that others have used up stops nobody for good.
    #[test]
    fn a_few_places_need_no_room_in_the_budget() {
        let places = places(64 << 20);
        let all = places.budget.reserve(64 << 20).expect("all of it");
        let some = [Class::Proven, Class::Fresh, Class::Tried].map(|class| take_all(&places, class));
        let counts = some.each_ref().map(Vec::len);
        assert_eq!(counts, [16, 12, 4]);
        drop((all, some));
        assert_eq!(places.budget.used(), 0);
    }
}
