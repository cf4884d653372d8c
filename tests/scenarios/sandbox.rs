//! `[sandbox]`: of a relay for staging nothing reaches real people, whichever way it came in.

use crate::support;

use support::daemon::Setup;
use support::mail::{header, message};
use support::sink::{Answer, Ask, Options, Sink};
use support::{Port, SOON, TestDir, wait_for};

const FROM: &str = "<app@shop.test>";

fn recipients(sink: &Sink) -> Vec<String> {
    let mut all: Vec<String> = sink.messages().into_iter().flat_map(|message| message.to).collect();
    all.sort_unstable();
    all
}

#[test]
fn everything_goes_to_one_address_and_reports_do_too() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let script = |ask: &Ask| match ask.verb == "RCPT" && ask.argument.contains("<refused@ok.test>") {
        true => Answer::say("550 5.1.1 nobody here"),
        false => Answer::Yes,
    };
    let sink = Sink::with(port.at(2), Options::script(script));
    let daemon = Setup::new(&dir)
        .via("all", "*.test", sink.address, "rate = []")
        .with("[sandbox]\nto = \"dev@team.test\"\nallow = [\"*@ok.test\"]")
        .start();
    let mut client = daemon.client();
    client.send(FROM, &["<one@real.test>", "<two@real.test>", "<friend@ok.test>"], &message("to several"));
    client.send("<customer@real.test>", &["<refused@ok.test>"], &message("bounces"));
    // Two of the three become one, and the report on what bounced is for the sandbox as well.
    let report = wait_for("the report", SOON, || sink.messages().into_iter().find(|m| m.from.starts_with("<>")));
    assert!(report.to[0].starts_with("<dev@team.test>"), "{:?}", report.to);
    assert!(
        header(&report.content, "To").is_some_and(|to| to.contains("customer@real.test")),
        "whose it is can be seen"
    );
    sink.wait_subject("to several", SOON);
    daemon.wait_queue_empty(SOON);
    let others: Vec<String> = recipients(&sink).into_iter().filter(|to| !to.starts_with("<dev@team.test>")).collect();
    assert_eq!(others, ["<friend@ok.test>"]);
    let accepted = daemon.wait_log("that it came in", |line| line.event() == "accepted" && line.get("count") == "2");
    assert_eq!(accepted.get("alias"), "one@real.test");
    let loud = "SANDBOX: everything goes to dev@team.test, but for what is for *@ok.test";
    assert!(daemon.command_ok(&["status"], b"").lines().any(|line| line == loud));
    assert!(daemon.log_lines().iter().any(|line| line.get("level") == "WARN" && line.get("warning").contains(loud)));
    let told = daemon.command(&["check"], b"");
    let (warned, said) = (String::from_utf8_lossy(&told.stderr), String::from_utf8_lossy(&told.stdout));
    assert!(warned.contains(loud) && said.contains("1 warning"), "{warned}{said}");
    let told = daemon.command_ok(&["explain", "one@real.test"], b"");
    assert!(told.contains("SANDBOX   it goes to dev@team.test instead; without [sandbox]:"), "{told}");
    assert!(!daemon.command_ok(&["explain", "x@ok.test"], b"").contains("SANDBOX"));
    sink.assert_legal();
}

/// A queue that was copied from the relay that sends to real people.
#[test]
fn what_was_in_the_queue_before_is_held_and_leaves_when_there_is_no_sandbox_any_more() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(2));
    let mut daemon = Setup::new(&dir).via("all", "*.test", sink.address, "rate = []").start();
    daemon.command_ok(&["provider", "pause", "all"], b"");
    daemon.client().send(FROM, &["<one@real.test>", "<friend@ok.test>"], &message("before"));
    daemon.stop();
    daemon.replace_config("[log]\n", "[sandbox]\nallow = [\"*@ok.test\"]\n[log]\n");
    daemon.start();
    daemon.client().send(FROM, &["<two@real.test>", "<friend@ok.test>"], &message("after"));
    daemon.command_ok(&["provider", "resume", "all"], b"");
    sink.wait_subject("before", SOON);
    sink.wait_subject("after", SOON);
    let held = wait_for("both to be held", SOON, || {
        let rows = daemon.queue_list(&["--state", "held"]);
        (rows.len() == 2).then_some(rows)
    });
    assert_eq!(held[1].reason(), "held: [sandbox] does not let it out");
    // An operator who releases it does not send it either.
    daemon.command_ok(&["queue", "release", "--all"], b"");
    wait_for("both to be held again", SOON, || (daemon.queue_list(&["--state", "held"]).len() == 2).then_some(()));
    assert_eq!(recipients(&sink), ["<friend@ok.test>", "<friend@ok.test>"]);
    daemon.stop();
    daemon.replace_config("[sandbox]\nallow = [\"*@ok.test\"]\n[log]\n", "[log]\n");
    daemon.start();
    daemon.command_ok(&["queue", "release", "--all"], b"");
    wait_for("both to leave", SOON, || (sink.count() == 4).then_some(()));
    assert_eq!(recipients(&sink)[2..], ["<one@real.test>", "<two@real.test>"]);
}
