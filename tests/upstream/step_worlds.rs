//! A host that inserts one extra reply anywhere in what it says to three messages: nobody is bounced for another's
//! reply, nothing is called delivered that the host did not get, nothing comes twice but where the end was uncertain.

use std::sync::Arc;

use async_trait::async_trait;
use mailweir::deliver::Io;
use mailweir::deliver::connect::Dialer;
use mailweir::outcome::{Fate, judge};
use parking_lot::Mutex;
use proptest::prelude::*;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use crate::common::*;
use crate::connecting::{connector, host, route};

/// What the host says truly to a message to A and B: to MAIL, to either recipient, to DATA, at its end.
#[derive(Clone, Copy, Debug)]
struct Verdict([u16; 5]);

const VERDICTS: [Verdict; 9] = [
    Verdict([250, 250, 250, 354, 250]),
    Verdict([550, 250, 250, 354, 250]),
    Verdict([450, 250, 250, 354, 250]),
    Verdict([250, 550, 250, 354, 250]),
    Verdict([250, 250, 550, 354, 250]),
    Verdict([250, 450, 550, 354, 250]),
    Verdict([250, 550, 550, 354, 250]),
    Verdict([250, 250, 250, 554, 250]),
    Verdict([250, 250, 250, 354, 554]),
];

impl Verdict {
    /// Whether the host refuses this recipient for good, however it is asked.
    fn refuses(self, recipient: usize) -> bool {
        let Verdict([mail, a, b, data, end]) = self;
        let own = if recipient == 0 { a } else { b };
        [mail, own, data, end].into_iter().find(|code| *code >= 400).is_some_and(|code| code >= 500)
    }
}

/// One reply too many.
#[derive(Clone, Copy, Debug)]
struct Extra {
    /// Before which reply of the host, counted over all of its connections.
    before: usize,
    text: &'static str,
    /// With the reply before it, and not with the one behind it.
    early: bool,
}

#[derive(Clone, Debug)]
struct World {
    verdicts: [Verdict; 3],
    extensions: &'static str,
    /// The reply to a recipient is not in the same words as that to a message.
    apart: bool,
    extra: Extra,
}

#[derive(Default)]
struct Seen {
    replies: usize,
    /// Times it got each message for each recipient.
    got: [[u32; 2]; 3],
    /// The message whose own transaction heard the extra reply on a connection that had carried none, or just where its
    /// end was due: that is the host's word on it.
    own_word: Option<usize>,
}

struct Host {
    world: World,
    seen: Mutex<Seen>,
}

/// A transaction at the host.
#[derive(Default)]
struct Begun {
    message: Option<usize>,
    to: Vec<usize>,
}

struct Session {
    host: Arc<Host>,
    output: Vec<u8>,
    begun: Begun,
    /// Messages that were begun on this connection before.
    before: usize,
    /// The one that was spoken of last.
    about: Option<usize>,
}

impl Session {
    fn say(&mut self, text: &str, end_of: Option<usize>) {
        let extra = self.host.world.extra;
        let mut seen = self.host.seen.lock();
        let number = seen.replies;
        seen.replies += 1;
        let mut push = |text: &str| self.output.extend_from_slice(format!("{text}\r\n").as_bytes());
        let early = extra.early && number + 1 == extra.before;
        if !extra.early && number == extra.before {
            push(extra.text);
            if end_of.is_some() || self.before <= 1 {
                seen.own_word = end_of.or(self.about);
            }
        }
        push(text);
        if early {
            push(extra.text);
            // Behind the 354, or the last recipient: the end is what comes next.
            if self.begun.message.is_some() || self.before <= 1 {
                seen.own_word = self.begun.message.or(self.about);
            }
        }
    }

    fn reply(&mut self, code: u16, good: &str, end_of: Option<usize>) {
        match code {
            550.. => self.say(&format!("{code} 5.7.1 no"), end_of),
            400.. => self.say(&format!("{code} 4.7.1 later"), end_of),
            _ => self.say(good, end_of),
        }
    }

    fn ends(&mut self, code: u16) {
        let begun = std::mem::take(&mut self.begun);
        let Some(message) = begun.message else { return };
        if code < 400 {
            let mut seen = self.host.seen.lock();
            begun.to.iter().for_each(|recipient| seen.got[message][*recipient] += 1);
        }
        let good = if self.host.world.apart { "250 2.0.0 queued" } else { "250 ok" };
        self.reply(code, good, Some(message));
    }

    async fn serve(mut self, io: tokio::io::DuplexStream) -> std::io::Result<()> {
        let mut io = BufReader::new(io);
        let recipient_ok = if self.host.world.apart { "250 2.1.5 ok" } else { "250 ok" };
        self.say("220 mx.example", None);
        loop {
            if io.buffer().is_empty() {
                io.get_mut().write_all(&self.output).await?;
                self.output.clear();
            }
            let mut line = String::new();
            if io.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let verdict = |message: usize| self.host.world.verdicts[message].0;
            let code = self.begun.message.map(verdict);
            let digits = |from: &str| line.split_once(from).and_then(|(_, n)| n.get(..1)?.parse::<usize>().ok());
            match line.get(..4).unwrap_or_default() {
                "EHLO" => {
                    self.begun = Begun::default();
                    let keywords: String =
                        self.host.world.extensions.split('|').map(|k| format!("250-{k}\r\n")).collect();
                    self.say(&format!("250-mx.example\r\n{keywords}250 8BITMIME"), None);
                }
                "RSET" => {
                    self.begun = Begun::default();
                    self.say("250 2.0.0 reset", None);
                }
                "MAIL" => {
                    let message = digits("<m").expect("one of the three");
                    self.before += 1;
                    self.about = Some(message);
                    let code = verdict(message)[0];
                    self.begun.message = (code < 400).then_some(message);
                    self.reply(code, if self.host.world.apart { "250 2.1.0 ok" } else { "250 ok" }, None);
                }
                "RCPT" => match code {
                    None => self.say("503 5.5.1 MAIL first", None),
                    Some(code) => {
                        let recipient = digits("<r").expect("one of the two");
                        let code = code[1 + recipient];
                        if code < 400 {
                            self.begun.to.push(recipient);
                        }
                        self.reply(code, recipient_ok, None);
                    }
                },
                "DATA" if self.begun.to.is_empty() => self.say("503 5.5.1 nobody", None),
                "DATA" => {
                    let code = code.expect("a transaction");
                    self.reply(code[3], "354 go", None);
                    if code[3] == 354 {
                        io.get_mut().write_all(&self.output).await?;
                        self.output.clear();
                        let mut line = String::new();
                        while line != ".\r\n" {
                            line.clear();
                            if io.read_line(&mut line).await? == 0 {
                                return Ok(());
                            }
                        }
                        self.ends(code[4]);
                    }
                }
                "BDAT" => {
                    let size = line.split_ascii_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a size");
                    io.read_exact(&mut vec![0; size]).await?;
                    match code.filter(|_| !self.begun.to.is_empty()) {
                        None => self.say("503 5.5.1 nobody", None),
                        Some(code) => self.ends(if code[3] == 354 { code[4] } else { code[3] }),
                    }
                }
                "QUIT" => {
                    self.say("221 bye", None);
                    io.get_mut().write_all(&self.output).await?;
                    return Ok(());
                }
                _ => self.say("500 what?", None),
            }
        }
    }
}

struct Dial(Arc<Host>);

#[async_trait]
impl Dialer for Dial {
    async fn dial(&self, _: std::net::SocketAddr) -> std::io::Result<Box<dyn Io>> {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let session =
            Session { host: self.0.clone(), output: Vec::new(), begun: Begun::default(), before: 0, about: None };
        tokio::spawn(session.serve(theirs));
        Ok(Box::new(ours))
    }
}

/// What became of the recipients of a message, and how often its end was uncertain.
#[derive(Default, Clone, Copy, Debug)]
struct Became {
    delivered: [bool; 2],
    failed: [bool; 2],
    uncertain: [u32; 2],
}

async fn run(world: World) -> ([Became; 3], Seen) {
    let host_ = Arc::new(Host { world, seen: Mutex::default() });
    let connector = connector().with_dialer(Arc::new(Dial(host_.clone())));
    let (route, provider) = (route(25, vec![host("a.example", 10, &["192.0.2.1"])]), provider());
    let mut became = [Became::default(); 3];
    let mut link = None;
    for (message, became) in became.iter_mut().enumerate() {
        let mut mail = hello();
        mail.message.envelope.reverse_path = Some(address(&format!("m{message}@s.example")));
        let mut wants_fresh = false;
        // Each try has its own connection if the one before ended; four are more than one reply can spoil.
        for _ in 0..4 {
            let open: Vec<usize> = (0..2).filter(|r| !became.delivered[*r] && !became.failed[*r]).collect();
            if open.is_empty() {
                break;
            }
            let reusable = link.take_if(|link: &mut mailweir::deliver::Connection| {
                !wants_fresh && link.is_usable() && link.takes_more() && link.is_alive()
            });
            let mut connection = match reusable {
                Some(connection) => connection,
                None => {
                    connector.forget_dead();
                    match connector.open(&provider, &route).await {
                        Ok(connection) => connection,
                        Err(_) => continue,
                    }
                }
            };
            let names: Vec<String> = open.iter().map(|r| format!("r{r}@x.example")).collect();
            let report = mail.send(&mut connection, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
            wants_fresh = false;
            for (recipient, fact) in open.into_iter().zip(&report.facts) {
                match judge(fact).fate {
                    Fate::Delivered => became.delivered[recipient] = true,
                    Fate::Fail => became.failed[recipient] = true,
                    Fate::Again { uncertain: true, .. } => became.uncertain[recipient] += 1,
                    Fate::AtOnce => wants_fresh = true,
                    Fate::Again { .. } | Fate::Back { .. } | Fate::Front => {}
                }
            }
            link = Some(connection);
        }
    }
    let seen = std::mem::take(&mut *host_.seen.lock());
    (became, seen)
}

fn holds(world: World) -> Result<(), TestCaseError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime");
    let verdicts = world.verdicts;
    let (became, seen) = runtime.block_on(run(world));
    for (message, (became, verdict)) in became.iter().zip(verdicts).enumerate() {
        let own_word = seen.own_word == Some(message);
        for recipient in 0..2 {
            let got = seen.got[message][recipient];
            let of = format!("message {message} to {recipient}: {became:?}, got {got}");
            if became.failed[recipient] && !own_word {
                prop_assert!(verdict.refuses(recipient), "bounced: {}", of);
            }
            if became.delivered[recipient] && !own_word {
                prop_assert!(got > 0, "lost: {}", of);
            }
            prop_assert!(got <= 1 + became.uncertain[recipient] + u32::from(own_word), "twice: {}", of);
        }
    }
    Ok(())
}

fn any_world() -> impl Strategy<Value = World> {
    let verdict = || (0..VERDICTS.len()).prop_map(|n| VERDICTS[n]);
    let text = prop_oneof![
        Just("250 2.0.0 extra"),
        Just("250 ok"),
        Just("250 2.1.5 ok"),
        Just("554 5.7.1 extra"),
        Just("501 5.5.4 extra"),
        Just("451 4.7.1 extra"),
        Just("421 4.7.0 extra"),
    ];
    let extra = (2..40usize, text, any::<bool>()).prop_map(|(before, text, early)| Extra { before, text, early });
    let extensions = prop_oneof![Just("SIZE"), Just("PIPELINING"), Just("PIPELINING|CHUNKING")];
    (verdict(), verdict(), verdict(), extensions, any::<bool>(), extra)
        .prop_map(|(a, b, c, extensions, apart, extra)| World { verdicts: [a, b, c], extensions, apart, extra })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn one_reply_too_many_is_nobody_elses_fate(world in any_world()) {
        holds(world)?;
    }
}

/// A 421 in front of the reply to MAIL, or right behind the trial of BDAT, from a host that goes on and takes the message.
#[test]
fn worlds_that_failed_once_hold() {
    const ENDS: &str = "421 4.7.0 extra";
    const REFUSES: &str = "554 5.7.1 extra";
    for (verdicts, before, early, text) in
        [([0, 0, 0], 9, false, ENDS), ([3, 3, 0], 9, true, ENDS), ([3, 6, 3], 13, false, REFUSES)]
    {
        let extra = Extra { before, text, early };
        let world =
            World { verdicts: verdicts.map(|n| VERDICTS[n]), extensions: "PIPELINING|CHUNKING", apart: true, extra };
        if let Err(why) = holds(world.clone()) {
            panic!("{world:?}: {why}");
        }
    }
}

/// A message is refused in the words in which the one before was, and the extra reply comes behind that.
#[test]
fn a_refusal_in_the_same_words_is_no_copy_at_a_host_that_makes_none() {
    let extra = Extra { before: 31, text: "250 2.0.0 extra", early: false };
    let verdicts = [2, 7, 8].map(|n| VERDICTS[n]);
    let world = World { verdicts, extensions: "PIPELINING", apart: false, extra };
    if let Err(why) = holds(world.clone()) {
        panic!("{world:?}: {why}");
    }
}

/// Where three messages are taken, each place for each reply, however the host talks.
#[test]
fn one_reply_too_many_at_every_place_of_a_good_session() {
    for extensions in ["SIZE", "PIPELINING", "PIPELINING|CHUNKING"] {
        for (before, early, apart) in
            (2..24).flat_map(|n| [(n, false, false), (n, false, true), (n, true, false), (n, true, true)])
        {
            for text in ["250 2.0.0 extra", "554 5.7.1 extra"] {
                let extra = Extra { before, text, early };
                let world = World { verdicts: [VERDICTS[0]; 3], extensions, apart, extra };
                if let Err(why) = holds(world.clone()) {
                    panic!("{world:?}: {why}");
                }
            }
        }
    }
}
