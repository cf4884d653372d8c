//! A sender domain as receivers will see it: what `mailweir doctor` tells.
//!
//! - `subject` is what is examined; `names` who is asked for records, and for how long; `finding` what comes of it.
//! - `spf`, `dkim`, `dmarc`, `sources`, `mx`, `published` and `unsubscribe` each judge one thing; `reach` judges
//!   connections that somebody else made; `tags` reads records of one form.
//!
//! Invariants: a question that nobody answers makes [`Mark::Unknown`], never a record that is missing. Everything is
//! bounded: questions, time, records, texts. Nothing is written anywhere.

mod dkim;
mod dmarc;
pub mod finding;
mod mx;
pub mod names;
mod published;
pub mod reach;
mod sources;
pub mod spf;
pub mod subject;
mod tags;
#[cfg(test)]
mod tests;
pub mod unsubscribe;

use std::time::Duration;

use tokio::time::Instant;

use crate::route::Asked;
use crate::route::sts::{Mode, Policy};
pub use finding::{Finding, Mark};
pub use mx::MailHost;
use names::{Asker, Names};
pub use published::Web;
pub use subject::{Source, Subject};

/// How long an examination takes at most, connections apart.
pub const LIMIT: Duration = Duration::from_secs(30);

/// What was found, and what may be connected to.
#[derive(Debug)]
pub struct Examined {
    /// Line by line.
    pub findings: Vec<Finding>,
    /// The mail hosts of the domain.
    pub hosts: Vec<MailHost>,
    /// A policy demands good certificates of them.
    pub enforced: bool,
}

/// Examines a domain.
pub async fn examine(subject: &Subject, names: &dyn Names, web: &Web<'_>) -> Examined {
    let asker = Asker::new(names, Instant::now() + LIMIT);
    let asker = &asker;
    // Of a domain that is not there all else would be missing, too.
    let mut missing = Vec::new();
    for domain in [&subject.domain, &subject.envelope] {
        if asker.ask(domain, Asked::Mx).await.is_ok_and(|answer| answer.no_such_name) && missing.last() != Some(domain)
        {
            missing.push(domain.clone());
        }
    }
    let gone = |domain: &String| {
        let found = "the domain does not exist: receivers refuse mail from it";
        Finding::failed("domain", domain, found)
            .with("register it, or mend its delegation; see whether the name is right")
    };
    let not_there: Vec<Finding> = missing.iter().map(gone).collect();
    if missing.contains(&subject.domain) {
        return Examined { findings: not_there, hosts: Vec::new(), enforced: false };
    }
    let of_hosts = async {
        let (mut findings, hosts) = mx::examine(asker, subject).await;
        let (policy, tlsa) =
            tokio::join!(published::sts(asker, subject, &hosts, web), mx::tlsa(asker, subject, &hosts));
        findings.extend(policy.0);
        findings.extend(tlsa);
        (findings, hosts, policy.1)
    };
    let of_logo = async {
        let enforced = dmarc::is_enforced(asker, &subject.domain).await;
        published::bimi(asker, subject, enforced).await
    };
    let (spf, dkim, dmarc, sources, (hosts_told, hosts, policy), reports, bimi) = tokio::join!(
        spf::examine(asker, subject),
        dkim::examine(asker, subject),
        dmarc::examine(asker, subject),
        sources::examine(asker, subject),
        of_hosts,
        published::tls_reports(asker, subject),
        of_logo,
    );
    let findings = [not_there, spf, dkim, dmarc, sources, hosts_told, vec![reports, bimi]].concat();
    let is_enforced = |policy: &Policy| policy.mode == Mode::Enforce;
    Examined { findings, hosts, enforced: policy.as_ref().is_some_and(is_enforced) }
}

/// The worst of them: [`Mark::Failed`], else [`Mark::Unknown`], else [`Mark::Ok`].
pub fn worst(findings: &[Finding]) -> Mark {
    let any = |mark: Mark| findings.iter().any(|finding| finding.verdict == mark);
    match (any(Mark::Failed), any(Mark::Unknown)) {
        (true, _) => Mark::Failed,
        (false, true) => Mark::Unknown,
        (false, false) => Mark::Ok,
    }
}
