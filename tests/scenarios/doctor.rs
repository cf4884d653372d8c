//! `mailweir doctor` against a real name server: a domain that is well, one with every fault, one whose name servers fail;
//! and what it tells of mail hosts that it connects to.

use crate::ca;
use crate::support;

use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Output};

use ca::Authority;
use serde_json::Value;
use support::daemon::{Daemon, MAILWEIR, Setup};
use support::servers::Nsd;
use support::sink::Sink;
use support::{Port, SOON, TestDir, run_ok};

/// The domains, by who they are. relay.test is the name of the relay in EHLO.
const RECORDS: &str = "relay A 203.0.113.7\n\
    good TXT \"v=spf1 ip4:203.0.113.7 \" \"-all\"\n\
    good MX 10 mx.good\n\
    mx.good A 198.51.100.9\n\
    _dmarc.good TXT \"v=DMARC1; p=reject; rua=mailto:dmarc@good.test\"\n\
    bad TXT \"v=spf1 include:gone.test mx ip4:198.51.100.0/24 +all\"\n\
    bad TXT \"\\\"v=spf1 \\027[31m -all\\\"\"\n\
    bad MX 10 alias.bad\n\
    alias.bad CNAME mx.good\n\
    _dmarc.bad TXT \"v=DMARC1 p=none\"\n\
    _mta-sts.bad TXT \"v=STSv1; id=a-b\"\n\
    default._bimi.bad TXT \"v=BIMI1; l=logo.svg\"\n\
    7.113.0.203.list A 127.0.0.4\n\
    7.113.0.203.list TXT \"see \\027]0;owned\\007\"";

/// Names of the address 203.0.113.7.
const REVERSE: (&str, &str) = ("113.0.203.in-addr.arpa", "7 PTR relay.test.");

fn doctor(daemon: &Daemon, arguments: &[&str]) -> (Option<i32>, String) {
    let Output { status, stdout, .. } = daemon.command(&[&["doctor"], arguments].concat(), b"");
    let said = String::from_utf8(stdout).expect("UTF-8");
    // How wide the columns are is of no concern.
    let squeezed = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    (status.code(), said.lines().map(squeezed).collect::<Vec<_>>().join("\n"))
}

/// Keys of a domain: the tables of the configuration, and the records as lines of a zone.
fn keys(dir: &TestDir, domain: &str) -> (String, String) {
    let mut command = Command::new(MAILWEIR);
    command.args(["dkim", "new", domain, "--selector", "k", "--directory"]).arg(dir.path());
    let said = String::from_utf8(run_ok(&mut command, b"", SOON).stdout).expect("UTF-8");
    let tables = said.find("[[dkim]]").expect("tables for the configuration");
    let records: Vec<&str> = said.lines().filter(|line| line.contains(" IN TXT ")).collect();
    (said[tables..].to_owned(), records.join("\n"))
}

#[test]
fn a_domain_that_is_well_one_with_every_fault_and_one_that_nobody_answers_for() {
    let dir = TestDir::new();
    let (good, published) = keys(&dir, "good.test");
    let (broken, _) = keys(&dir, "x.broken");
    let nsd = Nsd::start_with(&dir, &format!("{RECORDS}\n{published}"), &[REVERSE]);
    let sources = "[default]\nsource = [\"203.0.113.7\"]\n";
    let daemon = Setup::new(&dir).dns(nsd.address).with(&format!("{sources}{good}\n{broken}")).prepare();

    let (code, said) = doctor(&daemon, &["good.test"]);
    assert_eq!(code, Some(0), "{said}");
    for line in [
        "ok SPF good.test",
        "203.0.113.7 is judged pass by `ip4:203.0.113.7`",
        "203.0.113.7 is relay.test, and relay.test is 203.0.113.7",
        "k-ed25519._domainkey.good.test",
        "p=reject: v=DMARC1; p=reject",
        "10 mx.good.test is 198.51.100.9",
        "good.test: well; 0 failed, 0 unknown",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }

    let (code, said) = doctor(&daemon, &["Bad.test", "--blocklist", "list.test"]);
    assert_eq!(code, Some(1), "{said}");
    for line in [
        "FAILED SPF",
        "a record that receivers pass over: \"v=spf1 \\x1b[31m",
        "`include:gone.test` of bad.test: gone.test has no record",
        "`+all` lets everybody send",
        "name all that send (ip4:, ip6:, include:), then end with ~all or -all",
        "has no [[dkim]] that signs for bad.test",
        "a `;` is missing",
        "alias.bad.test is a CNAME for mx.good.test",
        "senders pass over this record: v=STSv1; id=a-b",
        "l=logo.svg: expected an https address",
        "listed by list.test (127.0.0.4) see \\x1b]0;owned\\x07",
        "bad.test: not well;",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert!(!said.contains('\u{1b}'), "what hides is written out");

    let (code, said) = doctor(&daemon, &["bad.test", "--json"]);
    let report: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(
        (code, report["domain"].as_str(), report["verdict"].as_str()),
        (Some(1), Some("bad.test"), Some("failed"))
    );
    let findings = report["findings"].as_array().expect("findings");
    let failed = |check: &str| findings.iter().any(|f| f["check"] == check && f["verdict"] == "failed");
    assert!(["SPF", "DKIM", "DMARC", "MX", "MTA-STS", "BIMI"].into_iter().all(failed), "{said}");

    // SERVFAIL is no record that is missing.
    let (code, said) = doctor(&daemon, &["x.broken"]);
    assert_eq!(code, Some(75), "{said}");
    assert!(said.contains("UNKNOWN SPF") && said.contains("x.broken: not known; 0 failed"), "{said}");

    let (code, _) = doctor(&daemon, &["not a domain"]);
    assert_eq!(code, Some(64));
}

#[test]
fn another_envelope_an_address_of_a_nat_and_a_message_in_bulk() {
    let dir = TestDir::new();
    let (good, published) = keys(&dir, "good.test");
    let nsd = Nsd::start_with(&dir, &format!("{RECORDS}\n{published}"), &[REVERSE]);
    let daemon =
        Setup::new(&dir).dns(nsd.address).with(&format!("[default]\nsource = [\"10.9.8.7\"]\n{good}")).prepare();
    let message = dir.write("bulk.eml", "From: a@good.test\r\nList-Unsubscribe: <mailto:u@good.test>\r\n\r\nhello\r\n");
    let message = message.to_str().expect("a path");

    let (code, said) = doctor(&daemon, &["good.test"]);
    assert!(code == Some(0) && said.contains("10.9.8.7 (`source` of default) is private"), "{said}");
    let (code, said) = doctor(&daemon, &["good.test", "--ip", "203.0.113.7"]);
    assert!(code == Some(0) && said.contains("203.0.113.7 is judged pass"), "{said}");
    let (code, said) = doctor(&daemon, &["good.test", "--ip", "203.0.113.8"]);
    assert!(
        code == Some(1) && said.contains("good.test. IN TXT \"v=spf1 ip4:203.0.113.8 ip4:203.0.113.7 -all\""),
        "{said}"
    );
    let (code, said) = doctor(&daemon, &["good.test", "--ip", "203.0.113.7", "--envelope", "bad.test"]);
    assert!(code == Some(1) && said.contains("SPF of bad.test does not count for good.test"), "{said}");
    let (code, said) = doctor(&daemon, &["good.test", "--message", message]);
    assert!(
        code == Some(1) && said.contains("no https address") && said.contains("there is no List-Unsubscribe-Post"),
        "{said}"
    );
    let (code, _) = doctor(&daemon, &["good.test", "--message", "/nowhere"]);
    assert_eq!(code, Some(65));
}

#[test]
fn mail_hosts_are_connected_to_when_asked_for_and_what_they_show_is_told() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let authority = Authority::new(&dir, "unknown");
    let certificate = authority.certificate(&dir, "mx.tls.test");
    assert!(authority.file.exists());
    let setup = Setup::new(&dir);
    let (host, closed) = (setup.smtp(), port.at(9).ip());
    let IpAddr::V4(own) = host.ip() else { panic!("{host}") };
    let [a, b, c, d] = own.octets();
    // On the same port, which is that of [default].
    let clear = Sink::start((Ipv4Addr::new(a, b, c, d + 1), host.port()).into());
    let records = format!(
        "tls MX 10 mx.tls\nmx.tls A {own}\nclear MX 10 mx.clear\nmx.clear A {}\ndown MX 10 mx.down\nmx.down A {closed}",
        clear.address.ip()
    );
    let nsd = Nsd::start(&dir, &records);
    let tls = format!(
        "tls = {{ mode = \"starttls\", cert = \"{}\", key = \"{}\" }}",
        certificate.file.display(),
        certificate.key.display()
    );
    let daemon = setup
        .dns(nsd.address)
        .listener(&tls)
        .with(&format!("[default]\nport = {}\nallow_private = true\n", host.port()))
        .start();
    let of = |domain: &str| doctor(&daemon, &[domain, "--connect", "--ip", "203.0.113.7"]).1;
    let said = of("tls.test");
    assert!(said.contains("can be reached from here") && said.contains("note STARTTLS"), "{said}");
    let said = of("clear.test");
    assert!(said.contains("FAILED STARTTLS mx.clear.test STARTTLS: TLS: the server does not offer STARTTLS"), "{said}");
    // Nothing listens at that address.
    let said = of("down.test");
    assert!(said.contains("FAILED way out") && said.contains("cloud providers close outgoing port 25"), "{said}");
    assert!(!doctor(&daemon, &["tls.test", "--ip", "203.0.113.7"]).1.contains("STARTTLS"), "not asked for");
}

#[test]
fn mail_that_leaves_through_a_smart_host_has_its_addresses_and_perhaps_its_signature() {
    let dir = TestDir::new();
    let nsd = Nsd::start(&dir, RECORDS);
    let everything = "[provider.post]\nrelay = \"smtp.post.example:587\"\n[[route]]\nvia = \"post\"\n";
    let daemon = Setup::new(&dir).dns(nsd.address).with(everything).prepare();
    let (code, said) = doctor(&daemon, &["good.test"]);
    assert_eq!(code, Some(0), "{said}");
    for line in [
        "- SPF good.test mail through smtp.post.example leaves from addresses of its own",
        "- source good.test mail leaves through smtp.post.example: its addresses are not ours",
        "a smart host may sign with a key of its own",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    // Some mail only: the rest leaves from here.
    let some = everything.replace("via =", "recipient = \"*@post.example\"\nvia =");
    let daemon =
        Setup::new(&dir).dns(nsd.address).with(&format!("[default]\nsource = [\"203.0.113.7\"]\n{some}")).prepare();
    let (_, said) = doctor(&daemon, &["good.test"]);
    assert!(
        said.contains("203.0.113.7 is judged pass") && said.contains("mail through smtp.post.example leaves"),
        "{said}"
    );
}
