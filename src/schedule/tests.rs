//! What is decided about a message before it is queued.

use super::*;
use crate::config::sample::provider;
use crate::mail::{BodyTraits, Envelope, Origin, QueueId, Recipient};
use crate::queue::sqlite::SqliteQueue;

/// Decides with so much memory about a message to these recipients, each in a lane.
fn admit(memory: u64, recipients: &[(String, LaneName)]) -> Admission {
    let dir = tempfile::tempdir().expect("a directory");
    let queue = SqliteQueue::open(&dir.path().join("q.db"), Clock::System).expect("a queue");
    let of_lane = |name: &LaneName| Arc::new(provider(name.as_str()));
    let scheduler = Scheduler::new(queue, Clock::System, memory, Vec::new(), of_lane);
    let message = Arc::new(Message {
        id: QueueId(1),
        received: Timestamp(0),
        envelope: Envelope { reverse_path: Address::parse("a@a.example").ok(), ..Envelope::default() },
        origin: Origin::Local,
        size: 1,
        traits: BodyTraits::default(),
    });
    let new = |(address, lane): &(String, LaneName)| NewRecipient {
        recipient: Recipient::new(Address::parse(address).expect("an address")),
        lane: lane.clone(),
        leased: false,
    };
    scheduler.admit(&message, recipients.iter().map(new).collect(), &Bytes::from_static(b"x"))
}

/// Domains come by turns, so that no two neighbours share a lane; some lanes have two domains.
fn recipients() -> Vec<(String, LaneName)> {
    let lane = |d: usize| match d % 10 {
        0 => LaneName::provider(&format!("p{}", d / 20)),
        _ => LaneName::domain(&format!("d{d}.example")),
    };
    (0..1500).map(|i| (format!("r{i}@d{}.example", i % 500), lane(i % 500))).collect()
}

#[tokio::test]
async fn recipients_of_one_domain_share_a_job_however_many_lanes_there_are() {
    let recipients = recipients();
    let admission = admit(64 << 20, &recipients);
    assert!(admission.recipients.iter().all(|new| new.leased) && admission.stored.is_empty());
    assert_eq!(admission.jobs.len(), 500);
    for (d, (lane, job)) in admission.jobs.iter().enumerate() {
        assert_eq!((&lane.name, &*job.destination), (&recipients[d].1, format!("d{d}.example").as_str()));
        let indices: Vec<usize> = job.recipients.iter().map(|held| held.index as usize).collect();
        assert_eq!(indices, [d, d + 500, d + 1000]);
        assert!(job.recipients.iter().all(|held| held.recipient.address.as_str() == recipients[held.index as usize].0));
    }
    // Two domains of one provider are in one lane, not in two of the same name.
    assert!(Arc::ptr_eq(&admission.jobs[0].0, &admission.jobs[10].0));
}

/// A lane takes all of a message or none, and is told once that something waits for it.
#[tokio::test]
async fn what_finds_no_room_stays_in_the_queue_lane_by_lane() {
    let without_memory = admit(0, &recipients());
    assert!(without_memory.jobs.is_empty() && without_memory.recipients.iter().all(|new| !new.leased));
    let names: BTreeSet<_> = without_memory.stored.iter().map(|lane| &lane.name).collect();
    assert_eq!((names.len(), without_memory.stored.len()), (475, 475));

    let lane = |i: usize| LaneName::provider(if i.is_multiple_of(3) { "small" } else { "large" });
    let many: Vec<_> = (0..2 * WINDOW).map(|i| (format!("r{i}@d.example"), lane(i))).collect();
    let admission = admit(64 << 20, &many);
    let stored: Vec<&str> = admission.stored.iter().map(|lane| lane.name.as_str()).collect();
    assert_eq!((stored, admission.jobs.len()), (vec!["large"], 1));
    assert!(admission.recipients.iter().all(|new| new.leased == (new.lane.as_str() == "small")));
}

#[tokio::test]
async fn the_only_recipient_has_a_job_or_a_lane_to_wait_in() {
    let one = [("r@d.example".to_owned(), LaneName::domain("d.example"))];
    let admission = admit(64 << 20, &one);
    assert_eq!((admission.jobs.len(), admission.stored.len(), admission.recipients[0].leased), (1, 0, true));
    let admission = admit(0, &one);
    assert_eq!((admission.jobs.len(), admission.stored.len(), admission.recipients[0].leased), (0, 1, false));
}
