//! Who was refused before, by kind of refusal. Pure.
//!
//! Whoever is refused comes again, by the retry schedule. A mailbox that is full, or a message that a filter does not
//! like, is refused then as well, so of such a kind the share of refusals rises and falls with the retries: with
//! time, and with the pace. Those who come for the first time tell how much is refused; those who come again tell
//! whether it is about them. Bounded: two generations of [`MOST`] each, the older one goes; someone who is forgotten
//! counts as new.

use std::collections::HashSet;

use super::evidence::Party;

/// Of one generation.
const MOST: usize = 1024;

/// Recipients and messages that were refused; a part of their hashes will do.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Before {
    young: HashSet<u32>,
    old: HashSet<u32>,
}

impl Before {
    /// Whether the recipient or the message was refused, by this kind.
    pub(super) fn has(&self, kind: u64, party: &Party) -> bool {
        let has = |who: u64| {
            let key = key(kind, who);
            self.young.contains(&key) || self.old.contains(&key)
        };
        !self.is_empty() && (has(party.recipient) || party.again && has(party.message))
    }

    /// It is refused: the recipient, where that is what such refusals are said of, else the message.
    pub(super) fn note(&mut self, kind: u64, party: &Party, of_recipient: bool) {
        if self.young.len() >= MOST {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key(kind, if of_recipient { party.recipient } else { party.message }));
    }

    fn is_empty(&self) -> bool {
        self.young.is_empty() && self.old.is_empty()
    }
}

/// Messages have numbers that follow one another.
fn key(kind: u64, who: u64) -> u32 {
    let mixed = (kind ^ who).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn party(n: u64, again: bool) -> Party {
        Party { recipient: super::super::hash_of(&n.to_string()), sender: 1, message: n, size: 1, again }
    }

    proptest::proptest! {
        /// Whatever is refused: the latest are known, by their kind alone, and the memory stays small.
        #[test]
        fn the_latest_are_known(many in 1u64..6000, of_recipient: bool, kind: u64) {
            let mut before = Before::default();
            (0..many).for_each(|n| before.note(kind, &party(n, false), of_recipient));
            let known = (many.saturating_sub(MOST as u64)..many).all(|n| before.has(kind, &party(n, true)));
            proptest::prop_assert!(known && before.young.len() + before.old.len() <= 2 * MOST);
            let by_chance = (0..1000).filter(|n| before.has(!kind, &party(*n, true))).count();
            proptest::prop_assert!(by_chance <= 1);
        }
    }
}
