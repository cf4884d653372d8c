//! A connection to the relay: by TCP, or by a Unix socket, which lettre does not speak to.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use lettre::transport::smtp::Error;
use lettre::transport::smtp::client::SmtpConnection;
use lettre::transport::smtp::extension::{ClientId, Extension};

use crate::config::ListenAddress;

/// Longest wait for the relay to answer: it may be writing a large message to a busy disk.
const PATIENCE: Duration = Duration::from_secs(300);
/// Longest reply, in bytes.
const MAX_REPLY: u64 = 64 * 1024;

/// Why a command was not taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Fault {
    /// The code of the reply; `None`: there was none.
    pub code: Option<u16>,
    /// The reply or the error, on one line.
    pub text: String,
}

impl Fault {
    pub(super) fn is_permanent(&self) -> bool {
        self.code.is_some_and(|code| code >= 500)
    }

    /// It takes no more recipients at once.
    pub(super) fn is_full(&self) -> bool {
        self.code == Some(452)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        let code = error.status().map(u16::from);
        // A reply as it came, and of others what the system says, without the library's names of their kinds.
        let text = match (std::error::Error::source(&error), code) {
            (Some(said), Some(code)) => format!("{code} {}", text(said)),
            (Some(cause), None) => text(cause),
            (None, _) => text(&error),
        };
        Fault { code, text }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        Fault { code: None, text: error.to_string() }
    }
}

/// See the module.
pub(super) enum Connection {
    Tcp(Box<SmtpConnection>),
    Unix(Plain),
}

impl Connection {
    /// Connects and says EHLO.
    pub(super) fn open(address: &ListenAddress, hostname: &str) -> Result<Connection, Fault> {
        if let Some(path) = address.path() {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            return Plain::greet(stream, hostname).map(Connection::Unix);
        }
        let addresses: Vec<_> = address.sockets().collect();
        let name = ClientId::Domain(hostname.to_owned());
        let connected = SmtpConnection::connect(&addresses[..], Some(PATIENCE), &name, None, None)?;
        Ok(Connection::Tcp(Box::new(connected)))
    }

    /// Says a command with its line end.
    pub(super) fn command(&mut self, command: impl fmt::Display) -> Result<(), Fault> {
        match self {
            Connection::Tcp(connection) => Ok(connection.command(command).map(|_| ())?),
            Connection::Unix(plain) => plain.command(command, 200).map(|_| ()),
        }
    }

    /// DATA, which is answered before the message follows.
    pub(super) fn data(&mut self) -> Result<(), Fault> {
        match self {
            Connection::Tcp(connection) => Ok(connection.command("DATA\r\n").map(|_| ())?),
            Connection::Unix(plain) => plain.command("DATA\r\n", 300).map(|_| ()),
        }
    }

    /// The message, which ends in CRLF, and the end of data; the text of the reply.
    pub(super) fn message(&mut self, content: &[u8]) -> Result<String, Fault> {
        match self {
            Connection::Tcp(connection) => {
                // The final line end is sent with the dot that ends the message.
                let body = content.strip_suffix(b"\r\n").unwrap_or(content);
                Ok(connection.message(body)?.message().collect::<Vec<_>>().join(" "))
            }
            Connection::Unix(plain) => plain.message(content),
        }
    }

    /// It offers 8BITMIME.
    pub(super) fn takes_eight_bit(&self) -> bool {
        match self {
            Connection::Tcp(connection) => connection.server_info().supports_feature(Extension::EightBitMime),
            Connection::Unix(plain) => plain.eight_bit,
        }
    }

    /// Whatever becomes of the goodbye.
    pub(super) fn quit(mut self) {
        let _ = match &mut self {
            Connection::Tcp(connection) => connection.quit().map(|_| ()).map_err(Fault::from),
            Connection::Unix(plain) => plain.command("QUIT\r\n", 200).map(|_| ()),
        };
    }
}

/// A Unix socket.
pub(super) struct Plain {
    stream: BufReader<UnixStream>,
    eight_bit: bool,
}

impl Plain {
    fn greet(stream: UnixStream, hostname: &str) -> Result<Plain, Fault> {
        let mut plain = Plain { stream: BufReader::new(stream), eight_bit: false };
        plain.reply(200)?;
        let offered = plain.command(format_args!("EHLO {hostname}\r\n"), 200)?;
        plain.eight_bit = offered.iter().any(|line| line.eq_ignore_ascii_case("8BITMIME"));
        Ok(plain)
    }

    /// Says a command; its reply must be in the hundred that begins with `class`.
    fn command(&mut self, command: impl fmt::Display, class: u16) -> Result<Vec<String>, Fault> {
        self.stream.get_mut().write_all(command.to_string().as_bytes())?;
        self.reply(class)
    }

    fn message(&mut self, content: &[u8]) -> Result<String, Fault> {
        let mut stuffed = Vec::with_capacity(content.len() + content.len() / 64 + 5);
        for line in content.split_inclusive(|b| *b == b'\n') {
            if line.starts_with(b".") {
                stuffed.push(b'.');
            }
            stuffed.extend_from_slice(line);
        }
        if !content.is_empty() && !content.ends_with(b"\r\n") {
            stuffed.extend_from_slice(b"\r\n");
        }
        stuffed.extend_from_slice(b".\r\n");
        self.stream.get_mut().write_all(&stuffed)?;
        Ok(self.reply(200)?.join(" "))
    }

    /// The texts of a reply's lines.
    fn reply(&mut self, class: u16) -> Result<Vec<String>, Fault> {
        let mut lines = Vec::new();
        let mut left = (&mut self.stream).take(MAX_REPLY);
        loop {
            let mut line = Vec::new();
            left.read_until(b'\n', &mut line)?;
            let line = String::from_utf8_lossy(&line).into_owned();
            let Some((code, rest)) = line.strip_suffix("\r\n").and_then(|line| Some((line.get(..3)?, line.get(3..)?)))
            else {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            };
            let code: u16 = code.parse().map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
            lines.push(rest.get(1..).unwrap_or_default().to_owned());
            if rest.starts_with('-') {
                continue;
            }
            if (class..class + 100).contains(&code) {
                return Ok(lines);
            }
            return Err(Fault { code: Some(code), text: printable(&format!("{code} {}", lines.join(" "))) });
        }
    }
}

/// A connection on which somebody else speaks.
pub(super) enum Raw {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Raw {
    pub(super) fn open(address: &ListenAddress) -> io::Result<Raw> {
        match address.path() {
            Some(path) => UnixStream::connect(path).map(Raw::Unix),
            None => TcpStream::connect(&address.sockets().collect::<Vec<_>>()[..]).map(Raw::Tcp),
        }
    }

    pub(super) fn try_clone(&self) -> io::Result<Raw> {
        Ok(match self {
            Raw::Tcp(stream) => Raw::Tcp(stream.try_clone()?),
            Raw::Unix(stream) => Raw::Unix(stream.try_clone()?),
        })
    }

    /// Nothing more will be said.
    pub(super) fn end(&self) -> io::Result<()> {
        match self {
            Raw::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Raw::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }
}

impl Read for Raw {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Raw::Tcp(stream) => stream.read(buffer),
            Raw::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Raw {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Raw::Tcp(stream) => stream.write(bytes),
            Raw::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Raw::Tcp(stream) => stream.flush(),
            Raw::Unix(stream) => stream.flush(),
        }
    }
}

/// The error with its causes, on one line.
fn text(error: &dyn std::error::Error) -> String {
    let mut out = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !out.contains(&cause_text) {
            out.push_str(": ");
            out.push_str(&cause_text);
        }
        source = cause.source();
    }
    printable(&out)
}

fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
