//! REQUIRETLS (RFC 8689) from end to end: a client hands in mail over TLS, a second relay is a host that keeps it, and Postfix is one
//! that does not know it. Nothing of such mail leaves in clear text, not even the report on its failure.

// Other test programs look at the authority, too.
#[allow(dead_code)]
use crate::ca;
use crate::support;

use std::process::Command;
use std::time::Duration;

use ca::Authority;
use support::daemon::{Daemon, Setup};
use support::mail::message;
use support::postfix::{self, Postfix};
use support::sink::Sink;
use support::{Port, TestDir, program, run_ok};

const DEADLINE: Duration = Duration::from_secs(120);

/// Hands in a message inside TLS.
fn submit(daemon: &Daemon, authority: &Authority, option: &str, subject: &str) {
    let script = "import smtplib, ssl, sys\n\
        host, port, ca, option = sys.argv[1:5]\n\
        with smtplib.SMTP(host, int(port), 'client.test') as smtp:\n    \
        smtp.ehlo()\n    \
        assert 'requiretls' not in smtp.esmtp_features\n    \
        assert smtp.docmd('MAIL', 'FROM:<ann@sender.test> REQUIRETLS')[0] == 530\n    \
        smtp.starttls(context=ssl.create_default_context(cafile=ca))\n    \
        smtp.ehlo()\n    \
        assert 'requiretls' in smtp.esmtp_features\n    \
        smtp.sendmail('ann@sender.test', ['bob@example.test'], sys.stdin.buffer.read(), [o for o in [option] if o])\n";
    let mut command = Command::new(program("python3"));
    command
        .args(["-c", script, &daemon.smtp.ip().to_string(), &daemon.smtp.port().to_string()])
        .arg(&authority.file)
        .arg(option);
    run_ok(&mut command, &message(subject), DEADLINE);
}

#[test]
fn mail_that_requires_tls_goes_where_it_is_kept_and_nowhere_else() {
    let (dir, second, mx_port, back_port) = (TestDir::new(), TestDir::new(), Port::reserve(), Port::reserve());
    let authority = Authority::new(&dir, "test-ca");
    let certificate = authority.certificate(&dir, "127.0.0.1");
    let ca = authority.file.display().to_string();
    let tls = format!(
        "tls = {{ mode = \"starttls\", cert = \"{}\", key = \"{}\" }}",
        certificate.file.display(),
        certificate.key.display()
    );
    let of_mx = authority.certificate(&dir, &mx_port.at(4).ip().to_string());
    let main = format!(
        "smtpd_tls_security_level = may\nsmtpd_tls_cert_file = {}\nsmtpd_tls_key_file = {}",
        of_mx.file.display(),
        of_mx.key.display()
    );
    let options = postfix::Options { domains: &["example.test"], main: &main, submission: None };
    let mx = Postfix::start(&dir, "mx", mx_port.at(4), &options);
    let sink = Sink::start(back_port.at(2));
    let via = |name: &str, domain: &str, host: std::net::SocketAddr| {
        format!(
            "[provider.{name}]\nmatch = {{ domains = [\"{domain}\"] }}\nrelay = \"{host}\"\ntls = \"verified\"\ntls_ca = \"{ca}\""
        )
    };
    let (first, next) = (Setup::new(&dir), Setup::new(&second));
    let (at_first, at_next) = (first.smtp(), next.smtp());
    let next = next
        .listener(&tls)
        .with(&via("mx", "example.test", mx.address))
        .with(&via("back", "sender.test", at_first))
        .start();
    let first = first
        .listener(&tls)
        .with(&via("next", "example.test", at_next))
        .via("back", "sender.test", sink.address, "")
        .start();

    submit(&first, &authority, "", "no wish");
    assert_eq!(mx.wait(1).len(), 1);
    submit(&first, &authority, "REQUIRETLS", "must stay private");
    let told = first.wait_log("accepted", |line| line.event() == "accepted" && line.get("requiretls") == "true");
    let id = told.get("id");
    let line = first.wait_log("delivered", |line| line.is("delivered", &id));
    assert_eq!(line.get("tls"), "verified", "{}", line.0);
    // The host took it with the parameter, and has no way on: the reason is told, and nobody is asked again.
    let told = next.wait_log("accepted", |line| line.event() == "accepted" && line.get("requiretls") == "true");
    let there = told.get("id");
    let line = next.wait_log("bounced", |line| line.is("bounced", &there));
    let host = mx.address.ip();
    let why = format!("5.7.30 the sender demands REQUIRETLS (RFC 8689), which {host} does not offer");
    assert!(line.0.to_string().contains(&why), "{}", line.0);
    // The report comes back by the same rules, and ends where the way to the sender has no TLS.
    let report = first.wait_log("the report", |line| {
        line.event() == "accepted" && line.get("sender").is_empty() && line.get("requiretls") == "true"
    });
    let row = first.wait_row("a dead letter", |row| row.id() == report.get("id") && row.state() == "failed");
    assert!(row.reason().contains("5.7.10 ") && row.reason().contains("tls = \"off\""), "{}", row.reason());
    assert_eq!(row.0["requiretls"], true, "{}", row.0);
    let shown = first.command_ok(&["queue", "show", &row.id(), "--body"], b"");
    assert!(shown.contains("tls         REQUIRETLS: "), "{shown}");
    assert!(shown.contains("must stay private") && !shown.contains("The body of"), "{shown}");
    assert_eq!(sink.count(), 0);
    assert_eq!(mx.mailbox().len(), 1);

    // Other mail goes on as before: no host is left alone for it, and no circuit is open.
    submit(&first, &authority, "", "no wish again");
    assert_eq!(mx.wait(2).len(), 2);
    let told = first.command_ok(&["explain", "a@sender.test", "--requiretls"], b"");
    assert!(told.contains("would bounce") && told.contains("tls = \"off\" of provider back"), "{told}");
    let told = first.command_ok(&["explain", "a@example.test", "--requiretls"], b"");
    assert!(told.contains("TLS: REQUIRETLS, and a valid certificate for its name"), "{told}");
    assert!(!first.command_ok(&["explain", "a@example.test"], b"").contains("REQUIRETLS"));
}
