//! Hosts, and boxes before them, that refuse commands as out of order which were in order: a session that has lost its state, or
//! a batch of which something was lost. No message has its fate by that, unless the host keeps to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use async_trait::async_trait;
use mailweir::deliver::Io;
use mailweir::deliver::connect::Dialer;
use mailweir::outcome::{Fate, judge};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::*;
use crate::connecting::{connector, host, route};

/// What a session does to what is sent in one write.
#[derive(Clone, Copy, Debug)]
enum Loses {
    Nothing,
    /// All but the last line.
    AllButLast,
    /// The first line.
    First,
    /// The second line.
    Second,
}

#[derive(Clone, Copy, Debug)]
struct World {
    /// Which sessions are bad: so many of so many, from the first on.
    bad: (usize, usize),
    /// What a bad one says to a command, and to which.
    says: Option<(&'static str, &'static str)>,
    loses: Loses,
    pipelining: bool,
}

#[derive(Clone)]
struct Odd {
    world: World,
    sessions: Arc<AtomicUsize>,
    taken: Arc<AtomicUsize>,
}

impl Odd {
    fn answer(&self, line: &str, bad: bool, state: &mut (bool, usize)) -> String {
        let verb = line.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
        if let Some((to, says)) = self.world.says.filter(|(to, _)| bad && *to == verb) {
            let _ = to;
            return says.to_owned();
        }
        match verb.as_str() {
            "EHLO" if self.world.pipelining => "250-mx.example\r\n250 PIPELINING",
            "EHLO" => "250-mx.example\r\n250 8BITMIME",
            "MAIL" => {
                *state = (true, 0);
                "250 2.1.0 fine"
            }
            "RCPT" if !state.0 => "503 5.5.1 Error: need MAIL command",
            "RCPT" => {
                state.1 += 1;
                "250 2.1.5 ok"
            }
            "DATA" if !state.0 => "503 5.5.1 Error: need RCPT command",
            "DATA" if state.1 == 0 => "554 5.5.1 Error: no valid recipients",
            "DATA" => "354 go",
            "RSET" => {
                *state = (false, 0);
                "250 2.0.0 reset"
            }
            "QUIT" => "221 bye",
            _ => "502 5.5.2 Error: command not recognized",
        }
        .to_owned()
    }

    async fn serve(self, mut io: tokio::io::DuplexStream) -> std::io::Result<()> {
        let (bad, of) = self.world.bad;
        let bad = self.sessions.fetch_add(1, SeqCst) % of < bad;
        io.write_all(b"220 mx.example\r\n").await?;
        let (mut state, mut buffer) = ((false, 0), vec![0; 65_536]);
        loop {
            let n = io.read(&mut buffer).await?;
            if n == 0 {
                return Ok(());
            }
            let batch = String::from_utf8_lossy(&buffer[..n]).into_owned();
            let mut lines: Vec<&str> = batch.lines().collect();
            match self.world.loses {
                _ if lines.len() < 2 || !bad => {}
                Loses::Nothing => {}
                Loses::AllButLast => drop(lines.drain(..lines.len() - 1)),
                Loses::First => drop(lines.remove(0)),
                Loses::Second => drop(lines.remove(1)),
            }
            for line in lines {
                let said = self.answer(line, bad, &mut state);
                io.write_all(format!("{said}\r\n").as_bytes()).await?;
                if said.starts_with("221") {
                    return Ok(());
                }
                if said.starts_with("354") {
                    let mut body = Vec::new();
                    while !body.ends_with(b"\r\n.\r\n") {
                        body.push(io.read_u8().await?);
                    }
                    self.taken.fetch_add(1, SeqCst);
                    state = (false, 0);
                    io.write_all(b"250 2.0.0 queued as 4711A\r\n").await?;
                }
            }
        }
    }
}

#[async_trait]
impl Dialer for Odd {
    async fn dial(&self, _: std::net::SocketAddr) -> std::io::Result<Box<dyn Io>> {
        let (ours, theirs) = tokio::io::duplex(65_536);
        tokio::spawn(self.clone().serve(theirs));
        Ok(Box::new(ours))
    }
}

const MESSAGES: usize = 6;

/// How many of the messages were delivered and failed, how often all were tried, and how many the host took.
async fn send_all(world: World) -> (usize, usize, usize, usize) {
    let odd = Odd { world, sessions: Arc::default(), taken: Arc::default() };
    let taken = odd.taken.clone();
    let connector = connector().with_dialer(Arc::new(odd));
    let (route, provider) = (route(25, vec![host("a.example", 10, &["192.0.2.1"])]), provider());
    let (mut delivered, mut failed, mut tries) = (0, 0, 0);
    for number in 0..MESSAGES {
        let mut mail = hello();
        mail.message.id = mailweir::mail::QueueId(number as i64 + 1);
        for _ in 0..12 {
            connector.forget_dead();
            let Ok(mut connection) = connector.open(&provider, &route).await else { continue };
            tries += 1;
            let report = mail.send(&mut connection, &["b@x.example"]).await;
            connection.quit().await;
            match judge(&report.facts[0]).fate {
                Fate::Delivered => delivered += 1,
                Fate::Fail => failed += 1,
                _ => continue,
            }
            break;
        }
    }
    (delivered, failed, tries, taken.load(SeqCst))
}

fn look(worlds: impl IntoIterator<Item = World>) -> (usize, usize) {
    let (mut all, mut bounced) = (0, 0);
    for world in worlds {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        let (delivered, failed, _, taken) = runtime.expect("a runtime").block_on(send_all(world));
        assert_eq!(delivered + failed, MESSAGES, "{world:?}");
        assert!(taken >= delivered, "{world:?}");
        all += MESSAGES;
        bounced += failed;
        if failed > 0 {
            eprintln!("{failed} bounced: {world:?}");
        }
    }
    eprintln!("{bounced} of {all} bounced");
    (all, bounced)
}

fn saying(replies: &[&'static str], bad: (usize, usize)) -> Vec<World> {
    let mut worlds = Vec::new();
    for says in replies {
        for (to, pipelining) in ["MAIL", "RCPT", "DATA"].into_iter().flat_map(|to| [(to, false), (to, true)]) {
            worlds.push(World { bad, says: Some((to, says)), loses: Loses::Nothing, pipelining });
        }
    }
    worlds
}

/// Those that this was made with.
#[test]
fn a_session_that_has_lost_its_state_is_no_messages_fate() {
    let mut worlds =
        saying(&["503 5.5.1 Error: send HELO/EHLO first", "500 Syntax error, command unrecognized"], (1, 2));
    let lost = World { bad: (1, 1), says: None, loses: Loses::AllButLast, pipelining: true };
    worlds.extend([lost, World { loses: Loses::First, ..lost }]);
    assert_eq!(look(worlds), (84, 0));
}

/// And others: other words, more of the sessions, other losses.
#[test]
fn nor_is_it_in_other_words_and_more_often() {
    let replies = [
        "503 bad sequence of commands",
        "502 5.5.1 not implemented",
        "503 5.5.0 Improper use of SMTP command pipelining",
    ];
    let mut worlds = saying(&replies, (2, 3));
    worlds.extend(saying(&["500 5.5.2 unrecognized command"], (3, 4)));
    let lost = World { bad: (2, 3), says: None, loses: Loses::Second, pipelining: true };
    worlds.extend([lost, World { loses: Loses::First, ..lost }, World { loses: Loses::AllButLast, ..lost }]);
    assert_eq!(look(worlds), (162, 0));
}

/// A host that keeps to it has no other word for no; one that names a login or the mail is believed at once.
#[test]
fn a_host_that_keeps_to_it_is_believed() {
    for (says, tries) in [
        ("503 5.5.1 no", 4),
        ("503 This mail server requires authentication", 1),
        ("503 5.7.1 not you", 1),
        ("550 5.1.1 nobody", 1),
        ("501 5.1.3 bad address", 1),
    ] {
        for world in saying(&[says], (1, 1)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
            let came = runtime.expect("a runtime").block_on(send_all(world));
            assert_eq!(came, (0, MESSAGES, MESSAGES * tries, 0), "{world:?}");
        }
    }
}
