//! Existing programs send through the relay, and what arrives is byte for byte what they sent, plus
//! one `Received:` field on top.
//!
//! "What they sent" is not taken from a file but recorded: each program sends the same message once
//! to the receiver directly and once through mailweir.

use crate::support;

use std::process::Command;
use std::time::{Duration, Instant};

use support::client::{Client, stuffed};
use support::daemon::{Daemon, Setup};
use support::mail::{assert_same_bytes, header, message, parsed_by_python, split_received};
use support::senders::{self, FROM, Sender, TO};
use support::servers::SmtpSink;
use support::sink::{Options, Sink};
use support::{Port, SOON, TestDir, program, run_ok, wait_for};

const UNLIMITED: &str = "connections = 10\nrate = []";

/// A relay with one receiver for example.test.
fn relay(dir: &TestDir, options: Options) -> (Daemon, Sink, Port) {
    let port = Port::reserve();
    let sink = Sink::with(port.at(2), options);
    let daemon = Setup::new(dir).via("example", "example.test", sink.address, UNLIMITED).start();
    (daemon, sink, port)
}

/// 8-bit text in two encodings, dots where they hurt, tabs, trailing blanks, empty lines at the end.
fn awkward(subject: &str) -> Vec<u8> {
    let mut content = message(subject);
    let body = b"\r\n.\xc3\xa4 starts with a dot\r\n..two dots\r\n. \r\n\tgr\xfc\xdfe in latin-1 \xff\xfe\r\n\
        ends with blanks  \t\r\nFrom the start of a line\r\n=20 not quoted-printable =\r\n\r\n.hidden\r\nlast line\r\n";
    content.extend_from_slice(body);
    content
}

#[test]
fn what_swaks_smtplib_nodemailer_and_msmtp_send_arrives_unchanged() {
    let dir = TestDir::new();
    let (daemon, sink, _port) = relay(&dir, Options::default());
    let clients: [(&str, Sender); 4] = [
        ("swaks", senders::swaks),
        ("smtplib", senders::smtplib),
        ("nodemailer", senders::nodemailer),
        ("msmtp", senders::msmtp),
    ];
    for (name, send) in clients {
        let direct_port = Port::reserve();
        let direct = Sink::start(direct_port.at(1));
        send(&dir, direct.address, &awkward(name));
        let sent = direct.wait(1, SOON).remove(0);

        send(&dir, daemon.smtp, &awkward(name));
        let arrived = sink.wait_subject(name, SOON);
        let (received, rest) = split_received(&arrived.content);
        assert!(received.contains("relay.test") && received.contains("client.test"), "{name}: {received}");
        assert_same_bytes(name, rest, &sent.content);
        assert_eq!(arrived.from.split(' ').next(), Some("<sender@sender.test>"), "{name}");
        assert_eq!(arrived.to, ["<somebody@example.test>"], "{name}");
    }
    sink.assert_legal();
    assert_eq!(sink.count(), clients.len());
}

#[test]
fn what_smtp_source_sends_arrives_whole_at_smtp_sink() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let upstream = SmtpSink::start(&dir, port.at(2), &[]);
    let daemon = Setup::new(&dir).via("example", "example.test", upstream.address, UNLIMITED).start();
    let mut source = Command::new(program("smtp-source"));
    source.args(["-s", "20", "-m", "500", "-l", "10000", "-f", FROM, "-t", TO]).arg(daemon.smtp.to_string());
    run_ok(&mut source, b"", Duration::from_secs(120));
    wait_for("500 messages at smtp-sink", Duration::from_secs(60), || (upstream.count() >= 500).then_some(()));
    daemon.wait_queue_empty(SOON);
    let files = upstream.files();
    assert_eq!(files.len(), 500);
    let mut ids = Vec::new();
    let mut bodies = Vec::new();
    for file in &files {
        let text = String::from_utf8(file.clone()).expect("ASCII").replace('\n', "\r\n");
        ids.push(header(text.as_bytes(), "Message-Id").expect("a Message-Id"));
        bodies.push(text.split_once("\r\n\r\n").expect("a body").1.to_owned());
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 500, "every message once");
    assert!(bodies[0].len() > 9_000, "{} bytes", bodies[0].len());
    assert!(bodies.iter().all(|body| *body == bodies[0]), "smtp-source sends the same body each time");
}

/// Several sizes around the sizes of buffers and chunks, up to 20 MB, through one receiver.
#[test]
fn messages_of_every_size_arrive_unchanged() {
    let dir = TestDir::new();
    let (daemon, sink, _port) = relay(&dir, Options::default());
    let mut client = daemon.client();
    let mut random = fastrand::Rng::with_seed(20);
    let chunk = 256 * 1024;
    for size in [0, 1, 1000, 65_536, chunk - 1, chunk, chunk + 1, 3 * chunk, 20_000_000] {
        let mut content = message(&format!("size-{size}"));
        while content.len() < size {
            let length = random.usize(0..998);
            content.extend((0..length).map(|_| random.u8(32..127)));
            content.extend_from_slice(b"\r\n");
        }
        let id = client.send("<sender@sender.test>", &["<somebody@example.test>"], &content);
        let arrived = sink.wait_subject(&format!("size-{size}"), Duration::from_secs(60));
        assert_same_bytes(&format!("{size} bytes, id {id}"), split_received(&arrived.content).1, &content);
    }
    sink.assert_legal();
}

/// RFC 5321 §2.3.8: a bare CR or LF must not leave. Both become CRLF, but neither starts a line as
/// far as dots are concerned, so that none of this ends the message.
#[test]
fn bare_cr_and_lf_become_line_ends_and_never_end_a_message() {
    let dir = TestDir::new();
    let (daemon, sink, _port) = relay(&dir, Options::default());
    let mut content = message("bare");
    let mut client = daemon.client();
    client.command(250, "MAIL FROM:<sender@sender.test>");
    client.command(250, "RCPT TO:<somebody@example.test>");
    client.command(354, "DATA");
    client.write(&content).expect("write");
    let bare: &[u8] =
        b"one\ntwo\rthree\n.\nMAIL FROM:<smuggled@evil.test>\r\n..four\r.\r\nfive\n.\r\nsix\r\n.\nseven\r\n";
    client.write(bare).expect("write");
    client.write(b".\r\n").expect("write");
    client.reply_of(250, "the message");
    // The dot before `seven` stood at the start of a line: it was stuffing.
    content.extend_from_slice(
        b"one\r\ntwo\r\nthree\r\n.\r\nMAIL FROM:<smuggled@evil.test>\r\n.four\r\n.\r\nfive\r\n.\r\nsix\r\n\r\nseven\r\n",
    );
    let arrived = sink.wait_subject("bare", SOON);
    assert_same_bytes("bare", split_received(&arrived.content).1, &content);
    client.command(250, "NOOP");
    daemon.wait_queue_empty(SOON);
    sink.assert_legal();
    assert_eq!(sink.count(), 1, "nothing was smuggled");
}

/// A part that is not text cannot be re-encoded without harm, so its long lines are folded.
#[test]
fn a_long_line_of_a_part_that_may_not_be_re_encoded_is_folded() {
    let dir = TestDir::new();
    let (daemon, sink, _port) = relay(&dir, Options::default());
    let line: String = (0..1_000_000).map(|i| char::from(b'a' + (i % 26) as u8)).collect();
    let signed = "DKIM-Signature: v=1; a=rsa-sha256; d=sender.test; s=x; h=from; bh=AAAA; b=AAAA\r\n";
    let head = format!("{signed}{}", String::from_utf8(message("folded")).expect("ASCII"));
    let content = format!("{head}{line}\r\n");
    daemon.client().send("<sender@sender.test>", &["<somebody@example.test>"], content.as_bytes());
    let arrived = sink.wait_subject("folded", SOON);
    sink.assert_legal();
    let text = String::from_utf8(split_received(&arrived.content).1.to_vec()).expect("ASCII");
    let body = text.strip_prefix(&head).expect("the header section and the first line as they were");
    // What folding put in is CRLF and one space, and nothing else.
    assert!(body.replace("\r\n ", "") == format!("{line}\r\n"), "without the folds, the line is what was sent");
}

/// A text part whose line is too long for SMTP is re-encoded, which loses nothing.
#[test]
fn a_line_of_1_mb_leaves_in_legal_lines_and_decodes_to_the_same() {
    let dir = TestDir::new();
    let (daemon, sink, _port) = relay(&dir, Options::default());
    let line: String = (0..1_000_000).map(|i| char::from(b'a' + (i % 26) as u8)).collect();
    let head = String::from_utf8(message("long")).expect("ASCII").replace(
        "Subject: long\r\n",
        "Subject: long\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\n",
    );
    let content = format!("{head}{line}\r\n");
    daemon.client().send("<sender@sender.test>", &["<somebody@example.test>"], content.as_bytes());
    let arrived = sink.wait_subject("long", SOON);
    sink.assert_legal();
    let parsed = parsed_by_python(&arrived.content);
    let text = parsed["parts"][0]["text"].as_str().expect("a text part").replace("\r\n", "\n");
    assert_eq!(text.len(), "The body of long.\n".len() + line.len() + 1);
    assert!(text == format!("The body of long.\n{line}\n"), "the decoded text is what was sent");
}

#[test]
fn eight_bit_text_is_converted_for_a_host_without_8bitmime() {
    let dir = TestDir::new();
    let (daemon, sink, _port) = relay(&dir, Options::offering(&["SIZE 1000000"]));
    let head = String::from_utf8(message("eight")).expect("ASCII").replace(
        "Subject: eight\r\n",
        "Subject: eight\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n",
    );
    let content = format!("{head}Grüße — à bientôt, 你好\r\n.äöü\r\n");
    daemon.client().send("<sender@sender.test> BODY=8BITMIME", &["<somebody@example.test>"], content.as_bytes());
    let arrived = sink.wait_subject("eight", SOON);
    sink.assert_legal();
    let text = parsed_by_python(&arrived.content)["parts"][0]["text"].as_str().expect("text").replace("\r\n", "\n");
    assert_eq!(text, "The body of eight.\nGrüße — à bientôt, 你好\n.äöü\n");
}

/// Go's net/smtp declares SMTPUTF8 wherever it is offered, whether the message needs it or not.
#[test]
fn a_header_announced_as_utf8_is_encoded_for_a_host_without_smtputf8() {
    let dir = TestDir::new();
    let (daemon, sink, _port) = relay(&dir, Options::offering(&["8BITMIME"]));
    let head = String::from_utf8(message("utf8")).expect("ASCII").replace(
        "Subject: utf8\r\n",
        "Subject: Gr\u{fc}\u{df}e utf8\r\nCc: J\u{f6} <jo@m\u{fc}ller.example>\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=utf-8\r\n",
    );
    let content = format!("{head}Gr\u{fc}\u{df}e\r\n");
    let sender = "<sender@sender.test> BODY=8BITMIME SMTPUTF8";
    daemon.client().send(sender, &["<somebody@example.test>"], content.as_bytes());
    let arrived = sink.wait(1, SOON).remove(0);
    sink.assert_legal();
    assert!(!arrived.from.contains("SMTPUTF8"), "{}", arrived.from);
    let text = String::from_utf8_lossy(&arrived.content).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").expect("a header and a body");
    assert!(head.is_ascii() && head.contains("<jo@xn--mller-kva.example>"), "{text}");
    assert!(body.contains("Gr\u{fc}\u{df}e"), "the host takes eight bits, so the body stays: {text}");
    let parsed = parsed_by_python(&arrived.content);
    assert!(text.contains("\r\nSubject: =?utf-8?"), "{text}");
    assert!(parsed["parts"][0]["text"].as_str().is_some_and(|text| text.contains("Gr\u{fc}\u{df}e")), "{parsed}");
}

/// A client that goes away before the final dot has sent nothing.
#[test]
fn a_message_cut_off_in_its_body_is_not_queued() {
    let dir = TestDir::new();
    let (daemon, sink, _port) = relay(&dir, Options::default());
    {
        let mut client = Client::connect(daemon.smtp);
        client.command(250, "MAIL FROM:<sender@sender.test>");
        client.command(250, "RCPT TO:<somebody@example.test>");
        client.command(354, "DATA");
        let whole = stuffed(&message("cut"));
        client.write(&whole[..whole.len() - 3]).expect("write");
    }
    let started = Instant::now();
    daemon.client().send("<sender@sender.test>", &["<somebody@example.test>"], &message("next"));
    sink.wait_subject("next", SOON);
    daemon.wait_queue_empty(SOON);
    assert_eq!(sink.count(), 1, "after {:?}", started.elapsed());
}
