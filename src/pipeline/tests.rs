//! The relay in one process, with a queue that misbehaves and a host that takes everything.

use std::sync::atomic::AtomicUsize;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

use super::*;
use crate::clock::Timestamp;
use crate::mail::{Address, BodyTraits, Envelope, LaneName, Origin};
use crate::queue::sqlite::SqliteQueue;
use crate::queue::{Counts, Filter, LaneDue, Leased, Operation, Page, Settlement};

/// A queue whose first `faults` chunks make the reader panic, as a bug would.
struct Faulty {
    queue: Arc<dyn Queue>,
    faults: AtomicUsize,
}

#[async_trait]
impl Queue for Faulty {
    fn next_id(&self, now: Timestamp) -> QueueId {
        self.queue.next_id(now)
    }
    async fn spill(&self, id: QueueId, index: u32, chunk: Bytes) -> Result<(), QueueError> {
        self.queue.spill(id, index, chunk).await
    }
    async fn unspill(&self, id: QueueId) {
        self.queue.unspill(id).await;
    }
    async fn accept(&self, message: NewMessage) -> Result<(), QueueError> {
        self.queue.accept(message).await
    }
    async fn claim_older(&self, lane: &LaneName, now: Timestamp, limit: usize) -> Result<Vec<Leased>, QueueError> {
        self.queue.claim_older(lane, now, limit).await
    }
    async fn claim(&self, lane: &LaneName, now: Timestamp, limit: usize) -> Result<Vec<Leased>, QueueError> {
        self.queue.claim(lane, now, limit).await
    }
    async fn settle(&self, settlements: Vec<Settlement>, follow_ups: Vec<NewMessage>) -> Result<(), QueueError> {
        self.queue.settle(settlements, follow_ups).await
    }
    async fn chunk(&self, id: QueueId, index: u32) -> Result<Option<Bytes>, QueueError> {
        let less = |n: usize| n.checked_sub(1);
        assert!(self.faults.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_err(), "a fault on purpose");
        self.queue.chunk(id, index).await
    }
    async fn lanes(&self, after: Option<LaneName>, limit: usize) -> Result<Vec<LaneDue>, QueueError> {
        self.queue.lanes(after, limit).await
    }
    async fn lane_due(&self, lane: &LaneName) -> Result<Option<Timestamp>, QueueError> {
        self.queue.lane_due(lane).await
    }
    async fn move_lane(&self, from: &LaneName, to: &LaneName, limit: usize) -> Result<usize, QueueError> {
        self.queue.move_lane(from, to, limit).await
    }
    async fn inspect(&self, filter: &Filter, after: Option<RecipientKey>, limit: usize) -> Result<Page, QueueError> {
        self.queue.inspect(filter, after, limit).await
    }
    async fn operate(
        &self,
        op: Operation,
        keys: &[RecipientKey],
        withdrawn: &[RecipientKey],
        now: Timestamp,
    ) -> Result<usize, QueueError> {
        self.queue.operate(op, keys, withdrawn, now).await
    }
    async fn counts(&self) -> Result<Counts, QueueError> {
        self.queue.counts().await
    }
    async fn forget(&self, now: Timestamp, keep: Duration, limit: usize) -> Result<usize, QueueError> {
        self.queue.forget(now, keep, limit).await
    }
    async fn remember(&self, entries: Vec<(String, Option<Bytes>)>) -> Result<(), QueueError> {
        self.queue.remember(entries).await
    }
    async fn recall(&self, prefix: &str) -> Result<Vec<(String, Bytes)>, QueueError> {
        self.queue.recall(prefix).await
    }
    async fn close(&self) {
        self.queue.close().await;
    }
}

/// Says yes to everything, one command at a time.
async fn host(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let (read, mut write) = stream.split();
            let mut lines = BufReader::new(read).lines();
            let _ = write.write_all(b"220 host\r\n").await;
            let mut data = false;
            while let Ok(Some(line)) = lines.next_line().await {
                let reply: &[u8] = match (data, line.as_str()) {
                    (true, ".") => b"250 ok\r\n",
                    (true, _) => continue,
                    (false, "DATA") => b"354 go\r\n",
                    (false, "QUIT") => return,
                    (false, _) => b"250 ok\r\n",
                };
                data = reply.starts_with(b"354");
                if write.write_all(reply).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// Invariant 2: a fault in a worker costs one attempt, neither the recipient nor the lane.
#[tokio::test]
async fn a_worker_that_panics_loses_no_recipient_and_stalls_no_lane() {
    let dir = tempfile::tempdir().expect("a directory");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(host(listener));

    let text = format!(
        "[provider.host]\nrelay = \"{address}\"\ntls = \"off\"\nconnections = 1\nrate = []\n\
         [[route]]\nrecipient = \"*\"\nvia = \"host\"\n[retry]\nfirst = \"1s\"\njitter = 0.0\n"
    );
    let config = Arc::new(Config::parse(&text, "test").expect("a configuration"));
    let clock = Clock::System;
    let queue: Arc<dyn Queue> = Arc::new(Faulty {
        queue: SqliteQueue::open(&dir.path().join("q.db"), clock).expect("a queue"),
        faults: AtomicUsize::new(2),
    });
    let router = Arc::new(Router::new(config.clone()).expect("a router"));
    // Without memory every body is read from the queue.
    let scheduler = Scheduler::new(queue.clone(), clock, 0, Vec::new(), {
        let router = router.clone();
        move |lane| router.provider_of_lane(lane)
    });
    let (stop, stopping) = watch::channel(false);
    let connector = Connector::new("relay.example").expect("a connector");
    let relay = Relay::new(config, clock, queue.clone(), router, connector, scheduler.clone(), stopping.clone());
    tokio::spawn(scheduler.run(stopping));

    let head = Bytes::from_static(b"Subject: x\r\n\r\nx\r\n");
    for _ in 0..3 {
        let message = Message {
            id: queue.next_id(clock.now()),
            received: clock.now(),
            envelope: Envelope { reverse_path: Address::parse("a@a.example").ok(), ..Envelope::default() },
            origin: Origin::Local,
            size: head.len() as u64,
            traits: BodyTraits::default(),
        };
        let recipient = Recipient::new(Address::parse("b@b.example").expect("an address"));
        relay.accept(message, vec![recipient], head.clone()).await.expect("accepted");
    }
    let delivered = async {
        while relay.stats.delivered.get() < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), delivered).await.expect("all three are delivered");
    assert_eq!(queue.counts().await.expect("counts"), Counts::default());
    let _ = stop.send(true);
    relay.workers.none().await;
    queue.close().await;
}
