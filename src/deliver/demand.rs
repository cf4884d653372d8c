//! What TLS with a host has to show: what `tls` of the provider says, and what is published for the host on top of it
//! ([`TlsPolicy`]), and what the sender of the message demands of every host (REQUIRETLS, RFC 8689). The strictest holds.
//!
//! Who demands REQUIRETLS hears at once, and for good, that a host does not have it: no TLS, no good certificate, or no such
//! extension. What may be over in a moment (an end of the connection, a time-out, 4yz) is tried again as ever.

use std::sync::Arc;

use super::Capabilities;
use super::fact::{Event, Fact, Peer, Proof, Stage};
use crate::config::{Provider, TlsMode};
use crate::route::{Dane, NO_ENCRYPTION, NO_REQUIRETLS, TlsPolicy};

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Demand {
    /// Encrypted or not at all.
    pub required: bool,
    /// A valid certificate for the host's name.
    pub certificate: bool,
    /// Never encrypted.
    pub off: bool,
    /// The message goes on by TLS alone, also from that host on, which has to say so: REQUIRETLS.
    pub onward: bool,
    /// Whose policy is in testing, and whether that names the host: what it would refuse is told.
    watched: Option<(Arc<str>, bool)>,
    policy: TlsPolicy,
}

impl Demand {
    /// Of a host of this provider.
    pub fn new(provider: &Provider, policy: &TlsPolicy) -> Demand {
        let (policy, onward) = policy.parts();
        let by_policy = matches!(policy, TlsPolicy::MtaSts(_));
        let by_dane = matches!(policy, TlsPolicy::Dane(_) | TlsPolicy::DaneUnusable(_));
        let watched = match policy {
            TlsPolicy::MtaStsTesting(domain) => Some((domain.clone(), true)),
            TlsPolicy::Unnamed(domain) => Some((domain.clone(), false)),
            _ => None,
        };
        Demand {
            required: onward || by_policy || by_dane || !matches!(provider.tls, TlsMode::Off | TlsMode::Opportunistic),
            certificate: by_policy
                || matches!(provider.tls, TlsMode::Verified | TlsMode::MtaSts)
                || onward && !matches!(policy, TlsPolicy::Dane(_)),
            off: provider.tls == TlsMode::Off && !onward,
            onward,
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
            _ if self.onward => " requiretls",
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
        (!other.required || peer.tls.is_some())
            && (!other.certificate || self.certificate)
            && (!other.onward || self.onward)
            && looked_at
            && same_records
    }

    /// Why a host is not good enough for good, as far as the sender of the message says so; else the same.
    pub fn refusal(&self, why: String) -> Event {
        match self.onward {
            true => Event::Unsendable { enhanced: NO_ENCRYPTION, text: why },
            false => Event::Tls(why),
        }
    }

    /// Why mail that is to stay encrypted does not go on to a host that offers that; `None`: it does.
    pub fn refuses(&self, caps: &Capabilities, host: &str) -> Option<Event> {
        (self.onward && !caps.require_tls).then(|| Event::Unsendable {
            enhanced: NO_REQUIRETLS,
            text: format!("the sender demands REQUIRETLS (RFC 8689), which {host} does not offer"),
        })
    }

    /// Why a host was not good enough, with whose demand that was, where a policy makes it.
    pub fn explain(&self, fact: Fact) -> Fact {
        if let Fact { stage: Stage::StartTls, event: Event::Unsendable { enhanced, text }, .. } = fact {
            let text = format!("{text}; the sender demands REQUIRETLS (RFC 8689)");
            return Fact { event: Event::Unsendable { enhanced, text }, ..fact };
        }
        let whose = match &self.policy {
            _ if self.onward => "the sender demands REQUIRETLS (RFC 8689)".to_owned(),
            TlsPolicy::MtaSts(domain) => {
                format!("the MTA-STS policy of {domain} (mode enforce) demands a valid certificate")
            }
            TlsPolicy::Dane(dane) => {
                let base = dane.names.first().map_or("the host", |name| &**name);
                format!("the TLSA records of {base} (DANE) demand a certificate that one of them matches")
            }
            TlsPolicy::DaneUnusable(base) => format!("the TLSA records of {base} (DANE) demand TLS"),
            TlsPolicy::None | TlsPolicy::MtaStsTesting(_) | TlsPolicy::Unnamed(_) | TlsPolicy::Required(_) => {
                return fact;
            }
        };
        if fact.stage != Stage::StartTls {
            return fact;
        }
        let why = match &fact.event {
            Event::Reply(reply) if reply.code == 421 => return fact,
            Event::Reply(reply) if self.onward && reply.is_permanent() => {
                let text = format!("STARTTLS is refused: {reply}; {whose}");
                return Fact { event: Event::Unsendable { enhanced: NO_ENCRYPTION, text }, ..fact };
            }
            Event::Reply(reply) => format!("STARTTLS is refused: {reply}"),
            Event::Tls(why) => why.clone(),
            event => event.to_string(),
        };
        Fact { event: Event::Tls(format!("{why}; {whose}")), ..fact }
    }
}
