//! Where answers go: the mail hosts of a domain, their addresses and their TLSA records.

use std::net::IpAddr;

use super::finding::Finding;
use super::names::Asker;
use super::subject::Subject;
use crate::route::{Asked, Said, is_private};

const CHECK: &str = "MX";
/// Hosts that are looked at.
const MOST_HOSTS: usize = 10;
/// Addresses of a host that are looked at.
const MOST_ADDRESSES: usize = 8;

/// A mail host, and what may be connected to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MailHost {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// Everything about MX, and the hosts.
pub(super) async fn examine(asker: &Asker<'_>, subject: &Subject) -> (Vec<Finding>, Vec<MailHost>) {
    let (mut findings, hosts) = of_domain(asker, subject, &subject.domain).await;
    if subject.envelope != subject.domain {
        findings.extend(of_domain(asker, subject, &subject.envelope).await.0);
    }
    (findings, hosts)
}

async fn of_domain(asker: &Asker<'_>, subject: &Subject, domain: &str) -> (Vec<Finding>, Vec<MailHost>) {
    let (hosts, nothing) = match asker.hosts(domain).await {
        Ok(hosts) => (hosts, Vec::new()),
        Err(why) => return (vec![Finding::unknown(CHECK, domain, why)], Vec::new()),
    };
    let publish = format!("{domain}. IN MX 10 <your mail host>.");
    match hosts.as_slice() {
        [] => match asker.all_addresses(domain).await {
            Err(why) => (vec![Finding::unknown(CHECK, domain, why)], nothing),
            Ok(ips) if ips.is_empty() => {
                let found = "there is no MX and no address: receivers refuse senders whom no answer reaches";
                let remedy = "publish the host that takes its mail";
                (vec![Finding::failed(CHECK, domain, found).with(remedy).publish(publish)], nothing)
            }
            Ok(mut addresses) => {
                addresses.truncate(MOST_ADDRESSES);
                let found = "there is no MX, so the address of the domain itself is its mail host";
                let finding = Finding::note(CHECK, domain, found).with("publish an MX record").publish(publish);
                (vec![finding], vec![MailHost { name: domain.to_owned(), addresses }])
            }
        },
        [(_, host)] if host.is_empty() => {
            let found = "it takes no mail (null MX, RFC 7505)";
            let finding = match domain == subject.envelope {
                true => Finding::failed(CHECK, domain, format!("{found}: receivers refuse it as a sender (5.7.27)"))
                    .with("send with a reverse-path that takes bounces (--envelope), or publish an MX record")
                    .publish(publish),
                false => Finding::note(CHECK, domain, found).with("nobody can answer to its addresses"),
            };
            (vec![finding], nothing)
        }
        several => {
            let (mut findings, mut good) = (Vec::new(), Vec::new());
            for (preference, name) in several.iter().take(MOST_HOSTS) {
                let (finding, host) = of_host(asker, subject, domain, *preference, name).await;
                findings.push(finding);
                good.extend(host);
            }
            (findings, good)
        }
    }
}

async fn of_host(
    asker: &Asker<'_>,
    subject: &Subject,
    domain: &str,
    preference: u16,
    name: &str,
) -> (Finding, Option<MailHost>) {
    let failed = |why: String, remedy: &str| (Finding::failed(CHECK, domain, why).with(remedy), None);
    if name.is_empty() {
        return failed("a null MX stands beside other hosts".into(), "take out `MX 0 .`");
    }
    if name.parse::<IpAddr>().is_ok() {
        return failed(format!("{name} is an address"), "an MX record has to name a host");
    }
    let (v4, v6) = tokio::join!(asker.ask(name, Asked::A), asker.ask(name, Asked::Aaaa));
    let answers = [&v4, &v6];
    let alias = answers.iter().find_map(|answer| answer.as_ref().ok().and_then(|answer| answer.alias.clone()));
    let ip = |said: &Said| if let Said::Ip(ip) = said { Some(*ip) } else { None };
    let all = answers.iter().filter_map(|answer| answer.as_ref().ok()).flat_map(|answer| &answer.records);
    let addresses: Vec<IpAddr> = all.filter_map(ip).take(MOST_ADDRESSES).collect();
    if addresses.is_empty() {
        if let Some(Err(why)) = answers.into_iter().find(|answer| answer.is_err()) {
            return (Finding::unknown(CHECK, domain, format!("{name}: {why}")), None);
        }
        return failed(format!("{name} has no address"), "publish its address, or take it out");
    }
    let shown: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
    let found = format!("{preference} {name} is {}", shown.join(", "));
    if let Some(private) = addresses.iter().find(|ip| is_private(**ip) && !subject.allow_private) {
        return failed(
            format!("{found}: {private} is private"),
            "nobody outside reaches it: publish the public address",
        );
    }
    let host = Some(MailHost { name: name.to_owned(), addresses });
    match alias {
        Some(alias) => {
            let finding = Finding::failed(CHECK, domain, format!("{name} is a CNAME for {alias}"));
            (finding.with(format!("RFC 2181 does not allow that: publish MX {preference} {alias}. in its place")), host)
        }
        None => (Finding::ok(CHECK, domain, found), host),
    }
}

/// What is published by DANE for the hosts.
pub(super) async fn tlsa(asker: &Asker<'_>, subject: &Subject, hosts: &[MailHost]) -> Vec<Finding> {
    const CHECK: &str = "TLSA";
    if hosts.is_empty() {
        return Vec::new();
    }
    if !subject.dnssec {
        let why = "not looked at: signatures of DNS are not checked";
        return vec![Finding::skipped(CHECK, &subject.domain, why).with("set [dns] dnssec = \"validate\"")];
    }
    let mut findings = Vec::new();
    for host in hosts {
        let name = format!("_25._tcp.{}", host.name);
        let usable = |said: &Said| matches!(said, Said::Tlsa(true));
        findings.push(match asker.ask(&name, Asked::Tlsa).await {
            Err(why) => Finding::unknown(CHECK, &host.name, format!("{name}: {why}")).with(
                "ask again later; while its name servers do not answer, who does DANE gives it no mail (RFC 7672 §2.2)",
            ),
            Ok(answer) if answer.records.is_empty() => Finding::skipped(CHECK, &host.name, "none are published"),
            Ok(answer) if !answer.secure => Finding::note(CHECK, &host.name, "there are some, and they are not signed")
                .with("sign the zone (DNSSEC), or nobody uses them"),
            Ok(answer) => {
                let (all, good) = (answer.records.len(), answer.records.iter().filter(|said| usable(said)).count());
                match good {
                    0 => Finding::failed(CHECK, &host.name, format!("none of {all} can be used by SMTP"))
                        .with("publish `3 1 1` and the SHA-256 of the certificate's key (RFC 7672 §3.1)"),
                    _ => Finding::ok(CHECK, &host.name, format!("{good} of {all} can be used")),
                }
            }
        });
    }
    findings
}
