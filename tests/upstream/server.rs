//! A scripted SMTP server: a text tells line by line what it expects and what it says.
//!
//! ```text
//! S: 250 ok          say a line (`\xNN` is a byte)
//! raw: 250 o         say it without a line end (`\r`, `\n`, `\xNN`)
//! C: MAIL FROM:*     the next line of the client; `*` at the end stands for anything
//! hello A|B          S: 220, C: EHLO, and a 250 that offers A and B
//! data               read a body up to its dot line, and keep it
//! bdat               read a `BDAT n LAST` line and n bytes, and keep them
//! chunk              the same of a `BDAT n` line
//! take N             read N bytes and forget them
//! tls                TLS handshake
//! wait N             say nothing for N milliseconds
//! eof                the client closes here without another byte
//! stall              neither read nor write until the client is gone
//! close              hang up (so does the end of the script)
//! ```

use std::sync::Arc;

use mailweir::deliver::Io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{HandshakeKind, ServerConfig};

/// What a server saw.
#[derive(Default, Debug)]
pub struct Seen {
    /// Bodies as they were on the wire, DATA bodies with their dot line.
    pub bodies: Vec<Vec<u8>>,
    /// The TLS handshakes: whether a session was resumed.
    pub resumed: Vec<bool>,
}

struct Player {
    io: Box<dyn Io>,
    input: Vec<u8>,
    seen: Seen,
}

/// Plays a script to its end. The error tells the step and what came instead.
pub async fn play(io: impl Io + 'static, script: &str, tls: Option<Arc<ServerConfig>>) -> Result<Seen, String> {
    let mut player = Player { io: Box::new(io), input: Vec::new(), seen: Seen::default() };
    for step in script.lines().map(str::trim_start).filter(|l| !l.is_empty()) {
        if step == "close" {
            break;
        }
        player = player.step(step, tls.as_ref()).await.map_err(|e| format!("at `{step}`: {e}"))?;
    }
    Ok(player.seen)
}

impl Player {
    async fn step(mut self, step: &str, tls: Option<&Arc<ServerConfig>>) -> Result<Player, String> {
        let (verb, rest) = step.split_once(' ').unwrap_or((step, ""));
        match verb {
            "S:" => {
                let mut bytes = unescape(rest);
                bytes.extend_from_slice(b"\r\n");
                self.say(&bytes).await?;
            }
            "raw:" => self.say(&unescape(rest)).await?,
            "C:" => {
                let line = self.line().await?;
                let fits = match rest.strip_suffix('*') {
                    Some(start) => line.starts_with(start),
                    None => line == rest,
                };
                if !fits {
                    return Err(format!("the client said `{line}`"));
                }
            }
            "hello" => {
                self.say(b"220 mx.example ESMTP\r\n").await?;
                let line = self.line().await?;
                if line != "EHLO relay.example" {
                    return Err(format!("the client said `{line}`"));
                }
                let mut reply = String::from("250-mx.example\r\n");
                for keyword in rest.split('|').filter(|k| !k.is_empty()) {
                    reply.push_str(&format!("250-{keyword}\r\n"));
                }
                reply.push_str("250 ENHANCEDSTATUSCODES\r\n");
                self.say(reply.as_bytes()).await?;
            }
            "data" => {
                let mut body = Vec::new();
                loop {
                    let line = self.raw_line().await?;
                    body.extend_from_slice(&line);
                    if line == b".\r\n" {
                        break;
                    }
                }
                self.seen.bodies.push(body);
            }
            "bdat" => {
                let line = self.line().await?;
                let n = line.strip_prefix("BDAT ").and_then(|l| l.strip_suffix(" LAST")).and_then(|n| n.parse().ok());
                let body = self.take(n.ok_or_else(|| format!("the client said `{line}`"))?).await?;
                self.seen.bodies.push(body);
            }
            "chunk" => {
                let line = self.line().await?;
                let n = line.strip_prefix("BDAT ").and_then(|n| n.parse().ok());
                let body = self.take(n.ok_or_else(|| format!("the client said `{line}`"))?).await?;
                self.seen.bodies.push(body);
            }
            "take" => {
                self.take(rest.parse().map_err(|e| format!("{e}"))?).await?;
            }
            "tls" => {
                if !self.input.is_empty() {
                    return Err("the client did not wait".into());
                }
                let config = tls.ok_or("no certificate")?;
                match TlsAcceptor::from(config.clone()).accept(self.io).await {
                    Ok(stream) => {
                        let kind = stream.get_ref().1.handshake_kind();
                        self.seen.resumed.push(kind == Some(HandshakeKind::Resumed));
                        self.io = Box::new(stream);
                    }
                    Err(e) => return Err(format!("handshake: {e}")),
                }
            }
            "eof" => {
                let mut rest = std::mem::take(&mut self.input);
                // A client that drops a connection with unread input resets it.
                let _ = self.io.read_to_end(&mut rest).await;
                if !rest.is_empty() {
                    return Err(format!("the client said `{}`", String::from_utf8_lossy(&rest)));
                }
            }
            "wait" => {
                let time = rest.parse().map_err(|e| format!("{e}"))?;
                tokio::time::sleep(std::time::Duration::from_millis(time)).await;
            }
            "stall" => std::future::pending().await,
            _ => return Err("unknown step".into()),
        }
        Ok(self)
    }

    async fn say(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.io.write_all(bytes).await.map_err(|e| e.to_string())?;
        self.io.flush().await.map_err(|e| e.to_string())
    }

    async fn fill(&mut self) -> Result<(), String> {
        let mut buf = vec![0; 16 * 1024];
        match self.io.read(&mut buf).await {
            Ok(0) => Err(format!("closed after `{}`", String::from_utf8_lossy(&self.input))),
            Ok(n) => {
                self.input.extend_from_slice(&buf[..n]);
                Ok(())
            }
            Err(e) => Err(e.to_string()),
        }
    }

    async fn take(&mut self, n: usize) -> Result<Vec<u8>, String> {
        while self.input.len() < n {
            self.fill().await?;
        }
        Ok(self.input.drain(..n).collect())
    }

    async fn raw_line(&mut self) -> Result<Vec<u8>, String> {
        let mut from = 0;
        loop {
            if let Some(at) = self.input[from..].iter().position(|b| *b == b'\n') {
                return Ok(self.input.drain(..from + at + 1).collect());
            }
            from = self.input.len();
            self.fill().await?;
        }
    }

    async fn line(&mut self) -> Result<String, String> {
        let line = self.raw_line().await?;
        let line = line.strip_suffix(b"\r\n").ok_or("a command that ends with a bare LF")?;
        Ok(String::from_utf8_lossy(line).into_owned())
    }
}

fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.extend_from_slice(before.as_bytes());
        rest = match after.as_bytes() {
            [b'r', ..] => {
                out.push(b'\r');
                &after[1..]
            }
            [b'n', ..] => {
                out.push(b'\n');
                &after[1..]
            }
            [b'x', ..] => {
                out.push(u8::from_str_radix(&after[1..3], 16).expect("\\xNN in a script"));
                &after[3..]
            }
            _ => panic!("an escape that no script has: {after}"),
        };
    }
    out.extend_from_slice(rest.as_bytes());
    out
}
