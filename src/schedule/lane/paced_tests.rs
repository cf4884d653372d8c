//! A sender whose pace was learned waits aside: nobody else waits for it, and it takes no room from them.

use super::*;
use crate::clock::Clock;
use crate::schedule::testing::{job, provider};
use crate::shape::adapt::testing::one_refused;
use crate::shape::reserve::testing::ledger;

const IDLE: Duration = Duration::from_secs(30);
const SLOW: &str = "slow@a.example";

fn taught(clock: Clock) -> Lane {
    let provider = Provider { adaptive: true, connections: 5, rate: Vec::new(), ..provider("p") };
    let lane = Lane::new(LaneName::from("p"), Arc::new(provider), &[], &ledger());
    let now = clock.now();
    let _ = lane.feedback(now, |adapt, _| one_refused(adapt, SLOW, now));
    lane
}

#[tokio::test(start_paused = true)]
async fn a_sender_with_a_pace_waits_and_nobody_else() {
    let clock = Clock::for_tests();
    let lane = taught(clock);
    let start = Instant::now();
    let _ = lane.push((0..3000).map(|n| job(SLOW, "x.example", 0, &[n])));
    let _ = lane.push((0..5).map(|n| job("b@b.example", "x.example", 0, &[n])));
    // What `explain` tells: its own mail at its own pace, whatever follows a `+`.
    let (rate, waiting) = lane.pace_of("slow+tag@a.example", clock.now()).expect("a pace of its own");
    assert!(rate > 0.0 && waiting == 3000, "{rate} {waiting}");
    assert_eq!(lane.pace_of("b@b.example", clock.now()), None);
    for _ in 0..5 {
        let (mut other, _) = lane.next(None, IDLE).await.expect("a job");
        assert_eq!(other.message.message.envelope.sender(), "b@b.example");
        lane.permit(&mut other).await.expect("a permit").spend();
        lane.settled(1);
    }
    assert_eq!(start.elapsed(), Duration::ZERO, "nobody waited for the one that is slow");
    let (mut put_back, mut own) = (0, None);
    while own.is_none() {
        match lane.next(None, IDLE).await {
            Ok((job, _)) => own = Some(job),
            Err(Empty::Beyond) => {
                let beyond = lane.take_beyond();
                assert!(beyond.iter().all(|beyond| beyond.by.starts_with("sender <slow@a.example>")));
                put_back += beyond.len();
                lane.settled(beyond.len());
            }
            Err(Empty::Idle) => panic!("its time has come"),
        }
    }
    assert!(start.elapsed() >= Duration::from_millis(250), "it was stopped: {:?}", start.elapsed());
    assert!(put_back >= 2400 && lane.in_memory() <= 600, "{put_back} put back, {} kept", lane.in_memory());
    lane.permit(&mut own.expect("a job")).await.expect("a permit").spend();
    let holds = lane.holds(clock.now());
    let told = holds.iter().map(|hold| hold.told(clock.now()).to_string()).collect::<Vec<_>>();
    assert!(told.iter().any(|line| line.starts_with("sender <slow@a.example>: ")), "{told:?}");
    assert!(lane.explain(clock.now()).iter().any(|line| line.starts_with("sender <slow@a.example>: slow to ")));
}

#[tokio::test(start_paused = true)]
async fn what_waited_leaves_at_once_when_the_pace_is_forgotten() {
    let clock = Clock::for_tests();
    let lane = taught(clock);
    let _ = lane.push((0..40).map(|n| job(SLOW, "x.example", 0, &[n])));
    let start = Instant::now();
    let worker = async {
        for _ in 0..40 {
            let (mut job, _) = lane.next(None, IDLE).await.expect("a job");
            lane.permit(&mut job).await.expect("a permit").spend();
            lane.settled(1);
        }
    };
    let forgets = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let _ = lane.feedback(clock.now(), |adapt, _| adapt.forget());
    };
    tokio::join!(worker, forgets);
    assert_eq!(start.elapsed(), Duration::from_millis(100));
}
