//! What a sender is still to be told of a recipient: the debt of a report. It is stored with the
//! fate that it tells of, and holds everything that the report says of this recipient, since the
//! recipient itself may be gone by then.

use super::{Recipient, RecipientKey};
use crate::clock::Timestamp;

/// What happened to a recipient, as far as a DSN of ours can say (RFC 3464 §2.3.3). `delivered` and
/// `expanded` are not a relay's to report.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Action {
    /// Given up.
    Failed = 0,
    /// Not delivered yet, still being tried.
    Delayed = 1,
    /// Accepted by a host that does not offer DSN, for a sender who asked for success reports.
    Relayed = 2,
}

impl Action {
    /// All of them.
    pub const ALL: [Action; 3] = [Action::Failed, Action::Delayed, Action::Relayed];

    /// From its stored number.
    pub fn from_number(n: u8) -> Option<Action> {
        Action::ALL.into_iter().find(|action| *action as u8 == n)
    }
}

/// One recipient that a report is owed on. At most one for each: a later one takes the place of an
/// earlier one that was not reported yet.
#[derive(Clone, PartialEq, Debug)]
pub struct Owed {
    /// Of which recipient of which message.
    pub key: RecipientKey,
    /// When it is reported at the latest.
    pub due: Timestamp,
    /// Who, with NOTIFY and ORCPT.
    pub recipient: Recipient,
    /// What happened.
    pub action: Action,
    /// Enhanced status code (RFC 3463), e.g. `(5, 1, 1)`.
    pub status: (u8, u16, u16),
    /// Whether `text` is the reply of a server, with its code, or what we found ourselves.
    pub replied: bool,
    /// Why. At most 1,000 bytes are stored.
    pub text: String,
    /// The name of the host that was asked.
    pub remote_mta: Option<String>,
    /// When it was tried last.
    pub last_attempt: Timestamp,
    /// For a delay: when it will be given up.
    pub will_retry_until: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stored_number_of_an_action_leads_back_to_it() {
        assert_eq!(Action::ALL.map(|action| Action::from_number(action as u8)), Action::ALL.map(Some));
        assert_eq!(Action::from_number(3), None);
    }
}
