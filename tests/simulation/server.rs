//! The receivers: SMTP servers that misbehave as the weather has it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mailweir::deliver::{Dialer, Io};
use mailweir::mail::QueueId;
use tokio::time::Instant;

use super::net::{Cut, How, Lines, Mark, pair};
use super::plan::{CALM, Weather};
use super::world::{BEGIN, World};

/// The network as the relay's connector sees it.
pub struct Net(pub Arc<World>);

#[async_trait]
impl Dialer for Net {
    async fn dial(&self, to: SocketAddr) -> io::Result<Box<dyn Io>> {
        let world = &self.0;
        if world.step() {
            return std::future::pending().await;
        }
        let Some(number) = world.plan.host_at(to) else { return Err(io::ErrorKind::HostUnreachable.into()) };
        let host = &world.plan.hosts[number];
        let weather = world.weather(host);
        world.note(format_args!("dial {} {weather:?}", host.name));
        if weather == Some(Weather::BlackHole) {
            return std::future::pending().await;
        }
        tokio::time::sleep(Duration::from_millis(world.random(host.latency.0..=host.latency.1) * 2)).await;
        if weather == Some(Weather::Refused) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let cut = (weather == Some(Weather::Cut)).then(|| Cut {
            to_remote: world.chance(0.5),
            after: world.random(0..=1500) as usize,
            how: world.pick(&[How::Reset, How::Hole]),
        });
        let (stream, remote) = pair(world, host.latency, cut, Some(host.group));
        let fault = weather.and_then(|weather| Fault::new(world, weather));
        let server = Server {
            world: world.clone(),
            number,
            lines: Lines::new(remote),
            fault,
            nth: 0,
            reset: None,
            transaction: None,
            chunks: Vec::new(),
        };
        tokio::spawn(server.serve());
        Ok(Box::new(stream))
    }
}

/// Where in a session something goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum At {
    Greeting,
    Ehlo,
    Mail,
    Rcpt,
    Data,
    Final,
}

const STAGES: [At; 6] = [At::Greeting, At::Ehlo, At::Mail, At::Rcpt, At::Data, At::Final];

/// What goes wrong with one connection.
#[derive(Clone, Copy, Debug)]
struct Fault {
    at: At,
    what: What,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum What {
    Says(&'static str),
    Waits(Duration),
    Silent,
    Closes,
    Resets,
    /// The message is taken, then this.
    Loses(Lost),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lost {
    Reset,
    Hole,
    Closed,
    Late(Duration),
}

impl Fault {
    fn new(world: &World, weather: Weather) -> Option<Fault> {
        let seconds = |from, to| Duration::from_secs(world.random(from..=to));
        let mut at = world.pick(&STAGES);
        let what = match weather {
            Weather::Refused | Weather::BlackHole | Weather::Cut => return None,
            Weather::Transient => What::Says(world.pick(&["451 4.3.0 not now", "450 4.2.0 busy", "421 4.3.2 closing"])),
            Weather::Permanent => What::Says(world.pick(&["554 5.7.1 no", "550 5.1.1 unknown", "552 5.2.2 full"])),
            Weather::Throttle => What::Says(world.pick(&[
                "421 4.7.0 too many connections from you",
                "450 4.7.1 rate limit exceeded, try again later",
                "452 4.5.3 too many recipients",
                "421 4.7.28 slow down, rate limit",
            ])),
            Weather::Slow => What::Waits(if world.chance(0.8) { seconds(1, 60) } else { seconds(60, 900) }),
            Weather::Silent => What::Silent,
            Weather::Closes => world.pick(&[What::Closes, What::Resets]),
            Weather::Nonsense => What::Says("oh, hello"),
            Weather::LosesFinal => {
                at = At::Final;
                let late = seconds(1, 1200);
                What::Loses(world.pick(&[Lost::Reset, Lost::Hole, Lost::Closed, Lost::Late(late)]))
            }
        };
        Some(Fault { at, what })
    }
}

struct Transaction {
    /// When the relay wrote its first command.
    began: Instant,
    recipients: u32,
    accepted: Vec<String>,
}

struct Server {
    world: Arc<World>,
    number: usize,
    lines: Lines,
    fault: Option<Fault>,
    /// Transactions of this connection.
    nth: u32,
    /// When the RSET right before was written.
    reset: Option<Instant>,
    transaction: Option<Transaction>,
    /// Of the message that comes by BDAT.
    chunks: Vec<u8>,
}

impl Server {
    async fn serve(mut self) {
        let _ = self.session().await;
        self.end_transaction();
    }

    /// `None`: the connection is over.
    async fn session(&mut self) -> Option<()> {
        let world = self.world.clone();
        let host = &world.plan.hosts[self.number];
        self.answer(At::Greeting, &format!("220 {} ESMTP", host.name)).await?;
        loop {
            let (line, sent) = self.lines.next().await?;
            world.note(format_args!("{} < {line}", host.name));
            let verb = line.get(..4).unwrap_or(&line).to_ascii_uppercase();
            let reset = self.reset.take();
            match verb.as_str() {
                "EHLO" => {
                    let mut text = format!("250-{}\r\n", host.name);
                    for (has, word) in [
                        (host.pipelining, "PIPELINING"),
                        (host.chunking, "CHUNKING"),
                        (host.dsn, "DSN"),
                        (true, "8BITMIME"),
                    ] {
                        if has {
                            text.push_str(&format!("250-{word}\r\n"));
                        }
                    }
                    text.push_str("250 ENHANCEDSTATUSCODES");
                    self.answer(At::Ehlo, &text).await?;
                }
                "HELO" => {
                    self.answer(At::Ehlo, "250 hello").await?;
                }
                "RSET" => {
                    self.end_transaction();
                    self.reset = Some(sent);
                    self.say("250 2.0.0 reset");
                }
                "MAIL" => {
                    self.end_transaction();
                    self.nth += 1;
                    self.chunks.clear();
                    let began = reset.unwrap_or(sent);
                    self.transaction = Some(Transaction { began, recipients: 0, accepted: Vec::new() });
                    if !self.answer(At::Mail, "250 2.1.0 ok").await? {
                        self.end_transaction();
                    }
                }
                "RCPT" => self.recipient(&line).await?,
                "DATA" => match self.has_recipients() {
                    false => self.say("554 5.5.1 no valid recipients"),
                    true => {
                        if self.answer(At::Data, "354 go on").await? {
                            let body = self.body().await?;
                            self.message(&body).await?;
                        }
                    }
                },
                "BDAT" => {
                    let size = line.split(' ').nth(1).and_then(|n| n.parse().ok()).unwrap_or(0);
                    let chunk = self.lines.bytes(size).await?;
                    match (self.has_recipients(), line.to_ascii_uppercase().ends_with(" LAST")) {
                        (false, _) => self.say("554 5.5.1 no valid recipients"),
                        (true, false) => {
                            self.chunks.extend_from_slice(&chunk);
                            self.say("250 2.0.0 go on");
                        }
                        (true, true) => {
                            self.chunks.extend_from_slice(&chunk);
                            let body = std::mem::take(&mut self.chunks);
                            self.message(&String::from_utf8_lossy(&body)).await?;
                        }
                    }
                }
                "QUIT" => {
                    self.say("221 2.0.0 bye");
                    return None;
                }
                _ => self.say("500 5.5.2 what?"),
            }
        }
    }

    fn has_recipients(&self) -> bool {
        self.transaction.as_ref().is_some_and(|tx| !tx.accepted.is_empty())
    }

    /// A transaction is counted once it is known how many recipients it had.
    fn end_transaction(&mut self) {
        if let Some(tx) = self.transaction.take() {
            let group = self.world.plan.hosts[self.number].group;
            self.world.started(group, at(&self.world, tx.began), tx.recipients, self.nth);
        }
    }

    async fn recipient(&mut self, line: &str) -> Option<()> {
        let address = line.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
        let Some(tx) = &mut self.transaction else {
            self.say("503 5.5.1 MAIL first");
            return Some(());
        };
        tx.recipients += 1;
        let calm = self.world.plan.hosts[self.number].group == CALM;
        let refused = match address.split(['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', '@']).next() {
            Some("nobody") => Some("550 5.1.1 no such user"),
            Some("later") if !calm => Some("450 4.2.1 the mailbox is busy"),
            Some("grey") if !calm && self.world.greylisted(address.clone()) => Some("450 4.7.1 greylisted"),
            _ => None,
        };
        if let Some(refused) = refused {
            self.say(refused);
            return Some(());
        }
        // A fault here refuses some and not others.
        let spared = self.fault.is_some_and(|fault| fault.at == At::Rcpt) && self.world.chance(0.4);
        if spared {
            self.say("250 2.1.5 ok");
        } else if !self.answer(At::Rcpt, "250 2.1.5 ok").await? {
            return Some(());
        }
        if let Some(tx) = &mut self.transaction {
            tx.accepted.push(address);
        }
        Some(())
    }

    async fn body(&mut self) -> Option<String> {
        let mut body = String::new();
        loop {
            let (line, _) = self.lines.next().await?;
            if line == "." {
                return Some(body);
            }
            body.push_str(line.strip_prefix('.').unwrap_or(&line));
            body.push('\n');
        }
    }

    /// The end of the body: it is taken or not.
    async fn message(&mut self, body: &str) -> Option<()> {
        let (world, fault) = (self.world.clone(), self.fault.filter(|fault| fault.at == At::Final));
        let lost = match fault.map(|fault| fault.what) {
            None => None,
            Some(What::Loses(lost)) => Some(lost),
            Some(What::Waits(_)) => None,
            Some(_) => {
                self.answer(At::Final, "250 2.0.0 taken").await?;
                self.end_transaction();
                return Some(());
            }
        };
        if let Some(What::Waits(wait)) = fault.map(|fault| fault.what) {
            tokio::time::sleep(wait).await;
        }
        let Some(tx) = &self.transaction else { return Some(()) };
        let Some(id) = id_of(body) else {
            world.wrong([format!("a message without queue id: {body}")]);
            return None;
        };
        match lost {
            Some(Lost::Reset) => self.lines.remote.reset(),
            Some(Lost::Hole) => self.lines.remote.vanish(),
            Some(Lost::Closed) => self.lines.remote.finish(),
            Some(Lost::Late(_)) | None => {}
        }
        if lost.is_none() {
            self.lines.remote.say(b"250 2.0.0 taken\r\n");
        }
        // What is never written is never read.
        let mark = Mark::default();
        if lost.is_none() {
            self.lines.remote.mark(&mark);
        }
        for address in &tx.accepted {
            world.note(format_args!("taken {id} {address} {lost:?}"));
            let began = at(&world, tx.began);
            world.model(|model| model.taken(id, address, began, tx.began, mark.clone()));
        }
        self.end_transaction();
        match lost {
            Some(Lost::Late(wait)) => {
                tokio::time::sleep(wait).await;
                self.lines.remote.say(b"250 2.0.0 taken\r\n");
                self.lines.remote.mark(&mark);
                Some(())
            }
            Some(_) => None,
            None => Some(()),
        }
    }

    fn say(&mut self, text: &str) {
        self.world.note(format_args!("{} > {text}", self.world.plan.hosts[self.number].name));
        self.lines.remote.say(format!("{text}\r\n").as_bytes());
    }

    /// Says `usual`, unless this is where it goes wrong. True: it was said.
    async fn answer(&mut self, at: At, usual: &str) -> Option<bool> {
        match self.fault.filter(|fault| fault.at == at).map(|fault| fault.what) {
            None | Some(What::Loses(_)) => self.say(usual),
            Some(What::Waits(wait)) => {
                tokio::time::sleep(wait).await;
                self.say(usual);
            }
            Some(What::Says(text)) => {
                self.say(text);
                return if text.starts_with("421") { None } else { Some(false) };
            }
            Some(What::Silent) => {
                // Until the relay gives up.
                while let super::net::Heard::Bytes(..) = self.lines.remote.hear().await {}
                return None;
            }
            Some(What::Closes) => return None,
            Some(What::Resets) => {
                self.lines.remote.reset();
                return None;
            }
        }
        Some(true)
    }
}

/// Milliseconds of the simulated wall clock.
fn at(world: &World, instant: Instant) -> i64 {
    let ago = i64::try_from(instant.elapsed().as_millis()).unwrap_or(0);
    BEGIN.0 + i64::try_from(world.now().as_millis()).unwrap_or(i64::MAX) - ago
}

/// The queue id, from the trace field that the relay put on top or from the name of a DSN.
fn id_of(body: &str) -> Option<QueueId> {
    if body.starts_with("Received:") {
        return body.split(" id ").nth(1)?.get(..13)?.parse().ok();
    }
    let line = body.lines().find(|line| line.starts_with("Message-ID: <"))?;
    line.strip_prefix("Message-ID: <")?.get(..13)?.parse().ok()
}
