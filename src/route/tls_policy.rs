//! What the recipient's domain, or its mail host, publishes on how TLS has to be: by DANE (RFC 7672) or MTA-STS (RFC 8461).
//!
//! The router finds it and leaves out hosts that mail may not be given to; who connects does what it says beside `tls`
//! of the provider (`deliver::demand`).

use std::fmt;
use std::sync::Arc;

use super::sts::Policy;
use super::tlsa::Tlsa;
use super::{Host, RouteError};
use crate::tls_report::{self, Failure, Fault, PolicyType, ResultType};

/// What is published for one host of a route.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub enum TlsPolicy {
    /// Nothing.
    #[default]
    None,
    /// A policy in mode enforce: TLS, with a valid certificate for the host's name.
    MtaSts(Arc<str>),
    /// A policy in mode testing, which names the host: what is wrong with its certificate is told.
    MtaStsTesting(Arc<str>),
    /// A policy in mode testing, which does not name the host; that is told.
    Unnamed(Arc<str>),
    /// Signed TLSA records: TLS, with a certificate that one of them matches.
    Dane(Arc<Dane>),
    /// Signed TLSA records of this name, none of which can be used: TLS, with any certificate.
    DaneUnusable(Arc<str>),
    /// Not published: the sender of a message demands TLS of every host on the way (REQUIRETLS, RFC 8689). A certificate
    /// for the host's name, or one that its records match; on top of the rest, which is never of this kind itself.
    Required(Box<TlsPolicy>),
}

impl TlsPolicy {
    /// What is published, and whether the sender of the message demands TLS on top of it.
    pub fn parts(&self) -> (&TlsPolicy, bool) {
        match self {
            TlsPolicy::Required(published) => (published, true),
            published => (published, false),
        }
    }
}

/// The records of a host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dane {
    /// The name where they are, which the host is asked for (SNI), then others that its certificate may have.
    pub names: Vec<Arc<str>>,
    /// At least one.
    pub records: Arc<[Tlsa]>,
}

/// What the domain of a route publishes, as reports have it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsFacts {
    /// Whose.
    pub domain: Arc<str>,
    /// Its policy of MTA-STS, of whatever mode.
    pub sts: Option<Arc<Policy>>,
    /// What is wrong with what it publishes, whichever host is asked.
    pub faults: Vec<PolicyFault>,
}

/// Something that is published, and is not good.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PolicyFault {
    /// Of which kind it is.
    pub policy: PolicyType,
    /// The host that it is about; empty: none.
    pub host: String,
    /// What is wrong.
    pub fault: Fault,
}

impl PolicyFault {
    /// Of DANE at a host.
    pub(super) fn of_dane(result: ResultType, host: &str, reason: &str) -> PolicyFault {
        PolicyFault { policy: PolicyType::Tlsa, host: host.to_owned(), fault: Fault::new(result, reason) }
    }

    /// Of MTA-STS.
    pub(super) fn of_sts(result: ResultType, reason: &str) -> PolicyFault {
        PolicyFault { policy: PolicyType::Sts, host: String::new(), fault: Fault::new(result, reason) }
    }
}

impl TlsFacts {
    /// By what a session with this host is, and what is wrong with that before anything is said.
    pub fn policy_of(&self, host: &Host) -> (tls_report::Policy, Option<Fault>) {
        match host.policy.parts().0 {
            TlsPolicy::MtaSts(_) | TlsPolicy::MtaStsTesting(_) => (self.policy(PolicyType::Sts), None),
            TlsPolicy::Unnamed(_) => {
                let fault = Fault::new(ResultType::ValidationFailure, "the policy does not name this host");
                (self.policy(PolicyType::Sts), Some(fault))
            }
            TlsPolicy::Dane(dane) => {
                let lines = dane.records.iter().map(Tlsa::to_string);
                let mx = vec![host.name.clone()];
                (tls_report::Policy::new(PolicyType::Tlsa, &self.domain, lines, mx), None)
            }
            TlsPolicy::DaneUnusable(_) => {
                let fault = Fault::new(ResultType::TlsaInvalid, "none of the records can be used");
                (self.policy(PolicyType::Tlsa), Some(fault))
            }
            TlsPolicy::None | TlsPolicy::Required(_) => (self.policy(PolicyType::NoPolicyFound), None),
        }
    }

    /// What is to be counted of the faults, once for each time that mail was to go there.
    pub fn failures(&self) -> impl Iterator<Item = (tls_report::Policy, Failure)> {
        self.faults.iter().map(|it| {
            let failure = Failure::of(&it.fault).with_host(&it.host, "", None);
            (self.policy(it.policy), failure)
        })
    }

    fn policy(&self, kind: PolicyType) -> tls_report::Policy {
        match (&self.sts, kind) {
            (Some(policy), PolicyType::Sts) => {
                let mx: Vec<String> = policy.mx.iter().map(ToString::to_string).collect();
                tls_report::Policy::new(kind, &self.domain, policy.lines(), mx)
            }
            _ => tls_report::Policy::unknown(kind, &self.domain),
        }
    }

    /// There is no way to the domain because of what it publishes.
    pub(super) fn refuses(self, error: RouteError) -> RouteError {
        match error {
            RouteError::Temporary { enhanced: super::NO_TLS, text } if !self.faults.is_empty() => {
                RouteError::Insecure { text, facts: Arc::new(self) }
            }
            other => other,
        }
    }
}

/// What the host has to show, for people; empty for what is not published.
impl fmt::Display for TlsPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsPolicy::None => Ok(()),
            TlsPolicy::MtaSts(_) => f.write_str("a valid certificate for its name, by MTA-STS"),
            TlsPolicy::MtaStsTesting(_) => f.write_str("its certificate is looked at only, by MTA-STS in mode testing"),
            TlsPolicy::Unnamed(_) => f.write_str("the MTA-STS policy, in mode testing, does not name it"),
            TlsPolicy::Dane(dane) => {
                write!(f, "a certificate that matches one of {} TLSA records, by DANE", dane.records.len())
            }
            TlsPolicy::DaneUnusable(_) => f.write_str("any certificate: its TLSA records cannot be used, by DANE"),
            TlsPolicy::Required(published) => match &**published {
                by @ (TlsPolicy::Dane(_) | TlsPolicy::MtaSts(_)) => write!(f, "REQUIRETLS, and {by}"),
                _ => f.write_str("REQUIRETLS, and a valid certificate for its name"),
            },
        }
    }
}
