//! The report on a day and a domain: JSON (RFC 8460 §4), compressed.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;

use super::day::{Counted, Day, Stored};
use super::seen::{Failure, Policy};
use crate::clock::Timestamp;

/// Who reports.
#[derive(Clone, Copy, Debug)]
pub struct Reporter<'a> {
    /// `organization-name`.
    pub organization: &'a str,
    /// `contact-info`.
    pub contact: &'a str,
    /// The domain that reports, which signs what it sends.
    pub domain: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Report<'a> {
    organization_name: &'a str,
    date_range: Range,
    contact_info: &'a str,
    report_id: String,
    policies: Vec<OfPolicy<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Range {
    start_datetime: String,
    end_datetime: String,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct OfPolicy<'a> {
    policy: &'a Policy,
    summary: Summary,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failure_details: Vec<Detail<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Summary {
    total_successful_session_count: u64,
    total_failure_session_count: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Detail<'a> {
    #[serde(flatten)]
    failure: &'a Failure,
    failed_session_count: u64,
}

impl<'a> From<&'a Counted> for OfPolicy<'a> {
    fn from(counted: &'a Counted) -> OfPolicy<'a> {
        let detail = |(failure, count): &'a (Failure, u64)| Detail { failure, failed_session_count: *count };
        OfPolicy {
            policy: &counted.policy,
            summary: Summary {
                total_successful_session_count: counted.successful,
                total_failure_session_count: counted.failed(),
            },
            failure_details: counted.failures.iter().map(detail).collect(),
        }
    }
}

/// The `report-id`: the same for the same day and domain, so that one that is sent again is known.
pub fn id(day: Day, domain: &str, reporter: Reporter<'_>) -> String {
    format!("{}.{domain}@{}", day.text(), reporter.domain)
}

/// The name of the report as a file (RFC 8460 §5.1).
pub fn file_name(day: Day, domain: &str, reporter: Reporter<'_>) -> String {
    let (begins, ends) = seconds(day);
    format!("{}!{domain}!{begins}!{ends}.json.gz", reporter.domain)
}

/// The first and the last second of a day.
fn seconds(day: Day) -> (i64, i64) {
    let seconds = |at: Timestamp| at.0.div_euclid(1000);
    (seconds(day.begins()), seconds(day.ends()) - 1)
}

/// As JSON.
///
/// # Errors
/// It cannot be written: why, for people.
pub fn json(day: Day, domain: &str, stored: &Stored, reporter: Reporter<'_>) -> Result<Vec<u8>, String> {
    let text = day.text();
    let report = Report {
        organization_name: reporter.organization,
        date_range: Range { start_datetime: format!("{text}T00:00:00Z"), end_datetime: format!("{text}T23:59:59Z") },
        contact_info: reporter.contact,
        report_id: id(day, domain, reporter),
        policies: stored.policies.iter().map(OfPolicy::from).collect(),
    };
    serde_json::to_vec(&report).map_err(|e| e.to_string())
}

/// The same, as gzip has it.
///
/// # Errors
/// It cannot be written: why, for people.
pub fn compressed(json: &[u8]) -> Result<Vec<u8>, String> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(json.len() / 4), Compression::default());
    encoder.write_all(json).and_then(|()| encoder.finish()).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use serde_json::{Value, json};

    use super::super::{Fault, PolicyType, ResultType};
    use super::*;

    const REPORTER: Reporter<'_> =
        Reporter { organization: "Shop \"GmbH\"", contact: "tls@shop.example", domain: "shop.example" };

    fn stored() -> Stored {
        let lines = ["version: STSv1", "mode: testing", "mx: *.a.example", "max_age: 86400"].map(str::to_owned);
        let sts = Policy::new(PolicyType::Sts, "a.example", lines, vec!["*.a.example".into()]);
        let mut sts = Counted::new(sts);
        for _ in 0..3 {
            sts.add(None, usize::MAX);
        }
        let fault = Fault::new(ResultType::CertificateHostMismatch, "it is not for mx.a.example");
        let failure = Failure {
            sending_mta_ip: Some([192, 0, 2, 7].into()),
            ..Failure::of(&fault).with_host("mx.a.example", "mx", Some("2001:db8::1".parse().expect("an address")))
        };
        sts.add(Some(failure.clone()), usize::MAX);
        sts.add(Some(failure), usize::MAX);
        let mut none = Counted::new(Policy::unknown(PolicyType::NoPolicyFound, "a.example"));
        none.add(None, usize::MAX);
        Stored { policies: vec![sts, none], ..Stored::default() }
    }

    #[test]
    fn a_report_has_what_rfc_8460_says_and_nothing_else() {
        let day = Day::of(Timestamp(1_796_126_400_000));
        let written: Value =
            serde_json::from_slice(&json(day, "a.example", &stored(), REPORTER).expect("a report")).expect("JSON");
        let expected = json!({
            "organization-name": "Shop \"GmbH\"",
            "date-range": { "start-datetime": "2026-12-01T00:00:00Z", "end-datetime": "2026-12-01T23:59:59Z" },
            "contact-info": "tls@shop.example",
            "report-id": "2026-12-01.a.example@shop.example",
            "policies": [
                {
                    "policy": {
                        "policy-type": "sts",
                        "policy-string": ["version: STSv1", "mode: testing", "mx: *.a.example", "max_age: 86400"],
                        "policy-domain": "a.example",
                        "mx-host": ["*.a.example"],
                    },
                    "summary": { "total-successful-session-count": 3, "total-failure-session-count": 2 },
                    "failure-details": [{
                        "result-type": "certificate-host-mismatch",
                        "sending-mta-ip": "192.0.2.7",
                        "receiving-mx-hostname": "mx.a.example",
                        "receiving-mx-helo": "mx",
                        "receiving-ip": "2001:db8::1",
                        "failed-session-count": 2,
                        "failure-reason-code": "it is not for mx.a.example",
                    }],
                },
                {
                    "policy": { "policy-type": "no-policy-found", "policy-domain": "a.example" },
                    "summary": { "total-successful-session-count": 1, "total-failure-session-count": 0 },
                },
            ],
        });
        assert_eq!(written, expected);
        assert_eq!(file_name(day, "a.example", REPORTER), "shop.example!a.example!1796083200!1796169599.json.gz");
    }

    #[test]
    fn each_result_and_policy_has_the_name_of_the_rfc() {
        use ResultType as R;
        let names = [
            (R::StarttlsNotSupported, "starttls-not-supported"),
            (R::CertificateHostMismatch, "certificate-host-mismatch"),
            (R::CertificateExpired, "certificate-expired"),
            (R::CertificateNotTrusted, "certificate-not-trusted"),
            (R::ValidationFailure, "validation-failure"),
            (R::TlsaInvalid, "tlsa-invalid"),
            (R::DnssecInvalid, "dnssec-invalid"),
            (R::DaneRequired, "dane-required"),
            (R::StsPolicyFetchError, "sts-policy-fetch-error"),
            (R::StsPolicyInvalid, "sts-policy-invalid"),
            (R::StsWebpkiInvalid, "sts-webpki-invalid"),
        ];
        assert!(names.iter().all(|(result, name)| serde_json::to_value(result).ok() == Some(json!(name))));
        let types = [PolicyType::Tlsa, PolicyType::Sts, PolicyType::NoPolicyFound];
        let told: Vec<_> = types.iter().map(|kind| serde_json::to_value(kind).expect("a name")).collect();
        assert_eq!(told, ["tlsa", "sts", "no-policy-found"]);
    }

    #[test]
    fn what_is_compressed_comes_back() {
        let json = json(Day(20_000), "a.example", &stored(), REPORTER).expect("a report");
        let gzip = compressed(&json).expect("gzip");
        let mut back = Vec::new();
        flate2::read::GzDecoder::new(&gzip[..]).read_to_end(&mut back).expect("gzip");
        assert_eq!((back, &gzip[..2]), (json, &[0x1f, 0x8b][..]));
    }
}
