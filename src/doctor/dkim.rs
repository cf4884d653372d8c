//! The records of the keys that sign for a domain, compared with the keys.

use super::finding::Finding;
use super::names::Asker;
use super::subject::Subject;
use crate::dkim::{Algorithm, difference, zone_line};

const CHECK: &str = "DKIM";

/// Everything about DKIM.
pub(super) async fn examine(asker: &Asker<'_>, subject: &Subject) -> Vec<Finding> {
    let domain = &subject.domain;
    if subject.keys.is_empty() {
        let found = format!("the configuration has no [[dkim]] that signs for {domain}");
        let advice = format!("`mailweir dkim new {domain}` makes keys");
        return vec![match subject.smart_hosts.is_empty() {
            true => Finding::failed(CHECK, domain, found).with(advice),
            false => Finding::note(CHECK, domain, format!("{found}; a smart host may sign with a key of its own"))
                .with(format!("{advice}; or see that the smart host signs with d={domain}")),
        }];
    }
    let mut findings = Vec::new();
    for dkim in &subject.keys {
        let (name, key) = (format!("{}._domainkey.{}", dkim.selector, dkim.domain), &dkim.key.key);
        let records = match asker.texts(&name).await {
            Ok(records) => records,
            Err(why) => {
                findings.push(Finding::unknown(CHECK, &name, why));
                continue;
            }
        };
        findings.push(match difference(key, &records) {
            Err(fault) => Finding::unknown(CHECK, &name, format!("the key {} {fault}", dkim.key.path.display())),
            Ok(None) => {
                Finding::ok(CHECK, &name, format!("the record is that of the key ({})", key.algorithm().key_type()))
            }
            Ok(Some(difference)) => {
                let finding = Finding::failed(CHECK, &name, difference.to_string());
                match zone_line(&dkim.domain, &dkim.selector, key) {
                    Ok(line) => finding.with("publish this, or sign with the key that is published").publish(line),
                    Err(_) => finding,
                }
            }
        });
    }
    if subject.keys.iter().all(|dkim| dkim.key.key.algorithm() == Algorithm::Ed25519Sha256) {
        let finding = Finding::note(CHECK, domain, "all keys are Ed25519, which not every receiver knows");
        findings.push(finding.with(format!("add one of RSA: `mailweir dkim new {domain} --algorithm rsa`")));
    }
    findings
}
