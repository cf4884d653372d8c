//! What a connection's host has said, to know a copy of it.
//!
//! Kept as fingerprints: one that two texts share costs a round trip (see `end`), and nobody's fate.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::fact::Reply;

/// Different replies that are remembered; the oldest goes first.
const MOST: usize = 256;

/// See the module.
#[derive(Default)]
pub(super) struct Said {
    all: VecDeque<u32>,
    hello: Option<u32>,
}

impl Said {
    /// Whether this was said before; from now on it was.
    pub(super) fn again(&mut self, reply: &Reply) -> bool {
        let print = print(reply);
        let again = self.all.contains(&print);
        if !again {
            if self.all.len() == MOST {
                self.all.pop_front();
            }
            self.all.push_back(print);
        }
        again
    }

    /// What was read last was no news and will be none: many hosts say the same to each message.
    pub(super) fn forget(&mut self, reply: &Reply) {
        if self.all.back() == Some(&print(reply)) {
            self.all.pop_back();
        }
    }

    /// The reply to EHLO, where it is unlike any other.
    pub(super) fn note_hello(&mut self, reply: &Reply) {
        self.hello = Some(print(reply));
    }

    /// Whether this is that.
    pub(super) fn is_hello(&self, reply: &Reply) -> bool {
        self.hello == Some(print(reply))
    }

    /// Whether this was said before.
    pub(super) fn has(&self, reply: &Reply) -> bool {
        self.all.contains(&print(reply))
    }
}

fn print(reply: &Reply) -> u32 {
    let mut hasher = DefaultHasher::new();
    (reply.code, reply.enhanced, &reply.text).hash(&mut hasher);
    hasher.finish() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_known_among_the_last_replies_and_no_more_are_kept() {
        let reply = |n: usize| Reply { code: 250, enhanced: Some((2, 1, 5)), text: n.to_string() };
        let mut said = Said::default();
        for n in 0..MOST {
            assert!(!said.again(&reply(n)) && said.again(&reply(n)), "{n}");
        }
        assert!(!said.has(&Reply { enhanced: None, ..reply(1) }));
        assert!(!said.again(&reply(MOST)));
        assert!(!said.has(&reply(0)) && said.has(&reply(1)));
        assert_eq!(said.all.len(), MOST);
    }
}
