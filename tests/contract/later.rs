//! What does not leave before a time that its client or an operator has named.

use std::time::Duration;

use mailweir::clock::Timestamp;
use mailweir::mail::{LaneName, QueueId};
use mailweir::queue::{Filter, LaneDue, Operation, Queue};

use super::{Rig, T0, deferred, key, letter, list, row};

fn at(seconds: u64) -> Timestamp {
    T0.after(Duration::from_secs(seconds))
}

async fn claimed(queue: &dyn Queue, lane: &str, now: Timestamp) -> Vec<QueueId> {
    queue.claim(&lane.into(), now, 100).await.unwrap().iter().map(|leased| leased.key.id).collect()
}

pub async fn what_waits_for_its_time_leaves_then(mut rig: Rig) {
    let queue = &*rig.queue;
    let now = letter("a@here.example", "x").post(queue).await;
    let later = letter("a@here.example", "x").release(at(100)).post(queue).await;
    // One that is over is no wait.
    let over = letter("b@here.example", "@d.example").release(at(0)).received(at(5)).post(queue).await;
    assert_eq!(claimed(queue, "x", at(99)).await, [now]);
    assert_eq!(claimed(queue, "@d.example", at(99)).await, [over]);
    let shown = row(queue, key(later, 0)).await.unwrap();
    let told = (shown.state.as_str(), shown.due.clone(), shown.release.clone(), shown.attempts);
    assert_eq!(told, ("queued", at(100).to_string(), at(100).to_string(), 0));
    assert!(shown.waits_for_its_time(at(99)) && !shown.waits_for_its_time(at(100)));
    assert_eq!(row(queue, key(now, 0)).await.unwrap().release, "");
    // Neither a restart nor a move to another lane changes it.
    rig.reopen().await;
    let queue = &*rig.queue;
    assert_eq!(claimed(queue, "x", at(99)).await, [now]);
    assert_eq!(
        queue.lanes(None, 9).await.unwrap(),
        [LaneDue { lane: "@d.example".into(), due: at(5) }, LaneDue { lane: "x".into(), due: at(100) }]
    );
    assert_eq!(queue.move_lane(&"x".into(), &"y".into(), 9).await.unwrap(), 1);
    assert!(claimed(queue, "y", at(99)).await.is_empty());
    let leased = queue.claim(&"y".into(), at(100), 9).await.unwrap();
    assert_eq!((leased[0].key.id, leased[0].due, leased[0].message.age_from()), (later, at(100), at(100)));
    assert_eq!((leased[0].message.received, leased[0].message.envelope.release), (T0, Some(at(100))));
}

pub async fn an_operator_changes_the_time_of_what_waits(rig: Rig) {
    let queue = &*rig.queue;
    let to = [("a@x.example", "x"), ("b@x.example", "x"), ("c@x.example", "x"), ("d@x.example", "x")];
    let id = letter("a@here.example", "x").to(&to).release(at(100)).post(queue).await;
    let keys: Vec<_> = (0..4).map(|index| key(id, index)).collect();
    let operate = async |op, index: usize, now| queue.operate(op, &keys[index..=index], &[], now).await.unwrap();
    // Later, sooner, and put aside: an operator who releases that does not send it.
    assert_eq!(operate(Operation::HoldUntil(at(200)), 1, at(1)).await, 1);
    assert_eq!(operate(Operation::HoldUntil(at(0)), 2, at(2)).await, 1);
    assert_eq!(operate(Operation::Hold, 3, at(1)).await, 1);
    assert_eq!(operate(Operation::HoldUntil(at(150)), 3, at(1)).await, 1);
    assert_eq!(row(queue, keys[3]).await.unwrap().state, "held");
    assert_eq!(operate(Operation::Release, 3, at(1)).await, 1);
    let due: Vec<String> = list(queue, &Filter::default(), 9).await.into_iter().map(|row| row.due).collect();
    assert_eq!(due, [at(100), at(200), at(2), at(150)].map(|due| due.to_string()));
    let indices = async |now| -> Vec<u32> {
        queue.claim(&"x".into(), now, 9).await.unwrap().iter().map(|leased| leased.key.index).collect()
    };
    assert_eq!([indices(at(99)).await, indices(at(100)).await, indices(at(199)).await], [vec![2], vec![0], vec![3]]);
    assert_eq!(operate(Operation::Cancel, 1, at(199)).await, 1);
    // What was tried and waits for its next try may be put off, too.
    queue.settle(vec![deferred(keys[0], at(300), "x")], vec![]).await.unwrap();
    assert_eq!(operate(Operation::HoldUntil(at(900)), 0, at(299)).await, 1);
    assert!(indices(at(899)).await.is_empty());
    let again = queue.claim(&"x".into(), at(900), 9).await.unwrap();
    assert_eq!((again[0].attempts, again[0].message.age_from()), (1, at(900)));
}

pub async fn a_retry_is_no_reason_to_leave_before(rig: Rig) {
    let queue = &*rig.queue;
    let waits = letter("a@here.example", "x").release(at(1000)).post(queue).await;
    let tried = letter("a@here.example", "x").leased().post(queue).await;
    queue.settle(vec![deferred(key(tried, 0), at(1000), "x")], vec![]).await.unwrap();
    assert_eq!(queue.operate(Operation::Retry, &[key(waits, 0)], &[], at(10)).await.unwrap(), 0);
    let retried = queue.retry_all(None, at(10), 100).await.unwrap();
    assert_eq!((retried.seen, retried.changed, retried.scheduled), (2, 1, 1));
    assert_eq!(claimed(queue, "x", at(11)).await, [tried]);
    assert_eq!(claimed(queue, "x", at(1000)).await, [waits]);
    // Once its time has come, it is like any other.
    queue.settle(vec![deferred(key(waits, 0), at(5000), "x")], vec![]).await.unwrap();
    assert_eq!(queue.operate(Operation::Retry, &[key(waits, 0)], &[], at(1001)).await.unwrap(), 1);
    assert_eq!(claimed(queue, "x", at(1001)).await, [waits]);
}

pub async fn the_age_of_what_waited_counts_from_its_time(rig: Rig) {
    let queue = &*rig.queue;
    let lane = LaneName::from("x");
    for n in 0..5 {
        letter(&format!("s{n}@here.example"), "x").release(at(1000)).post(queue).await;
    }
    let old = letter("b@here.example", "x").received(at(1)).post(queue).await;
    // However many there are that came before it and are not of that age.
    let found = queue.claim_older(&lane, at(500), 1).await.unwrap();
    assert_eq!(found.iter().map(|leased| leased.key.id).collect::<Vec<_>>(), [old]);
    assert!(queue.claim_older(&lane, at(999), 9).await.unwrap().is_empty());
    assert_eq!(queue.claim_older(&lane, at(1000), 9).await.unwrap().len(), 5);
}
