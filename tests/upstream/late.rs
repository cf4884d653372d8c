//! A host that says something again, later: a second or more after, while a message is on its way out or its verdict is awaited. No
//! copy is a verdict: nothing is called delivered that the host refused, and nothing fails that it took.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use async_trait::async_trait;
use mailweir::deliver::connect::Dialer;
use mailweir::deliver::{Connection, Io};
use mailweir::outcome::{Fate, judge};
use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::sync::mpsc;

use crate::common::*;
use crate::connecting::{connector, host, route};

/// To whom each message goes: a is taken, b may be refused.
const TO: [&str; 2] = ["a@x.example", "b@x.example"];
const MESSAGES: usize = 5;

/// What the host says to a recipient that it refuses, and to each message at its end.
const GONE: &str = "550 5.1.1 nobody";
const TAKES: &str = "250 2.0.0 queued";
const SPAM: &str = "554 5.7.1 spam";

/// Its words for a success.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Words {
    /// As most hosts have.
    Apart,
    /// The same to everything.
    Alike,
    /// The same to MAIL and to a message that is taken.
    Mail,
    /// The same to RCPT and to a message that is taken.
    Rcpt,
    /// The same to RSET and to a message that is taken.
    Reset,
}

#[derive(Clone, Debug)]
struct World {
    /// What it says again.
    stages: &'static [&'static str],
    later: Duration,
    /// For how long it thinks about a message.
    thinks: Duration,
    extensions: &'static str,
    words: Words,
    /// Refuses b.
    refuses: bool,
    /// To each message.
    verdicts: [&'static str; MESSAGES],
}

#[derive(Clone)]
struct Late {
    world: World,
    /// How often each message was taken for each recipient.
    got: Arc<Mutex<[[u32; 2]; MESSAGES]>>,
    transactions: Arc<AtomicUsize>,
}

/// What one session says, and says again later.
struct Voice {
    world: World,
    out: mpsc::UnboundedSender<String>,
}

impl Voice {
    fn say(&self, stage: &str, reply: &str) {
        let same = match self.world.words {
            Words::Apart => false,
            Words::Alike => true,
            Words::Mail => matches!(stage, "MAIL" | "."),
            Words::Rcpt => matches!(stage, "RCPT" | "."),
            Words::Reset => matches!(stage, "RSET" | "."),
        };
        let reply = if same && reply.starts_with("250 ") { "250 ok" } else { reply };
        let line = format!("{reply}\r\n");
        let _ = self.out.send(line.clone());
        if self.world.stages.contains(&stage) {
            let (out, later) = (self.out.clone(), self.world.later);
            tokio::spawn(async move {
                tokio::time::sleep(later).await;
                let _ = out.send(line);
            });
        }
    }
}

/// The end of a DATA body.
async fn to_the_dot(io: &mut (impl AsyncBufReadExt + Unpin)) -> std::io::Result<()> {
    let mut line = String::new();
    while line != ".\r\n" {
        line.clear();
        if io.read_line(&mut line).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

impl Late {
    async fn serve(self, io: tokio::io::DuplexStream) -> std::io::Result<()> {
        let (read, mut write) = tokio::io::split(io);
        let (out, mut lines) = mpsc::unbounded_channel::<String>();
        let writer = tokio::spawn(async move {
            while let Some(line) = lines.recv().await {
                let last = line.starts_with("221");
                if write.write_all(line.as_bytes()).await.is_err() || last {
                    let _ = write.shutdown().await;
                    return;
                }
            }
        });
        let voice = Voice { world: self.world.clone(), out };
        let _ = self.dialog(BufReader::new(read), &voice).await;
        drop(voice);
        let _ = writer.await;
        Ok(())
    }

    async fn dialog(&self, mut io: impl AsyncBufReadExt + Unpin, voice: &Voice) -> std::io::Result<()> {
        voice.say("greeting", "220 mx.example");
        let (mut message, mut to, mut line) = (None, [false; 2], String::new());
        loop {
            line.clear();
            if io.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let verb = line.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
            match verb.as_str() {
                "EHLO" => {
                    message = None;
                    let more: String = self.world.extensions.split('|').map(|k| format!("250-{k}\r\n")).collect();
                    voice.say("EHLO", &format!("250-mx.example\r\n{more}250 8BITMIME"));
                }
                "RSET" => voice.say("RSET", "250 2.0.0 reset"),
                "MAIL" => {
                    let number = line.split_once("<m").and_then(|(_, n)| n.get(..1)?.parse::<usize>().ok());
                    (message, to) = (number, [false; 2]);
                    voice.say("MAIL", "250 2.1.0 fine");
                }
                "RCPT" if message.is_none() => voice.say("RCPT", "503 5.5.1 MAIL first"),
                "RCPT" if line.contains("<b@") && self.world.refuses => voice.say("refusal", GONE),
                "RCPT" => {
                    to[usize::from(line.contains("<b@"))] = true;
                    voice.say("RCPT", "250 2.1.5 ok");
                }
                "DATA" if to == [false; 2] => voice.say("DATA", "503 5.5.1 nobody"),
                "DATA" => {
                    voice.say("DATA", "354 go");
                    to_the_dot(&mut io).await?;
                    self.verdict(message.take(), to, voice).await;
                    to = [false; 2];
                }
                "BDAT" => {
                    let size = line.split_ascii_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a size");
                    io.read_exact(&mut vec![0; size]).await?;
                    match to == [false; 2] {
                        true => voice.say("BDAT", "503 5.5.1 nobody"),
                        false => self.verdict(message.take(), to, voice).await,
                    }
                    to = [false; 2];
                }
                "QUIT" => {
                    voice.say("QUIT", "221 bye");
                    return Ok(());
                }
                _ => voice.say("?", "500 5.5.2 what?"),
            }
        }
    }

    async fn verdict(&self, message: Option<usize>, to: [bool; 2], voice: &Voice) {
        let message = message.expect("a transaction");
        tokio::time::sleep(self.world.thinks).await;
        let verdict = self.world.verdicts[message];
        if verdict == TAKES {
            let mut got = self.got.lock();
            got[message].iter_mut().zip(to).for_each(|(got, to)| *got += u32::from(to));
        }
        // With an id, where the words are its own.
        let id = self.transactions.fetch_add(1, SeqCst);
        match verdict == TAKES {
            true => voice.say(".", &format!("{TAKES} as 4B7D{id:05}")),
            false => voice.say(".", verdict),
        }
    }
}

#[async_trait]
impl Dialer for Late {
    async fn dial(&self, _: std::net::SocketAddr) -> std::io::Result<Box<dyn Io>> {
        let (ours, theirs) = tokio::io::duplex(65_536);
        tokio::spawn(self.clone().serve(theirs));
        Ok(Box::new(ours))
    }
}

/// What became of the recipients of a message.
#[derive(Clone, Copy, Default, Debug)]
struct Became {
    delivered: [bool; 2],
    failed: [bool; 2],
    tries: usize,
}

/// Sends the messages one after the other, on the same connection where it may be, and each as often as a queue would.
async fn send_all(world: &World) -> ([Became; MESSAGES], [[u32; 2]; MESSAGES]) {
    let late = Late { world: world.clone(), got: Arc::default(), transactions: Arc::default() };
    let got = late.got.clone();
    let connector = connector().with_dialer(Arc::new(late));
    let (route, provider) = (route(25, vec![host("a.example", 10, &["192.0.2.1"])]), provider());
    let mut became = [Became::default(); MESSAGES];
    let mut link: Option<Connection> = None;
    for (number, became) in became.iter_mut().enumerate() {
        let mut mail = hello();
        mail.message.id = mailweir::mail::QueueId(number as i64 + 1);
        mail.message.envelope.reverse_path = Some(address(&format!("m{number}@s.example")));
        for _ in 0..12 {
            let open: Vec<usize> = (0..2).filter(|r| !became.delivered[*r] && !became.failed[*r]).collect();
            if open.is_empty() {
                break;
            }
            let mut connection = match link.take() {
                Some(link) if link.is_usable() && link.takes_more() => link,
                other => {
                    if let Some(other) = other {
                        other.quit().await;
                    }
                    connector.forget_dead();
                    let Ok(connection) = connector.open(&provider, &route).await else { continue };
                    connection
                }
            };
            became.tries += 1;
            let fits = connection.fitting([&address(TO[0]), &address(TO[1])].into_iter());
            let open: Vec<usize> = open.into_iter().take(if fits.is_some() { 1 } else { 2 }).collect();
            let report = mail.send(&mut connection, &open.iter().map(|r| TO[*r]).collect::<Vec<_>>()).await;
            for (recipient, fact) in open.iter().zip(&report.facts) {
                match judge(fact).fate {
                    Fate::Delivered => became.delivered[*recipient] = true,
                    Fate::Fail => became.failed[*recipient] = true,
                    _ => {}
                }
            }
            link = Some(connection);
        }
    }
    (became, got.lock().to_owned())
}

/// What was found in so many worlds.
#[derive(Default, Debug)]
struct Found {
    worlds: usize,
    /// Refused, and called delivered.
    lost: Vec<String>,
    /// Taken, and called failed.
    bounced: Vec<String>,
    /// Neither after twelve attempts, though the host says what it wants.
    stuck: Vec<String>,
    /// Taken once more than needed.
    copies: usize,
}

fn look(worlds: impl IntoIterator<Item = World>) -> Found {
    let mut found = Found::default();
    for world in worlds {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        let (became, got) = runtime.expect("a runtime").block_on(send_all(&world));
        found.worlds += 1;
        for (number, (became, got)) in became.iter().zip(got).enumerate() {
            for recipient in 0..2 {
                let case = || format!("message {number} to {}: {became:?} {got:?} {world:?}", TO[recipient]);
                let (taken, ends) = (got[recipient] > 0, world.verdicts[number] != "451 4.7.1 later");
                match (became.delivered[recipient], became.failed[recipient]) {
                    (true, _) if !taken => found.lost.push(case()),
                    (_, true) if taken => found.bounced.push(case()),
                    (false, false) if ends => found.stuck.push(case()),
                    _ => {}
                }
                found.copies += got[recipient].saturating_sub(1) as usize;
            }
        }
    }
    let Found { worlds, lost, bounced, stuck, copies } = &found;
    eprintln!(
        "{worlds} hosts: {} refused and called delivered, {} taken and called failed, {} without an end, {copies} copies",
        lost.len(),
        bounced.len(),
        stuck.len(),
    );
    found
}

const MIXED: [&str; MESSAGES] = [SPAM, TAKES, "451 4.7.1 later", TAKES, SPAM];

/// All hosts of these kinds.
fn worlds(
    stages: &[&'static [&'static str]],
    later: &[u64],
    thinks: &[u64],
    verdicts: [&'static str; MESSAGES],
    all_words: &[Words],
) -> Vec<World> {
    let mut worlds = Vec::new();
    let millis = Duration::from_millis;
    for stages in stages {
        for (later, thinks) in later.iter().flat_map(|later| thinks.iter().map(move |thinks| (*later, *thinks))) {
            for extensions in ["SIZE", "PIPELINING", "PIPELINING|CHUNKING"] {
                for words in all_words.iter().copied() {
                    for refuses in [false, true] {
                        let (later, thinks) = (millis(later), millis(thinks));
                        worlds.push(World { stages, later, thinks, extensions, words, refuses, verdicts });
                    }
                }
            }
        }
    }
    worlds
}

/// With the words that most hosts have nothing is lost, and nothing bounces. Where every success has the same, a host has to
/// be found out first: by then it may have said to one message what was a copy.
fn holds(mut worlds: Vec<World>) {
    let apart: Vec<World> = worlds.extract_if(.., |world| world.words == Words::Apart).collect();
    let (apart, alike) = (look(apart), look(worlds));
    if std::env::var_os("SHOW_LOST").is_some() {
        alike.lost.iter().for_each(|lost| eprintln!("{lost}"));
    }
    none(&apart);
    assert!(alike.stuck.is_empty(), "{} stuck: {:#?}", alike.stuck.len(), &alike.stuck[..alike.stuck.len().min(3)]);
    assert!(
        alike.bounced.is_empty(),
        "{} bounced: {:#?}",
        alike.bounced.len(),
        &alike.bounced[..alike.bounced.len().min(3)]
    );
}

fn none(found: &Found) {
    assert!(found.lost.is_empty(), "{} lost: {:#?}", found.lost.len(), &found.lost[..found.lost.len().min(3)]);
    assert!(
        found.bounced.is_empty(),
        "{} bounced: {:#?}",
        found.bounced.len(),
        &found.bounced[..found.bounced.len().min(3)]
    );
    assert!(found.stuck.is_empty(), "{} stuck: {:#?}", found.stuck.len(), &found.stuck[..found.stuck.len().min(3)]);
}

/// Those that this was made with.
#[test]
fn a_late_copy_of_any_reply_is_no_messages_verdict() {
    let words = [Words::Apart, Words::Alike];
    holds(worlds(&[&["EHLO"], &["MAIL"], &["RCPT"], &["refusal"]], &[1000, 1500], &[2000], MIXED, &words));
}

/// One that has the words of its reply to a message for one other command, too: to MAIL, to RCPT, to RSET. Those that this was made
/// with: the message that is refused is not the first.
#[test]
fn nor_is_the_copy_of_a_reply_that_has_the_words_of_a_success() {
    let verdicts = [TAKES, TAKES, SPAM, TAKES, SPAM];
    let words = [Words::Mail, Words::Rcpt];
    none(&look(worlds(&[&["MAIL"], &["RCPT"]], &[1000, 1500], &[2000], verdicts, &words)));
}

/// And others.
#[test]
fn nor_in_other_places_at_other_times() {
    let stages: &[&[&str]] = &[&["MAIL"], &["RCPT"], &["RSET"], &["MAIL", "RCPT", "refusal"], &["MAIL", "RSET", "."]];
    let words = [Words::Mail, Words::Rcpt, Words::Reset];
    for verdicts in [MIXED, [TAKES, SPAM, SPAM, TAKES, SPAM]] {
        none(&look(worlds(stages, &[300, 1200, 2700, 4400], &[0, 700, 1900, 5100], verdicts, &words)));
    }
}

/// And others: other times, and other and several replies that come again.
#[test]
fn nor_is_it_where_other_replies_come_again_at_other_times() {
    let stages: &[&[&str]] = &[
        &["greeting"],
        &["DATA"],
        &["."],
        &["MAIL", "RCPT", "refusal"],
        &["greeting", "EHLO", "MAIL", "RCPT", "refusal", "DATA", "."],
    ];
    let verdicts = [TAKES, SPAM, TAKES, "451 4.7.1 later", SPAM];
    let words = [Words::Apart, Words::Alike];
    holds(worlds(stages, &[300, 1200, 2700, 4400], &[0, 700, 1900, 5100], verdicts, &words));
}

/// One that says nothing twice.
#[test]
fn an_honest_host_gets_each_message_once() {
    let words = [Words::Apart, Words::Alike, Words::Mail, Words::Rcpt, Words::Reset];
    let found = look(worlds(&[&[]], &[1000], &[0, 2000], MIXED, &words));
    none(&found);
    assert_eq!(found.copies, 0);
}
