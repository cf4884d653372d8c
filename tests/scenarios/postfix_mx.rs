//! A real Postfix as the mail exchanger, found through a real name server: it stores what it takes;
//! what it refuses for now is tried again; what it refuses for good comes back to the sender as a
//! DSN that it stores too.

use crate::support;

use support::daemon::{Daemon, Setup};
use support::mail::{Report, assert_same_bytes, message, split_received};
use support::postfix::{self, Postfix};
use support::servers::Nsd;
use support::{Port, TestDir, wait_for};

const ZONE: &str = "example MX 10 mx\nsender MX 10 mx\nmx A 127.0.0.4\n";

struct World {
    daemon: Daemon,
    postfix: Postfix,
    _nsd: Nsd,
    _port: Port,
    _dir: TestDir,
}

/// `access` are lines of a Postfix access table for recipients.
fn world(access: &str) -> World {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let table = postfix::table(&dir, "mx", "access", access);
    let main = format!(
        "smtpd_recipient_restrictions = check_recipient_access texthash:{}, reject_unauth_destination",
        table.display()
    );
    let options = postfix::Options { domains: &["example.test", "sender.test"], main: &main, submission: None };
    let postfix = Postfix::start(&dir, "mx", port.at(4), &options);
    let nsd = Nsd::start(&dir, ZONE);
    let daemon = Setup::new(&dir)
        .dns(nsd.address)
        .with(&format!("[default]\nport = {}\nallow_private = true", port.number))
        .with("[retry]\nfirst = \"1s\"\nfactor = 1.0\njitter = 0.0")
        .start();
    World { daemon, postfix, _nsd: nsd, _port: port, _dir: dir }
}

/// A stored file as the message that the relay sent: without what Postfix put on top, CRLF again.
fn as_sent(stored: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(stored).replace('\n', "\r\n");
    // The first Received is that of Postfix and ends the lines that Postfix added.
    let at = text.find("\r\nReceived: ").expect("a Received of Postfix") + 2;
    let below = split_received(&text.as_bytes()[at..]).1;
    below.to_vec()
}

#[test]
fn postfix_as_mx_stores_what_was_sent() {
    let world = world("");
    let content = message("stored by Postfix");
    let id = world.daemon.client().send("<sender@sender.test>", &["<somebody@example.test>"], &content);
    let stored = world.postfix.wait(1);
    let arrived = as_sent(&stored[0]);
    assert_same_bytes("stored", split_received(&arrived).1, &content);
    let line = world.daemon.wait_log("delivered", |line| line.is("delivered", &id));
    assert_eq!(line.get("host"), "mx.test");
    assert!(line.why().starts_with("250 2.0.0"), "{}", line.0);
}

#[test]
fn a_450_is_tried_again_and_the_550_after_it_comes_back_as_a_dsn_that_python_understands() {
    let world = world("gone@example.test 450 4.2.0 come back later\n");
    let client_content = message("refused");
    let id = world.daemon.client().send(
        "<sender@sender.test> RET=HDRS ENVID=envelope+2B7",
        &["<gone@example.test> ORCPT=rfc822;Gone+2BAway@example.test", "<somebody@example.test>"],
        &client_content,
    );
    let line = world.daemon.wait_log("deferred", |line| line.is("deferred", &id));
    assert_eq!(line.get("recipient"), "gone@example.test");
    assert!(line.why().contains("450 4.2.0"), "{}", line.0);
    // The other recipient of the same message did not wait for it.
    assert_eq!(world.postfix.wait(1).len(), 1);

    world.postfix.write("access", "gone@example.test 550 5.2.1 the mailbox is closed\n");
    world.postfix.reload();
    let line = world.daemon.wait_log("bounced", |line| line.is("bounced", &id));
    assert!(line.why().contains("550 5.2.1"), "{}", line.0);
    assert!(line.get("attempt").parse::<u32>().is_ok_and(|attempt| attempt >= 2), "{}", line.0);

    let stored = wait_for("the DSN at Postfix", support::SOON, || {
        world.postfix.mailbox().into_iter().find(|file| String::from_utf8_lossy(file).contains("multipart/report"))
    });
    let text = String::from_utf8_lossy(&stored);
    assert!(text.starts_with("Return-Path: <>\n"), "a DSN has the null reverse-path: {text}");
    let report = Report::parse(&as_sent(&stored));
    assert_eq!(report.header("to"), "<sender@sender.test>");
    assert_eq!(report.header("auto-submitted"), "auto-replied");
    assert!(!report.header("message-id").is_empty() && !report.header("date").is_empty());
    assert_eq!(report.message_field("reporting-mta"), "dns; relay.test");
    assert_eq!(report.message_field("original-envelope-id"), "envelope+7");
    assert!(!report.message_field("arrival-date").is_empty());
    assert_eq!(report.recipient_field("action"), "failed");
    assert_eq!(report.recipient_field("status"), "5.2.1");
    assert_eq!(report.recipient_field("final-recipient"), "rfc822; gone@example.test");
    assert_eq!(report.recipient_field("original-recipient"), "rfc822; Gone+Away@example.test");
    assert_eq!(report.recipient_field("remote-mta"), "dns; mx.test");
    assert!(report.recipient_field("diagnostic-code").starts_with("smtp; 550 5.2.1"));
    assert!(report.recipient_field("diagnostic-code").contains("the mailbox is closed"));
    assert!(!report.recipient_field("last-attempt-date").is_empty());
    assert!(report.text().contains("gone@example.test"), "{}", report.text());
    assert_eq!(report.returned_type(), "text/rfc822-headers");
    assert!(report.returned().contains("Subject: refused"), "{}", report.returned());
    assert!(!report.returned().contains("The body of refused"), "RET=HDRS: {}", report.returned());

    // One fate each: the dead letter is kept, the delivered recipient is gone.
    let rows = world.daemon.queue_list(&[]);
    let of_message: Vec<_> = rows.iter().filter(|row| row.id() == id).collect();
    assert_eq!(of_message.len(), 1, "{rows:?}");
    assert_eq!((of_message[0].recipient(), of_message[0].state()), ("gone@example.test".into(), "failed".into()));
}
