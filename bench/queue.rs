//! How fast the queue takes messages in and lets them go: `cargo bench --bench queue [DIRECTORY]`.
//!
//! Prints pairs of accept and settle a second (2 KB, one recipient, handed over at once as the relay
//! does on an idle day), the same by way of a claim, and what looking costs in front of a backlog.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use mailweir::clock::Clock;
use mailweir::mail::{
    Address, BodyTraits, Envelope, LaneName, Message, NewMessage, NewRecipient, Origin, QueueId, Recipient,
    RecipientKey,
};
use mailweir::queue::sqlite::SqliteQueue;
use mailweir::queue::{Desk, Filter, Lanes, Leases, Settlement, Spool, Upkeep, Verdict};

const BATCH: usize = 64;

fn message(id: QueueId, n: usize, lane: &str, leased: bool) -> Option<NewMessage> {
    let reverse_path = Address::parse(&format!("sender@{}.example", n % 50)).ok()?;
    let address = Address::parse(&format!("recipient{n}@there.example")).ok()?;
    let message = Message {
        id,
        received: Clock::System.now(),
        envelope: Envelope { reverse_path: Some(reverse_path), ..Envelope::default() },
        origin: Origin::Local,
        size: 2048,
        traits: BodyTraits::default(),
    };
    let recipients = vec![NewRecipient { recipient: Recipient::new(address), lane: lane.into(), leased, held: None }];
    Some(NewMessage { message: Arc::new(message), recipients, head: Bytes::from(vec![b'x'; 2048]) })
}

/// Accepts `count` messages, `BATCH` calls at a time; returns their keys.
async fn accept(queue: &Arc<SqliteQueue>, count: usize, lane: &'static str, leased: bool) -> Vec<RecipientKey> {
    let mut tasks = Vec::new();
    for t in 0..BATCH {
        let queue = Arc::clone(queue);
        tasks.push(tokio::spawn(async move {
            let mut keys = Vec::new();
            for n in (t..count).step_by(BATCH) {
                let id = queue.next_id(Clock::System.now());
                let Some(new) = message(id, n, lane, leased) else { continue };
                if queue.accept(new).await.is_ok() {
                    keys.push(RecipientKey { id, index: 0 });
                }
            }
            keys
        }));
    }
    let mut keys = Vec::new();
    for task in tasks {
        keys.extend(task.await.unwrap_or_default());
    }
    keys
}

fn delivered(key: RecipientKey) -> Settlement {
    Settlement { key, verdict: Verdict::Delivered }
}

/// `BATCH` tasks, each accepting and settling in turn.
async fn pairs(queue: &Arc<SqliteQueue>, count: usize) -> usize {
    let mut tasks = Vec::new();
    for t in 0..BATCH {
        let queue = Arc::clone(queue);
        tasks.push(tokio::spawn(async move {
            let mut done = 0;
            for n in (t..count).step_by(BATCH) {
                let id = queue.next_id(Clock::System.now());
                let Some(new) = message(id, n, "there", true) else { continue };
                let settlement = delivered(RecipientKey { id, index: 0 });
                if queue.accept(new).await.is_ok() && queue.settle(vec![settlement], Vec::new()).await.is_ok() {
                    done += 1;
                }
            }
            done
        }));
    }
    let mut done = 0;
    for task in tasks {
        done += task.await.unwrap_or(0);
    }
    done
}

async fn measure(path: PathBuf) -> Result<(), mailweir::queue::QueueError> {
    let queue = SqliteQueue::open(&path, Clock::System)?;
    let rate = |count: usize, since: Instant| count as f64 / since.elapsed().as_secs_f64();
    let lane = LaneName::from("there");

    let start = Instant::now();
    let done = pairs(&queue, 50_000).await;
    println!("accept and settle, {BATCH} sessions:   {:>9.0} pairs/s", rate(done, start));

    let start = Instant::now();
    accept(&queue, 50_000, "there", false).await;
    println!("accept to wait:                   {:>9.0} messages/s", rate(50_000, start));
    let start = Instant::now();
    let mut done = 0;
    loop {
        let leased = queue.claim(&lane, Clock::System.now(), BATCH).await?;
        if leased.is_empty() {
            break;
        }
        done += leased.len();
        queue.settle(leased.iter().map(|l| delivered(l.key)).collect(), Vec::new()).await?;
    }
    println!("claim and settle, {BATCH} at a time:  {:>9.0} recipients/s", rate(done, start));

    accept(&queue, 200_000, "deep", false).await;
    let start = Instant::now();
    queue.inspect(&Filter::default(), None, 50).await?;
    println!("first page of 200,000:            {:>9.3} ms", start.elapsed().as_secs_f64() * 1e3);
    let start = Instant::now();
    queue.lanes(None, 100).await?;
    println!("lanes behind 200,000:             {:>9.3} ms", start.elapsed().as_secs_f64() * 1e3);
    accept(&queue, 1, "there", false).await;
    let start = Instant::now();
    let one = queue.claim(&lane, Clock::System.now(), BATCH).await?;
    println!("claim of {} beside 200,000:        {:>9.3} ms", one.len(), start.elapsed().as_secs_f64() * 1e3);
    let start = Instant::now();
    queue.close().await;
    println!("close:                            {:>9.3} ms", start.elapsed().as_secs_f64() * 1e3);
    let start = Instant::now();
    SqliteQueue::open(&path, Clock::System)?.close().await;
    println!("open 200,000:                     {:>9.3} ms", start.elapsed().as_secs_f64() * 1e3);
    Ok(())
}

fn main() -> std::io::Result<()> {
    // Cargo passes flags such as --bench; the one plain word is the directory.
    let directory = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let parent = directory.map_or_else(std::env::temp_dir, PathBuf::from);
    let path = parent.join(format!("mailweir-bench-{}", std::process::id()));
    let result = tokio::runtime::Runtime::new()?.block_on(measure(path.join("queue.db")));
    std::fs::remove_dir_all(&path)?;
    result.map_err(std::io::Error::other)
}
