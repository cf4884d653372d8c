//! What is left without an answer has a part of the connections, on paused time.

use std::collections::HashMap;

use super::*;
use crate::clock::{Clock, Timestamp};
use crate::config::Provider;
use crate::mail::{LaneName, State as Fate, sender_key};
use crate::schedule::lane::{By, Hold};
use crate::schedule::testing::{job, provider};
use crate::shape::reserve::testing::ledger;

const IDLE: Duration = Duration::from_secs(1);

fn lane(connections: u32) -> Arc<Lane> {
    let provider = Provider { connections, ..provider("p") };
    Arc::new(Lane::new(LaneName::from("p"), Arc::new(provider), &[], &ledger()))
}

async fn next(lane: &Lane) -> Option<Job> {
    lane.next(None, IDLE).await.ok().map(|(job, _)| job)
}

/// Gives out a message of this sender and lets it time out.
async fn times_out(lane: &Lane, sender: &str, index: u32) -> Option<(Arc<str>, Confined)> {
    let _ = lane.push([job(sender, "x.example", 0, &[index])]);
    let job = next(lane).await.expect("a job");
    let news = lane.left_unanswered(&job, true, Left::Silent);
    lane.settled(1);
    news
}

/// Those that are under way when nothing more is given out.
async fn all_that_leave(lane: &Lane) -> Vec<Job> {
    let mut jobs = Vec::new();
    while let Some(job) = next(lane).await {
        jobs.push(job);
    }
    jobs
}

fn senders(jobs: &[Job]) -> Vec<&str> {
    jobs.iter().map(|job| job.message.message.envelope.sender()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_sender_of_whom_several_had_no_answer_has_half_of_the_connections_until_one_has() {
    let (lane, clock) = (lane(5), Clock::for_tests());
    let _ = lane.push([job("good@g.test", "o.example", 0, &[50])]);
    lane.note_answered(&next(&lane).await.expect("a job"), Duration::from_millis(100));
    lane.settled(1);
    assert_eq!(times_out(&lane, "bad@s.test", 0).await, None, "one may be chance");
    assert_eq!(
        times_out(&lane, "bad@s.test", 1).await,
        Some(("of bad@s.test".into(), Confined { connections: 2, of: 5 }))
    );
    assert_eq!(times_out(&lane, "bad@s.test", 2).await, None, "that is no news");
    let _ = lane.push((10..20).map(|i| job("bad@s.test", "x.example", 0, &[i])));
    let mut under_way = all_that_leave(&lane).await;
    assert_eq!(senders(&under_way), ["bad@s.test"; 2]);
    let holds = lane.holds(clock.now());
    let told: Vec<String> = holds.iter().map(|hold| hold.told(clock.now()).to_string()).collect();
    assert_eq!(told, ["the host leaves mail of bad@s.test without an answer: it has 2 of 5 connections, 8 waiting"]);
    assert!(holds.stop().is_none());
    let due: HashMap<_, _> = (10..20).map(|i| (job("bad@s.test", "x", 0, &[i]).key(i), Fate::Leased)).collect();
    let waits = lane.waits(&due, &holds, clock.now());
    assert!(waits.len() == 8 && waits.iter().all(|(_, hold)| hold.name() == "unanswered"));

    // Others have the rest, and turns as ever.
    let _ = lane.push((30..33).map(|i| job("good@g.test", &format!("{i}.example"), 0, &[i])));
    under_way.extend(all_that_leave(&lane).await);
    assert_eq!(senders(&under_way[2..]), ["good@g.test"; 3]);
    // One of his has ended: the next.
    drop(under_way.swap_remove(0));
    lane.settled(1);
    under_way.extend(all_that_leave(&lane).await);
    assert_eq!(senders(&under_way).iter().filter(|sender| **sender == "bad@s.test").count(), 2);
    let his = under_way.iter().find(|job| job.sender == sender_key("bad@s.test")).expect("one of his");
    lane.note_answered(his, Duration::from_secs(1));
    assert_eq!(all_that_leave(&lane).await.len(), 7, "whoever is answered has all there are");
}

/// A message that hangs is one connection's, whatever its recipients are, and keeps nothing else of its sender.
#[tokio::test(start_paused = true)]
async fn a_message_that_had_no_answer_is_never_on_two_connections() {
    let lane = lane(4);
    let shared = job("a@s.test", "x.example", 0, &[7]);
    let of_it = |index: u32| {
        let mut one = shared.without_recipients();
        one.recipients = job("a@s.test", "x.example", 0, &[index]).recipients;
        one
    };
    let _ = lane.push([of_it(0)]);
    let first = next(&lane).await.expect("a job");
    assert_eq!(lane.left_unanswered(&first, true, Left::Silent), None);
    drop(first);
    lane.settled(1);
    let _ = lane.push([of_it(1), of_it(2), of_it(3)]);
    let _ = lane.push((20..22).map(|i| job("a@s.test", "x.example", 0, &[i])));
    let under_way = all_that_leave(&lane).await;
    let ids: Vec<_> = under_way.iter().map(|job| job.message.message.id.0).collect();
    assert_eq!(ids, [7, 20, 21]);
}

/// VERP addresses at one domain in a lane whose host has answered nothing yet, as after a start.
#[tokio::test(start_paused = true)]
async fn before_the_first_answer_the_last_connection_is_for_other_mail() {
    let bad = || (0..4).map(|n| job(&format!("v{n}@bad.test"), &format!("{n}.example"), 0, &[n]));
    let alone = lane(3);
    let _ = alone.push(bad());
    let leave = all_that_leave(&alone).await;
    assert_eq!(senders(&leave), ["v0@bad.test", "v1@bad.test"]);
    alone.note_answered(&leave[0], IDLE);
    assert_eq!(senders(&all_that_leave(&alone).await[..1]), ["v2@bad.test"], "from the first answer on it has all");
    let with_others = lane(3);
    let _ = with_others.push(bad());
    let _ = with_others.push([job("good@g.test", "x.example", 0, &[9])]);
    let leave = all_that_leave(&with_others).await;
    assert_eq!(senders(&leave), ["v0@bad.test", "v1@bad.test", "good@g.test"]);
}

/// As at a reload: what was answered, and what was not.
#[tokio::test(start_paused = true)]
async fn a_lane_that_goes_on_from_another_one_knows_what_that_knew() {
    let (before, after, new) = (lane(4), lane(4), lane(4));
    for index in 0..2 {
        times_out(&before, "bad@s.test", index).await;
    }
    let _ = before.push([job("good@g.test", "x.example", 0, &[5])]);
    let good = next(&before).await.expect("a job");
    before.note_answered(&good, IDLE);
    assert!(before.knows_answers() && !new.knows_answers());
    after.go_on_from(&before);
    let his = || (10..20).map(|n| job("bad@s.test", "x.example", 0, &[n]));
    for (lane, first) in [(&after, 2), (&new, 3)] {
        let _ = lane.push(his());
        let leave = all_that_leave(lane).await;
        assert_eq!(leave.len(), first);
        if first == 3 {
            lane.note_answered(&leave[0], IDLE);
            assert_eq!(all_that_leave(lane).await.len(), 7, "nothing is known against him");
        }
    }
    // Since something was answered, a burst of somebody else leaves the last one free from the first moment on.
    let other = lane(4);
    other.go_on_from(&before);
    let _ = other.push((10..20).map(|n| job("burst@b.test", "x.example", 0, &[n])));
    assert_eq!(all_that_leave(&other).await.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn where_there_is_one_connection_it_is_for_all() {
    let lane = lane(1);
    for index in 0..2 {
        times_out(&lane, "bad@s.test", index).await;
    }
    let _ = lane.push((10..12).map(|i| job("bad@s.test", "x.example", 0, &[i])));
    assert_eq!(all_that_leave(&lane).await.len(), 1);
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut unanswered = Unanswered::default();
    for n in 0..1000 {
        unanswered.left(QueueId(n), &Features::from(&*format!("s{n}@s.test")), Left::Silent, Instant::now());
    }
    assert_eq!((unanswered.messages.len(), unanswered.features.len()), (MESSAGES, FEATURES));
}

/// What a host says nothing to in a transaction, in the words of other holds.
#[test]
fn an_answer_that_is_awaited_for_long_is_told() {
    let told = |stage, connections| {
        let silent = Duration::from_secs(40);
        let by = By::Answer { host: "mx.example".into(), stage, silent, connections };
        let hold = Hold { by, until: None };
        assert!(!hold.stops());
        hold.told(Timestamp(0)).to_string()
    };
    use crate::deliver::Stage;
    assert_eq!(told(Stage::Final, 1), "waiting 40 s for the answer of mx.example to the end of data");
    assert_eq!(
        told(Stage::Mail, 3),
        "waiting 40 s for the answer of mx.example to MAIL (the longest of 3 connections)"
    );
}

/// Senders of one domain, each new (VERP), for whose mail the host ends connections while it takes other mail.
#[tokio::test(start_paused = true)]
async fn what_connections_are_ended_for_is_tried_by_one_message_after_waits_that_double() {
    let (lane, clock) = (lane(4), Clock::for_tests());
    let answer = async |index| {
        let _ = lane.push([job("good@g.test", "x.example", 0, &[index])]);
        let good = next(&lane).await.expect("a job");
        assert_eq!(senders(std::slice::from_ref(&good)), ["good@g.test"], "behind nobody");
        lane.note_answered(&good, Duration::from_millis(100));
        lane.settled(1);
    };
    answer(0).await;
    let mut news = Vec::new();
    for n in 1..=2 {
        let _ = lane.push([job(&format!("v{n}@bad.test"), "x.example", 0, &[n])]);
        let bad = next(&lane).await.expect("a job");
        news.extend(lane.left_unanswered(&bad, false, Left::Ended));
        lane.settled(1);
        answer(100 + n).await;
    }
    assert_eq!(news.len(), 1);
    assert_eq!(&*news[0].0, "of senders at bad.test");

    let _ = lane.push((10..60).map(|n| job(&format!("v{n}@bad.test"), "x.example", 0, &[n])));
    let holds = lane.holds(clock.now());
    let told: Vec<String> = holds.iter().map(|hold| hold.told(clock.now()).to_string()).collect();
    let text = "the host ends connections for mail of senders at bad.test: it has 2 of 4 connections, 50 waiting";
    assert_eq!(told, [text]);
    let mut waits = Vec::new();
    for n in 0..10 {
        let began = Instant::now();
        let (bad, _) = lane.next(None, Duration::from_secs(100)).await.expect("a probe");
        waits.push(began.elapsed().as_millis());
        assert!(bad.under_way.is_some());
        answer(200 + n).await;
        lane.left_unanswered(&bad, false, Left::Ended);
        lane.settled(1);
    }
    assert_eq!(waits[..8], [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000]);
    // One that is taken ends it.
    let (probe, _) = lane.next(None, Duration::from_secs(100)).await.expect("a probe");
    assert!(next(&lane).await.is_none(), "one at a time");
    lane.note_answered(&probe, Duration::from_millis(100));
    drop(probe);
    lane.settled(1);
    // The others, one after the other: all at once would leave no connection for other mail.
    for _ in 0..39 {
        let job = next(&lane).await.expect("the next");
        lane.note_answered(&job, Duration::from_millis(100));
        lane.settled(1);
    }
    assert!(next(&lane).await.is_none());
}

#[path = "unanswered_worlds.rs"]
mod worlds;
