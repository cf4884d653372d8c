//! What a stop does to sessions inside a transaction, on virtual time.

use tokio::io::{AsyncReadExt, DuplexStream};

use super::*;
use crate::listener::draft::tests::NoIntake;
use crate::listener::tests_config;

const DRAIN: Duration = Duration::from_secs(30);

struct Rig {
    client: DuplexStream,
    stop: watch::Sender<bool>,
}

impl Rig {
    /// A session that has heard MAIL, and last of it a moment ago.
    async fn after_mail() -> Rig {
        let intake = NoIntake::with_memory(1 << 20);
        let shared = Arc::new(Shared::new(Arc::new(tests_config()), "relay.example", intake));
        let (client, theirs) = tokio::io::duplex(4096);
        let (stop, signal) = watch::channel(false);
        let stopping = Stop { signal, drain: DRAIN };
        tokio::spawn(run(theirs, Caller::Ip([127, 0, 0, 1].into()), shared, stopping, Seat::default()));
        let mut rig = Rig { client, stop };
        rig.hears("220 ").await;
        rig.asks("EHLO c.example", "250").await;
        rig.asks("MAIL FROM:<s@s.example>", "250 ").await;
        rig
    }

    async fn hears(&mut self, start: &str) {
        let mut buffer = [0; 4096];
        let n = self.client.read(&mut buffer).await.expect("a reply");
        let said = String::from_utf8_lossy(&buffer[..n]).into_owned();
        assert!(said.starts_with(start), "{said}");
    }

    async fn says(&mut self, line: &str) {
        self.client.write_all(format!("{line}\r\n").as_bytes()).await.expect("it listens");
    }

    async fn asks(&mut self, line: &str, start: &str) {
        self.says(line).await;
        self.hears(start).await;
    }

    /// After how long from now the session says good bye.
    async fn sent_away_after(&mut self) -> Duration {
        let began = Instant::now();
        self.hears("421 4.3.2 ").await;
        began.elapsed()
    }
}

/// Nothing of its mail is here, and nothing is lost.
#[tokio::test(start_paused = true)]
async fn a_client_that_is_idle_before_its_data_is_sent_away_at_once() {
    let mut rig = Rig::after_mail().await;
    tokio::time::sleep(GOES_ON).await;
    rig.stop.send_replace(true);
    assert_eq!(rig.sent_away_after().await, Duration::ZERO);
    // Also one that has just said something and says no more.
    let mut rig = Rig::after_mail().await;
    rig.stop.send_replace(true);
    assert_eq!(rig.sent_away_after().await, GOES_ON);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_on_finishes_its_transaction_within_the_drain_time() {
    let mut rig = Rig::after_mail().await;
    rig.stop.send_replace(true);
    let pause = GOES_ON / 2;
    tokio::time::sleep(pause).await;
    rig.asks("RCPT TO:<r@r.example>", "250 ").await;
    tokio::time::sleep(pause).await;
    rig.asks("DATA", "354 ").await;
    // Data may take as long as there is.
    tokio::time::sleep(DRAIN / 2).await;
    rig.says("Subject: x\r\n\r\nhello").await;
    tokio::time::sleep(GOES_ON * 2).await;
    rig.asks(".", "451 ").await;
}

/// The next chunk is data that is on its way.
#[tokio::test(start_paused = true)]
async fn a_client_between_two_chunks_has_the_drain_time() {
    let mut rig = Rig::after_mail().await;
    rig.asks("RCPT TO:<r@r.example>", "250 ").await;
    rig.client.write_all(b"BDAT 3\r\nabc").await.expect("it listens");
    rig.hears("250 ").await;
    tokio::time::sleep(GOES_ON).await;
    rig.stop.send_replace(true);
    assert_eq!(rig.sent_away_after().await, DRAIN);
}
