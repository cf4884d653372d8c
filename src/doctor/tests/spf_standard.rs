//! SPF by the examples of RFC 7208 (appendix A, §7.4), and by what its text says.

use super::super::spf::check::{Client, check};
use super::super::spf::macros::{Values, expand};
use super::super::spf::record::Record;
use super::super::spf::survey::Survey;
use super::{Zone, asker, ip};

/// RFC 7208, appendix A.
const EXAMPLE: &str = "\
    example.com MX 10 mail-a.example.com
    example.com MX 20 mail-b.example.com
    example.com A 192.0.2.10
    example.com A 192.0.2.11
    amy.example.com A 192.0.2.65
    bob.example.com A 192.0.2.66
    mail-a.example.com A 192.0.2.129
    mail-b.example.com A 192.0.2.130
    example.org MX 10 mail-c.example.org
    mail-c.example.org A 192.0.2.140
    10.2.0.192.in-addr.arpa PTR example.com
    11.2.0.192.in-addr.arpa PTR example.com
    65.2.0.192.in-addr.arpa PTR amy.example.com
    66.2.0.192.in-addr.arpa PTR bob.example.com
    129.2.0.192.in-addr.arpa PTR mail-a.example.com
    130.2.0.192.in-addr.arpa PTR mail-b.example.com
    140.2.0.192.in-addr.arpa PTR mail-c.example.org
    4.0.0.10.in-addr.arpa PTR bob.example.com
    mary.mobile-users._spf.example.com A 127.0.0.2
    8.0.2.192.wl.example.com A 127.0.0.2";

async fn verdict(zone: &Zone, ip_text: &str, sender: &str) -> &'static str {
    let domain = sender.rsplit('@').next().expect("a domain");
    let client = Client { ip: ip(ip_text), sender, helo: "mail.client.example" };
    check(&asker(zone), &client, domain).await.verdict.name()
}

#[tokio::test]
async fn the_examples_of_the_standard() {
    for (record, passes, fails) in [
        ("v=spf1 +all", &["192.0.2.129", "203.0.113.9"] as &[&str], &[] as &[&str]),
        ("v=spf1 a -all", &["192.0.2.10", "192.0.2.11"], &["192.0.2.129"]),
        ("v=spf1 a:example.org -all", &[], &["192.0.2.10"]),
        ("v=spf1 mx -all", &["192.0.2.129", "192.0.2.130"], &["192.0.2.10"]),
        ("v=spf1 mx:example.org -all", &["192.0.2.140"], &["192.0.2.129"]),
        ("v=spf1 mx mx:example.org -all", &["192.0.2.129", "192.0.2.140"], &["192.0.2.10"]),
        ("v=spf1 mx/30 mx:example.org/30 -all", &["192.0.2.131", "192.0.2.143"], &["192.0.2.132"]),
        ("v=spf1 ptr -all", &["192.0.2.65", "192.0.2.10"], &["192.0.2.140", "10.0.0.4"]),
        ("v=spf1 ip4:192.0.2.128/28 -all", &["192.0.2.129", "192.0.2.140"], &["192.0.2.65"]),
        ("v=spf1 exists:%{l1r}.mobile-users._spf.%{d} -all", &["198.51.100.7"], &[]),
        ("v=spf1 exists:%{ir}.wl.%{d} -all", &[], &["192.0.2.9"]),
    ] {
        let zone = Zone::of(&format!("{EXAMPLE}\n example.com TXT {record}"));
        for passing in passes {
            assert_eq!(verdict(&zone, passing, "Mary@example.com").await, "pass", "{record} {passing}");
        }
        for failing in fails {
            assert_eq!(verdict(&zone, failing, "joe@example.com").await, "fail", "{record} {failing}");
        }
    }
    // Two domains that share a record, and one that asks another (appendix A.2).
    let zone = Zone::of(
        "example.org TXT v=spf1 include:example.com include:example.net -all
         la.example.org TXT v=spf1 redirect=example.org
         example.com TXT v=spf1 ip4:192.0.2.128/28 -all
         example.net TXT v=spf1 ?ip6:2001:db8::/32 ~all",
    );
    assert_eq!(verdict(&zone, "192.0.2.129", "a@la.example.org").await, "pass");
    assert_eq!(verdict(&zone, "2001:db8::1", "a@la.example.org").await, "fail", "neutral of another is no match");
}

#[test]
fn macros_of_the_standard() {
    let of = |ip_text: &str, text: &str| {
        let sender = "strong-bad@email.example.com";
        let values = Values { ip: ip(ip_text), sender, domain: "email.example.com", helo: "mx.example.org" };
        expand(text, &values).expect(text)
    };
    for (text, expected) in [
        ("%{s}", "strong-bad@email.example.com"),
        ("%{o}", "email.example.com"),
        ("%{d}", "email.example.com"),
        ("%{d4}", "email.example.com"),
        ("%{d3}", "email.example.com"),
        ("%{d2}", "example.com"),
        ("%{d1}", "com"),
        ("%{dr}", "com.example.email"),
        ("%{d2r}", "example.email"),
        ("%{l}", "strong-bad"),
        ("%{l-}", "strong.bad"),
        ("%{lr}", "strong-bad"),
        ("%{lr-}", "bad.strong"),
        ("%{l1r-}", "strong"),
        ("%{ir}.%{v}._spf.%{d2}", "3.2.0.192.in-addr._spf.example.com"),
        ("%{lr-}.lp._spf.%{d2}", "bad.strong.lp._spf.example.com"),
        ("%{lr-}.lp.%{ir}.%{v}._spf.%{d2}", "bad.strong.lp.3.2.0.192.in-addr._spf.example.com"),
        ("%{ir}.%{v}.%{l1r-}.lp._spf.%{d2}", "3.2.0.192.in-addr.strong.lp._spf.example.com"),
        ("%{d2}.trusted-domains.example.net", "example.com.trusted-domains.example.net"),
        ("%{h}.%%x.%_y", "mx.example.org.%x. y"),
    ] {
        assert_eq!(of("192.0.2.3", text), expected, "{text}");
    }
    assert_eq!(
        of("2001:db8::cb01", "%{ir}.%{v}._spf.%{d2}"),
        "1.0.b.c.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6._spf.example.com"
    );
    // Longer than a name may be: labels go from the left.
    let long = of("192.0.2.3", &format!("{}%{{d}}", "a23456789.".repeat(30)));
    assert!(long.len() <= 253 && long.ends_with(".a23456789.email.example.com"), "{long}");
}

#[test]
fn what_is_wrong_with_a_record_is_told_with_what_was_meant() {
    for (record, told) in [
        ("v=spf1 192.0.2.1 -all", "expected ip4:192.0.2.1"),
        ("v=spf1 ip4:192.0.2.1/33 -all", "expected 0 to 32"),
        ("v=spf1 ip4:2001:db8::1 -all", "expected ip6:"),
        ("v=spf1 ip6:192.0.2.1 -all", "expected ip4:"),
        ("v=spf1 ip4:mail.example.com -all", "expected a:NAME or include:NAME"),
        ("v=spf1 ip4: 192.0.2.1 -all", "is no address"),
        ("v=spf1 include: example.com -all", "a domain is missing"),
        ("v=spf1 include -all", "expected include:DOMAIN"),
        ("v=spf1 incldue:example.com -all", "did you mean include?"),
        ("v=spf1 ipv4:192.0.2.1 -all", "did you mean ip4?"),
        ("v=spf1 include:192.0.2.1 -all", "is an address, expected a domain"),
        ("v=spf1 a:localhost -all", "is no domain name"),
        ("v=spf1 a, mx -all", "separated by spaces"),
        ("v=spf1 mx - all", "a space too many"),
        ("v=spf1 all:x -all", "takes no argument"),
        ("v=spf1 redirect=a.example redirect=b.example", "2 times"),
        ("v=spf1 exists:%{x}.example.com -all", "is no macro"),
        ("v=spf1 a:%d.example.com -all", "stands alone"),
        ("v=spf1 mx v=spf1 -all a", ""),
    ] {
        let faults = Record::parse(record).map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>());
        match told {
            // `v=` is a modifier that nobody knows.
            "" => assert!(faults.is_ok(), "{record}"),
            _ => assert!(
                faults.as_ref().is_err_and(|all| all.iter().any(|one| one.contains(told))),
                "{record}: {faults:?}"
            ),
        }
    }
}

#[tokio::test]
async fn limits_hold_as_the_standard_says() {
    let mut zone = Zone::default();
    for n in 0..12 {
        zone.add(&format!("i{n}.example"), "TXT", "v=spf1 ip4:198.51.100.1 -all");
    }
    let includes = |n: usize| (0..n).map(|n| format!("include:i{n}.example ")).collect::<String>();
    zone.add("ten.example", "TXT", &format!("v=spf1 {}-all", includes(10)));
    zone.add("eleven.example", "TXT", &format!("v=spf1 {}-all", includes(11)));
    zone.add("early.example", "TXT", &format!("v=spf1 ip4:192.0.2.1 {}-all", includes(11)));
    zone.add("voids.example", "TXT", "v=spf1 a:x.example a:y.example -all");
    zone.add("more.example", "TXT", "v=spf1 a:x.example a:y.example mx:z.example -all");
    zone.add("circle.example", "TXT", "v=spf1 include:circle.example -all");
    zone.add("nobody.example", "TXT", "v=spf1 include:none.example -all");
    zone.add("two.example", "TXT", "v=spf1 -all");
    zone.add("two.example", "TXT", "v=spf1 ~all");
    zone.add("down.example", "TXT", "!");
    zone.add("leads.example", "TXT", "v=spf1 include:down.example -all");
    zone.add("hosts.example", "TXT", "v=spf1 mx -all");
    (0..11).for_each(|n| zone.add("hosts.example", "MX", &format!("{n} m{n}.example")));
    for (domain, expected) in [
        ("ten", "fail"),
        ("eleven", "permerror"),
        ("early", "pass"),
        ("voids", "fail"),
        ("more", "permerror"),
        ("circle", "permerror"),
        ("nobody", "permerror"),
        ("two", "permerror"),
        ("down", "temperror"),
        ("leads", "temperror"),
        ("hosts", "permerror"),
        ("none", "none"),
    ] {
        assert_eq!(verdict(&zone, "192.0.2.1", &format!("a@{domain}.example")).await, expected, "{domain}");
    }
}

#[tokio::test]
async fn a_survey_counts_all_and_finds_who_lets_everybody_through() {
    let zone = Zone::of(
        "a.example A 192.0.2.1
         b.example TXT v=spf1 a:a.example exists:%{i}.x.example +all
         c.example TXT v=spf1 -all
         d.example TXT v=spf1 include:b.example -all",
    );
    let text = "v=spf1 a:a.example a:gone.example include:b.example -include:d.example include:c.example ptr ip4:0.0.0.0/1 -all mx";
    let record = Record::parse(text).expect("a record");
    let survey = Survey::of(&asker(&zone), "s.example", &record).await;
    assert_eq!(survey.costs.len(), 11, "{:?}", survey.costs);
    assert_eq!(survey.voids, ["`a:gone.example` of s.example"]);
    assert_eq!(survey.open, ["`+all` of b.example", "`ip4:0.0.0.0/1` of s.example"]);
    assert_eq!(survey.includes, ["b.example", "d.example", "c.example"]);
    assert!(survey.faults.is_empty() && survey.unknown.is_empty());
    assert_eq!(survey.notes.len(), 2, "{:?}", survey.notes);
}
