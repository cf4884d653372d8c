//! Hosts that answer a command twice, in one write or a moment later: they get their mail all the same, and a
//! refusal that answers nothing is nobody's fate until the host repeats it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mailweir::deliver::connect::{Connector, Dialer};
use mailweir::deliver::{Fact, Io, Transaction};
use mailweir::outcome::{Fate, judge};
use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use crate::common::*;
use crate::connecting::{connector, host, route};

const A: &str = "a@x.example";
const B: &str = "b@x.example";

/// What is answered twice.
const STAGES: [&str; 5] = ["greeting", "EHLO", "MAIL", "RCPT", "."];

/// A host that answers one of them twice.
#[derive(Clone)]
struct Twice {
    stage: &'static str,
    /// The second reply; `None`: the first once more.
    then: Option<&'static str>,
    later: Duration,
    pipelining: bool,
    /// Messages taken, with how many recipients each.
    taken: Arc<Mutex<Vec<usize>>>,
}

impl Twice {
    fn new(stage: &'static str, then: Option<&'static str>, later: u64, pipelining: bool) -> Twice {
        Twice { stage, then, later: Duration::from_millis(later), pipelining, taken: Arc::default() }
    }

    async fn say(&self, io: &mut (impl AsyncWriteExt + Unpin), stage: &str, reply: &str) -> std::io::Result<()> {
        let twice = self.stage == stage;
        let again = format!("{}\r\n", self.then.unwrap_or(reply));
        let first = format!("{reply}\r\n{}", if twice && self.later.is_zero() { &again } else { "" });
        io.write_all(first.as_bytes()).await?;
        if twice && !self.later.is_zero() {
            tokio::time::sleep(self.later).await;
            io.write_all(again.as_bytes()).await?;
        }
        Ok(())
    }

    async fn serve(self, io: impl Io) -> std::io::Result<()> {
        let mut io = BufReader::new(io);
        self.say(&mut io, "greeting", "220 mx.example").await?;
        let (mut line, mut recipients) = (String::new(), 0);
        loop {
            line.clear();
            if io.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let verb = line.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
            let hello =
                if self.pipelining { "250-mx.example\r\n250 PIPELINING" } else { "250-mx.example\r\n250 8BITMIME" };
            let reply = match verb.as_str() {
                "EHLO" => hello,
                "RCPT" => {
                    recipients += 1;
                    "250 2.1.5 ok"
                }
                "MAIL" | "RSET" => {
                    recipients = 0;
                    "250 2.1.0 ok"
                }
                "DATA" => "354 go",
                "QUIT" => return io.write_all(b"221 bye\r\n").await,
                _ => "500 5.5.2 what?",
            };
            self.say(&mut io, &verb, reply).await?;
            if verb == "DATA" {
                let mut end = Vec::new();
                while !end.ends_with(b"\r\n.\r\n") && !end.starts_with(b".\r\n") {
                    end.push(io.read_u8().await?);
                }
                self.taken.lock().push(recipients);
                self.say(&mut io, ".", "250 2.0.0 queued").await?;
            }
        }
    }
}

#[async_trait]
impl Dialer for Twice {
    async fn dial(&self, _: SocketAddr) -> std::io::Result<Box<dyn Io>> {
        let (ours, theirs) = tokio::io::duplex(65_536);
        tokio::spawn(self.clone().serve(theirs));
        Ok(Box::new(ours))
    }
}

/// Sends a message until it has a fate other than to go again at once; how often it was tried, and its fates.
async fn to_the_end(connector: &Connector, to: &[&str]) -> (usize, Vec<(Fact, Fate)>) {
    let route = route(25, vec![host("a.example", 10, &["192.0.2.1"])]);
    for tries in 1..=5 {
        let mut connection = connector.open(&provider(), &route).await.expect("a session");
        let report = hello().send(&mut connection, to).await;
        connection.quit().await;
        let facts: Vec<_> = report.facts.into_iter().map(|fact| (fact.clone(), judge(&fact).fate)).collect();
        if facts.iter().any(|(_, fate)| *fate != Fate::AtOnce) {
            return (tries, facts);
        }
    }
    panic!("it goes again and again");
}

/// As it has to be found out first: pipelined, a command at a time, and with a moment before each.
#[tokio::test(start_paused = true)]
async fn whatever_a_host_says_twice_it_gets_its_mail_at_once() {
    for stage in STAGES {
        for later in [0, 100] {
            for pipelining in [false, true] {
                let host = Twice::new(stage, None, later, pipelining);
                let (taken, connector) = (host.taken.clone(), connector().with_dialer(Arc::new(host)));
                let case = format!("{stage}, {later} ms, pipelining {pipelining}");
                for nth in 1..=3 {
                    let (tries, facts) = to_the_end(&connector, &[A, B]).await;
                    for (fact, fate) in &facts {
                        let told = format!("{}: {}", fact.stage, fact.event);
                        assert_eq!(told, "end of data: 250 2.0.0 queued", "{case}: {facts:?}");
                        assert_eq!(*fate, Fate::Delivered, "{case}");
                    }
                    assert!(tries == 1 || nth == 1 && tries <= 3, "{case}: {tries} connections for message {nth}");
                }
                assert_eq!(*taken.lock(), [2, 2, 2], "{case}");
            }
        }
    }
}

/// The moment for a second answer comes before the permit. A connection that was made ready before the host was heard to answer
/// twice is made ready again: behind a permit the moment would bring its MAIL right before the next one.
#[tokio::test(start_paused = true)]
async fn a_connection_that_waited_while_its_host_was_heard_to_answer_twice_owes_a_moment() {
    let connector = connector().with_dialer(Arc::new(Twice::new("RCPT", None, 100, false)));
    let route = route(25, vec![host("a.example", 10, &["192.0.2.1"])]);
    let mut waiting = connector.open(&provider(), &route).await.expect("a session");
    let mail = hello();
    let tx = Transaction { message: &mail.message, recipients: &[], body: &mail };
    waiting.make_ready(&tx).await;
    assert!(!waiting.owes_wait(), "nothing is known of the host");
    to_the_end(&connector, &[A, B]).await;
    assert!(waiting.owes_wait(), "another connection has heard it");
    waiting.make_ready(&tx).await;
    assert!(!waiting.owes_wait());
    assert_eq!(fates(&mail.send(&mut waiting, &[A]).await), ["end of data: 250 2.0.0 queued"]);
    assert!(waiting.owes_wait(), "for the next one");
}

/// In one write it is seen before the message; later it comes before the reply to the first one.
#[tokio::test(start_paused = true)]
async fn a_host_that_says_its_go_ahead_twice_gets_its_mail() {
    for (later, pipelining) in [(0, false), (0, true), (100, false), (100, true)] {
        let host = Twice::new("DATA", None, later, pipelining);
        let connector = connector().with_dialer(Arc::new(host));
        let case = format!("{later} ms, pipelining {pipelining}");
        for _ in 0..3 {
            let (_, facts) = to_the_end(&connector, &[A]).await;
            assert_eq!(facts[0].1, Fate::Delivered, "{case}: {facts:?}");
        }
    }
}

/// It may be about anything; but a host that says it each time means it.
#[tokio::test(start_paused = true)]
async fn a_refusal_that_answers_nothing_counts_when_the_host_repeats_it() {
    for (stage, at) in [("MAIL", "MAIL"), ("RCPT", "RCPT"), ("DATA", "DATA")] {
        for (then, later) in [("554 5.7.1 too many", 0), ("451 4.7.1 later", 0)] {
            for pipelining in [false, true] {
                let host = Twice::new(stage, Some(then), later, pipelining);
                let (taken, connector) = (host.taken.clone(), connector().with_dialer(Arc::new(host)));
                let case = format!("{stage}, {then}, pipelining {pipelining}");
                let (tries, facts) = to_the_end(&connector, &[A]).await;
                assert!((2..=4).contains(&tries), "{case}: {tries}");
                let (fact, fate) = &facts[0];
                assert_eq!(format!("{}: {}", fact.stage, fact.event), format!("{at}: {then}"), "{case}");
                match then.starts_with('5') {
                    true => assert_eq!(*fate, Fate::Fail, "{case}"),
                    false => assert!(matches!(fate, Fate::Again { uncertain: false, .. }), "{case}: {fate:?}"),
                }
                assert_eq!(*taken.lock(), [0; 0], "{case}");
            }
        }
    }
}
