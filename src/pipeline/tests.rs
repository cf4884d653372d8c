//! The relay in one process, with a queue that misbehaves and a host that takes everything.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

use super::*;
use crate::clock::Timestamp;
use crate::mail::{Address, BodyTraits, Envelope, LaneName, Notify, Origin, Owed, RecipientKey};
use crate::queue::sqlite::SqliteQueue;
use crate::queue::turns::{Look, Turn};
use crate::queue::{
    Counts, Debt, Debts, Desk, Filter, LaneDue, Lanes, Leased, Leases, Memory, Operation, Owing, Page, Settlement,
    Spool, Swap, Upkeep,
};

/// A report that was to be stored: about which message, and on how many recipients.
pub(crate) type Asked = (Option<QueueId>, usize);

/// A queue whose first `faults` chunks make the reader panic, as a bug would, and that cannot settle
/// some recipients.
pub(crate) struct Faulty {
    queue: Arc<dyn Queue>,
    faults: Arc<AtomicUsize>,
    /// It says that the outcome of a recipient whose index this is makes no sense.
    refuses: Option<u32>,
    /// It panics at the outcome of a recipient whose index this is.
    panics: Option<u32>,
    /// Settlements that find the store damaged.
    damaged: AtomicUsize,
    /// Operations, after those, that find it in trouble.
    away: AtomicUsize,
    /// Says that the disk is full at every settlement, and counts them.
    full: Option<Arc<AtomicUsize>>,
    /// Says that an outcome which owes a report makes no sense.
    refuses_debts: bool,
    /// Reports that it says make no sense.
    report_faults: AtomicUsize,
    /// The reports that it was asked to store.
    pub(crate) reports: Arc<Mutex<Vec<Asked>>>,
    /// Closing it never ends.
    hangs: bool,
}

impl Faulty {
    pub(super) fn new(dir: &tempfile::TempDir) -> Faulty {
        Faulty::over(SqliteQueue::open(&dir.path().join("q.db"), Clock::System).expect("a queue"), 0)
    }

    /// Over a store of any kind; the first reports make no sense to it.
    pub(crate) fn over(queue: Arc<dyn Queue>, report_faults: usize) -> Faulty {
        let none = || AtomicUsize::new(0);
        Faulty {
            queue,
            faults: Arc::default(),
            refuses: None,
            panics: None,
            damaged: none(),
            away: none(),
            full: None,
            refuses_debts: false,
            report_faults: AtomicUsize::new(report_faults),
            reports: Arc::default(),
            hangs: false,
        }
    }

    /// On a disk that neither takes writes nor refuses them.
    pub(crate) fn hanging(dir: &tempfile::TempDir) -> Faulty {
        Faulty { hangs: true, ..Faulty::new(dir) }
    }

    /// With a full disk; counts the settlements that hear so.
    pub(crate) fn full(dir: &tempfile::TempDir, times: Arc<AtomicUsize>) -> Faulty {
        Faulty { full: Some(times), ..Faulty::new(dir) }
    }
}

/// Whether it is one of those times.
fn counts_down(times: &AtomicUsize) -> bool {
    times.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok()
}

#[async_trait]
impl Spool for Faulty {
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
    async fn chunk(&self, id: QueueId, index: u32) -> Result<Option<Bytes>, QueueError> {
        assert!(!counts_down(&self.faults), "a fault on purpose");
        self.queue.chunk(id, index).await
    }
    async fn probe(&self) -> Result<(), QueueError> {
        self.queue.probe().await
    }
}

#[async_trait]
impl Leases for Faulty {
    async fn claim_older(&self, lane: &LaneName, now: Timestamp, limit: usize) -> Result<Vec<Leased>, QueueError> {
        self.queue.claim_older(lane, now, limit).await
    }
    async fn claim(&self, lane: &LaneName, now: Timestamp, limit: usize) -> Result<Vec<Leased>, QueueError> {
        self.queue.claim(lane, now, limit).await
    }
    async fn settle(&self, settlements: Vec<Settlement>, owed: Vec<Owed>) -> Result<(), QueueError> {
        let has = |index: Option<u32>| settlements.iter().any(|s| Some(s.key.index) == index);
        assert!(!has(self.panics), "a fault on purpose");
        if let Some(times) = &self.full {
            times.fetch_add(1, Ordering::SeqCst);
            return Err(QueueError::Full("on purpose".into()));
        }
        if counts_down(&self.damaged) {
            return Err(QueueError::Damaged("on purpose".into()));
        }
        if has(self.refuses) || self.refuses_debts && !owed.is_empty() {
            return Err(QueueError::Invalid("refused on purpose".into()));
        }
        self.queue.settle(settlements, owed).await
    }
}

#[async_trait]
impl Lanes for Faulty {
    async fn lanes(&self, after: Option<LaneName>, limit: usize) -> Result<Vec<LaneDue>, QueueError> {
        self.queue.lanes(after, limit).await
    }
    async fn lane_due(&self, lane: &LaneName) -> Result<Option<Timestamp>, QueueError> {
        self.queue.lane_due(lane).await
    }
    async fn turns(&self, look: Look) -> Result<Vec<Turn>, QueueError> {
        self.queue.turns(look).await
    }
    async fn move_lane(&self, from: &LaneName, to: &LaneName, limit: usize) -> Result<usize, QueueError> {
        self.queue.move_lane(from, to, limit).await
    }
}

#[async_trait]
impl Debts for Faulty {
    async fn owing(&self, after: Option<Owing>, limit: usize) -> Result<Vec<Owing>, QueueError> {
        self.queue.owing(after, limit).await
    }
    async fn owed(&self, id: QueueId, limit: usize) -> Result<Option<Debt>, QueueError> {
        self.queue.owed(id, limit).await
    }
    async fn is_under_way(&self, id: QueueId, until: Timestamp) -> Result<bool, QueueError> {
        self.queue.is_under_way(id, until).await
    }
    async fn report(&self, told: Vec<(RecipientKey, Timestamp)>, report: Option<NewMessage>) -> Result<(), QueueError> {
        let about = told.first().map(|(key, _)| key.id);
        self.reports.lock().push((about, told.len()));
        if counts_down(&self.report_faults) {
            return Err(QueueError::Invalid("refused on purpose".into()));
        }
        self.queue.report(told, report).await
    }
}

#[async_trait]
impl Desk for Faulty {
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
        if counts_down(&self.away) {
            return Err(QueueError::Unavailable("on purpose".into()));
        }
        self.queue.operate(op, keys, withdrawn, now).await
    }
    async fn counts(&self) -> Result<Counts, QueueError> {
        self.queue.counts().await
    }
    async fn forget(&self, now: Timestamp, keep: Duration, limit: usize) -> Result<usize, QueueError> {
        self.queue.forget(now, keep, limit).await
    }
}

#[async_trait]
impl Memory for Faulty {
    async fn remember(&self, entries: Vec<(String, Option<Bytes>)>) -> Result<(), QueueError> {
        self.queue.remember(entries).await
    }
    async fn swap(&self, changes: Vec<Swap>) -> Result<bool, QueueError> {
        self.queue.swap(changes).await
    }
    async fn recall(&self, prefix: &str) -> Result<Vec<(String, Bytes)>, QueueError> {
        self.queue.recall(prefix).await
    }
}

#[async_trait]
impl Upkeep for Faulty {
    async fn close(&self) {
        if self.hangs {
            std::future::pending::<()>().await;
        }
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

/// Waits for a counter.
async fn reaches(count: impl Fn() -> u64, n: u64) {
    let wait = async {
        while count() < n {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.expect("in time");
    assert_eq!(count(), n);
}

/// A relay on this queue, to a host that takes everything.
pub(crate) struct World {
    pub(crate) relay: Arc<Relay>,
    pub(crate) stop: watch::Sender<bool>,
    /// Senders ask for a report on delivery.
    notify: bool,
    dir: tempfile::TempDir,
}

impl World {
    pub(crate) async fn new(dir: tempfile::TempDir, queue: Faulty) -> World {
        World::with_retry(dir, "1s", queue).await
    }

    /// Whose first retry comes after so long.
    async fn with_retry(dir: tempfile::TempDir, first: &str, queue: Faulty) -> World {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        tokio::spawn(host(listener));
        let connector = Connector::new("relay.example").expect("a connector");
        World::to(address, "connections = 1\nrate = []", first, connector, (dir, queue)).await
    }

    /// To another host, whose provider has these keys.
    pub(super) async fn to(
        address: SocketAddr,
        keys: &str,
        first: &str,
        connector: Connector,
        (dir, queue): (tempfile::TempDir, Faulty),
    ) -> World {
        let text = format!(
            "drain = \"1s\"\n[provider.host]\nrelay = \"{address}\"\ntls = \"off\"\n{keys}\n\
             [[route]]\nrecipient = \"*\"\nvia = \"host\"\n[retry]\nfirst = \"{first}\"\njitter = 0.0\n"
        );
        let config = Arc::new(Config::parse(&text, "test").expect("a configuration"));
        let queue: Arc<dyn Queue> = Arc::new(queue);
        let router = Arc::new(Router::new(config.clone()).expect("a router"));
        // Without memory every body is read from the queue.
        let scheduler = Scheduler::new(queue.clone(), Clock::System, 0, Vec::new(), {
            let router = router.clone();
            move |lane| router.provider_of_lane(lane)
        });
        let (stop, stopping) = watch::channel(false);
        let relay = Relay::new(config, Clock::System, queue, router, connector, scheduler.clone(), stopping.clone());
        tokio::spawn(scheduler.run(stopping));
        World { relay, stop, notify: false, dir }
    }

    /// Accepts a message to so many recipients.
    async fn accept(&self, recipients: usize) -> QueueId {
        self.accept_old(recipients, Duration::ZERO).await
    }

    /// The same, as if it had been accepted so long ago.
    pub(crate) async fn accept_old(&self, recipients: usize, age: Duration) -> QueueId {
        self.accept_from("a@a.example", recipients, age).await
    }

    /// The same of another sender.
    pub(super) async fn accept_from(&self, sender: &str, recipients: usize, age: Duration) -> QueueId {
        let head = Bytes::from_static(b"Subject: x\r\n\r\nx\r\n");
        let received = self.relay.clock.now().before(age);
        let message = Message {
            id: self.relay.queue.next_id(received),
            received,
            envelope: Envelope { reverse_path: Address::parse(sender).ok(), ..Envelope::default() },
            origin: Origin::Local,
            size: head.len() as u64,
            traits: BodyTraits::default(),
        };
        // Reports on everything, as with NOTIFY=SUCCESS,FAILURE.
        let notify = Notify { success: self.notify, ..Notify::default() };
        let address = |n| Address::parse(&format!("b{n}@b.example")).expect("an address");
        let recipient = |n| Recipient { notify, ..Recipient::new(address(n)) };
        self.relay.accept(message, (0..recipients).map(recipient).collect(), head, None).await.expect("accepted")
    }

    /// Waits for the queue to be like that.
    async fn wait(&self, wanted: Counts) {
        let wait = async {
            while self.relay.queue.counts().await.expect("counts") != wanted {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let counts = tokio::time::timeout(Duration::from_secs(20), wait).await;
        assert!(counts.is_ok(), "{:?} is not {wanted:?}", self.relay.queue.counts().await);
    }

    /// Waits for so many recipients to be known as delivered: that is after they left the queue.
    pub(super) async fn delivered(&self, n: u64) {
        reaches(|| self.relay.stats.delivered.get(), n).await;
    }

    /// The same of those that wait for another attempt.
    pub(super) async fn deferred(&self, n: u64) {
        reaches(|| self.relay.stats.deferred.get(), n).await;
    }

    pub(super) async fn end(self) -> tempfile::TempDir {
        let _ = self.stop.send(true);
        self.relay.workers.none().await;
        self.relay.queue.close().await;
        self.dir
    }
}

/// Invariant 2: a fault in a worker costs one attempt, neither the recipient nor the lane.
#[tokio::test]
async fn a_worker_that_panics_loses_no_recipient_and_stalls_no_lane() {
    let dir = tempfile::tempdir().expect("a directory");
    let queue = Faulty { faults: Arc::new(AtomicUsize::new(2)), ..Faulty::new(&dir) };
    let world = World::new(dir, queue).await;
    for _ in 0..3 {
        world.accept(1).await;
    }
    world.wait(Counts::default()).await;
    world.delivered(3).await;
    world.end().await;
}

/// A message at which a worker panics at every attempt is tried twice, then put aside, and the lane
/// goes on.
#[tokio::test]
async fn a_message_that_makes_a_worker_panic_twice_is_put_aside() {
    let dir = tempfile::tempdir().expect("a directory");
    let faults = Arc::new(AtomicUsize::new(1000));
    let queue = Faulty { faults: faults.clone(), ..Faulty::new(&dir) };
    let world = World::new(dir, queue).await;
    world.accept(3).await;
    world.wait(Counts { messages: 1, held: 3, ..Counts::default() }).await;
    let times = 1000 - faults.swap(0, Ordering::SeqCst);
    assert_eq!(times, 2, "attempts");
    let page = world.relay.queue.inspect(&Filter::default(), None, 10).await.expect("a page");
    assert!(page.rows.iter().all(|(_, _, row)| row.reason == "local: a fault of mailweir itself"), "{page:?}");
    world.accept(1).await;
    world.delivered(1).await;
    world.end().await;
}

/// The same when mailweir is started anew between the two.
#[tokio::test]
async fn a_message_that_made_the_process_before_panic_has_one_attempt_left() {
    let dir = tempfile::tempdir().expect("a directory");
    let once = |dir: &tempfile::TempDir| Faulty { faults: Arc::new(AtomicUsize::new(1)), ..Faulty::new(dir) };
    let queue = once(&dir);
    let first = World::with_retry(dir, "1h", queue).await;
    first.accept(1).await;
    first.deferred(1).await;
    let dir = first.end().await;
    let queue = once(&dir);
    let page = queue.inspect(&Filter::default(), None, 10).await.expect("a page");
    let keys: Vec<RecipientKey> = page.rows.iter().map(|row| row.0).collect();
    queue.operate(Operation::Retry, &keys, &[], Clock::System.now()).await.expect("due now");
    let second = World::with_retry(dir, "1h", queue).await;
    second.wait(Counts { messages: 1, held: 1, ..Counts::default() }).await;
    second.end().await;
}

/// What the queue will never take does not keep a worker for ever: it is put aside, alone.
#[tokio::test]
async fn an_outcome_that_the_queue_refuses_is_put_aside_and_the_lane_goes_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let queue = Faulty { refuses: Some(1), ..Faulty::new(&dir) };
    let world = World::new(dir, queue).await;
    let id = world.accept(3).await;
    world.wait(Counts { messages: 1, held: 1, ..Counts::default() }).await;
    let page = world.relay.queue.inspect(&Filter::default(), None, 10).await.expect("a page");
    assert_eq!(page.rows.iter().map(|(key, ..)| *key).collect::<Vec<_>>(), [RecipientKey { id, index: 1 }]);
    // The only worker is free for the next.
    world.accept(1).await;
    world.wait(Counts { messages: 1, held: 1, ..Counts::default() }).await;
    world.delivered(4).await;
    world.end().await;
}

/// A store that is in trouble at the moment at which an outcome is to be put aside is waited for:
/// nobody else would end the lease before the next start.
#[tokio::test]
async fn what_the_queue_refuses_is_put_aside_once_the_store_can() {
    let dir = tempfile::tempdir().expect("a directory");
    let queue = Faulty { damaged: AtomicUsize::new(3), away: AtomicUsize::new(2), ..Faulty::new(&dir) };
    let world = World::new(dir, queue).await;
    world.accept(1).await;
    world.wait(Counts { messages: 1, held: 1, ..Counts::default() }).await;
    world.end().await;
}

/// A panic at every attempt to store an outcome leaves no lease that nobody holds.
#[tokio::test]
async fn an_outcome_that_panics_again_is_put_aside_and_the_lane_goes_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let queue = Faulty { panics: Some(1), ..Faulty::new(&dir) };
    let world = World::new(dir, queue).await;
    world.accept(2).await;
    world.wait(Counts { messages: 1, held: 2, ..Counts::default() }).await;
    world.accept(1).await;
    world.wait(Counts { messages: 1, held: 2, ..Counts::default() }).await;
    world.delivered(1).await;
    world.end().await;
}

/// What has arrived is never sent again for the sake of a report that cannot be stored.
#[tokio::test]
async fn a_delivered_recipient_whose_report_the_queue_refuses_leaves_the_queue() {
    for recipients in [1, 3] {
        let dir = tempfile::tempdir().expect("a directory");
        let queue = Faulty { refuses_debts: true, ..Faulty::new(&dir) };
        let world = World { notify: true, ..World::new(dir, queue).await };
        world.accept(recipients).await;
        world.wait(Counts::default()).await;
        world.end().await;
    }
}
