//! The tools of the scenario tests, tried without mailweir between them. If one of these fails, the
//! machine is to blame (or the tools), not the relay.

use crate::ca;
use crate::support;

use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use ca::Authority;
use support::client::Client;
use support::mail::{header, message};
use support::postfix::{self, Postfix, Submission};
use support::senders::{self, FROM, Sender, TO};
use support::servers::{Nsd, SmtpSink};
use support::sink::Sink;
use support::{Port, SOON, TestDir, program, run, run_ok};

#[test]
fn every_client_program_reaches_the_recording_sink() {
    let clients: [(&str, Sender); 4] = [
        ("swaks", senders::swaks),
        ("smtplib", senders::smtplib),
        ("nodemailer", senders::nodemailer),
        ("msmtp", senders::msmtp),
    ];
    for (name, send) in clients {
        let (dir, port) = (TestDir::new(), Port::reserve());
        let sink = Sink::start(port.at(1));
        send(&dir, sink.address, &message(name));
        let received = sink.wait(1, SOON);
        assert_eq!(received[0].subject(), name);
        assert!(received[0].from.starts_with(&format!("<{FROM}>")), "{name}: {}", received[0].from);
        assert_eq!(received[0].to, [format!("<{TO}>")], "{name}");
        sink.assert_legal();
    }
}

#[test]
fn the_sink_keeps_content_and_names_what_is_not_legal() {
    let port = Port::reserve();
    let sink = Sink::start(port.at(1));
    let content = b"Subject: dots\r\n\r\n.one\r\n..two\r\n\xe4\r\n.\xff\r\n";
    Client::connect(sink.address).try_send("<a@b.test> BODY=8BITMIME", &["<c@d.test>"], content).expect("send");
    assert_eq!(&*sink.wait(1, SOON)[0].content, content);
    sink.assert_legal();
    Client::connect(sink.address).try_send("<a@b.test>", &["<c@d.test>"], b"a\nb\r\n").expect("send");
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| sink.assert_legal())).is_err());
}

#[test]
fn nsd_answers_what_the_zone_says() {
    let dir = TestDir::new();
    let nsd = Nsd::start(&dir, "two MX 10 a.two\ntwo MX 20 b.two\nnone MX 0 .\n");
    let script = "import socket, struct, sys\n\
        def ask(name):\n    \
        q = b''.join(bytes([len(l)]) + l.encode() for l in name.split('.')) + b'\\0' + struct.pack('>HH', 15, 1)\n    \
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5)\n    \
        s.sendto(struct.pack('>HHHHHH', 7, 256, 1, 0, 0, 0) + q, (sys.argv[1], int(sys.argv[2])))\n    \
        r = s.recv(4096); return (r[3] & 15, struct.unpack('>H', r[6:8])[0])\n\
        print(*[ask(n) for n in ('two.test', 'none.test', 'nowhere.test', 'x.broken')])\n";
    let mut python = Command::new(program("python3"));
    python.args(["-c", script, &nsd.address.ip().to_string(), &nsd.address.port().to_string()]);
    let output = run_ok(&mut python, b"", SOON);
    // NOERROR with two and one answers, NXDOMAIN, SERVFAIL.
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "(0, 2) (0, 1) (3, 0) (2, 0)");
}

#[test]
fn smtp_source_fills_smtp_sink() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = SmtpSink::start(&dir, port.at(1), &[]);
    let mut source = Command::new(program("smtp-source"));
    source.args(["-s", "5", "-m", "50", "-f", FROM, "-t", TO]).arg(sink.address.to_string());
    run_ok(&mut source, b"", SOON);
    support::wait_for("50 messages", SOON, || (sink.count() == 50).then_some(()));
    assert!(sink.files().iter().all(|file| file.starts_with(b"X-Client-Addr:")));
}

#[test]
fn postfix_stores_mail_and_checks_passwords() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let authority = Authority::new(&dir, "test-ca");
    let certificate = authority.certificate(&dir, "smart.test");
    let submission =
        Submission { user: "relay", password: "right", certificate: &certificate.file, key: &certificate.key };
    let options = postfix::Options { domains: &["example.test"], main: "", submission: Some(submission) };
    let postfix = Postfix::start(&dir, "submission", port.at(2), &options);
    let login = |password: &str| {
        let script = "import smtplib, ssl, sys\n\
            context = ssl.create_default_context(cafile=sys.argv[4])\n\
            with smtplib.SMTP(sys.argv[1], int(sys.argv[2])) as smtp:\n    \
            smtp._host = 'smart.test'  # the name to verify, which no DNS knows\n    \
            smtp.starttls(context=context); smtp.login('relay@postfix.test', sys.argv[3])\n    \
            smtp.sendmail('a@sender.test', ['somebody@example.test'], sys.stdin.buffer.read())\n";
        let mut python = Command::new(program("python3"));
        python.args(["-c", script, &port.at(2).ip().to_string(), &port.number.to_string(), password]);
        python.arg(&authority.file);
        run(&mut python, &message("stored"), Duration::from_secs(30))
    };
    let refused = login("wrong");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("535"), "{refused:?}\n{}", postfix.log());
    assert!(login("right").status.success(), "{}", postfix.log());
    let stored = postfix.wait(1);
    let crlf = String::from_utf8_lossy(&stored[0]).replace('\n', "\r\n");
    assert_eq!(header(crlf.as_bytes(), "Subject").as_deref(), Some("stored"));
    drop(postfix);
    assert!(TcpStream::connect(port.at(2)).is_err(), "Postfix is gone when dropped");
}
