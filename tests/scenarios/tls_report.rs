//! Reports on TLS (RFC 8460) with real parts: NSD has the records, Postfix and a host without TLS get the mail, web servers
//! have policies and take reports. What a day showed is in the reports on it, which arrive by mail and by HTTPS.

use crate::ca;
use crate::support;
use crate::web;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::Ipv4Addr;
use std::process::Command;

use ca::Authority;
use mail_parser::{MessageParser, MimeHeaders as _};
use serde_json::{Value, json};
use support::daemon::{Daemon, MAILWEIR, Setup};
use support::dkim::{Published, verified};
use support::mail::message;
use support::postfix::{self, Postfix};
use support::servers::Nsd;
use support::sink::{Options, Received, Sink};
use support::{Port, SOON, TestDir, run_ok, wait_for};
use web::Web;

/// The keys of the domain that reports, for the configuration and for DNS.
fn keys(dir: &TestDir) -> (String, Published) {
    let mut command = Command::new(MAILWEIR);
    command.args(["dkim", "new", "relay.test", "--directory"]).arg(dir.path());
    let said = String::from_utf8(run_ok(&mut command, b"", SOON).stdout).expect("UTF-8");
    let tables = said.find("[[dkim]]").expect("tables for the configuration");
    (said[tables..].to_owned(), Published::parse(&said))
}

struct World {
    daemon: Daemon,
    clear: Sink,
    posted: std::path::PathBuf,
    published: Published,
    dir: TestDir,
    _parts: (Postfix, Nsd, Vec<Web>, Port),
}

fn enforce(mx: &str) -> String {
    format!("version: STSv1\nmode: enforce\nmx: {mx}\nmax_age: 86400\n")
}

fn world() -> World {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let (authority, of_host) = (Authority::new(&dir, "test-ca"), Authority::new(&dir, "host-ca"));
    let certificate = of_host.certificate(&dir, "mx.test");
    let main = format!(
        "smtpd_tls_security_level = may\nsmtpd_tls_cert_file = {}\nsmtpd_tls_key_file = {}",
        certificate.file.display(),
        certificate.key.display()
    );
    let domains = ["good.test", "wrong.test", "fetch.test", "silent.test"];
    let options = postfix::Options { domains: &domains, main: &main, submission: None };
    let postfix = Postfix::start(&dir, "mx", port.at(4), &options);
    let clear = Sink::with(port.at(5), Options::offering(&["PIPELINING", "8BITMIME"]));
    let posted = dir.join("posted");
    let mut records = "good MX 10 mx\nwrong MX 10 mxw\nfetch MX 10 mx\nsilent MX 10 mx\nclear MX 10 clear\n\
         reports MX 10 clear\nmx A 127.0.0.4\nmxw A 127.0.0.4\nclear A 127.0.0.5\n\
         _mta-sts.fetch TXT \"v=STSv1; id=1;\"\n\
         _smtp._tls.good TXT \"v=TLSRPTv1; rua=mailto:tls@reports.test,https://rua.test/tlsrpt?to=us\"\n"
        .to_owned();
    for domain in ["wrong", "fetch", "clear", "reports"] {
        records.push_str(&format!("_smtp._tls.{domain} TXT \"v=TLSRPTv1; rua=mailto:tls@reports.test\"\n"));
    }
    let mut webs = Vec::new();
    // Who gets the reports demands what its own host does not have.
    for (name, policy) in
        [("mta-sts.wrong", enforce("mxw.test")), ("mta-sts.reports", enforce("clear.test")), ("rua", String::new())]
    {
        let site = Ipv4Addr::new(127, fastrand::u8(1..250), fastrand::u8(1..250), fastrand::u8(2..250));
        let (file, certificate) = (dir.write(name, policy), authority.certificate(&dir, &format!("{name}.test")));
        webs.push(Web::start(site, &certificate, &file, &posted));
        records.push_str(&format!("{name} A {site}\n"));
        if let Some(domain) = name.strip_prefix("mta-sts.") {
            records.push_str(&format!("_mta-sts.{domain} TXT \"v=STSv1; id=1;\"\n"));
        }
    }
    let nsd = Nsd::start(&dir, &records);
    let roots = [&authority, &of_host].map(|a| std::fs::read_to_string(&a.file).expect("a certificate")).concat();
    let roots = dir.write("roots.pem", roots);
    let (tables, published) = keys(&dir);
    let daemon = Setup::new(&dir)
        .with(&format!("[dns]\nnameservers = [\"{}\"]\nttl_min = \"0s\"\nttl_max = \"1s\"", nsd.address))
        .with(&format!("[default]\nport = {}\nallow_private = true\ntls_ca = \"{}\"", port.number, roots.display()))
        .with("[retry]\nfirst = \"1h\"\n[tls_report]\nfrom = \"tls@relay.test\"\norganization = \"Relay & Co\"\n")
        .with(&tables)
        .start();
    World { daemon, clear, posted, published, dir, _parts: (postfix, nsd, webs, port) }
}

fn unpacked(gzip: &[u8]) -> Value {
    let mut text = String::new();
    flate2::read::GzDecoder::new(gzip).read_to_string(&mut text).expect("gzip of text");
    serde_json::from_str(&text).expect("JSON")
}

/// The names in the store of what was counted.
fn stored(dir: &TestDir) -> Vec<String> {
    let store = rusqlite::Connection::open(dir.join("queue.db")).expect("the store");
    let mut names = store.prepare("SELECT name FROM memo WHERE name LIKE 'tls-report/%' ORDER BY name").expect("SQL");
    let names = names.query_map([], |row| row.get::<_, String>(0)).expect("rows");
    names.map(|name| name.expect("a name")).collect()
}

/// The policies of the report on each domain, once the fields around it were compared.
fn policies(received: &[Received], published: &Published) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for one in received {
        assert!(one.from.starts_with("<>"), "{}", one.from);
        let keys = verified(&one.content, published).expect("signed");
        assert!(keys.iter().all(|key| key.ends_with("@relay.test")) && !keys.is_empty(), "{keys:?}");
        let mail = MessageParser::default().parse(&one.content[..]).expect("a message");
        let field = |name: &str| mail.header_raw(name).unwrap_or_default().trim().to_owned();
        let domain = field("TLS-Report-Domain");
        assert_eq!([field("TLS-Report-Submitter"), field("TLS-Required")], ["relay.test", "No"]);
        let subject =
            format!("Report Domain: {domain} Submitter: relay.test Report-ID: <2026-01-01.{domain}@relay.test>");
        assert_eq!(mail.subject(), Some(subject.as_str()));
        let attached = mail.attachment(0).expect("the report");
        let kind = attached.content_type().expect("a type");
        assert_eq!((kind.ctype(), kind.subtype()), ("application", Some("tlsrpt+gzip")));
        let mut report = unpacked(attached.contents());
        let policies = report["policies"].take();
        let expected = json!({
            "organization-name": "Relay & Co",
            "date-range": { "start-datetime": "2026-01-01T00:00:00Z", "end-datetime": "2026-01-01T23:59:59Z" },
            "contact-info": "tls@relay.test",
            "report-id": format!("2026-01-01.{domain}@relay.test"),
            "policies": null,
        });
        assert_eq!(report, expected);
        assert!(all.insert(domain, policies).is_none(), "one report on each");
    }
    all
}

fn summary(good: u64, failed: u64) -> Value {
    json!({ "total-successful-session-count": good, "total-failure-session-count": failed })
}

#[test]
fn what_a_day_showed_is_reported_to_who_asks_for_it_and_to_nobody_else() {
    let mut world = world();
    for (domain, fate) in [
        ("good", "delivered"),
        ("wrong", "deferred"),
        ("fetch", "delivered"),
        ("silent", "delivered"),
        ("clear", "delivered"),
    ] {
        let to = format!("<a@{domain}.test>");
        let id = world.daemon.client().send("<sender@sender.test>", &[&to], &message(domain));
        world.daemon.wait_log(domain, |line| line.is(fate, &id));
    }
    // Whether they want reports is asked by and by.
    wait_for("what is counted", SOON, || {
        let status = world.daemon.command_ok(&["status"], b"");
        status.contains("TLS-RPT    4 domains today, 2 sessions good, 3 failed\n").then_some(())
    });
    let explained = world.daemon.command_ok(&["explain", "a@good.test"], b"");
    assert!(explained.contains("TLS-RPT   1 sessions good and 0 failed today, reported "), "{explained}");
    assert!(!world.daemon.command_ok(&["explain", "a@silent.test"], b"").contains("TLS-RPT"));
    world.daemon.stop();
    let names = stored(&world.dir);
    let of: Vec<&str> = names.iter().filter_map(|name| name.rsplit('/').next()).collect();
    assert_eq!(of, ["clear.test", "fetch.test", "good.test", "wrong.test"], "{names:?}");

    // The day was another one, which is over.
    let store = rusqlite::Connection::open(world.dir.join("queue.db")).expect("the store");
    let sql = "UPDATE memo SET name = 'tls-report/2026-01-01' || substr(name, 22) WHERE name LIKE 'tls-report/%'";
    assert_eq!(store.execute(sql, []).expect("SQL"), 4);
    drop(store);
    world.daemon.start();
    let received = world.clear.wait(5, SOON);
    let reports: Vec<Received> =
        received.iter().filter(|one| one.subject().starts_with("Report Domain:")).cloned().collect();
    let all = policies(&reports, &world.published);
    let none = |domain: &str| json!({ "policy-type": "no-policy-found", "policy-domain": domain });
    assert_eq!(all["good.test"], json!([{ "policy": none("good.test"), "summary": summary(1, 0) }]));
    let helo = all["wrong.test"][0]["failure-details"][0]["receiving-mx-helo"].clone();
    assert!(helo.as_str().is_some_and(|helo| !helo.is_empty()), "{helo}");
    let wrong = json!([{
        "policy": {
            "policy-type": "sts",
            "policy-string": ["version: STSv1", "mode: enforce", "mx: mxw.test", "max_age: 86400"],
            "policy-domain": "wrong.test",
            "mx-host": ["mxw.test"],
        },
        "summary": summary(0, 1),
        "failure-details": [{
            "result-type": "certificate-host-mismatch",
            "receiving-mx-hostname": "mxw.test",
            "receiving-mx-helo": helo,
            "receiving-ip": "127.0.0.4",
            "failed-session-count": 1,
            "failure-reason-code": "the certificate is not for mxw.test: it has mx.test",
        }],
    }]);
    assert_eq!(all["wrong.test"], wrong);
    let clear = &all["clear.test"][0];
    assert_eq!((&clear["policy"], &clear["summary"]), (&none("clear.test"), &summary(0, 1)));
    let told = &clear["failure-details"][0];
    assert_eq!((&told["result-type"], &told["receiving-ip"]), (&json!("starttls-not-supported"), &json!("127.0.0.5")));
    let fetch = &all["fetch.test"];
    assert_eq!(fetch[0], json!({ "policy": none("fetch.test"), "summary": summary(1, 0) }));
    assert_eq!(fetch[1]["policy"], json!({ "policy-type": "sts", "policy-domain": "fetch.test" }));
    assert_eq!(fetch[1]["failure-details"][0]["result-type"], "sts-policy-fetch-error");
    assert_eq!(all.len(), 4);

    // The same by HTTPS.
    let posted = wait_for("what is posted", SOON, || std::fs::read(&world.posted).ok().filter(|body| body.len() > 20));
    assert_eq!(unpacked(&posted)["policies"], all["good.test"]);
    // All are done with; nothing is counted of the mail that brought them.
    wait_for("an empty queue but for what waits", SOON, || (world.daemon.queue_list(&[]).len() == 1).then_some(()));
    wait_for("an end", SOON, || {
        let status = world.daemon.command_ok(&["status"], b"");
        let line = status.lines().find(|line| line.starts_with("TLS-RPT"))?.to_owned();
        (line.contains(" 0 domains today, 0 sessions good, 0 failed; last: ") && !line.contains("wait")).then_some(())
    });
    world.daemon.stop();
    assert_eq!(stored(&world.dir), Vec::<String>::new());
}
