//! What the scheduler decides about a message before it is queued, and what it promises of all
//! lanes together.

use std::collections::BTreeSet;

use super::claiming::WITHOUT_BUDGET;
use super::testing::provider;
use super::*;
use crate::mail::{BodyTraits, Envelope, NewMessage, NewRecipient, Origin, QueueId, Recipient};
use crate::queue::sqlite::InlineQueue;

fn message(id: QueueId, size: usize) -> Arc<Message> {
    Arc::new(Message {
        id,
        received: Timestamp(1),
        envelope: Envelope { reverse_path: Address::parse("a@a.example").ok(), ..Envelope::default() },
        origin: Origin::Local,
        size: size as u64,
        traits: BodyTraits::default(),
    })
}

fn recipient(address: &str, lane: LaneName) -> NewRecipient {
    NewRecipient {
        recipient: Recipient::new(Address::parse(address).expect("an address")),
        lane,
        leased: false,
        held: None,
    }
}

/// Decides with so much memory about a message to these recipients, each in a lane.
fn admit(memory: u64, recipients: &[(String, LaneName)]) -> Admission {
    let queue = InlineQueue::open(Clock::System).expect("a queue");
    let of_lane = |name: &LaneName| Arc::new(provider(name.as_str()));
    let scheduler = Scheduler::new(queue, Clock::System, memory, Vec::new(), of_lane);
    let new = recipients.iter().map(|(address, lane)| recipient(address, lane.clone()));
    scheduler.admit(&message(QueueId(1), 1), new.collect(), &Bytes::from_static(b"x"))
}

/// Domains come by turns, so that no two neighbours share a lane; some lanes have two domains.
fn recipients() -> Vec<(String, LaneName)> {
    let lane = |d: usize| match d % 10 {
        0 => LaneName::provider(&format!("p{}", d / 20)),
        _ => LaneName::provider(&format!("d{d}")),
    };
    (0..1500).map(|i| (format!("r{i}@d{}.example", i % 500), lane(i % 500))).collect()
}

#[tokio::test]
async fn recipients_of_one_domain_share_a_job_however_many_lanes_there_are() {
    let recipients = recipients();
    let Admission { recipients: decided, admitted } = admit(64 << 20, &recipients);
    assert!(decided.iter().all(|new| new.leased) && admitted.stored.is_empty());
    assert_eq!(admitted.jobs.len(), 500);
    for (d, (lane, job)) in admitted.jobs.iter().enumerate() {
        assert_eq!((&lane.name, &*job.destination), (&recipients[d].1, format!("d{d}.example").as_str()));
        let indices: Vec<usize> = job.recipients.iter().map(|held| held.index as usize).collect();
        assert_eq!(indices, [d, d + 500, d + 1000]);
        assert!(job.recipients.iter().all(|held| held.recipient.address.as_str() == recipients[held.index as usize].0));
    }
    // Two domains of one provider are in one lane, not in two of the same name.
    assert!(Arc::ptr_eq(&admitted.jobs[0].0, &admitted.jobs[10].0));
}

/// A lane takes all of a message or none, and is told once that something waits for it.
#[tokio::test]
async fn what_finds_no_room_stays_in_the_queue_lane_by_lane() {
    let without_memory = admit(0, &recipients());
    let Admission { recipients: decided, admitted } = without_memory;
    assert!(admitted.jobs.is_empty() && decided.iter().all(|new| !new.leased));
    let names: BTreeSet<_> = admitted.stored.iter().collect();
    assert_eq!((names.len(), admitted.stored.len()), (475, 475));

    let lane = |i: usize| LaneName::provider(if i.is_multiple_of(3) { "small" } else { "large" });
    let many: Vec<_> = (0..2 * WINDOW).map(|i| (format!("r{i}@d.example"), lane(i))).collect();
    let admission = admit(64 << 20, &many);
    let stored: Vec<&str> = admission.admitted.stored.iter().map(LaneName::as_str).collect();
    assert_eq!((stored, admission.admitted.jobs.len()), (vec!["large"], 1));
    assert!(admission.recipients.iter().all(|new| new.leased == (new.lane.as_str() == "small")));
}

#[tokio::test]
async fn the_only_recipient_has_a_job_or_a_lane_to_wait_in() {
    let one = [("r@d.example".to_owned(), LaneName::domain("d.example"))];
    let admission = admit(64 << 20, &one);
    assert_eq!(
        (admission.admitted.jobs.len(), admission.admitted.stored.len(), admission.recipients[0].leased),
        (1, 0, true)
    );
    let admission = admit(0, &one);
    assert_eq!(
        (admission.admitted.jobs.len(), admission.admitted.stored.len(), admission.recipients[0].leased),
        (0, 1, false)
    );
}

const LANES: usize = 200;
const EACH: usize = 100;

/// A scheduler whose queue holds mail for many lanes, all of it due.
async fn many_lanes(memory: u64, name: impl Fn(usize) -> LaneName) -> Arc<Scheduler> {
    let queue: Arc<dyn Queue> = InlineQueue::open(Clock::System).expect("a queue");
    let head = Bytes::from_static(b"Subject: x\r\n\r\nx\r\n");
    for d in 0..LANES {
        let new = |n| recipient(&format!("r{n}@d{d}.example"), name(d));
        let message = message(queue.next_id(Timestamp(1)), head.len());
        let new = NewMessage { message, recipients: (0..EACH).map(new).collect(), head: head.clone() };
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
    assert!(lanes.iter().all(|lane| lane.in_memory() > 0), "every lane goes on");
    lanes.iter().map(|lane| lane.in_memory()).sum()
}

/// Invariant 5, however many lanes have something due at once.
#[tokio::test(start_paused = true)]
async fn what_is_claimed_stays_within_the_budget() {
    const MEMORY: u64 = 1 << 20;
    let name = |n: usize| LaneName::provider(&format!("p{n}"));
    let scheduler = many_lanes(MEMORY, name).await;
    let most = (MEMORY / RECIPIENT_COST) as usize + LANES * WITHOUT_BUDGET;
    let found = in_memory(&scheduler);
    assert!(found <= most, "{found} recipients in memory, at most {most} expected");
    assert_eq!(scheduler.lanes().len(), LANES);

    let scheduler = many_lanes(64 << 20, name).await;
    assert_eq!(in_memory(&scheduler), LANES * EACH, "with memory for all of them");
}
