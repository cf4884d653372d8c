//! A raw SMTP client: says exactly what a test wants said, and reads whole replies.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A reply: its code, and all its lines as received without the line ends.
#[derive(Clone, Debug)]
pub struct Reply {
    pub code: u16,
    pub lines: Vec<String>,
}

impl Reply {
    /// All lines, separated by line feeds.
    pub fn text(&self) -> String {
        self.lines.join("\n")
    }

    /// The queue id in the reply to a message: the only word of 13 letters and digits.
    pub fn queue_id(&self) -> String {
        let text = self.text();
        let mut words = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| w.len() == 13);
        let id = words.next().unwrap_or_else(|| panic!("no queue id in `{text}`"));
        assert_eq!(words.next(), None, "more than one queue id in `{text}`");
        id.to_owned()
    }
}

/// One connection.
pub struct Client {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Client {
    /// Connects without reading the greeting.
    pub fn open(address: SocketAddr) -> std::io::Result<Client> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(10))?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        stream.set_write_timeout(Some(Duration::from_secs(60)))?;
        stream.set_nodelay(true)?;
        Ok(Client { reader: BufReader::new(stream.try_clone()?), stream })
    }

    /// The same from an address of loopback: reads the greeting and says EHLO.
    pub fn connect_from(source: [u8; 4], address: SocketAddr) -> Client {
        let open = || -> std::io::Result<Client> {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
            socket.bind(&SocketAddr::from((source, 0)).into())?;
            socket.connect_timeout(&address.into(), Duration::from_secs(10))?;
            let stream = TcpStream::from(socket);
            stream.set_read_timeout(Some(Duration::from_secs(60)))?;
            stream.set_nodelay(true)?;
            Ok(Client { reader: BufReader::new(stream.try_clone()?), stream })
        };
        let mut client = open().unwrap_or_else(|e| panic!("connect from {source:?} to {address}: {e}"));
        client.reply_of(220, "greeting");
        client.command(250, "EHLO client.test");
        client
    }

    /// Connects, reads the greeting and says EHLO.
    pub fn connect(address: SocketAddr) -> Client {
        let mut client = Client::open(address).unwrap_or_else(|e| panic!("connect to {address}: {e}"));
        client.reply_of(220, "greeting");
        client.command(250, "EHLO client.test");
        client
    }

    /// Writes bytes as they are.
    pub fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Reads one reply.
    pub fn read(&mut self) -> std::io::Result<Reply> {
        let mut lines = Vec::new();
        loop {
            let mut line = Vec::new();
            if self.reader.read_until(b'\n', &mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            let line = String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned();
            let code = line.get(..3).and_then(|c| c.parse().ok()).ok_or(std::io::ErrorKind::InvalidData)?;
            let last = line.as_bytes().get(3) != Some(&b'-');
            lines.push(line);
            if last {
                return Ok(Reply { code, lines });
            }
        }
    }

    /// Sends a command line and reads its reply.
    pub fn try_command(&mut self, line: &str) -> std::io::Result<Reply> {
        self.write(format!("{line}\r\n").as_bytes())?;
        self.read()
    }

    /// Reads a reply that must have this code.
    pub fn reply_of(&mut self, code: u16, to: &str) -> Reply {
        let reply = self.read().unwrap_or_else(|e| panic!("no reply to {to}: {e}"));
        assert_eq!(reply.code, code, "{to}: {}", reply.text());
        reply
    }

    /// Sends a command line whose reply must have this code.
    pub fn command(&mut self, code: u16, line: &str) -> Reply {
        let reply = self.try_command(line).unwrap_or_else(|e| panic!("{line}: {e}"));
        assert_eq!(reply.code, code, "{line}: {}", reply.text());
        reply
    }

    /// One whole transaction up to the final reply, whatever that is. `from` and `to` are what
    /// stands after the colon, with parameters (`<a@b.test> NOTIFY=NEVER`); `content` has CRLF line
    /// ends and is dot-stuffed here.
    pub fn try_send(&mut self, from: &str, to: &[&str], content: &[u8]) -> std::io::Result<Reply> {
        // Pipelined like a client in a hurry: MAIL, all RCPTs and DATA in one write.
        let mut batch = format!("MAIL FROM:{from}\r\n");
        for recipient in to {
            batch.push_str(&format!("RCPT TO:{recipient}\r\n"));
        }
        batch.push_str("DATA\r\n");
        self.write(batch.as_bytes())?;
        let mut refused = None;
        for _ in 0..to.len() + 1 {
            let reply = self.read()?;
            if reply.code != 250 {
                refused = Some(reply);
            }
        }
        let go = self.read()?;
        if go.code != 354 {
            return Ok(refused.unwrap_or(go));
        }
        self.write(&stuffed(content))?;
        self.read()
    }

    /// Sends a message that must be accepted; returns its queue id.
    pub fn send(&mut self, from: &str, to: &[&str], content: &[u8]) -> String {
        let reply = self.try_send(from, to, content).unwrap_or_else(|e| panic!("send to {to:?}: {e}"));
        assert_eq!(reply.code, 250, "{}", reply.text());
        reply.queue_id()
    }
}

/// Content as it goes over the wire: leading dots doubled, and the final dot line (RFC 5321 §4.5.2).
pub fn stuffed(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + 64);
    for line in content.split_inclusive(|b| *b == b'\n') {
        if line.starts_with(b".") {
            out.push(b'.');
        }
        out.extend_from_slice(line);
    }
    if !out.is_empty() && !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b".\r\n");
    out
}
