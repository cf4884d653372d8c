//! What a refusal of everything does to a lane, on paused time.

use super::*;
use crate::config::{Credentials, Provider, Relay, Secret};
use crate::mail::LaneName;
use crate::schedule::lane::Empty;
use crate::schedule::testing::{job, provider};
use crate::shape::reserve::testing::ledger;

const IDLE: Duration = Duration::from_secs(30);
const FIRST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(3600);

fn lane(change: impl FnOnce(&mut Provider)) -> Arc<Lane> {
    let mut provider = provider("p");
    change(&mut provider);
    Arc::new(Lane::new(LaneName::from("p"), Arc::new(provider), &[], &ledger()))
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_lets_one_probe_through_and_closes_on_success() {
    let lane = lane(|p| p.connections = 5);
    for i in 0..4 {
        let _ = lane.push([job("a@a", "x.example", 0, &[i])]);
    }
    lane.open_circuit("535 no".into(), Reached::Session, None, Duration::from_secs(60), Duration::from_secs(600));
    assert!(lane.next(None, IDLE).await.is_err());
    let began = Instant::now();
    let (probe, _) = lane.next(None, Duration::from_secs(100)).await.expect("the probe");
    assert!(began.elapsed() >= Duration::from_secs(30));
    assert!(lane.next(None, IDLE).await.is_err(), "only one probe");
    lane.open_circuit("535 no".into(), Reached::Session, None, Duration::from_secs(60), Duration::from_secs(600));
    assert!(lane.snapshot().circuit.is_some_and(|(_, left)| left > Duration::from_secs(100)), "twice as long");
    lane.settled(probe.recipients.len());
    let _ = lane.let_in();
    assert!(lane.next(None, IDLE).await.is_ok() && lane.next(None, IDLE).await.is_ok());
}

/// Ten connections that hear 535 at the same moment are one refusal, not ten in a row.
#[tokio::test(start_paused = true)]
async fn a_circuit_waits_longer_for_each_probe_not_for_each_connection() {
    let lane = lane(|_| {});
    let (first, longest) = (Duration::from_secs(60), Duration::from_secs(3600));
    let wait = |lane: &Lane| lane.snapshot().circuit.expect("open").1;
    for _ in 0..10 {
        lane.open_circuit("535".into(), Reached::Session, None, first, longest);
    }
    assert_eq!(wait(&lane), first);
    tokio::time::advance(first).await;
    lane.open_circuit("535".into(), Reached::Session, None, first, longest);
    assert_eq!(wait(&lane), first * 2);
}

fn refuse(lane: &Lane, sender: &str) {
    lane.open_circuit("530 log in".into(), Reached::Mail, Some(sender.into()), FIRST, LONGEST);
}

async fn next(lane: &Lane, idle: Duration) -> Result<Job, Empty> {
    lane.next(None, idle).await.map(|(job, _)| job)
}

fn from(job: &Job) -> &str {
    job.message.message.envelope.sender()
}

/// The host said to one sender what it would say to all who have to log in: it takes everybody else's mail.
#[tokio::test(start_paused = true)]
async fn what_was_said_to_one_sender_keeps_his_mail_alone_and_whoever_gets_further_ends_it() {
    let lane = lane(|p| p.connections = 4);
    let _ = lane.push((0..20).map(|i| job("bad@s.test", "x.example", 0, &[i])));
    let first = next(&lane, IDLE).await.expect("a job");
    refuse(&lane, from(&first));
    lane.settled(1);
    assert!(next(&lane, IDLE).await.is_err(), "his own wait for a probe");
    let clock = crate::clock::Clock::for_tests();
    let holds = lane.holds(clock.now());
    assert!(holds.stop().is_none(), "the lane goes on");
    let told = holds.first().expect("it is told").told(clock.now()).to_string();
    assert!(
        told.starts_with("the provider refuses us with mail of bad@s.test, others' is tried at once: 530"),
        "{told}"
    );

    let began = Instant::now();
    let _ = lane.push((20..23).map(|i| job("good@g.test", "x.example", 0, &[i])));
    let good = next(&lane, IDLE).await.expect("at once");
    assert_eq!((from(&good), began.elapsed()), ("good@g.test", Duration::ZERO));
    assert!(next(&lane, Duration::from_secs(5)).await.is_err(), "one at a time until it is known");
    lane.settled(1);
    let _ = lane.got_as_far(Reached::Mail, false);
    assert!(lane.snapshot().circuit.is_some(), "no further than where he was refused");
    let _ = lane.got_as_far(Reached::Recipient, false);
    assert!(lane.snapshot().circuit.is_none());
    for _ in 0..4 {
        next(&lane, IDLE).await.expect("all connections, for everybody");
    }
}

/// A host that takes nothing gets two messages at first, and then one for each probe, of one sender after another.
#[tokio::test(start_paused = true)]
async fn what_a_second_sender_hears_is_about_all_and_each_probe_is_of_another_one() {
    let lane = lane(|p| p.connections = 4);
    for sender in 0..5 {
        let _ = lane.push((0..10).map(|i| job(&format!("s{sender}@s.test"), "x.example", 0, &[sender * 10 + i])));
    }
    let (began, mut tried) = (Instant::now(), Vec::new());
    while began.elapsed() < FIRST * 64 {
        let Ok(job) = next(&lane, IDLE).await else { continue };
        tried.push((began.elapsed().as_secs(), from(&job)[..2].to_owned()));
        refuse(&lane, from(&job));
        assert!(lane.snapshot().circuit.is_some());
        lane.settled(1);
    }
    let told: Vec<(u64, &str)> = tried.iter().map(|(at, sender)| (*at, sender.as_str())).collect();
    let minutes = |n: u64| n * 60;
    assert_eq!(
        told,
        [
            (0, "s0"),
            (0, "s1"),
            (minutes(1), "s2"),
            (minutes(3), "s3"),
            (minutes(7), "s4"),
            (minutes(15), "s0"),
            (minutes(31), "s1"),
            (minutes(63), "s2")
        ]
    );
}

fn with_password() -> Arc<Lane> {
    let auth = Credentials { user: "u".into(), password: Secret::new("a password".to_owned()), mechanism: None };
    lane(|p| (p.connections, p.relay) = (20, Some(Relay::new("smtp.example", 587, false, Some(auth)))))
}

/// Twenty connections that give a wrong password to the host at once are what accounts are locked for.
#[tokio::test(start_paused = true)]
async fn one_connection_logs_in_first_at_the_start_and_after_a_person_has_resumed_the_lane() {
    let lane = with_password();
    for round in 0..2_u32 {
        let pushed = (0..30).map(|i| lane.push([job("a@a.test", "x.example", 0, &[round * 100 + i])]));
        assert_eq!(pushed.filter(|wake| *wake == Wake::Start).count(), usize::from(round == 0));
        next(&lane, IDLE).await.expect("the first");
        assert!(next(&lane, Duration::from_secs(5)).await.is_err(), "nobody else before it is through");
        // A wrong one.
        lane.open_circuit("535 no".into(), Reached::Session, Some("a@a.test".into()), FIRST, LONGEST);
        lane.settled(1);
        assert!(next(&lane, IDLE).await.is_err());
        let _ = lane.close_circuit();
    }
    next(&lane, IDLE).await.expect("the first");
    assert!(next(&lane, Duration::from_secs(5)).await.is_err());
    assert_eq!(lane.poke(), Wake::Nobody);
    assert_eq!(lane.let_in(), Wake::Start, "the password is right");
    for _ in 0..19 {
        next(&lane, IDLE).await.expect("all of them");
    }
}

/// A host that hangs is none that refuses a password: its neighbours are not held up for long.
#[tokio::test(start_paused = true)]
async fn nobody_waits_long_for_a_first_login_that_hangs() {
    let lane = with_password();
    let _ = lane.push((0..3).map(|i| job("a@a.test", "x.example", 0, &[i])));
    next(&lane, IDLE).await.expect("the first");
    tokio::time::advance(FIRST_LOGIN).await;
    assert_eq!(lane.poke(), Wake::Start);
    next(&lane, IDLE).await.expect("another");
}
