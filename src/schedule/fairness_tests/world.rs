//! Scheduler, lane and store as they are, on paused time, with workers that do what those of `pipeline`
//! do; and the ideal queue that they are compared with.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::config::units::{Pattern, Rate};
use crate::config::{Count, Limit, Provider};
use crate::mail::{
    Address, BodyTraits, Envelope, LaneName, Message, NewMessage, NewRecipient, Origin, QueueId, Recipient,
};
use crate::queue::sqlite::InlineQueue;
use crate::queue::{Queue, Settlement, Verdict};
use crate::route::Route;
use crate::schedule::lane::Lent;
use crate::schedule::testing::provider;
use crate::schedule::{Empty, Held, Job, Lane, Scheduler};

pub(super) const DOMAIN: &str = "p.test";

/// A provider, and how long things take there.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) connections: u32,
    pub(super) per_second: u32,
    pub(super) messages_per_connection: u32,
    /// To open a connection, at most.
    pub(super) connect: Duration,
    /// For a transaction, at most.
    pub(super) send: Duration,
    pub(super) memory: u64,
    pub(super) limits: Vec<Arc<Limit>>,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan {
            connections: 5,
            per_second: 20,
            messages_per_connection: 100,
            connect: Duration::from_millis(300),
            send: Duration::from_millis(30),
            memory: 64 << 20,
            limits: Vec::new(),
        }
    }
}

pub(super) fn limit(sender: &str, each_domain: bool, rate: &[Rate], quota: &[Rate]) -> Arc<Limit> {
    Arc::new(Limit {
        each_user: false,
        over: crate::config::Over::Wait,
        sender: Pattern::new(sender),
        client: Vec::new(),
        user: None,
        provider: Pattern::any(),
        rate: rate.iter().map(|rate| (*rate).into()).collect(),
        quota: quota.iter().map(|quota| (*quota).into()).collect(),
        count: Count::Messages,
        each_domain,
    })
}

/// A message that came or left.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) at: Duration,
    pub(super) number: usize,
    pub(super) sender: String,
    pub(super) priority: i8,
}

pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) scheduler: Arc<Scheduler>,
    pub(super) queue: Arc<dyn Queue>,
    pub(super) clock: Clock,
    pub(super) start: Instant,
    pub(super) rng: Mutex<Rng>,
    pub(super) numbers: Mutex<HashMap<QueueId, Event>>,
    pub(super) came: Mutex<Vec<Event>>,
    pub(super) left: Mutex<Vec<Event>>,
    pub(super) stop: watch::Sender<bool>,
}

impl World {
    pub(super) fn new(plan: Plan, seed: u64) -> Arc<World> {
        let clock = Clock::for_tests();
        let queue = InlineQueue::open(clock).expect("a queue");
        World::over(queue, clock, plan, seed, HashMap::new())
    }

    pub(super) fn over(
        queue: Arc<InlineQueue>,
        clock: Clock,
        plan: Plan,
        seed: u64,
        numbers: HashMap<QueueId, Event>,
    ) -> Arc<World> {
        fastrand::seed(seed);
        let here = Arc::new(Provider {
            connections: plan.connections,
            rate: vec![Rate { count: plan.per_second, per: Duration::from_secs(1) }.into()],
            burst: 1,
            ..provider("p")
        });
        let limits = plan.limits.clone();
        let scheduler = Scheduler::new(queue.clone(), clock, plan.memory, limits, move |_| here.clone());
        let world = Arc::new(World {
            plan,
            scheduler,
            queue,
            clock,
            start: Instant::now(),
            rng: Mutex::new(Rng::with_seed(seed)),
            numbers: Mutex::new(numbers),
            came: Mutex::default(),
            left: Mutex::default(),
            stop: watch::Sender::new(false),
        });
        let weak = Arc::downgrade(&world);
        world.scheduler.on_start(move |lane| {
            if let Some(world) = weak.upgrade() {
                tokio::spawn(async move { world.work(lane).await });
            }
        });
        tokio::spawn(world.scheduler.clone().run(world.stop.subscribe()));
        world
    }

    /// A message is accepted.
    pub(super) async fn accept(&self, sender: &str, priority: i8) {
        let now = self.clock.now();
        let message = Arc::new(Message {
            id: self.queue.next_id(now),
            received: now,
            envelope: Envelope { reverse_path: Address::parse(sender).ok(), priority, ..Envelope::default() },
            origin: Origin::Local,
            size: 1,
            traits: BodyTraits::default(),
        });
        let number = self.numbers.lock().len();
        let event = Event { at: self.start.elapsed(), number, sender: sender.to_owned(), priority };
        self.numbers.lock().insert(message.id, event.clone());
        self.came.lock().push(event);
        let recipient = Recipient::new(Address::parse(&format!("r@{DOMAIN}")).expect("an address"));
        let new = NewRecipient { recipient, lane: LaneName::provider("p"), leased: false, held: None };
        let head = Bytes::from_static(b"x");
        let admission = self.scheduler.admit(&message, vec![new], &head);
        let new = NewMessage { message, recipients: admission.recipients, head };
        self.queue.accept(new).await.expect("accepted");
        self.scheduler.submit(admission.admitted, self.clock.now());
    }

    async fn work(self: Arc<World>, lane: Arc<Lane>) {
        let here = Arc::new(Route {
            lane: lane.name.clone(),
            provider: lane.provider.clone(),
            destination: DOMAIN.into(),
            hosts: Vec::new().into(),
            port: 25,
            facts: None,
        });
        let (_, counted) = lane.opened(DOMAIN);
        let mut left = 0;
        while !lane.retire((left > 0).then_some(&counted)) && !*self.stop.borrow() {
            let (mut job, wake) = match lane.next((left > 0).then_some(DOMAIN), Duration::from_secs(30)).await {
                Ok(got) => got,
                Err(Empty::Idle) => break,
                Err(Empty::Beyond) => {
                    self.put_off(&lane).await;
                    continue;
                }
            };
            self.scheduler.wake(&lane, wake);
            let mut route = here.clone();
            if left == 0 {
                let number = lane.lend(job, route);
                self.takes(self.plan.connect).await;
                let Some(Lent { job: mine, route: its }) = lane.take_back(number) else { panic!("it is there") };
                (job, route) = (mine, its);
                left = self.plan.messages_per_connection;
            }
            lane.take_earlier(&mut job, &mut route, |_| true);
            if !self.permitted(&lane, &mut job).await {
                self.scheduler.wake(&lane, lane.give_back(job));
                continue;
            }
            left -= 1;
            let at = self.start.elapsed();
            let event = self.numbers.lock().get(&job.message.message.id).cloned().expect("it came");
            self.left.lock().push(Event { at, ..event });
            self.takes(self.plan.send).await;
            // A host that answers, as in life: before its first answer the last connection is for other mail.
            lane.note_answered(&job, self.plan.send);
            let settle = |held: &Held| Settlement { key: job.key(held.index), verdict: Verdict::Delivered };
            let settled = self.queue.settle(job.recipients.iter().map(settle).collect(), Vec::new()).await;
            settled.expect("settled");
            lane.settled(job.recipients.len());
            drop(job);
            self.scheduler.attend(&lane);
        }
        self.scheduler.wake(&lane, lane.worker_gone());
    }

    /// As in `pipeline`: a message that takes the place of another needs a permit of its own.
    async fn permitted(&self, lane: &Lane, job: &mut Job) -> bool {
        loop {
            let before = job.message.message.id;
            let Ok(permit) = lane.permit(job).await else { return false };
            if job.message.message.id == before {
                permit.spend();
                return true;
            }
            drop(permit);
            lane.let_through_again(job);
        }
    }

    async fn put_off(&self, lane: &Arc<Lane>) {
        let now = self.clock.now();
        for beyond in lane.take_beyond() {
            let due = beyond.due(now, now.after(Duration::from_secs(86_400 * 365)));
            let settlements: Vec<_> = beyond.settlements(&lane.name, due).collect();
            let count = settlements.len();
            self.queue.settle(settlements, Vec::new()).await.expect("settled");
            lane.settled(count);
            self.scheduler.note_stored(lane, due);
        }
    }

    async fn takes(&self, most: Duration) {
        let time = most.mul_f64(self.rng.lock().f64());
        tokio::time::sleep(time).await;
    }

    pub(super) fn left(&self) -> usize {
        self.left.lock().len()
    }

    /// Waits until so many have left.
    pub(super) async fn until(&self, left: usize) {
        let end = Instant::now() + Duration::from_secs(2_000);
        while self.left() < left && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(self.left() >= left, "{} of {left} have left", self.left());
    }

    /// The places (from 0) at which a sender's messages left.
    pub(super) fn places(&self, sender: &str) -> Vec<usize> {
        let left = self.left.lock();
        left.iter().enumerate().filter(|(_, event)| event.sender == sender).map(|(at, _)| at).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

/// The ideal queue of one priority: senders in turn, each first in, first out.
#[derive(Default)]
struct Ideal {
    turns: VecDeque<String>,
    waiting: HashMap<String, VecDeque<usize>>,
}

impl Ideal {
    fn push(&mut self, event: &Event) {
        let queue = self.waiting.entry(event.sender.clone()).or_default();
        if queue.is_empty() {
            self.turns.push_back(event.sender.clone());
        }
        queue.push_back(event.number);
    }

    fn pop(&mut self) -> Option<usize> {
        let sender = self.turns.pop_front()?;
        let queue = self.waiting.get_mut(&sender)?;
        let number = queue.pop_front();
        if !queue.is_empty() {
            self.turns.push_back(sender);
        }
        number
    }
}

/// How much later than in the ideal queue of its priority each message left: the largest number of
/// messages; and the largest number of messages of the same sender and priority that came later and
/// left earlier.
pub(super) fn lag(came: &[Event], left: &[Event]) -> (usize, usize) {
    let mut ideal: BTreeMap<i8, Ideal> = BTreeMap::new();
    let (mut should, mut did) = (HashMap::new(), HashMap::new());
    let mut count: HashMap<i8, usize> = HashMap::new();
    let mut next = came.iter().peekable();
    for event in left {
        while let Some(came) = next.next_if(|came| came.at <= event.at) {
            ideal.entry(came.priority).or_default().push(came);
        }
        let place = count.entry(event.priority).or_default();
        if let Some(number) = ideal.entry(event.priority).or_default().pop() {
            should.insert(number, *place);
        }
        did.insert(event.number, *place);
        *place += 1;
    }
    let late = did.iter().filter_map(|(number, at)| Some(at.saturating_sub(*should.get(number)?))).max();
    let mut overtaken = 0;
    let mut of_sender: HashMap<(&str, i8), Vec<usize>> = HashMap::new();
    for event in left {
        of_sender.entry((&event.sender, event.priority)).or_default().push(event.number);
    }
    for numbers in of_sender.values() {
        for (at, number) in numbers.iter().enumerate() {
            overtaken = overtaken.max(numbers[..at].iter().filter(|earlier| *earlier > number).count());
        }
    }
    (late.unwrap_or_default(), overtaken)
}
