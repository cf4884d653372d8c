//! No sequence of CR, LF, NUL and dot around the end of a message makes two of it: not when it comes in, however it is
//! cut, by DATA and BDAT, and not to any server that reads more leniently when it goes out.
//!
//! Everyday: each sequence of up to six once, those of up to three in every way. `MAILWEIR_SMUGGLING=full`: each in
//! every way. The same through the real program: `scenarios/smuggling.rs`.

#[path = "upstream/common.rs"]
#[allow(dead_code)]
mod common;
#[path = "upstream/server.rs"]
#[allow(dead_code)]
mod server;
#[path = "support/smuggling.rs"]
mod smuggling;
#[path = "support/listener.rs"]
mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use common::{Mail, fates, provider, setup};
use mailweir::clock::Clock;
use mailweir::config::Listener;
use mailweir::deliver::Connection;
use mailweir::listener::Server;
use smuggling::{Ends, LENIENT, Recorder, commands, sequences, strict};
use support::{HOSTNAME, Inbox, Mood};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::watch;

const MOST: usize = 6;

/// What might be a second message, if what stands before it ended one.
const SECOND: &[u8] = b"MAIL FROM:<evil@evil.test>\r\nRCPT TO:<x@y.test>\r\nDATA\r\nSubject: second\r\n\r\nx";

/// How a client sends its message.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Way {
    /// Commands one by one, then the data.
    Data,
    /// All in one go, but for the cut.
    DataPipelined,
    Bdat,
    BdatPipelined,
}

const WAYS: [Way; 4] = [Way::Data, Way::DataPipelined, Way::Bdat, Way::BdatPipelined];

/// The parts of what a client says; behind each of the first `steps` it waits for a reply.
fn spoken(way: Way, sequence: &[u8], cut: usize) -> (usize, Vec<Vec<u8>>) {
    let start = [b"Subject: s\r\n\r\nx".as_slice(), &sequence[..cut]].concat();
    let end = [&sequence[cut..], SECOND, sequence].concat();
    let mut steps: Vec<Vec<u8>> = vec![
        b"EHLO client.test\r\n".to_vec(),
        b"MAIL FROM:<first@client.test>\r\n".to_vec(),
        b"RCPT TO:<x@y.test>\r\n".to_vec(),
    ];
    match way {
        Way::Data | Way::DataPipelined => {
            steps.push(b"DATA\r\n".to_vec());
            steps.push(start);
            // If the sequence ends the data by itself, these are commands that are none.
            steps.push([&end, b"\r\n.\r\nQUIT\r\n".as_slice()].concat());
        }
        Way::Bdat | Way::BdatPipelined => {
            steps.push([format!("BDAT {}\r\n", start.len()).as_bytes(), &start].concat());
            steps.push([format!("BDAT {} LAST\r\n", end.len()).as_bytes(), &end].concat());
            steps.push(b"QUIT\r\n".to_vec());
        }
    }
    match way {
        Way::Data => (4, steps),
        Way::Bdat => (5, steps),
        // One write up to the cut, and one behind it.
        Way::DataPipelined => (0, vec![steps[..5].concat(), steps[5].clone()]),
        Way::BdatPipelined => (0, vec![steps[..4].concat(), steps[4..].concat()]),
    }
}

/// On a listener for devices LF is as good as CRLF, on either side of the dot.
fn of_devices(data: &[u8]) -> Option<usize> {
    smuggling::sendmail(data)
}

/// The senders of the messages that a server finds in it.
fn senders(stream: &[u8], ends: Ends) -> Vec<String> {
    let lines = commands(stream, ends);
    lines.iter().filter_map(|l| l.strip_prefix("MAIL FROM:")).map(str::to_owned).collect()
}

/// A listener in memory.
struct Door {
    server: Arc<Server>,
    inbox: Arc<Inbox>,
    ends: Ends,
}

impl Door {
    fn new(lf_only: bool) -> Door {
        let listener = Listener { lf_only, ..support::listener() };
        let inbox = Inbox::new(Mood::Works, Clock::System);
        let server = Server::bind(Arc::new(listener), HOSTNAME, inbox.clone()).expect("a listener");
        Door { server: Arc::new(server), inbox, ends: if lf_only { of_devices } else { strict } }
    }

    /// What was stored of a client that says this.
    async fn bodies(&self, way: Way, sequence: &[u8], cut: usize) -> Vec<Vec<u8>> {
        let (mut client, inner) = tokio::io::duplex(1 << 16);
        let (_stop, stopped) = watch::channel(false);
        let server = self.server.clone();
        let session = tokio::spawn(async move {
            server.serve(inner, [127, 0, 0, 1].into(), stopped, Duration::from_secs(1)).await;
        });
        reply(&mut client).await;
        let (waits, steps) = spoken(way, sequence, cut);
        for (n, step) in steps.iter().enumerate() {
            client.write_all(step).await.expect("room");
            if n < waits {
                reply(&mut client).await;
            } else {
                for _ in 0..4 {
                    // The session runs on this thread: it takes what there is.
                    tokio::task::yield_now().await;
                }
            }
        }
        client.shutdown().await.expect("a session");
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await.expect("replies");
        session.await.expect("no panic");
        let stored = std::mem::take(&mut *self.inbox.memory.stored.lock());
        let got: Vec<String> = stored.iter().map(|s| format!("<{}>", s.message.envelope.sender())).collect();
        let expected = senders(&steps.concat(), self.ends);
        assert_eq!(got, expected, "{way:?} {} cut at {cut}", sequence.escape_ascii());
        stored.into_iter().map(|s| s.body).collect()
    }
}

/// Reads one reply.
async fn reply(client: &mut DuplexStream) {
    let mut got = Vec::new();
    loop {
        assert_ne!(client.read_buf(&mut got).await.expect("a reply"), 0, "closed after {}", got.escape_ascii());
        let last = got.strip_suffix(b"\r\n").and_then(|g| g.rsplit(|b| *b == b'\n').next());
        if last.is_some_and(|line| line.get(3) == Some(&b' ')) {
            return;
        }
    }
}

const OFFERS: [&[&str]; 4] = [&[], &["PIPELINING"], &["CHUNKING"], &["PIPELINING", "CHUNKING"]];

/// A host that keeps all that it gets, and answers.
async fn host(mut io: DuplexStream, offers: &'static [&'static str], keep: Arc<parking_lot::Mutex<Recorder>>) {
    *keep.lock() = Recorder::new(offers);
    let mut said = b"220 recorder.test\r\n".to_vec();
    let mut buffer = vec![0; 1 << 16];
    loop {
        if io.write_all(&said).await.is_err() {
            return;
        }
        match io.read(&mut buffer).await {
            Ok(n) if n > 0 => said = keep.lock().feed(&buffer[..n]),
            _ => return,
        }
    }
}

/// Sends each of these to a host that offers this, and has everybody read what left.
async fn send_all(bodies: &BTreeMap<Vec<u8>, String>, offers: &'static [&'static str]) {
    let (near, far) = tokio::io::duplex(1 << 16);
    let record = Arc::new(parking_lot::Mutex::new(Recorder::new(offers)));
    tokio::spawn(host(far, offers, record.clone()));
    let provider = provider();
    let mut connection = Connection::establish(near, setup(&provider, "127.0.0.1")).await.expect("a session");
    for (n, (body, of)) in bodies.iter().enumerate() {
        let from = record.lock().raw.len();
        let report = Mail::new(body.clone()).send(&mut connection, &["x@y.test"]).await;
        assert_eq!(fates(&report), ["end of data: 250 2.0.0 taken"], "{of}");
        let record = record.lock();
        assert_eq!(record.messages, n + 1, "{of}: the host has one message more");
        let left = &record.raw[from..];
        let by_the_letter = commands(left, strict);
        for (reader, ends) in LENIENT {
            assert_eq!(commands(left, ends), by_the_letter, "{reader} reads another message in {of}");
        }
        assert!(by_the_letter.len() <= 4 && !by_the_letter.concat().contains("evil"), "{of}: {by_the_letter:?}");
    }
    connection.quit().await;
}

#[tokio::test]
async fn no_sequence_is_a_second_message_to_a_lenient_server() {
    let full = std::env::var("MAILWEIR_SMUGGLING").is_ok_and(|value| value == "full");
    let doors = [Door::new(false), Door::new(true)];
    // What was stored, and what it came of.
    let mut bodies = BTreeMap::new();
    let mut sessions = 0;
    for (n, sequence) in sequences(MOST).iter().enumerate() {
        let all: Vec<(usize, Way, &Door)> = (0..=sequence.len())
            .flat_map(|cut| WAYS.iter().map(move |way| (cut, *way)))
            .flat_map(|(cut, way)| doors.iter().map(move |door| (cut, way, door)))
            .collect();
        // One way for each, another one for the next: 7 has no divisor in common with the number of ways.
        let one = n * 7 % all.len();
        let chosen = if full || sequence.len() <= 3 { &all[..] } else { &all[one..=one] };
        for (cut, way, door) in chosen {
            sessions += 1;
            for body in door.bodies(*way, sequence, *cut).await {
                // Without the fields above it, which are never twice the same.
                let at = body.windows(10).position(|w| w == b"Subject: s").expect("a subject");
                let of = || format!("{way:?} {} cut at {cut}", sequence.escape_ascii());
                bodies.entry(body[at..].to_vec()).or_insert_with(of);
            }
        }
    }
    assert!(sessions >= 7_000, "only {sessions} sessions");
    assert!(bodies.len() > 500, "only {} messages that differ", bodies.len());
    for offers in OFFERS {
        send_all(&bodies, offers).await;
    }
    println!("{sessions} sessions, {} messages that differ, sent in {} ways", bodies.len(), OFFERS.len());
}

/// The readers are not blind: what made them known makes two messages of one, to just those who were told of it.
#[test]
fn the_lenient_readers_find_what_they_are_known_for() {
    for (sequence, expected) in [
        (b"\r\n.\r\n".as_slice(), [true; 5]),
        (b"\n.\n", [true; 5]),
        (b"\n.\r\n", [true; 5]),
        (b"\r\n.\n", [true; 5]),
        (b"\r\n.\r\r\n", [true, false, false, false, true]),
        (b"\r\n.\0\r\n", [false, false, false, true, false]),
        (b"\r.\r", [false, false, false, false, true]),
        (b"\r.\r\n", [false, false, false, false, true]),
        (b"\r\n..\r\n", [false; 5]),
        (b"\0\r\n", [false; 5]),
    ] {
        let stream = [b"DATA\r\nx".as_slice(), sequence, b"QUIT\r\n"].concat();
        let found = LENIENT.map(|(_, ends)| commands(&stream, ends).last().is_some_and(|line| line == "QUIT"));
        assert_eq!(found, expected, "{}", sequence.escape_ascii());
    }
    assert_eq!(commands(b"DATA\r\nx\n.\nQUIT\r\n.\r\nRSET\r\n", strict), ["DATA", "RSET"]);
    assert_eq!(commands(b"BDAT 8 LAST\r\nx\n.\nQUITRSET\r\n", strict), ["BDAT 8 LAST", "RSET"]);
}
