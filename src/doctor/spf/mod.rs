//! SPF (RFC 7208): the record of a domain, and what it says of the addresses that mail leaves from.
//!
//! - `record` reads it, `macros` are a part of it; `check` is what a receiver makes of it for one client, `survey` what
//!   it costs and is worth as a whole; here is what is told of that, and what to publish.

pub mod check;
pub mod macros;
pub mod record;
pub mod survey;

use std::net::IpAddr;

use super::finding::{Finding, txt_line};
use super::names::Asker;
use super::subject::{Source, Subject};
use check::{Client, MOST_LOOKUPS, MOST_VOID, OfSender, Verdict};
use record::{Qualifier, Record, VERSION, cut, is_meant_as_record, is_record};
use survey::Survey;

const CHECK: &str = "SPF";

/// Everything about SPF.
pub(super) async fn examine(asker: &Asker<'_>, subject: &Subject) -> Vec<Finding> {
    let domain = &subject.envelope;
    let texts = match asker.texts(domain).await {
        Ok(texts) => texts,
        Err(why) => return vec![Finding::unknown(CHECK, domain, why)],
    };
    let mut findings = Vec::new();
    for meant in texts.iter().filter(|text| is_meant_as_record(text)).take(3) {
        let found = format!("a record that receivers pass over: {}", cut(meant));
        let remedy = format!("take it out, or mend its beginning: `{VERSION}` and a space, without quotes around it");
        findings.push(Finding::failed(CHECK, domain, found).with(remedy));
    }
    let records: Vec<&String> = texts.iter().filter(|text| is_record(text)).collect();
    let missing =
        || subject.sources.iter().filter(|source| source.is_judged()).map(|source| source.address).collect::<Vec<_>>();
    match records.as_slice() {
        // Mended, what is there is the record.
        [] if !findings.is_empty() => {}
        [] => {
            let mut finding =
                Finding::failed(CHECK, domain, "there is no record: receivers do not know who sends for it");
            let advice = match (subject.smart_hosts.is_empty(), missing().is_empty()) {
                (false, _) => "publish one, with the include that each smart host asks for in the place of <…>",
                (true, true) => "publish one, with the public address that mail leaves from (name it by --ip)",
                (true, false) => "publish one",
            };
            finding = finding.with(advice).publish(txt_line(domain, &fresh(&missing(), &subject.smart_hosts)));
            findings.push(finding);
        }
        [text] => findings.extend(one(asker, subject, text).await),
        several => {
            let found = format!("there are {} records, so receivers use none", several.len());
            let finding = Finding::failed(CHECK, domain, found);
            // What a redirect leads to, and what is broken, only a person can put together.
            let can_be = several.iter().all(|text| Record::parse(text).is_ok_and(|record| record.redirect.is_none()));
            findings.push(match can_be {
                true => {
                    let merged = with(&merged(several), &missing());
                    finding.with("publish one in the place of all").publish(txt_line(domain, &merged))
                }
                false => finding.with("publish one in the place of all, with what each of them has and one `redirect=` or `all` at its end"),
            });
        }
    }
    findings
}

async fn one(asker: &Asker<'_>, subject: &Subject, text: &str) -> Vec<Finding> {
    let domain = &subject.envelope;
    let record = match Record::parse(text) {
        Ok(record) => record,
        Err(faults) => {
            let each = faults.iter().take(5).map(|fault| {
                Finding::failed(CHECK, domain, format!("{fault}"))
                    .with("mend it: receivers use no part of such a record")
            });
            return each.collect();
        }
    };
    let mut findings = vec![of_all(domain, text, &record)];
    let survey = Survey::of(asker, domain, &record).await;
    findings.extend(of_survey(domain, &survey));
    let is_mended = |source: &&Source| source.is_judged();
    for source in subject.sources.iter().filter(is_mended) {
        findings.push(of_source(asker, domain, text, source).await);
    }
    for host in &subject.smart_hosts {
        let includes = match survey.includes.as_slice() {
            [] => "it includes nothing".to_owned(),
            some => format!("it includes {}", cut(&some.join(", "))),
        };
        let found =
            format!("mail through {host} leaves from addresses of its own; of this record is known that {includes}");
        let finding = Finding::skipped(CHECK, domain, found);
        findings.push(finding.with(format!("see that what {host} asks for is among that")));
    }
    findings
}

/// The record itself and how it ends.
fn of_all(domain: &str, text: &str, record: &Record) -> Finding {
    let found = long(text);
    match record.all() {
        Some(all) if all.qualifier == Qualifier::Pass => {
            let remedy = format!(
                "`{}` lets everybody send for this domain: name all that send (ip4:, ip6:, include:), then end with ~all or -all",
                all.text
            );
            Finding::failed(CHECK, domain, found).with(remedy)
        }
        Some(all) if all.qualifier == Qualifier::Neutral => {
            let remedy = format!("`{}` says nothing of anybody else: end with ~all or -all", all.text);
            Finding::note(CHECK, domain, found).with(remedy).publish(txt_line(domain, &with(text, &[])))
        }
        None if record.redirect.is_none() => {
            let remedy = "it ends without `all`, so it says nothing of anybody else: end with ~all or -all";
            Finding::note(CHECK, domain, found).with(remedy).publish(txt_line(domain, &with(text, &[])))
        }
        _ => Finding::ok(CHECK, domain, found),
    }
}

fn of_survey(domain: &str, survey: &Survey) -> Vec<Finding> {
    let mut findings: Vec<Finding> =
        survey.faults.iter().take(10).map(|fault| Finding::failed(CHECK, domain, fault.clone())).collect();
    let lookups = survey.costs.len();
    let count = format!("{lookups} of {MOST_LOOKUPS} look-ups, {} of {MOST_VOID} without a result", survey.voids.len());
    let list = |terms: &[(String, String)]| -> String {
        let told: Vec<String> = terms.iter().take(20).map(|(domain, term)| format!("`{term}` of {domain}")).collect();
        told.join(", ")
    };
    findings.push(match (lookups > MOST_LOOKUPS, survey.voids.len() > MOST_VOID) {
        (true, _) => Finding::failed(CHECK, domain, count).with(format!(
            "receivers give up behind the tenth (permerror); take out what is of no use, or name addresses: {}",
            list(&survey.costs)
        )),
        (_, true) => Finding::failed(CHECK, domain, count)
            .with(format!("receivers give up at the third (permerror); take them out: {}", survey.voids.join(", "))),
        (_, false) if survey.voids.is_empty() => Finding::ok(CHECK, domain, count),
        (_, false) => Finding::note(CHECK, domain, count).with(format!("of no use: {}", survey.voids.join(", "))),
    });
    let own = format!(" of {domain}");
    // Its own `+all` is told with the record.
    for open in survey.open.iter().filter(|open| !(open.ends_with(&own) && open.to_lowercase().contains("all`"))) {
        let found = format!("{open} lets through almost everybody");
        findings.push(Finding::failed(CHECK, domain, found).with("name the addresses that send, or leave it out"));
    }
    findings.extend(survey.notes.iter().take(10).map(|note| Finding::note(CHECK, domain, note.clone())));
    findings.extend(survey.unknown.iter().take(10).map(|why| Finding::unknown(CHECK, domain, why.clone())));
    findings
}

async fn of_source(asker: &Asker<'_>, domain: &str, text: &str, source: &Source) -> Finding {
    let sender = format!("postmaster@{domain}");
    let client = Client { ip: source.address, sender: &sender, helo: &source.name };
    let OfSender { judged, asks_who } = check::check_sender(asker, &client, domain).await;
    let by = if judged.by.is_empty() { String::new() } else { format!(" by `{}`", cut(&judged.by)) };
    let found = format!("{} is judged {}{by}", source.address, judged.verdict.name());
    if let (Some(term), Verdict::Pass | Verdict::Fail | Verdict::SoftFail | Verdict::Neutral) =
        (asks_who, &judged.verdict)
    {
        let found =
            format!("{found}, for {sender}: `{}` asks who sends, so others may be judged otherwise", cut(&term));
        return Finding::note(CHECK, domain, found).with("see that it lets those through who send");
    }
    match judged.verdict {
        Verdict::Pass => Finding::ok(CHECK, domain, found),
        Verdict::TempError(why) => Finding::unknown(CHECK, domain, format!("{found}: {why}")),
        Verdict::PermError(why) => Finding::failed(CHECK, domain, format!("{found}: {why}")),
        _ => {
            let line = txt_line(domain, &with(text, &[source.address]));
            Finding::failed(CHECK, domain, found).with("let it send").publish(line)
        }
    }
}

fn mechanism(ip: &IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => format!("ip4:{ip}"),
        IpAddr::V6(ip) => format!("ip6:{ip}"),
    }
}

fn fresh(sources: &[IpAddr], smart_hosts: &[String]) -> String {
    let mut terms = vec![VERSION.to_owned()];
    terms.extend(sources.iter().map(mechanism));
    terms.extend(smart_hosts.iter().map(|host| format!("include:<of {host}>")));
    if terms.len() == 1 {
        terms.push("ip4:<the address>".into());
    }
    terms.push("~all".into());
    terms.join(" ")
}

/// Whether a term is `all`, whatever it says.
fn is_all(term: &str) -> bool {
    term.trim_start_matches(['+', '-', '~', '?']).eq_ignore_ascii_case("all")
}

/// The record with addresses in it, ending as one should.
fn with(text: &str, sources: &[IpAddr]) -> String {
    let mut terms: Vec<&str> = text.split(' ').filter(|term| !term.is_empty()).collect();
    let redirect = |term: &&str| term.to_ascii_lowercase().starts_with("redirect=");
    let all = terms.iter().position(|term| is_all(term));
    let end = match all {
        Some(at) => Some(terms.drain(at..).next().unwrap_or("~all")).map(|all| match all.starts_with(['-', '~']) {
            true => all,
            false => "~all",
        }),
        None if terms.iter().any(redirect) => None,
        None => Some("~all"),
    };
    let own: Vec<String> = sources.iter().map(mechanism).collect();
    // Behind the version, where it costs no look-up.
    let mut made: Vec<&str> = terms.drain(..terms.len().min(1)).collect();
    made.extend(own.iter().map(String::as_str));
    made.extend(terms);
    made.extend(end);
    made.join(" ")
}

fn merged(records: &[&String]) -> String {
    let mut made = vec![VERSION];
    for term in records.iter().flat_map(|record| record.split(' ').skip(1)) {
        if !term.is_empty()
            && !is_all(term)
            && !made.contains(&term)
            && !term.to_ascii_lowercase().starts_with("redirect=")
        {
            made.push(term);
        }
    }
    let strict = records.iter().all(|record| record.split(' ').any(|term| term.eq_ignore_ascii_case("-all")));
    made.push(if strict { "-all" } else { "~all" });
    made.join(" ")
}

/// A record, for people.
fn long(text: &str) -> String {
    let mut cut: String = text.chars().take(300).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    cut
}
