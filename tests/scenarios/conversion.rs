//! Messages for hosts without 8BITMIME, as the whole relay treats them: what is beyond the bounds of
//! a conversion bounces with the reason, what is large is converted, and neither holds up others.

use crate::support;

use support::daemon::Setup;
use support::mail::{Report, message, parsed_by_python};
use support::sink::{Answer, Options, Sink};
use support::{Port, SOON, TestDir};

const LIMITS: &str = "connections = 4\nrate = []";
const RETRY: &str = "[retry]\nfirst = \"1s\"\nmax = \"1s\"";

/// A message with a part whose Content-Type has parameters without end, which take a parser that
/// looks at all of them for each of them hours.
fn endless_parameters() -> Vec<u8> {
    let mut content = message("endless");
    content.truncate(content.len() - "\r\nThe body of endless.\r\n".len());
    content.extend_from_slice(b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n");
    content.extend_from_slice(b"Content-Type: text/plain");
    content.extend_from_slice(&b";a=b;b*1=c".repeat(50_000));
    content.extend_from_slice("\r\n\r\né\r\n--b--\r\n".as_bytes());
    content
}

#[test]
fn a_message_beyond_the_bounds_bounces_with_the_reason_and_others_go_on() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let weak = Sink::with(port.at(2), Options::offering(&["PIPELINING"]));
    let senders = Sink::start(port.at(3));
    let daemon = Setup::new(&dir)
        .via("weak", "example.test", port.at(2), LIMITS)
        .via("senders", "sender.test", port.at(3), LIMITS)
        .with(RETRY)
        .start();
    let mut client = daemon.client();
    // More of them than conversions that go on at once, and asking for the whole message back.
    for n in 0..6 {
        client.send("<a@sender.test> RET=FULL", &[&format!("<b{n}@example.test>")], &endless_parameters());
    }
    let text = format!("{}Grüße\r\n", String::from_utf8(message("after")).expect("ASCII"));
    client.send("<a@sender.test> BODY=8BITMIME", &["<c@example.test>"], text.as_bytes());
    weak.wait_subject("after", SOON);
    senders.wait(6, SOON);
    daemon.wait_queue_empty(SOON);
    weak.assert_legal();
    assert_eq!(weak.count(), 1, "none of the others");
    for dsn in senders.messages() {
        let report = Report::parse(&dsn.content);
        assert_eq!(report.recipient_field("status"), "5.6.0");
        let why = report.recipient_field("diagnostic-code").split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(why.ends_with("a header field that would have to be rewritten has more than 32768 bytes"), "{why}");
    }
}

/// The reply to MAIL is late, so each of them is ready to be sent, then all are sent at once, and one
/// is sent twice because the host wants it once more: what arrives decodes to what was sent.
#[test]
fn large_messages_are_converted_while_they_are_sent() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let gate = support::sink::Gate::default();
    let script = {
        let gate = gate.clone();
        let broken = std::sync::atomic::AtomicBool::new(false);
        move |ask: &support::sink::Ask| match ask.verb {
            "MAIL" => Answer::After(gate.clone()),
            "DOT" if !broken.swap(true, std::sync::atomic::Ordering::SeqCst) => Answer::say("451 4.3.0 once more"),
            _ => Answer::Yes,
        }
    };
    let options = Options { extensions: vec!["PIPELINING", "SIZE 60000000"], ..Options::script(script) };
    let weak = Sink::with(port.at(2), options);
    let daemon = Setup::new(&dir)
        .queue(&format!("store = \"sqlite:{}\"\nmemory = \"1MiB\"", dir.join("queue.db").display()))
        .via("weak", "example.test", port.at(2), LIMITS)
        .with(RETRY)
        .start();
    let mut client = daemon.client();
    let line = "Grüße aus dem schönen Köln, wo es heute regnet.\r\n";
    let lines = 1_500_000 / line.len();
    let head = "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n";
    for n in 0..3 {
        let plain = String::from_utf8(message(&format!("large-{n}"))).expect("ASCII");
        let content = plain.replacen("\r\n\r\n", &format!("\r\n{head}\r\n"), 1) + &line.repeat(lines);
        client.send("<a@sender.test> BODY=8BITMIME", &["<b@example.test>"], content.as_bytes());
    }
    gate.open();
    weak.wait(3, SOON);
    daemon.wait_queue_empty(SOON);
    weak.assert_legal();
    for received in weak.messages() {
        let parsed = parsed_by_python(&received.content);
        let text = parsed["parts"][0]["text"].as_str().expect("a text part").replace("\r\n", "\n");
        let body = line.repeat(lines).replace("\r\n", "\n");
        assert!(text.ends_with(&body) && text.len() < body.len() + 60, "the decoded text is what was sent");
        let size = received.from.split("SIZE=").nth(1).and_then(|size| size.split(' ').next());
        assert_eq!(size.and_then(|size| size.parse().ok()), Some(received.content.len()), "{}", received.from);
    }
}

/// As Go's net/smtp does: SMTPUTF8 is declared whenever it is offered, and the subject is raw UTF-8. Others
/// declare nothing.
#[test]
fn utf8_in_a_header_goes_in_ascii_to_hosts_without_smtputf8_whoever_declared_it() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let weak = Sink::with(port.at(2), Options::offering(&["PIPELINING"]));
    let eight = Sink::with(port.at(3), Options::offering(&["PIPELINING", "8BITMIME"]));
    let daemon = Setup::new(&dir)
        .via("weak", "weak.test", port.at(2), LIMITS)
        .via("eight", "eight.test", port.at(3), LIMITS)
        .with(RETRY)
        .start();
    let content = |subject: &str| {
        format!(
            "From: Jö <a@sender.test>\r\nTo: b@müller.test\r\nSubject: {subject} ü\r\n\
             Content-Type: text/plain; charset=utf-8\r\n\r\nGrüße\r\n"
        )
    };
    let mut client = daemon.client();
    client.command(250, "EHLO tést");
    for (subject, parameters) in [("declared", "BODY=8BITMIME SMTPUTF8"), ("undeclared", "BODY=8BITMIME")] {
        let to = ["<b@weak.test>", "<b@eight.test>"];
        client.send(&format!("<a@sender.test> {parameters}"), &to, content(subject).as_bytes());
    }
    weak.wait(2, SOON);
    eight.wait(2, SOON);
    daemon.wait_queue_empty(SOON);
    weak.assert_legal();
    eight.assert_legal();
    for received in weak.messages().iter().chain(&eight.messages()) {
        let text = String::from_utf8_lossy(&received.content);
        let (head, body) = text.split_once("\r\n\r\n").expect("a header");
        assert!(head.is_ascii() && !received.from.contains("SMTPUTF8"), "{text}");
        assert!(head.contains("From: =?utf-8?q?J=C3=B6?= <a@sender.test>"), "{head}");
        assert!(head.contains("<b@xn--mller-kva.test>") && head.contains("declared =?utf-8?q?=C3=BC?="), "{head}");
        let raw = received.from.contains("8BITMIME");
        assert_eq!(body.contains("Grüße"), raw, "the body is only converted where it must: {text}");
    }
    assert!(eight.messages().iter().all(|m| m.from.contains("8BITMIME")));
}
