//! What TLS with a host has to show: what `tls` of the provider says, and what is published for the host on top of it
//! ([`TlsPolicy`]). The stricter of the two holds.

use std::sync::Arc;

use super::fact::{Event, Fact, Peer, Proof, Stage};
use crate::config::{Provider, TlsMode};
use crate::route::TlsPolicy;

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Demand {
    /// Encrypted or not at all.
    pub required: bool,
    /// A valid certificate for the host's name.
    pub certificate: bool,
    /// Never encrypted.
    pub off: bool,
    /// Whose policy is in testing, and whether that names the host: what it would refuse is told.
    watched: Option<(Arc<str>, bool)>,
    policy: TlsPolicy,
}

impl Demand {
    /// Of a host of this provider.
    pub fn new(provider: &Provider, policy: &TlsPolicy) -> Demand {
        let by_policy = matches!(policy, TlsPolicy::MtaSts(_));
        let watched = match policy {
            TlsPolicy::MtaStsTesting(domain) => Some((domain.clone(), true)),
            TlsPolicy::Unnamed(domain) => Some((domain.clone(), false)),
            _ => None,
        };
        Demand {
            required: by_policy || !matches!(provider.tls, TlsMode::Off | TlsMode::Opportunistic),
            certificate: by_policy || matches!(provider.tls, TlsMode::Verified | TlsMode::MtaSts),
            off: provider.tls == TlsMode::Off,
            watched,
            policy: policy.clone(),
        }
    }

    /// The domain whose policy in testing names this host: its certificate is looked at, and any is taken.
    pub fn watches(&self) -> Option<&Arc<str>> {
        self.watched.as_ref().filter(|(_, named)| *named && !self.certificate).map(|(domain, _)| domain)
    }

    /// The domain whose policy in testing does not name this host.
    pub fn unnamed(&self) -> Option<&Arc<str>> {
        self.watched.as_ref().filter(|(_, named)| !named).map(|(domain, _)| domain)
    }

    /// What a session that meets it has shown.
    pub fn proof(&self) -> Proof {
        match (&self.policy, self.certificate) {
            (TlsPolicy::MtaSts(_), _) => Proof::MtaSts,
            (_, true) => Proof::Verified,
            (_, false) => Proof::Encrypted,
        }
    }

    /// What tells demands of one provider apart, for whom a host is left alone that does not meet one.
    pub fn mark(&self) -> &'static str {
        match self.policy {
            TlsPolicy::MtaSts(_) => " mta-sts",
            _ => "",
        }
    }

    /// Whether a session that was opened for `self` is good for mail with another demand.
    pub fn covers(&self, other: &Demand, peer: &Peer) -> bool {
        (!other.required || peer.tls.is_some()) && (!other.certificate || self.certificate)
    }

    /// Why a host was not good enough, with whose demand that was, where a policy makes it.
    pub fn explain(&self, fact: Fact) -> Fact {
        let TlsPolicy::MtaSts(domain) = &self.policy else { return fact };
        if fact.stage != Stage::StartTls {
            return fact;
        }
        let why = match &fact.event {
            Event::Reply(reply) if reply.code == 421 => return fact,
            Event::Reply(reply) => format!("STARTTLS is refused: {reply}"),
            Event::Tls(why) => why.clone(),
            event => event.to_string(),
        };
        let text = format!("{why}; the MTA-STS policy of {domain} (mode enforce) demands a valid certificate");
        Fact { event: Event::Tls(text), ..fact }
    }
}
