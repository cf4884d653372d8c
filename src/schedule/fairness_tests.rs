//! Who leaves when, compared with an ideal queue.

mod world;

use std::collections::HashMap;
use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::config::units::Rate;
use crate::mail::LaneName;
use crate::queue::sqlite::InlineQueue;
use world::{Event, Plan, World, lag, limit};

#[tokio::test(start_paused = true)]
async fn messages_of_one_sender_leave_in_order_while_workers_wait_and_change_connections() {
    for (seed, messages_per_connection, connect) in [(1, 100, 300), (2, 3, 4000), (3, 1, 1000), (4, 1000, 0)] {
        let plan = Plan { messages_per_connection, connect: Duration::from_millis(connect), ..Plan::default() };
        let world = World::new(plan, seed);
        for _ in 0..600 {
            world.accept("news@a.test", 0).await;
        }
        world.until(600).await;
        let (late, overtaken) = lag(&world.came.lock(), &world.left.lock());
        println!("{messages_per_connection} messages a connection: late by {late}, overtaken by {overtaken}");
        assert!(overtaken <= 5 && late <= 5, "seed {seed}: late by {late}, overtaken by {overtaken}");
    }
}

/// 100/s, 5 connections: bulk, and urgent mail that comes while every worker waits.
#[tokio::test(start_paused = true)]
async fn urgent_mail_leaves_among_the_next_permits() {
    for seed in 0..4 {
        let plan = Plan { per_second: 100, messages_per_connection: 20, ..Plan::default() };
        let world = World::new(plan, seed);
        for n in 0..1000 {
            world.accept(&format!("news{}@a.test", n % 3), -4).await;
        }
        world.until(100).await;
        let mut worst = 0;
        for n in 0..20 {
            let (before, sender) = (world.left(), format!("reset{n}@b.test"));
            world.accept(&sender, 9).await;
            world.until(before + 20).await;
            worst = worst.max(world.places(&sender)[0] - before);
        }
        println!("behind {worst} others at most");
        assert!(worst <= 6, "seed {seed}: {worst}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_sender_leaves_within_two_turns_behind_any_depth() {
    let world = World::new(Plan::default(), 1);
    for _ in 0..5000 {
        world.accept("news@a.test", 0).await;
    }
    world.until(10).await;
    let before = world.left();
    for _ in 0..25 {
        world.accept("shop@b.test", 0).await;
    }
    world.until(before + 200).await;
    let places: Vec<usize> = world.places("shop@b.test").iter().map(|at| at - before).collect();
    println!("{places:?}");
    assert!(places.len() == 25 && places[0] <= 5 + 4 && places[24] <= 2 * 25 + 4 * 5, "{places:?}");
}

/// The same when nothing of the new sender can go straight to memory: the budget is used up.
#[tokio::test(start_paused = true)]
async fn a_new_sender_leaves_soon_from_the_store_too() {
    let world = World::new(Plan { memory: 2 << 20, ..Plan::default() }, 1);
    for _ in 0..5000 {
        world.accept("news@a.test", 0).await;
    }
    world.until(10).await;
    let before = world.left();
    for _ in 0..5 {
        world.accept("shop@b.test", 0).await;
    }
    world.until(before + 100).await;
    let places: Vec<usize> = world.places("shop@b.test").iter().map(|at| at - before).collect();
    println!("{places:?}");
    assert!(places.len() == 5 && places[0] <= 60, "{places:?}");
}

#[tokio::test(start_paused = true)]
async fn a_sender_over_its_limit_takes_no_room_of_others() {
    let hour = Duration::from_secs(3600);
    let quota = [Rate { count: 10, per: hour }];
    let world = World::new(Plan { limits: vec![limit("*@news.test", false, &[], &quota)], ..Plan::default() }, 1);
    for n in 0..4800 {
        world.accept(&format!("list{}@news.test", n % 7), 0).await;
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.left(), 10);
    for n in 0..50 {
        world.accept(&format!("clerk{n}@shop.test"), 0).await;
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(world.left(), 60, "all others have left");
    let held = world.scheduler.lane(&LaneName::provider("p")).in_memory();
    assert!(held <= 64, "{held} in memory");
    // And those that are limited leave as the limit allows, in order.
    tokio::time::sleep(10 * hour).await;
    let news: Vec<Event> = world.left.lock().iter().filter(|e| e.sender.ends_with("@news.test")).cloned().collect();
    let (late, overtaken) = lag(&world.came.lock(), &news);
    println!("{} in ten hours, late by {late}, overtaken by {overtaken}", news.len());
    assert!((98..=110).contains(&news.len()), "{}", news.len());
    assert!(overtaken <= 5, "{overtaken}");
}

/// Its mail keeps coming, faster than the limit.
#[tokio::test(start_paused = true)]
async fn a_limited_sender_that_goes_on_delays_nobody() {
    let rate = [Rate { count: 2, per: Duration::from_secs(1) }];
    let world = World::new(Plan { limits: vec![limit("*@news.test", false, &rate, &[])], ..Plan::default() }, 1);
    for n in 0..6000 {
        world.accept("list@news.test", 0).await;
        if n % 20 == 0 {
            world.accept(&format!("clerk{}@shop.test", n % 9), 0).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
    let waits = |suffix: &str| {
        let came = world.came.lock().iter().map(|event| (event.number, event.at)).collect::<HashMap<_, _>>();
        let left = world.left.lock();
        left.iter().filter(|e| e.sender.ends_with(suffix)).map(|e| e.at - came[&e.number]).collect::<Vec<_>>()
    };
    let (news, others) = (waits("@news.test").len(), waits("@shop.test"));
    println!("{news} newsletters; {} others, the last after {:?}", others.len(), others.iter().max());
    assert_eq!(others.len(), 300);
    assert!(others.iter().max() <= Some(&Duration::from_secs(1)), "{others:?}");
    assert!((580..=603).contains(&news), "{news} of 600");
}

/// A limit for each of very many domains: all of them have what they are allowed, at once.
#[tokio::test(start_paused = true)]
async fn each_of_many_domains_has_what_its_limit_allows() {
    const DOMAINS: usize = 1500;
    let quota = [Rate { count: 2, per: Duration::from_secs(3600) }];
    let plan =
        Plan { limits: vec![limit("*", true, &[], &quota)], per_second: 1000, connections: 50, ..Plan::default() };
    let world = World::new(plan, 1);
    for n in 0..5 * DOMAINS {
        world.accept(&format!("a@d{}.test", n % DOMAINS), 0).await;
    }
    tokio::time::sleep(Duration::from_secs(30)).await;
    let of_each = || {
        let mut of_each: HashMap<String, usize> = HashMap::new();
        world.left.lock().iter().for_each(|event| *of_each.entry(event.sender.clone()).or_default() += 1);
        of_each
    };
    let fewest = (of_each().len(), of_each().into_values().min());
    assert_eq!((fewest, world.left()), ((DOMAINS, Some(2)), 2 * DOMAINS));
    tokio::time::sleep(Duration::from_secs(3600 + 200)).await;
    let fewest = of_each().into_values().min();
    println!("{} after an hour", world.left());
    assert!(fewest >= Some(3) && world.left() <= 4 * DOMAINS, "{fewest:?}, {} in all", world.left());
    tokio::time::sleep(Duration::from_secs(3600)).await;
    println!("{} after two hours", world.left());
    assert!(of_each().into_values().min() >= Some(4));
}

/// What was put off is in the store, where a new process finds it; and others at once.
#[tokio::test(start_paused = true)]
async fn after_a_restart_a_limited_sender_takes_no_room_either() {
    let quota = [Rate { count: 10, per: Duration::from_secs(3600) }];
    let plan = || Plan { limits: vec![limit("*@news.test", false, &[], &quota)], ..Plan::default() };
    let clock = Clock::for_tests();
    let queue = InlineQueue::open(clock).expect("a queue");
    let world = World::over(queue.clone(), clock, plan(), 1, HashMap::new());
    let _ = world.scheduler.lane(&LaneName::provider("p")).pause(true);
    for n in 0..4800 {
        world.accept("list@news.test", 0).await;
        if n % 80 == 79 {
            world.accept(&format!("clerk{n}@shop.test"), 0).await;
        }
    }
    let numbers = world.numbers.lock().clone();
    let queue = queue.reopen(clock).expect("a queue");
    drop(world);
    let world = World::over(queue, clock, plan(), 2, numbers);
    tokio::time::sleep(Duration::from_secs(10)).await;
    let others = world.left.lock().iter().filter(|event| event.sender.ends_with("@shop.test")).count();
    assert_eq!((others, world.left()), (60, 70));
}

/// Random senders, priorities, limits, depths, connections and rates: how much later than in an ideal
/// queue of its priority does a message leave, in numbers of messages?
#[tokio::test(start_paused = true)]
async fn nobody_is_far_behind_an_ideal_queue() {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    let first = number("MAILWEIR_FAIRNESS_FIRST").unwrap_or(1);
    let mut wrong = Vec::new();
    for seed in first..first + number("MAILWEIR_FAIRNESS_SEEDS").unwrap_or(5) {
        let Seen { late, overtaken, connections, senders, count, short } = random_world(seed).await;
        println!(
            "seed {seed}: {count} messages of {senders} senders, {connections} connections, memory short {short}: \
             late by {late}, overtaken by {overtaken}"
        );
        let most = 2 * connections + 2 * senders + if short { SHORT } else { 0 };
        if overtaken > connections || late > most {
            wrong.push(seed);
        }
    }
    assert!(wrong.is_empty(), "seeds {wrong:?}");
}

/// What is brought from the store at once when the memory budget has little left: so much later may a
/// message leave then, besides two turns and what is on its way.
const SHORT: usize = 256;

/// What a random world came to.
struct Seen {
    late: usize,
    overtaken: usize,
    connections: usize,
    senders: usize,
    count: usize,
    /// There was memory for a part of the window only.
    short: bool,
}

async fn random_world(seed: u64) -> Seen {
    let mut rng = Rng::with_seed(seed);
    let connections = rng.u32(1..=10);
    let quota = [Rate { count: rng.u32(5..50), per: Duration::from_secs(60) }];
    let plan = Plan {
        connections,
        per_second: [5, 20, 100, 500][rng.usize(..4)],
        messages_per_connection: [1, 3, 20, 1000][rng.usize(..4)],
        connect: Duration::from_millis([0, 100, 2000][rng.usize(..3)]),
        send: Duration::from_millis([0, 20, 200][rng.usize(..3)]),
        memory: [3 << 20, 64 << 20][rng.usize(..2)],
        limits: vec![limit("*@limited.test", rng.bool(), &[], &quota)],
    };
    let senders = rng.usize(2..30);
    let (deep, priorities) = (rng.usize(0..6000), rng.i8(1..4));
    let world = World::new(plan, seed);
    for _ in 0..deep {
        world.accept("deep@a.test", 0).await;
    }
    let mut free = deep;
    for _ in 0..rng.usize(200..1500) {
        let sender = rng.usize(..senders);
        // Few have much, many have little.
        let sender = if rng.bool() { sender / 4 } else { sender };
        let domain = if sender % 5 == 4 { "limited" } else { "b" };
        free += usize::from(domain == "b");
        world
            .accept(
                &format!("s{}@{domain}.test", char::from(b'a' + u8::try_from(sender).unwrap_or(0))),
                rng.i8(0..priorities),
            )
            .await;
        if rng.u8(..4) == 0 {
            tokio::time::sleep(Duration::from_millis(rng.u64(0..200))).await;
        }
    }
    let of_free = |events: &[Event]| {
        events.iter().filter(|event| !event.sender.ends_with("@limited.test")).cloned().collect::<Vec<_>>()
    };
    let end = Instant::now() + Duration::from_secs(40_000);
    while of_free(&world.left.lock()).len() < free {
        assert!(Instant::now() < end, "seed {seed}: some never leave");
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    let (came, left) = (of_free(&world.came.lock()), of_free(&world.left.lock()));
    assert_eq!(left.len(), free, "seed {seed}: each once");
    let (late, overtaken) = lag(&came, &left);
    let (connections, short) = (connections as usize, world.plan.memory < 16 << 20);
    Seen { late, overtaken, connections, senders, count: free, short }
}
