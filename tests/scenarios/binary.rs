//! Messages announced as BINARYMIME (RFC 3030), from a client to hosts that take octets, and to hosts that take
//! lines: every part decodes to what was sent, and nothing leaves that a reader of lines takes for another message.

use crate::support;

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use support::client::Client;
use support::daemon::{Daemon, MAILWEIR, Setup};
use support::mail::{Report, assert_same_bytes, split_received};
use support::postfix::{self, Postfix};
use support::sink::{Answer, Ask, Options, Received, Sink};
use support::smuggling::sequences;
use support::{Port, SOON, TestDir, program, run_ok, wait_for};

const LIMITS: &str = "connections = 4\nrate = []";
const RETRY: &str = "[retry]\nfirst = \"1s\"\nmax = \"1s\"";

const OCTETS: [&str; 5] = ["PIPELINING", "8BITMIME", "CHUNKING", "BINARYMIME", "SIZE 60000000"];
const CHUNKS: [&str; 3] = ["PIPELINING", "8BITMIME", "CHUNKING"];

/// Bytes without any order, always the same.
fn noise(len: usize) -> Vec<u8> {
    (0..len as u32).map(|n| (n.wrapping_mul(2_654_435_761).rotate_left(7) >> 13) as u8).collect()
}

/// A message with an image of these octets in it, and a text with LF line ends.
fn with_image(subject: &str, image: &[u8]) -> Vec<u8> {
    let head = format!(
        "From: <s@sender.test>\r\nTo: <x@lines.test>\r\nDate: Sat, 21 Nov 2026 09:00:00 +0000\r\nMessage-ID: <{subject}@s>\r\n\
         Subject: {subject}\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"=_b\"\r\n\
         Content-Transfer-Encoding: binary\r\n\r\n--=_b\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Transfer-Encoding: binary\r\n\r\nGr\u{fc}\u{df}e\n.\nQUIT\n\r\n--=_b\r\nContent-Type: image/png\r\n\
         Content-Transfer-Encoding: binary\r\n\r\n"
    );
    [head.as_bytes(), image, b"\r\n--=_b--\r\n"].concat()
}

/// One transaction by BDAT, all in one write; the reply to the last chunk.
fn send_octets(client: &mut Client, from: &str, to: &[&str], chunks: &[&[u8]]) -> String {
    let mut wire = format!("MAIL FROM:{from} BODY=BINARYMIME\r\n").into_bytes();
    to.iter().for_each(|to| wire.extend_from_slice(format!("RCPT TO:{to}\r\n").as_bytes()));
    for (n, chunk) in chunks.iter().enumerate() {
        let last = if n + 1 == chunks.len() { " LAST" } else { "" };
        wire.extend_from_slice(format!("BDAT {}{last}\r\n", chunk.len()).as_bytes());
        wire.extend_from_slice(chunk);
    }
    client.write(&wire).expect("it takes what is sent");
    let mut last = None;
    for n in 0..1 + to.len() + chunks.len() {
        last = Some(client.reply_of(250, &format!("command {n} of {}", to.len() + chunks.len())));
    }
    last.expect("a reply").queue_id()
}

/// The decoded leaves of a message, as Python's email package has them.
fn leaves(content: &[u8]) -> Vec<Vec<u8>> {
    let script = "import email, sys\nm = email.message_from_bytes(sys.stdin.buffer.read())\n\
                  for p in m.walk():\n    if not p.is_multipart(): print(p.get_payload(decode=True).hex())";
    let mut python = std::process::Command::new(program("python3"));
    let output = run_ok(python.arg("-c").arg(script), content, SOON);
    let hex = |pair: &[u8]| u8::from_str_radix(&String::from_utf8_lossy(pair), 16).expect("hex");
    let text = String::from_utf8(output.stdout).expect("ASCII");
    text.lines().map(|line| line.as_bytes().chunks(2).map(hex).collect()).collect()
}

/// What a host that takes lines got: no byte that a reader of lines could see otherwise.
fn assert_lines(sink: &Sink) {
    sink.assert_legal();
    for received in sink.messages() {
        assert!(!received.content.contains(&0), "a NUL left: {}", received.subject());
        assert!(!received.from.contains("BINARYMIME"), "{}", received.from);
        assert!(!String::from_utf8_lossy(&received.content).to_ascii_lowercase().contains("encoding: binary"));
    }
}

fn assert_image(received: &Received, image: &[u8]) {
    let leaves = leaves(&received.content);
    assert_eq!(leaves[0], "Gr\u{fc}\u{df}e\n.\nQUIT\n".as_bytes());
    assert_same_bytes("the image", &leaves[1], image);
    assert_eq!(leaves.len(), 2);
}

#[test]
fn octets_arrive_as_they_are_or_as_parts_that_decode_to_them() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let octets = Sink::with(port.at(2), Options::offering(&OCTETS));
    let chunks = Sink::with(port.at(3), Options::offering(&CHUNKS));
    let seven = Sink::with(port.at(4), Options::offering(&[]));
    let daemon = Setup::new(&dir)
        .via("octets", "octets.test", octets.address, LIMITS)
        .via("chunks", "chunks.test", chunks.address, LIMITS)
        .via("seven", "seven.test", seven.address, LIMITS)
        .with(RETRY)
        .start();
    let mut client = daemon.client();
    for (subject, len) in [("small", 3_000), ("large", 1_500_000)] {
        let (image, to) = (noise(len), ["<x@octets.test>", "<x@chunks.test>", "<x@seven.test>"]);
        let content = with_image(subject, &image);
        let cut: Vec<&[u8]> = content.chunks(100_001).collect();
        let id = send_octets(&mut client, "<s@sender.test>", &to, &cut);
        let as_it_is = octets.wait_subject(subject, SOON);
        assert!(as_it_is.from.contains(" BODY=BINARYMIME"), "{}", as_it_is.from);
        assert_same_bytes(subject, split_received(&as_it_is.content).1, &content);
        for sink in [&chunks, &seven] {
            assert_image(&sink.wait_subject(subject, SOON), &image);
        }
        daemon.wait_log("delivered", |line| line.is("delivered", &id));
    }
    octets.assert_legal();
    assert_lines(&chunks);
    assert_lines(&seven);
    // And what comes in lines goes on as before.
    client.send("<s@sender.test>", &["<x@octets.test>"], &support::mail::message("lines"));
    assert!(!octets.wait_subject("lines", SOON).from.contains("BINARYMIME"));
    daemon.wait_queue_empty(SOON);
    octets.assert_legal();
}

/// It waits for a host that is down, through a kill and in a copy of the queue, and people can look at it.
#[test]
fn octets_are_kept_through_a_kill_in_a_backup_and_for_those_who_look() {
    let (dir, elsewhere, port) = (TestDir::new(), TestDir::new(), Port::reserve());
    let setup = |dir: &TestDir| Setup::new(dir).via("octets", "octets.test", port.at(2), LIMITS).with(RETRY);
    let mut daemon = setup(&dir).start();
    let content = with_image("kept", &noise(600_000));
    let id = send_octets(&mut daemon.client(), "<s@sender.test>", &["<x@octets.test>"], &[&content]);
    daemon.wait_row("a first attempt", |row| row.attempts() > 0);
    let file = elsewhere.join("queue.db");
    daemon.command_ok(&["backup", &file.display().to_string()], b"");
    daemon.kill();
    daemon.start();
    let shown = daemon.command(&["queue", "show", &id, "--body"], b"");
    assert!(shown.stdout.ends_with(&content), "as it is where no terminal is");
    let headers = daemon.command(&["queue", "show", &id, "--headers"], b"");
    assert!(String::from_utf8(headers.stdout).expect("ASCII").contains("Subject: kept"));
    let sink = Sink::with(port.at(2), Options::offering(&OCTETS));
    daemon.command_ok(&["queue", "retry", "--all"], b"");
    let first = sink.wait_subject("kept", SOON);
    daemon.wait_queue_empty(SOON);
    daemon.stop();
    let second = setup(&elsewhere).start();
    second.command_ok(&["queue", "retry", "--all"], b"");
    let both = sink.wait(2, SOON);
    assert_same_bytes("after a kill", split_received(&first.content).1, &content);
    assert_same_bytes("from a backup", split_received(&both[1].content).1, &content);
    sink.assert_legal();
}

/// A host that offers BINARYMIME and refuses the word gets lines, with the next attempt.
#[test]
fn a_host_that_refuses_what_it_offers_gets_lines() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let script = |ask: &Ask| match ask.verb {
        "MAIL" if ask.argument.contains("BINARYMIME") => Answer::say("555 5.5.4 BODY what?"),
        _ => Answer::Yes,
    };
    let options = Options { extensions: OCTETS.to_vec(), ..Options::script(script) };
    let sink = Sink::with(port.at(2), options);
    let daemon = Setup::new(&dir).via("odd", "odd.test", sink.address, LIMITS).with(RETRY).start();
    let image = noise(2_000);
    send_octets(&mut daemon.client(), "<s@sender.test>", &["<x@odd.test>"], &[&with_image("refused", &image)]);
    assert_image(&sink.wait_subject("refused", SOON), &image);
    daemon.wait_queue_empty(SOON);
    assert_lines(&sink);
}

/// A report that returns the message is lines, whatever host it goes to; what cannot be converted comes back
/// with 5.6.3, and says why.
#[test]
fn reports_return_octets_as_lines_and_say_what_cannot_be_converted() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let script = |ask: &Ask| match (ask.verb, ask.argument.starts_with("<no@")) {
        ("RCPT", true) => Answer::say("550 5.1.1 nobody"),
        _ => Answer::Yes,
    };
    let hosts = Sink::with(port.at(2), Options { extensions: OCTETS.to_vec(), ..Options::script(script) });
    let lines = Sink::with(port.at(3), Options::offering(&CHUNKS));
    let senders = Sink::with(port.at(4), Options::offering(&OCTETS));
    let daemon = Setup::new(&dir)
        .via("hosts", "hosts.test", hosts.address, LIMITS)
        .via("lines", "lines.test", lines.address, LIMITS)
        .via("senders", "sender.test", senders.address, LIMITS)
        .with(RETRY)
        .start();
    let mut client = daemon.client();
    let image = noise(5_000);
    for (parameter, returned) in [("RET=FULL", "message/rfc822"), ("RET=HDRS", "text/rfc822-headers")] {
        let subject = parameter.replace('=', "-");
        let content = with_image(&subject, &image);
        send_octets(&mut client, &format!("<s@sender.test> {parameter}"), &["<no@hosts.test>"], &[&content]);
        let told = |m: &Received| String::from_utf8_lossy(&m.content).contains(&format!("Subject: {subject}"));
        let dsn = wait_for("the report", SOON, || senders.messages().into_iter().find(told));
        let report = Report::parse(&dsn.content);
        assert_eq!((report.returned_type(), report.recipient_field("status")), (returned, "5.1.1"));
        if parameter == "RET=FULL" {
            let leaves = leaves(&dsn.content);
            assert_same_bytes("the returned image", leaves.last().expect("leaves"), &image);
        }
    }
    let deep: String =
        (0..40).map(|n| format!("Content-Type: multipart/mixed; boundary=b{n}\r\n\r\n--b{n}\r\n")).collect();
    let content = [b"Subject: deep\r\nMIME-Version: 1.0\r\n", deep.as_bytes(), b"\r\n\0"].concat();
    send_octets(&mut client, "<s@sender.test>", &["<x@lines.test>", "<x@hosts.test>"], &[&content]);
    // The one takes it, about the other there is a report.
    let taken = hosts.wait_subject("deep", SOON);
    assert!(taken.content.ends_with(b"\r\n\r\n--b39\r\n\r\n\0"));
    let report = Report::parse(&senders.wait(3, SOON)[2].content);
    let why = report.recipient_field("diagnostic-code").split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(report.recipient_field("status"), "5.6.3");
    assert!(why.contains("BINARYMIME") && why.contains("nested deeper than 32 levels"), "{why}");
    daemon.wait_queue_empty(SOON);
    assert_eq!(lines.count(), 0);
    // They are lines, to a host that would take octets.
    senders.assert_legal();
    assert!(senders.messages().iter().all(|m| !m.from.contains("BINARYMIME") && !m.content.contains(&0)));
    hosts.assert_legal();
}

/// Postfix offers CHUNKING, and not BINARYMIME: what it stores decodes to what was sent.
#[test]
fn postfix_gets_lines() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let options = postfix::Options { domains: &["lines.test"], main: "", submission: None };
    let postfix = Postfix::start(&dir, "mx", port.at(4), &options);
    let daemon = Setup::new(&dir).via("postfix", "lines.test", port.at(4), LIMITS).with(RETRY).start();
    let image = noise(400_000);
    send_octets(&mut daemon.client(), "<s@sender.test>", &["<x@lines.test>"], &[&with_image("stored", &image)]);
    let stored = postfix.wait(1);
    let leaves = leaves(&stored[0]);
    assert_same_bytes("the image in the mailbox", &leaves[1], &image);
    daemon.wait_queue_empty(SOON);
}

/// A host that announces BDAT and does not know it: it reads lines, and obeys them; what it does not know gets
/// `otherwise`. Returns the senders that it heard.
fn liar(address: std::net::SocketAddr, extensions: &'static str, otherwise: &'static str) -> Arc<Mutex<Vec<String>>> {
    let senders: Arc<Mutex<Vec<String>>> = Arc::default();
    let (listener, heard) = (TcpListener::bind(address).expect("a port"), senders.clone());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let heard = heard.clone();
            std::thread::spawn(move || obey(&stream, extensions, otherwise, &heard));
        }
    });
    senders
}

fn obey(stream: &TcpStream, extensions: &str, otherwise: &str, heard: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let (mut out, mut lines) = (stream, BufReader::new(stream).split(b'\n'));
    out.write_all(b"220 liar.test\r\n")?;
    while let Some(line) = lines.next().transpose()? {
        let line = String::from_utf8_lossy(&line).trim().to_ascii_uppercase();
        let reply = match line.split([' ', ':']).next().unwrap_or_default() {
            "EHLO" => extensions,
            "MAIL" => {
                heard.lock().expect("no panic").push(line);
                "250 ok\r\n"
            }
            "RCPT" | "RSET" => "250 ok\r\n",
            "DATA" => {
                out.write_all(b"354 go\r\n")?;
                while lines.next().transpose()?.is_some_and(|line| line != b".\r") {}
                "250 queued\r\n"
            }
            "QUIT" => return out.write_all(b"221 bye\r\n"),
            _ => otherwise,
        };
        out.write_all(reply.as_bytes())?;
    }
    Ok(())
}

/// Its messages arrive all the same, by DATA; nothing of them is obeyed.
#[test]
fn a_host_that_announces_bdat_and_does_not_know_it_obeys_nothing_of_a_body() {
    // What it does not know it refuses, or thanks for as for anything.
    for otherwise in ["500 5.5.1 what?\r\n", "250 ok\r\n"] {
        obeys_nothing(otherwise);
    }
}

fn obeys_nothing(otherwise: &'static str) {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let lines = liar(port.at(2), "250-x\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 CHUNKING\r\n", otherwise);
    let octets = liar(port.at(3), "250-x\r\n250-8BITMIME\r\n250-CHUNKING\r\n250 BINARYMIME\r\n", otherwise);
    let keys = "connections = 1\nrate = []";
    let daemon = Setup::new(&dir)
        .via("lines", "lines.test", port.at(2), keys)
        .via("octets", "octets.test", port.at(3), keys)
        .with(RETRY)
        .start();
    let mut client = daemon.client();
    let body = [b"Subject: x\r\n\r\nRSET", SECOND].concat();
    let evil =
        |heard: &Mutex<Vec<String>>| heard.lock().expect("no panic").iter().filter(|m| m.contains("EVIL")).count();
    for _ in 0..3 {
        client.send("<s@sender.test>", &["<x@lines.test>"], &body);
        send_octets(&mut client, "<s@sender.test>", &["<x@octets.test>"], &[&with_image("x", &body)]);
    }
    daemon.wait_queue_empty(SOON);
    let delivered = daemon.log_lines().iter().filter(|line| line.event() == "delivered").count();
    assert_eq!((delivered, evil(&lines), evil(&octets)), (6, 0, 0));
    assert!(lines.lock().expect("no panic").len() >= 3 && octets.lock().expect("no panic").len() >= 3);
}

/// What might be a second message, if what stands before it ended one.
const SECOND: &[u8] =
    b"\r\nMAIL FROM:<evil@evil.test>\r\nRCPT TO:<x@lines.test>\r\nDATA\r\nSubject: second\r\n\r\nx\r\n.\r\n";

/// Relays to recorders that take lines only, by DATA and by BDAT.
fn recorders(dir: &TestDir, port: &Port) -> (Daemon, [Sink; 2]) {
    let sinks = [
        Sink::with(port.at(2), Options::offering(&["PIPELINING", "8BITMIME"])),
        Sink::with(port.at(3), Options::offering(&CHUNKS)),
    ];
    let daemon = Setup::new(dir)
        .via("data", "data.test", sinks[0].address, LIMITS)
        .via("bdat", "bdat.test", sinks[1].address, LIMITS)
        .with(RETRY)
        .start();
    (daemon, sinks)
}

const BOTH: [&str; 2] = ["<x@data.test>", "<x@bdat.test>"];

/// Each sequence at the end of a part, at its start and in its header section, and with the end of a chunk at each
/// byte of it.
#[test]
fn no_sequence_around_the_end_of_a_part_leaves_as_a_second_message() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let (daemon, sinks) = recorders(&dir, &port);
    let mut client = daemon.client();
    let all = sequences(5);
    for cut in 0..=5 {
        let head = format!(
            "From: <s@sender.test>\r\nSubject: cut-{cut}\r\nMIME-Version: 1.0\r\n\
             Content-Type: multipart/mixed; boundary=\"=_b\"\r\n\r\n"
        );
        let (mut chunks, mut chunk, mut expected) = (Vec::new(), head.into_bytes(), Vec::new());
        for sequence in &all {
            let at = cut.min(sequence.len());
            let kind: &[u8] = if sequence.len() % 2 == 0 { b"text/plain" } else { b"image/png" };
            chunk.extend_from_slice(b"--=_b\r\nContent-Type: ");
            chunk.extend_from_slice(kind);
            chunk.extend_from_slice(b"\r\nX-A: 1");
            // In a field: no end of its line is in it, and no end of the header section.
            chunk.extend(sequence.iter().filter(|b| **b != b'\n'));
            chunk.extend_from_slice(b"x\r\n\r\n");
            let content = [sequence, SECOND, sequence].concat();
            chunk.extend_from_slice(&content[..content.len() - sequence.len() + at]);
            chunks.push(std::mem::take(&mut chunk));
            chunk.extend_from_slice(&sequence[at..]);
            chunk.extend_from_slice(b"\r\n");
            expected.push(content);
        }
        chunk.extend_from_slice(b"--=_b--\r\n");
        chunk.extend_from_slice(&all[all.len() - 1 - cut]);
        chunks.push(chunk);
        let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
        send_octets(&mut client, "<s@sender.test>", &BOTH, &chunks);
        for sink in &sinks {
            let received = sink.wait_subject(&format!("cut-{cut}"), SOON);
            let leaves = leaves(&received.content);
            assert_eq!(leaves.len(), expected.len());
            for (leaf, expected) in leaves.iter().zip(&expected) {
                assert_same_bytes(&expected.escape_ascii().to_string(), leaf, expected);
            }
        }
    }
    daemon.wait_queue_empty(SOON);
    for sink in &sinks {
        assert_lines(sink);
        assert_eq!(sink.count(), 6);
    }
}

/// Each sequence at the end of a message, one BDAT for each byte of it, and then at the start of the next.
#[test]
fn no_sequence_around_the_end_of_a_message_leaves_as_a_second_message() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let (daemon, sinks) = recorders(&dir, &port);
    let mut client = daemon.client();
    let all = sequences(5);
    for (n, sequence) in all.iter().enumerate() {
        let kind = if n % 3 == 0 { "text/plain" } else { "application/x-data" };
        let head = format!("From: <s@sender.test>\r\nSubject: n-{n}\r\nContent-Type: {kind}\r\n\r\n");
        let body = [sequence, SECOND, sequence].concat();
        let (start, end) = body.split_at(body.len() - sequence.len());
        let start = [head.as_bytes(), start].concat();
        let mut chunks = vec![start.as_slice()];
        chunks.extend(end.chunks(1));
        send_octets(&mut client, "<s@sender.test>", &BOTH, &chunks);
    }
    for sink in &sinks {
        let all_of_it = sink.wait(all.len(), 6 * SOON);
        assert_eq!(all_of_it.len(), all.len(), "a message more than were sent");
        for received in all_of_it {
            let n: usize = received.subject().strip_prefix("n-").and_then(|n| n.parse().ok()).expect("one of ours");
            let expected = [&all[n], SECOND, &all[n]].concat();
            assert_same_bytes(&format!("n-{n}"), &decoded(&received.content), &expected);
        }
    }
    daemon.wait_queue_empty(SOON);
    for sink in &sinks {
        assert_lines(sink);
        assert_eq!(sink.count(), all.len());
    }
    // Nobody was told of by the second message that never was.
    assert!(daemon.log_lines().iter().all(|line| line.get("sender") != "evil@evil.test"));
}

/// The content of a message of one part; a reader of its own, since there are thousands of them.
fn decoded(message: &[u8]) -> Vec<u8> {
    let at = message.windows(4).position(|w| w == b"\r\n\r\n").expect("a header section");
    let (head, body) = (String::from_utf8_lossy(&message[..at]), &message[at + 4..]);
    if head.contains("Encoding: base64") {
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let values = body.iter().filter_map(|b| alphabet.iter().position(|a| a == b));
        let bits: Vec<u8> = values.flat_map(|v| (0..6).rev().map(move |bit| (v >> bit & 1) as u8)).collect();
        return bits.chunks_exact(8).map(|byte| byte.iter().fold(0, |all, bit| all << 1 | bit)).collect();
    }
    if !head.contains("Encoding: quoted-printable") {
        return body.to_vec();
    }
    let (mut out, mut rest) = (Vec::new(), body);
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match (first, rest.get(..2)) {
            (b'=', Some(b"\r\n")) => rest = &rest[2..],
            (b'=', Some(hex)) => {
                out.push(u8::from_str_radix(&String::from_utf8_lossy(hex), 16).expect("hex"));
                rest = &rest[2..];
            }
            _ => out.push(*first),
        }
    }
    out
}

/// `mailweir sink` takes octets, and shows what it got.
#[test]
fn the_sink_takes_octets() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let dump = dir.subdir("dump");
    let listen = port.at(2).to_string();
    let mut sink = std::process::Command::new(MAILWEIR)
        .args(["sink", "--listen", &listen, "--dump", &dump.display().to_string()])
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("a sink");
    wait_for("the sink", SOON, || std::net::TcpStream::connect(port.at(2)).ok());
    let daemon = Setup::new(&dir).via("sink", "octets.test", port.at(2), LIMITS).with(RETRY).start();
    let content = with_image("dumped", &noise(300_000));
    send_octets(&mut daemon.client(), "<s@sender.test>", &["<x@octets.test>"], &[&content]);
    daemon.wait_queue_empty(SOON);
    let got = std::fs::read(dump.join("00000000.eml")).or_else(|_| std::fs::read(dump.join("00000001.eml")));
    assert_same_bytes("dumped", split_received(&got.expect("a file")).1, &content);
    let mut client = Client::connect(port.at(2));
    client.command(250, "MAIL FROM:<s@sender.test> BODY=BINARYMIME");
    client.command(250, "RCPT TO:<x@octets.test>");
    client.command(503, "DATA");
    sink.kill().expect("end the sink");
    sink.wait().expect("it has ended");
}
