//! Who has tried before: the first attempts of a (sender, recipient, client) are refused for a while.
//!
//! Bounded: two generations of [`MOST`] triples each; when one is full the older is forgotten, so
//! that a triple is remembered for at least [`MOST`] others.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::time::Duration;

/// Triples of one generation.
const MOST: usize = 200_000;

/// Hash of a triple.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Triple(u64);

impl Triple {
    /// What is a hash already.
    pub fn of(hash: u64) -> Triple {
        Triple(hash)
    }

    /// Case does not matter. A collision only lets somebody pass early.
    pub fn new(sender: &str, recipient: &str, client: IpAddr) -> Triple {
        let mut hasher = DefaultHasher::new();
        for text in [sender, recipient] {
            text.bytes().for_each(|b| hasher.write_u8(b.to_ascii_lowercase()));
            hasher.write_u8(0xff);
        }
        client.to_canonical().hash(&mut hasher);
        Triple(hasher.finish())
    }
}

/// When each triple was seen first.
#[derive(Clone, Debug, Default)]
pub struct Greylist {
    young: HashMap<Triple, Duration>,
    old: HashMap<Triple, Duration>,
}

impl Greylist {
    /// Whether `triple` was first seen at least `wait` before `now`. Notes one that is new.
    pub fn passes(&mut self, triple: Triple, now: Duration, wait: Duration) -> bool {
        if let Some(first) = self.young.get(&triple).or_else(|| self.old.get(&triple)) {
            return now.saturating_sub(*first) >= wait;
        }
        if self.young.len() >= MOST {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(triple, now);
        false
    }
}
