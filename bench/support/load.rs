//! Applications that hand in mail: so many sessions, each waiting for every reply as most do.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mailweir::deliver::Io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

/// How long after the end of its time a load may still wait for replies.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between the first connections of two sessions.
const PAUSE: Duration = Duration::from_millis(2);

/// When to stop.
#[derive(Clone, Copy)]
pub enum Until {
    /// So much time has gone by.
    Time(Duration),
    /// So many messages were acknowledged.
    Count(u64),
}

/// What is sent.
#[derive(Clone)]
pub struct Load {
    /// To whom.
    pub to: SocketAddr,
    /// Sessions at once.
    pub sessions: usize,
    /// Bytes of a message.
    pub size: usize,
    /// A session sends many messages, rather than one.
    pub kept: bool,
    /// When to stop.
    pub until: Until,
    /// The recipient of the n-th message.
    pub recipient: fn(u64) -> String,
    /// STARTTLS first.
    pub tls: Option<TlsConnector>,
}

impl Load {
    /// 20 sessions of 2 KB, kept, to one recipient.
    pub fn new(to: SocketAddr, until: Until) -> Load {
        let recipient = |_: u64| "to@there.example".to_owned();
        Load { to, sessions: 20, size: 2048, kept: true, until, recipient, tls: None }
    }

    /// Sends it all, on this thread; how many messages were acknowledged, and how long it took.
    pub fn send(&self) -> io::Result<(u64, Duration)> {
        let began = Instant::now();
        let sent = block_on(async {
            let (taken, body) = (Arc::new(AtomicU64::new(0)), Arc::new(body(self.size)));
            let mut tasks = tokio::task::JoinSet::new();
            for at in 0..self.sessions {
                let session = self.clone().session(taken.clone(), body.clone(), began);
                // Some relays let the kernel queue five new connections and drop the others.
                let turn = PAUSE * u32::try_from(at.min(100)).unwrap_or(0);
                tasks.spawn(async move {
                    tokio::time::sleep(turn).await;
                    session.await
                });
            }
            let all = async {
                let mut sent = 0;
                while let Some(done) = tasks.join_next().await {
                    sent += done.map_err(io::Error::other)??;
                }
                io::Result::Ok(sent)
            };
            let longest = match self.until {
                Until::Time(time) => time + PATIENCE,
                Until::Count(_) => Duration::from_secs(24 * 3600),
            };
            let stalled = |_| io::Error::other("sessions wait for replies that do not come");
            tokio::time::timeout(longest, all).await.map_err(stalled)?
        })??;
        Ok((sent, began.elapsed()))
    }

    async fn session(self, taken: Arc<AtomicU64>, body: Arc<Vec<u8>>, began: Instant) -> io::Result<u64> {
        let mut sent = 0;
        let mut client: Option<Client> = None;
        loop {
            let number = match self.until {
                Until::Time(time) if began.elapsed() >= time => break,
                Until::Time(_) => taken.fetch_add(1, Ordering::Relaxed),
                Until::Count(count) => {
                    let number = taken.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        break;
                    }
                    number
                }
            };
            let mut open = match client.take() {
                Some(open) => open,
                None => Client::open(self.to, self.tls.as_ref()).await?,
            };
            open.envelope("from@bench.example", &(self.recipient)(number)).await?;
            open.say(&body).await?;
            sent += 1;
            if self.kept {
                client = Some(open);
            } else {
                open.say(b"QUIT\r\n").await?;
            }
        }
        if let Some(mut open) = client {
            open.say(b"QUIT\r\n").await?;
        }
        Ok(sent)
    }
}

/// Runs on a runtime of this thread.
pub fn block_on<F: Future>(future: F) -> io::Result<F::Output> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future))
}

/// A message of about `size` bytes with its dot line.
pub fn body(size: usize) -> Vec<u8> {
    let mut body = b"Subject: bench\r\n\r\n".to_vec();
    while body.len() < size {
        body.extend_from_slice(b"The quick brown fox jumps over the lazy dog, and so it goes on here.\r\n");
    }
    body.extend_from_slice(b".\r\n");
    body
}

/// One SMTP session.
pub struct Client {
    stream: Box<dyn Io>,
    input: Vec<u8>,
}

impl Client {
    /// Greeting and EHLO; with STARTTLS if there is a connector.
    pub async fn open(to: SocketAddr, tls: Option<&TlsConnector>) -> io::Result<Client> {
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        let mut client = Client { stream: Box::new(stream), input: Vec::with_capacity(512) };
        client.reply().await?;
        client.say(b"EHLO bench.example\r\n").await?;
        if let Some(tls) = tls {
            client.say(b"STARTTLS\r\n").await?;
            let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
            client.stream = Box::new(tls.connect(name, client.stream).await?);
            client.say(b"EHLO bench.example\r\n").await?;
        }
        Ok(client)
    }

    /// MAIL, RCPT and DATA, one after the other.
    pub async fn envelope(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.say(format!("MAIL FROM:<{from}>\r\n").as_bytes()).await?;
        self.say(format!("RCPT TO:<{to}>\r\n").as_bytes()).await?;
        self.say(b"DATA\r\n").await
    }

    /// Sends something and waits for the reply, which must be a good one.
    pub async fn say(&mut self, text: &[u8]) -> io::Result<()> {
        self.write(text).await?;
        self.reply().await
    }

    /// Sends something without waiting for a reply.
    pub async fn write(&mut self, text: &[u8]) -> io::Result<()> {
        self.stream.write_all(text).await?;
        self.stream.flush().await
    }

    async fn reply(&mut self) -> io::Result<()> {
        loop {
            if let Some(end) = last_line(&self.input) {
                let good = matches!(self.input.get(end), Some(b'2' | b'3'));
                let text = if good { None } else { Some(String::from_utf8_lossy(&self.input).into_owned()) };
                self.input.clear();
                return text.map_or(Ok(()), |text| Err(io::Error::other(text)));
            }
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// Where the last line of a whole reply starts; nothing is pipelined, so it ends the input.
fn last_line(input: &[u8]) -> Option<usize> {
    let text = input.strip_suffix(b"\n")?;
    let start = memchr::memrchr(b'\n', text).map_or(0, |at| at + 1);
    (text.get(start + 3) != Some(&b'-')).then_some(start)
}
