//! One reply too many within a transaction, behind the 354: it decides nobody's fate, and what cannot be known is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use async_trait::async_trait;
use mailweir::deliver::connect::{Connector, Dialer};
use mailweir::deliver::{Connection, Io};
use mailweir::outcome::{Fate, judge};
use parking_lot::Mutex;

use crate::common::*;
use crate::connecting::{connector, host, route};
use crate::lines::Lines;
use crate::server::{Seen, play};

const A: &str = "a@x.example";
const SURPLUS: &str = "idle: unintelligible server: more replies than commands";
const UNKNOWN: &str =
    "idle: not tried: the refusal came before the end of the message and may have been about a recipient";

/// A transaction to A up to the 354, without PIPELINING.
fn begun() -> String {
    format!(
        "hello 8BITMIME\nC: MAIL FROM:<from@example.org>\nS: 250 2.1.0 ok\nC: RCPT TO:<{A}>\nS: 250 2.1.5 ok\nC: DATA\nS: 354 go\n"
    )
}

/// A body that is out in several writes, and does not fit into the pipe.
fn big() -> Mail {
    Mail::new("Subject: big\r\n\r\n".to_owned() + &"0123456789abcdef\r\n".repeat(100_000))
}

/// Plays one script to each connection, in their order, and keeps what each saw.
struct Scripts {
    scripts: Vec<String>,
    next: AtomicUsize,
    seen: Arc<Mutex<Vec<Result<Seen, String>>>>,
}

#[async_trait]
impl Dialer for Scripts {
    async fn dial(&self, _: std::net::SocketAddr) -> std::io::Result<Box<dyn Io>> {
        let script = self.scripts[self.next.fetch_add(1, SeqCst)].clone();
        let (ours, theirs) = tokio::io::duplex(4096);
        let seen = self.seen.clone();
        tokio::spawn(async move {
            let end = play(theirs, &script, None).await;
            seen.lock().push(end);
        });
        Ok(Box::new(ours))
    }
}

/// A host that plays these scripts to our connections, whose quirks are remembered from one to the next.
struct Host {
    connector: Connector,
    seen: Arc<Mutex<Vec<Result<Seen, String>>>>,
}

impl Host {
    fn new(scripts: &[String]) -> Host {
        let seen = Arc::default();
        let scripts = Scripts { scripts: scripts.to_vec(), next: AtomicUsize::new(0), seen: Arc::clone(&seen) };
        Host { connector: connector().with_dialer(Arc::new(scripts)), seen }
    }

    async fn open(&self) -> Connection {
        let route = route(25, vec![host("a.example", 10, &["192.0.2.1"])]);
        self.connector.open(&provider(), &route).await.expect("a session")
    }

    /// The fate of one message on a connection of its own, and what is judged of it.
    async fn one(&self, mail: &Mail) -> (String, Fate) {
        let mut connection = self.open().await;
        let report = mail.send(&mut connection, &[A]).await;
        connection.quit().await;
        let fate = judge(&report.facts[0]).fate;
        (fates(&report).remove(0), fate)
    }
}

/// Collects the log lines of this thread.
fn collect() -> (Lines, tracing::subscriber::DefaultGuard) {
    // Where another test's thread meets a line first, with nobody listening, it would be off for all for a moment.
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry());
    Lines::collect()
}

fn warnings(lines: &Lines) -> Vec<String> {
    lines.text().lines().filter(|line| line.contains("WARN")).map(str::to_owned).collect()
}

/// It is there before anything of the message is out: no part of it is sent, and nobody has a fate by it.
#[tokio::test(start_paused = true)]
async fn a_reply_between_the_go_ahead_and_the_message_is_nobodys_fate() {
    for surplus in ["250 2.1.5 ok", "550 5.1.1 late", "451 4.2.0 late"] {
        let script = begun().replace("S: 354 go", &format!("raw: 354 go\\r\\n{surplus}\\r\\n")) + "eof";
        let (mut connection, server) = new_session(&script).await;
        assert_eq!(fates(&hello().send(&mut connection, &[A]).await), [SURPLUS], "{surplus}");
        assert!(!connection.is_usable());
        connection.quit().await;
        server.done().await;
    }
}

/// It comes while the message is on its way: the dot is never sent.
#[tokio::test(start_paused = true)]
async fn a_reply_in_the_middle_of_a_message_is_nobodys_fate() {
    for (surplus, fate) in [
        ("250 2.1.5 ok", "idle: unintelligible server: a positive reply before the end of the body: 250 2.1.5 ok"),
        ("550 5.1.1 late", UNKNOWN),
        ("451 4.2.0 late", UNKNOWN),
    ] {
        let script = begun() + &format!("take 300000\nS: {surplus}\nstall");
        let (mut connection, _server) = new_session(&script).await;
        assert_eq!(fates(&big().send(&mut connection, &[A]).await), [fate]);
        assert!(!connection.is_usable());
    }
}

/// The surplus comes a moment after the 354, each time: the second connection waits for it, passes over exactly that,
/// and hears the true reply to the dot.
#[tokio::test(start_paused = true)]
async fn a_host_that_answers_a_recipient_twice_each_time_still_gets_its_mail() {
    for (truth, told) in
        [("250 2.0.0 queued", "end of data: 250 2.0.0 queued"), ("554 5.7.1 spam", "end of data: 554 5.7.1 spam")]
    {
        let each = begun() + &format!("wait 100\nS: 250 2.1.5 ok\ndata\nS: {truth}\nC: QUIT\nS: 221 bye\neof");
        // The first is cut off in the middle, as big mail is; then small mail does not run past it, either.
        let host = Host::new(&[begun() + "take 300000\nS: 250 2.1.5 ok\nstall", each.clone(), each]);
        let (first, fate) = host.one(&big()).await;
        assert!(first.starts_with("idle: ") && fate == Fate::AtOnce, "{first}");
        assert_eq!(host.one(&big()).await.0, told);
        assert_eq!(host.one(&hello()).await.0, told);
        let bodies: Vec<usize> = host.seen.lock().iter().flatten().map(|seen| seen.bodies.len()).collect();
        assert_eq!(bodies, [1, 1], "none by the first, and one by each of the others");
    }
}

/// A refusal where nothing can be refused: nothing of the message follows it, as it may be read as commands. It is nobody's
/// fate until the host says it again.
#[tokio::test(start_paused = true)]
async fn after_a_refusal_before_the_message_none_of_it_is_sent() {
    let first = begun() + "take 300000\nS: 550 5.1.1 late\nstall";
    let then = begun() + "wait 100\nS: 550 5.1.1 late\neof";
    let host = Host::new(&[first, then.clone(), then]);
    assert_eq!(host.one(&big()).await, (UNKNOWN.to_owned(), Fate::AtOnce));
    let unasked = "idle: not tried: the refusal came before anything was asked";
    assert_eq!(host.one(&hello()).await, (unasked.to_owned(), Fate::AtOnce));
    assert_eq!(host.one(&hello()).await, ("DATA: 550 5.1.1 late".to_owned(), Fate::Fail));
    tokio::task::yield_now().await;
    assert!(host.seen.lock().iter().all(Result::is_ok), "{:?}", host.seen.lock());
}

/// Hosts do refuse what is too large while it comes: the second time that is the message's fate.
#[tokio::test(start_paused = true)]
async fn a_refusal_in_the_middle_of_a_message_counts_the_second_time() {
    let script = begun() + "take 300000\nS: 552 5.3.4 too big\nstall";
    let host = Host::new(&[script.clone(), script]);
    assert_eq!(host.one(&big()).await, (UNKNOWN.to_owned(), Fate::AtOnce));
    assert_eq!(host.one(&big()).await, ("body: 552 5.3.4 too big".to_owned(), Fate::Fail));
}

/// Where waiting brought nothing, no later message waits.
#[tokio::test(start_paused = true)]
async fn a_moment_in_vain_is_not_waited_for_again() {
    let good = begun() + "data\nS: 250 2.0.0 queued\nC: QUIT\nS: 221 bye\neof";
    let host = Host::new(&[begun() + "take 300000\nS: 250 2.1.5 ok\nstall", good.clone(), good]);
    host.one(&big()).await;
    for waits in [1, 0] {
        let began = tokio::time::Instant::now();
        assert_eq!(host.one(&hello()).await.0, "end of data: 250 2.0.0 queued");
        assert_eq!(began.elapsed().as_secs(), waits);
    }
}

/// Both are there, and one of them takes the message: which is about it cannot be known, so it is tried again.
#[tokio::test(start_paused = true)]
async fn two_replies_to_the_end_that_contradict_each_other_leave_it_open() {
    for (one, other) in [("250 2.1.5 ok", "554 5.7.1 spam"), ("550 5.1.1 late", "250 2.0.0 queued")] {
        let (lines, _guard) = collect();
        let host = Host::new(&[begun() + &format!("data\nraw: {one}\\r\\n{other}\\r\\n\nstall")]);
        let (told, fate) = host.one(&hello()).await;
        assert_eq!(
            told,
            format!("end of data: unintelligible server: two replies to the end of a message: {one}; {other}")
        );
        assert!(matches!(fate, Fate::Again { uncertain: true, .. }), "{fate:?}");
        let warnings = warnings(&lines);
        assert!(
            warnings.len() == 1 && [one, other, "a.example", "id="].iter().all(|word| warnings[0].contains(word)),
            "{warnings:?}"
        );
    }
}

/// Where that is its way, an attempt more would be a copy more: the sender hears both. Another message is another matter.
#[tokio::test(start_paused = true)]
async fn the_second_contradiction_about_a_message_is_its_end() {
    let (one, other) = ("250 2.0.0 queued", "451 4.7.1 later");
    let end = || begun() + "data\nraw: 250 2.0.0 queued\\r\\n451 4.7.1 later\\r\\n\nstall";
    let host = Host::new(&[end(), end(), end()]);
    let mut another = hello();
    another.message.id = mailweir::mail::QueueId(2);
    for mail in [&hello(), &another] {
        assert!(matches!(host.one(mail).await.1, Fate::Again { uncertain: true, .. }));
    }
    let (told, fate) = host.one(&hello()).await;
    assert!(told.contains(one) && told.contains(other) && told.contains("may have arrived"), "{told}");
    assert!(matches!(fate, Fate::Fail), "{fate:?}");
}

/// The first was acted on when the second came: it is told with both, the host and the message, wherever it shows.
#[tokio::test(start_paused = true)]
async fn a_second_reply_to_the_end_that_comes_later_is_told() {
    let told = |lines: &Lines, words: &[&str]| {
        let warnings = warnings(lines);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(words.iter().all(|word| warnings[0].contains(word)), "{warnings:?}");
    };
    let words = ["250 2.0.0 fine", "554 5.7.1 spam", "a.example", "id=", "contradicts itself"];
    // While the connection is idle, and in place of the reply to QUIT.
    for end in ["wait 400\nS: 554 5.7.1 spam\nstall", "C: QUIT\nwait 400\nS: 554 5.7.1 spam\nS: 221 bye"] {
        let (lines, _guard) = collect();
        let host = Host::new(&[
            begun() + "data\nS: 250 2.0.0 fine\n" + end,
            begun() + "wait 100\nS: 250 2.1.5 ok\ndata\nS: 554 5.7.1 spam\nC: QUIT\nS: 221 bye\neof",
        ]);
        let mut connection = host.open().await;
        assert_eq!(fates(&hello().send(&mut connection, &[A]).await), ["end of data: 250 2.0.0 fine"]);
        if end.starts_with("wait") {
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            assert!(!connection.is_alive());
        }
        connection.quit().await;
        told(&lines, &words);
        // The next message waits for it, and has its own fate.
        assert_eq!(host.one(&hello()).await.0, "end of data: 554 5.7.1 spam");
    }
}

/// A host that says 421 in front of its replies, and takes the message, which was out with MAIL.
#[tokio::test(start_paused = true)]
async fn a_host_that_goes_on_behind_its_421_may_have_the_message() {
    let begun = format!("hello PIPELINING|CHUNKING\nC: MAIL FROM:<from@example.org>\nC: RCPT TO:<{A}>\nbdat\n");
    let on = "raw: 421 4.7.0 bye\\r\\n250 ok\\r\\n250 2.1.5 ok\\r\\n250 2.0.0 queued\\r\\n\nstall";
    let told = "end of data: unintelligible server: replies behind a 421";
    for (end, fate) in [(on, told), ("S: 421 4.7.0 bye\nclose", "MAIL: 421 4.7.0 bye")] {
        let (mut connection, _server) = session(&(begun.clone() + end)).await;
        assert_eq!(fates(&hello().send(&mut connection, &[A]).await), [fate]);
    }
}

/// What a host says when it tires of waiting is no second reply.
#[tokio::test(start_paused = true)]
async fn a_host_that_tires_of_waiting_is_not_told_of() {
    for tired in ["421 4.4.2 idle", "451 4.7.0 timeout"] {
        let (lines, _guard) = collect();
        let host = Host::new(&[begun() + &format!("data\nS: 250 2.0.0 queued\nwait 20000\nS: {tired}\nclose")]);
        let mut connection = host.open().await;
        assert_eq!(fates(&hello().send(&mut connection, &[A]).await), ["end of data: 250 2.0.0 queued"]);
        tokio::time::sleep(std::time::Duration::from_secs(30)).await;
        assert!(!connection.is_alive());
        assert_eq!(warnings(&lines), [""; 0]);
        assert!(connection.takes_more());
    }
}
