//! The addresses that mail leaves from, as receivers see them: a name by PTR that leads back (FCrDNS), the name of EHLO,
//! and, where somebody asks for it, blocklists.

use std::net::{IpAddr, Ipv4Addr};

use super::finding::Finding;
use super::names::{Asker, reverse};
use super::subject::{Source, Subject};
use crate::route::{Asked, Said};

/// Names of an address that are looked at.
const MOST_NAMES: usize = 10;

/// Everything about sources.
pub(super) async fn examine(asker: &Asker<'_>, subject: &Subject) -> Vec<Finding> {
    let mut findings = Vec::new();
    if subject.sources.is_empty() {
        let why = match subject.smart_hosts.is_empty() {
            true => "it is not known from which address mail leaves: name it by --ip".to_owned(),
            false => format!("mail leaves through {}: its addresses are not ours", subject.smart_hosts.join(", ")),
        };
        findings.push(Finding::skipped("source", &subject.domain, why));
    }
    for source in &subject.sources {
        let Source { address, name, from } = source;
        if !source.is_judged() {
            let why = format!("{address} ({from}) is private: receivers see the address of the NAT in front of it");
            let finding = Finding::skipped("source", &address.to_string(), why);
            findings.push(finding.with("name the public address by --ip, and run this once more"));
            continue;
        }
        findings.push(reverse_name(asker, *address, name).await);
        findings.push(ehlo(asker, *address, name).await);
        for list in &subject.blocklists {
            findings.push(listed(asker, *address, list).await);
        }
    }
    findings
}

async fn reverse_name(asker: &Asker<'_>, address: IpAddr, ehlo: &str) -> Finding {
    const CHECK: &str = "PTR";
    let of = address.to_string();
    let at = reverse(address, "in-addr.arpa", "ip6.arpa");
    let publish = format!("{at}. IN PTR {ehlo}.");
    let names = match asker.names_of(address).await {
        Ok(names) => names,
        Err(why) => return Finding::unknown(CHECK, &of, why),
    };
    if names.is_empty() {
        let finding = Finding::failed(CHECK, &of, "the address has no name: big receivers refuse mail from it");
        return finding.with("have whoever gave you the address (the provider of the host) set it").publish(publish);
    }
    let mut unknown = String::new();
    for name in names.iter().take(MOST_NAMES) {
        match asker.addresses(name, address.is_ipv4()).await {
            Ok(back) if back.contains(&address) => {
                let found = format!("{of} is {name}, and {name} is {of}");
                return match looks_generic(name, address) {
                    true => Finding::note(CHECK, &of, found)
                        .with("the name looks like one of a dial-up line: have it be that of EHLO")
                        .publish(publish),
                    false => Finding::ok(CHECK, &of, found),
                };
            }
            Ok(_) => {}
            Err(why) => unknown = why,
        }
    }
    if !unknown.is_empty() {
        return Finding::unknown(CHECK, &of, unknown);
    }
    let told: Vec<&str> = names.iter().take(3).map(String::as_str).collect();
    let found = format!("{of} is {}, which does not lead back to it", told.join(", "));
    let finding = Finding::failed(CHECK, &of, found).with("publish the name's address, or have the PTR be another");
    match names.first() {
        Some(name) => finding.publish(address_line(name, address)),
        None => finding,
    }
}

/// Whether a name has the address in it, as names of dial-up lines do.
fn looks_generic(name: &str, address: IpAddr) -> bool {
    let IpAddr::V4(ip) = address else { return false };
    let numbers: Vec<u8> = name.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect();
    let mut backwards = ip.octets();
    backwards.reverse();
    numbers.windows(4).any(|four| four == ip.octets() || four == backwards)
}

fn address_line(name: &str, address: IpAddr) -> String {
    format!("{name}. IN {} {address}", if address.is_ipv4() { "A" } else { "AAAA" })
}

async fn ehlo(asker: &Asker<'_>, address: IpAddr, name: &str) -> Finding {
    const CHECK: &str = "EHLO";
    let of = address.to_string();
    if !name.contains('.') || name.parse::<IpAddr>().is_ok() || name.starts_with('[') {
        let found = format!("we say `{name}`, which is no name of a host on the Internet");
        return Finding::failed(CHECK, &of, found).with("set `hostname` to a name that resolves to this address");
    }
    match asker.addresses(name, address.is_ipv4()).await {
        Err(why) => Finding::unknown(CHECK, &of, why),
        Ok(found) if found.contains(&address) => Finding::ok(CHECK, &of, format!("we say {name}, which is {of}")),
        Ok(found) => {
            let is = match found.as_slice() {
                [] => "which has no such address".to_owned(),
                some => {
                    format!("which is {}", some.iter().take(3).map(IpAddr::to_string).collect::<Vec<_>>().join(", "))
                }
            };
            Finding::failed(CHECK, &of, format!("we say {name}, {is}"))
                .with("publish the address, or set `hostname` (`name` of a source) to a name that has it")
                .publish(address_line(name, address))
        }
    }
}

async fn listed(asker: &Asker<'_>, address: IpAddr, list: &str) -> Finding {
    const CHECK: &str = "blocklist";
    let of = address.to_string();
    let name = reverse(address, list, list);
    let answer = match asker.ask(&name, Asked::A).await {
        Ok(answer) => answer,
        Err(why) => return Finding::unknown(CHECK, &of, format!("{list}: {why}")),
    };
    let codes: Vec<Ipv4Addr> = answer
        .records
        .iter()
        .filter_map(|said| match said {
            Said::Ip(IpAddr::V4(ip)) => Some(*ip),
            _ => None,
        })
        .collect();
    match codes.first().map(Ipv4Addr::octets) {
        None => Finding::ok(CHECK, &of, format!("not listed by {list}")),
        // What Spamhaus and others say to public resolvers, or to who asks too much (RFC 5782 has 127/8 for listings).
        Some([127, 255, 255, last]) => {
            let why = match last {
                252 => "the name of the list is mistyped",
                254 => "it does not answer those who ask through a public name server",
                255 => "it was asked too often",
                _ => "it does not answer us",
            };
            let finding = Finding::unknown(CHECK, &of, format!("{list} says 127.255.255.{last}: {why}"));
            finding.with("no listing: ask through a name server of your own ([dns] nameservers)")
        }
        Some([127, ..]) => {
            let reason = asker.texts(&name).await.unwrap_or_default().into_iter().next().unwrap_or_default();
            let reason: String = reason.chars().take(200).collect();
            let told: Vec<String> = codes.iter().take(5).map(Ipv4Addr::to_string).collect();
            let found = format!("listed by {list} ({}) {reason}", told.join(", "));
            Finding::failed(CHECK, &of, found.trim_end())
                .with("find what was sent, stop it, and ask the list to take it off")
        }
        Some(_) => {
            let found = format!(
                "{list} answers {} for anything, so it is no list (any more)",
                codes.first().map_or_else(String::new, ToString::to_string)
            );
            Finding::unknown(CHECK, &of, found).with("leave it out")
        }
    }
}
