//! What is shown of mail that does not leave is true, and can be changed: in the log, in `provider list`
//! and `show`, in `queue list` and `retry`, in `explain`, by `provider resume` and `forget`.

use crate::support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use support::daemon::{Daemon, LogLine, Row, Setup};
use support::mail::message;
use support::servers::Nsd;
use support::sink::{Answer, Ask, Options, Sink};
use support::{Port, SOON, TestDir, wait_for};

fn send(daemon: &Daemon, count: usize) {
    let mut client = daemon.client();
    for n in 0..count {
        client.send("<sender@sender.test>", &["<somebody@example.test>"], &message(&format!("m{n:03}")));
    }
}

fn ok(daemon: &Daemon, arguments: &[&str]) -> String {
    daemon.command_ok(arguments, b"")
}

/// Waits until a command says all of this.
fn says(daemon: &Daemon, arguments: &[&str], parts: &[&str]) -> String {
    wait_for(&format!("{arguments:?} to say {parts:?}"), SOON, || {
        let text = ok(daemon, arguments);
        parts.iter().all(|part| text.contains(part)).then_some(text)
    })
}

fn events(daemon: &Daemon, event: &str) -> Vec<LogLine> {
    daemon.log_lines().into_iter().filter(|line| line.event() == event).collect()
}

/// For a host that is asked again after some failures.
const LONG: Duration = Duration::from_secs(60);
const STOPS: &str = "the lane stops: nothing leaves";
const GOES_ON: &str = "the lane goes on";

#[test]
fn a_host_that_is_down_is_one_warning_and_one_line_when_it_is_back() {
    const MESSAGES: usize = 150;
    let (dir, port) = (TestDir::new(), Port::reserve());
    let daemon = Setup::new(&dir)
        .via("example", "example.test", port.at(2), "connections = 2\nrate = []")
        .with("[retry]\nfirst = \"1h\"\njitter = 0.0")
        .start();
    send(&daemon, MESSAGES);
    let line = daemon.wait_log("the warning", |line| line.event().starts_with("the host takes no connection"));
    assert_eq!((line.get("level").as_str(), line.get("provider").as_str()), ("WARN", "example"));
    assert!(line.get("why").contains("refused") && line.get("next_try").contains("Z (in "), "{}", line.0);
    assert!(line.get("waiting").parse::<usize>().is_ok_and(|n| n > 0), "{}", line.0);
    wait_for("all to be put off", SOON, || {
        daemon.queue_list(&[]).iter().all(|row| row.state() == "queued" && !row.reason().is_empty()).then_some(())
    });
    // Those of the attempts that were made, of which a host takes one at a time.
    let deferred = events(&daemon, "deferred").len();
    assert!((1..=10).contains(&deferred), "{deferred} lines for {MESSAGES} messages");
    let list = ok(&daemon, &["provider", "list"]);
    let words = "takes no connection: connection refused; tried again at ";
    let host = port.at(2).to_string();
    assert_eq!(line.get("host"), host, "{}", line.0);
    assert!(list.contains(&format!("stopped: {host} ")) && list.contains(words), "{list}");
    assert!(list.contains(" 150 ") && list.contains("LAST ERROR"), "what waits in the queue counts\n{list}");
    assert!(ok(&daemon, &["explain", "x@example.test"]).contains(words));

    let sink = Sink::start(port.at(2));
    let said = ok(&daemon, &["provider", "resume", "example"]);
    assert!(
        said.contains("example: ended: ")
            && said.contains(words)
            && said.ends_with("goes on: its hosts are asked again\n"),
        "{said}"
    );
    assert!(said.contains(" recipients that waited for a host are due now\n"), "{said}");
    // Also what was tried itself, an hour before its time: that was about the host.
    sink.wait(MESSAGES, SOON);
    let back = daemon.wait_log("that it is back", |line| line.event() == "the host takes mail again");
    assert_eq!(back.get("level"), "INFO");
    assert_eq!(daemon.log_lines().iter().filter(|line| line.event().starts_with("the host takes no")).count(), 1);
    let list = says(&daemon, &["provider", "list"], &["open"]);
    assert!(!list.contains("refused"), "an error goes when a success follows\n{list}");
}

/// Takes these commands when it is up, and says this meanwhile.
fn down_at(verb: &'static str, reply: &'static str, up: &Arc<AtomicBool>) -> Options {
    let up = up.clone();
    let script = move |ask: &Ask| match ask.verb == verb && !up.load(Ordering::SeqCst) {
        true => Answer::say(reply),
        false => Answer::Yes,
    };
    Options { extensions: vec!["PIPELINING", "AUTH PLAIN"], ..Options::script(script) }
}

/// At whichever stage it says no: that is about the host or our account there, and about no message.
#[test]
fn a_host_that_says_no_before_mail_is_asked_by_one_and_when_it_is_back_all_is_due() {
    const MESSAGES: usize = 60;
    let (dir, port, up) = (TestDir::new(), Port::reserve(), Arc::new(AtomicBool::new(false)));
    let login = "auth = { user = \"u\", password = \"secret-of-this-test\" }\n";
    let table = [
        ("greeting", "CONNECT", "421 4.3.2 not now", ""),
        ("ehlo", "EHLO", "421 4.3.2 not now", ""),
        ("busy", "AUTH", "454 4.7.0 too many logins", login),
        ("closing", "AUTH", "421 4.7.0 go away", login),
    ];
    let sinks: Vec<Sink> =
        (2..).zip(table).map(|(n, (_, verb, reply, _))| Sink::with(port.at(n), down_at(verb, reply, &up))).collect();
    let mut setup = Setup::new(&dir).with("[retry]\nfirst = \"1h\"\njitter = 0.0");
    for (sink, (name, .., keys)) in sinks.iter().zip(table) {
        let keys = format!("connections = 2\nrate = []\n{keys}");
        setup = setup.via(name, &format!("{name}.test"), sink.address, &keys);
    }
    let daemon = setup.start();
    let mut client = daemon.client();
    for n in 0..MESSAGES {
        for (name, ..) in table {
            client.send("<sender@sender.test>", &[&format!("<somebody@{name}.test>")], &message(&format!("m{n:03}")));
        }
    }
    for (sink, (name, verb, reply, _)) in sinks.iter().zip(table) {
        let down = |line: &LogLine| line.get("level") == "WARN" && line.get("provider") == name;
        let line = daemon.wait_log("the warning", down);
        let stage = if verb == "CONNECT" { "greeting" } else { verb };
        assert_eq!((line.get("stage").as_str(), line.get("why").as_str()), (stage, reply), "{}", line.0);
        assert!(line.get("waiting").parse::<usize>().is_ok_and(|n| n > 1), "{}", line.0);
        let deferred =
            daemon.log_lines().iter().filter(|l| l.event() == "deferred" && l.get("provider") == name).count();
        let connections = sink.connections().len();
        assert!(
            (1..=12).contains(&deferred) && connections <= 12,
            "{name}: {deferred} lines, {connections} connections"
        );
        let told = ok(&daemon, &["explain", &format!("x@{name}.test")]);
        assert!(told.contains(reply) && told.contains("; t"), "{told}");
    }
    let list = ok(&daemon, &["provider", "list"]);
    let at = |n: u8| port.at(n).to_string();
    assert!(list.contains(&format!("stopped: {} takes no connection: 421 4.3.2 not now", at(2))), "{list}");
    assert!(list.contains(&format!("stopped: {} takes no mail at EHLO: 421 4.3.2 not now", at(3))), "{list}");
    assert!(list.contains(&format!("stopped: {} takes no mail at AUTH: 454 4.7.0 too many logins", at(4))), "{list}");

    // Also what was tried itself, an hour before its time; nobody has to say so.
    up.store(true, Ordering::SeqCst);
    for (sink, (name, ..)) in sinks.iter().zip(table) {
        assert_eq!(sink.wait(MESSAGES, LONG).len(), MESSAGES, "{name}");
        let back = |line: &LogLine| line.event() == "the host takes mail again" && line.get("provider") == name;
        daemon.wait_log("that it is back", back);
        let lines = daemon.log_lines();
        let warnings = lines.iter().filter(|line| line.get("level") == "WARN" && line.get("provider") == name);
        assert_eq!((warnings.count(), lines.iter().filter(|line| back(line)).count()), (1, 1), "{name}");
    }
}

/// A refusal of our login is mended at the host, or in our configuration: also what was tried itself is due then, an hour
/// before its time, and what was said about one message is not.
#[test]
fn what_a_refused_login_put_off_is_due_when_a_person_has_mended_it() {
    const MESSAGES: usize = 20;
    let (dir, port, up) = (TestDir::new(), Port::reserve(), Arc::new(AtomicBool::new(false)));
    let limits = "connections = 4\nrate = []\n";
    let login = format!("{limits}auth = {{ user = \"u\", password = \"secret-of-this-test\" }}\n");
    let greylisted = |ask: &Ask| ask.verb == "RCPT" && ask.argument.contains("grey");
    let host = |verb: &'static str, reply: &'static str| {
        let up = up.clone();
        let script = move |ask: &Ask| match ask.verb == verb && !up.load(Ordering::SeqCst) {
            true => Answer::say(reply),
            false if greylisted(ask) => Answer::say("450 4.7.1 later"),
            false => Answer::Yes,
        };
        Options { extensions: vec!["PIPELINING", "AUTH PLAIN"], ..Options::script(script) }
    };
    let table = [
        ("resumed", "AUTH", "535 5.7.8 no", login.as_str()),
        ("asking", "MAIL", "530 5.7.0 log in", limits),
        ("reloaded", "AUTH", "535 5.7.8 no", login.as_str()),
    ];
    let sinks: Vec<Sink> =
        (2..).zip(&table).map(|(n, (_, verb, reply, _))| Sink::with(port.at(n), host(verb, reply))).collect();
    let mut setup = Setup::new(&dir).with("[retry]\nfirst = \"1h\"\njitter = 0.0");
    for (sink, (name, _, _, keys)) in sinks.iter().zip(&table) {
        setup = setup.via(name, &format!("{name}.test"), sink.address, keys);
    }
    let mut daemon = setup.start();
    let mut client = daemon.client();
    for n in 0..MESSAGES {
        for (name, ..) in &table {
            client.send("<sender@sender.test>", &[&format!("<somebody@{name}.test>")], &message(&format!("m{n:03}")));
        }
    }
    let reason = |row: &Row, reply: &str| row.state() == "queued" && row.reason().contains(reply);
    for (name, _, reply, _) in &table {
        wait_for(name, SOON, || {
            daemon.queue_list(&["--provider", name]).iter().any(|row| reason(row, reply)).then_some(())
        });
    }
    assert_eq!(sinks.iter().map(|sink| sink.count()).sum::<usize>(), 0);

    up.store(true, Ordering::SeqCst);
    client.send("<sender@sender.test>", &["<grey@resumed.test>"], &message("grey"));
    for (sink, (name, ..)) in sinks.iter().zip(&table).take(2) {
        let said = ok(&daemon, &["provider", "resume", name]);
        assert!(said.contains(" recipients that waited for a host are due now\n"), "{said}");
        sink.wait(MESSAGES, SOON);
    }
    daemon.replace_config("secret-of-this-test", "another-secret-of-this-test");
    ok(&daemon, &["reload"]);
    sinks[2].wait(MESSAGES, SOON);
    wait_for("the one that is greylisted", SOON, || {
        let rows = daemon.queue_list(&[]);
        (rows.len() == 1 && reason(&rows[0], "450 4.7.1 later")).then_some(())
    });
    let said = ok(&daemon, &["provider", "resume", "resumed"]);
    assert!(!said.contains("due now"), "the host said that about a recipient\n{said}");
}

/// A smart host whose name is not there is a host that is down, in the same words and with the same end.
#[test]
fn a_smart_host_whose_name_is_not_found_is_one_warning_and_all_is_due_when_it_is() {
    const MESSAGES: usize = 60;
    let (dir, port) = (TestDir::new(), Port::reserve());
    let nsd = Nsd::start(&dir, "other A 127.0.0.9");
    let sink = Sink::start(port.at(2));
    let provider = |name: &str, host: &str| {
        format!(
            "[provider.{name}]\nmatch = {{ domains = [\"{name}.test\"] }}\nrelay = \"{host}:{}\"\ntls = \"off\"\n\
             connections = 4\nrate = []\n",
            port.number
        )
    };
    let dns = format!("[dns]\nnameservers = [\"{}\"]\ntimeout = \"2s\"\nnegative_ttl_max = \"1s\"\n", nsd.address);
    let daemon = Setup::new(&dir)
        .with(&format!("{dns}{}{}", provider("lost", "smtp.test"), provider("broken", "smtp.broken")))
        .with("[retry]\nfirst = \"3s\"\nmax = \"1h\"\njitter = 0.0")
        .start();
    let mut client = daemon.client();
    for n in 0..MESSAGES {
        for name in ["lost", "broken"] {
            client.send("<sender@sender.test>", &[&format!("<somebody@{name}.test>")], &message(&format!("m{n:03}")));
        }
    }
    for (name, host, why) in [("lost", "smtp.test", "does not exist"), ("broken", "smtp.broken", "")] {
        let down = |line: &LogLine| line.get("level") == "WARN" && line.get("provider") == name;
        let line = daemon.wait_log("the warning", down);
        assert_eq!(line.event(), "the host has no address: its mail waits", "{}", line.0);
        assert_eq!(line.get("host"), format!("{host}:{}", port.number), "{}", line.0);
        assert!(line.get("why").contains(why) && line.get("next_try").contains("Z ("), "{}", line.0);
        assert!(line.get("waiting").parse::<usize>().is_ok_and(|n| n > 1), "{}", line.0);
        let lines = daemon.log_lines();
        let tried = lines.iter().filter(|line| line.event() == "deferred" && line.get("provider") == name).count();
        assert!((1..=12).contains(&tried), "{name}: {tried}");
        let words = format!("stopped: {host}:{} has no address to send to: ", port.number);
        let list = says(&daemon, &["provider", "list"], &[&words]);
        assert!(list.contains("; tried again at ") || list.contains("; the next message tries it"), "{list}");
        says(&daemon, &["explain", &format!("x@{name}.test")], &[" has no address to send to: "]);
    }
    assert!(daemon.queue_list(&[]).iter().all(|row| row.state() != "failed"));

    // Nobody has to say so.
    nsd.change(&dir, "smtp A 127.0.0.2");
    assert_eq!(sink.wait(MESSAGES, LONG).len(), MESSAGES);
    let back = |line: &LogLine| line.event() == "the host takes mail again" && line.get("provider") == "lost";
    daemon.wait_log("that it is back", back);
    let warnings = |line: &&LogLine| line.get("level") == "WARN" && line.get("provider") == "lost";
    assert_eq!(daemon.log_lines().iter().filter(warnings).count(), 1);
}

#[test]
fn a_quota_that_is_used_up_is_told_and_no_command_claims_otherwise() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(2));
    let daemon = Setup::new(&dir).via("example", "example.test", sink.address, "quota = \"3/d\"").start();
    send(&daemon, 10);
    sink.wait(3, SOON);
    let line = daemon.wait_log("the warning", |line| line.event() == STOPS);
    assert_eq!((line.get("level").as_str(), line.get("by").as_str()), ("WARN", "quota"));
    assert!(line.get("waiting").parse::<usize>().is_ok_and(|n| (1..=7).contains(&n)), "{}", line.0);
    let words = "quota 3/d used up: 3 of 3, free again from ";
    assert!(line.get("why").starts_with(words) && !line.get("until").is_empty(), "{}", line.0);
    let shown = says(&daemon, &["provider", "show", "example"], &[words, "used         quota 3/d: 3 of 3"]);
    assert!(shown.contains("state        stopped: quota 3/d") && shown.contains("waiting      7,"), "{shown}");
    let list = ok(&daemon, &["provider", "list"]);
    assert_eq!(list.lines().count(), 2, "what is configured, and no profile\n{list}");
    assert!(list.contains("3/d: 3 of 3, free again from ") && list.contains("stopped: quota 3/d used up"), "{list}");
    assert!(ok(&daemon, &["provider", "list", "--all"]).lines().count() > 10);
    let rows = daemon.queue_list(&[]);
    assert!(rows.iter().all(|row| row.text("waits").starts_with(words)), "{rows:?}");
    assert!(ok(&daemon, &["queue", "list"]).contains("waits: quota 3/d used up"));
    let said = ok(&daemon, &["queue", "retry", "--all"]);
    assert!(
        said.contains("7 of 7 recipients due now\n") && said.contains("but nothing leaves example: quota 3/d"),
        "{said}"
    );
    let said = ok(&daemon, &["provider", "resume", "example"]);
    assert!(said.contains("example: still: quota 3/d used up") && !said.contains("goes on"), "{said}");
    let told = ok(&daemon, &["explain", "x@example.test"]);
    // A day from the third on, some of which is over when it is asked.
    let waits = ["would leave  in about 1 d", "would leave  in about 23 h"].iter().any(|waits| told.contains(waits));
    assert!(told.contains("held         quota 3/d used up") && waits, "{told}");
    assert_eq!((sink.count(), events(&daemon, STOPS).len()), (3, 1));
}

/// Days since 1970 as `2026-12-01`.
fn date(days: i64) -> String {
    mailweir::clock::Timestamp(days * 86_400_000).to_string().split('T').next().expect("a date").to_owned()
}

/// One wording in the list, in what is shown of one, in what mail waits for and in the log; true before the
/// first day, on it and on the last one.
#[test]
fn a_warm_up_says_where_it_is_in_the_same_words_everywhere() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(2));
    let today = mailweir::clock::Clock::System.now().0.div_euclid(86_400_000);
    let (yesterday, later) = (date(today - 1), date(today + 9));
    let over = format!("{{ start = \"{}\", days = [1] }}", date(today - 5));
    let table = [
        ("nothing", format!("{{ start = \"{later}\", days = [1, 2], before = \"nothing\" }}")),
        ("early", format!("{{ start = \"{later}\", days = [1, 2] }}")),
        ("first", format!("{{ start = \"{}\", days = [1, 2] }}", date(today))),
        ("last", format!("{{ start = \"{yesterday}\", days = [7, 1] }}")),
        ("over", over),
    ];
    let mut setup = Setup::new(&dir);
    for (name, plan) in &table {
        setup = setup.via(name, &format!("{name}.test"), sink.address, &format!("warmup = {plan}"));
    }
    let daemon = setup.start();
    let mut client = daemon.client();
    for (name, _) in &table {
        for n in 0..3 {
            client.send("<sender@sender.test>", &[&format!("<a@{name}.test>")], &message(&format!("m{n}")));
        }
    }
    sink.wait(1 + 1 + 1 + 3, SOON);
    let begins = format!("warm-up begins on {later} (in ");
    let told = [
        ("nothing", format!("{begins}9 days): nothing leaves until then"), String::new()),
        ("early", format!("{begins}9 days), as on day 1 until then, used up: 1 of 1"), ", free again from ".into()),
        ("first", "warm-up day 1 of 2 used up: 1 of 1".into(), ", free again from ".into()),
        ("last", "warm-up day 2 of 2 used up: 1 of 1".into(), ", over from ".into()),
    ];
    for (name, words, end) in &told {
        let words = format!("{words}{end}");
        let line = daemon.wait_log("the warning", |line| line.event() == STOPS && line.get("provider") == *name);
        assert!(line.get("by") == "warmup" && line.get("why").starts_with(&words), "{}", line.0);
        says(&daemon, &["provider", "list"], &[&format!("stopped: {words}")]);
        says(&daemon, &["provider", "show", name], &[&format!("state        stopped: {words}")]);
        says(&daemon, &["queue", "list", "--provider", name], &[&format!("waits: {words}")]);
        says(&daemon, &["explain", &format!("x@{name}.test")], &[&format!("held         {words}")]);
    }
    let over = says(&daemon, &["provider", "show", "over"], &["state        open"]);
    assert!(!over.contains("warm-up"), "{over}");
}

/// Says these, one to each of the first MAILs.
fn refusing(replies: &'static [&'static str]) -> Options {
    let said = AtomicUsize::new(0);
    Options::script(move |ask: &Ask| match ask.verb {
        "MAIL" => replies.get(said.fetch_add(1, Ordering::SeqCst)).map_or(Answer::Yes, |reply| Answer::say(reply)),
        _ => Answer::Yes,
    })
}

#[test]
fn what_rules_and_operators_hold_is_ended_by_resume_and_what_was_learned_by_forget() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::with(port.at(2), refusing(&["450 4.7.2 take a break", "450 4.7.3 not that fast"]));
    let rules = "\n[[provider.example.on_reply]]\ntext = \"take a break\"\npause = true\nfor = \"2h\"\n\
                 [[provider.example.on_reply]]\ntext = \"not that fast\"\nslow_to = \"600/m\"\nfor = \"2h\"";
    let keys = format!("connections = 1\nrate = \"100/s\"{rules}");
    let mut daemon = Setup::new(&dir).via("example", "example.test", sink.address, &keys).start();
    send(&daemon, 5);
    let line = daemon.wait_log("the warning", |line| line.event() == STOPS);
    assert_eq!((line.get("level").as_str(), line.get("by").as_str()), ("WARN", "rule"));
    let line = daemon.wait_log("what led to it", |line| line.event() == "deferred");
    assert_eq!(line.get("reply"), "450 4.7.2 take a break", "{}", line.0);
    let list = ok(&daemon, &["provider", "list"]);
    assert!(list.contains("stopped: paused by the rule ") && !list.contains("learned"), "{list}");
    ok(&daemon, &["provider", "pause", "example"]);
    says(
        &daemon,
        &["provider", "show", "example"],
        &["state        paused by an operator\n", "also         paused by the rule "],
    );
    let said = ok(&daemon, &["queue", "retry", "--provider", "example"]);
    assert!(
        said.contains("but nothing leaves example: paused by an operator (`mailweir provider resume example`"),
        "{said}"
    );
    let held = "paused by the rule ";
    let said = ok(&daemon, &["provider", "resume", "example"]);
    assert!(said.starts_with("example: ended: paused by an operator\nexample: ended: "), "{said}");
    assert!(
        said.contains(held) && said.contains("take a break\", until ") && said.ends_with("example goes on\n"),
        "{said}"
    );
    sink.wait(5, SOON);
    let line = daemon.wait_log("that it goes on", |line| line.event() == GOES_ON);
    assert_eq!(line.get("level"), "INFO");

    // The pace of the rule stays until somebody forgets it, also over a restart.
    says(&daemon, &["provider", "show", "example"], &["slowed to 10.0/s"]);
    let said = ok(&daemon, &["provider", "forget", "example"]);
    assert!(said.starts_with("example: forgotten: slow to 600/m until "), "{said}");
    assert!(
        said.ends_with("\nexample: only the limits of the configuration hold until replies teach again\n"),
        "{said}"
    );
    assert_eq!(ok(&daemon, &["provider", "forget", "example"]), "example: replies had taught nothing\n");
    daemon.kill();
    daemon.start();
    assert!(!ok(&daemon, &["provider", "show", "example"]).contains("slowed"));
    assert_eq!(daemon.command(&["provider", "forget", "nobody"], b"").status.code(), Some(69));
}

#[test]
fn explain_knows_priorities_of_routes_and_limits_that_touch_the_message() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(2));
    let more = "[[route]]\nsender = \"vip@*\"\npriority = 5\n\n[[limit]]\nsender = \"*@news.test\"\nrate = \"1/h\"";
    let daemon = Setup::new(&dir)
        .with(more)
        .via("example", "example.test", sink.address, "connections = 1\nrate = \"30/h\"")
        .start();
    let mut client = daemon.client();
    for n in 0..5 {
        client.send("<a@news.test>", &["<somebody@example.test>"], &message(&format!("news {n}")));
    }
    sink.wait(1, SOON);
    send(&daemon, 60);
    let explain = |sender| ok(&daemon, &["explain", "x@example.test", "--sender", sender]);
    let told = wait_for("the others to wait", SOON, || {
        Some(explain("b@sender.test")).filter(|told| told.contains("ahead of it") && !told.contains("ahead of it  0"))
    });
    assert!(!told.contains("news.test"), "another sender's limit does not touch it\n{told}");
    assert!(told.contains("pace         30.0/h, the slowest rate") && told.contains(" with --priority 9"), "{told}");
    let waits = ["in about 2 h", "in about 1 h 5"].iter().any(|waits| told.contains(waits));
    assert!(waits, "sixty at thirty an hour, less what was over when it was asked\n{told}");
    let urgent = explain("vip@sender.test");
    assert!(urgent.contains("priority 5, given by a [[route]] (") && !urgent.contains("with --priority"), "{urgent}");
    assert!(urgent.contains("via = \"example\" (") && !urgent.contains("(default)"), "{urgent}");
    let news = explain("a@news.test");
    assert!(news.contains("limit *@news.test") && news.contains("next one at "), "{news}");
    // A lane that a limit of somebody concerns is open.
    assert!(!ok(&daemon, &["provider", "list"]).contains("stopped"));
}

/// It is a share of a provider: what left by one of them takes nothing from another.
#[test]
fn a_limit_counts_at_each_provider_for_itself() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sinks = [Sink::start(port.at(2)), Sink::start(port.at(3))];
    let daemon = Setup::new(&dir)
        .with("[[limit]]\nsender = \"*@news.test\"\nquota = \"1/d\"")
        .via("one", "one.test", sinks[0].address, "")
        .via("two", "two.test", sinks[1].address, "")
        .start();
    let mut client = daemon.client();
    for n in 0..3 {
        for to in ["<x@one.test>", "<x@two.test>"] {
            client.send("<a@news.test>", &[to], &message(&format!("{n}")));
        }
    }
    sinks.iter().for_each(|sink| drop(sink.wait(1, SOON)));
    for name in ["one", "two"] {
        let waits =
            |row: &support::daemon::Row| row.text("lane") == name && row.text("waits").contains("limit *@news.test");
        daemon.wait_row("what waits for the limit", waits);
        // The third may have a connection of its own in hand before it is told.
        wait_for("both that wait for the limit", SOON, || {
            let told = ok(&daemon, &["explain", &format!("x@{name}.test"), "--sender", "a@news.test"]);
            told.contains("2 wait for the same [[limit]] at this provider").then_some(())
        });
    }
    assert_eq!(sinks.map(|sink| sink.count()), [1, 1]);
    let checked = ok(&daemon, &["check"]);
    assert!(checked.contains("1 limit (at each provider and domain apart)"), "{checked}");
}

/// What is told follows what happened last: the host takes connections again, and not our login.
#[test]
fn a_host_that_is_back_and_refuses_our_login_is_not_said_to_take_no_connection() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let login = "connections = 1\nauth = { user = \"u\", password = \"secret-of-this-test\" }\n";
    let daemon = Setup::new(&dir)
        .with("[retry]\nfirst = \"1h\"\njitter = 0.0")
        .via("auth", "auth.test", port.at(2), login)
        .start();
    daemon.client().send("<sender@sender.test>", &["<somebody@auth.test>"], &message("waits"));
    says(&daemon, &["provider", "show", "auth"], &["takes no connection: connection refused"]);
    let _sink = Sink::with(port.at(2), down_at("AUTH", "535 5.7.8 no", &Arc::new(AtomicBool::new(false))));
    ok(&daemon, &["provider", "resume", "auth"]);
    let told = says(&daemon, &["provider", "show", "auth"], &["the provider refuses us: ", "535 5.7.8 no"]);
    assert!(!told.contains("takes no connection") && !told.contains("the next message tries it"), "{told}");
    daemon.wait_log("who ended it", |line| line.event() == "resumed by an operator" && line.get("provider") == "auth");
}

/// A host that takes connections and says nothing is told as that before anybody can know that it hangs.
#[test]
fn connections_that_are_being_opened_are_told_as_such_and_nothing_is_said_to_leave_at_once() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let silent = std::net::TcpListener::bind(port.at(2)).expect("a host");
    let daemon = Setup::new(&dir).via("hang", "hang.test", port.at(2), "connections = 2").start();
    for n in 0..3 {
        daemon.client().send("<sender@sender.test>", &["<somebody@hang.test>"], &message(&format!("m{n}")));
    }
    let _both = [silent.accept().expect("a connection"), silent.accept().expect("another one")];
    let words = &format!("2 connections are being opened to {}, which has not greeted since ", port.at(2));
    let told = says(&daemon, &["provider", "list"], &[words, "5 min to greet"]);
    assert!(!told.contains("are busy"), "{told}");
    let told = says(&daemon, &["explain", "x@hang.test"], &[words, "2 whose connections are being opened"]);
    assert!(!told.contains("at once") && told.contains("not before that has ended"), "{told}");
    let list = ok(&daemon, &["queue", "list"]);
    assert_eq!(list.matches(words.as_str()).count(), 3, "{list}");
}
