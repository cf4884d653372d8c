//! How far the lanes of domains in the store have been gone through, and which is next. Pure: it
//! says what to look for and is told what was found.
//!
//! Invariants: whatever is due is come to once, and again if it is noted or after [`Turns::again`];
//! of a turn (priority and sender) at most [`EACH`] names are in memory; turns of one priority have
//! one lane each in a round, and of eight lanes one is for whichever priority, so that none starves.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::clock::Timestamp;
use crate::queue::LaneDue;
use crate::queue::turns::{Look, Place, Turn};

/// Names of a turn in memory.
const EACH: usize = 16;
/// Of so many lanes one is of whichever priority.
const ONE_OF: u32 = 8;

/// Everything that was tried before, or everything that was not.
#[derive(Debug)]
pub struct Turns {
    tried: bool,
    /// Read, and not come to yet. None is empty.
    pages: BTreeMap<i64, VecDeque<LaneDue>>,
    read: HashMap<i64, Read>,
    /// When to look next.
    at: Option<Timestamp>,
    /// Somebody looks; what is noted meanwhile is looked at afterwards.
    looking: bool,
    meanwhile: Option<Timestamp>,
    last: i64,
    last_of_any: i64,
    count: u32,
}

#[derive(Debug)]
struct Read {
    place: Place,
    /// There may be more that is due.
    more: bool,
}

impl Turns {
    /// Nothing was read yet: looks at once.
    pub fn new(tried: bool) -> Turns {
        Turns {
            tried,
            pages: BTreeMap::new(),
            read: HashMap::new(),
            at: Some(Timestamp(i64::MIN)),
            looking: false,
            meanwhile: None,
            last: i64::MIN,
            last_of_any: i64::MIN,
            count: 0,
        }
    }

    /// The store has something that is due at `due`, in whichever turn. True if that is before
    /// everything that was to be looked for.
    pub fn note(&mut self, due: Timestamp) -> bool {
        let sooner = self.at.is_none_or(|at| due < at);
        self.note_from(due, due);
        sooner
    }

    /// The store has something due at `due` or later, to be looked for at `at`.
    fn note_from(&mut self, due: Timestamp, at: Timestamp) {
        if self.looking {
            self.meanwhile = Some(self.meanwhile.map_or(due, |m| m.min(due)));
        }
        self.at = Some(self.at.map_or(at, |a| a.min(at)));
        for (number, read) in &mut self.read {
            if read.place.due < due {
                continue;
            }
            let first = self.pages.remove(number).and_then(|page| Some(page.front()?.due));
            read.place = Place::before(first.map_or(due, |first| first.min(due)));
        }
    }

    /// Everything is gone through again, from its start.
    pub fn again(&mut self, now: Timestamp) {
        self.note_from(Timestamp(i64::MIN), now);
    }

    /// What to look for now, if anything; what is found is to be [told](Turns::found). Not `also_new`:
    /// only if a turn has more than is in memory.
    pub fn look(&mut self, now: Timestamp, also_new: bool) -> Option<Look> {
        let has_page = |number: &i64| self.pages.contains_key(number);
        let wanting = self.read.iter().any(|(number, read)| read.more && !has_page(number));
        if self.looking || !wanting && (!also_new || self.at.is_none_or(|at| at > now)) {
            return None;
        }
        self.at = None;
        self.looking = true;
        for number in self.pages.keys() {
            // They are left out, so that nobody knows what else of them has become due.
            if let Some(read) = self.read.get_mut(number) {
                read.more = true;
            }
        }
        Some(Look {
            tried: self.tried,
            now,
            from: self.read.iter().map(|(number, read)| (*number, read.place.clone())).collect(),
            without: self.pages.keys().copied().collect(),
            each: EACH,
        })
    }

    /// What the store had.
    pub fn found(&mut self, turns: Vec<Turn>) {
        self.looking = false;
        for read in self.read.iter_mut().filter(|(number, _)| !self.pages.contains_key(number)) {
            read.1.more = false;
        }
        for turn in turns {
            if !turn.due.is_empty() {
                self.pages.insert(turn.number, turn.due.into());
            }
            self.at = match (self.at, turn.next) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            self.read.insert(turn.number, Read { place: turn.read, more: turn.more });
        }
        if let Some(due) = self.meanwhile.take() {
            self.note(due);
        }
    }

    /// The store could not tell; to be asked again at `at`.
    pub fn failed(&mut self, at: Timestamp) {
        self.looking = false;
        self.meanwhile = None;
        // What is read of a turn that has more would be asked for at once.
        self.read.values_mut().for_each(|read| read.more = false);
        self.note_from(Timestamp(i64::MIN), at);
    }

    /// Whether something is known to wait.
    pub fn is_waiting(&self) -> bool {
        !self.pages.is_empty() || self.read.values().any(|read| read.more)
    }

    /// When to look next, if nothing is noted before.
    pub fn next_look(&self) -> Option<Timestamp> {
        self.at
    }

    /// The lane whose turn it is, with the turn, of those turns that are `allowed`.
    pub fn pop(&mut self, allowed: impl Fn(i64) -> bool) -> Option<(i64, LaneDue)> {
        let first = self.pages.keys().copied().find(|number| allowed(*number))?;
        self.count = self.count.wrapping_add(1);
        let next = |last: i64| {
            let after = self.pages.range(last.saturating_add(1)..);
            after.map(|(number, _)| *number).find(|number| allowed(*number))
        };
        let number = if self.count.is_multiple_of(ONE_OF) {
            self.last_of_any = next(self.last_of_any).unwrap_or(first);
            self.last_of_any
        } else {
            let same = |number: i64| Turn::priority(number) == Turn::priority(first);
            let next = next(self.last);
            self.last = next.filter(|number| same(*number)).unwrap_or(first);
            self.last
        };
        let page = self.pages.get_mut(&number)?;
        let lane = page.pop_front();
        if page.is_empty() {
            self.pages.remove(&number);
        }
        Some((number, lane?))
    }

    /// It had to wait: it is the next of its turn again.
    pub fn put_back(&mut self, turn: i64, lane: LaneDue) {
        self.pages.entry(turn).or_default().push_front(lane);
        // And its turn is not over.
        let last = if self.count.is_multiple_of(ONE_OF) { &mut self.last_of_any } else { &mut self.last };
        *last = turn.saturating_sub(1);
        self.count = self.count.wrapping_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    /// What a store has, by turn.
    type Store = BTreeMap<i64, BTreeSet<Place>>;

    fn answer(store: &Store, look: &Look) -> Vec<Turn> {
        let mut turns = Vec::new();
        for (number, lanes) in store.iter().filter(|(number, _)| !look.without.contains(number)) {
            let start = Place::before(Timestamp(i64::MIN));
            let from = look.from.iter().find(|(n, _)| n == number).map_or(start, |(_, place)| place.clone());
            let after: Vec<_> = lanes.iter().filter(|place| **place > from).collect();
            let due: Vec<_> = after.iter().take_while(|place| place.due <= look.now).collect();
            let some: Vec<_> = due.iter().take(look.each).collect();
            let next = after.get(due.len()).map(|place| place.due);
            let read = some.last().map_or(from, |place| Place::clone(place));
            let more = due.len() > some.len();
            let due: Vec<_> = some.iter().map(|p| LaneDue { lane: p.lane.clone(), due: p.due }).collect();
            if !due.is_empty() || next.is_some() {
                turns.push(Turn { number: *number, due, read, more, next: next.filter(|_| !more) });
            }
        }
        turns
    }

    fn place(due: i64, lane: &str) -> Place {
        Place { due: Timestamp(due), lane: lane.into() }
    }

    fn next(turns: &mut Turns, store: &Store, now: i64) -> Option<(i64, LaneDue)> {
        if let Some(look) = turns.look(Timestamp(now), true) {
            turns.found(answer(store, &look));
        }
        turns.pop(|_| true)
    }

    #[test]
    fn senders_take_turns_and_the_urgent_come_first_but_not_alone() {
        let mut store = Store::new();
        for (turn, lanes) in [(70, 1000), (71, 50), (65, 50), (600, 50)] {
            store.insert(turn, (0..lanes).map(|n| place(n, &format!("@{turn}-{n}"))).collect());
        }
        let mut turns = Turns::new(false);
        let order: Vec<i64> = std::iter::from_fn(|| next(&mut turns, &store, 5000)).map(|(turn, _)| turn).collect();
        assert_eq!(order.len(), 1150, "each once");
        let of = |turn: i64, within: usize| order[..within].iter().filter(|t| **t == turn).count();
        assert!(of(65, 160) >= 46 && of(70, 160) >= 46 && of(71, 160) >= 46, "thirds of an hour of four");
        assert!((4..=6).contains(&of(600, 160)), "the lowest priority has its part, and no more");
    }

    #[test]
    fn what_had_to_wait_is_the_next_again() {
        let store = Store::from([(1, BTreeSet::from([place(1, "@a"), place(2, "@b")])), (2, [place(1, "@c")].into())]);
        let mut turns = Turns::new(true);
        let (turn, lane) = next(&mut turns, &store, 9).expect("due");
        for _ in 0..10 {
            turns.put_back(turn, lane.clone());
            assert_eq!(next(&mut turns, &store, 9), Some((turn, lane.clone())));
        }
        let rest: Vec<_> =
            std::iter::from_fn(|| next(&mut turns, &store, 9)).map(|(_, due)| due.lane.to_string()).collect();
        assert_eq!(rest.len(), 2);
    }

    proptest! {
        /// Whatever is stored and noted, and whenever, is come to; and nothing is looked for for ever.
        #[test]
        fn everything_that_is_due_is_come_to(
            steps in proptest::collection::vec((0i64..5, 0i64..50, 0i64..20, any::<bool>()), 1..200)
        ) {
            let (mut store, mut turns, mut now) = (Store::new(), Turns::new(false), 0);
            let mut wanted = BTreeSet::new();
            for (n, (turn, late, pass, during)) in steps.into_iter().enumerate() {
                let new = place(now - late + 20, &format!("@{n}"));
                let store_it = |store: &mut Store, turns: &mut Turns| {
                    store.entry(turn).or_default().insert(new.clone());
                    turns.note(new.due);
                };
                let look = turns.look(Timestamp(now), true);
                if let Some(look) = look {
                    let found = answer(&store, &look);
                    if during {
                        store_it(&mut store, &mut turns);
                    }
                    turns.found(found);
                } else if during {
                    store_it(&mut store, &mut turns);
                }
                if !during {
                    store_it(&mut store, &mut turns);
                }
                wanted.insert(new.lane.clone());
                if let Some((turn, due)) = turns.pop(|_| true) {
                    prop_assert!(due.due.0 <= now);
                    wanted.remove(&due.lane);
                    store.get_mut(&turn).expect("its turn").remove(&place(due.due.0, due.lane.as_str()));
                }
                now += pass;
            }
            for _ in 0..2000 {
                now = now.max(turns.next_look().map_or(now, |at| at.0));
                match next(&mut turns, &store, now) {
                    Some((_, due)) => wanted.remove(&due.lane),
                    None => turns.next_look().is_some(),
                };
            }
            prop_assert!(wanted.is_empty(), "{wanted:?} left of {store:?}");
            prop_assert!(!turns.is_waiting() && turns.next_look().is_none());
        }
    }
}
