//! A `[[limit]]`, checked: whom it is about, how much, and what becomes of more.

use super::units::Pattern;
use super::{CountedRate, Network};

/// `[[limit]]`: a share of a provider for some senders or clients, so that one application cannot
/// eat another's.
#[derive(Clone, PartialEq, Debug)]
pub struct Limit {
    /// Reverse-paths it is about.
    pub sender: Pattern,
    /// Client addresses it is about; empty: all.
    pub client: Vec<Network>,
    /// The user it is about; `None`: whoever, and nobody.
    pub user: Option<String>,
    /// Providers (lanes) it is about.
    pub provider: Pattern,
    /// Rates; never of connections.
    pub rate: Vec<CountedRate>,
    /// Quotas; never of connections.
    pub quota: Vec<CountedRate>,
    /// What those without a unit count.
    pub count: Count,
    /// Each sender domain has its own (else all that match share one). It is not about the null sender, which has
    /// none, unless `sender` is `<>`.
    pub each_domain: bool,
    /// Each user has its own; it is about nobody who has not logged in.
    pub each_user: bool,
    /// What becomes of more than that.
    pub over: Over,
}

impl Limit {
    /// Its conditions in words, by which it is known in reports and in the store.
    pub fn conditions(&self) -> String {
        let mut name = format!("limit {}", self.sender);
        if !self.client.is_empty() {
            let networks: Vec<String> = self.client.iter().map(ToString::to_string).collect();
            name.push_str(&format!(" from {}", networks.join(",")));
        }
        if let Some(user) = &self.user {
            name.push_str(&format!(" of {user}"));
        }
        if self.provider.as_str() != "*" {
            name.push_str(&format!(" to {}", self.provider));
        }
        name
    }
}

/// `over` of a `[[limit]]`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Over {
    /// It waits in the queue.
    #[default]
    Wait,
    /// It is refused for now when it comes in.
    Reject,
    /// It is taken, and held until an operator releases it.
    Hold,
    /// The same, and its user may not send until somebody ends that.
    Lock,
}

/// `count`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Count {
    /// A transaction is one.
    Messages,
    /// Each recipient is one.
    Recipients,
}
