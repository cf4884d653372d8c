//! The whole relay in a simulated world; see `docs/simulation.md`.

#[path = "dns.rs"]
mod dns;
#[path = "gauge.rs"]
mod gauge;
#[path = "model.rs"]
mod model;
#[path = "net.rs"]
mod net;
#[path = "people.rs"]
mod people;
#[path = "plan.rs"]
mod plan;
#[path = "server.rs"]
mod server;
#[path = "store.rs"]
mod store;
#[path = "world.rs"]
mod world;

use std::sync::Arc;
use std::time::Duration;

use mailweir::app;
use mailweir::clock::{Clock, Timestamp};
use mailweir::deliver::Connector;
use mailweir::listener::Server;
use mailweir::pipeline::Relay;
use mailweir::queue::Desk;
use mailweir::queue::sqlite::InlineQueue;
use mailweir::route::Router;
use mailweir::schedule::Scheduler;
use model::Totals;
use parking_lot::Mutex;
use plan::{End, HOUR};
use store::Store;
use tokio::sync::watch;
use tokio::time::Instant;
use world::{BEGIN, World};

/// How often the whole queue is compared with the model.
const AUDIT: Duration = HOUR;
/// How long transactions may take to end at a SIGTERM.
const DRAIN: Duration = Duration::from_secs(30);
/// What is wrong that is told of one seed.
const TOLD: usize = 20;

/// What one seed gave.
#[derive(Debug)]
pub struct Outcome {
    /// Hash of the trace: equal for equal seeds.
    pub trace: u64,
    pub events: u64,
    pub simulated: Duration,
    pub lives: u32,
    pub transactions: u64,
    pub totals: Totals,
    /// From the healing of the world to the last fate.
    pub drained: Duration,
    /// Invariants that did not hold.
    pub wrong: Vec<String>,
}

/// Panics of all threads, since the relay outlives those of its workers.
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Lets panics be seen by [`run`]. For the whole process.
pub fn watch_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        PANICS.lock().push(info.to_string());
        usual(info);
    }));
}

/// How a life ended.
enum Ended {
    /// Another one begins, so long after it.
    Down(Duration),
    Over,
}

/// Runs a seed to its end.
pub fn run(seed: u64) -> Outcome {
    let panics = PANICS.lock().len();
    fastrand::seed(seed);
    let world = World::new(seed);
    let mut base = BEGIN;
    let mut queue = None;
    let mut lives = 0;
    // When it ended: outside of a life the paused clock cannot be asked.
    let end = loop {
        lives += 1;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
        let (ended, now) = runtime.block_on(live(&world, base, &mut queue));
        // Nothing of this life goes on: no task, no stream, no timer.
        world.kill();
        drop(runtime);
        match ended {
            Ended::Down(pause) if world.model(|model| model.wrong.is_empty()) => base = now.after(pause),
            _ => break now,
        }
    };
    let too_much = world.gauge(|gauge| gauge.check());
    world.wrong(too_much);
    world.wrong(PANICS.lock().iter().skip(panics).cloned());
    let (trace, events) = world.trace();
    let simulated = end.since(BEGIN);
    Outcome {
        trace,
        events,
        simulated,
        lives,
        transactions: world.gauge(|gauge| gauge.transactions()),
        totals: world.model(|model| model.totals),
        drained: simulated.saturating_sub(world.plan.heal),
        wrong: world.model(|model| model.wrong.iter().take(TOLD).cloned().collect()),
    }
}

/// One life of the relay, wired as `app` does it.
async fn live(world: &Arc<World>, base: Timestamp, kept: &mut Option<Arc<InlineQueue>>) -> (Ended, Timestamp) {
    let clock = Clock::Tokio { base, start: Instant::now() };
    world.begin(clock);
    let inline = match kept.take() {
        None => InlineQueue::open(clock),
        Some(old) => old.reopen(clock),
    }
    .expect("the queue opens");
    *kept = Some(inline.clone());
    let store = Store::new(inline, world.clone());
    let config = world.config.clone();
    let router = Arc::new(Router::with_name_server(config.clone(), Arc::new(dns::Zone(world.clone()))));
    let net = Arc::new(server::Net(world.clone()));
    let connector = Connector::new(&config.hostname).expect("a connector").with_dialer(net);
    let scheduler = Scheduler::new(store.clone(), clock, config.queue.memory, config.limits.clone(), {
        let router = router.clone();
        move |lane| router.provider_of_lane(lane)
    });
    let (stop, stopping) = watch::channel(false);
    let relay =
        Relay::new(config.clone(), clock, store.clone(), router, connector, scheduler.clone(), stopping.clone());
    let new = store.counts().await.expect("counts").messages == 0;
    while let Err(error) = scheduler.begin_rates(new).await {
        world.note(format_args!("no start: {error}"));
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    while let Err(error) = relay.recall().await {
        // Whoever watches over the process starts it again.
        world.note(format_args!("no start: {error}"));
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    let server =
        Arc::new(Server::bind(Arc::new(listener(&config)), &config.hostname, relay.clone()).expect("a listener"));
    store.audit().await;
    world.note(format_args!("life {base}"));

    tokio::spawn(scheduler.clone().run(stopping.clone()));
    tokio::spawn(app::keep_house(relay.clone(), stopping.clone()));
    tokio::spawn(app::keep_expiring(relay.clone(), stopping.clone()));
    tokio::spawn(relay.clone().keep_reporting(stopping.clone()));
    let feedback = tokio::spawn(relay.clone().keep_feedback(stopping.clone()));
    tokio::spawn(people::applications(world.clone(), server, stopping.clone()));
    let controls = app::operator(relay.clone(), Vec::new(), None, Vec::new());
    tokio::spawn(people::operator(world.clone(), controls, clock));

    let mut end = world.plan.ends.iter().find(|(at, _)| *at > world.now()).copied();
    loop {
        let now = world.now();
        let next = now + AUDIT;
        let until = end.map_or(next, |(at, _)| next.min(at.max(now + Duration::from_millis(1))));
        tokio::select! {
            biased;
            () = world.died.notified() => {
                world.note("crash");
                break;
            }
            () = tokio::time::sleep(until - now) => {}
        }
        store.audit().await;
        // A lane that counts workers whom nobody started has fewer connections than it may, for ever.
        let counted: usize = scheduler.lanes().iter().map(|lane| lane.snapshot().workers as usize).sum();
        if counted != relay.workers.count() {
            world.wrong([format!("{counted} workers are counted, {} are there", relay.workers.count())]);
        }
        if let Some((at, how)) = end
            && world.now() >= at
        {
            match how {
                // Whenever the relay next has something to do.
                End::Crash(steps) => {
                    world.light(steps);
                    end = None;
                }
                End::Stop => {
                    world.note("stop");
                    let _ = stop.send(true);
                    let _ = tokio::time::timeout(DRAIN, relay.workers.none()).await;
                    let _ = tokio::time::timeout(Duration::from_secs(2), feedback).await;
                    if let Err(error) = scheduler.end_rates().await {
                        world.note(format_args!("no end: {error}"));
                    }
                    break;
                }
            }
        }
        if !world.model(|model| model.wrong.is_empty()) {
            world.note(shown(&scheduler));
            return (Ended::Over, clock.now());
        }
        let heal = world.plan.heal;
        if world.now() >= heal + HOUR && world.model(|model| model.open(clock.now()).is_empty()) {
            return (Ended::Over, clock.now());
        }
        // What came later, which is DSNs, may wait as long, from then on.
        let well = world.now().saturating_sub(heal).checked_sub(world.plan.patience);
        let late = well.map_or(Vec::new(), |well| world.model(|model| model.open(BEGIN.after(heal + well))));
        if !late.is_empty() {
            world.note(shown(&scheduler));
            world.wrong([format!("all is well since {heal:?}, and these wait: {late:?}")]);
            return (Ended::Over, clock.now());
        }
    }
    let now = clock.now();
    (Ended::Down(world.wait(Duration::from_secs(300))), now)
}

/// The lanes, for the end of a trace.
fn shown(scheduler: &Scheduler) -> String {
    scheduler.lanes().iter().map(|lane| format!("{}: {:?}\n", lane.name, lane.snapshot())).collect()
}

fn listener(config: &mailweir::config::Config) -> mailweir::config::Listener {
    let mut listener = (*config.listeners[0]).clone();
    // Bound, though nobody connects to it: sessions come from elsewhere.
    listener.address = ([127, 0, 0, 1], 0).into();
    listener
}

/// What many seeds gave.
#[derive(Default, Debug)]
pub struct Sum {
    pub seeds: u64,
    pub lives: u64,
    pub events: u64,
    pub transactions: u64,
    pub recipients: u64,
    pub delivered: u64,
    pub failed: u64,
    pub cancelled: u64,
    pub deferred: u64,
    pub dsn: u64,
    pub twice: u64,
    pub longest_drain: Duration,
}

impl Sum {
    pub fn add(&mut self, outcome: &Outcome) {
        let totals = outcome.totals;
        self.seeds += 1;
        self.lives += u64::from(outcome.lives);
        self.events += outcome.events;
        self.transactions += outcome.transactions;
        self.recipients += totals.recipients;
        self.delivered += totals.delivered;
        self.failed += totals.failed;
        self.cancelled += totals.cancelled;
        self.deferred += totals.deferred;
        self.dsn += totals.dsn;
        self.twice += totals.twice;
        self.longest_drain = self.longest_drain.max(outcome.drained);
    }
}
