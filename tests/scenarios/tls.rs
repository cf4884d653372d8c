//! Real programs hand in mail over TLS, by STARTTLS and from the first byte, and check the
//! certificate; a renewed certificate is taken up, a broken one changes nothing.

use crate::ca;
use crate::support;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ca::Authority;
use support::client::Client;
use support::daemon::{Daemon, Setup, refused_start};
use support::mail::{message, split_received};
use support::postfix::{self, Postfix};
use support::senders::{FROM, TO, nodemailer_module};
use support::sink::Sink;
use support::{Port, SOON, TestDir, program, run, run_ok};

const DEADLINE: Duration = Duration::from_secs(120);

/// A relay with two listeners that show the same certificate, and one receiver.
struct World {
    dir: TestDir,
    daemon: Daemon,
    sink: Sink,
    /// Where TLS begins with the first byte; the other one has STARTTLS.
    implicit: SocketAddr,
    authority: Authority,
    certificate: PathBuf,
    key: PathBuf,
    _ports: [Port; 2],
}

impl World {
    /// `keys`: more of `tls` of the first listener.
    fn new(keys: &str) -> World {
        let (dir, port, second) = (TestDir::new(), Port::reserve(), Port::reserve());
        let sink = Sink::start(port.at(2));
        let authority = Authority::new(&dir, "test-ca");
        // Clients connect to an address, and the certificate is for that.
        let made = authority.certificate(&dir, "127.0.0.1");
        let (certificate, key) = (dir.join("relay.pem"), dir.join("relay.key"));
        std::fs::copy(&made.file, &certificate).expect("a certificate");
        std::fs::copy(&made.key, &key).expect("a key");
        let files = format!("cert = \"{}\", key = \"{}\"", certificate.display(), key.display());
        let implicit = second.at(1);
        let daemon = Setup::new(&dir)
            .listener(&format!("tls = {{ mode = \"starttls\", {files}{keys} }}"))
            .with(&format!("[[listener]]\naddress = \"{implicit}\"\ntls = {{ mode = \"implicit\", {files} }}"))
            .via("example", "example.test", sink.address, "rate = []")
            .start();
        World { dir, daemon, sink, implicit, authority, certificate, key, _ports: [port, second] }
    }

    /// The message came by way of an encrypted session.
    fn assert_arrived(&self, subject: &str) {
        let arrived = self.sink.wait_subject(subject, SOON);
        let (received, rest) = split_received(&arrived.content);
        assert!(received.contains(" with ESMTPS id "), "{subject}: {received}");
        // swaks puts an empty line behind it.
        let body = rest.trim_ascii_end();
        assert!(body.ends_with(format!("\r\n\r\nThe body of {subject}.").as_bytes()), "{}", body.escape_ascii());
    }

    /// The certificate that is shown to new clients.
    fn shown(&self) -> String {
        let script = "import ssl, sys; print(ssl.get_server_certificate((sys.argv[1], int(sys.argv[2]))), end='')";
        let mut command = Command::new(program("python3"));
        command.args(["-c", script, &self.implicit.ip().to_string(), &self.implicit.port().to_string()]);
        String::from_utf8(run_ok(&mut command, b"", DEADLINE).stdout).expect("PEM")
    }

    fn is_shown(&self, certificate: &Path) -> bool {
        let lines = |text: &str| text.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>().concat();
        let body = |text: &str| {
            lines(text).replace("-----BEGIN CERTIFICATE-----", "").replace("-----END CERTIFICATE-----", "")
        };
        body(&self.shown()) == body(&std::fs::read_to_string(certificate).expect("a certificate"))
    }
}

fn swaks(world: &World, server: SocketAddr, how: &str, content: &[u8]) {
    let data = world.dir.write("swaks.eml", content);
    let mut command = Command::new(program("swaks"));
    command
        .args(["--server", &server.ip().to_string(), "--port", &server.port().to_string(), how, "--tls-verify"])
        .arg("--tls-ca-path")
        .arg(&world.authority.file)
        .args(["--ehlo", "client.test", "--from", FROM, "--to", TO, "--silent", "1", "--data"])
        .arg(format!("@{}", data.display()));
    run_ok(&mut command, b"", DEADLINE);
}

fn smtplib(world: &World, server: SocketAddr, implicit: bool, content: &[u8]) {
    let script = "import smtplib, ssl, sys\n\
        host, port, ca, sender, to = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4], sys.argv[5]\n\
        context = ssl.create_default_context(cafile=ca)\n\
        if sys.argv[6] == 'implicit':\n    \
        smtp = smtplib.SMTP_SSL(host, port, 'client.test', context=context)\n\
        else:\n    \
        smtp = smtplib.SMTP(host, port, 'client.test')\n    \
        smtp.starttls(context=context)\n\
        with smtp:\n    \
        smtp.sendmail(sender, [to], sys.stdin.buffer.read())\n    \
        assert 'starttls' not in smtp.esmtp_features\n";
    let mut command = Command::new(program("python3"));
    command
        .args(["-c", script, &server.ip().to_string(), &server.port().to_string()])
        .arg(&world.authority.file)
        .args([FROM, TO, if implicit { "implicit" } else { "starttls" }]);
    run_ok(&mut command, content, DEADLINE);
}

fn msmtp(world: &World, server: SocketAddr, implicit: bool, content: &[u8]) {
    let text: Vec<u8> = content.iter().copied().filter(|b| *b != b'\r').collect();
    let mut command = Command::new(program("msmtp"));
    command
        .args(["--file=/dev/null", "--host", &server.ip().to_string(), "--port", &server.port().to_string()])
        .args(["--tls=on", if implicit { "--tls-starttls=off" } else { "--tls-starttls=on" }])
        .arg(format!("--tls-trust-file={}", world.authority.file.display()))
        .args(["--domain=client.test", "--from", FROM, TO]);
    run_ok(&mut command, &text, DEADLINE);
}

fn nodemailer(world: &World, server: SocketAddr, implicit: bool, content: &[u8]) {
    let script = "const { createTransport } = require(process.argv[2]);\n\
        const fs = require('fs');\n\
        const [host, port, from, to, ca, how] = process.argv.slice(3);\n\
        const secure = how === 'implicit';\n\
        createTransport({ host, port: Number(port), secure, requireTLS: !secure, name: 'client.test',\n  \
        tls: { ca: fs.readFileSync(ca) } })\n  \
        .sendMail({ envelope: { from, to }, raw: fs.readFileSync(0) })\n  \
        .catch((error) => { console.error(error); process.exitCode = 1; });\n";
    let script = world.dir.write("nodemailer-tls.js", script);
    let mut command = Command::new(program("node"));
    command.arg(script).arg(nodemailer_module());
    command.args([&server.ip().to_string(), &server.port().to_string(), FROM, TO]).arg(&world.authority.file);
    command.arg(if implicit { "implicit" } else { "starttls" });
    run_ok(&mut command, content, DEADLINE);
}

/// A dialog by hand: the input is typed ahead, so it also is pipelined inside TLS.
fn s_client(world: &World, server: SocketAddr, arguments: &[&str], subject: &str) -> String {
    let mut command = Command::new(program("openssl"));
    command
        .args(["s_client", "-connect", &server.to_string(), "-quiet", "-crlf", "-verify_return_error", "-CAfile"])
        .arg(&world.authority.file)
        .args(arguments);
    let content = String::from_utf8(message(subject)).expect("ASCII").replace("\r\n", "\n");
    let input = format!("EHLO client.test\nMAIL FROM:<{FROM}>\nRCPT TO:<{TO}>\nDATA\n{content}.\nQUIT\n");
    let output = run_ok(&mut command, input.as_bytes(), DEADLINE);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn swaks_smtplib_msmtp_and_nodemailer_send_over_both_kinds_of_tls() {
    let world = World::new(", required = true");
    let (starttls, implicit) = (world.daemon.smtp, world.implicit);
    swaks(&world, starttls, "--tls", &message("swaks-starttls"));
    swaks(&world, implicit, "--tlsc", &message("swaks-implicit"));
    smtplib(&world, starttls, false, &message("smtplib-starttls"));
    smtplib(&world, implicit, true, &message("smtplib-implicit"));
    msmtp(&world, starttls, false, &message("msmtp-starttls"));
    msmtp(&world, implicit, true, &message("msmtp-implicit"));
    nodemailer(&world, starttls, false, &message("nodemailer-starttls"));
    nodemailer(&world, implicit, true, &message("nodemailer-implicit"));
    for name in ["swaks", "smtplib", "msmtp", "nodemailer"] {
        world.assert_arrived(&format!("{name}-starttls"));
        world.assert_arrived(&format!("{name}-implicit"));
    }
    let lines = world.daemon.log_lines();
    let accepted: Vec<_> = lines.iter().filter(|line| line.event() == "accepted").collect();
    assert_eq!(accepted.len(), 8);
    assert!(accepted.iter().all(|line| line.get("tls") == "TLSv1.3"), "{accepted:?}");
}

#[test]
fn openssl_speaks_both_versions_and_finds_nothing_older() {
    let world = World::new("");
    let implicit = world.implicit;
    for (subject, server, arguments) in [
        ("s-client-13", implicit, ["-tls1_3"].as_slice()),
        ("s-client-12", implicit, &["-tls1_2"]),
        ("s-client-starttls", world.daemon.smtp, &["-starttls", "smtp"]),
    ] {
        let said = s_client(&world, server, arguments, subject);
        assert!(said.contains("250 2.0.0 Ok: queued as "), "{said}");
        world.assert_arrived(subject);
    }
    let line = world.daemon.wait_log("of TLS 1.2", |line| line.event() == "accepted" && line.get("tls") == "TLSv1.2");
    assert_eq!(line.get("helo"), "client.test");
    let mut old = Command::new(program("openssl"));
    // Security level 0 lets the client offer it.
    old.args(["s_client", "-connect", &implicit.to_string(), "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]);
    let output = run(&mut old, b"", DEADLINE);
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    world.daemon.wait_log("the refusal", |line| line.event() == "no TLS with a client");
}

/// RFC 3207 §5 (CVE-2011-0411), at the real socket.
#[test]
fn nothing_is_smuggled_behind_starttls() {
    let world = World::new("");
    let mut client = Client::connect(world.daemon.smtp);
    client
        .write(b"STARTTLS\r\nMAIL FROM:<evil@sender.test>\r\nRCPT TO:<somebody@example.test>\r\nDATA\r\nSubject: x\r\n\r\n.\r\n")
        .expect("write");
    client.reply_of(554, "STARTTLS with input behind it");
    assert!(client.read().is_err(), "the connection is closed");
    let line = world.daemon.wait_log("the refusal", |line| line.event() == "refused");
    assert!(line.get("reply").starts_with("554 5.5.1 "), "{}", line.0);
    assert_eq!(world.sink.count(), 0);
    assert!(world.daemon.queue_list(&[]).is_empty());
}

#[test]
fn postfix_relays_through_mailweir_with_a_certificate_that_it_checks() {
    let world = World::new(", required = true");
    let port = Port::reserve();
    let main = format!(
        "mynetworks = 127.0.0.0/8\nsmtpd_relay_restrictions = permit_mynetworks, reject\nrelayhost = [127.0.0.1]:{}\n\
         smtp_tls_security_level = encrypt\nsmtp_tls_CAfile = {}\nsmtp_tls_loglevel = 1\n",
        world.daemon.smtp.port(),
        world.authority.file.display()
    );
    let options = postfix::Options { domains: &[], main: &main, submission: None };
    let postfix = Postfix::start(&world.dir, "inside", port.at(5), &options);
    let mut client = Client::connect(postfix.address);
    let content = message("by-postfix");
    let reply = client.try_send("<sender@sender.test>", &["<somebody@example.test>"], &content).expect("a reply");
    assert_eq!(reply.code, 250, "{}", reply.text());
    world.assert_arrived("by-postfix");
    assert!(postfix.log().contains("Trusted TLS connection established"), "{}", postfix.log());
}

/// Nobody has to learn from his clients that a certificate is over.
#[test]
fn a_certificate_that_expires_soon_is_told_at_the_start_by_check_and_at_a_reload() {
    let dir = TestDir::new();
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::new(vec!["relay.example.com".to_owned()]).expect("names");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    params.not_after = rcgen::date_time_ymd(1970, 1, 1) + now + Duration::from_secs(3 * 86_400 + 3600);
    let pem = params.self_signed(&key).expect("a certificate").pem();
    let (cert, key) = (dir.write("soon.pem", &pem), dir.write("soon.key", key.serialize_pem()));
    let tls = format!("tls = {{ mode = \"starttls\", cert = \"{}\", key = \"{}\" }}", cert.display(), key.display());
    let mut daemon = Setup::new(&dir).listener(&tls).start();
    let told = "(relay.example.com): it expires in less than 7 days, on ";
    let line = daemon.wait_log("the warning", |line| line.get("warning").contains(told));
    assert_eq!(line.get("level"), "WARN");
    assert!(line.get("warning").contains(": listener[1].tls.cert: "), "{}", line.get("warning"));
    let checked = daemon.command(&["check"], b"");
    let (out, err) = (String::from_utf8_lossy(&checked.stdout), String::from_utf8_lossy(&checked.stderr));
    assert!(checked.status.success() && err.contains(told), "{err}");
    let row = out.lines().find(|line| line.starts_with("relay.example.com ")).expect("a row of the certificate");
    assert!(row.contains("soon.pem") && row.ends_with("  in 3 d"), "{row}");
    assert!(out.lines().last().is_some_and(|line| line.contains(": OK: ") && line.ends_with("; 1 warning")), "{out}");
    daemon.command_ok(&["reload"], b"");
    let warned = daemon.log_lines().iter().filter(|line| line.get("warning").contains(told)).count();
    assert_eq!(warned, 2, "once at the start, once at the reload");
    daemon.stop();
}

#[test]
fn a_renewed_certificate_is_taken_up_and_a_broken_one_changes_nothing() {
    let world = World::new("");
    assert!(world.is_shown(&world.certificate));
    let checked = world.daemon.command_ok(&["check"], b"");
    assert!(checked.contains("tls.mode = \"starttls\"") && checked.contains("tls.mode = \"implicit\""), "{checked}");

    let renewed = world.authority.certificate(&world.dir, "127.0.0.1");
    std::fs::copy(&renewed.file, &world.certificate).expect("a certificate");
    // Only half of it is there: the key is still-old.
    for command in [["check"].as_slice(), &["reload"]] {
        let refused = world.daemon.command(command, b"");
        assert_eq!(refused.status.code(), Some(78));
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        for part in
            ["config.toml:5:", ": listener[1].tls.key: ", "relay.key is not the key of the first certificate in "]
        {
            assert!(said.contains(part), "{part} in {said}");
        }
    }
    world.daemon.signal(rustix::process::Signal::HUP);
    let line = world.daemon.wait_log("the refusal", |line| line.event().contains("the configuration in force stays"));
    assert!(line.get("error").contains("listener[2].tls.key"), "{}", line.0);
    assert!(!world.is_shown(&world.certificate), "the old one is still shown");
    swaks(&world, world.daemon.smtp, "--tls", &message("still-old"));
    world.assert_arrived("still-old");
    let (code, said) = refused_start(&world.daemon.config);
    assert_eq!(code, 78, "{said}");

    std::fs::copy(&renewed.key, &world.key).expect("a key");
    let told = world.daemon.command_ok(&["reload"], b"");
    assert!(told.contains("the files that it names were read again"), "{told}");
    assert!(world.is_shown(&renewed.file));
    swaks(&world, world.implicit, "--tlsc", &message("renewed"));
    world.assert_arrived("renewed");
}

/// `mailweir send` speaks clear text: it takes a listener that does, or says what is missing.
#[test]
fn send_finds_the_listener_that_takes_clear_text() {
    let world = World::new(", required = true");
    let refused = world.daemon.command(&["send", "-f", FROM, TO], &message("none"));
    assert_eq!(refused.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("every listener wants TLS"), "{refused:?}");
    let port = Port::reserve();
    let text = std::fs::read_to_string(&world.daemon.config).expect("read");
    let more = format!("{text}\n[[listener]]\naddress = \"{}\"\n", port.at(1));
    std::fs::write(&world.daemon.config, more).expect("write");
    world.daemon.command_ok(&["reload"], b"");
    world.daemon.command_ok(&["send", "-f", FROM, TO], &message("in-clear-text"));
    let arrived = world.sink.wait_subject("in-clear-text", SOON);
    assert!(split_received(&arrived.content).0.contains(" with ESMTP id "));
}
