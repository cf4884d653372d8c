//! Whether the writer has just seen its files, so that it need not look again. A look at the names of three
//! files takes a tenth as long as the commit that it is for.
//!
//! Invariants:
//! - What came in is acknowledged only after a look behind its commit: that one is never left out.
//! - A look before a batch is left out only if the one behind the batch before it found all in place, and
//!   some of the next batch waited already, before that one was answered; of [`EACH`] batches one has it all
//!   the same, since it sees a name more (that of the log's index).

use super::names::Moment;

/// Of so many batches in a row one is looked at before it, too.
const EACH: u32 = 8;

/// What the last look said.
#[derive(Debug, Default)]
pub(super) struct Sight {
    /// A look behind a commit found all in place, with the next batch waiting.
    fresh: bool,
    /// Looks that were left out in a row.
    left_out: u32,
}

impl Sight {
    /// Whether this look may be left out.
    pub(super) fn suffices(&self, moment: Moment) -> bool {
        moment == Moment::Before && self.fresh && self.left_out + 1 < EACH
    }

    /// This look was made, or left out; `shared`: all is in place, and somebody waits for the next batch. Only one
    /// behind a commit is a reason to leave out another.
    pub(super) fn looked(&mut self, moment: Moment, shared: bool) {
        if moment == Moment::Before {
            self.left_out = if self.suffices(moment) { self.left_out + 1 } else { 0 };
        }
        self.fresh = shared && moment == Moment::After;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Batches of messages that follow each other: how many of `batches` were looked at before.
    fn looked_before(sight: &mut Sight, batches: usize, mut between: impl FnMut(&mut Sight)) -> usize {
        let mut looked = 0;
        for _ in 0..batches {
            looked += usize::from(!sight.suffices(Moment::Before));
            sight.looked(Moment::Before, true);
            assert!(!sight.suffices(Moment::After), "what came in is never acknowledged without a look");
            sight.looked(Moment::After, true);
            between(sight);
        }
        looked
    }

    #[test]
    fn batches_that_follow_at_once_share_a_look() {
        assert_eq!(looked_before(&mut Sight::default(), 80, |_| {}), 10);
    }

    #[test]
    fn after_a_pause_or_a_fault_or_outcomes_alone_there_is_a_look() {
        // Nobody waited, or a file was not in place.
        assert_eq!(looked_before(&mut Sight::default(), 80, |sight| sight.looked(Moment::After, false)), 80);
        // Nothing came in: nobody looked behind the commit.
        assert_eq!(looked_before(&mut Sight::default(), 80, |sight| sight.looked(Moment::Before, true)), 80);
    }
}
