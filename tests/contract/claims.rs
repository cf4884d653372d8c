//! Lanes, and whose turn it is.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use mailweir::mail::{CHUNK, LaneName};
use mailweir::queue::turns::{Look, Turn};
use mailweir::queue::{Counts, HEADS_EACH, LaneDue, Operation};
use parking_lot::Mutex;

use super::{Rig, T0, deferred, delivered, failed, key, letter};

pub async fn higher_priority_first(rig: Rig) {
    let queue = &*rig.queue;
    for (n, priority) in [0, -9, 9, 4, 0, -1, 9, 0].into_iter().enumerate() {
        letter(&format!("s{n}@{n}.example"), "x").priority(priority).post(queue).await;
    }
    let mut seen = Vec::new();
    for limit in [1, 3, 10] {
        let leased = queue.claim(&"x".into(), T0, limit).await.unwrap();
        assert!(leased.len() <= limit);
        seen.extend(leased.iter().map(|l| l.message.envelope.priority));
    }
    assert_eq!(seen, [9, 9, 4, 0, 0, 0, -1, -9]);
}

pub async fn a_stream_of_urgent_mail_leaves_the_others_a_share(rig: Rig) {
    let queue = &*rig.queue;
    for n in 0..64 {
        for priority in [5, 0, -4, -9] {
            letter(&format!("s{n}@p{}.example", priority + 9), "x").priority(priority).post(queue).await;
        }
    }
    let mut last = 0;
    for _ in 0..40 {
        // As much urgent mail comes as leaves.
        let urgent = queue.claim(&"x".into(), T0, 16).await.unwrap();
        let priorities: Vec<i8> = urgent.iter().map(|l| l.message.envelope.priority).collect();
        assert!(priorities.len() == 16 && priorities.iter().rev().is_sorted(), "{priorities:?}");
        let low = priorities.iter().filter(|p| **p < 5).count();
        assert_eq!(low, 2, "one of eight: {priorities:?}");
        last += priorities.iter().filter(|p| **p == -9).count();
        for n in 0..16 {
            letter(&format!("more{n}@5.example"), "x").priority(5).post(queue).await;
        }
    }
    assert!(last > 5, "{last} of the lowest priority in 40 claims");

    // Nobody else is there: no room stays empty, and the odd ones go to whoever is left.
    for n in 0..20 {
        letter(&format!("s{n}@y.example"), "y").priority(5).post(queue).await;
    }
    letter("s@y.example", "y").priority(-9).post(queue).await;
    assert_eq!(queue.claim(&"y".into(), T0, 16).await.unwrap().len(), 16);
    assert_eq!(queue.claim(&"y".into(), T0, 16).await.unwrap().len(), 5);
}

pub async fn senders_take_turns(rig: Rig) {
    let queue = &*rig.queue;
    for n in 0..300 {
        // One mailing, an address of its own for every message.
        letter(&format!("list+{n}=x@bulk.example"), "x").post(queue).await;
    }
    let small = 16;
    for n in 0..small {
        let later = T0.after(Duration::from_secs(1));
        letter(&format!("person@{n}.example"), "x").received(later).post(queue).await;
    }
    let leased = queue.claim(&"x".into(), T0.after(Duration::from_secs(2)), 64).await.unwrap();
    assert_eq!(leased.len(), 64);
    let small_ones = leased.iter().filter(|l| !l.message.envelope.sender().ends_with("@bulk.example")).count();
    // Turns may be shared by a few senders, so not every one need be in.
    assert!(small_ones >= small * 3 / 4, "{small_ones} of {small} small senders behind a big one");
    let first_turns = leased.iter().take(small).filter(|l| l.message.envelope.sender().contains("bulk")).count();
    assert!(first_turns <= small / 4, "the big sender has {first_turns} of the first {small} turns");

    // Within one sender: by due time.
    let order: Vec<_> = leased.iter().filter(|l| l.message.envelope.sender().contains("bulk")).map(|l| l.key).collect();
    assert!(order.is_sorted(), "{order:?}");
    let mut rest = 0;
    loop {
        let leased = queue.claim(&"x".into(), T0.after(Duration::from_secs(2)), 64).await.unwrap();
        if leased.is_empty() {
            break;
        }
        rest += leased.len();
    }
    assert_eq!(rest, 300 + small - 64);
}

pub async fn what_is_not_due_stays(rig: Rig) {
    let queue = &*rig.queue;
    for n in 0..10 {
        let at = T0.after(Duration::from_secs(n));
        letter("a@here.example", "x").priority(n as i8 - 5).received(at).post(queue).await;
    }
    for n in 0..10 {
        let now = T0.after(Duration::from_secs(n));
        let leased = queue.claim(&"x".into(), now, 10).await.unwrap();
        assert_eq!(leased.iter().map(|l| l.message.received).collect::<Vec<_>>(), [now]);
    }
}

pub async fn lanes_are_apart(rig: Rig) {
    let queue = &*rig.queue;
    let id = letter("a@here.example", "x").to(&[("a@x.example", "x"), ("b@y.example", "y")]).post(queue).await;
    assert!(queue.claim(&"".into(), T0, 9).await.unwrap().is_empty());
    assert!(queue.claim(&"z".into(), T0, 9).await.unwrap().is_empty());
    assert!(queue.claim(&"x".into(), T0, 0).await.unwrap().is_empty());
    let y = queue.claim(&"y".into(), T0, 9).await.unwrap();
    assert_eq!((y.len(), y[0].key, y[0].recipient.address.as_str()), (1, key(id, 1), "b@y.example"));
    assert_eq!(queue.lane_due(&"x".into()).await.unwrap(), Some(T0));
    assert_eq!(queue.lane_due(&"y".into()).await.unwrap(), None);
}

pub async fn lanes_are_listed_in_order_with_their_due_time(rig: Rig) {
    let queue = &*rig.queue;
    let names = ["@b.example", "@a.example", "gmail", "ses", "Zoo", "ümlaut"];
    for (n, name) in names.iter().enumerate() {
        for later in [2, 1, 3] {
            let at = T0.after(Duration::from_secs(n as u64 * 10 + later));
            // The earliest is of low priority: priority does not hide it.
            letter(&format!("a@{later}.example"), name).priority(later as i8).received(at).post(queue).await;
        }
    }
    let mut expected: Vec<LaneDue> = (0u64..)
        .zip(names)
        .map(|(n, name)| LaneDue { lane: name.into(), due: T0.after(Duration::from_secs(n * 10 + 1)) })
        .collect();
    expected.sort_by(|a, b| a.lane.cmp(&b.lane));
    assert_eq!(queue.lanes(None, 100).await.unwrap(), expected);
    let (mut pages, mut after): (Vec<LaneDue>, Option<LaneName>) = (Vec::new(), None);
    loop {
        let page = queue.lanes(after, 4).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.lane.clone());
        pages.extend(page);
    }
    assert_eq!(pages, expected);
    for lane in &expected {
        assert_eq!(queue.lane_due(&lane.lane).await.unwrap(), Some(lane.due));
    }
}

/// Lanes of domains, turn by turn; what a turn does not tell at once it tells at the next look.
pub async fn domains_are_found_turn_by_turn_when_they_are_due(rig: Rig) {
    let queue = &*rig.queue;
    let later = |seconds| T0.after(Duration::from_secs(seconds));
    for n in 0..5 {
        letter("a@here.example", &format!("@a{n}.example")).received(later(n)).post(queue).await;
    }
    letter("a@here.example", "@urgent.example").priority(5).post(queue).await;
    for lane in ["provider", "Z", "[x"] {
        letter("a@here.example", lane).post(queue).await;
    }
    let tried = letter("a@here.example", "@tried.example").leased().post(queue).await;
    queue.settle(vec![deferred(key(tried, 0), later(2), "@tried.example")], vec![]).await.unwrap();

    let look = |now, from, without| Look { tried: false, now, from, without, each: 2 };
    let names = |turn: &Turn| turn.due.iter().map(|due| due.lane.to_string()).collect::<Vec<_>>();
    let turns = queue.turns(look(later(3), vec![], vec![])).await.unwrap();
    assert_eq!(
        turns.iter().map(names).collect::<Vec<_>>(),
        [vec!["@urgent.example".to_owned()], vec!["@a0.example".into(), "@a1.example".into()]]
    );
    assert!(Turn::priority(turns[0].number) < Turn::priority(turns[1].number), "the urgent come first");
    assert!(!turns[0].more && turns[1].more);
    let from = turns.iter().map(|turn| (turn.number, turn.read.clone())).collect();
    let on = queue.turns(look(later(3), from, vec![])).await.unwrap();
    assert_eq!((on.len(), names(&on[0])), (1, vec!["@a2.example".into(), "@a3.example".into()]));
    let from = vec![(on[0].number, on[0].read.clone())];
    let end = queue.turns(look(later(3), from, vec![turns[0].number])).await.unwrap();
    assert_eq!((end.len(), end[0].due.len(), end[0].more, end[0].next), (1, 0, false, Some(later(4))));
    let tried = queue.turns(Look { tried: true, ..look(later(3), vec![], vec![]) }).await.unwrap();
    assert_eq!((tried.len(), names(&tried[0])), (1, vec!["@tried.example".into()]));
}

/// Everything is due, step by step, but for what is held, put aside or still to come.
pub async fn all_are_retried_in_steps(rig: Rig) {
    let queue = &*rig.queue;
    let now = T0.after(Duration::from_secs(100));
    let mut ids = Vec::new();
    for n in 0..7 {
        ids.push(letter(&format!("s{n}@here.example"), "@x.example").leased().post(queue).await);
    }
    letter("late@here.example", "x").received(now.after(Duration::from_secs(5))).post(queue).await;
    let due = now.after(Duration::from_secs(1000));
    let later = ids[..3].iter().map(|id| deferred(key(*id, 0), due, "@x.example")).collect();
    queue.settle(later, vec![]).await.unwrap();
    queue.settle(vec![failed(key(ids[3], 0), "550 no")], vec![]).await.unwrap();
    queue.operate(Operation::Hold, &[key(ids[4], 0)], &[key(ids[4], 0)], now).await.unwrap();
    let (mut done, mut after, mut steps) = ((0, 0, 0), None, 0);
    loop {
        let step = queue.retry_all(after, now, 2).await.unwrap();
        assert!(step.seen <= 2);
        done = (done.0 + step.seen, done.1 + step.changed, done.2 + step.leased);
        steps += 1;
        after = match step.next {
            Some(key) => Some(key),
            None => break,
        };
    }
    assert_eq!(done, (7, 4, 2));
    assert!((4..=5).contains(&steps));
    assert_eq!(queue.claim(&"@x.example".into(), now, 9).await.unwrap().len(), 4);
    let counts = queue.counts().await.unwrap();
    assert_eq!((counts.leased, counts.held, counts.queued, counts.failed), (6, 1, 1, 0));
}

pub async fn a_lane_is_moved_in_steps(rig: Rig) {
    let queue = &*rig.queue;
    let (from, to) = (LaneName::domain("x.example"), LaneName::provider("gmail"));
    for n in 0..25 {
        letter(&format!("a{n}@here.example"), from.as_str()).post(queue).await;
    }
    let held = letter("b@here.example", from.as_str()).leased().post(queue).await;
    let mut moved = Vec::new();
    loop {
        let n = queue.move_lane(&from, &to, 10).await.unwrap();
        if n == 0 {
            break;
        }
        moved.push(n);
    }
    assert_eq!(moved, [10, 10, 5]);
    assert_eq!(queue.move_lane(&to, &to, 10).await.unwrap(), 0, "onto itself");
    let leased = queue.claim(&to, T0, 100).await.unwrap();
    assert_eq!(leased.len(), 25);
    assert!(leased.iter().all(|l| l.lane == to));
    // A lease is its holder's: it says where it waits next.
    queue.settle(vec![deferred(key(held, 0), T0, to.as_str())], vec![]).await.unwrap();
    assert_eq!(queue.lanes(None, 9).await.unwrap(), [LaneDue { lane: to, due: T0 }]);
}

pub async fn every_recipient_has_one_holder(rig: Rig) {
    const TASKS: usize = 16;
    const EACH: usize = 40;
    let held = Arc::new(Mutex::new(HashSet::new()));
    let done = Arc::new(Mutex::new(0usize));
    let mut tasks = Vec::new();
    for t in 0..TASKS {
        let (queue, held, done) = (Arc::clone(&rig.queue), Arc::clone(&held), Arc::clone(&done));
        tasks.push(tokio::spawn(async move {
            let lane: LaneName = ["x", "y", "z"][t % 3].into();
            let mut posted = 0;
            while posted < EACH || *done.lock() < TASKS * EACH {
                if posted < EACH {
                    letter(&format!("a@{t}.example"), lane.as_str()).priority((posted % 3) as i8).post(&*queue).await;
                    posted += 1;
                }
                // Whichever lane: the posts of a task may be delivered by another.
                for lane in ["x", "y", "z"] {
                    let leased = queue.claim(&lane.into(), T0, 7).await.unwrap();
                    for l in &leased {
                        assert!(held.lock().insert(l.key), "{:?} has two holders", l.key);
                    }
                    let fates = leased.iter().enumerate().map(|(n, l)| match (n % 3, l.attempts) {
                        (0, 0) => deferred(l.key, T0, lane),
                        _ => delivered(l.key),
                    });
                    let fates: Vec<_> = fates.collect();
                    for fate in &fates {
                        held.lock().remove(&fate.key);
                    }
                    *done.lock() += fates.iter().filter(|f| **f == delivered(f.key)).count();
                    queue.settle(fates, vec![]).await.unwrap();
                }
                // A store that answers at once gives nobody else a turn.
                tokio::task::yield_now().await;
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(*done.lock(), TASKS * EACH);
    assert_eq!(rig.queue.counts().await.unwrap(), Counts::default());
}

pub async fn the_oldest_of_a_lane_are_found_whatever_else_is_there(rig: Rig) {
    let queue = &*rig.queue;
    let at = |s: u64| T0.after(Duration::from_secs(s));
    let mut ids = Vec::new();
    for n in 0..10u64 {
        let letter = letter("a@a.example", "x").to(&[("one@there.example", "x"), ("two@there.example", "y")]);
        ids.push(letter.received(at(n)).priority(9 - n as i8).post(queue).await);
    }
    // Put off for a long time, put aside, dead, and in somebody's hands.
    let mut settlements = Vec::new();
    for leased in queue.claim(&"x".into(), at(9), 2).await.unwrap() {
        let of = |n: usize| leased.key == key(ids[n], 0);
        settlements.push(if of(0) {
            deferred(leased.key, at(100_000), "x")
        } else {
            assert!(of(1), "the most urgent first");
            failed(leased.key, "no")
        });
    }
    queue.settle(settlements, vec![]).await.unwrap();
    assert_eq!(queue.operate(Operation::Hold, &[key(ids[2], 0)], &[], at(9)).await.unwrap(), 1);
    let held = queue.claim(&"x".into(), at(9), 1).await.unwrap().remove(0);
    assert_eq!(held.key, key(ids[3], 0));

    let old = queue.claim_older(&"x".into(), at(6), 2).await.unwrap();
    assert_eq!(old.iter().map(|l| l.key).collect::<Vec<_>>(), [key(ids[0], 0), key(ids[4], 0)], "the oldest first");
    assert_eq!((old[0].attempts, old[0].lane.as_str()), (1, "x"));
    let old = queue.claim_older(&"x".into(), at(6), 100).await.unwrap();
    assert_eq!(old.iter().map(|l| l.key).collect::<Vec<_>>(), [key(ids[5], 0), key(ids[6], 0)]);
    assert!(queue.claim_older(&"x".into(), at(6), 100).await.unwrap().is_empty(), "they have a holder now");
    assert!(queue.claim_older(&"nobody".into(), at(6), 100).await.unwrap().is_empty());
    assert_eq!(queue.claim(&"x".into(), at(9), 100).await.unwrap().len(), 3, "the younger ones wait on");
    assert_eq!(queue.claim_older(&"y".into(), at(9), 100).await.unwrap().len(), 10);
}

pub async fn short_bodies_come_along(rig: Rig) {
    let queue = &*rig.queue;
    let text = |n: u8, length: usize| vec![b'a' + n; length];
    let both = [("one@there.example", "x"), ("two@there.example", "x")];
    letter("a@a.example", "x").to(&both).body(text(0, 2000)).post(queue).await;
    letter("a@a.example", "x").body(Vec::new()).post(queue).await;
    letter("a@a.example", "x").body(text(1, CHUNK + 1)).post(queue).await;
    for leased in queue.claim(&"x".into(), T0, 100).await.unwrap() {
        let (size, id) = (leased.message.size as usize, leased.key.id);
        assert_eq!(leased.head.is_some(), size < CHUNK, "{size} bytes");
        let first = queue.chunk(id, 0).await.unwrap().unwrap();
        assert!(leased.head.is_none_or(|head| head == first), "{size} bytes");
        assert_eq!(first.len(), size.min(CHUNK));
    }

    // Many of them are more than a claim should hold in memory.
    for n in 0..100 {
        letter("a@a.example", "y").body(text(n % 26, 60_000)).post(queue).await;
        letter("a@a.example", "y").body(text(n % 26, 30_000)).post(queue).await;
        letter("a@a.example", "y").body(text(n % 26, 20_000)).post(queue).await;
    }
    let leased = queue.claim(&"y".into(), T0, 300).await.unwrap();
    assert_eq!(leased.len(), 300);
    let along: usize = leased.iter().filter_map(|l| l.head.as_ref()).map(|head| head.len()).sum();
    assert!((300_000..=300 * HEADS_EACH).contains(&along), "{along} bytes came along");
    for l in leased {
        let head = l.head.is_none_or(|head| head.len() as u64 == l.message.size);
        assert!(head, "whole or not at all");
    }
}
