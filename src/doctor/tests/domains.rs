//! Whole domains: one that is well, one with every fault, one whose name servers fail; and what is told of each thing.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::super::finding::{Finding, Mark, txt_line};
use super::super::names::Names;
use super::super::reach::{Reached, judge};
use super::super::subject::{Source, Subject};
use super::super::{Examined, LIMIT, MailHost, Web, dmarc, examine, published, sources, spf, unsubscribe, worst};
use super::{Zone, asker, ip};
use crate::clock::Timestamp;
use crate::config::{Dkim, DkimKey};
use crate::dkim::{Algorithm, SigningKey};
use crate::route::sts::{Fetch, PolicyHost, Unfetched};
use crate::route::{Answered, Asked};

pub(super) fn subject(domain: &str, sources: &[&str]) -> Subject {
    let source = |text: &&str| Source { address: ip(text), name: "relay.s.example".into(), from: "--ip".into() };
    Subject {
        domain: domain.into(),
        envelope: domain.into(),
        sources: sources.iter().map(source).collect(),
        smart_hosts: Vec::new(),
        keys: Vec::new(),
        blocklists: Vec::new(),
        allow_private: false,
        dnssec: true,
    }
}

fn key(domain: &str) -> Arc<Dkim> {
    let (key, _) = SigningKey::generate(Algorithm::RsaSha256).expect("a key");
    let key = DkimKey { path: "key.pem".into(), key };
    Arc::new(Dkim { domain: domain.into(), selector: "k".into(), key, subdomains: true, expires: Duration::ZERO })
}

struct Policy(&'static str);

#[async_trait]
impl Fetch for Policy {
    async fn fetch(&self, host: &str, _at: PolicyHost) -> Result<String, Unfetched> {
        if self.0.is_empty() { Err(format!("{host} answers 404, expected 200").into()) } else { Ok(self.0.to_owned()) }
    }
}

const ENFORCED: &str = "version: STSv1\nmode: enforce\nmx: mx.s.example\nmax_age: 604800\n";

async fn examined(zone: &dyn Names, subject: &Subject, policy: &'static str) -> Examined {
    examine(subject, zone, &Web { fetch: &Policy(policy), now: Timestamp(0) }).await
}

/// What was found wrong, or not found out.
fn bad(findings: &[Finding]) -> Vec<String> {
    let is_bad = |finding: &&Finding| matches!(finding.verdict, Mark::Failed | Mark::Unknown);
    findings.iter().filter(is_bad).map(|finding| format!("{} {}", finding.check, finding.found)).collect()
}

const WELL: &str = "\
    s.example TXT v=spf1 ip4:192.0.2.1 ip6:2001:db9::1 -all
    s.example MX 10 mx.s.example
    mx.s.example A 192.0.2.20
    relay.s.example A 192.0.2.1
    relay.s.example AAAA 2001:db9::1
    1.2.0.192.in-addr.arpa PTR relay.s.example
    1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.9.b.d.0.1.0.0.2.ip6.arpa PTR relay.s.example
    _dmarc.s.example TXT v=DMARC1; p=reject; rua=mailto:dmarc@s.example
    _mta-sts.s.example TXT v=STSv1; id=1;
    mta-sts.s.example A 192.0.2.30
    _smtp._tls.s.example TXT v=TLSRPTv1; rua=mailto:tls@s.example
    default._bimi.s.example TXT v=BIMI1; l=https://s.example/logo.svg;";

#[tokio::test]
async fn a_domain_that_is_well_has_nothing_to_mend() {
    let mut zone = Zone::of(WELL);
    let mut subject = subject("s.example", &["192.0.2.1", "2001:db9::1"]);
    let dkim = key("s.example");
    zone.add("k._domainkey.s.example", "TXT", &dkim.key.key.record().expect("a record"));
    subject.keys.push(dkim);
    let examined = examined(&zone, &subject, ENFORCED).await;
    assert_eq!(bad(&examined.findings), Vec::<String>::new());
    assert!(
        examined.findings.iter().all(|finding| matches!(finding.verdict, Mark::Ok | Mark::Skipped)),
        "{examined:?}"
    );
    assert!(examined.enforced);
    assert_eq!(examined.hosts, [MailHost { name: "mx.s.example".into(), addresses: vec![ip("192.0.2.20")] }]);
}

#[tokio::test]
async fn every_fault_is_told_with_what_to_publish() {
    let zone = Zone::of(
        "s.example TXT v=spf1 include:gone.example a:no.example a:no2.example mx:no3.example +all
         s.example MX 10 alias.s.example
         s.example MX 20 inside.s.example
         s.example MX 30 nowhere.s.example
         alias.s.example CNAME mx.s.example
         mx.s.example A 192.0.2.20
         inside.s.example A 10.0.0.1
         2.2.0.192.in-addr.arpa PTR other.s.example
         relay.s.example A 192.0.2.9
         _dmarc.s.example TXT v=DMARC1; p=nothing; rua=dmarc@s.example
         k._domainkey.s.example TXT v=DKIM1; k=rsa; p=
         _mta-sts.s.example TXT v=STSv1; id=1;
         mta-sts.s.example A 192.0.2.30
         _smtp._tls.s.example TXT v=TLSRPTv1; rua=tls@s.example
         default._bimi.s.example TXT v=BIMI1; l=http://s.example/logo.png",
    );
    let mut subject = subject("s.example", &["192.0.2.1", "192.0.2.2"]);
    subject.keys.push(key("s.example"));
    let findings = examined(&zone, &subject, ENFORCED).await.findings;
    for (check, found, publish) in [
        // Without `+all` nobody might be let through: what to name only a person knows.
        ("SPF", "v=spf1 include:gone.example", ""),
        ("SPF", "gone.example has no record", ""),
        ("SPF", "3 of 2 without a result", ""),
        ("SPF", "192.0.2.1 is judged permerror", ""),
        ("PTR", "has no name", "1.2.0.192.in-addr.arpa. IN PTR relay.s.example."),
        ("PTR", "192.0.2.2 is other.s.example, which does not lead back", "other.s.example. IN A 192.0.2.2"),
        ("EHLO", "we say relay.s.example, which is 192.0.2.9", "relay.s.example. IN A 192.0.2.1"),
        ("DMARC", "p=nothing: expected none", ""),
        ("DMARC", "expected mailto:dmarc@s.example", ""),
        ("DKIM", "its p= is empty", "k._domainkey.s.example. IN TXT ("),
        ("MX", "alias.s.example is a CNAME for mx.s.example", ""),
        ("MX", "10.0.0.1 is private", ""),
        ("MX", "nowhere.s.example has no address", ""),
        ("MTA-STS", "alias.s.example is an MX host, and the policy does not name it", ""),
        (
            "TLS-RPT",
            "expected mailto:tls@s.example",
            "_smtp._tls.s.example. IN TXT \"v=TLSRPTv1; rua=mailto:tls@s.example\"",
        ),
        ("BIMI", "expected an https address", ""),
    ] {
        let fits = |finding: &&Finding| {
            finding.check == check
                && finding.verdict == Mark::Failed
                && finding.found.contains(found)
                && (publish.is_empty() || finding.publish.iter().any(|line| line.starts_with(publish)))
        };
        assert!(findings.iter().any(|finding| fits(&finding)), "{check} {found}: {findings:#?}");
    }
    assert_eq!(worst(&findings), Mark::Failed);
}

#[tokio::test]
async fn nothing_at_all_is_missing_and_told_as_such() {
    let zone = Zone::of("s.example TXT anything");
    let findings = examined(&zone, &subject("s.example", &["192.0.2.1"]), "").await.findings;
    let told = bad(&findings).join("\n");
    for missing in
        ["SPF there is no record", "DKIM the configuration has no", "DMARC there is no policy", "MX there is no MX"]
    {
        assert!(told.contains(missing), "{missing}: {told}");
    }
    let line = "s.example. IN TXT \"v=spf1 ip4:192.0.2.1 ~all\"";
    assert!(findings.iter().any(|finding| finding.publish.iter().any(|publish| publish == line)), "{findings:#?}");
}

/// Name servers that say SERVFAIL, or nothing at all.
struct Down(bool);

#[async_trait]
impl Names for Down {
    async fn ask(&self, name: &str, _asked: Asked) -> Result<Answered, String> {
        if self.0 {
            std::future::pending::<()>().await
        }
        Err(format!("SERVFAIL for {name}"))
    }
}

#[tokio::test(start_paused = true)]
async fn what_nobody_answers_is_unknown_and_ends_in_time() {
    for silent in [false, true] {
        let began = Instant::now();
        let mut subject = subject("s.example", &["192.0.2.1"]);
        subject.keys.push(key("s.example"));
        subject.blocklists.push("list.example".into());
        let findings = examined(&Down(silent), &subject, "").await.findings;
        assert_eq!(worst(&findings), Mark::Unknown, "{findings:#?}");
        for check in ["SPF", "DKIM", "DMARC", "PTR", "EHLO", "blocklist", "MX", "MTA-STS", "TLS-RPT", "BIMI"] {
            assert!(findings.iter().any(|f| f.check == check && f.verdict == Mark::Unknown), "{check} {findings:#?}");
        }
        assert!(began.elapsed() <= LIMIT, "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn each_kind_of_record_that_fails_alone_is_unknown_and_nothing_else_is_wrong() {
    for (name, kind) in [
        ("s.example", "TXT"),
        ("s.example", "MX"),
        ("mx.s.example", "A"),
        ("_dmarc.s.example", "TXT"),
        ("k._domainkey.s.example", "TXT"),
        ("1.2.0.192.in-addr.arpa", "PTR"),
        ("relay.s.example", "A"),
        ("_mta-sts.s.example", "TXT"),
        ("mta-sts.s.example", "A"),
        ("_smtp._tls.s.example", "TXT"),
        ("default._bimi.s.example", "TXT"),
        ("_25._tcp.mx.s.example", "TLSA"),
    ] {
        let mut zone = Zone::of(WELL);
        let mut subject = subject("s.example", &["192.0.2.1", "2001:db9::1"]);
        let dkim = key("s.example");
        zone.add("k._domainkey.s.example", "TXT", &dkim.key.key.record().expect("a record"));
        subject.keys.push(dkim);
        zone.add(name, kind, "!");
        let findings = examined(&zone, &subject, ENFORCED).await.findings;
        assert_eq!(worst(&findings), Mark::Unknown, "{name} {kind}: {:?}", bad(&findings));
    }
}

#[tokio::test]
async fn a_private_source_is_told_and_not_judged() {
    let findings = sources::examine(&asker(&Zone::default()), &subject("s.example", &["10.1.2.3"])).await;
    assert_eq!(findings.len(), 1);
    assert!(findings[0].verdict == Mark::Skipped && findings[0].remedy.contains("--ip"), "{findings:?}");
}

#[tokio::test]
async fn a_blocklist_lists_refuses_to_say_or_is_none() {
    for (answer, mark, words) in [
        ("", Mark::Ok, "not listed"),
        ("127.0.0.2", Mark::Failed, "listed by list.example (127.0.0.2) see https://list.example"),
        ("127.255.255.254", Mark::Unknown, "public name server"),
        ("127.255.255.255", Mark::Unknown, "too often"),
        ("203.0.113.5", Mark::Unknown, "no list"),
    ] {
        let mut zone = Zone::of(WELL);
        if !answer.is_empty() {
            zone.add("1.2.0.192.list.example", "A", answer);
            zone.add("1.2.0.192.list.example", "TXT", "see https://list.example");
        }
        let mut subject = subject("s.example", &["192.0.2.1"]);
        subject.blocklists.push("list.example".into());
        let findings = sources::examine(&asker(&zone), &subject).await;
        let told = findings.iter().find(|finding| finding.check == "blocklist").expect("a finding");
        assert!(told.verdict == mark && told.found.contains(words), "{answer}: {told:?}");
    }
}

#[tokio::test]
async fn policies_are_found_upwards_and_alignment_is_of_the_organization() {
    let told =
        |zone: &'static str, subject: Subject| async move { dmarc::examine(&asker(&Zone::of(zone)), &subject).await };
    let org = "_dmarc.s.example TXT v=DMARC1; p=reject; sp=quarantine; rua=mailto:d@s.example";
    let mut below = subject("a.b.c.d.e.f.g.h.i.s.example", &[]);
    below.envelope = "bounces.s.example".into();
    let findings = told(org, below.clone()).await;
    assert_eq!(bad(&findings), Vec::<String>::new());
    assert!(findings[0].found.starts_with("sp=quarantine (of _dmarc.s.example)"), "{findings:#?}");
    // Strict, and another organization.
    let strict = "_dmarc.a.s.example TXT v=DMARC1; p=reject; aspf=s; rua=mailto:d@a.s.example";
    let mut other = subject("a.s.example", &[]);
    other.envelope = "s.example".into();
    assert!(bad(&told(strict, other.clone()).await)[0].contains("SPF of s.example does not count"));
    let relaxed = "_dmarc.a.s.example TXT v=DMARC1; p=reject; rua=mailto:d@a.s.example";
    let findings = told(relaxed, other.clone()).await;
    assert!(bad(&findings).is_empty() && findings.iter().any(|f| f.verdict == Mark::Note), "{findings:#?}");
    other.envelope = "elsewhere.test".into();
    assert!(bad(&told(relaxed, other).await)[0].contains("SPF of elsewhere.test does not count"));
    // Somebody who gives out domains has no organization below it in common.
    let suffix = "_dmarc.example TXT v=DMARC1; p=reject; psd=y";
    let mut sibling = subject("one.example", &[]);
    sibling.envelope = "two.example".into();
    assert!(bad(&told(suffix, sibling).await).iter().any(|found| found.contains("SPF of two.example does not count")));
}

/// What is proposed loses nothing that is published, or nothing is proposed.
#[tokio::test]
async fn no_record_is_proposed_that_loses_some_of_what_is_there() {
    for (records, publish) in [
        (
            "d.example TXT v=spf1 include:a.example -all\nd.example TXT v=spf1 mx -all",
            Some("d.example. IN TXT \"v=spf1 ip4:192.0.2.7 include:a.example mx -all\""),
        ),
        ("d.example TXT v=spf1 redirect=a.example\nd.example TXT v=spf1 mx -all", None),
        ("d.example TXT v=spf1 ip4:bad -all\nd.example TXT v=spf1 mx -all", None),
        ("d.example TXT \"v=spf1 include:a.example -all", None),
        ("_dmarc.d.example TXT v=dmarc1; p=reject", None),
    ] {
        let zone = Zone::of(&format!("a.example TXT v=spf1 ip4:198.51.100.9 -all\n{records}"));
        let subject = subject("d.example", &["192.0.2.7"]);
        let mut findings = spf::examine(&asker(&zone), &subject).await;
        findings.extend(dmarc::examine(&asker(&zone), &subject).await);
        let check = if records.starts_with("_dmarc") { "DMARC" } else { "SPF" };
        let of = findings.iter().filter(|finding| finding.check == check && finding.verdict == Mark::Failed);
        let proposed: Vec<&String> = of.flat_map(|finding| &finding.publish).collect();
        assert_eq!(proposed, publish.iter().collect::<Vec<_>>(), "{records}");
    }
}

#[test]
fn one_click_needs_both_fields_and_a_signature_over_them() {
    let told = |header: &str, signs: bool| {
        let text = format!("From: News <n@news.s.example>\r\n{header}\r\n\r\nList-Unsubscribe-Post: x\r\n");
        let findings = unsubscribe::examine(text.as_bytes(), |domain| signs && domain == "news.s.example", "m");
        findings.iter().map(|finding| finding.verdict == Mark::Ok).collect::<Vec<_>>()
    };
    let good = "List-Unsubscribe: <mailto:u@s.example>,\r\n <https://s.example/u?a=1>\r\n\
                list-unsubscribe-post: List-Unsubscribe=One-Click";
    assert_eq!(told(good, true), [true, true, true]);
    assert_eq!(told(good, false), [true, true, false]);
    let signed = format!("DKIM-Signature: v=1; h=From : list-unsubscribe:\r\n\tList-Unsubscribe-Post; b=x\r\n{good}");
    assert_eq!(told(&signed, false), [true, true, true]);
    assert_eq!(told(&format!("DKIM-Signature: v=1; h=From; b=x\r\n{good}"), false), [true, true, false]);
    assert_eq!(told("Subject: x", true), [false, false]);
    assert_eq!(
        told("List-Unsubscribe: <mailto:u@s.example>\r\nList-Unsubscribe-Post: yes", true),
        [false, false, true]
    );
    assert_eq!(told("List-Unsubscribe: https://s.example/u", true), [false, false]);
    // Of another domain, and of nobody knows which.
    for from in ["From: a@other.example", "From: a@news.s.example\r\nFrom: b@news.s.example", "X: y"] {
        let text = format!("{from}\r\n{good}\r\n\r\n");
        let findings = unsubscribe::examine(text.as_bytes(), |domain| domain == "news.s.example", "m");
        assert_eq!(findings.last().map(|finding| finding.verdict), Some(Mark::Failed), "{from}");
    }
    assert_eq!(told(&format!("{good}\r\n{good}"), true), [false, false, true]);
}

#[test]
fn connections_are_judged_by_how_far_they_went() {
    let host = |name: &str| MailHost { name: name.into(), addresses: Vec::new() };
    let told = |reached: &[(MailHost, Reached)], enforced| {
        judge("s.example", reached, 25, enforced).iter().map(|finding| finding.verdict).collect::<Vec<_>>()
    };
    let nobody = (host("a"), Reached::Nobody("no answer".into()));
    let good = (host("b"), Reached::Good("TLS 1.3".into()));
    let certificate = (host("c"), Reached::Certificate("expired".into()));
    assert_eq!(told(std::slice::from_ref(&nobody), false), [Mark::Failed, Mark::Unknown]);
    assert_eq!(told(&[nobody, good], false), [Mark::Ok, Mark::Failed, Mark::Ok]);
    assert_eq!(told(std::slice::from_ref(&certificate), false), [Mark::Ok, Mark::Note]);
    assert_eq!(told(&[certificate], true), [Mark::Ok, Mark::Failed]);
    assert_eq!(told(&[], true), [Mark::Skipped]);
}

#[test]
fn a_long_record_is_published_in_strings_that_fit() {
    let text = format!("v=spf1 {}\"\\", "ip4:192.0.2.1 ".repeat(40));
    let line = txt_line("s.example", &text);
    let strings: Vec<&str> = line.split("\" \"").collect();
    assert!(strings.len() == 3 && line.ends_with("\\\"\\\\\" )"), "{line}");
    assert_eq!(txt_line("s.example", "v=spf1 -all"), "s.example. IN TXT \"v=spf1 -all\"");
}

/// What receivers may use no part of is not ok beside its fault.
#[tokio::test]
async fn a_record_with_a_fault_is_not_ok_beside_it() {
    for record in ["v=DMARC1; p=nome", "v=DMARC1; p=reject; adkim=x", "v=DMARC1; p=reject; rua=d@s.example"] {
        let zone = Zone::of(&format!("_dmarc.s.example TXT {record}"));
        let findings = dmarc::examine(&asker(&zone), &subject("s.example", &[])).await;
        let of: Vec<Mark> = findings.iter().filter(|f| f.check == "DMARC").map(|f| f.verdict).collect();
        assert!(of.contains(&Mark::Failed) && !of.contains(&Mark::Ok), "{record}: {findings:#?}");
    }
}

/// DMARC passes by SPF or DKIM.
#[tokio::test]
async fn what_is_not_aligned_is_a_note_where_the_other_is() {
    let zone = Zone::of("_dmarc.s.example TXT v=DMARC1; p=reject; rua=mailto:d@s.example");
    let mut subject = subject("s.example", &[]);
    subject.envelope = "bounces.elsewhere.test".into();
    let alignment = async |subject: &Subject| {
        let findings = dmarc::examine(&asker(&zone), subject).await;
        findings.into_iter().filter(|f| f.check == "alignment").map(|f| f.verdict).collect::<Vec<_>>()
    };
    subject.keys.clear();
    assert_eq!(alignment(&subject).await, [Mark::Failed]);
    subject.keys = vec![key("s.example")];
    assert_eq!(alignment(&subject).await, [Mark::Note, Mark::Ok]);
}

/// Of whom a record asks who it is, nobody knows what becomes.
#[tokio::test]
async fn a_record_that_asks_who_sends_is_no_verdict_on_all() {
    for (record, verdict) in [
        ("v=spf1 exists:%{l}._spf.s.example -all", Mark::Note),
        ("v=spf1 include:%{s}.x.s.example ip4:192.0.2.7 -all", Mark::Failed),
        ("v=spf1 ip4:192.0.2.7 exists:%{l}._spf.s.example -all", Mark::Ok),
        ("v=spf1 exists:%{d}.x.s.example -all", Mark::Failed),
    ] {
        let zone = Zone::of(&format!("s.example TXT {record}\npostmaster._spf.s.example A 127.0.0.2"));
        let findings = spf::examine(&asker(&zone), &subject("s.example", &["192.0.2.7"])).await;
        let judged = findings.iter().find(|f| f.found.contains("is judged")).expect("a verdict");
        assert_eq!(judged.verdict, verdict, "{record}: {judged:?}");
        assert_eq!(judged.found.contains("asks who sends"), verdict == Mark::Note, "{judged:?}");
    }
}

#[tokio::test]
async fn a_wide_prefix_of_a_host_lets_everybody_through() {
    for (term, open) in [
        ("a:h.s.example/0", true),
        ("mx/3", true),
        ("a:h.s.example//0", true),
        ("a:h.s.example/24", false),
        ("~a:h.s.example/0", false),
        ("a:none.s.example/0", false),
    ] {
        let zone = Zone::of(&format!(
            "s.example TXT v=spf1 {term} -all\ns.example MX 10 h.s.example\nh.s.example A 192.0.2.9"
        ));
        let findings = spf::examine(&asker(&zone), &subject("s.example", &[])).await;
        assert_eq!(findings.iter().any(|f| f.found.contains("almost everybody")), open, "{term}: {findings:#?}");
    }
}

/// What somebody meant to be a record is told of, and what stands there for other reasons is not.
#[tokio::test]
async fn records_that_only_resemble_one_are_told() {
    for (record, verdict) in [
        ("_smtp._tls.s.example TXT v=TLSRPT1; rua=mailto:t@s.example", Mark::Failed),
        ("_smtp._tls.s.example TXT v=tlsrptv1; rua=mailto:t@s.example", Mark::Failed),
        ("_smtp._tls.s.example TXT rua=mailto:t@s.example", Mark::Failed),
        ("_smtp._tls.s.example TXT v=TLSRPTv1; rua=mailto:t@s.example", Mark::Ok),
        ("_smtp._tls.s.example TXT v=spf1 include:hosts.example -all", Mark::Skipped),
        ("default._bimi.s.example TXT v=BIMI; l=https://s.example/l.svg", Mark::Failed),
        ("default._bimi.s.example TXT something else", Mark::Skipped),
    ] {
        let zone = Zone::of(record);
        let (asker, subject) = (asker(&zone), subject("s.example", &[]));
        let finding = match record.starts_with("_smtp") {
            true => published::tls_reports(&asker, &subject).await,
            false => published::bimi(&asker, &subject, true).await,
        };
        assert_eq!(finding.verdict, verdict, "{record}: {finding:?}");
    }
}

#[tokio::test]
async fn a_domain_that_is_not_there_is_said_to_be_so_and_nothing_else() {
    let zone = Zone::of("s.example TXT v=spf1 -all");
    let findings = examined(&zone, &subject("gone.example", &["192.0.2.7"]), "").await.findings;
    let told: Vec<(&str, Mark)> = findings.iter().map(|f| (f.check, f.verdict)).collect();
    assert_eq!(told, [("domain", Mark::Failed)], "{findings:#?}");
    let mut other = subject("s.example", &[]);
    other.envelope = "gone.example".into();
    let findings = examined(&zone, &other, "").await.findings;
    assert!(findings[0].check == "domain" && findings[0].of == "gone.example" && findings.len() > 3, "{findings:#?}");
}
