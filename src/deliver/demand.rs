//! What TLS with a host has to show: what `tls` of the provider says, and what is published for the host on top of it
//! ([`TlsPolicy`]). The stricter of the two holds.

use std::sync::Arc;

use super::fact::{Event, Fact, Peer, Proof, Stage};
use crate::config::{Provider, TlsMode};
use crate::route::{Dane, TlsPolicy};

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
        let by_dane = matches!(policy, TlsPolicy::Dane(_) | TlsPolicy::DaneUnusable(_));
        let watched = match policy {
            TlsPolicy::MtaStsTesting(domain) => Some((domain.clone(), true)),
            TlsPolicy::Unnamed(domain) => Some((domain.clone(), false)),
            _ => None,
        };
        Demand {
            required: by_policy || by_dane || !matches!(provider.tls, TlsMode::Off | TlsMode::Opportunistic),
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

    /// The records one of which the certificate has to match.
    pub fn dane(&self) -> Option<&Arc<Dane>> {
        match &self.policy {
            TlsPolicy::Dane(dane) => Some(dane),
            _ => None,
        }
    }

    /// What a session that meets it has shown.
    pub fn proof(&self) -> Proof {
        match (&self.policy, self.certificate) {
            (TlsPolicy::MtaSts(_), _) => Proof::MtaSts,
            (TlsPolicy::Dane(_), _) => Proof::Dane,
            (_, true) => Proof::Verified,
            (_, false) => Proof::Encrypted,
        }
    }

    /// What tells demands of one provider apart, for whom a host is left alone that does not meet one.
    pub fn mark(&self) -> &'static str {
        match self.policy {
            TlsPolicy::MtaSts(_) => " mta-sts",
            TlsPolicy::Dane(_) | TlsPolicy::DaneUnusable(_) => " dane",
            _ => "",
        }
    }

    /// Whether a session that was opened for `self` is good for mail with another demand. One in which nobody looked at
    /// the certificate is not for mail whose policy is in testing: that is published to hear what it would refuse.
    pub fn covers(&self, other: &Demand, peer: &Peer) -> bool {
        let looked_at = other.watches().is_none() || self.certificate || self.watches().is_some();
        let same_records = match (other.dane(), self.dane()) {
            (Some(other), Some(own)) => own.records == other.records,
            (other, _) => other.is_none(),
        };
        (!other.required || peer.tls.is_some()) && (!other.certificate || self.certificate) && looked_at && same_records
    }

    /// Why a host was not good enough, with whose demand that was, where a policy makes it.
    pub fn explain(&self, fact: Fact) -> Fact {
        let whose = match &self.policy {
            TlsPolicy::MtaSts(domain) => {
                format!("the MTA-STS policy of {domain} (mode enforce) demands a valid certificate")
            }
            TlsPolicy::Dane(dane) => {
                let base = dane.names.first().map_or("the host", |name| &**name);
                format!("the TLSA records of {base} (DANE) demand a certificate that one of them matches")
            }
            TlsPolicy::DaneUnusable(base) => format!("the TLSA records of {base} (DANE) demand TLS"),
            TlsPolicy::None | TlsPolicy::MtaStsTesting(_) | TlsPolicy::Unnamed(_) => return fact,
        };
        if fact.stage != Stage::StartTls {
            return fact;
        }
        let why = match &fact.event {
            Event::Reply(reply) if reply.code == 421 => return fact,
            Event::Reply(reply) => format!("STARTTLS is refused: {reply}"),
            Event::Tls(why) => why.clone(),
            event => event.to_string(),
        };
        Fact { event: Event::Tls(format!("{why}; {whose}")), ..fact }
    }
}
