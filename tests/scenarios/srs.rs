//! Senders that lead back (SRS): mail of strangers leaves with a sender of ours, bounces to that come back to who it was, and the real
//! postsrsd reads what mailweir writes and the other way round.

use crate::support;

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command};

use support::daemon::Setup;
use support::mail::{Report, message};
use support::sink::{Answer, Ask, Options, Sink};
use support::{Port, SOON, TestDir, program, wait_for};

const SECRET: &str = "a-secret-of-the-forwarder";

fn setup(dir: &TestDir, sink: &Sink) -> Setup {
    let secret = dir.write("srs.secret", format!("{SECRET}\n"));
    Setup::new(dir).via("all", "*.test", sink.address, "rate = []").with(&format!(
        "[srs]\ndomain = \"srs.test\"\nsecret = {{ file = \"{}\" }}\n[[rewrite]]\naddress = \"*@own.test\"\nto = \"*@own.test\"\n\
         [[rewrite]]\naddress = \"*\"\nsrs = true",
        secret.display()
    ))
}

#[test]
fn a_bounce_comes_back_to_who_it_was() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let script = |ask: &Ask| match (ask.verb, &*ask.argument) {
        ("RCPT", to) if to.contains("<nobody@") => Answer::say("550 5.1.1 nobody here"),
        _ => Answer::Yes,
    };
    let sink = Sink::with(port.at(2), Options::script(script));
    let mut daemon = setup(&dir, &sink).prepare();
    daemon.replace_config("level = \"info\"", "level = \"trace\"");
    daemon.start();
    let mut client = daemon.client();
    client.send("<jo@stranger.test>", &["<a@there.test>"], &message("forwarded"));
    let forwarded = sink.wait_subject("forwarded", SOON);
    let sender = forwarded.from.split('>').next().unwrap_or_default().trim_start_matches('<').to_owned();
    assert!(sender.starts_with("SRS0=") && sender.ends_with("=stranger.test=jo@srs.test"), "{sender}");
    assert!(String::from_utf8_lossy(&forwarded.content).contains("From: <sender@sender.test>"));
    client.send("<me@own.test>", &["<a@there.test>"], &message("our own"));
    assert!(sink.wait_subject("our own", SOON).from.starts_with("<me@own.test>"));

    // Its bounce, from wherever; the case of the address may have changed on the way.
    client.send("<>", &[&format!("<{}>", sender.to_lowercase())], &message("a bounce"));
    let bounce = sink.wait_subject("a bounce", SOON);
    assert!(bounce.to[0].starts_with("<jo@stranger.test>") && bounce.from.starts_with("<>"), "{bounce:?}");
    let line = daemon.wait_log("accepted", |line| line.event() == "accepted" && line.get("alias").starts_with("srs0="));
    assert_eq!(line.get("recipients"), "jo@stranger.test", "{}", line.0);
    // None but those that were made here.
    client.command(250, "MAIL FROM:<>");
    let forged = sender.replace("=jo@", "=ceo@");
    assert!(client.command(550, &format!("RCPT TO:<{forged}>")).text().contains("5.1.1"));
    client.command(250, "RCPT TO:<postmaster@srs.test>");
    client.command(250, "RSET");

    // A report of mailweir itself takes the short way, and names nobody but the one who sent.
    client.send("<jo@stranger.test>", &["<nobody@there.test>"], &message("fails"));
    let report = sink.wait_subject("Your message could not be delivered", SOON);
    assert!(report.to[0].starts_with("<jo@stranger.test>"), "{report:?}");
    assert_eq!(Report::parse(&report.content).header("to"), "<jo@stranger.test>");

    let told = daemon.command_ok(&["explain", &sender], b"");
    assert!(told.starts_with("jo@stranger.test ") && told.contains(&format!("by [srs], which was {sender}")), "{told}");
    let told = daemon.command_ok(&["explain", &forged], b"");
    assert!(told.contains("would bounce: 550 5.1.1 this SRS address was not made here"), "{told}");
    let told = daemon.command_ok(&["explain", "a@there.test", "--sender", "jo@stranger.test"], b"");
    assert!(told.contains("=stranger.test=jo@srs.test by [[rewrite]], which was jo@stranger.test"), "{told}");
    daemon.wait_queue_empty(SOON);
    let log = std::fs::read_to_string(dir.join("mailweir.log")).expect("the log");
    let all = daemon.command_ok(&["check", "--all"], b"");
    assert!(!log.contains(SECRET) && !all.contains(SECRET) && all.contains("[srs]"), "{all}");
}

/// The daemon of Debian's postsrsd, which answers like a `tcp_table` of Postfix.
struct Postsrsd {
    child: Child,
    forward: SocketAddr,
    reverse: SocketAddr,
}

impl Postsrsd {
    fn start(dir: &TestDir, port: &Port, domain: &str) -> Postsrsd {
        let (forward, second) = (port.at(1), Port::reserve());
        let reverse = second.at(1);
        let secret = dir.write("postsrsd.secret", format!("{SECRET}\n"));
        let child = Command::new(program("postsrsd"))
            .args([
                "-l",
                &forward.ip().to_string(),
                "-f",
                &forward.port().to_string(),
                "-r",
                &reverse.port().to_string(),
            ])
            .args(["-d", domain, "-s"])
            .arg(secret)
            .spawn()
            .expect("start postsrsd");
        let postsrsd = Postsrsd { child, forward, reverse };
        wait_for("postsrsd", SOON, || TcpStream::connect(reverse).ok());
        postsrsd
    }

    fn ask(at: SocketAddr, address: &str) -> String {
        let mut stream = TcpStream::connect(at).expect("postsrsd");
        stream.write_all(format!("get {address}\n").as_bytes()).expect("a question");
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).expect("an answer");
        line.trim_end().to_owned()
    }
}

impl Drop for Postsrsd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Both have the same secret and the same domain, so each stands for the other.
#[test]
#[ignore = "needs postsrsd 1.x, as Debian has it: cargo test --test scenarios srs:: -- --ignored"]
fn postsrsd_and_mailweir_lead_back_what_the_other_has_made() {
    let (dir, port, tables) = (TestDir::new(), Port::reserve(), Port::reserve());
    let sink = Sink::start(port.at(2));
    let daemon = setup(&dir, &sink).start();
    let postsrsd = Postsrsd::start(&dir, &tables, "srs.test");
    let mut client = daemon.client();
    for (n, sender) in [
        "jo@stranger.test",
        "Jo.Smith+tag=x@Stranger.Test",
        "o'neil/x@stranger.test",
        "SRS0=abcd=2W=a.test=jo@first.test",
        "SRS1=abcd=zero.test==efgh=2W=a.test=jo@first.test",
    ]
    .into_iter()
    .enumerate()
    {
        let theirs = Postsrsd::ask(postsrsd.forward, sender);
        let theirs = theirs.strip_prefix("200 ").unwrap_or_else(|| panic!("{sender}: {theirs}"));
        let subject = format!("m{n}");
        client.send(&format!("<{sender}>"), &["<a@there.test>"], &message(&subject));
        let from = sink.wait_subject(&subject, SOON).from;
        let ours = from.split('>').next().unwrap_or_default().trim_start_matches('<');
        assert_eq!(ours, theirs, "{sender}");
        let back = Postsrsd::ask(postsrsd.reverse, ours);
        let explained = daemon.command_ok(&["explain", theirs, "--json"], b"");
        let explained: serde_json::Value = serde_json::from_str(&explained).expect("JSON");
        assert_eq!(Some(back.strip_prefix("200 ").expect("an address")), explained["recipient"].as_str());
    }
    for forged in ["SRS0=abcd=2W=a.test=jo@srs.test", "SRS1=abcd=zero.test==efgh=2W=a.test=jo@srs.test"] {
        assert!(Postsrsd::ask(postsrsd.reverse, forged).starts_with("500 "));
        assert!(daemon.command_ok(&["explain", forged], b"").contains("would bounce: 550 5.1.1 "));
    }
}
