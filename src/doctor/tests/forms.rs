//! Forms of records as they were seen in the world: reports of bugs of checkers, and lists of frequent mistakes. None was
//! looked at while the readers of records were written.

use super::super::finding::{Finding, Mark};
use super::super::{dmarc, published, spf, worst};
use super::domains::subject;
use super::{Zone, asker};

/// What is to be told: the verdict, and words of it.
type Told = (Mark, &'static str);

const OK: Told = (Mark::Ok, "");

fn wrong(words: &'static str) -> Told {
    (Mark::Failed, words)
}

fn all(findings: &[Finding]) -> String {
    findings.iter().map(|f| format!("{} {} → {}", f.verdict.shown(), f.found, f.remedy)).collect::<Vec<_>>().join(" | ")
}

#[tokio::test]
async fn records_of_spf_as_people_write_them() {
    let world = "ok.example TXT v=spf1 ip4:198.51.100.1 -all
        one.example TXT v=spf1 include:ok.example ~all
        two.example TXT v=spf1 include:ok.example ~all
        _spf.s.example TXT v=spf1 -all
        postmaster._spf.s.example TXT v=spf1 -all";
    let mut missed = Vec::new();
    let forms = [
        // Reporting of RFC 6652, which some checkers take for a fault.
        ("v=spf1 ip4:192.0.2.7 ra=postmaster -all", OK),
        ("v=spf1 ip4:192.0.2.7 -all ra=postmaster", OK),
        ("v=spf1 ip4:45.154.45.81~all", wrong("is no address")),
        ("v=spf1 ip4:45.154.45.81 ~all;", wrong("not by `;`")),
        ("v=spf1 include:a.b.com|c.d.com|e.f.com ~all", wrong("a.b.com|c.d.com")),
        ("v=spf1 include:ok.example ip4: 198.58.98.141 ~all", wrong("is no address")),
        ("v=spf1 ipv4:120.197.68.19/24 ipv4:113.106.14.0/24 -all", wrong("did you mean ip4")),
        // Two look-ups that find nothing, not three.
        ("v=spf1 a mx -all", (Mark::Ok, "2 of 2 without a result")),
        ("v=spf1 redirect=%{l1r+}._spf.%{d}", OK),
        ("v=spf1 redirect=_spf.%{d}", OK),
        ("v=spf1 exp=explain._spf1.example.org ip4:192.0.2.7 ~all", OK),
        ("v=spf1 alloutlook.com ~all", wrong("there is no mechanism")),
        // The same record by two ways is no circle.
        ("v=spf1 include:one.example include:two.example ~all", OK),
        ("v=spf1 ip4:38.1.1.1 ?all.", wrong("`?all.`")),
        ("v=spf1 +ip4:192.0.2.7 +include:ok.example ~all", OK),
        ("v=spf1\u{a0}ip4:192.0.2.7 -all", wrong("pass over")),
        ("\"v=spf1 ip4:192.0.2.7 -all\"", wrong("pass over")),
        ("v=spf1  ip4:192.0.2.7   -all ", OK),
        ("V=SPF1 IP4:192.0.2.7 -ALL", OK),
        ("v=spf1 ip4:192.0.2.7/24, ip4:192.0.2.9 -all", wrong("/24,")),
        ("v=spf1 include:https://ok.example -all", wrong("https://ok.example")),
        ("v=spf1 include:ok.example -all v=spf1 include:one.example -all", OK),
        ("v=spf1 mx:ok.example:one.example -all", wrong("ok.example:one.example")),
        ("v=spf1 ip4:10.0.0.0-10.0.0.9 -all", wrong("is no address")),
    ];
    for (text, (mark, words)) in forms {
        let mut zone = Zone::of(world);
        zone.add("s.example", "TXT", text);
        let findings = spf::examine(&asker(&zone), &subject("s.example", &[])).await;
        if worst(&findings) != mark || !all(&findings).contains(words) {
            missed.push(format!("{text}: {}", all(&findings)));
        }
    }
    println!("{} of {} forms of SPF", forms.len() - missed.len(), forms.len());
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

#[tokio::test]
async fn records_of_dmarc_as_people_write_them() {
    let world = "s.example._report._dmarc.rep.test TXT v=DMARC1;";
    let mut missed = Vec::new();
    let forms = [
        (" v=DMARC1; p=reject", wrong("pass over")),
        ("v = DMARC1 ; p = reject", OK),
        ("v=DMARC1; p=reject; rua=; ruf=;", wrong("rua")),
        ("v=dmarc1;p=none;", wrong("pass over")),
        ("v=DMARC; p=none; pct=100; rua=mailto:a@s.example", wrong("pass over")),
        ("v=DMARCl; p=reject; rua=mailto:a@s.example", wrong("pass over")),
        ("p=reject;rua=mailto:a@s.example", wrong("pass over")),
        ("v=DMARC1; p=reject; sp- reject; rua=mailto:a@s.example", wrong("`sp- reject`")),
        ("v=DMARC1; p=reject; fo=0,d,s; rua=mailto:a@s.example", wrong("with colons")),
        ("v=DMARC1; p=none, rua=mailto:a@s.example", wrong("p=none,")),
        ("v=DMARC1; p=none rua=mailto:a@s.example", wrong("`;` is missing")),
        ("v=DMARC1 p=none; rua=mailto:a@s.example", wrong("`;` is missing")),
        ("v=DMARC1; p=reject; rua=a@s.example", wrong("expected mailto:a@s.example")),
        ("v=DMARC1; p=reject; rua=mailto:postmaster", wrong("mailto:postmaster")),
        ("v=DMARC1; p=reject; rua=mailto:a@s.example; mailto:b@s.example", wrong("mailto:b@s.example")),
        ("v=DMARC1\\; p=reject\\; rua=mailto:a@s.example", wrong("backslash")),
        ("\"v=DMARC1; p=reject\"", wrong("pass over")),
        ("v=DMARC1; p:none", wrong("`p:none`")),
        ("domain=s.example;v=DMARC1;p=none;sp=none;rua=mailto:a@s.example", wrong("pass over")),
        ("v=DMARC1; rua=mailto:a@s.example; p=reject", (Mark::Ok, "second")),
        ("v=DMARC1; p=reject; rua=mailto:a@rep.test", (Mark::Ok, "rep.test takes")),
        ("v=DMARC1; p=reject; rua=mailto:a@other.test", (Mark::Ok, "does not say that it takes")),
        ("v=DMARC1; p=reject; rua=mailto:a@s.example!10m, mailto:b@s.example", OK),
        ("v=DMARC1;p=reject;pct=100;fo=1:d:s;ri=86400;rf=afrf;adkim=r;aspf=r;rua=mailto:a@s.example;", OK),
        ("v=DMARC1; p=monitor; rua=mailto:a@s.example", wrong("p=monitor")),
        ("v=DMARC1; p=reject; p=none; rua=mailto:a@s.example", wrong("twice")),
        ("v=DMARC1; p=reject; pct=50%; rua=mailto:a@s.example", wrong("pct=50%")),
        ("v=DMARC1; p=reject; rua=mailto: a@s.example", wrong("mailto: a@s.example")),
    ];
    for (text, (mark, words)) in forms {
        let mut zone = Zone::of(world);
        zone.add("_dmarc.s.example", "TXT", text);
        let findings = dmarc::examine(&asker(&zone), &subject("s.example", &[])).await;
        if worst(&findings) != mark || !all(&findings).contains(words) {
            missed.push(format!("{text}: {}", all(&findings)));
        }
    }
    println!("{} of {} forms of DMARC", forms.len() - missed.len(), forms.len());
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

/// A second set, looked for after what the first one taught was mended.
#[tokio::test]
async fn more_records_as_people_write_them() {
    let world = "ok.example TXT v=spf1 ip4:198.51.100.1 -all";
    let note = |words: &'static str| (Mark::Ok, words);
    let forms = [
        ("SPF", "v=spf1 include.spf.protection.outlook.com -all", wrong("there is no mechanism")),
        ("SPF", "v=spf1 include=ok.example -all", wrong("did you mean include:ok.example?")),
        ("SPF", "v=spf1 exists -all exp", wrong("expected exists:DOMAIN")),
        ("SPF", "v=spf1 ptr:example -all", wrong("is no domain name")),
        ("SPF", "v=spf1 ip4:192.0.2.7 -all exp=explain.example.org", OK),
        ("SPF", "v=spf1 include: -all", wrong("a domain is missing")),
        ("SPF", "v=spf1 ip4:185.132.182.57", note("without `all`")),
        ("SPF", "v=spf1 include:%{ir}.%{d}._spf.s.example -all", OK),
        ("SPF", "v=spf10 ip4:192.0.2.7 -all", wrong("pass over")),
        ("SPF", "v=spf1\tip4:192.0.2.7 -all", wrong("pass over")),
        ("SPF", "v=spf1 ip4:192.0.2.7\tip4:192.0.2.8 -all", wrong("is no address")),
        ("SPF", "v=spf1 a:s.example. -all", note("1 of 2 without a result")),
        ("SPF", "v=spf1 a//64 mx/24//64 -all", note("2 of 2 without a result")),
        ("DMARC", "v=DMARC1;p=reject;sp=reject;fo=1;ri=3600;rua=mailto:a@s.example,mailto:b@s.example;", OK),
        ("DMARC", "V=DMARC1; p=none", wrong("pass over")),
        ("DMARC", "v=DMARC1; p=reject; rua=mailto:a@s.example; rua=mailto:b@s.example", wrong("twice")),
        (
            "DMARC",
            "v=DMARC1; p=quarantine; sp=reject; pct=100; rua=mailto:a@s.example; ruf=mailto:a@s.example; fo=1",
            OK,
        ),
        // RFC 7489 §6.3: tags that are not known are passed over.
        ("DMARC", "v=DMARC1; p=reject; rua=mailto:a@s.example; x-foo=1", note("x-foo")),
        ("DMARC", "v=DMARC1; p=reject; pct=0; rua=mailto:a@s.example", note("part of the mail")),
        ("DMARC", "v=DMARC1; p=reject; np=reject; psd=n; rua=mailto:a@s.example", OK),
        ("DMARC", "v=DMARC1; p=reject; ri=1d; rua=mailto:a@s.example", wrong("ri=1d")),
        ("DMARC", "v=DMARC1;;p=reject;rua=mailto:a@s.example", OK),
        ("TLS-RPT", "v=TLSRPTv1;rua=https://tlsrpt.example.net/report", OK),
        ("TLS-RPT", "v=TLSRPTv1\\; rua=mailto:postmaster@s.example.", wrong("backslash")),
        ("BIMI", "v=BIMI1; l=https://a.example/b/c_inc2.svg; a=https://a.example/b/c_inc2.pem;", OK),
        ("BIMI", "v=BIMI1; l=; a=;", OK),
    ];
    let mut missed = Vec::new();
    for (kind, text, (mark, words)) in forms {
        let mut zone = Zone::of(world);
        let at = match kind {
            "SPF" => "s.example",
            "DMARC" => "_dmarc.s.example",
            "TLS-RPT" => "_smtp._tls.s.example",
            _ => "default._bimi.s.example",
        };
        zone.add(at, "TXT", text);
        let (asker, subject) = (asker(&zone), subject("s.example", &[]));
        let findings = match kind {
            "SPF" => spf::examine(&asker, &subject).await,
            "DMARC" => dmarc::examine(&asker, &subject).await,
            "TLS-RPT" => vec![published::tls_reports(&asker, &subject).await],
            _ => vec![published::bimi(&asker, &subject, true).await],
        };
        if worst(&findings) != mark || !all(&findings).contains(words) {
            missed.push(format!("{text}: {}", all(&findings)));
        }
    }
    println!("{} of {} forms of the second set", forms.len() - missed.len(), forms.len());
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

proptest::proptest! {
    /// What strangers publish is read without a panic, and what is proposed in its place is a record.
    #[test]
    fn whatever_is_published_is_read(text in "(v=spf1 |v=DMARC1;|)([ -~]|[%{}:/=;.é\u{202e}\u{1b}]|ip4:|include:|redirect=|%\\{[a-z]){0,30}") {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(async {
            let mut zone = Zone::default();
            for at in ["s.example", "_dmarc.s.example", "_smtp._tls.s.example", "default._bimi.s.example"] {
                zone.add(at, "TXT", if text == "!" { "" } else { &text });
            }
            let (asker, subject) = (asker(&zone), subject("s.example", &["192.0.2.1"]));
            let told = spf::examine(&asker, &subject).await;
            assert_ne!(worst(&told), Mark::Unknown, "{told:?}");
            dmarc::examine(&asker, &subject).await;
            published::tls_reports(&asker, &subject).await;
            published::bimi(&asker, &subject, true).await;
            crate::doctor::unsubscribe::examine(text.as_bytes(), |_| false, "m");
        });
    }
}
