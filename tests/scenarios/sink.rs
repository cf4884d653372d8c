//! The sink as a program: raw dialogs, and a real client at speed. Caps are enforced to the message.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

struct Sink {
    child: Child,
    address: SocketAddr,
}

impl Sink {
    fn start(args: &[&str]) -> Sink {
        let mut child = Command::new(env!("CARGO_BIN_EXE_mailweir"))
            .args(["sink", "--listen", "127.0.0.1:0", "--json"])
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut line = String::new();
        BufReader::new(child.stderr.as_mut().expect("piped")).read_line(&mut line).expect("a line");
        let address = line.split_whitespace().nth(4).and_then(|a| a.parse().ok());
        Sink { child, address: address.unwrap_or_else(|| panic!("no address in {line:?}")) }
    }

    fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.address).expect("the sink listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time-out");
        Client(BufReader::new(stream))
    }

    /// Ends it as an administrator would; what it saw.
    fn report(mut self) -> Value {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
        let mut out = String::new();
        self.child.stdout.take().expect("piped").read_to_string(&mut out).expect("UTF-8");
        assert!(self.child.wait().expect("it ends").success());
        serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}"))
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Client(BufReader<TcpStream>);

impl Client {
    fn write(&mut self, bytes: &str) {
        self.0.get_mut().write_all(bytes.as_bytes()).expect("the sink reads");
    }

    /// A whole reply, its lines joined with `|`; empty at the end of the connection.
    fn reply(&mut self) -> String {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).expect("no time-out") == 0 {
                break;
            }
            let last = line.as_bytes().get(3) == Some(&b' ');
            lines.push(line.trim_end().to_owned());
            if last {
                break;
            }
        }
        lines.join("|")
    }

    fn says(&mut self, line: &str, expected: &str) {
        if !line.is_empty() {
            self.write(&format!("{line}\r\n"));
        }
        let reply = self.reply();
        assert!(reply.starts_with(expected), "{line:?}: {reply:?}, expected {expected:?}");
    }

    fn closed(&mut self) {
        assert_eq!(self.reply(), "");
    }

    fn hello(&mut self) {
        self.says("", "220 ");
        self.says("EHLO client.example", "250-");
    }

    fn send(&mut self, to: &str, last: &str) {
        self.says("MAIL FROM:<s@a.example>", "250");
        self.says(&format!("RCPT TO:<{to}>"), "250");
        self.says("DATA", "354");
        self.says("Subject: x\r\n\r\n..dot\r\n.", last);
    }
}

fn number(report: &Value, path: &str) -> u64 {
    report.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("no {path} in {report}"))
}

fn worst(report: &Value, length: &str, what: &str) -> u64 {
    let windows = report["windows"].as_array().expect("windows");
    windows.iter().find(|w| w["length"] == length).and_then(|w| w[what].as_u64()).expect("a window")
}

#[test]
fn a_dialog_with_caps_in_the_words_of_the_provider() {
    let sink = Sink::start(&["--as", "gmail", "--rate", "2/h", "--max-connections", "1", "--recipients", "1"]);
    let mut client = sink.connect();
    client.hello();
    let mut second = sink.connect();
    second.says("", "421 4.7.0 Try again later, closing connection");
    second.closed();
    client.says("RCPT TO:<a@b.example>", "503");
    client.says("MAIL FROM:<s@a.example> BODY=8BITMIME SIZE=100", "250");
    client.says("MAIL FROM:<s@a.example>", "503");
    client.says("RCPT TO:<a@b.example> NOTIFY=NEVER", "250");
    client.says("RCPT TO:<c@b.example>", "452 4.5.3 Too many recipients");
    client.says("DATA", "354");
    client.says("one\r\n.", "250");
    client.send("a@b.example", "250");
    client.says("MAIL FROM:<s@a.example>", "450 4.2.1 The user you are trying to contact is receiving mail at a rate");
    client.says("QUIT", "221");
    client.closed();
    let report = sink.report();
    assert_eq!((number(&report, "/messages"), number(&report, "/recipients")), (2, 2));
    assert_eq!((number(&report, "/throttled"), number(&report, "/connections_refused")), (2, 1));
    assert_eq!(report["refusals"]["rate/1h"], 1);
    assert_eq!(report["refusals"]["connections"], 1);
    assert_eq!((worst(&report, "1h", "attempts"), worst(&report, "1h", "messages")), (3, 2));
    assert_eq!(number(&report, "/messages_per_connection/max"), 2);
}

#[test]
fn closes_at_its_own_number_of_messages_without_a_word() {
    let sink = Sink::start(&["--as", "yahoo", "--messages-per-connection", "2", "--close-silently"]);
    let mut client = sink.connect();
    client.hello();
    client.send("a@b.example", "250");
    client.send("a@b.example", "250");
    client.write("MAIL FROM:<s@a.example>\r\n");
    client.closed();
    let report = sink.report();
    assert_eq!(report["refusals"]["messages-per-connection"], 1);
    assert_eq!((number(&report, "/messages"), number(&report, "/peak_connections")), (2, 1));
}

#[test]
fn takes_chunks_and_pipelined_commands_and_dumps_what_it_accepts_byte_for_byte() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("dump");
    let sink =
        Sink::start(&["--dump", path.to_str().expect("UTF-8"), "--fail", "100%:5xx", "--change", "300ms fail=none"]);
    let mut client = sink.connect();
    client.hello();
    client.says("MAIL FROM:<s@a.example>", "250");
    client.says("RCPT TO:<a@b.example>", "550 5.1.1");
    client.write("BDAT 3\r\nabc");
    client.says("", "554");
    std::thread::sleep(Duration::from_millis(350));
    client.write("RSET\r\nMAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nBDAT 5\r\na\r\n.\rBDAT 4 LAST\r\n\nb\r\n");
    for expected in ["250", "250", "250", "250", "250 2.0.0 5 octets", "250 2.0.0 Ok"] {
        client.says("", expected);
    }
    client.says("NOOP", "250");
    client.send("x@y.example", "250");
    client.says("MAIL FROM:<s@a.example> SIZE=99999999999", "552");
    client.says("AUTH PLAIN AGEAYg==", "502");
    let report = sink.report();
    assert_eq!((number(&report, "/messages"), number(&report, "/recipients")), (2, 3));
    let read = |name: &str| std::fs::read_to_string(path.join(name)).expect(name);
    assert_eq!(read("00000001.eml"), "a\r\n.\r\nb\r\n");
    assert_eq!(read("00000001.json"), "{\"recipients\":[\"a@b.example\",\"c@d.example\"],\"sender\":\"\"}\n");
    assert_eq!(read("00000002.eml"), "Subject: x\r\n\r\n.dot\r\n");
    assert_eq!(std::fs::read_dir(&path).expect("a directory").count(), 4);
}

#[test]
fn greylists_and_offers_what_it_is_told_to() {
    let sink = Sink::start(&["--greylist", "400ms", "--latency", "20ms", "--auth", "--no-chunking", "--no-pipelining"]);
    let mut client = sink.connect();
    client.says("", "220");
    client.write("EHLO client.example\r\n");
    let offered = client.reply();
    assert!(offered.contains("AUTH PLAIN LOGIN") && offered.contains("8BITMIME"), "{offered}");
    assert!(!offered.contains("CHUNKING") && !offered.contains("PIPELINING"), "{offered}");
    client.says("AUTH LOGIN", "334 VXNlcm5hbWU6");
    client.says("dXNlcg==", "334 UGFzc3dvcmQ6");
    client.says("cGFzcw==", "235");
    client.says("MAIL FROM:<s@a.example>", "250");
    client.says("RCPT TO:<r@b.example>", "450 4.2.0 Greylisted");
    client.says("DATA", "554");
    std::thread::sleep(Duration::from_millis(450));
    client.says("RCPT TO:<r@b.example>", "250");
    client.says("BDAT 3 LAST", "502");
    client.closed();
    let report = sink.report();
    assert_eq!((report["refusals"]["greylist"].as_u64(), number(&report, "/throttled")), (Some(1), 0));
}

/// At DATA, and at the first chunk, which is what DATA is elsewhere; in bytes that are no UTF-8.
#[test]
fn refuses_at_data_in_its_own_bytes_and_what_is_not_about_the_pace() {
    let args = ["--rate", "1/h", "--cap", "at=data blocked-sender=bad@a.example greylist-data=100%:1ms"];
    let sink = Sink::start(&[&args[..], &["--say", r"quota=452 4.7.0 \xc7\xeb, {sender}"]].concat());
    let mut client = sink.connect();
    client.hello();
    client.says("MAIL FROM:<bad@a.example>", "450 4.1.8");
    client.says("MAIL FROM:<s@a.example>", "250");
    client.says("RCPT TO:<a@b.example>", "250");
    client.says("DATA", "354");
    client.says("the same\r\n.", "451 4.7.1 Try again later");
    std::thread::sleep(Duration::from_millis(5));
    let mut refused = |data: &str| {
        client.says("MAIL FROM:<s@a.example>", "250");
        client.says("RCPT TO:<a@b.example>", "250");
        client.write(data);
        let mut line = Vec::new();
        client.0.read_until(b'\n', &mut line).expect("a line");
        line
    };
    // The first message is in the window, though it was put off after its data.
    assert_eq!(refused("DATA\r\n"), b"452 4.7.0 \xc7\xeb, s@a.example\r\n");
    assert_eq!(refused("BDAT 3\r\nabc"), b"452 4.7.0 \xc7\xeb, s@a.example\r\n");
    client.says("NOOP", "250");
    let report = sink.report();
    assert_eq!((report["refusals"]["rate/1h"].as_u64(), number(&report, "/throttled")), (Some(2), 2));
    assert_eq!(report["refusals"]["greylist-data"], 1);
    assert_eq!(report["refusals"]["blocked-sender"], 1);
    assert_eq!(number(&report, "/messages"), 0);
}

#[test]
fn refuses_to_be_reached_from_elsewhere_and_unknown_names() {
    let run = |args: &[&str]| {
        let out = Command::new(env!("CARGO_BIN_EXE_mailweir")).arg("sink").args(args).output().expect("it starts");
        (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
    };
    let (code, text) = run(&["--listen", "192.0.2.1:2600"]);
    assert!(code == Some(64) && text.contains("not a loopback address"), "{code:?} {text}");
    let (code, text) = run(&["--as", "nobody"]);
    assert!(code == Some(64) && text.contains("expected one of generic, gmail"), "{code:?} {text}");
    let (code, text) = run(&["--say", "speed=451 slower"]);
    assert!(code == Some(64) && text.contains("expected one of rate, quota"), "{code:?} {text}");
    let (code, text) = run(&["--change", "60s speed=1"]);
    assert!(code == Some(64) && text.contains("is not a cap"), "{code:?} {text}");
}

/// smtp-source comes with Postfix; it retries nothing, so every refusal ends one of its sessions.
#[test]
fn a_real_client_at_speed_never_gets_more_than_the_cap() {
    let source =
        ["/usr/sbin/smtp-source", "/usr/libexec/postfix/smtp-source"].into_iter().find(|p| Path::new(p).exists());
    let Some(source) = source else { return };
    let sink = Sink::start(&[]);
    let load = |sessions: &str, messages: &str| {
        Command::new(source)
            .args(["-s", sessions, "-m", messages, "-l", "2000", "-f", "a@b.example", "-t", "c@d.example"])
            .arg(format!("inet:127.0.0.1:{}", sink.address.port()))
            .status()
            .expect("it starts")
    };
    assert!(load("10", "2000").success());
    let report = sink.report();
    assert_eq!(number(&report, "/messages"), 2000);
    let series: u64 = report["series"].as_array().expect("slots").iter().filter_map(|s| s["messages"].as_u64()).sum();
    assert_eq!((series, worst(&report, "1h", "messages")), (2000, 2000));
    assert!(number(&report, "/peak_connections") <= 10);

    let sink = Sink::start(&["--rate", "100/s"]);
    for _ in 0..3 {
        // The 451 at MAIL ends smtp-source; what was under way counts.
        let _ = Command::new(source)
            .args(["-s", "5", "-m", "400", "-f", "a@b.example", "-t", "c@d.example"])
            .arg(format!("inet:127.0.0.1:{}", sink.address.port()))
            .stderr(Stdio::null())
            .status();
    }
    let report = sink.report();
    assert!(number(&report, "/throttled") >= 1, "{report}");
    assert!((1..=300).contains(&number(&report, "/messages")), "{report}");
}
