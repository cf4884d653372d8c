//! `mailweir explain` beside a relay that runs, and without one.

use crate::support;

use serde_json::Value;
use support::daemon::{Daemon, Setup};
use support::mail::message;
use support::sink::{Answer, Gate, Options, Sink};
use support::{Port, TestDir};

fn explained(daemon: &Daemon, arguments: &[&str]) -> Value {
    let all = [&["explain", "--json"], arguments].concat();
    serde_json::from_str(&daemon.command_ok(&all, b"")).expect("one JSON object")
}

#[test]
fn tells_route_limits_and_when_it_would_leave() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let gate = Gate::default();
    let sink = {
        let gate = gate.clone();
        let script = Options::script(move |ask| match ask.verb {
            "DOT" => Answer::After(gate.clone()),
            _ => Answer::Yes,
        });
        Sink::with(port.at(2), script)
    };
    let keys = "connections = 2\nrate = \"30/m\"\nsource = [\"127.0.0.2\", \"127.0.0.3\"]";
    let mut daemon = Setup::new(&dir).via("p", "p.test", sink.address, keys).start();
    let mut client = daemon.client();
    for n in 0..41 {
        client.send("<news@sender.test> MT-PRIORITY=-4", &["<r@p.test>"], &message(&format!("bulk {n}")));
    }
    daemon.wait_log("a log", |line| line.event() == "accepted");

    let told = explained(&daemon, &["x@p.test", "--sender", "app@sender.test", "--priority", "-4"]);
    assert_eq!(told["running"], true);
    assert_eq!(told["route"]["provider"], "p");
    assert_eq!(told["route"]["smart_host"], true);
    assert_eq!(told["route"]["hosts"][0]["addresses"][0], "127.0.0.2");
    assert!(told["route_from"].as_str().is_some_and(|at| at.contains("config.toml:")), "{told}");
    assert_eq!(told["sources"].as_array().map(Vec::len), Some(2));
    let limit = |key: &str| told["limits"].as_array().expect("limits").iter().find(|l| l["key"] == key).cloned();
    let rate = limit("rate").expect("a rate");
    assert_eq!(rate["value"], "[\"30/m\"]");
    assert!(rate["from"].as_str().is_some_and(|at| at.contains("config.toml:")), "{rate}");
    assert_eq!(limit("burst").expect("a burst")["from"], "default");
    let lane = &told["lane"];
    let ahead = lane["ahead_in_memory"].as_u64().expect("a number");
    assert!((39..=41).contains(&ahead), "{lane}");
    let latest = lane["latest"].as_u64().expect("an estimate");
    assert!((75..=90).contains(&latest), "{latest} s for {ahead} at 30/m");
    // What is on its way, and a turn of the only other sender.
    let earliest = lane["earliest"].as_u64().expect("an estimate");
    assert!((2..=6).contains(&earliest) && lane["turns"] == 1, "{lane}");

    // A more urgent one has less before it.
    let urgent = explained(&daemon, &["x@p.test"]);
    assert!(urgent["lane"]["ahead_in_memory"].as_u64() <= Some(2), "{urgent}");

    let text = daemon.command_ok(&["explain", "x@p.test"], b"");
    for line in ["provider  p", "because   [[route]] no. 1 takes it", "  rate", "30/m", "would leave", "(an estimate)"]
    {
        assert!(text.contains(line), "`{line}` is not in\n{text}");
    }
    daemon.command_ok(&["provider", "pause", "p"], b"");
    let text = daemon.command_ok(&["explain", "x@p.test"], b"");
    assert!(text.contains("held         paused by an operator (`mailweir provider resume p` ends that)"), "{text}");

    gate.open();
    daemon.kill();
    let told = explained(&daemon, &["x@p.test"]);
    assert_eq!((told["running"].as_bool(), told["lane"].is_null()), (Some(false), true));
    assert_eq!(told["route"]["provider"], "p");
    let text = daemon.command_ok(&["explain", "x@p.test"], b"");
    assert!(text.contains("mailweir is not running"), "{text}");
    let refused = daemon.command(&["explain", "nobody"], b"");
    assert_eq!(refused.status.code(), Some(64), "an address without a domain");
}

/// A host that refuses all mail of one sender domain: who asks hears the same as who looks at what waits.
#[test]
fn mail_that_the_provider_refuses_is_not_said_to_leave_at_once() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let script = Options::script(|ask| match ask.verb {
        "MAIL" if ask.argument.contains("@bad.test") => Answer::say("530 5.7.0 log in first"),
        _ => Answer::Yes,
    });
    let sink = Sink::with(port.at(2), script);
    let daemon = Setup::new(&dir).via("p", "p.test", sink.address, "connections = 2").start();
    let mut client = daemon.client();
    let ids: Vec<String> = ["a@bad.test", "b@bad.test", "c@bad.test", "d@bad.test"]
        .iter()
        .map(|from| client.send(from, &["<r@p.test>"], &message("refused")))
        .collect();
    let told = support::wait_for("a refusal", support::SOON, || {
        let shown = daemon.command_ok(&["queue", "show", ids.last().expect("one")], b"");
        shown.contains("refuses us with mail of senders at bad.test").then_some(shown)
    });
    let (words, _) = told.split_once("refuses us with mail").map(|(_, rest)| rest.split_at(30)).expect("words");
    let text = daemon.command_ok(&["explain", "r@p.test", "--sender", "e@bad.test"], b"");
    assert!(text.contains(&format!("refuses us with mail{words}")), "{told}\n{text}");
    assert!(!text.contains("would leave  at once"), "{text}");
    let lane = explained(&daemon, &["r@p.test", "--sender", "e@bad.test"])["lane"].clone();
    assert!(lane["earliest"].as_u64() > Some(1), "{lane}");
    let text = daemon.command_ok(&["explain", "r@p.test", "--sender", "e@good.test"], b"");
    assert!(!text.contains("refuses us with mail"), "{text}");
}
