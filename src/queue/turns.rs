//! What waits in the lanes of domains (`@domain`), turn by turn: how a scheduler finds what is due
//! among any number of lanes without knowing them.
//!
//! A turn is a priority and a slot of senders (the `bucket` of a recipient). Within a turn lanes come
//! in order of due time; a [`Place`] is how far somebody has read there.

use crate::clock::Timestamp;
use crate::mail::LaneName;

use super::LaneDue;

/// Recipients of one turn that a look passes by at most.
pub const STEPS: usize = 4096;

/// How far somebody has read in a turn: what follows is due later, or at the same time in a lane of a
/// greater name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The due time.
    pub due: Timestamp,
    /// The lane.
    pub lane: LaneName,
}

impl Place {
    /// Before everything that is due at `due`.
    pub fn before(due: Timestamp) -> Place {
        Place { due, lane: LaneName::from("") }
    }
}

/// Which turns to look at, and from where.
#[derive(Clone, Debug)]
pub struct Look {
    /// Recipients that were tried before; else those that were not.
    pub tried: bool,
    /// What is due later is not listed.
    pub now: Timestamp,
    /// How far each turn has been read; a turn that is not named is read from its start.
    pub from: Vec<(i64, Place)>,
    /// Turns that are left out, in order.
    pub without: Vec<i64>,
    /// Lanes of a turn at most.
    pub each: usize,
}

/// How many senders are told apart ([`sender_number`]).
pub const SENDERS: usize = super::sqlite::SLOTS as usize;

/// The number of a sender, as [`Turn::sender`] has it.
pub fn sender_number(sender: &str) -> usize {
    Turn::sender(super::sqlite::slot(sender))
}

/// What was found in a turn.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    /// Which: those of a higher priority have smaller numbers, [`Turn::priority`].
    pub number: i64,
    /// Lanes that have something due, in order of due time. A lane may come more than once.
    pub due: Vec<LaneDue>,
    /// How far this look has read.
    pub read: Place,
    /// There may be more that is due.
    pub more: bool,
    /// When the first of what is not due yet will be.
    pub next: Option<Timestamp>,
}

impl Turn {
    /// Turns of one priority have the same; a higher priority has a smaller one.
    pub fn priority(number: i64) -> i64 {
        number / super::sqlite::SLOTS
    }

    /// Whose it is: a number below [`SENDERS`], the same in all priorities.
    pub fn sender(number: i64) -> usize {
        usize::try_from(number.rem_euclid(super::sqlite::SLOTS)).unwrap_or(0)
    }
}
