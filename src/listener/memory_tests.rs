//! Tests of [`Memory`], alone and under sessions on paused time. The queue of these refuses every
//! message, so a 451 tells that one was read to its end.

use std::future::poll_fn;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::watch;

use super::*;
use crate::listener::draft::tests::NoIntake;
use crate::listener::seat::Seat;
use crate::listener::session::{self, Stop};
use crate::listener::submit::Shared;
use crate::listener::tests_config;
use crate::mail::Caller;

fn ip(last: u8) -> IpAddr {
    [192, 0, 2, last].into()
}

/// Asks for what a message of `content` bytes needs.
fn grow(upload: &mut Upload, content: u64) -> Option<Waiting> {
    assert!(!upload.covers(content));
    upload.ask().expect("room to wait")
}

async fn is_granted(waiting: &mut Waiting) -> Option<Ticket> {
    poll_fn(|context| {
        Poll::Ready(match Pin::new(&mut *waiting).poll(context) {
            Poll::Ready(ticket) => ticket,
            Poll::Pending => None,
        })
    })
    .await
}

#[tokio::test]
async fn tickets_stay_within_the_part_and_go_to_the_client_with_the_fewest() {
    let part = 16 << 20;
    let memory = Memory::new(part);
    let mut first: Vec<Upload> = (0..100).map(|_| memory.upload(ip(1))).collect();
    let mut waiting = Vec::new();
    for upload in &mut first {
        upload.begin(1 << 20);
        waiting.extend(grow(upload, TINY_CONTENT + 1));
        assert!(memory.used() <= part + 100 * TINY, "{}", memory.used());
    }
    let granted = first.len() - waiting.len();
    assert!((10..=17).contains(&granted), "{granted}");
    let mut other = memory.upload(ip(2));
    other.begin(1 << 20);
    let mut others = grow(&mut other, TINY_CONTENT + 1).expect("all are taken");
    // Tiny and short messages go on beside them.
    let mut short = memory.upload(ip(1));
    assert!(short.covers(TINY_CONTENT));
    assert!(grow(&mut short, TINY_CONTENT + 1).is_none());
    for upload in first.iter_mut().take(6) {
        upload.end();
    }
    assert!(is_granted(&mut others).await.is_some(), "the last to come, but the one that has none");
    drop((first, waiting, others, other, short));
    assert_eq!(memory.used(), 0);
    assert!(memory.long.state.lock().held.is_empty() && memory.long.state.lock().waiting.is_empty());
}

#[tokio::test]
async fn a_ticket_for_somebody_who_went_away_goes_to_the_next() {
    let memory = Memory::new(0);
    let mut uploads: Vec<Upload> = (1..=3).map(|n| memory.upload(ip(n))).collect();
    uploads.iter_mut().for_each(|upload| upload.begin(1 << 20));
    assert!(grow(&mut uploads[0], TINY_CONTENT + 1).is_none(), "there is always one that goes on");
    let gone = grow(&mut uploads[1], TINY_CONTENT + 1).expect("waits");
    let mut next = grow(&mut uploads[2], TINY_CONTENT + 1).expect("waits");
    uploads[0].end();
    assert!(is_granted(&mut next).await.is_none());
    drop(gone);
    assert!(is_granted(&mut next).await.is_some());
}

#[tokio::test]
async fn few_that_hold_a_short_ticket_wait_for_a_long_one() {
    let memory = Memory::new(0);
    let mut long = memory.upload(ip(1));
    assert!(grow(&mut long, SHORT_CONTENT + 1).is_none());
    let mut shorts: Vec<Upload> = (2..=3).map(|n| memory.upload(ip(n))).collect();
    for upload in &mut shorts {
        assert!(grow(upload, TINY_CONTENT + 1).is_none());
    }
    let _waits = grow(&mut shorts[0], SHORT_CONTENT + 1).expect("waits");
    assert!(!shorts[1].covers(SHORT_CONTENT + 1));
    assert_eq!(shorts[1].ask().expect_err("or no short message would have room"), Crowded);
}

/// A session with `client` as its other end.
struct Talk {
    stream: DuplexStream,
    _stop: watch::Sender<bool>,
}

impl Talk {
    fn start(shared: &Arc<Shared>, client: u8) -> Talk {
        let (stream, theirs) = tokio::io::duplex(1 << 20);
        let (stop, signal) = watch::channel(false);
        let stop_of_session = Stop { signal, drain: Duration::ZERO };
        tokio::spawn(session::run(theirs, Caller::Ip(ip(client)), shared.clone(), stop_of_session, Seat::default()));
        Talk { stream, _stop: stop }
    }

    async fn say(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.expect("open");
    }

    /// The next reply, or nothing at the end.
    async fn hear(&mut self) -> String {
        let mut said = Vec::new();
        loop {
            let line = said.split_inclusive(|b| *b == b'\n').next_back().unwrap_or_default();
            if line.ends_with(b"\n") && line.get(3) == Some(&b' ') {
                break;
            }
            match self.stream.read_u8().await {
                Ok(byte) => said.push(byte),
                Err(_) => break,
            }
        }
        String::from_utf8_lossy(&said).into_owned()
    }

    /// Begins a message whose content is announced with `size` bytes.
    async fn begin(&mut self, size: usize) {
        assert!(self.hear().await.starts_with("220"));
        for (command, reply) in [
            ("EHLO a.example\r\n".to_owned(), "250"),
            (format!("MAIL FROM:<a@b.example> SIZE={size}\r\n"), "250"),
            ("RCPT TO:<c@d.example>\r\n".to_owned(), "250"),
            ("DATA\r\n".to_owned(), "354"),
        ] {
            self.say(&command).await;
            let said = self.hear().await;
            assert!(said.starts_with(reply), "{command}{said}");
        }
        self.say("Subject: x\r\n\r\n").await;
    }
}

fn shared(memory: u64) -> Arc<Shared> {
    let mut listener = tests_config();
    listener.allow = vec!["192.0.2.0/24".parse().expect("a network")];
    listener.max_message_size = 1 << 30;
    Arc::new(Shared::new(Arc::new(listener), "relay.example", NoIntake::with_memory(memory)))
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_stands_still_gives_way_and_short_messages_never_wait() {
    let shared = shared(0);
    let half = "a line of a large message\r\n".repeat(10_000);
    let mut still = Talk::start(&shared, 1);
    still.begin(1 << 20).await;
    still.say(&half).await;
    let mut next = Talk::start(&shared, 2);
    next.begin(1 << 20).await;
    let began = Instant::now();
    next.say(&half).await;
    next.say(".\r\n").await;
    // Beside both, and without any time going by.
    for content in [1, 500] {
        let mut short = Talk::start(&shared, 3);
        short.begin(0).await;
        short.say(&"short\r\n".repeat(content)).await;
        short.say(".\r\n").await;
        assert!(short.hear().await.starts_with("451 4.3.0"));
    }
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(still.hear().await, format!("{}\r\n", crate::listener::policy::TOO_SLOW));
    assert!(next.hear().await.starts_with("451 4.3.0"), "it was read to its end");
    assert!(began.elapsed() <= 2 * GROWTH_TIME, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_memory_waits_no_longer_than_data_may_take() {
    let shared = shared(0);
    let line = "a line of a large message\r\n";
    let mut steady = Talk::start(&shared, 1);
    steady.begin(1 << 20).await;
    let going = tokio::spawn(async move {
        // As fast as it must be, and no faster.
        for _ in 0..100 {
            steady.say(&line.repeat(70_000 / line.len())).await;
            tokio::time::sleep(GROWTH_TIME - Duration::from_secs(1)).await;
        }
        steady
    });
    let mut next = Talk::start(&shared, 2);
    next.begin(1 << 20).await;
    let began = Instant::now();
    next.say(&line.repeat(1000)).await;
    assert_eq!(next.hear().await, format!("{}\r\n", crate::listener::policy::NO_MEMORY));
    assert_eq!(began.elapsed(), shared.listener.data_timeout);
    drop(going);
}

#[tokio::test(start_paused = true)]
async fn an_upload_nobody_waits_for_may_be_as_slow_as_data_timeout_allows() {
    let shared = shared(0);
    let mut slow = Talk::start(&shared, 1);
    slow.begin(1 << 20).await;
    slow.say(&"a line\r\n".repeat(2000)).await;
    for _ in 0..20 {
        tokio::time::sleep(shared.listener.data_timeout - Duration::from_secs(1)).await;
        slow.say("a line\r\n").await;
    }
    slow.say(".\r\n").await;
    assert!(slow.hear().await.starts_with("451 4.3.0"));
}

#[tokio::test]
async fn recipients_beyond_the_memory_are_for_another_transaction() {
    let listener = crate::config::Listener { max_recipients: 100_000, ..tests_config() };
    let intake = NoIntake::with_memory(0);
    let memory = intake.memory().clone();
    let shared = Arc::new(Shared::new(Arc::new(listener), "relay.example", intake));
    let (stream, theirs) = tokio::io::duplex(1 << 20);
    let (stop, signal) = watch::channel(false);
    let stop_of_session = Stop { signal, drain: Duration::ZERO };
    tokio::spawn(session::run(theirs, Caller::Ip([127, 0, 0, 1].into()), shared, stop_of_session, Seat::default()));
    let mut talk = Talk { stream, _stop: stop };
    talk.hear().await;
    talk.say("MAIL FROM:<a@b.example>\r\n").await;
    talk.hear().await;
    let mut taken = 0;
    let refused = loop {
        talk.say(&format!("RCPT TO:<user{taken}@d.example>\r\n")).await;
        let said = talk.hear().await;
        if !said.starts_with("250") {
            break said;
        }
        taken += 1;
        assert!(taken < 100_000, "100,000 recipients in 1 MiB");
    };
    assert!(refused.starts_with("452 4.3.1"), "{refused}");
    assert!(taken > 1000 && memory.used() <= LEAST, "{taken} {}", memory.used());
    talk.say("RSET\r\n").await;
    talk.hear().await;
    assert_eq!(memory.used(), SESSION);
}
