//! What a gateway does with mail of programs that nobody can teach: another sender, a copy for an archive, and a
//! `Received:` field that says nothing of them.

use crate::support;

use support::daemon::Setup;
use support::mail::{header, message};
use support::sink::{Answer, Ask, Options, Sink};
use support::{Port, SOON, TestDir};

const RULES: &str = "[[rewrite]]\naddress = \"*@*.lan\"\nto = \"*@shop.test\"\n\
                     [[copy]]\nto = \"archive@keep.test\"\nsender = \"*@shop.test\"\n\
                     [[copy]]\nto = \"bosses@keep.test\"\nrecipient = \"boss@*\"";

#[test]
fn a_device_gets_a_sender_that_providers_take_and_the_archive_a_copy() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let script = |ask: &Ask| match (ask.verb, &*ask.argument) {
        ("MAIL", from) if !from.contains("<mfp@shop.test>") => Answer::say("550 5.7.60 not allowed to send as"),
        ("RCPT", to) if to.contains("<bosses@") => Answer::say("550 5.1.1 nobody here"),
        _ => Answer::Yes,
    };
    let sink = Sink::with(port.at(2), Options::script(script));
    let daemon = Setup::new(&dir)
        .via("all", "*.test", sink.address, "rate = []")
        .listener("received = \"minimal\"")
        .with(RULES)
        .start();
    let mut client = daemon.client();
    let scan = b"From: \"Copier, 2nd floor\" <mfp@copy.lan>\r\nSubject: a scan\r\n\r\nSee there.\r\n";
    client.send("<mfp@copy.lan>", &["<jo@there.test>", "<boss@there.test>"], scan);
    daemon.wait_queue_empty(SOON);

    // Each has it once, and nobody hears of a copy that failed.
    let messages = sink.messages();
    let mut to: Vec<String> = messages.iter().flat_map(|message| message.to.clone()).collect();
    to.sort_unstable();
    let of = |to: &str| to.split('>').next().unwrap_or_default().to_owned();
    assert_eq!(
        to.iter().map(|to| of(to)).collect::<Vec<_>>(),
        ["<archive@keep.test", "<boss@there.test", "<jo@there.test"]
    );
    for message in &messages {
        assert!(message.from.starts_with("<mfp@shop.test>"), "{}", message.from);
        assert_eq!(header(&message.content, "From").as_deref(), Some("\"Copier, 2nd floor\" <mfp@shop.test>"));
        let content = String::from_utf8_lossy(&message.content);
        assert!(
            !content.contains("keep.test") && !content.contains("127.0.0.1") && !content.contains("copy.lan"),
            "{content}"
        );
        assert!(header(&message.content, "Received").is_some_and(|by| by.starts_with("by ") && !by.contains("from")));
    }
    let accepted = daemon.wait_log("that it came in", |line| line.event() == "accepted");
    let told = ["sender", "sender_was", "count", "copies"].map(|field| accepted.get(field));
    assert_eq!(told, ["mfp@shop.test", "mfp@copy.lan", "2", "2"]);
    let failed = daemon.queue_list(&["--state", "failed"]);
    assert!(failed.len() == 1 && failed[0].recipient() == "bosses@keep.test", "{failed:?}");
    assert_eq!(failed[0].0["copy"], true, "{failed:?}");
    let listed = daemon.command_ok(&["queue", "list", "--state", "failed"], b"");
    assert!(listed.contains(" bosses@keep.test (copy) "), "{listed}");
    let shown = daemon.command_ok(&["queue", "show", &failed[0].id()], b"");
    assert!(shown.contains("bosses@keep.test (copy) "), "{shown}");

    let told = daemon.command_ok(&["explain", "boss@there.test", "--sender", "mfp@copy.lan"], b"");
    for line in [
        "sender    mfp@shop.test by [[rewrite]], which was mfp@copy.lan",
        "copy      to archive@keep.test, bosses@keep.test by [[copy]]",
    ] {
        assert!(told.lines().any(|told| told == line), "{told}");
    }
    sink.assert_legal();
}

/// A copy is for people, too: none of it leaves a sandbox.
#[test]
fn a_copy_stays_in_the_sandbox() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(2));
    let daemon = Setup::new(&dir)
        .via("all", "*.test", sink.address, "rate = []")
        .with(&format!("{RULES}\n[sandbox]\nto = \"dev@team.test\""))
        .start();
    daemon.client().send("<a@shop.test>", &["<jo@there.test>"], &message("m"));
    daemon.wait_queue_empty(SOON);
    let to: Vec<String> = sink.messages().into_iter().flat_map(|message| message.to).collect();
    assert!(to.len() == 1 && to[0].starts_with("<dev@team.test>"), "{to:?}");
}
