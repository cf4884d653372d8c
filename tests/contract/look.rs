//! What an operator sees.

use std::time::Duration;

use mailweir::mail::LaneName;
use mailweir::queue::{Counts, Filter, Operation, Row};

use super::{Rig, T0, deferred, failed, key, letter, list};

/// Sixty recipients of twenty messages in all states.
async fn mixture(rig: &Rig) {
    let queue = &*rig.queue;
    for n in 0..20u32 {
        let to = [("a@X.example", "gmail"), ("b@y.example", "@y.example"), ("c@sub.x.example", "gmail")];
        let sender = if n % 5 == 0 { String::new() } else { format!("sender{}@here.example", n % 4) };
        let at = T0.after(Duration::from_secs(u64::from(n)));
        let id = letter(&sender, "x").to(&to).received(at).leased().post(queue).await;
        let first = if n % 2 == 0 { failed(key(id, 0), "550 no such user") } else { deferred(key(id, 0), at, "gmail") };
        queue.settle(vec![first, deferred(key(id, 1), at, "@y.example")], vec![]).await.unwrap();
        if n % 3 == 0 {
            assert_eq!(queue.operate(Operation::Hold, &[key(id, 1)], &[], at).await.unwrap(), 1);
        }
    }
}

pub async fn pages_cover_everything_once(rig: Rig) {
    mixture(&rig).await;
    let whole = list(&*rig.queue, &Filter::default(), 1000).await;
    assert_eq!(whole.len(), 60);
    let order: Vec<_> = whole.iter().map(|row| (row.id.clone(), row.index)).collect();
    assert!(order.is_sorted() && order.windows(2).all(|w| w[0] != w[1]));
    for filter in [Filter::default(), Filter { provider: Some("gmail".into()), ..Filter::default() }] {
        let whole = list(&*rig.queue, &filter, 1000).await;
        for page in [1, 7, 40, 60] {
            assert_eq!(list(&*rig.queue, &filter, page).await, whole, "pages of {page}");
        }
    }
    let exact = rig.queue.inspect(&Filter::default(), None, 60).await.unwrap();
    assert_eq!((exact.rows.len(), exact.next), (60, None), "a full last page knows that it is the last");
}

pub async fn what_waits_is_counted_by_lane_and_priority(rig: Rig) {
    let queue = &*rig.queue;
    for (priority, lane, leased) in
        [(0, "p", false), (0, "p", false), (9, "p", false), (-9, "p", false), (5, "p", true), (5, "p@192.0.2.1", false)]
    {
        let letter = letter("s@here.example", lane).priority(priority);
        let letter = if leased { letter.leased() } else { letter };
        let id = letter.post(queue).await;
        if priority == -9 {
            // What is not due yet waits as well.
            let held = queue.operate(Operation::Hold, &[key(id, 0)], &[], T0).await.unwrap();
            let again =
                queue.operate(Operation::Release, &[key(id, 0)], &[], T0.after(Duration::from_secs(99))).await.unwrap();
            assert_eq!((held, again), (1, 1));
        }
    }
    let lane = LaneName::from("p");
    let mut counted = Vec::new();
    for (priority, most) in [(i8::MIN, 100), (0, 100), (1, 100), (9, 100), (i8::MAX, 100), (i8::MIN, 3)] {
        counted.push(queue.waiting(&lane, priority, T0, most).await.unwrap());
    }
    assert_eq!(counted, [4, 3, 1, 1, 0, 3], "a leased one does not wait in the queue, nor one of another lane");
}

pub async fn every_filter_picks_its_own(rig: Rig) {
    mixture(&rig).await;
    let whole = list(&*rig.queue, &Filter::default(), 1000).await;
    let id = whole[30].id.clone();
    let before = T0.after(Duration::from_secs(7));
    type Check = Box<dyn Fn(&Row) -> bool>;
    let some = |text: &str| Some(text.to_owned());
    let none = Filter::default;
    let cases: Vec<(usize, Filter, Check)> = vec![
        (3, Filter { id: some(&id), ..none() }, Box::new(move |r| r.id == id)),
        (12, Filter { sender: some("<>"), ..none() }, Box::new(|r| r.sender.is_empty())),
        (12, Filter { sender: some("Sender1@*"), ..none() }, Box::new(|r| r.sender == "sender1@here.example")),
        (20, Filter { recipient: some("b@*"), ..none() }, Box::new(|r| r.recipient == "b@y.example")),
        (20, Filter { domain: some("x.EXAMPLE"), ..none() }, Box::new(|r| r.recipient == "a@X.example")),
        (40, Filter { provider: some("gmail"), ..none() }, Box::new(|r| r.provider == "gmail")),
        (20, Filter { provider: some("@y.example"), ..none() }, Box::new(|r| r.provider == "@y.example")),
        (23, Filter { state: some("queued"), ..none() }, Box::new(|r| r.state == "queued")),
        (20, Filter { state: some("leased"), ..none() }, Box::new(|r| r.state == "leased")),
        (7, Filter { state: some("held"), ..none() }, Box::new(|r| r.state == "held")),
        (10, Filter { state: some("failed"), ..none() }, Box::new(|r| r.state == "failed")),
        (0, Filter { state: some("uncertain"), ..none() }, Box::new(|r| r.state == "uncertain")),
        (10, Filter { reason: some("550*user"), ..none() }, Box::new(|r| r.reason == "550 no such user")),
        (24, Filter { received_before: Some(before.0), ..none() }, Box::new(move |r| r.received <= before.to_string())),
        (
            4,
            Filter { provider: some("gmail"), state: some("leased"), sender: some("<>"), ..none() },
            Box::new(|r| r.provider == "gmail" && r.state == "leased" && r.sender.is_empty()),
        ),
        (0, Filter { provider: some("gmail"), domain: some("y.example"), ..none() }, Box::new(|_| false)),
    ];
    for (count, filter, wanted) in cases {
        let expected: Vec<_> = whole.iter().filter(|row| wanted(row)).cloned().collect();
        assert_eq!(expected.len(), count, "{filter:?} is a case worth testing");
        assert_eq!(list(&*rig.queue, &filter, 3).await, expected, "{filter:?}");
    }
}

pub async fn counts_follow(mut rig: Rig) {
    mixture(&rig).await;
    let expected = Counts { messages: 20, queued: 23, leased: 20, held: 7, failed: 10, uncertain: 0, owed: 0 };
    assert_eq!(rig.queue.counts().await.unwrap(), expected);
    rig.reopen().await;
    let expected = Counts { queued: 43, leased: 0, ..expected };
    assert_eq!(rig.queue.counts().await.unwrap(), expected);
}
