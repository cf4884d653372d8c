//! TLSA records of mail hosts (RFC 6698, as RFC 7672 uses them for SMTP): which of them can be used, and what an answer
//! without any means.
//!
//! Bounded: [`MOST`] records of a host, each of at most [`MAX_DATA`] bytes.

use std::fmt;
use std::sync::Arc;

use hickory_resolver::proto::rr::rdata::TLSA;
use hickory_resolver::proto::rr::rdata::tlsa::{CertUsage, Matching as DnsMatching, Selector as DnsSelector};
use hickory_resolver::proto::rr::{Name, RData, RecordType};

use super::cache::Kind;
use super::dns::{Answer, Dns, Failure, Whose};
use super::domain::parse_name;

/// Records of a host that are used.
const MOST: usize = 20;
/// Bytes of a record that are used: a certificate in full has one or two thousand.
const MAX_DATA: usize = 8192;

/// Which certificate of a chain a record is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Usage {
    /// DANE-TA(2): an authority from which the host's certificate has to be.
    Authority,
    /// DANE-EE(3): that of the host itself; its names and times do not count (RFC 7671 §5.1).
    Host,
}

/// What of the certificate is compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// Cert(0): all of it.
    Certificate,
    /// SPKI(1): its public key.
    Key,
}

/// As what it is compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// Full(0).
    Full,
    /// SHA2-256(1).
    Sha256,
    /// SHA2-512(2).
    Sha512,
}

/// A record that can be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tlsa {
    /// Of which certificate.
    pub usage: Usage,
    /// Of what of it.
    pub part: Part,
    /// In what form.
    pub form: Form,
    /// What it has to be.
    pub data: Box<[u8]>,
}

/// What is published for a host and port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Published {
    /// Nothing, or nothing that is signed.
    Nothing,
    /// These, of which at least one has to match.
    Records(Arc<[Tlsa]>),
    /// Signed ones, none of which can be used: TLS is demanded, and nobody can be asked to show who it is
    /// (RFC 7672 §2.2).
    Unusable,
    /// Nobody knows, or the answer is forged: mail is not given to this host (RFC 7672 §2.2).
    Failed(Arc<str>),
}

/// As in a zone, but for its name.
impl fmt::Display for Tlsa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let usage = match self.usage {
            Usage::Authority => 2,
            Usage::Host => 3,
        };
        let part = match self.part {
            Part::Certificate => 0,
            Part::Key => 1,
        };
        let form = match self.form {
            Form::Full => 0,
            Form::Sha256 => 1,
            Form::Sha512 => 2,
        };
        write!(f, "{usage} {part} {form} ")?;
        self.data.iter().try_for_each(|byte| write!(f, "{byte:02X}"))
    }
}

impl Tlsa {
    /// `None`: it cannot be used. PKIX-TA and PKIX-EE are not for SMTP (RFC 7672 §3.1.3).
    fn usable(record: &TLSA) -> Option<Tlsa> {
        let usage = match record.cert_usage {
            CertUsage::DaneTa => Usage::Authority,
            CertUsage::DaneEe => Usage::Host,
            _ => return None,
        };
        let part = match record.selector {
            DnsSelector::Full => Part::Certificate,
            DnsSelector::Spki => Part::Key,
            _ => return None,
        };
        let (form, lengths) = match record.matching {
            DnsMatching::Raw => (Form::Full, 1..=MAX_DATA),
            DnsMatching::Sha256 => (Form::Sha256, 32..=32),
            DnsMatching::Sha512 => (Form::Sha512, 64..=64),
            _ => return None,
        };
        let data = lengths.contains(&record.cert_data.len()).then(|| record.cert_data.clone().into_boxed_slice())?;
        Some(Tlsa { usage, part, form, data })
    }
}

impl Dns {
    /// What is published for `host`, whose address is signed, at `port`; and how long that holds.
    pub(super) async fn look_up_tlsa(&self, name: &Name, whose: Whose) -> (Published, Kind) {
        match self.lookup(name, RecordType::TLSA, whose).await {
            Err(Failure(text)) => (Published::Failed(text.into()), Kind::Failure),
            Ok(Answer::Bogus(text)) => (Published::Failed(text.into()), Kind::Failure),
            Ok(Answer::NoData { ttl } | Answer::NoDomain { ttl }) => (Published::Nothing, Kind::Negative(ttl)),
            Ok(Answer::Found { ttl, secure: false, .. }) => (Published::Nothing, Kind::Positive(ttl)),
            Ok(Answer::Found { data, ttl, .. }) => (published(&data), Kind::Positive(ttl)),
        }
    }
}

fn published(data: &[RData]) -> Published {
    let usable = data.iter().filter_map(|data| match data {
        RData::TLSA(record) => Tlsa::usable(record),
        _ => None,
    });
    let records: Vec<Tlsa> = usable.take(MOST).collect();
    if records.is_empty() { Published::Unusable } else { Published::Records(records.into()) }
}

/// Whether a host can be asked to match it.
pub(super) fn is_usable(record: &TLSA) -> bool {
    Tlsa::usable(record).is_some()
}

/// Where the records of a host are.
pub(super) fn name_of(host: &str, port: u16) -> Option<Name> {
    parse_name(&format!("_{port}._tcp.{host}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(usage: u8, selector: u8, matching: u8, bytes: usize) -> RData {
        RData::TLSA(TLSA::new(usage.into(), selector.into(), matching.into(), vec![7; bytes]))
    }

    #[test]
    fn only_records_for_smtp_of_the_right_length_can_be_used() {
        for (usage, selector, matching, bytes, usable) in [
            (3, 1, 1, 32, true),
            (3, 0, 2, 64, true),
            (2, 0, 0, 1000, true),
            (2, 1, 1, 32, true),
            (0, 0, 1, 32, false),
            (1, 1, 1, 32, false),
            (4, 1, 1, 32, false),
            (255, 1, 1, 32, false),
            (3, 2, 1, 32, false),
            (3, 1, 3, 32, false),
            (3, 1, 1, 31, false),
            (3, 1, 2, 32, false),
            (3, 1, 0, 0, false),
            (3, 0, 0, MAX_DATA + 1, false),
        ] {
            let found = published(&[record(usage, selector, matching, bytes)]);
            assert_eq!(found != Published::Unusable, usable, "{usage} {selector} {matching} {bytes}");
        }
        // One that can be used is enough to be asked for it.
        let Published::Records(records) = published(&[record(1, 0, 1, 32), record(3, 1, 1, 32)]) else { panic!() };
        assert_eq!(
            (records.len(), records[0].usage, records[0].part, records[0].form),
            (1, Usage::Host, Part::Key, Form::Sha256)
        );
        assert_eq!(records[0].to_string(), format!("3 1 1 {}", "07".repeat(32)));
    }

    #[test]
    fn records_are_looked_for_at_the_port() {
        assert_eq!(name_of("mx.example", 25).map(|name| name.to_string()).as_deref(), Some("_25._tcp.mx.example."));
    }
}
