//! The states of a recipient and the legal moves between them, as a table.
//!
//! A recipient that reached its fate by upstream acceptance is deleted, so "delivered" is not a
//! state; a permanent failure or expiry leaves a dead letter (`Failed`) for `[queue] keep_failed`.

use std::fmt;
use std::str::FromStr;

/// The state of a recipient as stored.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum State {
    /// Waits in the store for its due time and its turn.
    Queued = 0,
    /// Handed to a scheduler, which has it in memory or in a transaction.
    Leased = 1,
    /// Put aside by an operator; never due.
    Held = 2,
    /// Dead letter: permanently failed or expired, DSN sent where one was due.
    Failed = 3,
    /// Like `Queued`, but a transaction ended without the final reply: it may have arrived. A lease
    /// that ends without a fate leads back here, not to `Queued`, until an operator says what to do.
    Uncertain = 4,
}

/// What can happen to a recipient.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// A scheduler takes it.
    Claim,
    /// Upstream acceptance.
    Deliver,
    /// Try again later, or given back untried.
    Defer,
    /// Try again later, and it may have arrived already.
    DeferUncertain,
    /// Permanent failure or expiry.
    Fail,
    /// Operator: put aside.
    Hold,
    /// Operator: no longer put aside.
    Release,
    /// Operator: due now (a dead letter is queued again).
    Retry,
    /// Operator: not before another time.
    Postpone,
    /// Operator: remove without DSN.
    Cancel,
    /// Start-up: the process that had it is gone.
    Recover,
    /// A dead letter is older than `keep_failed`.
    Forget,
}

/// Where an event leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// To this state.
    To(State),
    /// Out of the store.
    Gone,
}

impl State {
    /// All states.
    pub const ALL: [State; 5] = [State::Queued, State::Leased, State::Held, State::Failed, State::Uncertain];

    /// The table: where `event` leads from here, or `None` if it is not legal.
    pub fn on(self, event: Event) -> Option<Next> {
        use Event::*;
        use State::*;
        Some(match (self, event) {
            (Queued | Uncertain, Claim) => Next::To(Leased),
            (Leased, Deliver) => Next::Gone,
            (Leased, Defer | Recover) => Next::To(Queued),
            (Leased, DeferUncertain) => Next::To(Uncertain),
            (Queued | Leased | Uncertain, Fail) => Next::To(Failed),
            (Queued | Leased | Uncertain, Hold) => Next::To(Held),
            (Held, Release) => Next::To(Queued),
            (Queued | Leased | Uncertain | Failed, Retry) => Next::To(Queued),
            (Queued | Leased | Uncertain, Postpone) => Next::To(Queued),
            (Held, Postpone) => Next::To(Held),
            (Queued | Leased | Uncertain | Held | Failed, Cancel) => Next::Gone,
            (Failed, Forget) => Next::Gone,
            _ => return None,
        })
    }

    /// The word used in `queue list`, filters and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Queued => "queued",
            State::Leased => "leased",
            State::Held => "held",
            State::Failed => "failed",
            State::Uncertain => "uncertain",
        }
    }

    /// From its stored number.
    pub fn from_number(n: u8) -> Option<State> {
        State::ALL.into_iter().find(|s| *s as u8 == n)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for State {
    type Err = String;

    fn from_str(s: &str) -> Result<State, String> {
        State::ALL
            .into_iter()
            .find(|state| state.as_str() == s)
            .ok_or_else(|| format!("`{s}` is not a state: expected queued, leased, held, failed or uncertain"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_can_end_and_only_a_lease_is_delivered() {
        for state in State::ALL {
            assert_eq!(state.on(Event::Cancel), Some(Next::Gone));
            assert_eq!(state.on(Event::Deliver).is_some(), state == State::Leased);
            assert_eq!(State::from_number(state as u8), Some(state));
            assert_eq!(state.as_str().parse(), Ok(state));
        }
        assert_eq!(State::Failed.on(Event::Claim), None);
        assert_eq!(State::Held.on(Event::Claim), None);
        assert_eq!(State::from_number(9), None);
    }
}
