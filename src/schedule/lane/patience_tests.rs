//! When a transaction is given up for other mail, and when not, on paused time.

use std::sync::Arc;

use super::*;
use crate::config::Provider;
use crate::deliver::Awaited;
use crate::mail::LaneName;
use crate::schedule::testing::{job, provider};
use crate::shape::reserve::testing::ledger;

const SECOND: Duration = Duration::from_secs(1);

/// A lane whose host has answered a message of each of two senders within a moment, and its connections.
async fn rig(connections: u32) -> (Arc<Lane>, Vec<Arc<Awaited>>) {
    let provider = Provider { connections, ..provider("p") };
    let lane = Arc::new(Lane::new(LaneName::from("p"), Arc::new(provider), &[], &ledger()));
    let all: Vec<Arc<Awaited>> = (0..connections).map(|_| Arc::default()).collect();
    all.iter().for_each(|awaited| lane.listens("mx", awaited));
    for n in 0..2 {
        answered(&lane, &format!("good{n}@g.test"), 1000 + n).await;
    }
    lane.state.lock().workers = connections;
    (lane, all)
}

async fn answered(lane: &Lane, sender: &str, index: u32) {
    let _ = lane.push([job(sender, "x.example", 0, &[index])]);
    let job = next(lane).await.expect("it is given out");
    lane.note_answered(&job, Duration::from_millis(20));
    lane.settled(1);
}

async fn next(lane: &Lane) -> Option<Job> {
    lane.next(None, SECOND).await.ok().map(|(job, _)| job)
}

/// A message of this sender, tried so often before, that is under way on a connection.
async fn waits(lane: &Lane, on: &Awaited, sender: &str, (index, attempts): (u32, u32), stage: Stage) -> Job {
    let mut one = job(sender, "x.example", 0, &[index]);
    one.recipients[0].attempts = attempts;
    let _ = lane.push([one]);
    let given = next(lane).await.expect("it is given out");
    on.begins((given.message.message.id, given.features().keys()), stage, stage < Stage::Body);
    given
}

/// After how many seconds something is given up, if at all within ten minutes.
async fn given_up_after(lane: &Lane) -> Option<u64> {
    let began = Instant::now();
    for _ in 0..600 {
        if let Some(given_up) = lane.give_up_late() {
            assert!(given_up.host == "mx" && given_up.after >= began.elapsed());
            return Some(began.elapsed().as_secs());
        }
        tokio::time::advance(SECOND).await;
    }
    None
}

#[tokio::test(start_paused = true)]
async fn a_message_is_given_up_where_others_need_its_connection_and_twice_as_late_each_time() {
    for (attempts, after) in [(0, 30), (1, 60), (2, 120), (3, 240), (4, 300), (9, 300)] {
        let (lane, connections) = rig(1).await;
        let _hangs = waits(&lane, &connections[0], "bad@s.test", (1, attempts), Stage::Rcpt).await;
        let _ = lane.push([job("good0@g.test", "x.example", 0, &[2])]);
        assert_eq!(given_up_after(&lane).await, Some(after), "{attempts}");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_given_up_of_which_the_body_is_out_or_that_nobody_waits_for() {
    // It may have arrived.
    let (lane, connections) = rig(1).await;
    let _hangs = waits(&lane, &connections[0], "bad@s.test", (1, 0), Stage::Final).await;
    let _ = lane.push([job("good0@g.test", "x.example", 0, &[2])]);
    assert_eq!(given_up_after(&lane).await, None);
    // There is no other mail, or a connection for it.
    let (lane, connections) = rig(2).await;
    let _hangs = waits(&lane, &connections[0], "bad@s.test", (1, 0), Stage::Mail).await;
    assert_eq!(given_up_after(&lane).await, None);
    lane.state.lock().waiting = 1;
    let _ = lane.push([job("good0@g.test", "x.example", 0, &[2])]);
    assert_eq!(given_up_after(&lane).await, None);
}

/// A host that is slow with all mail as a rule has so many times as long.
#[tokio::test(start_paused = true)]
async fn what_is_usual_is_no_reason() {
    let (lane, connections) = rig(1).await;
    for n in 0..20 {
        let _ = lane.push([job("good0@g.test", "x.example", 0, &[100 + n])]);
        let job = next(&lane).await.expect("it is given out");
        lane.note_answered(&job, 10 * SECOND);
        lane.settled(1);
        tokio::time::advance(60 * SECOND).await;
    }
    let _hangs = waits(&lane, &connections[0], "bad@s.test", (1, 0), Stage::Mail).await;
    let _ = lane.push([job("good0@g.test", "x.example", 0, &[2])]);
    assert!(given_up_after(&lane).await.is_none_or(|after| after >= 90));
}

/// A host that hangs for all mail since then hears of one message, not of each after half a minute.
#[tokio::test(start_paused = true)]
async fn another_one_is_given_up_when_something_was_answered_since() {
    let (lane, connections) = rig(2).await;
    let first = waits(&lane, &connections[0], "bad@s.test", (1, 0), Stage::Mail).await;
    let _second = waits(&lane, &connections[1], "worse@t.test", (2, 0), Stage::Mail).await;
    let _ = lane.push((10..14).map(|n| job("good0@g.test", "x.example", 0, &[n])));
    assert_eq!(given_up_after(&lane).await, Some(30));
    connections[0].ends();
    lane.left_unanswered(&first, false, super::super::Left::Silent);
    drop(first);
    lane.settled(1);
    let good = next(&lane).await.expect("another one");
    assert_eq!(good.message.message.envelope.sender(), "good0@g.test");
    connections[0].begins((good.message.message.id, good.features().keys()), Stage::Mail, true);
    assert_eq!(given_up_after(&lane).await, None, "it has no answer, either");
    lane.note_answered(&good, Duration::from_millis(20));
    drop(good);
    connections[0].ends();
    lane.settled(1);
    let _third = waits(&lane, &connections[0], "third@u.test", (3, 0), Stage::Mail).await;
    assert!(given_up_after(&lane).await.is_some());
}

/// A sender who is alone, and a connection that a firewall swallowed while it was idle.
#[tokio::test(start_paused = true)]
async fn of_two_connections_like_mail_has_the_second_when_the_first_was_silent_for_ten_seconds() {
    let given_after = async |lane: &Lane| {
        let began = Instant::now();
        while began.elapsed() < 120 * SECOND {
            if let Some(job) = next(lane).await {
                return Some((job.message.message.envelope.sender().to_owned(), began.elapsed().as_secs()));
            }
        }
        None
    };
    let his = "good0@g.test";
    for (stage, other, expected) in [
        (Stage::Mail, None, Some((his, 10))),
        (Stage::Rcpt, None, Some((his, 10))),
        // It may have arrived, and nothing of it can be given up for the next one.
        (Stage::Final, None, None),
        // Other mail has it at once.
        (Stage::Mail, Some("other@o.test"), Some(("other@o.test", 0))),
    ] {
        let (lane, connections) = rig(2).await;
        tokio::time::advance(60 * SECOND).await;
        let _first = waits(&lane, &connections[0], his, (1, 0), stage).await;
        let _ = lane.push([job(his, "x.example", 0, &[2])]);
        let _ = lane.push(other.map(|sender| job(sender, "x.example", 0, &[3])));
        let given = given_after(&lane).await;
        assert_eq!(given.as_ref().map(|(sender, after)| (&**sender, *after)), expected, "{stage} {other:?}");
    }
}
