//! What a domain publishes for those who send to it, and for those who show its logo: MTA-STS (RFC 8461), reports on TLS
//! (RFC 8460), BIMI.

use tokio::time::timeout_at;

use super::finding::{Finding, txt_line};
use super::mx::MailHost;
use super::names::Asker;
use super::subject::Subject;
use super::tags::{Tags, is_meant, uri_fault};
use crate::clock::Timestamp;
use crate::route::sts::{Fetch, Mode, Policy, PolicyHost, id_of};

/// Who fetches policies, and what time it is for them.
pub struct Web<'w> {
    /// Who.
    pub fetch: &'w dyn Fetch,
    /// When.
    pub now: Timestamp,
}

/// MTA-STS, and the policy.
pub(super) async fn sts(
    asker: &Asker<'_>,
    subject: &Subject,
    hosts: &[MailHost],
    web: &Web<'_>,
) -> (Vec<Finding>, Option<Policy>) {
    const CHECK: &str = "MTA-STS";
    let domain = &subject.domain;
    let name = format!("_mta-sts.{domain}");
    let alone = |finding: Finding| (vec![finding], None);
    let texts = match asker.texts(&name).await {
        Ok(texts) => texts,
        Err(why) => return alone(Finding::unknown(CHECK, domain, why)),
    };
    let Some(id) = id_of(texts.iter().map(String::as_bytes)) else {
        let meant: Vec<&String> = texts.iter().filter(|text| is_meant(text, "stsv", &["id"])).collect();
        return alone(match meant.as_slice() {
            [] => Finding::note(CHECK, domain, "there is none: mail to it may be read and diverted on its way")
                .with("publish a policy (RFC 8461), first in mode testing"),
            [one] => Finding::failed(CHECK, domain, format!("senders pass over this record: {}", bounded(one)))
                .with("expected v=STSv1, and an id of letters and digits")
                .publish(txt_line(&name, "v=STSv1; id=1;")),
            several => {
                Finding::failed(CHECK, domain, format!("{name} has {} records, so senders use none", several.len()))
                    .with("publish one")
            }
        });
    };
    let host = format!("mta-sts.{domain}");
    let addresses = match asker.all_addresses(&host).await {
        Ok(addresses) if addresses.is_empty() => {
            let finding = Finding::failed(CHECK, domain, format!("there is a record, and {host} has no address"));
            return alone(finding.with("have the host there, with the policy, or take the record out"));
        }
        Ok(addresses) => addresses,
        Err(why) => return alone(Finding::unknown(CHECK, domain, why)),
    };
    let fetched = timeout_at(asker.until(), web.fetch.fetch(&host, PolicyHost { addresses, trusted: None })).await;
    let text = match fetched {
        Ok(Ok(text)) => text,
        Ok(Err(why)) => {
            let finding = Finding::failed(CHECK, domain, format!("the policy cannot be fetched: {why}"));
            let advice = "if other sites cannot be reached from here either, this says nothing of it";
            return alone(finding.with(format!("expected https://{host}/.well-known/mta-sts.txt; {advice}")));
        }
        Err(_) => return alone(Finding::unknown(CHECK, domain, format!("{host} does not answer in time"))),
    };
    let policy = match Policy::parse(&text, domain, &id, web.now) {
        Ok(policy) => policy,
        Err(why) => {
            return alone(Finding::failed(CHECK, domain, format!("the policy is wrong: {why}")).with("mend it"));
        }
    };
    let findings = named(domain, hosts, &policy);
    (findings, Some(policy))
}

/// Whether the policy names the hosts.
fn named(domain: &str, hosts: &[MailHost], policy: &Policy) -> Vec<Finding> {
    const CHECK: &str = "MTA-STS";
    let found = format!("mode {}, hosts {}", policy.mode, policy.hosts());
    if policy.mode == Mode::None {
        return vec![Finding::note(CHECK, domain, found).with("that is no policy: mode testing or enforce is one")];
    }
    let mut findings: Vec<Finding> = hosts
        .iter()
        .filter(|host| !policy.names(&host.name))
        .map(|host| {
            let why = format!("{} is an MX host, and the policy does not name it", host.name);
            let finding = match policy.mode {
                Mode::Enforce => Finding::failed(CHECK, domain, why),
                _ => Finding::note(CHECK, domain, why),
            };
            finding.with(format!("add `mx: {}` to the policy, and change the id of the record", host.name))
        })
        .collect();
    if findings.is_empty() {
        findings.push(match policy.mode {
            Mode::Enforce => Finding::ok(CHECK, domain, found),
            _ => Finding::note(CHECK, domain, found).with("protects nobody before it is mode enforce"),
        });
    }
    findings
}

/// Reports on TLS.
pub(super) async fn tls_reports(asker: &Asker<'_>, subject: &Subject) -> Finding {
    const CHECK: &str = "TLS-RPT";
    let domain = &subject.domain;
    let name = format!("_smtp._tls.{domain}");
    let texts = match asker.texts(&name).await {
        Ok(texts) => texts,
        Err(why) => return Finding::unknown(CHECK, domain, why),
    };
    let example = || txt_line(&name, &format!("v=TLSRPTv1; rua=mailto:tls@{domain}"));
    let meant: Vec<&String> = texts.iter().filter(|text| is_meant(text, "tlsrpt", &["rua"])).collect();
    let text = match meant.as_slice() {
        [] => return Finding::skipped(CHECK, domain, "none are asked for"),
        [one] => one,
        several => {
            let found = format!("{name} has {} records, so nobody uses one", several.len());
            return Finding::failed(CHECK, domain, found).with("publish one");
        }
    };
    let tags = Tags::parse(text);
    let begins = text.starts_with("v=TLSRPTv1") && tags.get("v") == Some("TLSRPTv1");
    let rua = tags.get("rua");
    let uris = rua.into_iter().flat_map(|rua| rua.split(',')).filter_map(|uri| uri_fault(uri.trim(), &["https"]));
    let faults: Vec<String> = (!begins)
        .then(|| "expected v=TLSRPTv1 as its beginning".to_owned())
        .into_iter()
        .chain(rua.is_none().then(|| "it has no rua=".to_owned()))
        .chain(tags.faults.iter().cloned())
        .chain(uris)
        .collect();
    match faults.is_empty() {
        true => Finding::ok(CHECK, domain, bounded(text)),
        false => {
            let found = format!("{}: {}", faults.join("; "), bounded(text));
            Finding::failed(CHECK, domain, found).with("mend it").publish(example())
        }
    }
}

/// BIMI; `enforced`: DMARC of the domain asks for more than reports.
pub(super) async fn bimi(asker: &Asker<'_>, subject: &Subject, enforced: bool) -> Finding {
    const CHECK: &str = "BIMI";
    let domain = &subject.domain;
    let texts = match asker.texts(&format!("default._bimi.{domain}")).await {
        Ok(texts) => texts,
        Err(why) => return Finding::unknown(CHECK, domain, why),
    };
    let meant: Vec<&String> = texts.iter().filter(|text| is_meant(text, "bimi", &["l"])).collect();
    let text = match meant.as_slice() {
        [] => return Finding::skipped(CHECK, domain, "there is no logo, and none is needed"),
        [one] => one,
        several => return Finding::failed(CHECK, domain, format!("{} records, expected one", several.len())),
    };
    let tags = Tags::parse(text);
    let mut faults = tags.faults.clone();
    if !text.starts_with("v=BIMI1") || tags.get("v") != Some("BIMI1") {
        faults.push("expected v=BIMI1; as its beginning".into());
    }
    let declines = tags.get("l") == Some("") && tags.get("a").unwrap_or_default().is_empty();
    match tags.get("l") {
        None => faults.push("it has no l=".into()),
        Some("") => {}
        Some(logo) if !logo.to_ascii_lowercase().starts_with("https://") => {
            faults.push(format!("l={}: expected an https address", bounded(logo)));
        }
        Some(logo) if !logo.split(['?', '#']).next().unwrap_or_default().to_ascii_lowercase().ends_with(".svg") => {
            faults.push(format!("l={}: expected an SVG (Tiny PS) file", bounded(logo)));
        }
        Some(_) => {}
    }
    if let Some(mark) =
        tags.get("a").filter(|mark| !mark.is_empty() && !mark.to_ascii_lowercase().starts_with("https://"))
    {
        faults.push(format!("a={}: expected an https address", bounded(mark)));
    }
    if !faults.is_empty() {
        return Finding::failed(CHECK, domain, format!("{}: {}", faults.join("; "), bounded(text))).with("mend it");
    }
    match enforced || declines {
        true => Finding::ok(CHECK, domain, bounded(text)),
        false => Finding::note(CHECK, domain, bounded(text))
            .with("no logo is shown before DMARC has p=quarantine or p=reject, for all mail"),
    }
}

fn bounded(text: &str) -> String {
    text.chars().take(200).collect()
}
