//! What the scheduler promises of all lanes together, on paused time.

use super::testing::provider;
use super::*;
use crate::mail::{BodyTraits, Envelope, NewMessage, Origin, Recipient};
use crate::queue::sqlite::InlineQueue;

const LANES: usize = 200;
const EACH: usize = 100;

/// A scheduler whose queue holds mail for many lanes, all of it due.
async fn many_lanes(memory: u64) -> Arc<Scheduler> {
    let queue: Arc<dyn Queue> = InlineQueue::open(Clock::System).expect("a queue");
    let head = Bytes::from_static(b"Subject: x\r\n\r\nx\r\n");
    for lane in 0..LANES {
        let message = Message {
            id: queue.next_id(Timestamp(1)),
            received: Timestamp(1),
            envelope: Envelope::default(),
            origin: Origin::Local,
            size: head.len() as u64,
            traits: BodyTraits::default(),
        };
        let recipient = |n| NewRecipient {
            recipient: Recipient::new(Address::parse(&format!("r{n}@d{lane}.example")).expect("an address")),
            lane: LaneName::from(&*format!("@d{lane}.example")),
            leased: false,
        };
        let recipients = (0..EACH).map(recipient).collect();
        let new = NewMessage { message: Arc::new(message), recipients, head: head.clone() };
        queue.accept(new).await.expect("accepted");
    }
    let provider = Arc::new(Provider { connections: 2, ..provider("any") });
    let scheduler = Scheduler::new(queue, Clock::System, memory, Vec::new(), move |_| provider.clone());
    let (_stop, stopping) = watch::channel(false);
    // Nobody starts workers, so whatever comes into memory stays there.
    let run = tokio::time::timeout(Duration::from_secs(60), scheduler.clone().run(stopping));
    assert!(run.await.is_err(), "it goes on");
    scheduler
}

fn in_memory(scheduler: &Scheduler) -> usize {
    let lanes = scheduler.lanes();
    assert_eq!(lanes.len(), LANES);
    assert!(lanes.iter().all(|lane| lane.in_memory() > 0), "every lane goes on");
    lanes.iter().map(|lane| lane.in_memory()).sum()
}

/// Invariant 5, however many lanes have something due at once.
#[tokio::test(start_paused = true)]
async fn what_is_claimed_stays_within_the_budget() {
    const MEMORY: u64 = 1 << 20;
    let scheduler = many_lanes(MEMORY).await;
    let most = (MEMORY / RECIPIENT_COST) as usize + LANES * WITHOUT_BUDGET;
    let found = in_memory(&scheduler);
    assert!(found <= most, "{found} recipients in memory, at most {most} expected");

    let scheduler = many_lanes(64 << 20).await;
    assert_eq!(in_memory(&scheduler), LANES * EACH, "with memory for all of them");
}
