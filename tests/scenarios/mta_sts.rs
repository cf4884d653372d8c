//! MTA-STS with real parts: NSD has the record, a web server has the policy, Postfix is the mail host with a certificate
//! that is good or not. What the policy demands is kept, also by the next process while DNS and web server are gone.

use crate::ca;
use crate::support;
use crate::web;

use std::net::Ipv4Addr;

use ca::Authority;
use support::daemon::{Daemon, Setup};
use support::mail::message;
use support::postfix::{self, Postfix};
use support::servers::Nsd;
use support::{Port, SOON, TestDir, wait_for};
use web::Web;

struct World {
    daemon: Daemon,
    postfix: Postfix,
    nsd: Nsd,
    web: Option<Web>,
    policy: std::path::PathBuf,
    dir: TestDir,
    records: String,
    _port: Port,
}

/// `mx`: the name that the certificate of the mail host is for.
fn world(policy: &str, mx: &str) -> World {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let (authority, of_host) = (Authority::new(&dir, "test-ca"), Authority::new(&dir, "host-ca"));
    let site = Ipv4Addr::new(127, fastrand::u8(1..250), fastrand::u8(1..250), fastrand::u8(2..250));
    let certificate = of_host.certificate(&dir, mx);
    let main = format!(
        "smtpd_tls_security_level = may\nsmtpd_tls_cert_file = {}\nsmtpd_tls_key_file = {}",
        certificate.file.display(),
        certificate.key.display()
    );
    let options = postfix::Options { domains: &["example.test", "plain.test"], main: &main, submission: None };
    let postfix = Postfix::start(&dir, "mx", port.at(4), &options);
    let records = format!(
        "example MX 10 mx\nexample MX 5 stranger\nplain MX 10 mx\nsender MX 10 mx\nmx A 127.0.0.4\nstranger A 127.0.0.6\n\
         _mta-sts.example TXT \"v=STSv1; id=1;\"\nmta-sts.example A {site}\n"
    );
    let nsd = Nsd::start(&dir, &records);
    let file = dir.write("mta-sts.txt", policy);
    let web = Web::start(site, &authority.certificate(&dir, "mta-sts.example.test"), &file, &dir.join("posted"));
    // Both of them are trusted by `tls_ca` alone: that of the policy's host, too.
    let roots = [&authority, &of_host].map(|a| std::fs::read_to_string(&a.file).expect("a certificate")).concat();
    let roots = dir.write("roots.pem", roots);
    let daemon = Setup::new(&dir)
        .with(&format!("[dns]\nnameservers = [\"{}\"]\nttl_min = \"0s\"\nttl_max = \"1s\"", nsd.address))
        .with(&format!("[default]\nport = {}\nallow_private = true\ntls_ca = \"{}\"", port.number, roots.display()))
        .with("[retry]\nfirst = \"1s\"\nfactor = 1.0\njitter = 0.0")
        .start();
    World { daemon, postfix, nsd, web: Some(web), policy: file, dir, records, _port: port }
}

const ENFORCE: &str = "version: STSv1\r\nmode: enforce\r\nmx: mx.test\r\nmax_age: 86400\r\n";

impl World {
    fn send(&self, to: &str) -> String {
        self.daemon.client().send("<sender@sender.test>", &[to], &message("by a policy"))
    }
}

#[test]
fn mail_leaves_by_the_policy_which_outlives_the_process_and_its_host() {
    let mut world = world(ENFORCE, "mx.test");
    let id = world.send("<a@example.test>");
    let line = world.daemon.wait_log("delivered", |line| line.is("delivered", &id));
    let told = ["host", "tls", "tls_version"].map(|name| line.get(name));
    assert_eq!(told, ["mx.test", "mta-sts", "TLSv1.3"], "{}", line.0);
    let plain = world.send("<a@plain.test>");
    let line = world.daemon.wait_log("delivered", |line| line.is("delivered", &plain));
    assert_eq!((line.get("host"), line.get("tls")), ("mx.test".into(), "encrypted".into()), "{}", line.0);
    for (to, told) in [
        ("a@example.test", "TLS: REQUIRETLS, and a valid certificate for its name, by MTA-STS"),
        ("a@plain.test", "a message would bounce: 550 5.7.30 "),
    ] {
        let explained = world.daemon.command_ok(&["explain", to, "--requiretls"], b"");
        assert!(explained.contains(told), "{explained}");
    }
    let explained = world.daemon.command_ok(&["explain", "a@example.test"], b"");
    assert!(explained.contains("policy    MTA-STS, mode enforce, id 1, for "), "{explained}");
    assert!(explained.contains("mx.test  127.0.0.4") && explained.contains("TLS: a valid certificate"), "{explained}");
    assert!(explained.contains("not used: the MTA-STS policy does not name it"), "{explained}");

    // Somebody takes record and policy away, and leads mail to a host of his own: it waits.
    world.daemon.kill();
    world.web = None;
    let records = world.records.lines().filter(|line| !line.contains("mta-sts") && *line != "example MX 10 mx");
    let records: Vec<&str> = records.collect();
    world.nsd.change(&world.dir, &records.join("\n"));
    wait_for("the new records", SOON, || {
        let explained = world.daemon.command_ok(&["explain", "b@example.test"], b"");
        (!explained.contains("10 mx.test")).then_some(())
    });
    world.daemon.start();
    let id = world.send("<b@example.test>");
    let row = world.daemon.wait_row("a reason", |row| row.id() == id && !row.reason().is_empty());
    assert!(row.reason().contains("4.7.5 the MTA-STS policy of example.test (mode enforce, id 1)"), "{}", row.reason());
    assert!(row.reason().contains("it names mx.test, and DNS stranger.test"), "{}", row.reason());
}

#[test]
fn a_certificate_for_another_name_keeps_protected_mail_and_no_other() {
    let world = world(ENFORCE, "other.test");
    let id = world.send("<a@example.test>");
    let line = world.daemon.wait_log("deferred", |line| line.is("deferred", &id));
    let why = "TLS: the certificate is not for mx.test: it has other.test; the MTA-STS policy of example.test (mode enforce) \
               demands a valid certificate";
    assert_eq!((line.get("stage"), line.why()), ("STARTTLS".into(), why.into()), "{}", line.0);
    let plain = world.send("<a@plain.test>");
    world.daemon.wait_log("delivered", |line| line.is("delivered", &plain));
    let row = world.daemon.wait_row("kept", |row| row.id() == id);
    assert!(row.reason().contains("the MTA-STS policy of example.test"), "{}", row.reason());
    assert_eq!(world.postfix.wait(1).len(), 1, "nothing of the other one has arrived");

    // A sender who wants it to arrive in any case says so; the one before waits still.
    let optional = [b"TLS-Required: No\r\n".to_vec(), message("in any case")].concat();
    let any_case = world.daemon.client().send("<sender@sender.test>", &["<a@example.test>"], &optional);
    let line = world.daemon.wait_log("delivered", |line| line.is("delivered", &any_case));
    assert_eq!((line.get("host"), line.get("tls")), ("mx.test".into(), "encrypted".into()), "{}", line.0);
    let arrived = world.postfix.wait(2);
    assert!(arrived.iter().any(|mail| String::from_utf8_lossy(mail).contains("\nTLS-Required: No\n")));

    // The policy is in testing from now on.
    std::fs::write(&world.policy, ENFORCE.replace("enforce", "testing")).expect("a policy");
    world.nsd.change(&world.dir, &world.records.replace("id=1;", "id=2;"));
    let line = world.daemon.wait_log("delivered", |line| line.is("delivered", &id));
    assert_eq!(line.get("tls"), "encrypted", "{}", line.0);
    let told = "the MTA-STS policy of a domain, in mode testing, would refuse this host";
    world.daemon.wait_log("told", |line| line.event() == told && line.get("host") == "mx.test");
}
