//! One connection of the recording receiver.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{Answer, Ask, Connection, Received, Shared, lock};

/// Serves a connection to its end and records it.
pub(super) fn serve(shared: &Arc<Shared>, stream: TcpStream) {
    let open = shared.open.fetch_add(1, Ordering::SeqCst) + 1;
    shared.peak.fetch_max(open, Ordering::SeqCst);
    let number = {
        let mut record = lock(&shared.record);
        let opened = Instant::now();
        let from = stream.peer_addr().map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.ip());
        record.connections.push(Connection { from, opened, closed: None, transactions: 0, quit: false });
        record.connections.len() - 1
    };
    let session = Session::new(shared, &stream, number);
    if let Ok(mut session) = session {
        // An error is the end of the connection: the daemon may be killed at any time.
        let _ = session.run(open);
    }
    lock(&shared.record).connections[number].closed = Some(Instant::now());
    shared.open.fetch_sub(1, Ordering::SeqCst);
}

struct Session<'a> {
    shared: &'a Shared,
    reader: BufReader<TcpStream>,
    writer: TcpStream,
    number: usize,
    helo: String,
    from: Option<(String, Instant)>,
    to: Vec<String>,
    bdat: Vec<u8>,
    /// Replies that wait until the client has nothing more in flight.
    pending: VecDeque<u8>,
}

impl<'a> Session<'a> {
    fn new(shared: &'a Shared, stream: &TcpStream, number: usize) -> io::Result<Session<'a>> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(600)))?;
        Ok(Session {
            shared,
            reader: BufReader::with_capacity(64 * 1024, stream.try_clone()?),
            writer: stream.try_clone()?,
            number,
            helo: String::new(),
            from: None,
            to: Vec::new(),
            bdat: Vec::new(),
            pending: VecDeque::new(),
        })
    }

    fn run(&mut self, open: usize) -> io::Result<()> {
        if open > self.shared.options.max_connections {
            return self.say("421 4.3.2 too many connections").and_then(|()| self.flush());
        }
        if !self.ask("CONNECT", "", "220 sink.test ESMTP")? {
            return self.flush();
        }
        loop {
            if self.reader.buffer().is_empty() {
                self.flush()?;
            }
            let mut line = Vec::new();
            self.reader.read_until(b'\n', &mut line)?;
            // Also a line that the end of the connection cuts off is the end.
            if !line.ends_with(b"\n") {
                return Ok(());
            }
            self.check_line("command", &line);
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            let (verb, argument) = text.split_once(' ').unwrap_or((&text, ""));
            let go_on = match verb.to_ascii_uppercase().as_str() {
                "EHLO" => {
                    self.helo = argument.to_owned();
                    let mut reply = String::from("250-sink.test");
                    let extensions = &self.shared.options.extensions;
                    for extension in extensions {
                        reply.push_str("\r\n250-");
                        reply.push_str(extension);
                    }
                    reply.push_str("\r\n250 HELP");
                    self.ask("EHLO", argument, &reply)?
                }
                "HELO" => {
                    self.helo = argument.to_owned();
                    self.ask("HELO", argument, "250 sink.test")?
                }
                "MAIL" => self.mail(argument)?,
                "RCPT" => self.rcpt(argument)?,
                "AUTH" => self.ask("AUTH", argument, "235 2.7.0 ok")?,
                "DATA" => self.data()?,
                "BDAT" => self.chunk(argument)?,
                "RSET" => {
                    self.reset();
                    self.say("250 2.0.0 ok")?;
                    true
                }
                "NOOP" => {
                    self.say("250 2.0.0 ok")?;
                    true
                }
                "QUIT" => {
                    lock(&self.shared.record).connections[self.number].quit = true;
                    self.say("221 2.0.0 bye")?;
                    false
                }
                _ => {
                    self.say("500 5.5.2 what?")?;
                    true
                }
            };
            if !go_on {
                return self.flush();
            }
        }
    }

    fn mail(&mut self, argument: &str) -> io::Result<bool> {
        let at = Instant::now();
        let path = after_colon(argument);
        self.check_parameters(&path);
        lock(&self.shared.record).connections[self.number].transactions += 1;
        let before = self.pending.len();
        let go_on = self.ask("MAIL", &path, "250 2.1.0 ok")?;
        if self.positive(before) {
            self.from = Some((path, at));
        }
        Ok(go_on)
    }

    fn rcpt(&mut self, argument: &str) -> io::Result<bool> {
        let path = after_colon(argument);
        self.check_parameters(&path);
        if self.from.is_none() {
            self.say("503 5.5.1 MAIL first")?;
            return Ok(true);
        }
        let before = self.pending.len();
        let go_on = self.ask("RCPT", &path, "250 2.1.5 ok")?;
        if self.positive(before) {
            self.to.push(path);
        }
        Ok(go_on)
    }

    fn data(&mut self) -> io::Result<bool> {
        if self.to.is_empty() {
            self.say("554 5.5.1 no valid recipients")?;
            return Ok(true);
        }
        let before = self.pending.len();
        if !self.ask("DATA", "", "354 go ahead")? {
            return Ok(false);
        }
        if self.pending.get(before) != Some(&b'3') {
            return Ok(true);
        }
        if self.takes_octets() {
            self.violation("DATA behind BODY=BINARYMIME".into());
        }
        self.flush()?;
        let mut content = Vec::new();
        let mut line = Vec::new();
        loop {
            line.clear();
            self.reader.read_until(b'\n', &mut line)?;
            if !line.ends_with(b"\n") {
                return Ok(false);
            }
            // Only CRLF.CRLF ends a message; a bare LF before the dot is a violation of its own.
            if line == b".\r\n" && (content.is_empty() || content.ends_with(b"\r\n")) {
                break;
            }
            self.check_line("content", &line);
            content.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
        }
        self.complete(content)
    }

    fn chunk(&mut self, argument: &str) -> io::Result<bool> {
        let mut words = argument.split(' ');
        let size: u64 = words.next().and_then(|n| n.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
        let last = words.next().is_some_and(|w| w.eq_ignore_ascii_case("LAST"));
        let read = (&mut self.reader).take(size).read_to_end(&mut self.bdat)?;
        if read as u64 != size {
            return Ok(false);
        }
        if !self.shared.options.extensions.contains(&"CHUNKING") {
            self.violation("BDAT without CHUNKING".into());
        }
        if self.to.is_empty() {
            self.bdat.clear();
            self.say("503 5.5.1 no valid recipients")?;
            return Ok(true);
        }
        if !last {
            self.say("250 2.0.0 ok")?;
            return Ok(true);
        }
        let content = std::mem::take(&mut self.bdat);
        if !self.takes_octets() {
            for line in content.split_inclusive(|b| *b == b'\n') {
                self.check_line("content", line);
            }
        }
        self.complete(content)
    }

    fn complete(&mut self, content: Vec<u8>) -> io::Result<bool> {
        let at = Instant::now();
        if !self.takes_octets() && !self.offers("8BITMIME") && !content.is_ascii() {
            self.violation("8-bit content without 8BITMIME".into());
        }
        let (from, began) = self.from.take().ok_or(io::ErrorKind::InvalidData)?;
        let to = std::mem::take(&mut self.to);
        let ask =
            Ask { verb: "DOT", argument: String::from_utf8_lossy(&content).into_owned(), connection: self.number, at };
        match (self.shared.options.script)(&ask) {
            Answer::Say(reply) if !reply.starts_with('2') => {
                self.say(&reply)?;
                return Ok(!reply.starts_with("421"));
            }
            Answer::Close => return Ok(false),
            Answer::After(gate) => gate.wait(),
            Answer::Say(_) | Answer::Yes => {}
        }
        // Recorded before the reply: what the daemon knows as delivered must be in the record.
        let mut record = lock(&self.shared.record);
        let transaction = record.connections[self.number].transactions;
        let (connection, helo) = (self.number, self.helo.clone());
        record.messages.push(Received { began, at, connection, transaction, helo, from, to, content: content.into() });
        drop(record);
        self.shared.news.notify_all();
        self.say("250 2.0.0 taken")?;
        Ok(true)
    }

    fn reset(&mut self) {
        self.from = None;
        self.to.clear();
        self.bdat.clear();
    }

    /// The message was announced as BINARYMIME (RFC 3030 §3).
    fn takes_octets(&self) -> bool {
        self.from.as_ref().is_some_and(|(path, _)| path.contains(" BODY=BINARYMIME"))
    }

    /// Asks the script; `false` closes the connection.
    fn ask(&mut self, verb: &'static str, argument: &str, yes: &str) -> io::Result<bool> {
        let ask = Ask { verb, argument: argument.to_owned(), connection: self.number, at: Instant::now() };
        match (self.shared.options.script)(&ask) {
            Answer::Yes => self.say(yes)?,
            Answer::Say(reply) => {
                self.say(&reply)?;
                return Ok(!reply.starts_with("421"));
            }
            Answer::After(gate) => {
                self.flush()?;
                gate.wait();
                self.say(yes)?;
            }
            Answer::Close => return Ok(false),
        }
        Ok(true)
    }

    /// Whether the reply that starts at `from` in the buffer is a 2yz.
    fn positive(&self, from: usize) -> bool {
        self.pending.get(from) == Some(&b'2')
    }

    fn say(&mut self, reply: &str) -> io::Result<()> {
        self.pending.extend(reply.as_bytes());
        self.pending.extend(b"\r\n");
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.write_all(self.pending.make_contiguous())?;
        self.pending.clear();
        Ok(())
    }

    fn offers(&self, keyword: &str) -> bool {
        self.shared.options.extensions.iter().any(|e| e.split(' ').next() == Some(keyword))
    }

    /// RFC 5321 §2.3.8 (CR and LF only together), §4.5.3.1.4 and .6 (lengths).
    fn check_line(&self, what: &str, line: &[u8]) {
        let start = String::from_utf8_lossy(&line[..line.len().min(60)]).into_owned();
        match line.strip_suffix(b"\r\n") {
            None => self.violation(format!("{what} line ends with a bare LF: {start:?}")),
            Some(inner) if inner.contains(&b'\r') => self.violation(format!("{what} line has a bare CR: {start:?}")),
            // The stuffed dot does not count.
            Some(inner) if inner.strip_prefix(b".").unwrap_or(inner).len() > 998 => {
                self.violation(format!("{what} line of {} bytes: {start:?}", inner.len()));
            }
            Some(_) => {}
        }
    }

    /// No parameter of an extension that was not offered (RFC 5321 §4.1.1.11), no 8-bit path
    /// without SMTPUTF8 (RFC 6531 §3.3).
    fn check_parameters(&self, path: &str) {
        let needs = [
            ("SIZE=", "SIZE"),
            ("BODY=8", "8BITMIME"),
            ("BODY=BINARYMIME", "BINARYMIME"),
            ("SMTPUTF8", "SMTPUTF8"),
            ("NOTIFY=", "DSN"),
            ("ORCPT=", "DSN"),
            ("RET=", "DSN"),
            ("ENVID=", "DSN"),
        ];
        for parameter in path.split(' ').skip(1) {
            for (prefix, keyword) in needs {
                if parameter.starts_with(prefix) && !self.offers(keyword) {
                    self.violation(format!("{parameter} without {keyword}"));
                }
            }
        }
        if !path.is_ascii() && !self.offers("SMTPUTF8") {
            self.violation(format!("8-bit path {path} without SMTPUTF8"));
        }
    }

    fn violation(&self, text: String) {
        let mut record = lock(&self.shared.record);
        if record.violations.len() < 100 {
            record.violations.push(text);
        }
    }
}

fn after_colon(argument: &str) -> String {
    argument.split_once(':').map_or(argument, |(_, path)| path).trim().to_owned()
}
