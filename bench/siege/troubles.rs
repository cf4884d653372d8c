//! Everything that tries to stall the relay, each in a task of its own on one thread of the lowest priority.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use crate::support::load::Client;

/// Bytes of the largest messages.
const BIG: usize = 24_000_000;

/// Uploads that stay unfinished at once, and how much of each comes.
const UPLOADS: usize = 60;
const UPLOADED: usize = 8_500_000;

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;
type Make = fn(SocketAddr, Arc<AtomicU64>) -> Task;

/// All of them, by name.
const ALL: [(&str, Make); 8] = [
    ("poison", |to, made| Box::pin(poison(to, made))),
    ("unfinished", |to, made| Box::pin(unfinished(to, made))),
    ("domains", |to, made| Box::pin(steady(to, made, Duration::from_millis(20), domain))),
    ("hang", |to, made| Box::pin(steady(to, made, Duration::from_millis(500), |_| "to@hang.example".into()))),
    ("bulk", |to, made| Box::pin(bulk(to, made))),
    ("refused", |to, made| Box::pin(refused(to, made))),
    ("bounces", |to, made| Box::pin(bounces(to, made))),
    ("half", |to, made| Box::pin(half(to, made))),
];

/// The troubles that go on.
pub struct Troubles {
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
    made: Vec<(&'static str, Arc<AtomicU64>)>,
}

impl Troubles {
    /// Begins with those named in `only`, or all.
    pub fn begin(to: SocketAddr, only: Option<&str>) -> io::Result<Troubles> {
        let wanted: Vec<&str> = only.map(|names| names.split(',').map(str::trim).collect()).unwrap_or_default();
        if let Some(name) = wanted.iter().find(|name| ALL.iter().all(|(known, _)| known != *name)) {
            return Err(io::Error::other(format!("there is no trouble {name}")));
        }
        let chosen: Vec<_> = ALL.into_iter().filter(|(name, _)| only.is_none() || wanted.contains(name)).collect();
        let made: Vec<_> = chosen.iter().map(|(name, _)| (*name, Arc::new(AtomicU64::new(0)))).collect();
        let (stop, mut stopped) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let counters: Vec<_> = made.iter().map(|(_, counter)| counter.clone()).collect();
        let thread = thread::spawn(move || {
            let _ = rustix::process::nice(19);
            runtime.block_on(async move {
                for ((_, make), counter) in chosen.into_iter().zip(counters) {
                    tokio::spawn(make(to, counter));
                }
                let _ = stopped.wait_for(|stop| *stop).await;
            });
        });
        Ok(Troubles { stop, thread, made })
    }

    /// Ends them; how much of each there was.
    pub fn end(self) -> Vec<(&'static str, u64)> {
        self.stop.send_replace(true);
        let _ = self.thread.join();
        self.made.into_iter().map(|(name, counter)| (name, counter.load(Ordering::Relaxed))).collect()
    }
}

async fn send(to: SocketAddr, from: &str, recipients: &[String], options: &str, body: &[u8]) -> io::Result<()> {
    let mut client = Client::open(to, None).await?;
    client.say(format!("MAIL FROM:<{from}>{options}\r\n").as_bytes()).await?;
    for recipient in recipients {
        client.say(format!("RCPT TO:<{recipient}>\r\n").as_bytes()).await?;
    }
    client.say(b"DATA\r\n").await?;
    client.write(body).await?;
    client.say(b"\r\n.\r\n").await
}

/// Counts what was taken.
fn note(made: &AtomicU64, result: &io::Result<()>) {
    made.fetch_add(u64::from(result.is_ok()), Ordering::Relaxed);
}

const PART: &str = "Subject: q\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n";

/// Messages that are hard to convert.
fn shapes() -> Vec<Vec<u8>> {
    let with = |head: &str, unit: &str, tail: &str, size: usize| {
        let mut out = head.as_bytes().to_vec();
        while out.len() < size {
            out.extend_from_slice(unit.as_bytes());
        }
        out.extend_from_slice(tail.as_bytes());
        out
    };
    let line = format!("{}\r\n", "é".repeat(30));
    let quadratic = format!(
        "{PART}Content-Type: text/plain{}{}\r\n\r\nx\r\n--b--\r\n",
        ";a=b".repeat(500_000 / 8),
        ";b*1=c".repeat(500_000 / 12)
    );
    vec![
        with("Subject: q\r\n\r\n", &line, "", BIG),
        quadratic.into_bytes(),
        with(&format!("{PART}Content-Disposition: attachment; filename="), "a", "é\r\n\r\nx\r\n--b--\r\n", BIG),
        with(&PART.replace("mixed", "digest"), "--b\r\n\r\né\r\n", "--b--\r\n", BIG),
        with(PART, "a:é\r\n", "\r\nx\r\n--b--\r\n", BIG),
    ]
}

async fn poison(to: SocketAddr, made: Arc<AtomicU64>) {
    let shapes = shapes();
    for at in 0.. {
        let body = &shapes[at % shapes.len()];
        note(&made, &send(to, "poison@bad.example", &["to@weak.example".into()], "", body).await);
        sleep(Duration::from_secs(10)).await;
    }
}

/// Many at once, for a minute each, then others.
async fn unfinished(to: SocketAddr, made: Arc<AtomicU64>) {
    let body = Arc::new(vec![b'x'; UPLOADED].chunks(1000).collect::<Vec<_>>().join(&b"\r\n"[..]));
    loop {
        let mut open = tokio::task::JoinSet::new();
        for _ in 0..UPLOADS {
            let (body, made) = (body.clone(), made.clone());
            open.spawn(async move {
                let mut client = Client::open(to, None).await?;
                client.envelope("upload@bad.example", "to@good.example").await?;
                client.write(&body).await?;
                made.fetch_add(1, Ordering::Relaxed);
                sleep(Duration::from_secs(120)).await;
                io::Result::Ok(())
            });
        }
        sleep(Duration::from_secs(60)).await;
        open.shutdown().await;
    }
}

fn domain(number: u64) -> String {
    format!("to@d{number}.cold.example")
}

/// A short message again and again, whatever becomes of it.
async fn steady(to: SocketAddr, made: Arc<AtomicU64>, pause: Duration, recipient: fn(u64) -> String) {
    for number in 0.. {
        note(&made, &send(to, "steady@bad.example", &[recipient(number)], "", b"Subject: x\r\n\r\nx").await);
        sleep(pause).await;
    }
}

/// Far more than its limit.
async fn bulk(to: SocketAddr, made: Arc<AtomicU64>) {
    loop {
        note(&made, &send(to, "news@bulk.example", &["to@news.example".into()], "", b"Subject: x\r\n\r\nx").await);
        sleep(Duration::from_millis(50)).await;
    }
}

/// A thousand recipients, each refused in a transaction of its own.
async fn refused(to: SocketAddr, made: Arc<AtomicU64>) {
    loop {
        let recipients: Vec<String> = (0..1000).map(|n| format!("r{n}@refuse.example")).collect();
        note(&made, &send(to, "list@good.example", &recipients, "", b"Subject: x\r\n\r\nx").await);
        sleep(Duration::from_secs(30)).await;
    }
}

/// Bounces that return a message which is hard to convert.
async fn bounces(to: SocketAddr, made: Arc<AtomicU64>) {
    let head = format!("{}{}", ";a=b".repeat(188_000 / 8), ";b*1=c".repeat(188_000 / 12));
    let body = format!("Subject: q\r\nMIME-Version: 1.0\r\nContent-Type: text/plain{head}\r\n\r\nx");
    loop {
        let recipient = ["to@refuse.example".to_owned()];
        note(&made, &send(to, "back@good.example", &recipient, " RET=FULL", body.as_bytes()).await);
        sleep(Duration::from_secs(2)).await;
    }
}

/// Sessions that say half a command and stay.
async fn half(to: SocketAddr, made: Arc<AtomicU64>) {
    loop {
        let mut open = Vec::new();
        for _ in 0..100 {
            if let Ok(mut client) = Client::open(to, None).await
                && client.write(b"MAIL FRO").await.is_ok()
            {
                made.fetch_add(1, Ordering::Relaxed);
                open.push(client);
            }
        }
        sleep(Duration::from_secs(30)).await;
    }
}
