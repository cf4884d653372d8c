//! What was seen of TLS with a host, in the words of RFC 8460 §4.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::cut;

/// Characters of a reason.
const MAX_REASON: usize = 200;
/// Characters of a host's name, or of what it calls itself.
const MAX_NAME: usize = 255;
/// Bytes of the lines of a policy; further lines are left out.
const MAX_POLICY: usize = 8192;

/// What was wrong (RFC 8460 §4.3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResultType {
    /// STARTTLS is not offered, or refused.
    StarttlsNotSupported,
    /// The certificate is for another name.
    CertificateHostMismatch,
    /// It has expired.
    CertificateExpired,
    /// It is from nobody who is trusted.
    CertificateNotTrusted,
    /// Anything else.
    ValidationFailure,
    /// There are TLSA records, none of which can be used.
    TlsaInvalid,
    /// An answer of DNS is forged, or nobody knows.
    DnssecInvalid,
    /// The configuration demands TLSA records, and there are none.
    DaneRequired,
    /// A policy of MTA-STS could not be fetched.
    StsPolicyFetchError,
    /// What was fetched is no policy.
    StsPolicyInvalid,
    /// The certificate of its host is not good.
    StsWebpkiInvalid,
}

/// What was wrong, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// What.
    pub result: ResultType,
    /// Why, for people.
    pub reason: String,
}

impl Fault {
    /// With words of any length.
    pub fn new(result: ResultType, reason: impl AsRef<str>) -> Fault {
        Fault { result, reason: cut(reason.as_ref(), MAX_REASON) }
    }
}

/// By what a session was to be (RFC 8460 §4.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyType {
    /// Records of DANE.
    Tlsa,
    /// A policy of MTA-STS.
    Sts,
    /// Neither.
    NoPolicyFound,
}

/// A policy, as it stands in a report.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Policy {
    /// Of which kind.
    pub policy_type: PolicyType,
    /// Its lines, or its records as in a zone; none where it could not be had.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policy_string: Vec<String>,
    /// Whose.
    pub policy_domain: String,
    /// The hosts that it names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mx_host: Vec<String>,
}

impl Policy {
    /// With as many of its lines as a report has room for.
    pub fn new(
        policy_type: PolicyType,
        domain: &str,
        lines: impl IntoIterator<Item = String>,
        mx: Vec<String>,
    ) -> Policy {
        let mut bytes = 0;
        let fits = |line: &String| {
            bytes += line.len();
            bytes <= MAX_POLICY
        };
        let policy_string = lines.into_iter().take_while(fits).collect();
        Policy { policy_type, policy_string, policy_domain: domain.to_owned(), mx_host: mx }
    }

    /// One of which nothing is known but whose it is.
    pub fn unknown(policy_type: PolicyType, domain: &str) -> Policy {
        Policy::new(policy_type, domain, [], Vec::new())
    }

    /// Bytes that it takes, about.
    pub(super) fn bytes(&self) -> usize {
        let texts = self.policy_string.iter().chain(&self.mx_host);
        128 + self.policy_domain.len() + texts.map(|text| 24 + text.len()).sum::<usize>()
    }
}

/// Failures that are the same but for their number (`failure-details`).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Failure {
    /// What was wrong.
    pub result_type: ResultType,
    /// From which address of ours; left out where it is a private one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sending_mta_ip: Option<IpAddr>,
    /// The host, as DNS names it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub receiving_mx_hostname: String,
    /// What it calls itself in its greeting.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub receiving_mx_helo: String,
    /// Its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receiving_ip: Option<IpAddr>,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub failure_reason_code: String,
}

impl Failure {
    /// Of a fault of which it is not known with whom.
    pub fn of(fault: &Fault) -> Failure {
        Failure { failure_reason_code: fault.reason.clone(), ..Failure::any(fault.result) }
    }

    /// Of which nothing else is known, or kept.
    pub(super) fn any(result_type: ResultType) -> Failure {
        Failure {
            result_type,
            sending_mta_ip: None,
            receiving_mx_hostname: String::new(),
            receiving_mx_helo: String::new(),
            receiving_ip: None,
            failure_reason_code: String::new(),
        }
    }

    /// With this host.
    #[must_use]
    pub fn with_host(self, name: &str, helo: &str, ip: Option<IpAddr>) -> Failure {
        let (receiving_mx_hostname, receiving_mx_helo) = (cut(name, MAX_NAME), cut(helo, MAX_NAME));
        Failure { receiving_mx_hostname, receiving_mx_helo, receiving_ip: ip, ..self }
    }

    /// Bytes that it takes, about.
    pub(super) fn bytes(&self) -> usize {
        let texts = [&self.receiving_mx_hostname, &self.receiving_mx_helo, &self.failure_reason_code];
        160 + texts.into_iter().map(String::len).sum::<usize>()
    }
}
