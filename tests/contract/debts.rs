//! Reports that are owed: stored with the fate they tell of, found by due time, ended with the
//! message that tells it.

use std::time::Duration;

use mailweir::clock::Timestamp;
use mailweir::mail::{Action, Address, Notify, Orcpt, Owed, QueueId, Recipient, RecipientKey};
use mailweir::queue::{Counts, Operation, Owing, Queue, QueueError, Settlement, Verdict};

use super::{Letter, Rig, T0, deferred, delivered, failed, key, letter, row};

/// A failure to be reported by `due`.
pub fn owed(key: RecipientKey, due: Timestamp) -> Owed {
    Owed {
        key,
        due,
        recipient: Recipient::new(Address::parse("someone@there.example").unwrap()),
        action: Action::Failed,
        status: (5, 1, 1),
        replied: true,
        text: "550 5.1.1 no such user".into(),
        remote_mta: Some("mx.there.example".into()),
        last_attempt: T0,
        will_retry_until: None,
    }
}

fn after(seconds: u64) -> Timestamp {
    T0.after(Duration::from_secs(seconds))
}

fn dsn() -> Letter {
    letter("", "@here.example")
}

/// A message to so many, all leased.
async fn message(queue: &dyn Queue, recipients: usize) -> QueueId {
    letter("a@here.example", "x").to(&vec![("r@x.example", "x"); recipients]).leased().post(queue).await
}

async fn items(queue: &dyn Queue, id: QueueId) -> Vec<Owed> {
    queue.owed(id, 1000).await.unwrap().map(|debt| debt.items).unwrap_or_default()
}

fn told(items: &[Owed]) -> Vec<(RecipientKey, Timestamp)> {
    items.iter().map(|debt| (debt.key, debt.due)).collect()
}

pub async fn a_debt_is_there_with_the_fate_that_it_tells_of(mut rig: Rig) {
    let id = message(&*rig.queue, 3).await;
    let mut slow = owed(key(id, 1), after(60));
    slow.action = Action::Delayed;
    slow.status = (4, 4, 1);
    slow.recipient.orcpt = Some(Orcpt { kind: "rfc822".into(), address: "You;2@here.example".into() });
    slow.recipient.notify = Notify { given: true, success: false, failure: true, delay: true };
    slow.will_retry_until = Some(after(86_400));
    (slow.replied, slow.text, slow.remote_mta) = (false, "é".repeat(600), None);
    let refused = owed(key(id, 0), after(60));
    let fates = vec![failed(key(id, 0), "550 no"), deferred(key(id, 1), after(600), "x"), delivered(key(id, 2))];
    rig.queue.settle(fates, vec![refused.clone(), slow.clone()]).await.unwrap();
    let counts = Counts { messages: 1, queued: 1, failed: 1, owed: 2, ..Counts::default() };
    assert_eq!(rig.queue.counts().await.unwrap(), counts);
    rig.drop_and_reopen().await;
    assert_eq!(rig.queue.counts().await.unwrap(), counts);
    let debt = rig.queue.owed(id, 1000).await.unwrap().unwrap();
    slow.text = "é".repeat(500);
    assert_eq!(debt.items, [refused, slow]);
    assert_eq!((debt.message.id, debt.message.envelope.sender()), (id, "a@here.example"));
    assert_eq!(rig.queue.owed(id, 1).await.unwrap().unwrap().items.len(), 1);
    let shown = row(&*rig.queue, key(id, 0)).await.unwrap();
    assert_eq!((shown.state.as_str(), shown.report_due), ("failed", after(60).to_string()));
}

pub async fn what_is_not_held_owes_nothing(rig: Rig) {
    let queue = &*rig.queue;
    let queued = letter("a@here.example", "x").post(queue).await;
    let gone = queue.next_id(T0);
    let keys = [key(queued, 0), key(queued, 7), key(gone, 0)];
    let fates = keys.iter().map(|key| failed(*key, "550 no")).collect();
    queue.settle(fates, keys.map(|key| owed(key, after(60))).to_vec()).await.unwrap();
    assert_eq!(queue.counts().await.unwrap(), Counts { messages: 1, queued: 1, ..Counts::default() });
    assert_eq!((queue.owing(None, 10).await.unwrap(), queue.owed(queued, 10).await.unwrap()), (vec![], None));
    // Who was settled before owes what he owed then.
    let id = message(queue, 1).await;
    queue.settle(vec![delivered(key(id, 0))], vec![]).await.unwrap();
    queue.settle(vec![failed(key(id, 0), "too late")], vec![owed(key(id, 0), after(60))]).await.unwrap();
    assert_eq!(queue.counts().await.unwrap().owed, 0);
}

/// Invariant 2: a thousand failures, settled one by one, and one report.
pub async fn one_report_ends_many_debts(mut rig: Rig) {
    let id = message(&*rig.queue, 1000).await;
    for index in 0..1000 {
        let due = T0.after(Duration::from_millis(60_000 + u64::from(index)));
        let fates = vec![failed(key(id, index), "550 no")];
        rig.queue.settle(fates, vec![owed(key(id, index), due)]).await.unwrap();
    }
    rig.reopen().await;
    let queue = &*rig.queue;
    let all = items(queue, id).await;
    assert_eq!(all.len(), 1000);
    let report = queue.next_id(T0);
    queue.report(told(&all), Some(dsn().build(report))).await.unwrap();
    let left = Counts { messages: 2, queued: 1, failed: 1000, ..Counts::default() };
    assert_eq!(queue.counts().await.unwrap(), left);
    assert_eq!((queue.owing(None, 10).await.unwrap(), queue.owed(id, 10).await.unwrap()), (vec![], None));
    assert_eq!(queue.claim(&"@here.example".into(), T0, 5).await.unwrap().len(), 1);
}

pub async fn a_report_is_stored_with_the_end_of_its_debts_or_not_at_all(mut rig: Rig) {
    let id = message(&*rig.queue, 2).await;
    let fates = vec![failed(key(id, 0), "550 no"), failed(key(id, 1), "550 no")];
    let debts = vec![owed(key(id, 0), after(60)), owed(key(id, 1), after(60))];
    rig.queue.settle(fates, debts.clone()).await.unwrap();
    let report = rig.queue.next_id(T0);
    let before = rig.queue.counts().await.unwrap();
    for (what, debts, with) in [
        ("a message of that id is there", told(&debts), id),
        ("due at another time", vec![(key(id, 0), after(60)), (key(id, 1), after(61))], report),
        ("never owed", vec![(key(id, 0), after(60)), (key(id, 2), after(60))], report),
        ("twice in one", vec![(key(id, 0), after(60)), (key(id, 0), after(60))], report),
    ] {
        let refused = rig.queue.report(debts, Some(dsn().build(with))).await;
        assert!(matches!(refused, Err(QueueError::Invalid(_))), "{what}: {refused:?}");
        assert_eq!(rig.queue.counts().await.unwrap(), before, "{what}");
        assert_eq!(rig.queue.lane_due(&"@here.example".into()).await.unwrap(), None, "{what}");
    }
    rig.drop_and_reopen().await;
    assert_eq!(items(&*rig.queue, id).await, debts);
    rig.queue.report(told(&debts), Some(dsn().build(report))).await.unwrap();
    rig.drop_and_reopen().await;
    // Never a second time, whoever comes.
    let again = rig.queue.next_id(T0);
    let refused = rig.queue.report(told(&debts), Some(dsn().build(again))).await;
    assert!(matches!(refused, Err(QueueError::Invalid(_))), "{refused:?}");
    let left = Counts { messages: 2, queued: 1, failed: 2, ..Counts::default() };
    assert_eq!(rig.queue.counts().await.unwrap(), left);
}

pub async fn a_message_stays_until_its_report_is_made(rig: Rig) {
    let queue = &*rig.queue;
    // Delivered, with a report on that; given up and forgotten; given up and cancelled.
    for way in 0..3 {
        let id = message(queue, 1).await;
        let fate = if way == 0 { delivered(key(id, 0)) } else { failed(key(id, 0), "550 no") };
        queue.settle(vec![fate], vec![owed(key(id, 0), after(60))]).await.unwrap();
        if way == 1 {
            assert_eq!(queue.forget(Timestamp(i64::MAX / 2), Duration::ZERO, 10).await.unwrap(), 1);
        } else if way == 2 {
            assert_eq!(queue.operate(Operation::Cancel, &[key(id, 0)], &[], T0).await.unwrap(), 1);
        }
        assert_eq!(queue.counts().await.unwrap(), Counts { messages: 1, owed: 1, ..Counts::default() }, "{way}");
        assert!(queue.chunk(id, 0).await.unwrap().is_some(), "its header section is part of the report");
        let debt = queue.owed(id, 10).await.unwrap().unwrap();
        // Nobody wants to know: written off.
        queue.report(told(&debt.items), None).await.unwrap();
        assert_eq!(queue.counts().await.unwrap(), Counts::default(), "{way}");
        assert_eq!(queue.chunk(id, 0).await.unwrap(), None);
    }
}

pub async fn debts_are_found_in_order_of_their_due_time(mut rig: Rig) {
    let (first, second) = (message(&*rig.queue, 3).await, message(&*rig.queue, 1).await);
    for (key, seconds) in [(key(second, 0), 70), (key(first, 2), 80), (key(first, 0), 60), (key(first, 1), 60)] {
        rig.queue.settle(vec![failed(key, "550 no")], vec![owed(key, after(seconds))]).await.unwrap();
    }
    rig.reopen().await;
    let queue = &*rig.queue;
    let entry = |id, seconds| Owing { id, due: after(seconds) };
    let all = [entry(first, 60), entry(second, 70), entry(first, 80)];
    assert_eq!(queue.owing(None, 10).await.unwrap(), all);
    let (mut found, mut last) = (Vec::new(), None);
    while let Some(next) = queue.owing(last, 1).await.unwrap().first().copied() {
        (last, found) = (Some(next), [found, vec![next]].concat());
    }
    assert_eq!(found, all);
    let reported = items(queue, first).await;
    queue.report(told(&reported), Some(dsn().build(queue.next_id(T0)))).await.unwrap();
    assert_eq!(queue.owing(None, 10).await.unwrap(), all[1..2]);
}

pub async fn a_later_fate_is_owed_in_the_place_of_an_earlier_one(rig: Rig) {
    let queue = &*rig.queue;
    let id = message(queue, 1).await;
    let delay = Owed { action: Action::Delayed, ..owed(key(id, 0), after(60)) };
    queue.settle(vec![deferred(key(id, 0), T0, "x")], vec![delay.clone()]).await.unwrap();
    assert_eq!(queue.claim(&"x".into(), T0, 1).await.unwrap().len(), 1);
    let failure = owed(key(id, 0), after(65));
    queue.settle(vec![failed(key(id, 0), "550 no")], vec![failure.clone()]).await.unwrap();
    // Whoever has read the first one in between has to look again.
    let stale = queue.report(told(&[delay]), Some(dsn().build(queue.next_id(T0)))).await;
    assert!(matches!(stale, Err(QueueError::Invalid(_))), "{stale:?}");
    assert_eq!(items(queue, id).await, [failure]);
    assert_eq!(queue.counts().await.unwrap().owed, 1);
}

pub async fn what_may_have_its_fate_soon_is_under_way(rig: Rig) {
    let queue = &*rig.queue;
    let id = message(queue, 2).await;
    let both = [key(id, 0), key(id, 1)];
    let is = async || queue.is_under_way(id, after(60)).await.unwrap();
    assert!(is().await, "held by a scheduler");
    queue.settle(vec![failed(both[0], "550 no")], vec![owed(both[0], after(60))]).await.unwrap();
    assert!(is().await, "the other one is");
    let Settlement { verdict, .. } = deferred(both[1], after(59), "x");
    let Verdict::Deferred { due, reason, counts, warned, lane, .. } = verdict else { panic!("a deferral") };
    let doubtful = Verdict::Deferred { due, reason, counts, uncertain: true, warned, lane };
    queue.settle(vec![Settlement { key: both[1], verdict: doubtful }], vec![]).await.unwrap();
    assert!(is().await, "due soon");
    assert_eq!(queue.claim(&"x".into(), after(59), 5).await.unwrap().len(), 1);
    let delay = Owed { action: Action::Delayed, ..owed(both[1], after(60)) };
    queue.settle(vec![deferred(both[1], after(59), "x")], vec![delay.clone()]).await.unwrap();
    assert!(!is().await, "of this one it is owed that it waits");
    queue.report(told(&[delay]), Some(dsn().build(queue.next_id(T0)))).await.unwrap();
    assert!(is().await, "and that has been told");
    assert!(!queue.is_under_way(id, after(59)).await.unwrap(), "not so soon");
    assert_eq!(queue.operate(Operation::Hold, &both[1..], &[], T0).await.unwrap(), 1);
    assert!(!is().await, "put aside");
    assert!(!queue.is_under_way(queue.next_id(T0), after(60)).await.unwrap(), "not there");
}
