//! Senders that wait in the queue while others fill the window: what is new of them waits there too, so
//! that nobody passes himself, and the queue is asked for them when they would have their turn and have
//! nothing in memory, not when the window has emptied. Pure.
//!
//! Bounded: of very many senders no more is known than that there are some.

use std::collections::HashMap;

/// Senders known by name.
const KNOWN: usize = 1024;

/// Who, and of which priority.
type Who = (u64, i8);

/// Who has something in the queue.
#[derive(Debug, Default)]
pub(super) struct Absent {
    known: HashMap<Who, Known>,
    /// How many of them have nothing in memory.
    away: usize,
    /// More senders than are known.
    many: bool,
    /// Somebody who is not known may have nothing in memory.
    wanted: bool,
}

#[derive(Debug)]
struct Known {
    /// Recipients in the queue, as far as it is known.
    stored: usize,
    /// It has nothing in memory.
    away: bool,
}

impl Absent {
    /// Recipients stay in the queue; `here`: their sender has something in memory, too.
    pub(super) fn stored(&mut self, who: Who, recipients: usize, here: bool) {
        if let Some(known) = self.known.get_mut(&who) {
            known.stored += recipients;
        } else if self.known.len() < KNOWN {
            self.known.insert(who, Known { stored: recipients, away: !here });
            self.away += usize::from(!here);
        } else {
            self.many = true;
            self.wanted |= !here;
        }
    }

    /// Whether something of it is in the queue, before which nothing new may leave.
    pub(super) fn knows(&self, who: Who) -> bool {
        self.known.contains_key(&who)
    }

    /// A claim brought recipients to memory and could not bring everything that is due.
    pub(super) fn fetched(&mut self, who: Who, recipients: usize) {
        // Of those who were not known there may be more.
        let left = self.known.remove(&who).map_or(1, |known| {
            self.away -= usize::from(known.away);
            known.stored.saturating_sub(recipients)
        });
        if left > 0 {
            self.stored(who, left, true);
        }
    }

    /// A claim found nothing more that is due. What is on its way into the queue was not found: see
    /// [`Absent::unknown`].
    pub(super) fn nobody(&mut self) {
        *self = Absent::default();
    }

    /// The queue has something, of somebody who may not be known.
    pub(super) fn unknown(&mut self) {
        self.wanted |= self.known.is_empty();
    }

    /// The last that a sender had in memory was given out.
    pub(super) fn ran_out(&mut self, who: Who) {
        match self.known.get_mut(&who) {
            Some(known) if !known.away => {
                known.away = true;
                self.away += 1;
            }
            Some(_) => {}
            None => self.wanted |= self.many,
        }
    }

    /// Somebody should be fetched.
    pub(super) fn is_wanted(&self) -> bool {
        self.away > 0 || self.wanted
    }

    /// Whoever is not known is being fetched, or could not be.
    pub(super) fn set_wanted(&mut self, wanted: bool) {
        self.wanted = wanted;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_runs_out_and_has_more_in_the_queue_is_wanted_until_he_is_fetched() {
        let mut absent = Absent::default();
        absent.stored((1, 0), 2, true);
        absent.ran_out((2, 0));
        absent.ran_out((1, 4));
        assert!(!absent.is_wanted(), "neither the other nor another priority has anything there");
        absent.ran_out((1, 0));
        absent.set_wanted(false);
        absent.fetched((9, 0), 1);
        assert!(absent.is_wanted(), "others were brought");
        absent.fetched((1, 0), 1);
        assert!(absent.knows((1, 0)) && !absent.is_wanted(), "one is still there");
        absent.fetched((1, 0), 1);
        absent.ran_out((1, 0));
        assert!(!absent.is_wanted() && !absent.knows((1, 0)));
        assert!(absent.knows((9, 0)), "there may be more of it");
        absent.stored((3, 0), 1, false);
        assert!(absent.is_wanted(), "it has nothing here at all");
        absent.nobody();
        assert!(!absent.is_wanted());
    }

    #[test]
    fn of_very_many_anybody_may_be_wanted() {
        let mut absent = Absent::default();
        (0..=KNOWN as u64).for_each(|sender| absent.stored((sender, 0), 1, true));
        absent.ran_out((5000, 0));
        assert!(absent.is_wanted() && absent.known.len() == KNOWN);
        absent.nobody();
        absent.ran_out((5001, 0));
        assert!(!absent.is_wanted());
        absent.unknown();
        assert!(absent.is_wanted());
    }
}
