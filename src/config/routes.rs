//! `[[route]]`: which messages a rule is about, and what it says of them.

use std::fmt;
use std::sync::Arc;

use super::units::Pattern;
use super::{Network, Provider};
use crate::mail::{Address, Incoming, Spellings};

/// The conditions of a `[[route]]`, which must all hold.
#[derive(Clone, PartialEq, Debug)]
pub struct RouteWhen {
    /// Pattern of the reverse-path; `<>` matches the null sender.
    pub sender: Pattern,
    /// Pattern of the recipient.
    pub recipient: Pattern,
    /// Networks of which the client is in one; empty: any, also where there was none.
    pub client: Vec<Network>,
    /// The name of the listener; `None`: any.
    pub listener: Option<String>,
    /// The name of the user who had logged in; `None`: any, and nobody.
    pub user: Option<String>,
}

impl RouteWhen {
    /// Whatever the client and the listener.
    pub fn matching(sender: Pattern, recipient: Pattern) -> RouteWhen {
        RouteWhen { sender, recipient, client: Vec::new(), listener: None, user: None }
    }

    pub(super) fn fits(&self, from: &Incoming<'_>, sender: &Spellings<'_>, recipient: &Spellings<'_>) -> bool {
        self.sender.matches_mailbox(sender)
            && self.recipient.matches_mailbox(recipient)
            && (self.client.is_empty()
                || from.client.is_some_and(|ip| self.client.iter().any(|network| network.contains(ip))))
            && self.listener.as_deref().is_none_or(|name| name == from.listener)
            && self.user.as_deref().is_none_or(|name| name.eq_ignore_ascii_case(from.user))
    }

    /// Whether it may hold for mail of which it is not known from which client or listener it came.
    pub fn may_fit(&self, sender: Option<&Address>, user: &str, recipient: &Address) -> bool {
        self.sender.matches_mailbox(&Spellings::of(sender))
            && self.recipient.matches_mailbox(&Spellings::of(Some(recipient)))
            && self.user.as_deref().is_none_or(|name| name.eq_ignore_ascii_case(user))
    }

    /// It asks for no client and no listener.
    pub fn is_for_all_clients(&self) -> bool {
        self.client.is_empty() && self.listener.is_none()
    }

    /// It holds for every message.
    pub(super) fn is_everything(&self) -> bool {
        self.sender.as_str() == "*"
            && self.recipient.as_str() == "*"
            && self.client.is_empty()
            && self.listener.is_none()
            && self.user.is_none()
    }
}

/// As in the configuration, without what holds for everything.
impl fmt::Display for RouteWhen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sender = \"{}\", recipient = \"{}\"", self.sender.as_str(), self.recipient.as_str())?;
        if !self.client.is_empty() {
            let networks: Vec<String> = self.client.iter().map(|network| format!("\"{network}\"")).collect();
            write!(f, ", client = [{}]", networks.join(", "))?;
        }
        for (key, name) in [("listener", &self.listener), ("user", &self.user)] {
            if let Some(name) = name {
                write!(f, ", {key} = \"{name}\"")?;
            }
        }
        Ok(())
    }
}

/// `[[route]]`.
#[derive(Clone, Debug)]
pub struct Route {
    /// When it holds.
    pub when: RouteWhen,
    /// The provider it goes through.
    pub via: Arc<Provider>,
    /// Which `[[route]]` of the file it is, from 1; those with a priority alone count too.
    pub number: usize,
}

/// A `[[route]]` with `priority`.
#[derive(Clone, PartialEq, Debug)]
pub struct PriorityRule {
    /// When it holds.
    pub when: RouteWhen,
    /// -9 (last) to 9 (first).
    pub priority: i8,
    /// Which `[[route]]` of the file it is, from 1.
    pub number: usize,
}
