//! The life of a message: accepted, tried, settled, kept, forgotten; and what a restart does.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mailweir::clock::{Clock, Timestamp};
use mailweir::mail::{
    Address, BodyKind, BodyTraits, CHUNK, Envelope, Message, NewMessage, NewRecipient, Notify, Orcpt, Origin,
    Recipient, Ret, TlsWish,
};
use mailweir::queue::{Counts, Filter, Operation, QueueError, Settlement, Verdict};

use super::{Letter, Rig, T0, body, deferred, delivered, failed, key, letter, list, row};

pub async fn accepted_claimed_and_delivered_leaves_nothing(rig: Rig) {
    let queue = &*rig.queue;
    let id = letter("a@here.example", "gmail").post(queue).await;
    let leased = queue.claim(&"gmail".into(), T0, 10).await.unwrap();
    assert_eq!(leased.iter().map(|l| l.key).collect::<Vec<_>>(), [key(id, 0)]);
    assert_eq!((leased[0].attempts, leased[0].warned, leased[0].lane.as_str()), (0, false, "gmail"));
    assert_eq!(body(queue, &leased[0].message).await, b"Subject: hello\r\n\r\nhello\r\n");
    assert!(queue.claim(&"gmail".into(), T0, 10).await.unwrap().is_empty(), "held by one");
    queue.settle(vec![delivered(key(id, 0))], vec![]).await.unwrap();
    assert_eq!(queue.counts().await.unwrap(), Counts::default());
    assert_eq!(queue.chunk(id, 0).await.unwrap(), None);
    assert!(queue.lanes(None, 10).await.unwrap().is_empty());
}

pub async fn stores_and_gives_back_every_field(mut rig: Rig) {
    let origins = [
        Origin::Client {
            ip: "2001:db8::1".parse().unwrap(),
            helo: "präsident".into(),
            listener: "".into(),
            user: "jo@x.example".into(),
        },
        Origin::Client {
            ip: "192.0.2.1".parse().unwrap(),
            helo: "".into(),
            listener: "submission".into(),
            user: "shop".into(),
        },
        Origin::Dsn,
        Origin::Local,
    ];
    let envelopes = [
        Envelope {
            reverse_path: Some(Address::parse("\"odd one\"@müller.example").unwrap()),
            body: BodyKind::EightBitMime,
            smtputf8: true,
            ret: Some(Ret::Full),
            envid: Some("env id\u{7f}+".into()),
            priority: -9,
            release: Some(T0.after(Duration::from_millis(900))),
            tls: TlsWish::Optional,
        },
        Envelope {
            body: BodyKind::BinaryMime,
            ret: Some(Ret::Headers),
            priority: 9,
            tls: TlsWish::Optional,
            ..Envelope::default()
        },
        Envelope::default(),
        Envelope { tls: TlsWish::Required, ..Envelope::default() },
    ];
    let mut stored = Vec::new();
    for (n, (origin, envelope)) in origins.into_iter().zip(envelopes).enumerate() {
        let id = rig.queue.next_id(T0);
        let message = Arc::new(Message {
            id,
            received: T0.after(Duration::from_millis(n as u64)),
            envelope,
            origin,
            size: n as u64,
            // Every trait is there once.
            traits: BodyTraits::from_bits([31, 5, 10, 16][n]),
        });
        let recipient = Recipient {
            address: Address::parse("x@[IPv6:2001:db8::2]").unwrap(),
            notify: if n == 0 { Notify::NEVER } else { Notify::from_bits(n as u8) },
            orcpt: (n > 1).then(|| Orcpt { kind: "rfc822".into(), address: "a;b@c".into() }),
            copy: n % 2 == 0,
        };
        let head = Bytes::from(vec![b'x'; n]);
        let recipients =
            vec![NewRecipient { recipient: recipient.clone(), lane: "all".into(), leased: false, held: None }];
        rig.queue.accept(NewMessage { message: Arc::clone(&message), recipients, head }).await.unwrap();
        stored.push((message, recipient));
    }
    rig.reopen().await;
    let mut leased = rig.queue.claim(&"all".into(), T0.after(Duration::from_secs(1)), 10).await.unwrap();
    leased.sort_by_key(|l| l.key);
    assert_eq!(leased.len(), stored.len());
    for (got, (message, recipient)) in leased.iter().zip(&stored) {
        assert_eq!((&got.message, &got.recipient), (message, recipient));
    }
    // A list tells of both.
    let page = rig.queue.inspect(&Filter::default(), None, 10).await.unwrap();
    let told: Vec<_> = page.rows.iter().map(|(.., row)| (row.copy, row.requiretls)).collect();
    assert_eq!(told, [(true, false), (false, false), (true, false), (false, true)]);
}

pub async fn refuses_what_makes_no_sense(rig: Rig) {
    let queue = &*rig.queue;
    let post = letter("a@here.example", "gmail");
    let id = post.post(queue).await;
    let before = queue.counts().await.unwrap();
    let other = queue.next_id(T0);
    let nobody = post.clone().to(&[]).build(other);
    let mut cut_short = post.build(other);
    cut_short.head.truncate(3);
    let unspilled = post.clone().body(vec![b'x'; CHUNK + 1]).build(other);
    for (what, message) in
        [("twice", post.build(id)), ("no recipients", nobody), ("cut", cut_short), ("gap", unspilled)]
    {
        assert!(matches!(queue.accept(message).await, Err(QueueError::Invalid(_))), "{what}");
    }
    for (index, chunk) in [(0, vec![b'x']), (1, vec![]), (1, vec![b'x'; CHUNK + 1])] {
        let spilled = queue.spill(other, index, chunk.into()).await;
        assert!(matches!(spilled, Err(QueueError::Invalid(_))), "chunk {index}");
    }
    assert!(matches!(queue.spill(id, 1, Bytes::from_static(b"x")).await, Err(QueueError::Invalid(_))), "accepted");
    for filter in [
        Filter { id: Some("nonsense".into()), ..Filter::default() },
        Filter { state: Some("lost".into()), ..Filter::default() },
    ] {
        assert!(matches!(queue.inspect(&filter, None, 10).await, Err(QueueError::Invalid(_))), "{filter:?}");
    }
    assert_eq!(queue.counts().await.unwrap(), before);
    assert_eq!(list(queue, &Filter::default(), 10).await.len(), 1);
}

pub async fn deferred_comes_back_when_due(rig: Rig) {
    let queue = &*rig.queue;
    let id = letter("a@here.example", "@there.example").post(queue).await;
    assert_eq!(queue.claim(&"@there.example".into(), T0, 1).await.unwrap().len(), 1);
    let due = T0.after(Duration::from_secs(60));
    queue.settle(vec![deferred(key(id, 0), due, "gmail")], vec![]).await.unwrap();
    assert_eq!(queue.lane_due(&"@there.example".into()).await.unwrap(), None);
    assert_eq!(queue.lane_due(&"gmail".into()).await.unwrap(), Some(due));
    let shown = row(queue, key(id, 0)).await.unwrap();
    assert_eq!((shown.state.as_str(), shown.attempts, shown.reason.as_str()), ("queued", 1, "451 later"));
    assert_eq!((shown.due, shown.received, shown.size), (due.to_string(), T0.to_string(), 25));

    assert!(queue.claim(&"gmail".into(), Timestamp(due.0 - 1), 1).await.unwrap().is_empty());
    let again = queue.claim(&"gmail".into(), due, 1).await.unwrap();
    assert_eq!((again[0].attempts, again[0].warned), (1, false));
    let verdict = Verdict::Deferred {
        due,
        reason: "é".repeat(600),
        counts: false,
        uncertain: true,
        warned: true,
        lane: "gmail".into(),
    };
    queue.settle(vec![Settlement { key: key(id, 0), verdict }], vec![]).await.unwrap();
    let shown = row(queue, key(id, 0)).await.unwrap();
    assert_eq!((shown.state.as_str(), shown.attempts, shown.reason.len()), ("uncertain", 1, 1000));
    assert_eq!(queue.counts().await.unwrap().uncertain, 1);

    // An uncertain one is claimed like a queued one, and a delay DSN stays sent.
    let again = queue.claim(&"gmail".into(), due, 1).await.unwrap();
    assert!(again[0].warned);
    queue.settle(vec![deferred(key(id, 0), due, "gmail")], vec![]).await.unwrap();
    assert!(queue.claim(&"gmail".into(), due, 1).await.unwrap()[0].warned);
}

pub async fn a_deferral_without_a_reason_leaves_that_which_is_there(rig: Rig) {
    let queue = &*rig.queue;
    let id = letter("s@here.example", "x").leased().post(queue).await;
    let with = |text: &str| {
        let mut settlement = deferred(key(id, 0), T0, "x");
        if let Verdict::Deferred { reason, .. } = &mut settlement.verdict {
            *reason = text.to_owned();
        }
        settlement
    };
    for (text, told) in [("451 later", "451 later"), ("", "451 later"), ("452 full", "452 full")] {
        queue.settle(vec![with(text)], vec![]).await.unwrap();
        assert_eq!(row(queue, key(id, 0)).await.unwrap().reason, told);
        assert_eq!(queue.claim(&"x".into(), T0, 1).await.unwrap().len(), 1);
    }
}

pub async fn what_may_have_arrived_stays_uncertain_until_an_operator_decides(mut rig: Rig) {
    let id = letter("s@here.example", "x").leased().post(&*rig.queue).await;
    let only = [key(id, 0)];
    let Settlement { key: _, verdict } = deferred(only[0], T0, "x");
    let Verdict::Deferred { due, reason, counts, warned, lane, .. } = verdict else { panic!("a deferral") };
    let doubtful = Verdict::Deferred { due, reason, counts, uncertain: true, warned, lane };
    rig.queue.settle(vec![Settlement { key: only[0], verdict: doubtful }], vec![]).await.unwrap();
    let state = async |rig: &Rig| row(&*rig.queue, only[0]).await.unwrap().state;
    assert_eq!(state(&rig).await, "uncertain");

    // Leased, and the process ends; leased, and given back; leased, and put off with a clear reply.
    assert_eq!(rig.queue.claim(&"x".into(), T0, 1).await.unwrap().len(), 1);
    assert_eq!(state(&rig).await, "leased");
    rig.drop_and_reopen().await;
    assert_eq!(state(&rig).await, "uncertain");
    assert_eq!(rig.queue.claim(&"x".into(), T0, 1).await.unwrap().len(), 1);
    assert_eq!(rig.queue.operate(Operation::Release, &only, &only, T0).await.unwrap(), 0);
    assert_eq!(state(&rig).await, "uncertain");
    assert_eq!(rig.queue.claim(&"x".into(), T0, 1).await.unwrap().len(), 1);
    rig.queue.settle(vec![deferred(only[0], T0, "x")], vec![]).await.unwrap();
    assert_eq!(state(&rig).await, "uncertain");
    assert_eq!(rig.queue.counts().await.unwrap(), Counts { messages: 1, uncertain: 1, ..Counts::default() });

    assert_eq!(rig.queue.operate(Operation::Retry, &only, &[], T0).await.unwrap(), 1);
    assert_eq!(state(&rig).await, "queued");
    assert_eq!(rig.queue.claim(&"x".into(), T0, 1).await.unwrap().len(), 1);
    rig.drop_and_reopen().await;
    assert_eq!(state(&rig).await, "queued");
    assert_eq!(rig.queue.counts().await.unwrap(), Counts { messages: 1, queued: 1, ..Counts::default() });
}

/// What comes in to be held is never anybody's until it is released, also if the process ends at once.
pub async fn what_is_held_from_the_start_waits_for_an_operator(mut rig: Rig) {
    let held = Letter { held: Some("held: too much".into()), ..letter("s@here.example", "x") };
    // Being held comes first, whoever hands it in.
    let id = held.leased().post(&*rig.queue).await;
    assert_eq!(rig.queue.counts().await.unwrap(), Counts { messages: 1, held: 1, ..Counts::default() });
    rig.drop_and_reopen().await;
    assert!(rig.queue.claim(&"x".into(), T0.after(Duration::from_secs(9)), 9).await.unwrap().is_empty());
    let shown = row(&*rig.queue, key(id, 0)).await.unwrap();
    assert_eq!((shown.state.as_str(), shown.reason.as_str()), ("held", "held: too much"));
    assert_eq!(rig.queue.operate(Operation::Release, &[key(id, 0)], &[], T0).await.unwrap(), 1);
    assert_eq!(rig.queue.claim(&"x".into(), T0, 9).await.unwrap().len(), 1);
}

pub async fn a_message_stays_as_long_as_a_recipient(rig: Rig) {
    let queue = &*rig.queue;
    let to = [("a@x.example", "x"), ("b@x.example", "x"), ("c@y.example", "y")];
    let id = letter("s@here.example", "x").to(&to).leased().post(queue).await;
    queue.settle(vec![delivered(key(id, 0)), failed(key(id, 2), "550 no")], vec![]).await.unwrap();
    assert_eq!(queue.counts().await.unwrap(), Counts { messages: 1, leased: 1, failed: 1, ..Counts::default() });
    queue.settle(vec![delivered(key(id, 1))], vec![]).await.unwrap();
    assert!(queue.chunk(id, 0).await.unwrap().is_some(), "a dead letter keeps the body");
    assert_eq!(queue.operate(Operation::Cancel, &[key(id, 2)], &[], T0).await.unwrap(), 1);
    assert_eq!(queue.chunk(id, 0).await.unwrap(), None);
    assert_eq!(queue.counts().await.unwrap(), Counts::default());
}

pub async fn dead_letters_are_kept_then_forgotten(mut rig: Rig) {
    let keep = Duration::from_secs(3600);
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(letter("a@here.example", "gmail").leased().post(&*rig.queue).await);
    }
    let before = Clock::System.now();
    let fates = ids.iter().map(|id| failed(key(*id, 0), "550 5.1.1 no such user")).collect();
    rig.queue.settle(fates, vec![]).await.unwrap();
    let after = Clock::System.now();
    rig.reopen().await;
    let queue = &*rig.queue;
    assert_eq!(queue.counts().await.unwrap().failed, 5);
    let shown = row(queue, key(ids[0], 0)).await.unwrap();
    assert_eq!((shown.state.as_str(), shown.reason.as_str()), ("failed", "550 5.1.1 no such user"));
    assert!(before.to_string() <= shown.due && shown.due <= after.to_string(), "{} is when it failed", shown.due);

    assert_eq!(queue.forget(before.after(keep), keep, 100).await.unwrap(), 0, "not yet");
    let later = after.after(keep).after(Duration::from_millis(1));
    assert_eq!(queue.forget(later, keep, 2).await.unwrap(), 2);
    assert_eq!(queue.forget(later, keep, 100).await.unwrap(), 3);
    assert_eq!(queue.forget(later, keep, 100).await.unwrap(), 0);
    assert_eq!(queue.counts().await.unwrap(), Counts::default());
    assert_eq!(queue.chunk(ids[0], 0).await.unwrap(), None);
}

pub async fn settling_what_is_not_held_is_passed_over(rig: Rig) {
    let queue = &*rig.queue;
    let queued = letter("a@here.example", "gmail").post(queue).await;
    let leased = letter("a@here.example", "gmail").leased().post(queue).await;
    let gone = queue.next_id(T0);
    let fates = vec![
        delivered(key(queued, 0)),
        failed(key(queued, 7), "no such recipient"),
        deferred(key(gone, 0), T0, "gmail"),
        delivered(key(leased, 0)),
        failed(key(leased, 0), "settled a second time"),
    ];
    queue.settle(fates, vec![]).await.unwrap();
    assert_eq!(queue.counts().await.unwrap(), Counts { messages: 1, queued: 1, ..Counts::default() });
    assert!(row(queue, key(queued, 0)).await.is_some());
}

pub async fn operations_follow_the_state_table(rig: Rig) {
    use mailweir::mail::State;
    use mailweir::mail::lifecycle::{Event, Next};
    let queue = &*rig.queue;
    let due = T0.after(Duration::from_secs(3600));
    let now = T0.after(Duration::from_secs(60));
    for state in [State::Queued, State::Uncertain, State::Held, State::Failed, State::Leased] {
        for (op, event) in [
            (Operation::Retry, Event::Retry),
            (Operation::Hold, Event::Hold),
            (Operation::Release, Event::Release),
            (Operation::Cancel, Event::Cancel),
            (Operation::HoldUntil(now), Event::Postpone),
        ] {
            let id = letter("a@here.example", "x").leased().post(queue).await;
            let only = [key(id, 0)];
            let verdict = match state {
                State::Failed => Verdict::Failed { reason: "550".into() },
                _ => Verdict::Deferred {
                    due,
                    reason: "451".into(),
                    counts: true,
                    uncertain: state == State::Uncertain,
                    warned: false,
                    lane: "x".into(),
                },
            };
            if state != State::Leased {
                queue.settle(vec![Settlement { key: only[0], verdict }], vec![]).await.unwrap();
            }
            if state == State::Held {
                assert_eq!(queue.operate(Operation::Hold, &only, &[], now).await.unwrap(), 1);
            }
            let withdrawn: &[_] = if state == State::Leased { &only } else { &[] };
            let changed = queue.operate(op, &only, withdrawn, now).await.unwrap();
            let shown = row(queue, only[0]).await;
            let case = format!("{op:?} of {state}: {shown:?}");
            match state.on(event) {
                Some(Next::Gone) => assert!(changed == 1 && shown.is_none(), "{case}"),
                Some(Next::To(next)) => {
                    let shown = shown.expect("still there");
                    assert_eq!((changed, shown.state.as_str()), (1, next.as_str()), "{case}");
                    if next == State::Queued {
                        assert_eq!(shown.due, now.to_string(), "{case}: due now");
                    }
                }
                None => {
                    // A lease that was given up goes back to its lane whatever becomes of it.
                    let stays = if state == State::Leased { "queued" } else { state.as_str() };
                    assert_eq!((changed, shown.expect("still there").state.as_str()), (0, stays), "{case}");
                }
            }
            queue.operate(Operation::Cancel, &only, &[], now).await.unwrap();
            assert_eq!(queue.counts().await.unwrap(), Counts::default(), "{case}");
        }
    }
}

pub async fn a_held_lease_is_left_alone_unless_withdrawn(rig: Rig) {
    let queue = &*rig.queue;
    let id = letter("a@here.example", "x").to(&[("a@x.example", "x"), ("b@x.example", "x")]).leased().post(queue).await;
    let both = [key(id, 0), key(id, 1)];
    let later = Operation::HoldUntil(T0.after(Duration::from_secs(9)));
    for op in [Operation::Retry, Operation::Hold, Operation::Release, Operation::Cancel, later] {
        assert_eq!(queue.operate(op, &both, &[], T0).await.unwrap(), 0, "{op:?}");
    }
    assert_eq!(queue.counts().await.unwrap().leased, 2);
    assert_eq!(queue.operate(Operation::Cancel, &both, &both[1..], T0).await.unwrap(), 1);
    queue.settle(vec![delivered(both[0]), failed(both[1], "too late")], vec![]).await.unwrap();
    assert_eq!(queue.counts().await.unwrap(), Counts::default());
}

pub async fn big_bodies_are_spilled_and_read_in_chunks(mut rig: Rig) {
    let text: Vec<u8> = (0..CHUNK * 3 + 17).map(|n| (n / 7 % 251) as u8).collect();
    let exact = text[..CHUNK * 2].to_vec();
    let first = letter("a@here.example", "x").body(text.clone()).post(&*rig.queue).await;
    let second = letter("a@here.example", "x").body(exact.clone()).post(&*rig.queue).await;
    rig.reopen().await;
    let queue = &*rig.queue;
    let mut leased = queue.claim(&"x".into(), T0, 10).await.unwrap();
    leased.sort_by_key(|l| l.key);
    assert_eq!(leased.iter().map(|l| l.key.id).collect::<Vec<_>>(), [first, second]);
    assert_eq!((leased[0].message.chunks(), leased[1].message.chunks()), (4, 2));
    assert!(body(queue, &leased[0].message).await == text, "the first body is as it was");
    assert!(body(queue, &leased[1].message).await == exact, "the second body is as it was");
    assert_eq!(queue.chunk(first, 4).await.unwrap(), None);
    queue.unspill(first).await;
    assert!(queue.chunk(first, 3).await.unwrap().is_some(), "what was accepted cannot be unspilled");
    queue.settle(leased.iter().map(|l| delivered(l.key)).collect(), vec![]).await.unwrap();
    for index in 0..4 {
        assert_eq!(queue.chunk(first, index).await.unwrap(), None);
    }
}

pub async fn unspilled_and_unaccepted_chunks_are_gone(mut rig: Rig) {
    let text = vec![b'x'; CHUNK + 5];
    let post = letter("a@here.example", "x").body(text);
    let (dropped, lost) = (rig.queue.next_id(T0), rig.queue.next_id(T0));
    for id in [dropped, lost] {
        rig.queue.spill(id, 1, Bytes::from_static(b"yyyyy")).await.unwrap();
        assert_eq!(rig.queue.chunk(id, 1).await.unwrap(), None, "not a message yet");
    }
    // The same chunk once more, after an error that left its fate open, replaces it.
    rig.queue.spill(lost, 1, Bytes::from_static(b"xxxxx")).await.unwrap();
    rig.queue.unspill(dropped).await;
    assert!(matches!(rig.queue.accept(post.build(dropped)).await, Err(QueueError::Invalid(_))));
    rig.reopen().await;
    assert!(matches!(rig.queue.accept(post.build(lost)).await, Err(QueueError::Invalid(_))));
    assert_eq!(rig.queue.counts().await.unwrap(), Counts::default());
}

pub async fn a_restart_queues_what_was_leased(mut rig: Rig) {
    let waiting = letter("a@here.example", "x").post(&*rig.queue).await;
    let handed = letter("a@here.example", "y").leased().post(&*rig.queue).await;
    assert_eq!(rig.queue.claim(&"x".into(), T0, 1).await.unwrap().len(), 1);
    let due = T0.after(Duration::from_secs(9));
    rig.queue.settle(vec![deferred(key(waiting, 0), due, "x")], vec![]).await.unwrap();
    assert_eq!(rig.queue.claim(&"x".into(), due, 1).await.unwrap().len(), 1);
    assert_eq!(rig.queue.counts().await.unwrap().leased, 2);
    rig.reopen().await;
    assert_eq!(rig.queue.counts().await.unwrap(), Counts { messages: 2, queued: 2, ..Counts::default() });
    assert_eq!(rig.queue.lane_due(&"x".into()).await.unwrap(), Some(due), "the due time is as it was");
    let leased = rig.queue.claim(&"x".into(), due, 9).await.unwrap();
    assert_eq!((leased.len(), leased[0].attempts), (1, 1));
    assert_eq!(rig.queue.claim(&"y".into(), due, 9).await.unwrap()[0].key, key(handed, 0));
}

pub async fn all_leases_are_ended_at_once(rig: Rig) {
    let queue = &*rig.queue;
    let claimed = letter("a@here.example", "x").post(queue).await;
    let handed = letter("a@here.example", "y").leased().post(queue).await;
    let doubtful = letter("a@here.example", "z").leased().post(queue).await;
    let held = letter("a@here.example", "h").post(queue).await;
    assert_eq!(queue.operate(Operation::Hold, &[key(held, 0)], &[], T0).await.unwrap(), 1);
    let mut unclear = deferred(key(doubtful, 0), T0, "z");
    if let Verdict::Deferred { uncertain, .. } = &mut unclear.verdict {
        *uncertain = true;
    }
    queue.settle(vec![unclear], vec![]).await.unwrap();
    for lane in ["x", "z"] {
        assert_eq!(queue.claim(&lane.into(), T0, 9).await.unwrap().len(), 1);
    }
    assert_eq!(queue.end_leases().await.unwrap(), 3);
    assert_eq!(queue.end_leases().await.unwrap(), 0);
    let expected = Counts { messages: 4, queued: 2, uncertain: 1, held: 1, ..Counts::default() };
    assert_eq!(queue.counts().await.unwrap(), expected);
    for (lane, id) in [("x", claimed), ("y", handed), ("z", doubtful)] {
        let leased = queue.claim(&lane.into(), T0, 9).await.unwrap();
        assert_eq!((leased.len(), leased[0].key), (1, key(id, 0)), "{lane}");
    }
}

pub async fn a_drop_without_close_loses_nothing(mut rig: Rig) {
    let id = letter("a@here.example", "x").post(&*rig.queue).await;
    let big = letter("a@here.example", "x").body(vec![b'x'; CHUNK + 1]).post(&*rig.queue).await;
    rig.drop_and_reopen().await;
    let mut leased = rig.queue.claim(&"x".into(), T0, 9).await.unwrap();
    leased.sort_by_key(|l| l.key);
    assert_eq!(leased.iter().map(|l| l.key.id).collect::<Vec<_>>(), [id, big]);
}

pub async fn a_closed_queue_says_so(rig: Rig) {
    let queue = &*rig.queue;
    let id = letter("a@here.example", "x").post(queue).await;
    queue.close().await;
    queue.close().await;
    let post = letter("a@here.example", "x").build(queue.next_id(T0));
    assert!(matches!(queue.accept(post).await, Err(QueueError::Closed)));
    assert!(matches!(queue.claim(&"x".into(), T0, 1).await, Err(QueueError::Closed)));
    assert!(matches!(queue.chunk(id, 0).await, Err(QueueError::Closed)));
    assert!(matches!(queue.counts().await, Err(QueueError::Closed)));
    assert!(matches!(queue.lanes(None, 1).await, Err(QueueError::Closed)));
    queue.unspill(id).await;
}

pub async fn ids_grow_over_restarts_and_clock_steps(mut rig: Rig) {
    let first = letter("a@here.example", "x").leased().post(&*rig.queue).await;
    rig.queue.settle(vec![delivered(key(first, 0))], vec![]).await.unwrap();
    rig.reopen().await;
    let set_back = Timestamp(T0.0 - 86_400_000);
    let second = rig.queue.next_id(set_back);
    assert!(second > first, "{second} after {first}, though nothing is stored any more");
    assert!(rig.queue.next_id(set_back) > second);
}

pub async fn a_lease_nobody_waited_for_goes_back(rig: Rig) {
    let queue = &rig.queue;
    let claimed = letter("a@here.example", "x").post(&**queue).await;
    let handed = letter("b@here.example", "x").leased().build(queue.next_id(T0));
    let handed_id = handed.message.id;
    // Both calls reach the store; their callers go away before the answer.
    let accepting = tokio::spawn({
        let queue = Arc::clone(queue);
        async move { queue.accept(handed).await }
    });
    let claiming = tokio::spawn({
        let queue = Arc::clone(queue);
        async move { queue.claim(&"x".into(), T0, 1).await }
    });
    tokio::task::yield_now().await;
    accepting.abort();
    claiming.abort();
    let gone = (accepting.await.is_err(), claiming.await.is_err());
    assert_eq!(gone, (true, true), "aborted before they were answered");
    let mut found = Vec::new();
    for _ in 0..1000 {
        found.extend(queue.claim(&"x".into(), T0, 9).await.unwrap().into_iter().map(|l| l.key));
        if found.len() == 2 {
            break;
        }
    }
    found.sort_unstable();
    assert_eq!(found, [key(claimed, 0), key(handed_id, 0)]);
}
