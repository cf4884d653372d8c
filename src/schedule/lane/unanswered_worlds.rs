//! Hosts that leave some mail without an answer for minutes and answer all other at once, on paused time: how many
//! connections wait at once, and how long other mail does. Ideally none of it waits at all.

use fastrand::Rng;

use super::*;
use crate::deliver::{Awaited, Stage};
use crate::mail::Recipient;

/// A world takes a second of work; more on request: `MAILWEIR_SEEDS=0..60`.
const SEEDS: std::ops::Range<u64> = 0..2;
const STEP: Duration = Duration::from_millis(100);
/// Until we give up: minutes, but for the time that the test takes.
const GIVE_UP: Duration = Duration::from_secs(60);
/// Nothing that anybody would notice.
const NOTHING: Duration = Duration::from_secs(2);
/// From then on mail comes that is left without an answer.
const BAD_FROM: u32 = 100;

/// What the host leaves without an answer.
#[derive(Clone, Copy, Debug)]
enum Cause {
    Sender,
    /// One that the host never answered, with runs of mail to one new domain after the other.
    Runs,
    SenderDomain,
    Recipient,
    RecipientDomain,
    Size(u64),
    /// Something in it: no two have anything in common.
    Content,
}

/// One connection.
struct Worker {
    awaited: Arc<Awaited>,
    job: Option<(Job, Instant, bool)>,
}

/// A message of a world; its name tells whether the host answers it.
fn message(cause: Option<Cause>, n: u32, rng: &mut Rng) -> Job {
    // The mail of three domains to three, as far as it is not what the host does not answer.
    let own = format!("{}@{}.test", if rng.bool() { "a" } else { "b" }, rng.u32(..3));
    let sender = match cause {
        Some(Cause::Sender | Cause::Runs) => "bad@bad.test".to_owned(),
        Some(Cause::SenderDomain) => format!("v{n}@bad.test"),
        // No two of them that are under way have anything else in common.
        Some(Cause::Content) => format!("v{n}@new{n}.test"),
        Some(Cause::Size(_)) => format!("s@new{}.test", n % 9),
        _ => own,
    };
    let mut job = job(&sender, "smart.example", 0, &[n]);
    let to = match cause {
        Some(Cause::Recipient) => "bad@0.example".to_owned(),
        Some(Cause::RecipientDomain) => format!("v{n}@bad.example"),
        Some(Cause::Content) => format!("v{n}@new{n}.example"),
        Some(Cause::Runs) => format!("v{n}@run{}.example", n / 4 % 7),
        _ => format!("r{n}@{}.example", rng.u32(..3)),
    };
    for held in &mut job.recipients {
        held.recipient = Recipient::new(crate::mail::Address::parse(&to).expect("an address"));
    }
    if let Some(Cause::Size(bytes)) = cause {
        let shared = Arc::get_mut(&mut job.message).expect("its own");
        Arc::get_mut(&mut shared.message).expect("its own").size = bytes;
    }
    job
}

/// Some minutes of it: how many connections waited at once, and how long other mail did. Bad mail comes every so many
/// steps, so much at once.
async fn world(cause: Cause, connections: u32, (every, at_once): (u32, u32), rng: &mut Rng) -> (usize, Duration) {
    // What comes fast heaps up, and all of it is looked through each time.
    let steps = if every < 40 { 450 } else { 1200 };
    let lane = lane(connections);
    let mut workers: Vec<Worker> = (0..connections).map(|_| Worker { awaited: Arc::default(), job: None }).collect();
    workers.iter().for_each(|worker| lane.listens("mx", &worker.awaited));
    let (mut most, mut longest, mut n) = (0, Duration::ZERO, 0);
    let mut came: HashMap<i64, (Instant, bool)> = HashMap::new();
    for step in 0..steps {
        let now = Instant::now();
        let bad = if step >= BAD_FROM && (step - BAD_FROM).is_multiple_of(every) { at_once } else { 0 };
        let fresh = (0..bad).map(|_| Some(cause)).chain((step % 3 == 0).then_some(None));
        for kind in fresh {
            n += 1;
            let job = message(kind, n, rng);
            came.insert(job.message.message.id.0, (now, kind.is_some()));
            let _ = lane.push([job]);
        }
        // Each second, as the relay does.
        let given_up = if step % 10 == 0 { lane.give_up_late().map(|given_up| given_up.message) } else { None };
        for worker in &mut workers {
            let ends = |job: &Job, ends: Instant| ends <= now || given_up == Some(job.message.message.id);
            if let Some((job, _, bad)) = worker.job.take_if(|(job, at, _)| ends(job, *at)) {
                worker.awaited.ends();
                match bad {
                    true => drop(lane.left_unanswered(&job, true, Left::Silent)),
                    false => lane.note_answered(&job, STEP),
                }
                drop(job);
                lane.settled(1);
            }
        }
        for worker in workers.iter_mut().filter(|worker| worker.job.is_none()) {
            let Ok((job, _)) = lane.next(None, Duration::ZERO).await else { break };
            let message = &job.message.message;
            let (since, bad) = came[&message.id.0];
            longest = if bad { longest } else { longest.max(now - since) };
            let stage =
                if matches!(cause, Cause::Recipient | Cause::RecipientDomain) { Stage::Rcpt } else { Stage::Final };
            worker.awaited.begins((message.id, job.features().keys()), stage, stage < Stage::Body);
            worker.job = Some((job, now + if bad { GIVE_UP } else { STEP }, bad));
        }
        most = most.max(workers.iter().filter(|worker| worker.job.as_ref().is_some_and(|(_, _, bad)| *bad)).count());
        tokio::time::advance(STEP).await;
    }
    (most, longest)
}

/// A picture in a newsletter, and more than a host may take.
const SIZES: [Cause; 2] = [Cause::Size(65_000), Cause::Size(10 << 20)];
const CAUSES: [Cause; 6] =
    [Cause::Sender, Cause::SenderDomain, Cause::Recipient, Cause::RecipientDomain, SIZES[0], SIZES[1]];

fn seeds() -> std::ops::Range<u64> {
    let asked = std::env::var("MAILWEIR_SEEDS").ok();
    let range = asked.as_deref().and_then(|asked| asked.split_once(".."));
    range.map_or(SEEDS, |(from, to)| from.parse().expect("a number")..to.parse().expect("a number"))
}

/// Runs a world of each cause for each seed, and tells all that are wrong.
async fn judge(least: u32, bad: impl Fn(u32) -> (u32, u32), most_of: impl Fn(usize) -> usize, wait: Duration) {
    let (mut wrong, mut all, mut slowest) = (Vec::new(), 0, Duration::ZERO);
    for seed in seeds() {
        let mut rng = Rng::with_seed(seed);
        for cause in CAUSES {
            let connections = rng.u32(least..9);
            let (most, longest) = world(cause, connections, bad(connections), &mut rng).await;
            (all, slowest) = (all + 1, slowest.max(longest));
            if most > most_of(connections as usize) || longest > wait {
                wrong.push(format!("seed {seed}, {cause:?}, {connections}: {most} wait, others for {longest:?}"));
            }
        }
    }
    println!("{} of {all} are right, other mail waits for {slowest:?} at most", all - wrong.len());
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// One message every four seconds. Beyond the half there is at most one that is to show what it is about.
#[tokio::test(start_paused = true)]
async fn what_is_left_without_an_answer_has_half_of_the_connections_and_a_probe() {
    judge(3, |_| (40, 1), |connections| (connections / 2 + 1).min(connections - 1), NOTHING).await;
}

/// Twice as many as there are connections, at one moment, every thirty seconds.
#[tokio::test(start_paused = true)]
async fn a_burst_that_is_left_without_an_answer_leaves_a_connection_for_other_mail() {
    judge(3, |connections| (300, 2 * connections), |connections| connections - 1, NOTHING).await;
}

/// One every half second: the first ones are not late when the last one comes. Two of one sender to the mailbox that
/// hangs do not tell which of them it is: then another sender's may take the last connection, until one is given up.
#[tokio::test(start_paused = true)]
async fn what_comes_within_the_first_seconds_holds_others_for_half_a_minute_at_most() {
    judge(3, |_| (5, 1), |connections| connections, Duration::from_secs(32)).await;
}

/// The first three that hang have the domain of their recipients in common, too: who sends them explains that as well.
#[tokio::test(start_paused = true)]
async fn a_new_sender_with_runs_of_mail_to_one_domain_never_has_the_last_connection() {
    for seed in seeds() {
        let mut rng = Rng::with_seed(seed);
        for connections in 3..8 {
            let (most, longest) = world(Cause::Runs, connections, (4, 3), &mut rng).await;
            let right = most < connections as usize && longest <= NOTHING;
            assert!(right, "seed {seed}, {connections}: {most} wait, others for {longest:?}");
        }
    }
}

/// One message every few seconds that hangs, and has nothing in common with others.
#[tokio::test(start_paused = true)]
async fn what_hangs_with_nothing_in_common_leaves_a_connection_for_mail_whose_like_is_answered() {
    for seed in seeds() {
        let mut rng = Rng::with_seed(seed);
        for (connections, every) in [(3, 40), (5, 16), (5, 40), (8, 16)] {
            let (most, longest) = world(Cause::Content, connections, (every, 1), &mut rng).await;
            let right = most < connections as usize && longest <= NOTHING;
            assert!(right, "seed {seed}, {connections}, {every}: {most} wait, others for {longest:?}");
        }
    }
}

/// With two connections that holds for a sender and a domain of senders.
#[tokio::test(start_paused = true)]
async fn a_sender_who_is_left_without_an_answer_has_one_of_two_connections() {
    for seed in seeds() {
        let mut rng = Rng::with_seed(seed);
        for bad in [(300, 4), (5, 1), (40, 1)] {
            let (most, longest) = world(Cause::Sender, 2, bad, &mut rng).await;
            assert!(most <= 1 && longest <= Duration::from_secs(2), "seed {seed}, {bad:?}: {most} wait, {longest:?}");
        }
    }
}
