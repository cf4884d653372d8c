//! Receivers that are no help: one without 8BITMIME that reads slowly, one that never says a word, one
//! that refuses every recipient.

use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// How slowly [`Manner::Slow`] reads a body: so many bytes, then a pause.
const SIP: usize = 64 * 1024;
const PAUSE: Duration = Duration::from_millis(50);

/// What a receiver does.
#[derive(Clone, Copy)]
pub enum Manner {
    /// No extension but PIPELINING, and about a megabyte a second.
    Slow,
    /// Not even a greeting.
    Silent,
    /// 550 to every recipient.
    Refuses,
}

/// One that runs as long as the program does.
pub struct Receiver {
    /// Where it listens.
    pub address: SocketAddr,
}

impl Receiver {
    /// Starts it on a thread of its own.
    pub fn start(manner: Manner) -> io::Result<Receiver> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        thread::spawn(move || {
            let _ = rustix::process::nice(19);
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener)?;
                loop {
                    let Ok((stream, _)) = listener.accept().await else { continue };
                    tokio::spawn(serve(stream, manner));
                }
                #[allow(unreachable_code)]
                io::Result::Ok(())
            })
        });
        Ok(Receiver { address })
    }
}

async fn serve(mut stream: TcpStream, manner: Manner) -> io::Result<()> {
    if let Manner::Silent = manner {
        // Until the relay has had enough.
        let mut byte = [0];
        let _ = stream.read(&mut byte).await;
        return Ok(());
    }
    let mut stream = BufReader::with_capacity(SIP, stream);
    stream.write_all(b"220 sink.example\r\n").await?;
    let mut line = Vec::new();
    loop {
        line.clear();
        if stream.read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        line.make_ascii_uppercase();
        let reply: &[u8] = match (line.get(..4).unwrap_or_default(), manner) {
            (b"EHLO", _) => b"250-sink.example\r\n250 PIPELINING\r\n",
            (b"RCPT", Manner::Refuses) => b"550 5.1.1 nobody of that name\r\n",
            (b"DATA", Manner::Refuses) => b"503 5.5.1 nobody to take it\r\n",
            (b"DATA", _) => {
                stream.write_all(b"354 go on\r\n").await?;
                read_body(&mut stream).await?;
                b"250 2.0.0 Ok\r\n"
            }
            (b"QUIT", _) => {
                stream.write_all(b"221 2.0.0 Bye\r\n").await?;
                return Ok(());
            }
            _ => b"250 2.0.0 Ok\r\n",
        };
        stream.write_all(reply).await?;
    }
}

async fn read_body(stream: &mut BufReader<TcpStream>) -> io::Result<()> {
    let mut tail: Vec<u8> = Vec::new();
    loop {
        let here = stream.fill_buf().await?;
        if here.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let length = here.len();
        tail.extend_from_slice(here);
        stream.consume(length);
        if tail.ends_with(b"\r\n.\r\n") || tail == b".\r\n" {
            return Ok(());
        }
        let keep = tail.len().saturating_sub(5);
        tail.drain(..keep);
        if length > SIP / 2 {
            tokio::time::sleep(PAUSE).await;
        }
    }
}
