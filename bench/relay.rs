//! The whole relay, end to end: `cargo bench --bench relay [-- SECONDS]`. Needs nothing else.
//!
//! Starts the mailweir program with a queue in a temporary directory, a load generator and a
//! counting receiver on loopback, all on this machine, and prints: messages a second from the first
//! to the last receipt (2 KB and 20 KB; sessions kept, or one for each message), and on an idle relay
//! the time from the final dot, and from the `250`, to the receipt. Every `250` is synced to disk.
//! Ratios between runs on one machine mean something; single figures depend on the machine.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const SESSIONS: usize = 20;
const CONNECTIONS: usize = 50;

/// What the receiver saw.
#[derive(Default)]
struct Seen {
    messages: AtomicU64,
    /// Nanoseconds since the start of the program.
    last: AtomicU64,
}

fn main() -> io::Result<()> {
    let seconds = std::env::args().filter_map(|a| a.parse::<u64>().ok()).next().unwrap_or(5);
    let start = Instant::now();
    let seen = Arc::new(Seen::default());
    let sink = sink(seen.clone(), start)?;
    let directory = tempfile::tempdir()?;
    let (mut relay, smtp) = relay(directory.path(), sink)?;

    println!("{:<34} {:>10} {:>12}", "case", "messages", "per second");
    for (name, size, kept) in [
        ("2 KB, sessions kept", 2048, true),
        ("2 KB, a session each", 2048, false),
        ("20 KB, sessions kept", 20_480, true),
        ("20 KB, a session each", 20_480, false),
    ] {
        let before = seen.messages.load(Ordering::SeqCst);
        let began = start.elapsed();
        let sent = load(smtp, size, kept, Duration::from_secs(seconds))?;
        wait(&seen, before + sent)?;
        let took = Duration::from_nanos(seen.last.load(Ordering::SeqCst)).saturating_sub(began);
        println!("{name:<34} {sent:>10} {:>12.0}", sent as f64 / took.as_secs_f64());
    }

    let (mut from_dot, mut from_reply) = (Vec::new(), Vec::new());
    for i in 0..105u64 {
        thread::sleep(Duration::from_millis(20));
        let before = seen.messages.load(Ordering::SeqCst);
        let mut client = Client::open(smtp)?;
        client.envelope()?;
        let dot = start.elapsed();
        client.say(&body(2048))?;
        let reply = start.elapsed();
        wait(&seen, before + 1)?;
        let at = Duration::from_nanos(seen.last.load(Ordering::SeqCst));
        // The first ones open the connection and warm caches up.
        if i >= 5 {
            from_dot.push(at.saturating_sub(dot));
            from_reply.push(at.saturating_sub(reply));
        }
        client.say("QUIT\r\n")?;
    }
    for (name, times) in
        [("idle: final dot to receipt, ms", &mut from_dot), ("idle: 250 to receipt, ms", &mut from_reply)]
    {
        times.sort();
        let ms = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1000.0;
        println!("{name:<34} median {:.2}, 90 % {:.2}, most {:.2}", ms(0.5), ms(0.9), ms(1.0));
    }
    relay.kill()?;
    relay.wait().map(drop)
}

/// Starts mailweir; the address it listens on is free when this looks and is taken at once.
fn relay(directory: &std::path::Path, sink: SocketAddr) -> io::Result<(Child, SocketAddr)> {
    let smtp = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let config = directory.join("config.toml");
    let text = format!(
        "hostname = \"relay.example\"\n[[listener]]\naddress = \"{smtp}\"\n\
         [queue]\nstore = \"sqlite:{}\"\n\
         [provider.sink]\nrelay = \"{sink}\"\ntls = \"off\"\nconnections = {CONNECTIONS}\n\
         messages_per_connection = 100000\nrate = []\n[[route]]\nrecipient = \"*\"\nvia = \"sink\"\n",
        directory.join("queue.db").display()
    );
    std::fs::write(&config, text)?;
    let log = std::fs::File::create(directory.join("log"))?;
    let child = Command::new(env!("CARGO_BIN_EXE_mailweir"))
        .args(["run", "--config"])
        .arg(&config)
        .stdin(Stdio::null())
        .stderr(log)
        .spawn()?;
    for _ in 0..500 {
        if TcpStream::connect(smtp).is_ok() {
            return Ok((child, smtp));
        }
        thread::sleep(Duration::from_millis(10));
    }
    Err(io::Error::other("mailweir did not start; see the log"))
}

fn wait(seen: &Seen, messages: u64) -> io::Result<()> {
    let began = Instant::now();
    while seen.messages.load(Ordering::SeqCst) < messages {
        if began.elapsed() > Duration::from_secs(60) {
            return Err(io::Error::other("not everything arrived within a minute"));
        }
        thread::sleep(Duration::from_micros(100));
    }
    Ok(())
}

fn body(size: usize) -> String {
    let line = format!("{}\r\n", "x".repeat(70));
    format!("Subject: bench\r\n\r\n{}.\r\n", line.repeat(size / line.len()))
}

/// Sessions that send as fast as they are answered; how many messages were acknowledged.
fn load(smtp: SocketAddr, size: usize, kept: bool, time: Duration) -> io::Result<u64> {
    let until = Instant::now() + time;
    let workers: Vec<_> = (0..SESSIONS)
        .map(|_| {
            thread::spawn(move || -> io::Result<u64> {
                let body = body(size);
                let mut sent = 0;
                while Instant::now() < until {
                    let mut client = Client::open(smtp)?;
                    loop {
                        client.envelope()?;
                        client.say(&body)?;
                        sent += 1;
                        if !kept || Instant::now() >= until {
                            break;
                        }
                    }
                    client.say("QUIT\r\n")?;
                }
                Ok(sent)
            })
        })
        .collect();
    let mut sent = 0;
    for worker in workers {
        sent += worker.join().map_err(|_| io::Error::other("a session panicked"))??;
    }
    Ok(sent)
}

struct Client {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Client {
    fn open(to: SocketAddr) -> io::Result<Client> {
        let stream = TcpStream::connect(to)?;
        stream.set_nodelay(true)?;
        let mut client = Client { reader: BufReader::new(stream.try_clone()?), stream };
        client.reply()?;
        client.say("EHLO bench.example\r\n")?;
        Ok(client)
    }

    fn envelope(&mut self) -> io::Result<()> {
        self.say("MAIL FROM:<from@bench.example>\r\n")?;
        self.say("RCPT TO:<to@there.example>\r\n")?;
        self.say("DATA\r\n")
    }

    fn say(&mut self, text: &str) -> io::Result<()> {
        self.stream.write_all(text.as_bytes())?;
        self.reply()
    }

    fn reply(&mut self) -> io::Result<()> {
        let mut line = String::new();
        loop {
            line.clear();
            if self.reader.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if line.as_bytes().get(3) != Some(&b'-') {
                break;
            }
        }
        if line.starts_with(['2', '3']) { Ok(()) } else { Err(io::Error::other(line)) }
    }
}

/// A receiver that counts: BDAT and DATA, pipelined or not.
fn sink(seen: Arc<Seen>, start: Instant) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let seen = seen.clone();
            thread::spawn(move || serve(stream, &seen, start));
        }
    });
    Ok(address)
}

fn serve(stream: TcpStream, seen: &Seen, start: Instant) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut out = stream.try_clone()?;
    let mut input = BufReader::with_capacity(64 * 1024, stream);
    out.write_all(b"220 sink.example ESMTP\r\n")?;
    let (mut line, mut replies, mut discard) = (Vec::new(), Vec::new(), Vec::new());
    let received = || {
        seen.last.fetch_max(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX), Ordering::SeqCst);
        seen.messages.fetch_add(1, Ordering::SeqCst);
    };
    loop {
        if input.buffer().is_empty() && !replies.is_empty() {
            out.write_all(&replies)?;
            replies.clear();
        }
        line.clear();
        if input.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&line).to_ascii_uppercase();
        let mut words = text.split_whitespace();
        match words.next() {
            Some("EHLO") => {
                replies.extend_from_slice(b"250-sink.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 CHUNKING\r\n")
            }
            Some("BDAT") => {
                let size = words.next().and_then(|n| n.parse().ok()).unwrap_or(0);
                discard.clear();
                input.by_ref().take(size).read_to_end(&mut discard)?;
                received();
                replies.extend_from_slice(b"250 2.0.0 Ok\r\n");
            }
            Some("DATA") => {
                out.write_all(&replies)?;
                replies.clear();
                out.write_all(b"354 go on\r\n")?;
                while line != b".\r\n" {
                    line.clear();
                    if input.read_until(b'\n', &mut line)? == 0 {
                        return Ok(());
                    }
                }
                received();
                replies.extend_from_slice(b"250 2.0.0 Ok\r\n");
            }
            Some("QUIT") => return out.write_all(b"221 2.0.0 Bye\r\n"),
            _ => replies.extend_from_slice(b"250 2.0.0 Ok\r\n"),
        }
    }
}
