//! What transactions take of limits: one message each, and as many recipients as they have. Each
//! limit counts its own of the two.

use crate::config::Count;

/// What one or several transactions take. Both numbers are at least 1 for a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Cost {
    /// Transactions.
    pub messages: u32,
    /// Their recipients.
    pub recipients: u32,
}

impl Cost {
    /// The smallest transaction.
    pub const LEAST: Cost = Cost { messages: 1, recipients: 1 };

    /// One transaction with so many recipients.
    pub fn of(recipients: usize) -> Cost {
        Cost { messages: 1, recipients: u32::try_from(recipients).unwrap_or(u32::MAX).max(1) }
    }

    /// What a limit counts that counts these.
    pub fn count(self, of: Count) -> u32 {
        match of {
            Count::Messages => self.messages,
            Count::Recipients => self.recipients,
        }
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Cost) -> Cost {
        Cost {
            messages: self.messages.saturating_add(other.messages),
            recipients: self.recipients.saturating_add(other.recipients),
        }
    }

    /// Without the other; never less than nothing.
    #[must_use]
    pub fn without(self, other: Cost) -> Cost {
        Cost {
            messages: self.messages.saturating_sub(other.messages),
            recipients: self.recipients.saturating_sub(other.recipients),
        }
    }
}

/// So many transactions with one recipient each.
impl From<u32> for Cost {
    fn from(messages: u32) -> Cost {
        Cost { messages, recipients: messages }
    }
}
