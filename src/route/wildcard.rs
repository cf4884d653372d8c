//! Two answers that hickory takes for badly proven and that are not: of a wildcard whose own NSEC record is the proof that
//! the name does not exist, and of a CNAME beside which it is said that its end has no such records.
//!
//! hickory 0.26.3 asks for a record that covers the wildcard, too, which there is none of when its own record covers the
//! name, as in most small zones. RFC 4035 §5.3.4 asks for what is done here: a record that covers the name, between which
//! and the wildcard nothing closer exists.

use hickory_resolver::proto::dnssec::rdata::DNSSECRData;
use hickory_resolver::proto::op::{DnsResponse, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, RecordType};

/// Whether everything in an answer to a question about `name` is well signed, and what came from a wildcard is proven to.
pub(super) fn is_proven(name: &Name, response: &DnsResponse) -> bool {
    let mut records = response.answers.iter().filter(|record| !record.record_type().is_rrsig());
    if response.response_code != ResponseCode::NoError || !records.all(|record| record.proof.is_secure()) {
        return false;
    }
    let mut expanded = response.answers.iter().filter_map(|record| match &record.data {
        RData::DNSSEC(DNSSECRData::RRSIG(signature)) => {
            let of = usize::from(signature.input().num_labels);
            (of < labels(&record.name)).then_some((record, of))
        }
        _ => None,
    });
    let some = expanded.clone().next().is_some();
    some && expanded
        .all(|(record, of)| record.proof.is_secure() && record.name == *name && is_missing(name, of, response))
}

/// Whether an answer has a well signed CNAME of `name` itself: its end is asked for in a question of its own, so what is said of
/// that here need not be proven (hickory looks for the proof at the name of the question).
pub(super) fn leads_on(name: &Name, response: &DnsResponse) -> bool {
    let mut records = response.answers.iter().filter(|record| !record.record_type().is_rrsig());
    let mut alias = response.answers.iter().filter(|record| record.record_type() == RecordType::CNAME);
    let expanded = response.answers.iter().any(|record| match &record.data {
        RData::DNSSEC(DNSSECRData::RRSIG(signature)) => {
            usize::from(signature.input().num_labels) < labels(&record.name)
        }
        _ => false,
    });
    !expanded && records.all(|record| record.proof.is_secure()) && alias.any(|record| record.name == *name)
}

/// Whether a well signed record shows that there is no such name, and no other below the wildcard's parent, which has `of`
/// labels, that is above it.
fn is_missing(name: &Name, of: usize, response: &DnsResponse) -> bool {
    response.authorities.iter().filter(|record| record.proof.is_secure()).any(|record| {
        let RData::DNSSEC(DNSSECRData::NSEC(nsec)) = &record.data else { return false };
        let (owner, next) = (&record.name, nsec.next_domain_name());
        // The last record of a zone leads back to its beginning.
        let covers = name > owner && (name < next || next <= owner && next.zone_of(name));
        // What is above a zone says nothing of what is in it (RFC 6840 §4.1).
        let above = nsec.is_ancestor_delegation() && owner.zone_of(name);
        covers && !above && shared(name, owner).max(shared(name, next)) == of
    })
}

fn labels(name: &Name) -> usize {
    name.iter().count()
}

/// Labels that two names have in common at their ends.
fn shared(a: &Name, b: &Name) -> usize {
    a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a.eq_ignore_ascii_case(b)).count()
}
