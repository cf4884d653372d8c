//! When a window of known length begins anew, where it does so at fixed times. Pure.
//!
//! A window that slides has room again moments after it was full. One that begins anew every minute stays closed to
//! its end, and each question until then costs a refusal. So it is noted between which times it opened: after the
//! last question that was refused, and before the first that was not. Where that was at the same place of several
//! windows, the next opening is known, and nothing need be asked before; each time it becomes known more exactly.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// So many openings have to agree with the first: those of a window that slides are anywhere.
const AGREE: u32 = 2;
/// Known to this part of the window it is known well enough; before, it is asked in the middle of what is left.
const EXACT: f64 = 0.02;
/// No question comes sooner after another one.
const LEAST: Duration = Duration::from_millis(250);

/// Between which times a window opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Phase {
    /// Closed then, and open then; the same holds whole windows later.
    closed: Timestamp,
    open: Timestamp,
    /// Openings that agreed with the first.
    agreed: u32,
}

impl Phase {
    /// It opened between these times.
    pub(super) fn new(closed: Timestamp, open: Timestamp) -> Phase {
        Phase { closed: closed.min(open), open, agreed: 0 }
    }

    /// It has opened again between these times, so many seconds being its length.
    pub(super) fn opened(self, closed: Timestamp, open: Timestamp, window: f64) -> Phase {
        let new = Phase::new(closed, open);
        let here = self.near(open, window);
        // What is known may lie in the window before or after the nearest one by a little.
        let (closed, open) = (new.closed.max(here.closed), new.open.min(here.open));
        if closed > open { new } else { Phase { closed, open, agreed: self.agreed.saturating_add(1) } }
    }

    /// When to ask next whether it is open; `None`: it is not known to begin at fixed times.
    pub(super) fn next(self, now: Timestamp, window: f64) -> Option<Timestamp> {
        if self.agreed < AGREE || window <= 0.0 {
            return None;
        }
        let here = self.near(now, window);
        let soonest = now.after(LEAST);
        let later = |at: Timestamp| if at >= soonest { at } else { at.after(Duration::from_secs_f64(window)) };
        let left = here.open.since(here.closed);
        if left.as_secs_f64() <= window * EXACT {
            return Some(later(here.open));
        }
        let middle = here.closed.after(left / 2);
        Some(later(middle).min(later(here.open)))
    }

    /// The clock was set back by that much.
    pub(super) fn go_back(&mut self, back: Duration) {
        (self.closed, self.open) = (self.closed.before(back), self.open.before(back));
    }

    /// The same in the window that opens nearest to a time.
    fn near(self, at: Timestamp, window: f64) -> Phase {
        let ms = (window * 1000.0).round().max(1.0) as i64;
        let away = at.0.saturating_sub(self.open.0);
        let shift = away.saturating_add(ms / 2).div_euclid(ms).saturating_mul(ms);
        let moved = |time: Timestamp| Timestamp(time.0.saturating_add(shift));
        Phase { closed: moved(self.closed), open: moved(self.open), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: f64 = 60.0;

    fn at(seconds: f64) -> Timestamp {
        Timestamp(1_790_000_000_000 + (seconds * 1000.0) as i64)
    }

    /// It begins anew at 7 s of each minute; asked every ten seconds at first, then where it is expected.
    #[test]
    fn openings_that_agree_tell_the_next_one_ever_more_exactly() {
        let mut phase = Phase::new(at(0.0), at(10.0));
        assert_eq!(phase.next(at(50.0), WINDOW), None, "one opening");
        phase = phase.opened(at(61.0), at(71.0), WINDOW);
        assert_eq!(phase.next(at(110.0), WINDOW), None, "two may be chance");
        phase = phase.opened(at(182.0), at(191.0), WINDOW);
        let mut asked = 0;
        for minute in 5..40 {
            let begin = f64::from(minute) * 60.0 + 7.0;
            let (mut closed, mut now) = (at(begin - 10.0), at(begin - 10.0));
            loop {
                let next = phase.next(now, WINDOW).expect("known");
                assert!(next > now && next.since(at(begin)) <= Duration::from_secs(4), "{minute}: {next}");
                now = next;
                if next >= at(begin) {
                    break;
                }
                asked += 1;
                closed = next;
            }
            phase = phase.opened(closed, now, WINDOW);
            if minute > 10 {
                assert!(now.since(at(begin)) <= Duration::from_millis(1300), "{minute}: {now}");
            }
        }
        assert!(asked <= 5, "{asked} refused in 35 minutes");
    }

    #[test]
    fn what_opens_anywhere_begins_at_no_fixed_time() {
        let mut phase = Phase::new(at(0.0), at(3.0));
        for (n, begin) in [75.0, 139.0, 211.0, 290.0, 401.0, 466.0].into_iter().enumerate() {
            phase = phase.opened(at(begin), at(begin + 3.0), WINDOW);
            assert_eq!(phase.next(at(begin + 20.0), WINDOW), None, "{n}");
        }
        // One that has moved is learned anew.
        for minute in 10..13 {
            let begin = f64::from(minute) * 60.0 + 40.0;
            phase = phase.opened(at(begin - 1.0), at(begin + 1.0), WINDOW);
        }
        assert!(phase.next(at(800.0), WINDOW).is_some());
        assert_eq!(phase.opened(at(839.0), at(845.0), 0.0).next(at(850.0), 0.0), None, "no window is known");
        phase.go_back(Duration::from_secs(86_400));
        let next = phase.next(at(800.0 - 86_400.0), WINDOW).expect("the same, a day earlier");
        assert!(next > at(800.0 - 86_400.0) && next < at(861.0 - 86_400.0));
    }
}
