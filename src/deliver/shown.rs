//! What a session shows of TLS while it is set up, for reports (TLS-RPT): also what nobody demands.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use tokio_rustls::rustls::{CertificateError, Error};

use super::demand::Demand;
use super::fact::{Event, Fact, Stage};
use crate::clock::Clock;
use crate::route::{Host, Route, is_private};
use crate::tls_report::{Failure, Fault, ResultType, Tally};

/// See the module. The first that is wrong is what counts.
#[derive(Default, Debug)]
pub struct Shown {
    fault: OnceLock<Fault>,
    helo: OnceLock<String>,
}

impl Shown {
    /// Something is wrong.
    pub(super) fn note(&self, result: ResultType, reason: &str) {
        let _ = self.fault.set(Fault::new(result, reason));
    }

    /// What the host calls itself: the first word of its greeting (RFC 5321 §4.2).
    pub(super) fn greeted(&self, greeting: &str) {
        let _ = self.helo.set(greeting.split_whitespace().next().unwrap_or_default().to_owned());
    }
}

/// What a fault of a handshake is in a report.
pub(super) fn result_of(error: &Error) -> ResultType {
    use CertificateError as C;
    match error {
        Error::InvalidCertificate(C::Expired | C::ExpiredContext { .. }) => ResultType::CertificateExpired,
        Error::InvalidCertificate(C::NotValidForName | C::NotValidForNameContext { .. }) => {
            ResultType::CertificateHostMismatch
        }
        Error::InvalidCertificate(C::UnknownIssuer | C::BadSignature | C::Revoked) => ResultType::CertificateNotTrusted,
        _ => ResultType::ValidationFailure,
    }
}

/// Where sessions are counted.
pub(super) struct Counter {
    pub tally: Arc<Tally>,
    pub clock: Clock,
}

/// A session with a host of a route, as far as it came.
pub(super) struct Attempted<'a> {
    pub route: &'a Route,
    pub host: &'a Host,
    pub demand: &'a Demand,
    pub shown: &'a Shown,
    /// The address of the host, and ours.
    pub ip: IpAddr,
    pub local: Option<IpAddr>,
    /// It was encrypted.
    pub encrypted: bool,
    /// How it ended, if it did.
    pub failed: Option<&'a Fact>,
}

impl Counter {
    /// Counts a session that came as far as TLS; one that is not to be encrypted, or goes where no report is made, does
    /// not count.
    pub fn count(&self, session: &Attempted<'_>) {
        let Some(facts) = session.route.facts.as_ref().filter(|_| !session.demand.off) else { return };
        let (policy, wrong) = facts.policy_of(session.host);
        let Some(outcome) = session.outcome(wrong) else { return };
        let now = self.clock.now();
        let failure = outcome.map(|fault| Failure {
            sending_mta_ip: session.local.map(|ip| ip.to_canonical()).filter(|ip| !is_private(*ip)),
            ..Failure::of(&fault).with_host(
                &session.host.name,
                session.shown.helo.get().map_or("", String::as_str),
                Some(session.ip),
            )
        });
        self.tally.count(&facts.domain, policy, failure, now);
        for (policy, failure) in facts.failures() {
            self.tally.count(&facts.domain, policy, Some(failure), now);
        }
    }
}

impl Attempted<'_> {
    /// `None`: it did not come as far as TLS. Else what is wrong, if something is.
    fn outcome(&self, wrong: Option<Fault>) -> Option<Option<Fault>> {
        if let Some(fault) = self.shown.fault.get() {
            return Some(Some(fault.clone()));
        }
        match self.failed {
            // It is not about TLS.
            Some(Fact { event: Event::Reply(reply), .. }) if reply.code == 421 && !self.encrypted => None,
            Some(fact) if fact.stage == Stage::StartTls => {
                Some(Some(Fault::new(ResultType::ValidationFailure, fact.event.to_string())))
            }
            _ => self.encrypted.then_some(wrong),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_of_certificates_have_the_words_of_the_rfc() {
        use CertificateError as C;
        for (error, result) in [
            (C::Expired, ResultType::CertificateExpired),
            (C::NotValidForName, ResultType::CertificateHostMismatch),
            (C::UnknownIssuer, ResultType::CertificateNotTrusted),
            (C::BadSignature, ResultType::CertificateNotTrusted),
            (C::BadEncoding, ResultType::ValidationFailure),
        ] {
            assert_eq!(result_of(&Error::InvalidCertificate(error.clone())), result, "{error:?}");
        }
        assert_eq!(result_of(&Error::General("x".into())), ResultType::ValidationFailure);
    }
}
