//! Lanes of domains: how many are in memory, whose turn it is, and that nothing is forgotten.
//!
//! A worker here is a look-up that takes its time and fails, or a host that takes mail at once.

use super::*;
use crate::mail::{Address, BodyTraits, Envelope, Message, NewMessage, NewRecipient, Origin, Recipient};
use crate::queue::sqlite::InlineQueue;
use crate::queue::{Desk, Leases, Settlement, Spool, Verdict};
use crate::schedule::lane::Reached;
use crate::schedule::testing::provider;
use bytes::Bytes;
use tokio::sync::watch;

const MEMORY: u64 = 16 << 20;

/// A relay without a network.
struct World {
    scheduler: Arc<Scheduler>,
    queue: Arc<InlineQueue>,
    clock: crate::clock::Clock,
    /// Domains in the order in which they were looked up.
    tried: Arc<Mutex<Vec<String>>>,
    _stop: watch::Sender<bool>,
}

impl World {
    /// Domains that begin with `good` take mail at once; all others fail after `silent`.
    fn new(queue: Arc<InlineQueue>, clock: crate::clock::Clock, silent: Duration) -> World {
        let of_lane = |_: &LaneName| Arc::new(crate::config::Provider { connections: 5, ..provider("default") });
        let scheduler = Scheduler::new(queue.clone(), clock, MEMORY, Vec::new(), of_lane);
        let tried: Arc<Mutex<Vec<String>>> = Arc::default();
        let (weak, log, store) = (Arc::downgrade(&scheduler), tried.clone(), queue.clone());
        scheduler.on_start(move |lane| {
            let (Some(scheduler), log, store) = (weak.upgrade(), log.clone(), store.clone()) else { return };
            tokio::spawn(async move {
                while let Ok((mut job, _)) = lane.next(None, Duration::from_secs(10)).await {
                    log.lock().push(lane.name.to_string());
                    lane.not_needed(&mut job);
                    let good = lane.name.as_str().starts_with("@good");
                    let due = if good { clock.now() } else { clock.now().after(silent + Duration::from_secs(3600)) };
                    if good {
                        lane.found();
                    } else {
                        tokio::time::sleep(silent).await;
                    }
                    let settlement = |index| Settlement {
                        key: job.key(index),
                        verdict: match good {
                            true => Verdict::Delivered,
                            false => Verdict::Deferred {
                                due,
                                reason: "no answer".into(),
                                counts: true,
                                uncertain: false,
                                warned: false,
                                lane: lane.name.clone(),
                            },
                        },
                    };
                    let settlements = job.recipients.iter().map(|held| settlement(held.index)).collect();
                    if store.settle(settlements, Vec::new()).await.is_err() {
                        return;
                    }
                    lane.settled(job.recipients.len());
                    scheduler.prove(&lane, good);
                    scheduler.note_stored(&lane, due);
                    if lane.is_over() {
                        break;
                    }
                }
                scheduler.wake(&lane, lane.worker_gone());
                lane.leave_place();
            });
        });
        let (stop, stopping) = watch::channel(false);
        tokio::spawn(scheduler.clone().run(stopping));
        World { scheduler, queue, clock, tried, _stop: stop }
    }

    fn begin(silent: u64) -> World {
        let clock = crate::clock::Clock::for_tests();
        World::new(InlineQueue::open(clock).expect("a queue"), clock, Duration::from_secs(silent))
    }

    /// Takes a message to these domains, as a client brings it.
    async fn accept(&self, sender: &str, domains: impl Iterator<Item = String>) {
        let head = Bytes::from_static(b"x");
        let now = self.clock.now();
        let message = Arc::new(Message {
            id: self.queue.next_id(now),
            received: now,
            envelope: Envelope { reverse_path: Address::parse(sender).ok(), ..Envelope::default() },
            origin: Origin::Local,
            size: 1,
            traits: BodyTraits::default(),
        });
        let new = |domain: String| NewRecipient {
            recipient: Recipient::new(Address::parse(&format!("u@{domain}")).expect("an address")),
            lane: LaneName::domain(&domain),
            leased: false,
            held: None,
        };
        let admission = self.scheduler.admit(&message, domains.map(new).collect(), &head);
        let new = NewMessage { message, recipients: admission.recipients, head };
        self.queue.accept(new).await.expect("accepted");
        self.scheduler.submit(admission.admitted, self.clock.now());
    }

    /// Times domains of that beginning were tried.
    fn tried(&self, beginning: &str) -> usize {
        self.tried.lock().iter().filter(|name| name.starts_with(beginning)).count()
    }

    async fn until(&self, mut done: impl FnMut(&World) -> bool) {
        for _ in 0..20_000 {
            if done(self) {
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        panic!("it never happens: {} tried", self.tried("@"));
    }
}

fn names(beginning: &'static str, count: usize) -> impl Iterator<Item = String> {
    (0..count).map(move |n| format!("{beginning}{n}.example"))
}

#[tokio::test(start_paused = true)]
async fn lanes_in_memory_do_not_grow_with_the_number_of_domains() {
    let world = World::begin(10);
    for n in 0..6 {
        world.accept("a@a.example", (0..500).map(|i| format!("silent{}.example", n * 500 + i))).await;
    }
    let places = world.scheduler.domains.places.clone();
    let mut most = 0;
    world
        .until(|world| {
            let lanes = world.scheduler.lanes();
            most = most.max(lanes.len());
            assert!(places.taken(Class::Fresh) <= 48 && world.scheduler.memory_used() <= MEMORY);
            world.tried("@silent") == 3000
        })
        .await;
    // Those that look up their domain, and those that the last second has left.
    assert!(most <= places.total(), "{most} lanes for 3,000 domains");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((world.scheduler.lanes().len(), world.scheduler.memory_used()), (0, 0), "nothing is left in memory");
    // An hour later they are due again, each once, and few at a time.
    world.until(|world| world.tried("@silent") >= 6000).await;
    let tried: std::collections::BTreeSet<String> = world.tried.lock()[3000..].iter().cloned().collect();
    assert_eq!((tried.len(), world.tried("@silent")), (3000, 6000));
}

#[tokio::test(start_paused = true)]
async fn a_sender_with_many_dead_domains_delays_no_other_sender() {
    let world = World::begin(10);
    world.accept("a@a.example", names("silent", 2000)).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let before = world.tried("@silent");
    world.accept("b@other.example", names("good", 30)).await;
    world.until(|world| world.tried("@good") == 30).await;
    let meanwhile = world.tried("@silent") - before;
    assert!(meanwhile <= 2 * 48, "{meanwhile} of the other sender's went before 30 of this one");
}

#[tokio::test(start_paused = true)]
async fn retries_leave_first_attempts_and_known_domains_their_places() {
    let world = World::begin(600);
    world.accept("a@a.example", names("silent", 200)).await;
    world.until(|world| world.tried("@silent") == 200).await;
    world.accept("a@a.example", names("good", 1)).await;
    // All of them are due again, and each keeps its place for ten minutes.
    tokio::time::sleep(Duration::from_secs(3600 + 1200)).await;
    let taken = world.scheduler.domains.places.taken(Class::Tried);
    assert_eq!(taken, 8, "half of those that may look up their domain: all are one sender's");
    let before = world.tried("@silent");
    world.accept("a@a.example", names("good", 40)).await;
    world.until(|world| world.tried("@good") == 41).await;
    assert_eq!(world.tried("@silent"), before, "before one of the others was through");
}

#[tokio::test(start_paused = true)]
async fn a_domain_that_takes_mail_goes_before_those_that_wait() {
    let world = World::begin(600);
    world.accept("a@a.example", names("good", 1)).await;
    world.until(|world| world.tried("@good") == 1).await;
    world.accept("a@a.example", names("silent", 2000)).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(world.scheduler.known(&"@good0.example".into()).is_none(), "it was forgotten");
    let before = world.tried("@silent");
    world.accept("a@a.example", names("good", 1)).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!((world.tried("@good"), world.tried("@silent")), (2, before), "at once, without the store");
}

/// What an earlier process had is found page by page, whatever was in memory then.
#[tokio::test(start_paused = true)]
async fn another_process_comes_to_everything() {
    let world = World::begin(10);
    world.accept("a@a.example", names("silent", 300)).await;
    world.accept("b@b.example", names("good", 20).chain(names("bad", 20))).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let queue = world.queue.reopen(world.clock).expect("opened again");
    let next = World::new(queue, world.clock, Duration::from_secs(10));
    next.until(|next| next.tried("@silent") >= 300 && next.tried("@bad") >= 20).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let counts = next.queue.counts().await.expect("counts");
    assert_eq!((counts.queued, counts.leased), (320, 0), "all of the others have left");
}

/// Two thousand recipients of one dead domain do not fill the memory, nor keep others from their turn.
#[tokio::test(start_paused = true)]
async fn of_a_domain_that_may_be_dead_only_a_few_recipients_are_in_memory() {
    let world = World::begin(20);
    world.accept("a@a.example", names("silent", 100)).await;
    for _ in 0..20 {
        world.accept("a@a.example", std::iter::repeat_n("deep.example".to_owned(), 100)).await;
    }
    world.until(|world| world.tried("@deep") > 0).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let lane = world.scheduler.known(&"@deep.example".into()).expect("it works");
    assert!(lane.in_memory() <= 40, "{} in memory", lane.in_memory());
    drop(lane);
    world.until(|world| world.tried("@silent") == 100).await;
    world.until(|world| world.tried("@deep") >= 100).await;
}

/// Mail that nothing can be done about gives its place to other mail, and is there when that has ended.
#[tokio::test(start_paused = true)]
async fn domains_that_are_held_back_take_no_place_and_come_again() {
    let world = World::begin(10);
    let name = |n: usize| LaneName::domain(&format!("held{n}.example"));
    for n in 0..300 {
        let lane = world.scheduler.lane(&name(n));
        lane.open_circuit("530 no".into(), Reached::Session, None, Duration::from_secs(600), Duration::from_secs(600));
    }
    world.accept("a@a.example", names("held", 300)).await;
    tokio::time::sleep(Duration::from_secs(70)).await;
    let taken = [Class::Fresh, Class::Tried].map(|class| world.scheduler.domains.places.taken(class));
    assert_eq!((taken, world.tried("@held")), ([0, 0], 0));
    let lanes = world.scheduler.lanes();
    assert_eq!(lanes.len(), 300, "what they said is known");
    assert!(lanes.iter().all(|lane| lane.in_memory() == 0 && !lane.has_place()));
    drop(lanes);
    let counts = world.queue.counts().await.expect("counts");
    assert_eq!((counts.queued, counts.leased), (300, 0));
    world.until(|world| world.tried("@held") == 300).await;
}

/// What must not be forgotten is bounded in number, too: a refusal of everything is, by so many domains.
#[tokio::test(start_paused = true)]
async fn there_are_only_so_many_lanes_that_rest() {
    let world = World::begin(10);
    for n in 0..2 * RESTING {
        let lane = world.scheduler.lane(&LaneName::domain(&format!("refuses{n}.example")));
        lane.open_circuit("530 no".into(), Reached::Session, None, Duration::from_secs(600), Duration::from_secs(600));
    }
    assert!(world.scheduler.is_crowded());
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!world.scheduler.is_crowded(), "{} lanes", world.scheduler.lanes().len());
}

/// A pause outlives everything, and what waits behind it is found when it ends.
#[tokio::test(start_paused = true)]
async fn a_paused_domain_waits_in_the_store_and_goes_on_when_it_is_resumed() {
    let world = World::begin(10);
    let name = LaneName::domain("good0.example");
    let _ = world.scheduler.lane(&name).pause(true);
    world.accept("a@a.example", names("good", 2)).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    let lane = world.scheduler.known(&name).expect("it is paused");
    assert_eq!((world.tried("@good1"), world.tried("@good0"), lane.in_memory(), lane.has_place()), (1, 0, 0, false));
    world.scheduler.wake(&lane, lane.pause(false));
    world.scheduler.note(&name, world.clock.now());
    drop(lane);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.tried("@good0"), 1);
}
