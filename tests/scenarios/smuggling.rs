//! The sequences of `smuggling` through the real program: three listeners (the native engine, mailin, one for devices
//! that know LF only), the queue, and hosts by DATA, without PIPELINING, and by BDAT. What each host got is read by
//! everybody who is lenient.
//!
//! Everyday: each sequence of up to three, and every 24th of up to six. `MAILWEIR_SMUGGLING=full`: each.

use crate::support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use support::client::Client;
use support::daemon::Setup;
use support::smuggling::{Ends, LENIENT, Recorder, commands, sendmail, sequences, strict};
use support::{Port, SOON, TestDir, wait_for};

const LIMITS: &str = "connections = 4\nrate = []";

/// Its recipient is of the first host only.
const SECOND: &[u8] = b"MAIL FROM:<evil@evil.test>\r\nRCPT TO:<x@data.test>\r\nDATA\r\nSubject: second\r\n\r\nx";

const EVERYBODY: [&str; 3] = ["x@data.test", "x@serial.test", "x@bdat.test"];

/// A host that keeps what each connection brought.
#[derive(Clone, Default)]
struct Host(Arc<Mutex<Vec<Arc<Mutex<Recorder>>>>>);

impl Host {
    fn start(address: SocketAddr, offers: &'static [&'static str]) -> Host {
        let host = Host::default();
        let listener = TcpListener::bind(address).expect("a port");
        let all = host.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let record = Arc::new(Mutex::new(Recorder::new(offers)));
                all.0.lock().expect("no panic").push(record.clone());
                // An error is the end of the connection.
                thread::spawn(move || Host::serve(stream, &record));
            }
        });
        host
    }

    fn serve(mut stream: TcpStream, record: &Mutex<Recorder>) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        stream.write_all(b"220 recorder.test\r\n")?;
        let mut buffer = vec![0; 1 << 16];
        loop {
            match stream.read(&mut buffer)? {
                0 => return Ok(()),
                n => {
                    let said = record.lock().expect("no panic").feed(&buffer[..n]);
                    stream.write_all(&said)?;
                }
            }
        }
    }

    fn connections(&self) -> Vec<Arc<Mutex<Recorder>>> {
        self.0.lock().expect("no panic").clone()
    }

    fn messages(&self) -> usize {
        self.connections().iter().map(|record| record.lock().expect("no panic").messages).sum()
    }

    /// Everybody reads what the one reads who goes by the letter; how many messages are of that sender.
    fn read_by_everybody(&self, sender: &str) -> usize {
        let mut of_sender = 0;
        for connection in self.connections() {
            let record = connection.lock().expect("no panic");
            let expected = commands(&record.raw, strict);
            for (reader, ends) in LENIENT {
                assert_eq!(commands(&record.raw, ends), expected, "{reader} reads another message");
            }
            of_sender += expected.iter().filter(|line| line.starts_with(&format!("MAIL FROM:<{sender}>"))).count();
        }
        of_sender
    }
}

/// One message, cut in the sequence; how many were taken of those that the stream has by these ends.
fn send(address: SocketAddr, sequence: &[u8], cut: usize, pipelined: bool, ends: Ends) -> Vec<String> {
    let mut client = Client::open(address).expect("a connection");
    client.reply_of(220, "greeting");
    let mut said = b"EHLO client.test\r\nMAIL FROM:<first@client.test>\r\n".to_vec();
    EVERYBODY.iter().for_each(|to| said.extend_from_slice(format!("RCPT TO:<{to}>\r\n").as_bytes()));
    said.extend_from_slice(b"DATA\r\n");
    if pipelined {
        client.write(&said).expect("a session");
        for n in 0..5 {
            client.reply_of(250, &format!("command {n}"));
        }
        client.reply_of(354, "DATA");
    } else {
        for line in said.split_inclusive(|byte| *byte == b'\n') {
            client.write(line).expect("a session");
            let code = if line == b"DATA\r\n" { 354 } else { 250 };
            client.reply_of(code, &String::from_utf8_lossy(line));
        }
    }
    let start = [b"Subject: s\r\n\r\nx".as_slice(), &sequence[..cut]].concat();
    let end = [&sequence[cut..], SECOND, sequence, b"\r\n.\r\nQUIT\r\n"].concat();
    // A session that has ended is the answer to some of them.
    let _ = client.write(&start).and_then(|()| client.write(&end));
    let mut taken = 0;
    while let Ok(reply) = client.read() {
        taken += usize::from(reply.text().contains("queued as"));
    }
    let stream = [said, start, end].concat();
    let lines = commands(&stream, ends);
    let mut senders: Vec<String> =
        lines.iter().filter_map(|line| line.strip_prefix("MAIL FROM:")).map(str::to_owned).collect();
    assert!(taken <= senders.len(), "{}: more were taken than were sent", sequence.escape_ascii());
    senders.truncate(taken);
    senders
}

#[test]
fn no_sequence_leaves_the_relay_as_a_second_message() {
    let full = std::env::var("MAILWEIR_SMUGGLING").is_ok_and(|value| value == "full");
    let (dir, port, doors) = (TestDir::new(), Port::reserve(), Port::reserve());
    let hosts = [
        Host::start(port.at(2), &["PIPELINING", "8BITMIME"]),
        Host::start(port.at(3), &["8BITMIME"]),
        Host::start(port.at(4), &["PIPELINING", "CHUNKING", "8BITMIME"]),
    ];
    let daemon = Setup::new(&dir)
        .via("data", "data.test", port.at(2), LIMITS)
        .via("serial", "serial.test", port.at(3), LIMITS)
        .via("bdat", "bdat.test", port.at(4), LIMITS)
        .with(&format!("[[listener]]\naddress = \"{}\"\nengine = \"mailin\"\n", doors.at(2)))
        .with(&format!("[[listener]]\naddress = \"{}\"\nlf_only = true\n", doors.at(3)))
        .start();
    let listeners: [(SocketAddr, Ends, bool); 3] =
        [(daemon.smtp, strict, true), (doors.at(2), strict, false), (doors.at(3), sendmail, true)];
    let (mut first, mut evil, mut refused) = (0, 0, 0);
    for (n, sequence) in sequences(6).iter().enumerate() {
        if !full && sequence.len() > 3 && n % 24 != 0 {
            continue;
        }
        for (door, (address, ends, pipelines)) in listeners.iter().enumerate() {
            // Each with another cut, so that all are had.
            let cut = (n / 24 + n + door) % (sequence.len() + 1);
            let senders = send(*address, sequence, cut, *pipelines && n % 2 == 0, *ends);
            refused += usize::from(senders.is_empty());
            for sender in senders {
                match sender.as_str() {
                    "<first@client.test>" => first += 1,
                    "<evil@evil.test>" => evil += 1,
                    other => panic!("{}: nobody sent as {other}", sequence.escape_ascii()),
                }
            }
        }
    }
    assert!(first > 2 * refused && evil > 0, "{first} taken, {evil} that end by the letter, {refused} refused");
    let expected = [first + evil, first, first];
    for (host, expected) in hosts.iter().zip(expected) {
        wait_for("what was taken", 6 * SOON, || (host.messages() >= expected).then_some(()));
    }
    daemon.wait_queue_empty(SOON);
    for (n, (host, expected)) in hosts.iter().zip(expected).enumerate() {
        assert_eq!(host.messages(), expected);
        assert_eq!(host.read_by_everybody("first@client.test"), first);
        assert_eq!(host.read_by_everybody("evil@evil.test"), if n == 0 { evil } else { 0 });
    }
    println!("{first} messages, {evil} second ones that end by the letter, {refused} refused");
}
