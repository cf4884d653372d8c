//! DKIM: what leaves the real program, whatever became of it on the way, is verified by a verifier of the tests' own
//! with the records that the program printed.

use crate::support;

use std::process::Command;

use support::daemon::{Daemon, MAILWEIR, Setup};
use support::dkim::{Published, verified};
use support::mail::{Report, header, message};
use support::servers::Nsd;
use support::sink::{Answer, Ask, Options, Sink};
use support::{Port, SOON, TestDir, run, run_ok, wait_for};

const LIMITS: &str = "connections = 2\nrate = []";
const RETRY: &str = "[retry]\nfirst = \"1s\"\nmax = \"1s\"";

/// The keys of a domain as `dkim new` makes them: what it says for the configuration, and what for DNS.
fn new_keys(dir: &TestDir, domain: &str, more: &[&str]) -> (String, Published) {
    let mut command = Command::new(MAILWEIR);
    command.args(["dkim", "new", domain, "--directory"]).arg(dir.path()).args(more);
    let said = String::from_utf8(run_ok(&mut command, b"", SOON).stdout).expect("UTF-8");
    let tables = said.find("[[dkim]]").expect("tables for the configuration");
    (said[tables..].to_owned(), Published::parse(&said))
}

fn both(a: &Published, b: &Published) -> Published {
    Published(a.0.iter().chain(&b.0).map(|(name, text)| (name.clone(), text.clone())).collect())
}

/// A message that nobody's encoder leaves as it is: 8-bit, blanks at line ends, a line of 3,000 bytes, a line that
/// begins with a dot and one with a NUL, empty lines at the end, and no line end.
fn awkward(subject: &str) -> Vec<u8> {
    let mut content = String::from_utf8(message(subject)).expect("ASCII").into_bytes();
    content.extend_from_slice("Grüße \t\r\n.\r\n..\r\n\0.\r\n a  b\t\tc \r\n".as_bytes());
    content.extend_from_slice("ü word ".repeat(400).as_bytes());
    content.extend_from_slice(b"\r\n\r\n\r\n");
    content
}

/// The hosts that differ: one that takes DATA, one BDAT, one no 8-bit data.
struct World {
    daemon: Daemon,
    data: Sink,
    bdat: Sink,
    weak: Sink,
    senders: Sink,
    _port: Port,
}

fn refuses_nobody(ask: &Ask) -> Answer {
    match ask.verb {
        "RCPT" if ask.argument.starts_with("<no") => Answer::say("550 5.1.1 no such mailbox"),
        _ => Answer::Yes,
    }
}

fn world(dir: &TestDir, sections: &str) -> World {
    let port = Port::reserve();
    let data = Sink::with(port.at(2), Options::script(refuses_nobody));
    let bdat = Sink::with(port.at(3), Options::offering(&["PIPELINING", "8BITMIME", "CHUNKING", "BINARYMIME"]));
    let weak = Sink::with(port.at(4), Options::offering(&["PIPELINING"]));
    let senders = Sink::start(port.at(5));
    let daemon = Setup::new(dir)
        .via("data", "data.test", port.at(2), LIMITS)
        .via("bdat", "bdat.test", port.at(3), LIMITS)
        .via("weak", "weak.test", port.at(4), LIMITS)
        .via("senders", "sender.test", port.at(5), LIMITS)
        .with(RETRY)
        .with(sections)
        .start();
    World { daemon, data, bdat, weak, senders, _port: port }
}

#[test]
fn what_leaves_by_data_by_bdat_converted_and_as_a_report_verifies_with_both_keys() {
    let dir = TestDir::new();
    let (sender, a) = new_keys(&dir, "sender.test", &["--selector", "m1"]);
    let (relay, b) = new_keys(&dir, "relay.test", &["--selector", "m2"]);
    let published = both(&a, &b);
    assert_eq!(published.0.len(), 4);
    let world = world(&dir, &format!("{sender}\n{relay}"));
    let mut client = world.daemon.client();
    let to = ["<x@data.test>", "<x@bdat.test>", "<x@weak.test>"];
    // With several chunks of the store, too.
    let large = [message("large"), "Zeile für Zeile. \r\n".repeat(40_000).into_bytes()].concat();
    for content in [message("plain"), awkward("awkward"), large] {
        client.send("<s@elsewhere.test> BODY=8BITMIME", &to, &content);
    }
    client.send("<s@sender.test>", &["<nobody@data.test>"], &message("refused"));
    let from_sub = String::from_utf8(message("sub")).expect("ASCII").replace("sender@sender", "Jo, x@news.sender");
    let from_sub = from_sub.replace("<Jo, x@", "Jo <x@").into_bytes();
    client.send("<s@sender.test>", &["<x@data.test>"], &from_sub);
    // Octets, which go as they are.
    let octets = [message("octets"), b"\x00\x01 \r\r\n\xff \t\r\nlast line without an end ".to_vec()].concat();
    client.command(250, "MAIL FROM:<s@sender.test> BODY=BINARYMIME");
    client.command(250, "RCPT TO:<x@bdat.test>");
    client.write(format!("BDAT {} LAST\r\n", octets.len()).as_bytes()).expect("it reads");
    client.write(&octets).expect("it reads");
    client.reply_of(250, "BDAT");

    world.daemon.wait_queue_empty(SOON);
    for (sink, n) in [(&world.data, 4), (&world.bdat, 4), (&world.weak, 3), (&world.senders, 1)] {
        let received = sink.wait(n, SOON);
        assert_eq!(received.len(), n);
        if n != 4 || received.iter().all(|one| one.subject() != "octets") {
            sink.assert_legal();
        }
        for one in received {
            let is_report = one.from.starts_with("<>");
            let expected = if is_report {
                ["m2-rsa@relay.test", "m2-ed25519@relay.test"]
            } else {
                ["m1-rsa@sender.test", "m1-ed25519@sender.test"]
            };
            assert_eq!(
                verified(&one.content, &published),
                Ok(expected.map(str::to_owned).to_vec()),
                "{}",
                one.subject()
            );
            // The verifier would see it if one byte were another.
            let mut changed = one.content.to_vec();
            let at = changed.iter().rposition(|b| b.is_ascii_alphanumeric()).expect("a word");
            changed[at] ^= 1;
            assert!(verified(&changed, &published).is_err_and(|why| why.starts_with("the body was changed")));
            let size = one.from.split("SIZE=").nth(1).and_then(|size| size.split(' ').next());
            if let Some(size) = size {
                assert_eq!(size.parse(), Ok(one.content.len()), "{}: {}", one.subject(), one.from);
            }
        }
    }
    let weak = world.weak.wait_subject("awkward", SOON);
    assert_eq!(header(&weak.content, "Content-Transfer-Encoding").as_deref(), Some("quoted-printable"));
    assert!(!world.daemon.log_lines().iter().any(|line| line.0.to_string().contains("PRIVATE KEY")));
}

#[test]
fn what_is_of_no_domain_with_keys_leaves_as_it_is_and_two_from_fields_are_told() {
    let dir = TestDir::new();
    let (sender, published) = new_keys(&dir, "sender.test", &["--algorithm", "ed25519", "--selector", "e"]);
    let world = world(&dir, &sender);
    let mut client = world.daemon.client();
    let from = |from: &str, subject: &str| {
        let text = String::from_utf8(message(subject)).expect("ASCII");
        text.replace("From: <sender@sender.test>", from).into_bytes()
    };
    let to = ["<x@data.test>"];
    client.send("<s@sender.test>", &to, &from("From: <a@other.test>", "other"));
    client.send("<s@sender.test>", &to, &from("From: <a@sender.test.other.test>", "alike"));
    client.send("<s@other.test>", &to, &from("From: <a@sender.test>\r\nFrom: <b@other.test>", "two"));
    client.send("<s@other.test>", &to, &from("From: A <a@SENDER.test>, b@other.test", "list"));
    for (subject, signatures) in [("other", 0), ("alike", 0), ("two", 0), ("list", 1)] {
        let received = world.data.wait_subject(subject, SOON);
        assert_eq!(verified(&received.content, &published).map(|all| all.len()), Ok(signatures), "{subject}");
    }
    let told =
        world.daemon.wait_log("no signature", |line| line.event() == "a message leaves without a DKIM signature");
    assert_eq!(told.get("why"), "it has 2 From fields");
}

#[test]
fn a_message_whose_fields_cannot_be_signed_bounces_with_the_reason_and_never_leaves_unsigned() {
    let dir = TestDir::new();
    let (sender, _) = new_keys(&dir, "sender.test", &["--algorithm", "ed25519", "--selector", "e"]);
    let world = world(&dir, &sender);
    let list = "somebody.with.a.long.name@example.test,\r\n ".repeat(7_000);
    let text = String::from_utf8(message("too large")).expect("ASCII");
    let content = text.replace("To: <", &format!("To: {list}<")).into_bytes();
    let mut client = world.daemon.client();
    client.send("<s@sender.test>", &["<x@data.test>"], &content);
    client.send("<s@sender.test>", &["<x@data.test>"], &message("after"));
    let report = Report::parse(&world.senders.wait(1, SOON)[0].content);
    assert_eq!(report.recipient_field("status"), "5.3.4");
    let why = report.recipient_field("diagnostic-code").split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(why.ends_with("the header fields that a DKIM signature covers have more than 262144 bytes"), "{why}");
    world.data.wait_subject("after", SOON);
    assert_eq!(world.data.count(), 1);
}

#[test]
fn a_reload_takes_up_another_key_and_is_refused_with_one_that_cannot_be_used() {
    let dir = TestDir::new();
    let (first, a) = new_keys(&dir, "sender.test", &["--algorithm", "ed25519", "--selector", "old"]);
    let (second, b) = new_keys(&dir, "sender.test", &["--algorithm", "ed25519", "--selector", "new"]);
    let published = both(&a, &b);
    let mut world = world(&dir, &first);
    let send = |world: &World, subject: &str| {
        world.daemon.client().send("<s@sender.test>", &["<x@data.test>"], &message(subject));
        verified(&world.data.wait_subject(subject, SOON).content, &published)
    };
    assert_eq!(send(&world, "one"), Ok(vec!["old@sender.test".into()]));
    world.daemon.replace_config(&first, &second);
    world.daemon.command_ok(&["reload"], b"");
    assert_eq!(send(&world, "two"), Ok(vec!["new@sender.test".into()]));
    let file = dir.join("sender.test.new.pem");
    let mode = |mode: u32| {
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(mode)).expect("a mode");
    };
    mode(0o644);
    for arguments in [&["reload"][..], &["check"]] {
        let output = world.daemon.command(arguments, b"");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(78), "{said}");
        assert!(said.contains("dkim[1].key") && said.contains("chmod 600"), "{said}");
    }
    assert_eq!(send(&world, "three"), Ok(vec!["new@sender.test".into()]));
    mode(0o600);
    world.daemon.command_ok(&["reload"], b"");
    assert_eq!(send(&world, "four"), Ok(vec!["new@sender.test".into()]));
}

#[test]
fn keys_are_made_once_and_compared_with_dns() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = TestDir::new();
    let (tables, published) = new_keys(&dir, "shop.test", &["--selector", "k"]);
    for name in ["shop.test.k-rsa.pem", "shop.test.k-ed25519.pem"] {
        assert_eq!(dir.join(name).metadata().expect("a file").permissions().mode() & 0o7777, 0o600);
        let mut openssl = Command::new(support::program("openssl"));
        run_ok(openssl.args(["pkey", "-noout", "-in"]).arg(dir.join(name)), b"", SOON);
    }
    let again = |more: &[&str]| {
        let mut command = Command::new(MAILWEIR);
        command.args(["dkim", "new", "shop.test", "--directory"]).arg(dir.path()).args(more);
        let output = run(&mut command, b"", SOON);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = again(&["--selector", "k"]);
    assert!(code == Some(69) && said.contains("k-rsa.pem is there already"), "{said}");
    let (code, said) = again(&["--selector", "-k"]);
    assert!(code == Some(64), "{said}");

    let zone = |records: &Published| -> String {
        let line = |(name, text): (&String, &String)| {
            let pieces: Vec<String> =
                text.as_bytes().chunks(200).map(|piece| format!("\"{}\"", String::from_utf8_lossy(piece))).collect();
            format!("{name}. IN TXT {}\n", pieces.join(" "))
        };
        records.0.iter().map(line).collect()
    };
    let nsd = Nsd::start(&dir, &zone(&published));
    let daemon = Setup::new(&dir).dns(nsd.address).with(&tables).prepare();
    let record = daemon.command_ok(&["dkim", "record"], b"");
    assert_eq!(Published::parse(&record).0, published.0);
    assert_eq!(
        daemon.command_ok(&["dkim", "check", "Shop.Test"], b""),
        "k-rsa._domainkey.shop.test  rsa  ok\nk-ed25519._domainkey.shop.test  ed25519  ok\n"
    );
    let output = daemon.command(&["dkim", "check", "other.test"], b"");
    assert_eq!(output.status.code(), Some(78));
    // The wrong key under one name, nothing under the other.
    let mut wrong = published.clone();
    let ed25519 = wrong.0.remove("k-ed25519._domainkey.shop.test").expect("a record");
    wrong.0.insert("k-rsa._domainkey.shop.test".into(), ed25519);
    nsd.change(&dir, &zone(&wrong));
    let said = wait_for("a name server with the new zone", SOON, || {
        let output = daemon.command(&["dkim", "check", "shop.test"], b"");
        (output.status.code() == Some(69)).then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    });
    assert!(said.contains("k-rsa._domainkey.shop.test  rsa  FAILED  it says k=ed25519: expected k=rsa\n"), "{said}");
    assert!(
        said.contains("k-ed25519._domainkey.shop.test  ed25519  FAILED  there is no record: publish it\n"),
        "{said}"
    );
    assert_eq!(Published::parse(&said).0, published.0, "what to publish is told");
}
